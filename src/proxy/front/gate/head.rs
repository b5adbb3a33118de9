//! The head of a request, read by the parser that hyper reads it with.

use std::mem::MaybeUninit;

use httparse::{Error, Request, Status};
use hyper::StatusCode;

use super::MAX_FIELDS;
use crate::http_message::lists;

/// What of a head tells what follows it.
#[derive(Debug, PartialEq, Eq)]
pub struct Head {
    /// Its length.
    pub len: usize,
    /// What is behind it.
    pub body: Body,
}

/// What is behind a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// So many bytes, or none.
    Len(u64),
    /// Chunks (RFC 9112, section 7.1).
    Chunked,
    /// A WebSocket, or whatever else the server decides.
    Handshake,
}

/// Why a head must not pass: a status, and a reason in one line.
pub type Refusal = (StatusCode, &'static str);

fn bad<T>(reason: &'static str) -> Result<T, Refusal> {
    Err((StatusCode::BAD_REQUEST, reason))
}

/// The head that `bytes` begins with, if it is whole.
pub fn read(bytes: &[u8]) -> Result<Option<Head>, Refusal> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut request = Request::new(&mut []);
    match request.parse_with_uninit_headers(bytes, &mut fields) {
        Ok(Status::Complete(len)) => Ok(Some(Head {
            len,
            body: body(&request)?,
        })),
        Ok(Status::Partial) => Ok(None),
        Err(error) => Err(refusal(error, bytes)),
    }
}

fn refusal(error: Error, bytes: &[u8]) -> Refusal {
    let bad = |reason| (StatusCode::BAD_REQUEST, reason);
    match error {
        Error::TooManyHeaders => (
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "there are too many header fields",
        ),
        Error::Version if is_other_version(bytes) => (
            StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            "the version of HTTP is neither 1.1 nor 1.0",
        ),
        Error::HeaderName => {
            bad("a header field has no proper name, or is folded, or has a space behind its name")
        }
        Error::HeaderValue => bad("a header field has a control character"),
        _ => bad("the request line is not one"),
    }
}

/// Whether a request line is wrong in nothing but its version (RFC 9112, section 2.3).
fn is_other_version(bytes: &[u8]) -> bool {
    let mut lines = bytes
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii_end);
    let line = lines.find(|line| !line.is_empty()).unwrap_or_default();
    let [_, _, version] = line.split(|byte| *byte == b' ').collect::<Vec<_>>()[..] else {
        return false;
    };
    match version.strip_prefix(b"HTTP/") {
        Some([major, b'.', minor]) => major.is_ascii_digit() && minor.is_ascii_digit(),
        Some([major]) => major.is_ascii_digit(),
        _ => false,
    }
}

/// What is behind a head, if only one answer is possible (RFC 9112, section 6.3).
fn body(request: &Request<'_, '_>) -> Result<Body, Refusal> {
    let is_http_11 = request.version == Some(1);
    if request.method == Some("CONNECT") {
        // What a client sends behind it may be for a tunnel that it takes for granted, and must not be read as requests.
        return Err((
            StatusCode::METHOD_NOT_ALLOWED,
            "CONNECT is not possible here",
        ));
    }
    let mut hosts = 0;
    let mut len = None;
    let mut is_chunked = false;
    let mut is_upgrade = false;
    let mut to_websocket = false;
    for field in request.headers.iter() {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        match field.name.len() {
            4 if is("host") => hosts += 1,
            7 if is("upgrade") => to_websocket |= lists(field.value, "websocket"),
            10 if is("connection") => is_upgrade |= lists(field.value, "upgrade"),
            14 if is("content-length") => {
                let Some(length) = length(field.value) else {
                    return bad("the header Content-Length is not a number");
                };
                if len.replace(length).is_some() {
                    return bad("there is more than one header Content-Length");
                }
            }
            17 if is("transfer-encoding") => {
                if !is_http_11 {
                    return bad("HTTP/1.0 knows no Transfer-Encoding");
                }
                if is_chunked {
                    return bad("there is more than one header Transfer-Encoding");
                }
                is_chunked = field.value.eq_ignore_ascii_case(b"chunked");
                if !is_chunked {
                    return Err((
                        StatusCode::NOT_IMPLEMENTED,
                        "the only transfer coding that is known here is chunked",
                    ));
                }
            }
            _ => {}
        }
    }
    if hosts > 1 {
        return bad("there is more than one header Host");
    }
    if is_chunked && len.is_some() {
        return bad("there are both Content-Length and Transfer-Encoding");
    }
    let has_body = is_chunked || len.is_some_and(|len| len > 0);
    // The same rule as `headers::is_websocket`.
    let is_handshake = is_http_11 && is_upgrade && to_websocket && request.method == Some("GET");
    match is_handshake {
        true if has_body => bad("a WebSocket handshake has no body"),
        true => Ok(Body::Handshake),
        false if is_chunked => Ok(Body::Chunked),
        false => Ok(Body::Len(len.unwrap_or(0))),
    }
}

/// Digits and nothing else (RFC 9110, section 8.6), and not so many that somebody else counts wrong.
fn length(value: &[u8]) -> Option<u64> {
    let is_short = (1..=18).contains(&value.len());
    match is_short && value.iter().all(u8::is_ascii_digit) {
        true => str::from_utf8(value).ok()?.parse().ok(),
        false => None,
    }
}
