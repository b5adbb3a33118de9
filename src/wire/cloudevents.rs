//! CloudEvents 1.0: the JSON event format, and attributes as HTTP headers (HTTP protocol binding, section 3.1.3).
//!
//! Of the attributes an event keeps `type` and, as its key, `subject`. `source` and `id` name it until it has an id of ours.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use percent_encoding::{AsciiSet, CONTROLS};
use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::ndjson::{even_null, read_object, reason, string};
use crate::event::{NewEvent, Payload};

/// An event, and what its publisher calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudEvent {
    /// Source and id, if there is an id: two events of which both are the same are one (section "id" of the specification).
    pub name: Option<Name>,
    /// The event.
    pub event: NewEvent,
}

/// What names an event among all CloudEvents.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Name {
    /// The producer; may be empty.
    pub source: Box<str>,
    /// Its name for the event.
    pub id: Box<str>,
}

/// Reads an event in the JSON event format. JSON data becomes its JSON text as written there; a JSON string under a
/// `datacontenttype` that is not JSON becomes that string; what came as `data_base64` is binary. No data is no bytes.
pub fn decode(text: &[u8]) -> Result<CloudEvent, String> {
    let members: Members = read_object(text)?;
    let optional = |raw: Option<&'_ RawValue>, name| {
        let text = raw.map(|raw| string(raw, name).map(Cow::into_owned));
        // An attribute must not be empty, and some producers write an empty one for none.
        let text = text.transpose()?.filter(|text| !text.is_empty());
        Ok::<_, String>(text)
    };
    let version = optional(members.specversion, "specversion")?;
    check_version(&version.ok_or("no specversion: not a CloudEvent")?)?;
    let content_type = optional(members.datacontenttype, "datacontenttype")?;
    let payload = match (members.data, members.data_base64) {
        (Some(raw), None) if raw.get().starts_with('"') && !is_json(content_type.as_deref()) => {
            Payload::text(string(raw, "data")?)
        }
        (Some(raw), None) => Payload::text(raw.get()),
        (None, Some(raw)) => {
            let bytes = BASE64.decode(&*string(raw, "data_base64")?);
            Payload::binary(bytes.map_err(|_| "data_base64 is not base64")?)
        }
        (None, None) => Payload::text(""),
        (Some(_), Some(_)) => return Err("both data and data_base64".to_owned()),
    };
    let source = optional(members.source, "source")?.unwrap_or_default();
    let id = optional(members.id, "id")?;
    Ok(CloudEvent {
        name: id.map(|id| Name {
            source: source.into(),
            id: id.into(),
        }),
        event: NewEvent {
            event_type: optional(members.event_type, "type")?.map(Into::into),
            key: optional(members.subject, "subject")?.map(Into::into),
            payload,
        },
    })
}

/// Takes a batch (JSON batch format) apart, into the texts of its events, but no more than `most` of them: `[0,0,0,…]` would
/// need many times the room that it has itself.
pub fn split_batch(text: &[u8], most: usize) -> Result<Vec<&RawValue>, String> {
    struct Events(usize);
    impl<'de> Visitor<'de> for Events {
        type Value = Vec<&'de RawValue>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
            let mut events = vec![];
            while let Some(event) = array.next_element()? {
                if events.len() < self.0 {
                    events.push(event);
                }
            }
            Ok(events)
        }
    }
    if text.trim_ascii_start().first() != Some(&b'[') {
        return Err("not a JSON array".to_owned());
    }
    let mut json = serde_json::Deserializer::from_slice(text);
    let events = json.deserialize_seq(Events(most));
    let events = events.and_then(|events| json.end().map(|()| events));
    events.map_err(|error| reason(&error))
}

/// Whether events of this `specversion` are understood.
pub fn check_version(version: &str) -> Result<(), String> {
    match version == "1.0" || version.starts_with("1.0.") {
        true => Ok(()),
        false => Err("only CloudEvents of specversion 1.0 are understood".to_owned()),
    }
}

/// The `type` of an event that has none, as every CloudEvent must have one. It is read as none.
pub const UNTYPED: &str = "wsevent.event";

/// What is escaped in a header, beside what is not ASCII (HTTP protocol binding, section 3.1.3.2).
pub const IN_HEADER: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

/// An attribute's value out of the header that carries it (HTTP protocol binding, section 3.1.3.2): what is quoted is
/// unquoted, then escapes of the form `%C3` are undone, once.
pub fn decode_header(value: &[u8]) -> Result<String, String> {
    let unquoted = match value {
        [b'"', quoted @ .., b'"'] => Cow::Owned(unquote(quoted)),
        _ => Cow::Borrowed(value),
    };
    let decoded = percent_encoding::percent_decode(&unquoted).decode_utf8();
    decoded
        .map(Cow::into_owned)
        .map_err(|_| "its value is not UTF-8".to_owned())
}

