//! The client's side of the opening handshake (RFC 6455, section 4.1), over hyper: a server that does not take the
//! subprotocol it is offered is welcome, too.

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::event::Origin;
use crate::source::refusal::{Refused, Unfit};
use crate::source::upstream::{Stream, Upstream, get};
use crate::wire::RESUMED;
use crate::wire::hop::{self, SUBPROTOCOL};
use crate::wire::websocket::extensions;

/// Whether the upstream may have refused because of the subprotocol it was offered. Of these statuses, some say plainly that
/// it was something else.
pub fn may_be_for_the_offer(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Refused>().is_some_and(|refused| {
        let says_otherwise = [
            StatusCode::UNAUTHORIZED,
            StatusCode::FORBIDDEN,
            StatusCode::NOT_FOUND,
            StatusCode::TOO_MANY_REQUESTS,
            StatusCode::BAD_GATEWAY,
            StatusCode::SERVICE_UNAVAILABLE,
            StatusCode::GATEWAY_TIMEOUT,
        ];
        let status = refused.status;
        (status.is_client_error() || status.is_server_error()) && !says_otherwise.contains(&status)
    })
}

/// What the server's answer says.
pub struct Agreed {
    /// It has taken the offer to be a hop link.
    pub is_hop: bool,
    /// Its messages may be compressed.
    pub is_deflated: bool,
    /// Which instance it is, if it is a wsevent.
    pub instance: Option<Origin>,
    /// It has not all that the URL asks for of the stream's past; nor has who was not asked.
    pub falls_short: bool,
}

/// Makes a WebSocket of `stream` with this `request`; with it comes what the server has sent right behind its answer.
pub async fn shake_hands(
    upstream: &Upstream,
    stream: Stream,
    request: Request<Empty<Bytes>>,
) -> Result<(Stream, Bytes, Agreed)> {
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY);
    let key = key.cloned().context("the request has no key")?;
    let offered = Offered::by(&request);
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut connection = connection.with_upgrades();
    let exchange = async {
        let response = sender.send_request(request).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(Refused::read(upstream, response).await.into());
        }
        let agreed = check(&response, key.as_bytes(), &offered)?;
        anyhow::Ok((hyper::upgrade::on(response).await?, agreed))
    };
    let mut exchange = std::pin::pin!(exchange);
    let (upgraded, agreed) = tokio::select! {
        result = &mut exchange => result?,
        ended = &mut connection => {
            // It has ended by handing its socket on, or the server has closed it, perhaps without an answer. How it ended
            // says more than that there was no answer, but no more than an answer does.
            match exchange.await {
                Err(error) if !error.is::<Refused>() => {
                    ended?;
                    return Err(error);
                }
                result => result?,
            }
        }
    };
    match upgraded.downcast::<TokioIo<Stream>>() {
        Ok(parts) => Ok((parts.io.into_inner(), parts.read_buf, agreed)),
        Err(_) => bail!("the connection has changed its kind"),
    }
}

/// The request for a handshake. `offer` says whether to propose being a hop link.
pub async fn request(upstream: &Upstream, offer: bool) -> Result<Request<Empty<Bytes>>> {
    let mut request = get(&upstream.url)?;
    let headers = request.headers_mut();
    for (name, value) in [
        (header::CONNECTION, "Upgrade"),
        (header::UPGRADE, "websocket"),
        (header::SEC_WEBSOCKET_VERSION, "13"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(
        header::SEC_WEBSOCKET_KEY,
        HeaderValue::from_str(&generate_key())?,
    );
    if offer {
        let subprotocol = HeaderValue::from_static(SUBPROTOCOL);
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, subprotocol);
    }
    if upstream.compress {
        let offer = HeaderValue::from_static(extensions::OFFER);
        headers.insert(header::SEC_WEBSOCKET_EXTENSIONS, offer);
    }
    if upstream.is_peer {
        headers.insert(hop::SCOPE, HeaderValue::from_static(hop::LOCAL));
    }
    upstream.introduce(headers).await?;
    Ok(request)
}

/// What a server may have taken.
pub struct Offered {
    subprotocol: Option<HeaderValue>,
    /// Whether that is [`extensions::OFFER`].
    extensions: bool,
}

impl Offered {
    /// By a request for a handshake.
    pub fn by<B>(request: &Request<B>) -> Self {
        let headers = request.headers();
        Self {
            subprotocol: headers.get(header::SEC_WEBSOCKET_PROTOCOL).cloned(),
            extensions: headers.contains_key(header::SEC_WEBSOCKET_EXTENSIONS),
        }
    }
}

/// What a server that switches protocols says; an error if it has not done what a server must.
pub fn check<B>(response: &Response<B>, key: &[u8], offered: &Offered) -> Result<Agreed> {
    let get = |name: HeaderName| {
        let value = response.headers().get(name);
        value
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    let mut connection = get(header::CONNECTION).split(',').map(str::trim);
    if !get(header::UPGRADE).eq_ignore_ascii_case("websocket")
        || !connection.any(|option| option.eq_ignore_ascii_case("upgrade"))
    {
        bail!(Unfit(
            "the upstream has switched to another protocol than WebSocket".into()
        ));
    }
    if get(header::SEC_WEBSOCKET_ACCEPT) != derive_accept_key(key) {
        bail!(Unfit(
            "the upstream has answered another handshake than ours".into()
        ));
    }
    let is_deflated = match extensions::agreed(response.headers()) {
        Ok(false) => false,
        Ok(true) if offered.extensions => true,
        _ => bail!(Unfit(
            "the upstream uses an extension that it was not asked for".into()
        )),
    };
    let taken = get(header::SEC_WEBSOCKET_PROTOCOL);
    let offered = offered.subprotocol.as_ref();
    let offered = offered.and_then(|offered| offered.to_str().ok());
    let mut offered = offered.unwrap_or_default().split(',').map(str::trim);
    if !taken.is_empty() && !offered.any(|offered| offered == taken) {
        bail!(Unfit(
            "the upstream has chosen a subprotocol that it was not offered".into()
        ));
    }
    // Some servers take whatever they are offered first. Nothing has been sent yet that they would wonder at.
    let is_hop = taken == SUBPROTOCOL && response.headers().contains_key(hop::INSTANCE);
    Ok(Agreed {
        is_hop,
        is_deflated,
        instance: get(hop::INSTANCE).parse().ok(),
        falls_short: matches!(get(RESUMED), "no" | "partial"),
    })
}
