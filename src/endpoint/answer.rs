//! What a request for a stream asks for, and the head of the answer.

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use url::form_urlencoded;

use crate::event::{Labels, Snapshot};
use crate::stream::EventLog;
use crate::stream::join::{Joined, Resumed, StateWish, Wish};
use crate::wire::compress::Coding;
use crate::wire::{Format, RESUMED, SNAPSHOT, hop, sse};

/// The id of the last event that a client has (WHATWG HTML, section 9.2.4).
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Tells nginx not to hold back what it has of an answer.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// How soon a browser comes back after the end of a stream, in milliseconds. Each reader is told a time of its own, and that when it comes:
/// should this process crash, all lose their connections at the same moment, and nobody can tell them anything any more.
const RETRY: RangeInclusive<u64> = 2_000..=4_000;

/// What a stream can be had as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Representation {
    /// An endless body of this format.
    Stream(Format),
    /// The page for a person.
    Page,
}

/// In order of preference, where a client has none.
const OFFERED: [(Representation, &str); 4] = [
    (Representation::Stream(Format::Sse), "text/event-stream"),
    (
        Representation::Stream(Format::Ndjson),
        "application/x-ndjson",
    ),
    (Representation::Stream(Format::Ndjson), "application/ndjson"),
    (Representation::Page, "text/html"),
];

/// Chooses by the header Accept (RFC 9110, section 12.5.1); none if nothing of what there is would be welcome.
pub fn negotiate(headers: &HeaderMap) -> Option<Representation> {
    choose(headers, &OFFERED)
}

/// The first of the best.
pub fn choose<T: Copy>(headers: &HeaderMap, offered: &[(T, &str)]) -> Option<T> {
    let lines = headers.get_all(header::ACCEPT).into_iter();
    let accept: Vec<_> = lines.filter_map(|line| line.to_str().ok()).collect();
    let ranges: Vec<_> = accept
        .iter()
        .flat_map(|line| line.split(','))
        .filter_map(range)
        .collect();
    if ranges.is_empty() {
        return offered.first().map(|(choice, _)| *choice);
    }
    let mut best = None;
    for (choice, media_type) in offered {
        // The most specific range that fits decides. What is named counts more than what is merely let pass.
        let fitting = ranges.iter().filter_map(|range| {
            let specific = range.fits(media_type)?;
            Some((specific, range.quality))
        });
        let Some((specific, quality)) = fitting.max_by_key(|(specific, _)| *specific) else {
            continue;
        };
        let rank = (quality, specific);
        if quality > 0 && best.is_none_or(|(_, before)| rank > before) {
            best = Some((*choice, rank));
        }
    }
    best.map(|(choice, _)| choice)
}

struct Range<'a> {
    media_type: &'a str,
    /// In thousandths.
    quality: u32,
}

fn range(text: &str) -> Option<Range<'_>> {
    let mut parts = text.split(';').map(str::trim);
    let media_type = parts.next().filter(|media_type| !media_type.is_empty())?;
    let quality = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
    let quality = quality.and_then(|quality| quality.parse::<f32>().ok());
    Some(Range {
        media_type,
        quality: (quality.unwrap_or(1.0).clamp(0.0, 1.0) * 1000.0) as u32,
    })
}

impl Range<'_> {
    /// How exactly it names this type, if it does.
    fn fits(&self, media_type: &str) -> Option<u8> {
        if self.media_type == "*/*" {
            return Some(0);
        }
        if self.media_type.eq_ignore_ascii_case(media_type) {
            return Some(2);
        }
        let kind = media_type.split('/').next().unwrap_or_default();
        let range = self.media_type.strip_suffix("/*")?;
        range.eq_ignore_ascii_case(kind).then_some(1)
    }
}

