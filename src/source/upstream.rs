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
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{CertificateError, ClientConfig, Error as TlsError, InvalidMessage};
use tokio_util::either::Either;
use url::Url;

use super::presence::Named;
use super::refusal::Unfit;
use super::secret::{Secret, conceal};
use super::websocket::login::Talk;
use crate::listen;
use crate::reason;
use crate::route::pattern::{Key, Pattern};

/// How long one attempt to connect may take, up to the upstream's answer to the handshake or request.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long each of an upstream's addresses may take to answer before the next one is tried.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(3);

/// An event URL and how to reach it.
#[derive(Clone)]
pub struct Upstream {
    /// `ws://`, `wss://`, `http://` or `https://`.
    pub url: Url,
    /// The one address of its host that connections go to, if not to any of them.
    pub address: Option<SocketAddr>,
    /// Whether it is an instance like this one, and is asked only for what has entered there.
    pub is_peer: bool,
    /// Where redirects may lead, if not anywhere: a client says the path, and must not say more than that with the help of a
    /// server that redirects wherever it is told to.
    pub within: Option<Url>,
    /// What stands in the URL for variables of the environment, as they are and as in a URL: secrets, perhaps.
    pub variables: Vec<String>,
    /// Sent with each handshake or request.
    pub headers: Vec<(HeaderName, Secret)>,
    /// What a foreign WebSocket is told, and what of its messages counts.
    pub talk: Talk,
    /// Whether it is asked to compress what it sends.
    pub compress: bool,
    /// For `wss://` and `https://`.
    pub tls: Option<Arc<ClientConfig>>,
    /// The largest message taken, in bytes.
    pub max_message_size: usize,
    /// How often the upstream is pinged; silent for two intervals, it is taken for dead.
    pub ping_interval: Duration,
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(address) = self.address else {
            return self.shown(&self.url).fmt(f);
        };
        let mut url = self.url.clone();
        // These fail only for URLs without a host.
        let _ = url.set_ip_host(address.ip());
        self.shown(&url).fmt(f)
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

impl Named for Upstream {
    fn reason(&self, error: &anyhow::Error) -> String {
        conceal(&self.secrets(), &reason::of(error))
    }
}

impl Upstream {
    /// A URL for logs and error texts, without what variables stand for in this upstream's.
    pub fn shown(&self, url: &Url) -> String {
        conceal(&self.variables, shown(url).as_str())
    }

    /// The same of one stream, where this is the template of what is upstream of all streams of a route.
    pub fn of_stream(&self, pattern: &Pattern, key: &Key) -> Self {
        Self {
            within: pattern.upstreams(&self.url),
            url: pattern.upstream(&self.url, key),
            ..self.clone()
        }
    }

    /// What only the upstream is told.
    pub fn secrets(&self) -> Vec<String> {
        let mut secrets = self.variables.clone();
        for (_, value) in &self.headers {
            let value = value.last();
            // A scheme before it is no secret, but who repeats that repeats the rest.
            secrets.extend(value.split_whitespace().map(str::to_owned));
        }
        let url = &self.url;
        for part in [url.username(), url.password().unwrap_or_default()] {
            secrets.push(part.to_owned());
            let decoded = percent_encoding::percent_decode_str(part);
            secrets.push(decoded.decode_utf8_lossy().into_owned());
        }
        secrets.extend(url.query().map(str::to_owned));
        secrets.extend(url.query_pairs().map(|(_, value)| value.into_owned()));
        self.talk.secrets(&mut secrets);
        secrets
    }

    /// Whether a redirect to this URL may be followed.
    pub fn admits(&self, to: &Url) -> bool {
        self.within.as_ref().is_none_or(|within| {
            let rest = to.path().strip_prefix(within.path());
            let is_below = rest.is_some_and(|rest| {
                rest.is_empty() || rest.starts_with('/') || within.path().ends_with('/')
            });
            to.origin() == within.origin() && is_below
        })
    }

