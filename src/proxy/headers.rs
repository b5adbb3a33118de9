//! The header rules of whoever stands between a client and a server: RFC 9110, section 7, and RFC 7239.

mod forwarded;
#[cfg(test)]
mod tests;

use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::str;

use hyper::ext::Protocol;
use hyper::header::{self, Entry, HeaderMap, HeaderName, HeaderValue};
use hyper::http::uri::{Authority, PathAndQuery, Scheme};
use hyper::http::{request, response};
use hyper::{Method, StatusCode, Version};
use ipnet::IpNet;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;

use crate::http_message::{check_host, has_known_coding, has_token, is_host, lists, tokens};
use crate::listen::admission::NoRoom;

/// How much of what a client says of itself is believed, and whom the upstream is told it is.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Proxies in front of this one: what they say of where a request comes from is kept.
    pub trust: Vec<IpNet>,
    /// Whether the upstream is told its own name rather than the one that the client has asked for.
    pub rewrite_host: bool,
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct From {
    /// The client, or what a trusted PROXY header says.
    pub client: SocketAddr,
    /// Whether it has come over TLS.
    pub https: bool,
    /// The client's own end of the connection, or what a trusted PROXY header says.
    pub local: SocketAddr,
}

/// A request that is not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The status to answer with.
    pub status: StatusCode,
    /// What is wrong, in one line.
    pub reason: &'static str,
}

impl std::convert::From<NoRoom> for Refusal {
    fn from(no_room: NoRoom) -> Self {
        refusal(no_room.status(), no_room.reason())
    }
}

fn refusal(status: StatusCode, reason: &'static str) -> Refusal {
    Refusal { status, reason }
}

fn bad_request(reason: &'static str) -> Refusal {
    refusal(StatusCode::BAD_REQUEST, reason)
}

/// Whether a request is a WebSocket handshake: of HTTP/1.1 (RFC 6455, section 4.1), or of HTTP/2 (RFC 8441, section 5). The
/// gate in front of hyper decides by the same rule what it lets through behind a request.
pub fn is_websocket(request: &request::Parts) -> bool {
    match request.version {
        Version::HTTP_11 => {
            request.method == Method::GET
                && has_token(&request.headers, header::UPGRADE, "websocket")
                && has_token(&request.headers, header::CONNECTION, "upgrade")
        }
        Version::HTTP_2 => {
            let protocol = request.extensions.get::<Protocol>();
            request.method == Method::CONNECT
                && protocol.is_some_and(|protocol| protocol.as_str() == "websocket")
        }
        _ => false,
    }
}

/// Refuses what hyper takes and a proxy must not pass on.
pub fn check(request: &request::Parts) -> Result<(), Refusal> {
    let websocket = is_websocket(request);
    check_method(request, websocket)?;
    check_target(request)?;
    check_host(request).map_err(bad_request)?;
    if passes(&request.headers) > MOST_PASSES {
        return Err(refusal(
            StatusCode::LOOP_DETECTED,
            "this request has been here again and again: an upstream leads back",
        ));
    }
    if !has_known_coding(request) {
        return Err(refusal(
            StatusCode::NOT_IMPLEMENTED,
            "the only transfer coding that is known here is chunked",
        ));
    }
    if websocket && request.version == Version::HTTP_11 && has_body(&request.headers) {
        return Err(bad_request("a WebSocket handshake has no body"));
    }
    Ok(())
}

/// So many proxies of this kind may well stand behind each other.
const MOST_PASSES: usize = 16;

/// Through how many proxies of this kind a request has come (RFC 9110, section 7.6.3).
fn passes(headers: &HeaderMap) -> usize {
    let lines = headers.get_all(header::VIA).into_iter();
    let passes = lines.flat_map(|line| tokens(line.as_bytes()));
    passes.filter(|pass| pass.ends_with(b" wsevent")).count()
}

/// CONNECT and TRACE are for the proxies of clients (RFC 9110, sections 9.3.6 and 9.3.8), but for the CONNECT that asks for a
/// WebSocket (RFC 8441, section 4).
fn check_method(request: &request::Parts, websocket: bool) -> Result<(), Refusal> {
    match request.method {
        Method::CONNECT if websocket => Ok(()),
        Method::CONNECT if request.extensions.get::<Protocol>().is_some() => Err(refusal(
            StatusCode::NOT_IMPLEMENTED,
            "the only protocol to connect to here is websocket",
        )),
        Method::CONNECT => Err(refusal(
            StatusCode::METHOD_NOT_ALLOWED,
            "CONNECT is not possible here",
        )),
        Method::TRACE => Err(refusal(
            StatusCode::METHOD_NOT_ALLOWED,
            "TRACE is not possible here",
        )),
        _ => Ok(()),
    }
}