/// Where a request wants the stream to begin; an error says what is wrong with it.
pub fn wish(request: &Parts) -> Result<Wish, &'static str> {
    let header = request.headers.get(LAST_EVENT_ID);
    let header = header.map(|id| String::from_utf8_lossy(id.as_bytes()).into_owned());
    let mut after = header.filter(|id| !id.is_empty());
    let mut wish = Wish::Live;
    for (name, value) in query(request) {
        match &*name {
            // What a browser says when it comes back counts more than the URL it came with at first.
            "last_event_id" if after.is_none() && !value.is_empty() => {
                after = Some(value.into_owned());
            }
            "history" if value == "all" => wish = Wish::All,
            "history" => {
                let count = value.parse();
                wish = Wish::Last(count.map_err(|_| "?history= is a number of events, or all")?);
            }
            _ => {}
        }
    }
    Ok(after.map_or(wish, |id| Wish::After(id.into())))
}

/// Whether a request wants the state of the stream first: `?snapshot=no` leaves it out. An error says what is wrong with it.
pub fn state_wish(request: &Parts) -> Result<StateWish, &'static str> {
    let mut wants = StateWish::Missed;
    for (_, value) in query(request).filter(|(name, _)| name == "snapshot") {
        wants = match &*value {
            "no" | "0" => StateWish::No,
            "yes" | "1" => StateWish::Missed,
            _ => return Err("?snapshot= is yes or no"),
        };
    }
    Ok(wants)
}

/// Adds to the head of an answer which instance it is that serves this stream, by the name that its own events have: behind a balancer
/// nothing else tells.
pub fn add_instance(headers: &mut HeaderMap, log: &EventLog) {
    let instance = HeaderValue::try_from(log.origin().to_string());
    headers.insert(hop::INSTANCE, instance.expect("an id is ASCII"));
}

/// Adds to the head of an answer that it begins with the state of the stream, if it does.
pub fn add_state(headers: &mut HeaderMap, joined: &Joined) {
    if let Some(count) = joined.state {
        headers.insert(SNAPSHOT, count.into());
    }
}

/// What a request says of the events that it publishes: `?type=` and `?key=`.
pub fn labels(request: &Parts) -> Labels {
    let mut labels = Labels::default();
    for (name, value) in query(request).filter(|(_, value)| !value.is_empty()) {
        match &*name {
            "type" => labels.event_type = Some(value.into()),
            "key" => labels.key = Some(value.into()),
            _ => {}
        }
    }
    labels
}

fn query(request: &Parts) -> form_urlencoded::Parse<'_> {
    form_urlencoded::parse(request.uri.query().unwrap_or_default().as_bytes())
}

/// The content codings that there are, in order of preference where a client has none. gzip takes three times as long, and
/// is not smaller.
const CODINGS: [(Option<Coding>, &str); 4] = [
    (Some(Coding::Zstd), "zstd"),
    (Some(Coding::Gzip), "gzip"),
    (Some(Coding::Gzip), "x-gzip"),
    (None, "identity"),
];

/// Nothing of what there is would be welcome.
#[derive(Debug, PartialEq, Eq)]
pub struct NotAcceptable;

/// Chooses by the header Accept-Encoding (RFC 9110, section 12.5.3); none for the stream as it is.
pub fn content_coding(headers: &HeaderMap) -> Result<Option<Coding>, NotAcceptable> {
    let lines = headers.get_all(header::ACCEPT_ENCODING).into_iter();
    let accept: Vec<_> = lines.filter_map(|line| line.to_str().ok()).collect();
    let listed: Vec<_> = accept
        .iter()
        .flat_map(|line| line.split(','))
        .filter_map(range)
        .collect();
    let quality = |coding: Option<Coding>, name: &str| {
        let named = |wanted: &str| {
            let mut listed = listed.iter();
            let found = listed.find(|listed| listed.media_type.eq_ignore_ascii_case(wanted));
            found.map(|found| (found.quality, wanted != "*"))
        };
        match named(name).or_else(|| named("*")) {
            Some((0, _)) => None,
            Some(rank) => Some(rank),
            // What is not said to be unwelcome is the last resort.
            None => coding.is_none().then_some((0, false)),
        }
    };
    let mut best = None;
    for (coding, name) in CODINGS {
        let rank = quality(coding, name);
        if rank.is_some() && best.is_none_or(|(_, before)| rank > before) {
            best = Some((coding, rank));
        }
    }
    best.map(|(coding, _)| coding).ok_or(NotAcceptable)
}

