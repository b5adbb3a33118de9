//! The WebSocket source: reads anybody's WebSocket, each message one event, and comes back whenever it is cut off.

use std::fmt;
use std::fs::File;
use std::io::BufReader;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures_util::{FutureExt, SinkExt, StreamExt};
use hyper::http::{HeaderMap, HeaderValue};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep, timeout};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::{Error, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, WebSocketConfig};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, client_async_tls_with_config};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use url::{Host, Url};

use super::Backoff;
use crate::event::{Kind, Payload};
use crate::reason;
use crate::stream::EventLog;
use crate::wire::websocket::MAX_CONTROL_PAYLOAD;

/// How long one attempt to connect may take, up to the upstream's answer to the handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long each of an upstream's addresses may take to answer before the next one is tried.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a farewell to an upstream may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Upstreams are few and may be busy: one read takes many events.
const READ_BUFFER: usize = 32 << 10;

/// An event URL and how to reach it.
#[derive(Clone)]
pub struct Upstream {
    /// `ws://` or `wss://`.
    pub url: Url,
    /// Sent with each handshake.
    pub headers: HeaderMap,
    /// Sent in order as text messages on each connect.
    pub messages: Vec<String>,
    /// For `wss://`.
    pub tls: Option<Arc<ClientConfig>>,
    /// The largest message taken, in bytes.
    pub max_message_size: usize,
    /// How often the upstream is pinged; silent for two intervals, it is taken for dead.
    pub ping_interval: Duration,
}

/// An open connection to an upstream.
pub type Link = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// For logs and error texts: a user name, a password or a query may be a secret, so they are left out.
impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.url.clone();
        // These fail only for URLs without a host.
        let _ = shown.set_username("");
        let _ = shown.set_password(None);
        shown.set_query(self.url.query().map(|_| "..."));
        shown.fmt(f)
    }
}

/// The TLS settings for upstreams: the system's roots, and those in the PEM file `ca`.
pub fn tls_config(ca: Option<&Path>) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    for error in native.errors {
        debug!(%error, "cannot read one of the system's root certificates");
    }
    roots.add_parsable_certificates(native.certs);
    if let Some(path) = ca {
        let cannot = || format!("cannot read certificates from {}", path.display());
        let file = BufReader::new(File::open(path).with_context(cannot)?);
        let mut count = 0;
        for certificate in CertificateDer::pem_reader_iter(file) {
            roots
                .add(certificate.with_context(cannot)?)
                .with_context(cannot)?;
            count += 1;
        }
        if count == 0 {
            bail!(
                "{}: there is no certificate in it (PEM is expected)",
                cannot()
            );
        }
    }
    // By name: left to itself, rustls chooses, and panics where two providers have been compiled in.
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

impl Upstream {
    /// Whether this URL plainly is `path` at one of these addresses. A name other than localhost is not looked up.
    pub fn is_at(&self, addresses: &[SocketAddr], path: &str) -> bool {
        let is_host = |address: &SocketAddr| match self.url.host() {
            Some(Host::Ipv4(ip)) => {
                address.ip() == ip || address.ip().is_unspecified() && ip.is_loopback()
            }
            Some(Host::Ipv6(ip)) => {
                address.ip() == ip || address.ip().is_unspecified() && ip.is_loopback()
            }
            Some(Host::Domain(name)) => {
                name == "localhost" && (address.ip().is_loopback() || address.ip().is_unspecified())
            }
            None => false,
        };
        let port = self.url.port_or_known_default();
        let at = |address: &SocketAddr| Some(address.port()) == port && is_host(address);
        self.url.scheme() == "ws" && self.url.path() == path && addresses.iter().any(at)
    }

    /// Connects once, and sends the messages that belong to each connect.
    pub async fn connect(&self) -> Result<Link> {
        let attempt = timeout(CONNECT_TIMEOUT, self.try_connect()).await;
        attempt.unwrap_or_else(|_| bail!("no answer within {CONNECT_TIMEOUT:?}"))
    }

    async fn try_connect(&self) -> Result<Link> {
        let mut request = self.url.as_str().into_client_request()?;
        if let Some(credentials) = self.credentials()? {
            request
                .headers_mut()
                .insert(hyper::header::AUTHORIZATION, credentials);
        }
        request.headers_mut().extend(self.headers.clone());
        let socket = self.open_socket().await?;
        socket.set_nodelay(true)?;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .max_message_size(Some(self.max_message_size))
            .max_frame_size(Some(self.max_message_size.max(MAX_CONTROL_PAYLOAD)));
        let connector = match &self.tls {
            Some(tls) => Connector::Rustls(tls.clone()),
            None => Connector::Plain,
        };
        let handshake =
            client_async_tls_with_config(request, socket, Some(config), Some(connector));
        let (mut link, _) = handshake.await.map_err(|error| match error {
            Error::Http(response) => anyhow::anyhow!("the upstream answered {}", response.status()),
            error => error.into(),
        })?;
        for message in &self.messages {
            link.send(Message::text(message.as_str())).await?;
        }
        Ok(link)
    }