    /// Whether this URL plainly leads to one of these addresses. A name other than localhost is not looked up.
    pub fn is_at(&self, addresses: &[SocketAddr]) -> bool {
        let host = self.url.host_str().unwrap_or_default();
        let port = self.url.port_or_known_default();
        port.is_some_and(|port| listen::leads_to(addresses, host, port))
    }

    /// Adds the headers that are meant for this upstream and for no other: credentials from the URL, and what the user
    /// says, which takes the place of what is there.
    pub async fn introduce(&self, headers: &mut HeaderMap) -> Result<()> {
        if let Some(credentials) = self.credentials()? {
            headers.insert(header::AUTHORIZATION, credentials);
        }
        let mut own = HeaderMap::new();
        for (name, value) in &self.headers {
            own.append(name, header_value(&value.read().await?, name)?);
        }
        headers.extend(own);
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

/// A value that a header can have (RFC 9110, section 5.5). It may be a secret, so the error does not show it.
pub fn header_value(value: &str, name: &HeaderName) -> Result<HeaderValue> {
    let wrong = || format!("the value of '{name}' has characters that a header cannot have");
    let mut value = HeaderValue::from_str(value.trim()).with_context(wrong)?;
    value.set_sensitive(true);
    Ok(value)
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

/// A connection to an upstream, without TLS or with it. Without, it is small: there may be as many as streams.
pub type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// Whether the scheme says that the connection is to be encrypted.
pub fn is_secure(url: &Url) -> bool {
    let (scheme, _) = url.scheme().split_once('+').unwrap_or((url.scheme(), ""));
    matches!(scheme, "wss" | "https" | "rediss" | "natss")
}

/// The scheme without TLS of one that is [secure](is_secure).
fn plain_scheme(scheme: &str) -> String {
    let (transport, rest) = scheme.split_at(scheme.find('+').unwrap_or(scheme.len()));
    format!("{}{rest}", transport.strip_suffix('s').unwrap_or(transport))
}

/// The port that the URL names, or that its scheme is known for.
pub fn port(url: &Url) -> Option<u16> {
    let (scheme, _) = url.scheme().split_once('+').unwrap_or((url.scheme(), ""));
    url.port_or_known_default().or(match scheme {
        "redis" | "rediss" => Some(6379),
        "nats" | "natss" => Some(4222),
        _ => None,
    })
}

/// Connects to the URL's host, with TLS if the scheme says so.
pub async fn open_stream(url: &Url, tls: Option<&Arc<ClientConfig>>) -> Result<Stream> {
    open_stream_at(None, url, tls).await
}

/// The same, at this `address` of the host.
pub async fn open_stream_at(
    address: Option<SocketAddr>,
    url: &Url,
    tls: Option<&Arc<ClientConfig>>,
) -> Result<Stream> {
    // An IPv6 address stands in brackets in a URL only.
    let host = url.host_str().context("the URL has no host")?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = port(url).context("the URL has no port")?;
    let socket = match address {
        Some(address) => connect_to(address).await?,
        None => open_socket(host, port).await?,
    };
    socket.set_nodelay(true)?;
    if !is_secure(url) {
        return Ok(Either::Left(socket));
    }
    let tls = tls.context("there are no TLS settings")?.clone();
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| Unfit(format!("no certificate can be for '{host}'")))?;
    let connecting = TlsConnector::from(tls).connect(name, socket);
    let connected = connecting.await.map_err(|error| no_tls(url, error))?;
    Ok(Either::Right(connected.into()))
}

const UNTRUSTED: &str =
    "nobody that is trusted here has signed its certificate: say who has with --consume-ca";

/// What answers a TLS handshake with anything else does not speak TLS. What is wrong with a certificate is said so that it can be
/// put right, where that is not plain.
pub(crate) fn no_tls(url: &Url, error: io::Error) -> anyhow::Error {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    match cause {
        Some(TlsError::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            let plain = plain_scheme(url.scheme());
            Unfit(format!(
                "there is no TLS at this port; did you mean {plain}://?"
            ))
            .into()
        }
        Some(TlsError::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            anyhow::Error::new(error).context(UNTRUSTED)
        }
        // One that is trusted has the name of who has signed it, and another kind of key.
        Some(TlsError::InvalidCertificate(
            CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. },
        )) => Unfit(UNTRUSTED.to_owned()).into(),
        // What `openssl req -x509` makes, if it is not told otherwise.
        Some(TlsError::InvalidCertificate(CertificateError::Other(other)))
            if other.to_string() == "CaUsedAsEndEntity" =>
        {
            Unfit(
                "its certificate is that of a CA, which cannot be a server's as well: make it with basicConstraints CA:FALSE"
                    .to_owned(),
            )
            .into()
        }
        _ => error.into(),
    }
}

/// Of a name that there is not, another attempt knows no more; of a name server that is away it does. The error of
/// getaddrinfo(3) comes with its text alone, which depends on the C library: these are EAI_NONAME and EAI_NODATA as glibc,
/// musl, macOS and the BSDs put them. What is none of them may get better.
pub(crate) fn no_address(host: &str, error: io::Error) -> anyhow::Error {
    const UNKNOWN: [&str; 7] = [
        "Name or service not known",
        "No address associated with hostname",
        "Name does not resolve",
        "Name has no usable address",
        "nodename nor servname provided, or not known",
        "No address associated with nodename",
        "no address associated with name",
    ];
    let text = reason::io_text(&error);
    match UNKNOWN.iter().any(|unknown| text.contains(unknown)) {
        true => Unfit(format!("there is no host named '{host}' ({text})")).into(),
        false => error.into(),
    }
}

/// Tries the host's addresses in turn.
async fn open_socket(host: &str, port: u16) -> Result<TcpStream> {
    let mut failure = Unfit(format!("{host} has no address")).into();
    let addresses = lookup_host((host, port)).await;
    for address in addresses.map_err(|error| no_address(host, error))? {
        match connect_to(address).await {
            Ok(socket) => return Ok(socket),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

async fn connect_to(address: SocketAddr) -> Result<TcpStream> {
    match timeout(ADDRESS_TIMEOUT, TcpStream::connect(address)).await {
        Ok(socket) => Ok(socket?),
        Err(_) => anyhow::bail!("{address} does not answer"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::refusal::{Verdict, verdict};
    use super::*;

    #[test]
    fn a_name_that_there_is_not_is_told_from_a_name_server_that_is_away() {
        let failed = |text: &str| {
            let text = format!("failed to lookup address information: {text}");
            no_address("feed.example", io::Error::other(text))
        };
        for text in [
            "Name or service not known",
            "No address associated with hostname",
            "Name does not resolve",
            "nodename nor servname provided, or not known",
        ] {
            assert_eq!(verdict(&failed(text)), Verdict::Refused { status: 502 });
        }
        for text in [
            "Temporary failure in name resolution",
            "Try again",
            "System error",
        ] {
            assert_eq!(verdict(&failed(text)), Verdict::Away);
        }
    }

    #[test]
    fn what_stands_for_a_variable_is_not_shown() {
        let upstream = Upstream {
            url: Url::parse("wss://h/k%201234/abc?k%201234").expect("a URL"),
            address: None,
            is_peer: false,
            within: None,
            variables: vec!["k 1234".into(), "k%201234".into(), "abc".into()],
            headers: Vec::new(),
            talk: Talk::default(),
            compress: false,
            tls: None,
            max_message_size: 0,
            ping_interval: Duration::ZERO,
        };
        assert_eq!(upstream.to_string(), "wss://h/.../abc?...");
        let error = anyhow::anyhow!("redirected to wss://h/k%201234, says 'k 1234'");
        assert_eq!(
            upstream.reason(&error),
            "redirected to wss://h/..., says '...'"
        );
    }
}
