//! Pages of other servers: who of them is let in (RFC 6454), and what an answer says so with (WHATWG Fetch, section 3.2).

use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::http::uri::Authority;

use crate::route::Listed;

/// Of another origin than ours, without leave.
pub const REFUSED: &str = "pages of this origin are not let in here: start wsevent with --allow-origin and it, such as --allow-origin https://app.example";

/// How long a browser may remember what a page may send, in seconds.
const MAX_AGE: &str = "600";

/// Where a request says that it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin<'a> {
    /// From a page of ours, or from no page at all.
    Own,
    /// From a page of another server that is let in: whether credentials may come along.
    Allowed(&'a HeaderValue, bool),
    /// From one that is not.
    Foreign,
}

/// The origin of the page that sends a request; `listed` says what is known of other ones than ours.
pub fn of(request: &Parts, listed: impl FnOnce(&str) -> Listed) -> Origin<'_> {
    let Some(origin) = request.headers.get(header::ORIGIN) else {
        return Origin::Own;
    };
    let Ok(text) = origin.to_str() else {
        return Origin::Foreign;
    };
    let host = match request.headers.get(header::HOST) {
        Some(host) => host.to_str().unwrap_or_default(),
        None => request.uri.authority().map_or("", Authority::as_str),
    };
    let own = text.split_once("://").map(|(_, own)| own);
    if own.is_some_and(|own| own.eq_ignore_ascii_case(host)) {
        return Origin::Own;
    }
    match listed(text) {
        Listed::No => Origin::Foreign,
        Listed::AsOneOfAll => Origin::Allowed(origin, false),
        Listed::ByName => Origin::Allowed(origin, true),
    }
}

impl Origin<'_> {
    /// Lets the page read an answer, with those of its headers that are ours.
    pub fn let_read(self, headers: &mut HeaderMap) {
        headers.append(header::VARY, HeaderValue::from_static("origin"));
        let Self::Allowed(origin, credentials) = self else {
            return;
        };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if credentials {
            headers.insert(
                header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
                HeaderValue::from_static("true"),
            );
        }
        headers.insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static("wsevent-resumed, wsevent-snapshot, retry-after"),
        );
    }

    /// Tells a page what it may send.
    pub fn let_send(self, methods: HeaderValue, headers: &mut HeaderMap) {
        if let Self::Allowed(..) = self {
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
            headers.insert(
                header::ACCESS_CONTROL_ALLOW_HEADERS,
                HeaderValue::from_static("authorization, content-type, last-event-id, ce-id, ce-source, ce-specversion, ce-subject, ce-time, ce-type"),
            );
            headers.insert(
                header::ACCESS_CONTROL_MAX_AGE,
                HeaderValue::from_static(MAX_AGE),
            );
        }
    }
}
