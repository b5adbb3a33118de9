//! What is upstream: an event URL and how to reach it, the same for every kind of source and for `tail`.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http_body_util::Empty;
use hyper::Request;
use hyper::header::{self, HeaderMap, HeaderValue};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, Error as TlsError, InvalidMessage};
use tokio_tungstenite::MaybeTlsStream;
use tracing::{debug, info, warn};
use url::Url;

use super::Destination;
use crate::listen;
use crate::reason;
use crate::stream::via::Via;

/// How long one attempt to connect may take, up to the upstream's answer to the handshake or request.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long each of an upstream's addresses may take to answer before the next one is tried.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(3);

/// An event URL and how to reach it.
#[derive(Clone)]
pub struct Upstream {
    /// `ws://`, `wss://`, `http://` or `https://`.
    pub url: Url,
    /// Sent with each handshake or request.
    pub headers: HeaderMap,
    /// Sent in order as text messages on each connect of a WebSocket.
    pub messages: Vec<String>,
    /// For `wss://` and `https://`.
    pub tls: Option<Arc<ClientConfig>>,
    /// The largest message taken, in bytes.
    pub max_message_size: usize,
    /// How often the upstream is pinged; silent for two intervals, it is taken for dead.
    pub ping_interval: Duration,
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        shown(&self.url).fmt(f)
    }
}

/// For logs and error texts: a user name, a password or a query may be a secret, so they are left out.
pub fn shown(url: &Url) -> Url {
    let mut shown = url.clone();
    // These fail only for URLs without a host.
    let _ = shown.set_username("");
    let _ = shown.set_password(None);
    shown.set_query(url.query().map(|_| "..."));
    shown
}

impl Upstream {
    /// Whether this URL plainly leads to one of these addresses. A name other than localhost is not looked up.
    pub fn is_at(&self, addresses: &[SocketAddr]) -> bool {
        let host = self.url.host_str().unwrap_or_default();
        let port = self.url.port_or_known_default();
        port.is_some_and(|port| listen::leads_to(addresses, host, port))
    }

    /// Adds the headers that are meant for this upstream and for no other: credentials from the URL, and what the user
    /// says, which takes the place of what is there.
    pub fn introduce(&self, headers: &mut HeaderMap) -> Result<()> {
        if let Some(credentials) = self.credentials()? {
            headers.insert(header::AUTHORIZATION, credentials);
        }
        headers.extend(self.headers.clone());
        Ok(())
    }

    /// User name and password in the URL, as the header that carries them (RFC 7617).
    fn credentials(&self) -> Result<Option<HeaderValue>> {
        if self.url.username().is_empty() && self.url.password().is_none() {
            return Ok(None);
        }
        let decode = |text| percent_encoding::percent_decode_str(text).collect::<Vec<u8>>();
        let user = decode(self.url.username());
        let password = decode(self.url.password().unwrap_or_default());
        let credentials = BASE64.encode([&user[..], b":", &password].concat());
        let mut value = HeaderValue::from_str(&format!("Basic {credentials}"))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

/// A GET request for what a URL names, with the header Host and no other (RFC 9112, section 3.2).
pub fn get(url: &Url) -> Result<Request<Empty<Bytes>>> {
    let target = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let host = url.host_str().context("the URL has no host")?;
    let host = match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    let request = Request::get(target).header(header::HOST, host);
    Ok(request.body(Empty::new())?)
}

/// Connects to the URL's host, with TLS if the scheme says so.
pub async fn open_stream(
    url: &Url,
    tls: Option<&Arc<ClientConfig>>,
) -> Result<MaybeTlsStream<TcpStream>> {
    // An IPv6 address stands in brackets in a URL only.
    let host = url.host_str().context("the URL has no host")?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = url.port_or_known_default().context("the URL has no port")?;
    let socket = open_socket(host, port).await?;
    socket.set_nodelay(true)?;
    if !matches!(url.scheme(), "wss" | "https") {
        return Ok(MaybeTlsStream::Plain(socket));
    }
    let tls = tls.context("there are no TLS settings")?.clone();
    let name = ServerName::try_from(host.to_owned())?;
    let connecting = TlsConnector::from(tls).connect(name, socket);
    let connected = connecting.await.map_err(|error| no_tls(url, error))?;
    Ok(MaybeTlsStream::Rustls(connected))
}

/// What answers a TLS handshake with anything else does not speak TLS.
fn no_tls(url: &Url, error: io::Error) -> anyhow::Error {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    match cause {
        Some(TlsError::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            let plain = if url.scheme() == "wss" { "ws" } else { "http" };
            anyhow::anyhow!("there is no TLS at this port; did you mean {plain}://?")
        }
        _ => error.into(),
    }
}

/// Tries the host's addresses in turn.
async fn open_socket(host: &str, port: u16) -> Result<TcpStream> {
    let mut failure = anyhow::anyhow!("{host} has no address");
    for address in lookup_host((host, port)).await? {
        match timeout(ADDRESS_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(socket)) => return Ok(socket),
            Ok(Err(error)) => failure = error.into(),
            Err(_) => failure = anyhow::anyhow!("{address} does not answer"),
        }
    }
    Err(failure)
}

/// Tells the log when an upstream is lost and when it is back, not each attempt; and the list of streams whether it is there.
pub struct Presence {
    url: String,
    is_lost: bool,
    was_connected: bool,
    via: Arc<Via>,
    number: usize,
}

impl Presence {
    /// There has been no connection yet.
    pub fn of(upstream: &Upstream, to: &Destination) -> Self {
        Self {
            url: upstream.to_string(),
            is_lost: false,
            was_connected: false,
            via: to.via.clone(),
            number: to.number,
        }
    }

    /// A connection has been made.
    pub fn connected(&mut self) {
        self.is_lost = false;
        self.was_connected = true;
        self.via.connected(self.number);
        info!(url = self.url, "upstream connected");
    }

    /// An attempt to connect has failed, or a connection has ended.
    pub fn lost(&mut self, error: &anyhow::Error) {
        let reason = reason::of(error);
        let refused = error.downcast_ref::<super::refusal::Refused>();
        let refused = refused.filter(|refused| refused.status.is_client_error());
        let refused = refused.map(|refused| (refused.status.as_u16(), reason.clone()));
        self.via.lost(self.number, refused);
        if std::mem::replace(&mut self.is_lost, true) {
            debug!(url = self.url, %reason, "upstream still away");
        } else if self.was_connected {
            warn!(url = self.url, %reason, "upstream lost");
        } else {
            warn!(url = self.url, %reason, "cannot reach upstream, trying again");
        }
    }

    /// It has said that there is no more to come.
    pub fn ended(&self) {
        const REASON: &str = "upstream has ended: it answered 204";
        self.via.lost(self.number, Some((204, REASON.to_owned())));
        info!(url = self.url, "{REASON}");
    }
}
