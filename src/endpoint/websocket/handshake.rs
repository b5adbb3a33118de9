//! The opening handshake, as RFC 6455, section 4.2 has it, and over HTTP/2 RFC 8441, on a request that hyper has parsed.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use hyper::ext::Protocol;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode, Version};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::http_message::has_token;

/// The one version there is (RFC 6455, section 4.1).
const VERSION: &str = "13";

/// Why a handshake is refused.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status to answer with.
    pub status: StatusCode,
    /// What is wrong, in one line.
    pub reason: &'static str,
}

impl Refusal {
    /// What the client should try instead, as a header (RFC 6455, section 4.4; RFC 9110, section 15.5.22).
    pub fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        match self.status {
            StatusCode::UPGRADE_REQUIRED => vec![
                (
                    header::SEC_WEBSOCKET_VERSION,
                    HeaderValue::from_static(VERSION),
                ),
                (header::UPGRADE, HeaderValue::from_static("websocket")),
                (header::CONNECTION, HeaderValue::from_static("Upgrade")),
            ],
            _ => vec![],
        }
    }
}

/// An accepted handshake.
#[derive(Debug, PartialEq, Eq)]
pub enum Accepted {
    /// Over HTTP/1.1; the value of `Sec-WebSocket-Accept`.
    Upgrade(HeaderValue),
    /// Over HTTP/2, where no header says it (RFC 8441, section 5).
    Connect,
}

/// Whether a request means to be a WebSocket handshake, well-formed or not.
pub fn is_meant(request: &Parts) -> bool {
    is_connect(request)
        || has_token(&request.headers, header::UPGRADE, "websocket")
        || request.headers.contains_key(header::SEC_WEBSOCKET_KEY)
}

/// Whether it is one over HTTP/2 (RFC 8441, section 4).
fn is_connect(request: &Parts) -> bool {
    let protocol = request.extensions.get::<Protocol>();
    request.method == Method::CONNECT
        && protocol.is_some_and(|protocol| protocol.as_ref().eq_ignore_ascii_case(b"websocket"))
}

/// Whether the client offers this subprotocol (RFC 6455, section 4.2.2).
pub fn offers(request: &Parts, subprotocol: &str) -> bool {
    // Tokens are compared whole; that their case does not count here makes no difference, as nobody else has this name.
    has_token(
        &request.headers,
        header::SEC_WEBSOCKET_PROTOCOL,
        subprotocol,
    )
}

/// Checks a handshake.
pub fn accept(request: &Parts) -> Result<Accepted, Refusal> {
    let headers = &request.headers;
    if is_connect(request) {
        // Neither key nor Upgrade are there, and some clients leave the version out as well.
        return match headers.contains_key(header::SEC_WEBSOCKET_VERSION) {
            true => check_version(request).map(|()| Accepted::Connect),
            false => Ok(Accepted::Connect),
        };
    }
    if request.version == Version::HTTP_2 {
        return Err(bad_request(
            "a WebSocket handshake over HTTP/2 is a CONNECT with :protocol (RFC 8441)",
        ));
    }
    if request.version != Version::HTTP_11 {
        return Err(bad_request("a WebSocket handshake needs HTTP/1.1"));
    }
    let has_body = headers
        .get(header::CONTENT_LENGTH)
        .is_some_and(|len| len != "0");
    if has_body || headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(bad_request("a WebSocket handshake has no body"));
    }
    if !has_token(headers, header::UPGRADE, "websocket") {
        return Err(bad_request(
            "the header 'Upgrade: websocket' is missing; a proxy may have removed it",
        ));
    }
    if !has_token(headers, header::CONNECTION, "upgrade") {
        return Err(bad_request(
            "the header 'Connection: Upgrade' is missing; a proxy may have removed it",
        ));
    }
    check_version(request)?;
    let mut keys = headers.get_all(header::SEC_WEBSOCKET_KEY).iter();
    match (keys.next(), keys.next()) {
        (Some(key), None) if is_key(key.as_bytes()) => {
            let accept = derive_accept_key(key.as_bytes());
            let accept = HeaderValue::from_str(&accept).expect("base64 is a valid header value");
            Ok(Accepted::Upgrade(accept))
        }
        (None, _) => Err(bad_request("the header Sec-WebSocket-Key is missing")),
        (Some(_), Some(_)) => Err(bad_request(
            "there is more than one header Sec-WebSocket-Key",
        )),
        (Some(_), None) => Err(bad_request(
            "the header Sec-WebSocket-Key is not 16 bytes of base64",
        )),
    }
}

fn check_version(request: &Parts) -> Result<(), Refusal> {
    let versions = request.headers.get_all(header::SEC_WEBSOCKET_VERSION);
    let mut versions = versions.iter();
    if versions.next().is_some_and(|version| version == VERSION) && versions.next().is_none() {
        return Ok(());
    }
    Err(Refusal {
        status: match is_connect(request) {
            // An upgrade is not possible there.
            true => StatusCode::BAD_REQUEST,
            false => StatusCode::UPGRADE_REQUIRED,
        },
        reason: "this server speaks WebSocket version 13",
    })
}