/// Undoes the escapes of a quoted string (RFC 9110, section 5.6.4).
fn unquote(quoted: &[u8]) -> Vec<u8> {
    let mut escaped = false;
    let is_kept = move |byte: &u8| {
        escaped = *byte == b'\\' && !escaped;
        !escaped
    };
    quoted.iter().copied().filter(is_kept).collect()
}

/// Whether data of this type is JSON; without a type it is (section 3.1 of the JSON event format).
fn is_json(content_type: Option<&str>) -> bool {
    let essence = content_type.map(|text| text.split(';').next().unwrap_or_default().trim());
    essence.is_none_or(|essence| {
        let essence = essence.to_ascii_lowercase();
        essence.ends_with("/json") || essence.ends_with("+json")
    })
}

/// Members as they are written, so that a wrong one can be named; others mean nothing here.
#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow)]
    specversion: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    source: Option<&'a RawValue>,
    #[serde(borrow, rename = "type")]
    event_type: Option<&'a RawValue>,
    #[serde(borrow)]
    subject: Option<&'a RawValue>,
    #[serde(borrow)]
    datacontenttype: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "even_null")]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    data_base64: Option<&'a RawValue>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(members: &str) -> Result<Payload, String> {
        let text = format!(r#"{{"specversion":"1.0"{members}}}"#);
        decode(text.as_bytes()).map(|event| event.event.payload)
    }

    #[test]
    fn data_is_taken_as_its_type_says() {
        for (members, expected) in [
            (r#","data":{"a": 1}"#, r#"{"a": 1}"#),
            (r#","data":"text""#, r#""text""#),
            (r#","data":null"#, "null"),
            (r#","data":"a\nb","datacontenttype":"text/plain""#, "a\nb"),
            (
                r#","data":"a","datacontenttype":"Application/X+JSON; a=b""#,
                r#""a""#,
            ),
            (r#","data":[1],"datacontenttype":"text/plain""#, "[1]"),
            ("", ""),
        ] {
            assert_eq!(payload(members), Ok(Payload::text(expected)), "{members}");
        }
        assert_eq!(
            payload(r#","data_base64":"AP8=""#),
            Ok(Payload::binary(vec![0, 255]))
        );
    }

    #[test]
    fn attributes_become_labels_and_a_name() {
        let text =
            br#"{"specversion":"1.0","id":"7","source":"/s","type":"t","subject":"k","extra":[]}"#;
        let event = decode(text).expect("it is one");
        assert_eq!(event.event.event_type.as_deref(), Some("t"));
        assert_eq!(event.event.key.as_deref(), Some("k"));
        let name = event.name.expect("it has an id");
        assert_eq!((&*name.source, &*name.id), ("/s", "7"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, expected) in [
            ("[]", "not a JSON object"),
            ("{}", "no specversion"),
            (r#"{"specversion":"0.3"}"#, "specversion 1.0"),
            (r#"{"specversion":1}"#, "specversion is not a string"),
            (r#"{"specversion":"1.0","type":5}"#, "type is not a string"),
            (
                r#"{"specversion":"1.0","data":1,"data_base64":""}"#,
                "both data",
            ),
            (r#"{"specversion":"1.0","data_base64":"?"}"#, "not base64"),
            (r#"{"specversion":"1.0","#, "cut off"),
        ] {
            let error = decode(text.as_bytes()).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
        let split = |text: &'static str| split_batch(text.as_bytes(), 3).map(|events| events.len());
        for wrong in ["{}", "[{},", "[] []", "[0,0,0,0,x]"] {
            assert!(split(wrong).is_err(), "{wrong}");
        }
        assert_eq!((split(" [ ]"), split("[1, [], {}, 4, 5] ")), (Ok(0), Ok(3)));
    }

    #[test]
    fn headers_are_unquoted_and_unescaped_once() {
        for (value, expected) in [
            ("plain", "plain"),
            ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
            ("%2541", "%41"),
            ("100%", "100%"),
            (r#""a \"b\" \\ c""#, r#"a "b" \ c"#),
            ("é", "é"),
            ("\"", "\""),
        ] {
            assert_eq!(
                decode_header(value.as_bytes()).as_deref(),
                Ok(expected),
                "{value}"
            );
        }
        assert!(decode_header(b"%FF").is_err());
        assert!(decode_header(b"\xFF").is_err());
    }
}