/// The forms of a request target (RFC 9112, section 3.2), and that HTTP/2 names one authority (RFC 9113, section 8.3.1).
fn check_target(request: &request::Parts) -> Result<(), Refusal> {
    let uri = &request.uri;
    if uri.path() == "*" && request.method != Method::OPTIONS {
        return Err(bad_request("only OPTIONS is for the whole server"));
    }
    let Some(authority) = uri.authority() else {
        return match request.version == Version::HTTP_2
            && !request.headers.contains_key(header::HOST)
        {
            true => Err(bad_request("the authority is missing")),
            false => Ok(()),
        };
    };
    let scheme = uri.scheme();
    if scheme != Some(&Scheme::HTTP) && scheme != Some(&Scheme::HTTPS) {
        return Err(bad_request(
            "the request target is neither a path nor a URL of http",
        ));
    }
    if !is_host(authority.as_str().as_bytes()) {
        return Err(bad_request("the authority is not a host"));
    }
    let host = request.headers.get(header::HOST);
    let is_same = |host: &HeaderValue| {
        let authority = authority.as_str().as_bytes();
        host.as_bytes().eq_ignore_ascii_case(authority)
    };
    match request.version == Version::HTTP_2 && !host.is_none_or(is_same) {
        true => Err(bad_request("the header Host is not the authority")),
        false => Ok(()),
    }
}

fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TRANSFER_ENCODING)
        || headers
            .get(header::CONTENT_LENGTH)
            .is_some_and(|len| len != "0")
}

impl Rules {
    fn trusts(&self, address: IpAddr) -> bool {
        self.trust.iter().any(|net| net.contains(&address))
    }

    /// Who has asked, where `client` is a trusted proxy that says so.
    pub fn asker(&self, headers: &HeaderMap, client: IpAddr) -> Option<IpAddr> {
        let is_trusted = !self.trust.is_empty() && self.trusts(client.to_canonical());
        is_trusted.then(|| forwarded::asker(headers, |address| self.trusts(address)))?
    }

    /// Makes of a request that has passed [`check`] the one that is sent to an upstream, which is HTTP/1.1 always.
    /// `websocket` is what [`is_websocket`] says.
    ///
    /// A GET or HEAD of HTTP/2 may have a body without a length. Then `Transfer-Encoding: chunked` is set, as hyper would send
    /// none; it takes it back if the body says `is_end_stream`.
    pub fn request(
        &self,
        request: &mut request::Parts,
        from: &From,
        upstream_authority: &str,
        websocket: bool,
    ) {
        let client = from.client.ip().to_canonical();
        let trusted = self.trusts(client);
        let headers = &mut request.headers;
        let found = Found::among(headers, !trusted);
        found.remove(headers);
        match websocket {
            true => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
                headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            }
            false if found.takes_trailers => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("TE"));
                headers.insert(header::TE, HeaderValue::from_static("trailers"));
            }
            false => {}
        }
        if request.version == Version::HTTP_2 {
            from_http2(request, websocket);
        }
        if request.uri.authority().is_some() {
            to_origin_form(request);
        }
        let headers = &mut request.headers;
        let host = headers.get(header::HOST).cloned();
        let host = host.filter(|host| !host.is_empty());
        if host.is_none() || self.rewrite_host {
            let upstream = HeaderValue::from_str(upstream_authority);
            headers.insert(header::HOST, upstream.expect("an authority"));
        }
        forwarded::tell(headers, client, from.https, host, trusted);
        headers.append(header::VIA, via(request.version));
        request.version = Version::HTTP_11;
    }

    /// Makes of an upstream's answer the one that is sent to the client. `switching`: it is a 101, and the connection a
    /// WebSocket from then on.
    pub fn response(&self, response: &mut response::Parts, switching: bool) {
        let headers = &mut response.headers;
        // Whom it tells to upgrade it must tell to what (RFC 9110, section 15.5.22), and WebSockets go through here.
        let offers = response.status == StatusCode::UPGRADE_REQUIRED
            && has_token(headers, header::UPGRADE, "websocket");
        Found::among(headers, false).remove(headers);
        if switching || offers {
            headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        }
        if switching {
            headers.remove(header::TRANSFER_ENCODING);
            headers.remove(header::CONTENT_LENGTH);
        } else {
            let_one_length_be(headers);
        }
        headers.append(header::VIA, via(response.version));
        response.version = Version::HTTP_11;
    }
}

/// Makes of the fields of an interim answer (1xx) those that are sent on: it has no body, and so no length (RFC 9110,
/// section 8.6; RFC 9112, section 6.1).
pub fn interim(headers: &mut HeaderMap) {
    Found::among(headers, false).remove(headers);
    headers.remove(header::TRANSFER_ENCODING);
    headers.remove(header::CONTENT_LENGTH);
}

/// By what version a message has come (RFC 9110, section 7.6.3).
fn via(version: Version) -> HeaderValue {
    HeaderValue::from_static(match version {
        Version::HTTP_10 => "1.0 wsevent",
        Version::HTTP_2 => "2 wsevent",
        _ => "1.1 wsevent",
    })
}

