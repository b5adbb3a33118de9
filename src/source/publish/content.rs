//! What the body of a request is, as its headers say it.

use hyper::header::{self, HeaderMap, HeaderName};

use super::Refused;
use crate::event::Kind;

/// How to read a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// It is one event's payload, of this kind; without one, text if it is UTF-8.
    Payload(Option<Kind>),
    /// One JSON object a line.
    Lines,
    /// One event in the JSON event format of CloudEvents.
    CloudEvent,
    /// An array of them.
    CloudEvents,
}

impl Content {
    /// Decides by Content-Type and Content-Encoding (RFC 9110, sections 8.3 and 8.4).
    pub fn of(headers: &HeaderMap) -> Result<Self, Refused> {
        let encodings = headers.get_all(header::CONTENT_ENCODING);
        if encodings
            .iter()
            .any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"))
        {
            return Err(Refused::unsupported(
                "a Content-Encoding is not undone here: send the body as it is",
            ));
        }
        let Some(text) = only(headers, &header::CONTENT_TYPE)? else {
            return Ok(Self::Payload(None));
        };
        let text = std::str::from_utf8(text).unwrap_or_default();
        let mut quoted = false;
        let mut parts = text.split(|c| {
            quoted ^= c == '"';
            c == ';' && !quoted
        });
        let essence = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
        if essence.is_empty() && text.is_empty() {
            return Ok(Self::Payload(None));
        }
        let is_charset = |part: &&str| {
            part.trim_start()
                .to_ascii_lowercase()
                .starts_with("charset=")
        };
        if let Some((_, charset)) = parts.find(is_charset).and_then(|part| part.split_once('=')) {
            let charset = charset.trim().trim_matches('"').to_ascii_lowercase();
            if !["utf-8", "utf8", "us-ascii"].contains(&&*charset) {
                return Err(Refused::unsupported("only the charset utf-8 is taken"));
            }
        }
        Self::of_essence(&essence)
    }

    /// `essence` is a media type without its parameters, in small letters.
    fn of_essence(essence: &str) -> Result<Self, Refused> {
        Ok(match essence {
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Self::Lines,
            "application/cloudevents+json" => Self::CloudEvent,
            "application/cloudevents-batch+json" => Self::CloudEvents,
            _ if essence.starts_with("application/cloudevents") => {
                return Err(Refused::unsupported(
                    "of the formats of CloudEvents only JSON is understood",
                ));
            }
            // What `curl -d` calls anything; nobody posts a form to an event stream.
            "application/json" | "application/xml" | "application/x-www-form-urlencoded" => {
                Self::Payload(Some(Kind::Text))
            }
            _ => match essence.split_once('/') {
                Some(("multipart", _)) => {
                    return Err(Refused::unsupported(
                        "multipart bodies are not taken apart: send one event as it is, or several as application/x-ndjson",
                    ));
                }
                Some(("text", _)) => Self::Payload(Some(Kind::Text)),
                Some((_, subtype)) if subtype.ends_with("+json") || subtype.ends_with("+xml") => {
                    Self::Payload(Some(Kind::Text))
                }
                Some((kind, subtype)) if !kind.is_empty() && !subtype.is_empty() => {
                    Self::Payload(Some(Kind::Binary))
                }
                _ => return Err(Refused::unsupported("the Content-Type is not a media type")),
            },
        })
    }
}

/// The value of a header that must not stand there twice.
pub(super) fn only<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a [u8]>, Refused> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(Refused::bad(format!(
            "there is more than one header {name}"
        ))),
        (value, None) => Ok(value.map(|value| value.as_bytes())),
    }
}

#[cfg(test)]
mod tests {
    use hyper::StatusCode;
    use hyper::header::HeaderValue;

    use super::*;

    fn content(value: &str) -> Result<Content, StatusCode> {
        let value = HeaderValue::from_str(value).expect("a header");
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, value)]);
        Content::of(&headers).map_err(|refused| refused.status)
    }

    #[test]
    fn media_types_say_what_a_body_is() {
        const TEXT: Content = Content::Payload(Some(Kind::Text));
        const BINARY: Content = Content::Payload(Some(Kind::Binary));
        for (value, expected) in [
            ("text/plain", TEXT),
            ("TEXT/Html; Charset=UTF-8", TEXT),
            ("text/csv;charset=\"us-ascii\"", TEXT),
            ("application/json", TEXT),
            ("application/problem+json", TEXT),
            ("application/xml", TEXT),
            ("image/svg+xml", TEXT),
            ("application/x-www-form-urlencoded", TEXT),
            ("application/octet-stream", BINARY),
            ("image/png; title=\"a; charset=koi8-r\"", BINARY),
            ("", Content::Payload(None)),
            ("application/x-ndjson", Content::Lines),
            ("application/ndjson; charset=utf-8", Content::Lines),
            ("application/jsonl", Content::Lines),
            ("application/cloudevents+json", Content::CloudEvent),
            ("application/cloudevents-batch+json", Content::CloudEvents),
        ] {
            assert_eq!(content(value), Ok(expected), "{value}");
        }
        for value in [
            "text/plain; charset=iso-8859-1",
            "text/plain; a=\"b\"; charset=utf-16",
            "multipart/form-data; boundary=x",
            "application/cloudevents+avro",
            "text",
            "/plain",
            "image/",
            " ; a=b",
        ] {
            assert_eq!(
                content(value),
                Err(StatusCode::UNSUPPORTED_MEDIA_TYPE),
                "{value}"
            );
        }
    }
}
