//! Bodies that consist of events, and may end behind each of them.

use hyper::header::{self, HeaderMap};

/// Where the events of a body end.
#[derive(Debug)]
pub struct Events {
    /// What one ends with.
    ends: &'static [&'static [u8]],
    /// The last bytes that have passed.
    last: [u8; 4],
}

impl Events {
    /// Nothing has passed yet of the body that has these headers; none if it does not consist of events.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        let media = value.split(';').next().unwrap_or_default().trim();
        let ends: &[&[u8]] = match media.to_ascii_lowercase().as_str() {
            // WHATWG HTML, section 9.2.5: an empty line, whatever ends lines there.
            "text/event-stream" => &[b"\n\n", b"\n\r\n", b"\r\r"],
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => &[b"\n"],
            _ => return None,
        };
        // Nothing is to be seen in what is compressed; whoever reads it takes any end for a break, and connects again.
        const ANYWHERE: &[&[u8]] = &[b""];
        let ends = match headers.contains_key(header::CONTENT_ENCODING) {
            true => ANYWHERE,
            false => ends,
        };
        Some(Self {
            ends,
            last: *b"\n\n\n\n",
        })
    }

    /// Notes how what passes ends.
    pub fn note(&mut self, data: &[u8]) {
        let len = self.last.len();
        let new = &data[data.len().saturating_sub(len)..];
        self.last.rotate_left(new.len());
        self.last[len - new.len()..].copy_from_slice(new);
    }

    /// Whether what has passed is whole events.
    pub fn is_between(&self) -> bool {
        self.ends.iter().any(|end| self.last.ends_with(end))
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn events(media: &'static str, coding: Option<&'static str>) -> Option<Events> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
        if let Some(coding) = coding {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
        }
        Events::of(&headers)
    }

    #[test]
    fn an_event_ends_where_its_format_says() {
        for (media, text, is_between) in [
            ("text/event-stream", "data: x\n", false),
            ("text/event-stream; charset=utf-8", "data: x\n\n", true),
            ("Text/Event-Stream", "data: x\r\n\r\n", true),
            ("application/x-ndjson", "{}\n", true),
            ("application/x-ndjson", "{}", false),
        ] {
            let mut events = events(media, None).expect("events");
            assert!(events.is_between(), "nothing has passed");
            for byte in text.bytes() {
                events.note(&[byte]);
            }
            assert_eq!(events.is_between(), is_between, "{media} {text:?}");
        }
        assert!(events("text/html", None).is_none());
    }

    #[test]
    fn what_is_compressed_may_end_anywhere() {
        let mut events = events("text/event-stream", Some("gzip")).expect("events");
        events.note(b"\x1f\x8b");
        assert!(events.is_between());
    }
}
