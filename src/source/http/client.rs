//! One connection after another to an event stream over HTTP, for the source and for `tail`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::{Buf, Bytes};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};
use tokio::time::timeout;
use tokio_rustls::rustls::ClientConfig;
use tokio_util::either::Either;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info};
use url::Url;

use super::decode::{Decoder, Item, Media};
use crate::event::Origin;
use crate::reason;
use crate::source::refusal::{Refused, Unfit};
use crate::source::upstream::{CONNECT_TIMEOUT, Upstream, get, open_stream, shown};
use crate::tls::client_config;
use crate::wire::RESUMED;
use crate::wire::compress::{Coding, Expander};
use crate::wire::hop::INSTANCE;

/// Server-sent events if there are any: every server of event streams has them.
pub const EVENT_STREAM_OR_NDJSON: &str = "text/event-stream, application/x-ndjson;q=0.9";
/// NDJSON if there is any.
pub const NDJSON_OR_EVENT_STREAM: &str = "application/x-ndjson, text/event-stream;q=0.9";
/// Server-sent events.
pub const EVENT_STREAM: &str = "text/event-stream";
/// NDJSON.
pub const NDJSON: &str = "application/x-ndjson";

/// How a body may be compressed.
const CODINGS: &str = "zstd, gzip;q=0.9";

/// From where to go on (WHATWG HTML, section 9.2.4).
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Some servers refuse clients that do not say what they are.
const USER_AGENT: &str = concat!("wsevent/", env!("CARGO_PKG_VERSION"));

const MAX_REDIRECTS: usize = 10;
/// The most that an answer's head may have, in bytes; at the same time what one read takes at most.
const MAX_HEAD: usize = 64 << 10;
/// A wsevent that serves an event stream says something three times as often.
const SILENCE: Duration = Duration::from_secs(45);
/// Other servers may say nothing for as long as they like, so it is left to TCP to find out that one is gone.
const KEEPALIVE_TIME: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// An upstream, and what has to be known of it from one connection to the next.
pub struct Client {
    upstream: Arc<Upstream>,
    accept: &'static str,
    /// Where a permanent redirect has led to.
    moved_to: Option<Url>,
    last_event_id: Option<String>,
}

/// What the upstream has answered.
pub enum Answer {
    /// A stream.
    Stream(Box<Stream>),
    /// There is nothing more to come, and nothing to try again (WHATWG HTML, section 9.2.3).
    NoContent,
}

/// A stream on its way.
pub struct Stream {
    body: Incoming,
    decoder: Decoder,
    /// Takes the compression out, if there is one.
    expander: Option<Box<Packed>>,
    /// What has arrived and is not taken yet.
    arrived: Bytes,
    /// The name of how it comes.
    pub transport: &'static str,
    /// Which instance has answered, if it is a wsevent.
    pub instance: Option<Origin>,
    /// How long nothing at all may come.
    silence: Option<Duration>,
    _connection: AbortOnDropHandle<()>,
}

/// The compressed body of an answer.
struct Packed {
    expander: Expander,
    /// What has arrived and is not expanded yet.
    packed: Bytes,
    /// There may be more to be had without anything else arriving.
    has_more: bool,
}

/// So much of a compressed body is expanded at a time, in bytes, however much there is.
const EXPANDED: usize = 64 << 10;

impl Packed {
    /// In a box: most bodies are not compressed.
    fn new(coding: Coding) -> Option<Box<Self>> {
        Some(Box::new(Self {
            expander: Expander::new(coding)?,
            packed: Bytes::new(),
            has_more: false,
        }))
    }

    /// The next part of what has arrived; none if something else has to arrive first.
    fn next(&mut self) -> Result<Option<Bytes>> {
        if !self.has_more {
            return Ok(None);
        }
        let mut piece = vec![0; EXPANDED];
        let mut rest = &self.packed[..];
        let len = self.expander.next(&mut rest, &mut piece)?;
        let taken = self.packed.len() - rest.len();
        self.packed.advance(taken);
        self.has_more = len == piece.len();
        piece.truncate(len);
        Ok(Some(piece.into()).filter(|piece: &Bytes| !piece.is_empty()))
    }
}

impl Client {
    /// `accept` is what the stream may be had as: a value of the header Accept.
    pub fn new(upstream: Arc<Upstream>, accept: &'static str) -> Self {
        Self {
            upstream,
            accept,
            moved_to: None,
            last_event_id: None,
        }
    }

    /// The next connection goes on behind this event, if there is one; the empty id takes back what was known.
    pub fn resume_after(&mut self, id: Option<&str>) {
        if let Some(id) = id {
            self.last_event_id = Some(id.to_owned()).filter(|id| !id.is_empty());
        }
    }

    /// Whether the next connection can say where to go on.
    pub fn can_resume(&self) -> bool {
        self.last_event_id.is_some()
    }