/// An answer with a transfer coding has no other length (RFC 9112, section 6.3), and one that repeats its length has it once
/// (RFC 9110, section 8.6): hyper has read it so, and takes neither back for its own answer.
fn let_one_length_be(headers: &mut HeaderMap) {
    let Some(length) = headers.get(header::CONTENT_LENGTH) else {
        return;
    };
    if headers.contains_key(header::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
    } else if length.as_bytes().contains(&b',') {
        let first = tokens(length.as_bytes()).next().unwrap_or(b"0");
        if let Ok(first) = HeaderValue::from_bytes(first) {
            headers.insert(header::CONTENT_LENGTH, first);
        }
    }
}

/// What HTTP/2 says otherwise than HTTP/1.1 does.
fn from_http2(request: &mut request::Parts, websocket: bool) {
    let headers = &mut request.headers;
    if let Entry::Occupied(mut cookies) = headers.entry(header::COOKIE) {
        // RFC 9113, section 8.2.3.
        let crumbs: Vec<&[u8]> = cookies.iter().map(HeaderValue::as_bytes).collect();
        if crumbs.len() > 1 {
            let joined = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]));
            cookies.insert(joined.expect("of values"));
        }
    }
    if websocket {
        request.method = Method::GET;
        // HTTP/2 has no use for a key (RFC 8441, section 5), but HTTP/1.1 does.
        let key = || HeaderValue::try_from(generate_key()).expect("base64");
        headers.entry(header::SEC_WEBSOCKET_KEY).or_insert_with(key);
    } else if matches!(request.method, Method::GET | Method::HEAD)
        && !headers.contains_key(header::CONTENT_LENGTH)
    {
        let chunked = HeaderValue::from_static("chunked");
        headers.insert(header::TRANSFER_ENCODING, chunked);
    }
}

/// An authority in the request target takes the place of the header Host (RFC 9112, section 3.2.2), and the upstream gets a
/// path (section 3.2.1). That an OPTIONS without one is for the whole server (section 3.2.4) is lost: `Uri` makes it a slash.
fn to_origin_form(request: &mut request::Parts) {
    let uri = mem::take(&mut request.uri).into_parts();
    let slash = || PathAndQuery::from_static("/");
    request.uri = uri.path_and_query.unwrap_or_else(slash).into();
    let host = uri.authority.as_ref().map_or("", Authority::as_str);
    let host = HeaderValue::from_str(host).expect("an authority");
    request.headers.insert(header::HOST, host);
}

/// What of a message is not passed on.
#[derive(Default)]
struct Found {
    connection: bool,
    /// Lines of Connection that name other fields.
    naming: Vec<HeaderValue>,
    fields: Vec<HeaderName>,
    takes_trailers: bool,
}

impl Found {
    fn among(headers: &HeaderMap, from_stranger: bool) -> Self {
        let mut found = Self::default();
        for (name, value) in headers {
            match name.as_str() {
                "connection" => {
                    found.connection = true;
                    if tokens(value.as_bytes()).any(is_name_to_remove) {
                        found.naming.push(value.clone());
                    }
                }
                "te" => {
                    found.takes_trailers |= lists(value.as_bytes(), "trailers");
                    found.fields.push(name.clone());
                }
                other if is_hop_by_hop(other) => found.fields.push(name.clone()),
                other if from_stranger && forwarded::is_claim(other) => {
                    found.fields.push(name.clone());
                }
                other if other.contains('_') && is_alias(other, from_stranger) => {
                    found.fields.push(name.clone());
                }
                _ => {}
            }
        }
        found
    }

    fn remove(&self, headers: &mut HeaderMap) {
        if self.connection {
            headers.remove(header::CONNECTION);
        }
        for name in &self.fields {
            headers.remove(name);
        }
        for line in &self.naming {
            let names = tokens(line.as_bytes()).filter(|name| is_name_to_remove(name));
            for name in names.filter_map(|name| str::from_utf8(name).ok()) {
                headers.remove(name);
            }
        }
    }
}

/// What is for the next one on the way only (RFC 9110, section 7.6.1, but for Connection and TE). Transfer-Encoding is hyper's.
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "upgrade"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authentication-info"
            | "proxy-authorization"
            | "http2-settings"
    )
}

/// Whether a name in Connection stands for a field that goes because of it. What tells where a message ends and whom it is
/// for stays, whatever stands there: without it the upstream would read another message.
fn is_name_to_remove(name: &[u8]) -> bool {
    const OTHERS: [&str; 9] = [
        // Not fields, or gone anyway.
        "close",
        "keep-alive",
        "upgrade",
        "te",
        // Framing and routing.
        "host",
        "content-length",
        "transfer-encoding",
        "trailer",
        "via",
    ];
    !OTHERS
        .iter()
        .any(|other| name.eq_ignore_ascii_case(other.as_bytes()))
}

/// Whether a name with underscores is for some servers, to whom all punctuation is the same (RFC 3875, section 4.1.18),
/// another one that is seen to here.
fn is_alias(name: &str, from_stranger: bool) -> bool {
    let name = name.replace('_', "-");
    matches!(
        &*name,
        "content-length" | "transfer-encoding" | "proxy-authorization"
    ) || from_stranger && forwarded::is_claim(&name)
}