/// The answer to an accepted handshake.
pub fn response(accepted: Accepted) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    let Accepted::Upgrade(accept) = accepted else {
        return response;
    };
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().extend([
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (header::CONNECTION, HeaderValue::from_static("Upgrade")),
        (header::SEC_WEBSOCKET_ACCEPT, accept),
    ]);
    response
}

fn bad_request(reason: &'static str) -> Refusal {
    Refusal {
        status: StatusCode::BAD_REQUEST,
        reason,
    }
}

/// Whether this is a nonce of 16 bytes. Some clients draw 24 characters rather than 16 bytes, so the four bits of the
/// last character that belong to no byte may be anything.
fn is_key(key: &[u8]) -> bool {
    const BASE64: GeneralPurpose = GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new()
            .with_decode_allow_trailing_bits(true)
            .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
    );
    let mut nonce = [0; 18];
    BASE64.decode_slice(key, &mut nonce) == Ok(16)
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    const GOOD: &[(&str, &str)] = &[
        ("Host", "localhost"),
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    fn check(headers: &[(&str, &str)]) -> Result<Accepted, u16> {
        let mut request = Request::get("/events");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("a request").into_parts().0;
        accept(&request).map_err(|refusal| refusal.status.as_u16())
    }

    /// The good handshake with one header replaced, and then any others added.
    fn with(name: &str, values: &[&str]) -> Result<Accepted, u16> {
        let mut headers: Vec<_> = GOOD
            .iter()
            .copied()
            .filter(|(good, _)| *good != name)
            .collect();
        headers.extend(values.iter().map(|value| (name, *value)));
        check(&headers)
    }

    #[test]
    fn the_example_of_the_standard_is_accepted() {
        let accept = HeaderValue::from_static("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(check(GOOD), Ok(Accepted::Upgrade(accept)));
    }

    #[test]
    fn over_http_2_it_is_a_connect() {
        let check = |method: Method, protocol: Option<&'static str>, version: Option<&str>| {
            let mut request = Request::builder().method(method).version(Version::HTTP_2);
            if let Some(version) = version {
                request = request.header("Sec-WebSocket-Version", version);
            }
            if let Some(protocol) = protocol {
                request = request.extension(Protocol::from_static(protocol));
            }
            let request = request.body(()).expect("a request").into_parts().0;
            let accepted = accept(&request).map_err(|refusal| refusal.status.as_u16());
            (is_meant(&request), accepted)
        };
        let (connect, websocket) = (Method::CONNECT, Some("websocket"));
        for version in [None, Some("13")] {
            let good = check(connect.clone(), websocket, version);
            assert_eq!(good, (true, Ok(Accepted::Connect)));
        }
        let old = check(connect.clone(), websocket, Some("8"));
        assert_eq!(old, (true, Err(400)));
        for (method, protocol) in [
            (connect.clone(), None),
            (connect, Some("connect-udp")),
            (Method::GET, websocket),
        ] {
            assert_eq!(check(method, protocol, None), (false, Err(400)));
        }
        assert_eq!(response(Accepted::Connect).status(), 200);
    }

    #[test]
    fn lists_are_compared_token_by_token() {
        assert!(with("Connection", &["keep-alive, UPGRADE"]).is_ok());
        assert!(with("Connection", &["keep-alive", "upgrade"]).is_ok());
        assert!(with("Upgrade", &["h2c , WebSocket"]).is_ok());
        for wrong in ["", "upgraded", "no-upgrade", "keep-alive"] {
            assert_eq!(with("Connection", &[wrong]), Err(400), "{wrong:?}");
        }
        assert_eq!(with("Upgrade", &["websockets"]), Err(400));
    }

    #[test]
    fn each_missing_or_wrong_header_is_refused() {
        assert_eq!(with("Connection", &[]), Err(400));
        assert_eq!(with("Upgrade", &[]), Err(400));
        assert_eq!(with("Sec-WebSocket-Version", &[]), Err(426));
        for wrong in [
            &["8"][..],
            &["013"],
            &["13, 8"],
            &["13", "13"],
            &["13", "8"],
        ] {
            assert_eq!(with("Sec-WebSocket-Version", wrong), Err(426), "{wrong:?}");
        }
        assert_eq!(with("Sec-WebSocket-Key", &[]), Err(400));
        assert_eq!(with("Content-Length", &["5"]), Err(400));
        assert_eq!(with("Transfer-Encoding", &["chunked"]), Err(400));
        assert!(with("Content-Length", &["0"]).is_ok());
    }

    #[test]
    fn the_key_is_sixteen_bytes_once() {
        let good = "AQIDBAUGBwgJCgsMDQ4PEA==";
        assert!(with("Sec-WebSocket-Key", &[good]).is_ok());
        assert!(with("Sec-WebSocket-Key", &["zzzzzzzzzzzzzzzzzzzzzz=="]).is_ok());
        assert_eq!(with("Sec-WebSocket-Key", &[good, good]), Err(400));
        for wrong in [
            "",
            "short",
            "AQIDBAUGBwgJCgsMDQ4P",
            "AQIDBAUGBwgJCgsMDQ4PEBE=",
            "AQIDBAUGBwgJCgsMDQ4PEA",
            "!",
        ] {
            assert_eq!(with("Sec-WebSocket-Key", &[wrong]), Err(400), "{wrong:?}");
        }
    }
}