    /// From here on this is what is asked for.
    pub fn set_url(&mut self, url: Url) {
        if self.upstream.url != url {
            Arc::make_mut(&mut self.upstream).url = url;
            self.moved_to = None;
        }
    }

    /// Asks for the stream once, wherever it is.
    pub async fn open(&mut self) -> Result<Answer> {
        let attempt = timeout(CONNECT_TIMEOUT, self.follow_redirects()).await;
        let answer = attempt.unwrap_or_else(|_| bail!("no answer within {CONNECT_TIMEOUT:?}"));
        if answer.is_err() {
            // It may have moved back.
            self.moved_to = None;
        }
        answer
    }

    async fn follow_redirects(&mut self) -> Result<Answer> {
        let start = self.moved_to.as_ref().unwrap_or(&self.upstream.url);
        let mut seen = vec![start.clone()];
        let mut is_permanent = true;
        loop {
            let url = seen.last().expect("it has a first");
            let (response, connection) = self.request(url).await?;
            let status = response.status();
            if !is_redirect(status) {
                if seen.len() > 1 && is_permanent {
                    info!(url = %self.upstream, to = self.upstream.shown(url), "upstream has moved");
                    self.moved_to = seen.pop();
                }
                return self.answer(response, connection).await;
            }
            is_permanent &= matches!(
                status,
                StatusCode::MOVED_PERMANENTLY | StatusCode::PERMANENT_REDIRECT
            );
            let next = redirect(url, response.headers())
                .map_err(|error| Unfit(format!("{status}: {}", reason::of(&error))))?;
            let to = self.upstream.shown(&next);
            debug!(from = self.upstream.shown(url), to, %status, "redirected");
            if let Some(within) = self.upstream.within.as_ref()
                && !self.upstream.admits(&next)
            {
                let within = self.upstream.shown(within);
                bail!(Unfit(format!(
                    "{status}: redirected to {to}, and where clients say the path only redirects below {within} are followed"
                )));
            }
            if seen.contains(&next) {
                bail!(Unfit(format!("redirected in a circle, to {to} again")));
            }
            if seen.len() > MAX_REDIRECTS {
                bail!(Unfit(format!("redirected more than {MAX_REDIRECTS} times")));
            }
            seen.push(next);
        }
    }

    /// One request and the head of its answer.
    async fn request(&self, url: &Url) -> Result<(Response<Incoming>, AbortOnDropHandle<()>)> {
        // What cannot be sent needs no connection.
        let request = self.request_for(url).await?;
        let tls = match url.scheme() {
            "https" => Some(self.tls().await?),
            _ => None,
        };
        let stream = open_stream(url, tls.as_ref()).await?;
        let socket = match &stream {
            Either::Left(socket) => socket,
            Either::Right(stream) => stream.get_ref().0,
        };
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE_TIME)
            .with_interval(KEEPALIVE_INTERVAL);
        SockRef::from(socket).set_tcp_keepalive(&keepalive)?;
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_HEAD)
            .handshake(TokioIo::new(stream))
            .await?;
        // How it ends shows in the answer and its body.
        let connection = tokio::spawn(async move { drop(connection.await) });
        let connection = AbortOnDropHandle::new(connection);
        let response = sender.send_request(request).await?;
        Ok((response, connection))
    }

    /// There already, unless it is a redirect that has led to `https://`.
    async fn tls(&self) -> Result<Arc<ClientConfig>> {
        match &self.upstream.tls {
            Some(tls) => Ok(tls.clone()),
            None => tokio::task::spawn_blocking(|| client_config(None, None)).await?,
        }
    }

    async fn request_for(&self, url: &Url) -> Result<Request<Empty<Bytes>>> {
        let mut request = get(url)?;
        let headers = request.headers_mut();
        headers.insert(header::ACCEPT, HeaderValue::from_static(self.accept));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.upstream.compress {
            let codings = HeaderValue::from_static(CODINGS);
            headers.insert(header::ACCEPT_ENCODING, codings);
        }
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        if let Some(id) = &self.last_event_id {
            match HeaderValue::from_bytes(id.as_bytes()) {
                Ok(id) => drop(headers.insert(LAST_EVENT_ID, id)),
                Err(_) => debug!("the last id has characters that a header cannot have"),
            }
        }
        // They are meant for where the configured URL is, and may be secrets: nobody else gets them, wherever it redirects.
        if url.origin() == self.upstream.url.origin() {
            self.upstream.introduce(headers).await?;
        }
        Ok(request)
    }

    async fn answer(
        &self,
        response: Response<Incoming>,
        connection: AbortOnDropHandle<()>,
    ) -> Result<Answer> {
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NO_CONTENT => return Ok(Answer::NoContent),
            _ => return Err(Refused::read(&self.upstream, response).await.into()),
        }
        let media = media(response.headers())?;
        let coding = coding(response.headers(), self.upstream.compress)?;
        let packed = coding.and_then(Packed::new);
        // Nobody else sends it.
        let from_wsevent = response.headers().contains_key(RESUMED);
        let instance = response.headers().get(INSTANCE);
        let instance = instance.and_then(|instance| instance.to_str().ok()?.parse().ok());
        Ok(Answer::Stream(Box::new(Stream {
            body: response.into_body(),
            decoder: Decoder::new(media, from_wsevent, self.upstream.max_message_size),
            expander: packed,
            arrived: Bytes::new(),
            transport: match media {
                Media::EventStream => "sse",
                Media::Ndjson => "ndjson",
            },
            instance,
            silence: (from_wsevent && media == Media::EventStream).then_some(SILENCE),
            _connection: connection,
        })))
    }
}

