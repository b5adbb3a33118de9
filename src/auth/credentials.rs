//! Where a request carries its token.

use std::borrow::Cow;

use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;
use url::form_urlencoded;

use super::Denied;
use crate::http_message::tokens;

/// The name of the cookie, and that of the parameter of a query (RFC 6750, section 2.3).
const NAME: &str = "access_token";
/// Begins a subprotocol that is a token.
const SUBPROTOCOL: &[u8] = b"bearer.";

/// Where a token was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// `Authorization: Bearer TOKEN` (RFC 6750, section 2.1).
    Header,
    /// The subprotocol `bearer.TOKEN` of a WebSocket handshake: a page cannot set headers for it.
    Subprotocol,
    /// `?access_token=TOKEN` (RFC 6750, section 2.3): an `EventSource` cannot set headers either.
    Query,
    /// The cookie `access_token`. A browser sends it whatever page makes it ask.
    Cookie,
}

/// A token, as a request carries it.
pub struct Presented<'a> {
    /// Its bytes.
    pub token: Cow<'a, [u8]>,
    /// If it is in several places, the first of them in the order of [`Place`], so that a cookie is one that came alone.
    pub place: Place,
}

/// The token of a request, if it has one. The same in several places is one; different ones are an error, as nobody could say
/// whose the request is.
pub fn presented(request: &Parts) -> Result<Option<Presented<'_>>, Denied> {
    let found = authorization(request)?
        .into_iter()
        .map(|token| (Cow::Borrowed(token), Place::Header))
        .chain(subprotocols(request).map(|token| (token.into(), Place::Subprotocol)))
        .chain(parameters(request).map(|token| (token, Place::Query)))
        .chain(cookies(request).map(|token| (token.into(), Place::Cookie)));
    let mut presented: Option<Presented<'_>> = None;
    for (token, place) in found {
        match &presented {
            Some(first) if first.token != token => {
                return Err(Denied::malformed(
                    "the request has more than one token, and they differ: send one",
                ));
            }
            Some(_) => {}
            None => presented = Some(Presented { token, place }),
        }
    }
    Ok(presented)
}

/// What to answer in `Sec-WebSocket-Protocol`. A browser that has offered any wants to see one of them again (RFC 6455, section 4.1),
/// also when it was only to carry a token. `taken` is the subprotocol that is really spoken, if there is one.
pub fn subprotocol(request: &Parts, taken: Option<&'static str>) -> Option<HeaderValue> {
    let token = || {
        let mut offered = offered(request);
        offered.find(|offered| offered.starts_with(SUBPROTOCOL))
    };
    match taken {
        Some(taken) => Some(HeaderValue::from_static(taken)),
        None => {
            let mut value = HeaderValue::from_bytes(token()?).ok()?;
            value.set_sensitive(true);
            Some(value)
        }
    }
}

/// Another scheme than Bearer may be meant for somebody else on the way.
fn authorization(request: &Parts) -> Result<Option<&[u8]>, Denied> {
    let mut lines = request.headers.get_all(header::AUTHORIZATION).iter();
    let Some(line) = lines.next() else {
        return Ok(None);
    };
    if lines.next().is_some() {
        return Err(Denied::malformed(
            "there is more than one header Authorization",
        ));
    }
    let line = line.as_bytes().trim_ascii();
    let end = line.iter().position(|byte| *byte == b' ');
    let (scheme, token) = line.split_at(end.unwrap_or(line.len()));
    if !scheme.eq_ignore_ascii_case(b"Bearer") {
        return Ok(None);
    }
    let token = token.trim_ascii();
    match token.is_empty() || token.iter().any(u8::is_ascii_whitespace) {
        true => Err(Denied::malformed(
            "Authorization: Bearer TOKEN is expected, with one token",
        )),
        false => Ok(Some(token)),
    }
}

fn offered(request: &Parts) -> impl Iterator<Item = &[u8]> {
    let lines = request.headers.get_all(header::SEC_WEBSOCKET_PROTOCOL);
    lines.into_iter().flat_map(|line| tokens(line.as_bytes()))
}

/// An empty token is none, here as below: that is what is left of a cookie or a form when somebody has logged out.
fn subprotocols(request: &Parts) -> impl Iterator<Item = &[u8]> {
    offered(request)
        .filter_map(|offered| offered.strip_prefix(SUBPROTOCOL))
        .filter(|token| !token.is_empty())
}

fn parameters(request: &Parts) -> impl Iterator<Item = Cow<'_, [u8]>> {
    let query = request.uri.query().unwrap_or_default();
    form_urlencoded::parse(query.as_bytes())
        .filter(|(name, value)| name == NAME && !value.is_empty())
        .map(|(_, value)| match value {
            Cow::Borrowed(value) => Cow::Borrowed(value.as_bytes()),
            Cow::Owned(value) => Cow::Owned(value.into_bytes()),
        })
}

/// RFC 6265, section 4.2.1; over HTTP/2 each may have a line of its own (RFC 9113, section 8.2.3).
fn cookies(request: &Parts) -> impl Iterator<Item = &[u8]> {
    let lines = request.headers.get_all(header::COOKIE).into_iter();
    lines
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b';'))
        .filter_map(|pair| {
            let pair = pair.trim_ascii();
            let value = pair.strip_prefix(NAME.as_bytes())?.strip_prefix(b"=")?;
            let unquoted = value
                .strip_prefix(b"\"")
                .and_then(|v| v.strip_suffix(b"\""));
            Some(unquoted.unwrap_or(value))
        })
        .filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests;