/// The headers of an answer whose body is the stream in `format`. `compress` says whether there are others that differ by their
/// coding only.
pub fn headers(format: Format, compress: bool, resumed: Resumed) -> HeaderMap {
    let content_type = match format.plain() {
        Format::Ndjson => "application/x-ndjson",
        _ => "text/event-stream",
    };
    let vary = match compress {
        true => "accept, accept-encoding",
        false => "accept",
    };
    let mut headers = HeaderMap::from_iter([
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (X_ACCEL_BUFFERING, HeaderValue::from_static("no")),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
        (header::VARY, HeaderValue::from_static(vary)),
        (RESUMED, HeaderValue::from_static(resumed.as_str())),
    ]);
    if let Some(coding) = format.coding() {
        let coding = HeaderValue::from_static(coding.name());
        headers.insert(header::CONTENT_ENCODING, coding);
    }
    headers
}

/// What a body has before its first event.
pub fn preface(format: Format, wish: &Wish, joined: &Joined) -> Vec<u8> {
    // Who has asked for what is not there any more is still behind it, and asks again if it gets no further.
    let position = match wish {
        Wish::After(id) => Some(Cow::Borrowed(&**id)),
        // Where it stands it is told at the end of the snapshot: who is cut off within it, begins anew.
        _ if joined.state.is_some() => None,
        _ => joined.before.map(|id| id.to_string().into()),
    };
    let mut preface = format.beginning().to_vec();
    format.put(&mut preface, |plain, out| {
        if plain == Format::Sse {
            let pause = Duration::from_millis(rand::random_range(RETRY));
            out.extend(sse::opening(pause, position.as_deref()));
        }
    });
    for gap in &joined.gaps {
        format.encode_gap(gap, &mut preface);
    }
    if let Some(count) = joined.state {
        format.encode_snapshot(&Snapshot::Begin { count }, &mut preface);
    }
    preface
}

