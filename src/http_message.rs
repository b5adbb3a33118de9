//! What hyper leaves to those who serve or forward a request of the rules for HTTP messages.

use hyper::Version;
use hyper::header::{self, HeaderMap, HeaderName};
use hyper::http::request::Parts;
use hyper::http::uri::Authority;

/// Sees to it that a request says once, and rightly, whom it is for (RFC 9112, section 3.2).
pub fn check_host(request: &Parts) -> Result<(), &'static str> {
    let mut hosts = request.headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        // HTTP/2 has it elsewhere (RFC 9113, section 8.3.1).
        (None, _) if request.version != Version::HTTP_11 => Ok(()),
        (None, _) => Err("the header Host is missing"),
        (Some(_), Some(_)) => Err("there is more than one header Host"),
        (Some(host), None) if host.is_empty() || is_host(host.as_bytes()) => Ok(()),
        (Some(_), None) => Err("the header Host is not a host"),
    }
}

/// hyper sees to it that chunked is the last coding, but not that it is the only one (RFC 9112, section 6.1).
pub fn has_known_coding(request: &Parts) -> bool {
    let mut codings = request
        .headers
        .get_all(header::TRANSFER_ENCODING)
        .into_iter();
    codings.all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
}

/// Whether this is a host and perhaps a port. What stands in a URL at this place may have a user name too, and `Authority`
/// takes anything for a port.
pub fn is_host(value: &[u8]) -> bool {
    let Ok(authority) = Authority::try_from(value) else {
        return false;
    };
    let Some(rest) = authority.as_str().strip_prefix(authority.host()) else {
        return false;
    };
    match rest.strip_prefix(':') {
        None => rest.is_empty(),
        Some("") => true,
        Some(port) => port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok(),
    }
}

/// Whether a header that is a list holds `token`; several lines are one list (RFC 9110, section 5.3).
pub fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    let mut lines = headers.get_all(name).into_iter();
    lines.any(|line| lists(line.as_bytes(), token))
}

/// Whether a line of a list holds `token`; tokens are compared whole and without case.
pub fn lists(line: &[u8], token: &str) -> bool {
    tokens(line).any(|candidate| candidate.eq_ignore_ascii_case(token.as_bytes()))
}

/// The elements of a line of a list (RFC 9110, section 5.6.1).
pub fn tokens(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|token| !token.is_empty())
}
