//! Heads of messages that hyper neither reads nor writes, as they stand on the wire (RFC 9112, sections 3 to 5).

use std::mem::MaybeUninit;

use anyhow::{Context, Result, bail, ensure};
use httparse::{Request, Response, Status};
use hyper::StatusCode;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::http::request;
use hyper::http::response;

/// The most fields that a head may have.
const MAX_FIELDS: usize = 100;
/// So many fields the proxy itself adds at most.
const MORE_FIELDS: usize = 6;

/// A request as it is sent.
pub fn encode_request(request: &request::Parts) -> Vec<u8> {
    let mut head = Vec::with_capacity(1 << 10);
    let target = request.uri.path_and_query().map_or("/", |uri| uri.as_str());
    for part in [request.method.as_str(), " ", target, " HTTP/1.1\r\n"] {
        head.extend_from_slice(part.as_bytes());
    }
    write_fields(&mut head, &request.headers);
    head
}

fn write_fields(head: &mut Vec<u8>, headers: &HeaderMap) {
    for (name, value) in headers {
        write_name(head, name.as_str());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
}

/// A name in the case that RFC 6455 and everyone writes it in. It makes no difference (RFC 9110, section 5.1), but small
/// servers of WebSockets that do not know that are many.
fn write_name(head: &mut Vec<u8>, name: &str) {
    if let Some(rest) = name.strip_prefix("sec-websocket") {
        head.extend_from_slice(b"Sec-WebSocket");
        return write_words(head, rest);
    }
    write_words(head, name);
}

fn write_words(head: &mut Vec<u8>, name: &str) {
    let mut begins = !name.starts_with('-');
    for byte in name.bytes() {
        head.push(match begins {
            true => byte.to_ascii_uppercase(),
            false => byte,
        });
        begins = byte == b'-';
    }
}

/// The request whose head `bytes` are, if they are one and nothing else.
pub fn decode_request(bytes: &[u8]) -> Result<request::Parts> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = Request::new(&mut []);
    let parsing = parsed.parse_with_uninit_headers(bytes, &mut fields)?;
    ensure!(
        parsing == Status::Complete(bytes.len()),
        "more than one head"
    );
    let (mut head, ()) = hyper::Request::new(()).into_parts();
    head.uri = parsed.path.unwrap_or_default().parse()?;
    head.headers = header_map(parsed.headers)?;
    Ok(head)
}

fn header_map(parsed: &[httparse::Header<'_>]) -> Result<HeaderMap> {
    let mut headers = HeaderMap::with_capacity(parsed.len() + MORE_FIELDS);
    for field in parsed {
        let name = HeaderName::from_bytes(field.name.as_bytes())?;
        headers.append(name, HeaderValue::from_bytes(field.value)?);
    }
    Ok(headers)
}

/// An answer as it is sent.
pub fn encode_answer(status: StatusCode, reason: &[u8], headers: &HeaderMap) -> Vec<u8> {
    let mut head = Vec::with_capacity(512);
    let status = status.as_str().as_bytes();
    for part in [b"HTTP/1.1 ", status, b" ", reason, b"\r\n"] {
        head.extend_from_slice(part);
    }
    write_fields(&mut head, headers);
    head
}

/// The head that an answer begins with, and its length, if it is whole.
pub fn decode_answer(read: &[u8]) -> Result<Option<(response::Parts, usize)>> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = Response::new(&mut []);
    let parsing = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut parsed,
        read,
        &mut fields,
    );
    let len = match parsing {
        Ok(Status::Complete(len)) => len,
        Ok(Status::Partial) => return Ok(None),
        Err(error) => bail!("the upstream's answer is not HTTP: {error}"),
    };
    let status = StatusCode::from_u16(parsed.code.unwrap_or_default());
    let (mut head, ()) = hyper::Response::new(()).into_parts();
    head.status = status.context("the upstream's answer has no proper status")?;
    head.headers = header_map(parsed.headers)?;
    Ok(Some((head, len)))
}