/// The head of an answer that ends with its connection (RFC 9112, section 6.3), as it stands on the wire.
pub fn head(headers: &HeaderMap) -> Vec<u8> {
    let mut head = b"HTTP/1.1 200 OK\r\nconnection: close\r\n".to_vec();
    let date = httpdate::fmt_http_date(SystemTime::now());
    head.extend_from_slice(format!("date: {date}\r\n").as_bytes());
    for (name, value) in headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// Head and preface in one.
pub fn head_and_preface(headers: &HeaderMap, preface: Vec<u8>) -> Bytes {
    [head(headers), preface].concat().into()
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    fn coded(accept: &[&str]) -> Result<Option<Coding>, NotAcceptable> {
        let mut headers = HeaderMap::new();
        for line in accept {
            let line = HeaderValue::from_str(line).expect("a header");
            headers.append(header::ACCEPT_ENCODING, line);
        }
        content_coding(&headers)
    }

    #[test]
    fn a_coding_is_used_if_it_is_asked_for() {
        const GZIP: Result<Option<Coding>, NotAcceptable> = Ok(Some(Coding::Gzip));
        const ZSTD: Result<Option<Coding>, NotAcceptable> = Ok(Some(Coding::Zstd));
        for (accept, expected) in [
            (&[][..], Ok(None)),
            (&[""], Ok(None)),
            (&["identity"], Ok(None)),
            (&["br, deflate"], Ok(None)),
            (&["gzip, deflate, br, zstd"], ZSTD),
            (&["GZIP"], GZIP),
            (&["x-gzip"], GZIP),
            (&["deflate", "gzip;q=0.1"], GZIP),
            (&["zstd;q=0.9, gzip"], GZIP),
            (&["gzip;q=0.5, zstd;q=0.5"], ZSTD),
            (&["zstd;q=0, gzip;q=0"], Ok(None)),
            (&["zstd;q=0, *"], GZIP),
            (&["*"], ZSTD),
            // What is named counts more than what is merely let pass.
            (&["*, gzip"], GZIP),
            (&["identity, gzip;q=0.5"], Ok(None)),
            (&["gzip;q=0.5, identity;q=0.2"], GZIP),
            (&["gzip, identity;q=0"], GZIP),
            (&["br, identity;q=0"], Err(NotAcceptable)),
            (&["*;q=0"], Err(NotAcceptable)),
            (&["*;q=0, identity"], Ok(None)),
        ] {
            assert_eq!(coded(accept), expected, "{accept:?}");
        }
    }

    fn chosen(accept: &[&str]) -> Option<Representation> {
        let mut headers = HeaderMap::new();
        for line in accept {
            headers.append(
                header::ACCEPT,
                HeaderValue::from_str(line).expect("a header"),
            );
        }
        negotiate(&headers)
    }

    #[test]
    fn clients_get_what_they_ask_for() {
        const SSE: Option<Representation> = Some(Representation::Stream(Format::Sse));
        const NDJSON: Option<Representation> = Some(Representation::Stream(Format::Ndjson));
        const PAGE: Option<Representation> = Some(Representation::Page);
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8";
        for (accept, expected) in [
            (&[][..], SSE),
            (&["*/*"], SSE),
            (&[""], SSE),
            (&["text/event-stream"], SSE),
            (&["application/x-ndjson"], NDJSON),
            (&["Application/NDJSON"], NDJSON),
            (&["application/*"], NDJSON),
            (&["text/*"], SSE),
            (&["text/html"], PAGE),
            (&[browser], PAGE),
            (&["application/x-ndjson, */*"], NDJSON),
            (&["*/*;q=0.5, application/x-ndjson"], NDJSON),
            (&["text/event-stream, application/x-ndjson"], SSE),
            (&["text/event-stream;q=0.5, application/x-ndjson"], NDJSON),
            (&["text/html;q=0.1", "application/x-ndjson ; q=0.2"], NDJSON),
            (&["text/event-stream;q=0, */*"], NDJSON),
            (&["text/html;charset=utf-8"], PAGE),
            (&["application/json"], None),
            (&["*/*;q=0"], None),
        ] {
            assert_eq!(chosen(accept), expected, "{accept:?}");
        }
    }

    #[test]
    fn wishes_are_read_from_header_and_query() {
        let wish = |query: &str, header: Option<&str>| {
            let mut request = Request::get(format!("/events{query}"));
            if let Some(header) = header {
                request = request.header("Last-Event-ID", header);
            }
            super::wish(&request.body(()).expect("a request").into_parts().0)
        };
        let after = |id: &str| Ok(Wish::After(id.into()));
        assert_eq!(wish("", None), Ok(Wish::Live));
        assert_eq!(wish("?history=7", None), Ok(Wish::Last(7)));
        assert_eq!(wish("?x=1&history=all", None), Ok(Wish::All));
        assert_eq!(wish("?last_event_id=a-1&history=all", None), after("a-1"));
        assert_eq!(wish("?last_event_id=a%2D1", None), after("a-1"));
        assert_eq!(wish("?last_event_id=a-1", Some("b-2")), after("b-2"));
        assert_eq!(wish("?history=all", Some("b-2")), after("b-2"));
        assert_eq!(wish("?last_event_id=", Some("")), Ok(Wish::Live));
        let state = |query: &str| {
            let request = Request::get(format!("/events{query}"));
            state_wish(&request.body(()).expect("a request").into_parts().0)
        };
        assert_eq!(state("?history=7"), Ok(StateWish::Missed));
        assert_eq!(state("?snapshot=yes"), Ok(StateWish::Missed));
        assert_eq!(state("?snapshot=no"), Ok(StateWish::No));
        assert_eq!(state("?snapshot=0&x=1"), Ok(StateWish::No));
        assert!(state("?snapshot=later").is_err());
        for wrong in ["?history=", "?history=-1", "?history=some"] {
            assert!(wish(wrong, None).is_err(), "{wrong}");
        }
    }
}