    /// Tries the upstream's addresses in turn.
    async fn open_socket(&self) -> Result<TcpStream> {
        let host = self.url.host_str().context("the URL has no host")?;
        let port = self
            .url
            .port_or_known_default()
            .context("the URL has no port")?;
        // An IPv6 address stands in brackets in a URL only.
        let host = host.trim_start_matches('[').trim_end_matches(']');
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

/// Reads `upstream` into `log` until `stop` is cancelled. However often the upstream goes away, it is tried again; the
/// log tells when it is lost and when it is back, not each attempt.
pub async fn consume(upstream: Upstream, log: &EventLog, stop: &CancellationToken) {
    let mut backoff = Backoff::new();
    let mut state = State::Unknown;
    loop {
        let Some(connected) = stop.run_until_cancelled(upstream.connect()).await else {
            return;
        };
        let error = match connected {
            Ok(link) => {
                info!(url = %upstream, "upstream connected");
                state = State::Connected;
                let (since, mut events) = (Instant::now(), 0);
                let result = read(link, &upstream, log, &mut events, stop).await;
                backoff.connection_ended(since, events > 0);
                match result {
                    Ok(()) => return,
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        if state != State::Lost {
            warn!(url = %upstream, reason = %reason::of(&error), "upstream lost");
            state = State::Lost;
        } else {
            debug!(url = %upstream, reason = %reason::of(&error), "upstream still away");
        }
        if stop
            .run_until_cancelled(sleep(backoff.pause()))
            .await
            .is_none()
        {
            return;
        }
    }
}

#[derive(PartialEq, Eq)]
enum State {
    Unknown,
    Connected,
    Lost,
}

/// Reads one connection to its end, which is an error, or until `stop` is cancelled. `events` counts what came.
async fn read(
    mut link: Link,
    upstream: &Upstream,
    log: &EventLog,
    events: &mut u64,
    stop: &CancellationToken,
) -> Result<()> {
    let result = match stop
        .run_until_cancelled(follow(&mut link, upstream, log, events))
        .await
    {
        Some(error) => Err(error),
        None => Ok(()),
    };
    let farewell = match &result {
        Ok(()) => Some(CloseFrame {
            code: CloseCode::Away,
            reason: "stopping".into(),
        }),
        Err(error) => complaint(error),
    };
    close(&mut link, farewell).await;
    result
}

/// Says farewell with a Close frame, or with the answer to the server's: that waits to be flushed, and no other can be
/// sent then. Whether it gets through makes no difference any more.
pub async fn close(link: &mut Link, frame: Option<CloseFrame>) {
    let farewell = async {
        if link.close(frame).await.is_err() {
            let _ = link.flush().await;
        }
    };
    let _ = timeout(CLOSE_TIMEOUT, farewell).await;
}

/// Appends what comes until the connection ends, and says how it did.
async fn follow(
    link: &mut Link,
    upstream: &Upstream,
    log: &EventLog,
    events: &mut u64,
) -> anyhow::Error {
    let mut heartbeat = Heartbeat::new(upstream.ping_interval);
    loop {
        let message = match heartbeat.next(link).await {
            Ok(message) => message,
            Err(error) => return error,
        };
        // Whatever else has already arrived is taken at once.
        let mut arrived = Some(message);
        while let Some(message) = arrived {
            match payload(message) {
                Ok(Some(payload)) => {
                    log.append(payload);
                    *events += 1;
                }
                Ok(None) => {}
                Err(error) => return error,
            }
            arrived = link.next().now_or_never();
        }
    }
}

/// Pings the other end of a link, and notices when it is silent.
pub struct Heartbeat {
    pings: Interval,
    unanswered: u32,
}

impl Heartbeat {
    /// The first ping comes after one interval.
    pub fn new(ping_interval: Duration) -> Self {
        let mut pings = interval(ping_interval);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        pings.reset();
        Self {
            pings,
            unanswered: 0,
        }
    }

    /// The next message, as the link yields it; an error when two pings had no answer of any kind.
    pub async fn next(&mut self, link: &mut Link) -> Result<Option<Result<Message, Error>>> {
        loop {
            tokio::select! {
                message = link.next() => {
                    self.unanswered = 0;
                    return Ok(message);
                }
                _ = self.pings.tick() => {
                    if self.unanswered == 2 {
                        bail!("silent for two ping intervals");
                    }
                    self.unanswered += 1;
                    // A broken connection shows at the next read.
                    let _ = timeout(CLOSE_TIMEOUT, link.send(Message::Ping(Bytes::new()))).await;
                }
            }
        }
    }
}

/// What to tell an upstream that has sent what cannot be taken (RFC 6455, section 7.4.1).
pub fn complaint(error: &anyhow::Error) -> Option<CloseFrame> {
    let code = match error.downcast_ref::<Error>()? {
        Error::Capacity(_) => CloseCode::Size,
        Error::Utf8(_) => CloseCode::Invalid,
        Error::Protocol(_) => CloseCode::Protocol,
        _ => return None,
    };
    Some(CloseFrame {
        code,
        reason: "".into(),
    })
}

/// The event that a message is, if it is one; how the connection has ended, if it has.
pub fn payload(message: Option<Result<Message, Error>>) -> Result<Option<Payload>> {
    match message {
        Some(Ok(Message::Text(text))) => Ok(Some(Payload {
            kind: Kind::Text,
            bytes: text.into(),
        })),
        Some(Ok(Message::Binary(bytes))) => Ok(Some(Payload {
            kind: Kind::Binary,
            bytes,
        })),
        Some(Ok(Message::Close(frame))) => Err(closed(frame)),
        Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Ok(None),
        Some(Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake))) | None => {
            bail!("connection lost")
        }
        Some(Err(error)) => Err(error.into()),
    }
}

fn closed(frame: Option<CloseFrame>) -> anyhow::Error {
    match frame {
        Some(CloseFrame { code, reason }) if reason.is_empty() => {
            anyhow::anyhow!("closed by the server with {code}")
        }
        Some(CloseFrame { code, reason }) => {
            // It goes into the log, so it must not look like lines of its own.
            let reason = reason.escape_debug();
            anyhow::anyhow!("closed by the server with {code}: {reason}")
        }
        None => anyhow::anyhow!("closed by the server"),
    }
}
