//! Pages of other servers: who of them is let in (RFC 6454), and what an answer says so with (WHATWG Fetch, section 3.2).

use std::net::IpAddr;

use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::http::uri::Authority;

use crate::route::Listed;

/// Of another origin than ours, without leave.
pub const REFUSED: &str = "pages of this origin are not let in here: start wsevent with --allow-origin and it, such as --allow-origin https://app.example";

/// Of a name that anybody may let lead to this machine.
pub const REBOUND: &str = "without tokens, a page is let in on this machine only at localhost, at an IP address or at the name in --serve-address: start wsevent with --allow-origin and its origin, such as --allow-origin http://app.example:8080";

/// Of another site, and it does not say which.
pub const CROSS_SITE: &str = "this comes from a page of another site, which does not say which: let it ask with EventSource, WebSocket or fetch, and start wsevent with --allow-origin and its origin";

/// How long a browser may remember what a page may send, in seconds.
const MAX_AGE: &str = "600";

/// Where a request says that it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin<'a> {
    /// From a page of ours, or from no page at all.
    Own,
    /// From a page of another server that is let in: whether credentials may come along.
    Allowed(&'a HeaderValue, bool),
    /// From one that is not, and why.
    Foreign(&'static str),
}

/// Where a request has arrived, as far as that says which pages are ours.
#[derive(Debug, Clone, Copy)]
pub struct Here<'a> {
    /// Over TLS.
    pub is_tls: bool,
    /// What this machine is called here, if being on it is all that is asked of who comes. Any name may be made to lead to
    /// it then (DNS rebinding), so a page that is at one must not be taken for ours.
    pub only_as: Option<&'a str>,
}

impl Here<'_> {
    /// Whether pages of this scheme are ours. A hop without TLS may well be behind a proxy that has it.
    fn speaks(self, scheme: &str) -> bool {
        scheme.eq_ignore_ascii_case("https") || !self.is_tls && scheme.eq_ignore_ascii_case("http")
    }

    /// Whether this host, perhaps with a port, is ours and nobody else's.
    fn is_called(self, host: &str) -> bool {
        let Some(name) = self.only_as else {
            return true;
        };
        let host = without_port(host);
        let is = |name: &str| host.eq_ignore_ascii_case(name);
        let last = host.rsplit('.').next().unwrap_or_default();
        let ip = host.trim_start_matches('[').trim_end_matches(']');
        is(without_port(name))
            // All names below it are of this machine, too (RFC 6761, section 6.3).
            || last.eq_ignore_ascii_case("localhost")
            || ip.parse::<IpAddr>().is_ok()
    }
}

/// A host without its port. An IPv6 address is in brackets.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => name,
        _ => host,
    }
}

/// The origin of the page that sends a request; `listed` says what is known of other ones than ours.
pub fn of<'a>(
    request: &'a Parts,
    here: Here<'_>,
    listed: impl FnOnce(&str) -> Listed,
) -> Origin<'a> {
    let Some(origin) = request.headers.get(header::ORIGIN) else {
        return match is_part_of_another_site(&request.headers) {
            true => Origin::Foreign(CROSS_SITE),
            false => Origin::Own,
        };
    };
    let Ok(text) = origin.to_str() else {
        return Origin::Foreign(REFUSED);
    };
    let host = match request.headers.get(header::HOST) {
        Some(host) => host.to_str().unwrap_or_default(),
        None => request.uri.authority().map_or("", Authority::as_str),
    };
    let is_here = text
        .split_once("://")
        .is_some_and(|(scheme, at)| here.speaks(scheme) && at.eq_ignore_ascii_case(host));
    if is_here && here.is_called(host) {
        return Origin::Own;
    }
    match listed(text) {
        Listed::No if is_here => Origin::Foreign(REBOUND),
        Listed::No => Origin::Foreign(REFUSED),
        Listed::AsOneOfAll => Origin::Allowed(origin, false),
        Listed::ByName => Origin::Allowed(origin, true),
    }
}

/// Whether a page of another site has this as a part, such as a script or an image (W3C Fetch Metadata, sections 2.2 and 2.3).
/// Going to it is something else: that is what links do.
fn is_part_of_another_site(headers: &HeaderMap) -> bool {
    let is = |name: &str, value: &str| headers.get(name).is_some_and(|is| is == value);
    is("sec-fetch-site", "cross-site") && !is("sec-fetch-mode", "navigate")
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
            HeaderValue::from_static(
                "wsevent-resumed, wsevent-snapshot, wsevent-instance, retry-after",
            ),
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

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    fn verdict(here: Here<'_>, host: &str, headers: &[(&str, &str)]) -> Result<(), &'static str> {
        let mut request = Request::builder().header("host", host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        match of(&parts, here, |_| Listed::No) {
            Origin::Own => Ok(()),
            Origin::Foreign(reason) => Err(reason),
            Origin::Allowed(..) => panic!("nothing is listed"),
        }
    }

    #[test]
    fn a_page_of_ours_has_our_scheme() {
        let here = |is_tls| Here {
            is_tls,
            only_as: None,
        };
        let from = |is_tls, origin| verdict(here(is_tls), "h.example", &[("origin", origin)]);
        assert_eq!(from(true, "https://h.example"), Ok(()));
        assert_eq!(from(true, "http://h.example"), Err(REFUSED));
        assert_eq!(from(false, "http://H.example"), Ok(()));
        // A proxy in front may have TLS.
        assert_eq!(from(false, "https://h.example"), Ok(()));
        assert_eq!(from(false, "ftp://h.example"), Err(REFUSED));
        assert_eq!(from(false, "http://h.example:81"), Err(REFUSED));
    }

    #[test]
    fn on_this_machine_a_page_of_ours_has_a_name_of_this_machine() {
        let here = Here {
            is_tls: false,
            only_as: Some("box.example:8080"),
        };
        for (host, expected) in [
            ("localhost:8080", Ok(())),
            ("LocalHost", Ok(())),
            ("app.localhost:8080", Ok(())),
            ("127.0.0.1:8080", Ok(())),
            ("[::1]:8080", Ok(())),
            ("[::1]", Ok(())),
            ("box.example:8080", Ok(())),
            ("evil.example:8080", Err(REBOUND)),
            ("localhost.evil.example", Err(REBOUND)),
            ("notlocalhost", Err(REBOUND)),
        ] {
            let origin = format!("http://{host}");
            assert_eq!(
                verdict(here, host, &[("origin", &origin)]),
                expected,
                "{host}"
            );
            // No page.
            assert_eq!(verdict(here, host, &[]), Ok(()));
        }
    }

    #[test]
    fn parts_of_pages_of_other_sites_are_foreign() {
        let here = Here {
            is_tls: false,
            only_as: None,
        };
        for (site, mode, expected) in [
            ("cross-site", "no-cors", Err(CROSS_SITE)),
            ("cross-site", "navigate", Ok(())),
            ("same-origin", "no-cors", Ok(())),
            ("none", "navigate", Ok(())),
        ] {
            let headers = [("sec-fetch-site", site), ("sec-fetch-mode", mode)];
            assert_eq!(
                verdict(here, "localhost", &headers),
                expected,
                "{site} {mode}"
            );
        }
    }
}