impl Stream {
    /// Waits until something has arrived; false at the end of the stream, if that is a proper one.
    pub async fn wait(&mut self) -> Result<bool> {
        loop {
            if let Some(packed) = &mut self.expander
                && let Some(piece) = packed.next()?
            {
                self.arrived = piece;
                return Ok(true);
            }
            let Some(arrived) = self.frame().await? else {
                return Ok(false);
            };
            match &mut self.expander {
                Some(packed) => {
                    packed.packed = arrived;
                    packed.has_more = true;
                }
                None => {
                    self.arrived = arrived;
                    return Ok(true);
                }
            }
        }
    }

    /// Waits for the next part of the body, as it is sent; none at its end.
    async fn frame(&mut self) -> Result<Option<Bytes>> {
        let frame = match self.silence {
            Some(silence) => match timeout(silence, self.body.frame()).await {
                Ok(frame) => frame,
                Err(_) => bail!("silent for {silence:?}"),
            },
            None => self.body.frame().await,
        };
        // Anything else is trailers, which have no meaning here.
        let data = frame
            .transpose()?
            .map(|frame| frame.into_data().unwrap_or_default());
        Ok(data)
    }

    /// The next of what has arrived.
    pub fn item(&mut self) -> Option<Item> {
        let mut rest = &self.arrived[..];
        let item = self.decoder.next(&mut rest);
        let taken = self.arrived.len() - rest.len();
        self.arrived.advance(taken);
        item
    }

    /// The id of the last event that has been taken, if one was given.
    pub fn last_event_id(&self) -> Option<&str> {
        self.decoder.last_event_id()
    }
}

/// Those that stand for another place (RFC 9110, section 15.4).
fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Where a redirect leads to (RFC 9110, section 10.2.2).
fn redirect(from: &Url, headers: &HeaderMap) -> Result<Url> {
    let location = headers.get(header::LOCATION).context("no Location")?;
    let location = std::str::from_utf8(location.as_bytes()).context("its Location is no text")?;
    let mut to = from.join(location).context("its Location is no URL")?;
    to.set_fragment(None);
    match (from.scheme(), to.scheme()) {
        ("https", "http") => bail!(
            "redirects from https:// to {}, which anybody could read",
            shown(&to)
        ),
        (_, "http" | "https") => {}
        (_, scheme) => bail!("redirects to {scheme}:, which cannot be read"),
    }
    // A server's word does not make somebody log in.
    let (name, password) = (to.set_username(""), to.set_password(None));
    name.and(password)
        .map_err(|()| anyhow::anyhow!("its Location has no host"))?;
    Ok(to)
}

/// How the body of an answer is compressed, if it is. `was_asked` says whether it may be.
fn coding(headers: &HeaderMap, was_asked: bool) -> Result<Option<Coding>> {
    let Some(coding) = headers.get(header::CONTENT_ENCODING) else {
        return Ok(None);
    };
    let name = coding.as_bytes().to_ascii_lowercase();
    match &name[..] {
        b"identity" => Ok(None),
        b"gzip" | b"x-gzip" if was_asked => Ok(Some(Coding::Gzip)),
        b"zstd" if was_asked => Ok(Some(Coding::Zstd)),
        _ => bail!(Unfit(format!(
            "the upstream's answer is encoded with {}, which was not asked for",
            coding.as_bytes().escape_ascii()
        ))),
    }
}

/// What the body of an answer is.
fn media(headers: &HeaderMap) -> Result<Media> {
    let content_type = headers.get(header::CONTENT_TYPE);
    let Some(content_type) = content_type.map(HeaderValue::as_bytes) else {
        bail!(Unfit(
            "the upstream's answer is no event stream: it has no Content-Type".into()
        ));
    };
    let essence = content_type.split(|&byte| byte == b';').next();
    let essence = essence
        .unwrap_or_default()
        .trim_ascii()
        .to_ascii_lowercase();
    match &essence[..] {
        b"text/event-stream" => Ok(Media::EventStream),
        b"application/x-ndjson" | b"application/ndjson" | b"application/jsonl" => Ok(Media::Ndjson),
        _ => bail!(Unfit(format!(
            "the upstream's answer is no event stream but {}",
            content_type.escape_ascii()
        ))),
    }
}

#[cfg(test)]
mod tests;
