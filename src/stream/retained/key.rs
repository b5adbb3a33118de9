//! Where an event's key comes from.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::event::{Kind, Payload};

/// The longest key that is taken out of a payload, in bytes: as long as one that is published may be.
const MAX_KEY: usize = 1 << 10;

/// What makes the key of an event that has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// Nothing: events have keys or they do not.
    Own,
    /// A member of its payload, which is JSON.
    Pointer(Pointer),
}

impl KeySource {
    /// The key of an event with this payload that has none of its own.
    pub fn key(&self, payload: &Payload) -> Option<Arc<str>> {
        match self {
            Self::Own => None,
            Self::Pointer(_) if payload.kind != Kind::Text => None,
            Self::Pointer(pointer) => pointer.find(&payload.bytes),
        }
    }
}

/// A JSON pointer (RFC 6901): the names on the way to a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer(Vec<String>);

impl FromStr for Pointer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is no JSON pointer, such as /symbol or /user/id");
        let tokens = text.strip_prefix('/').ok_or_else(wrong)?.split('/');
        tokens
            .map(|token| unescaped(token).ok_or_else(wrong))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// `~1` stands for a slash, and `~0` for the tilde (RFC 6901, section 4).
fn unescaped(token: &str) -> Option<String> {
    let mut parts = token.split('~');
    let mut name = parts.next()?.to_owned();
    for part in parts {
        let (sign, rest) = part.split_at_checked(1)?;
        name.push(match sign {
            "0" => '~',
            "1" => '/',
            _ => return None,
        });
        name.push_str(rest);
    }
    Some(name)
}

impl Pointer {
    /// The value it leads to in this JSON text, if that can be a key: a string, or a number or boolean as it is written.
    fn find(&self, json: &[u8]) -> Option<Arc<str>> {
        let raw = self.value(json)?;
        let text: Cow<'_, str> = match raw.get().as_bytes().first()? {
            b'"' => serde_json::from_str::<String>(raw.get()).ok()?.into(),
            b'{' | b'[' | b'n' => return None,
            _ => raw.get().into(),
        };
        let is_key = !text.is_empty() && text.len() <= MAX_KEY && !text.contains(char::is_control);
        is_key.then(|| text.into())
    }

    /// The value it leads to in this JSON text, as it is written there.
    pub fn value<'j>(&self, json: &'j [u8]) -> Option<&'j RawValue> {
        let mut reader = serde_json::Deserializer::from_slice(json);
        let raw = Way(&self.0).deserialize(&mut reader).ok()??;
        reader.end().ok()?;
        Some(raw)
    }
}

/// The rest of the way to a value. All of the text is read, so that what is no JSON is found out; nothing of it is kept.
struct Way<'p>(&'p [String]);

impl<'de> DeserializeSeed<'de> for Way<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        match self.0 {
            [] => <&RawValue>::deserialize(deserializer).map(Some),
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Way<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (name, rest) = (&self.0[0], &self.0[1..]);
        let mut found = None;
        while let Some(member) = map.next_key::<Cow<'de, str>>()? {
            // Of two members with one name the last counts, as with most parsers.
            match member == *name {
                true => found = map.next_value_seed(Way(rest))?,
                false => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let (name, rest) = (&self.0[0], &self.0[1..]);
        // No signs and no leading zeros (RFC 6901, section 4).
        let wanted = name.parse::<usize>().ok();
        let wanted = wanted.filter(|index| index.to_string() == *name);
        let (mut index, mut found) = (0, None);
        loop {
            if wanted == Some(index) {
                match items.next_element_seed(Way(rest))? {
                    Some(value) => found = value,
                    None => return Ok(found),
                }
            } else if items.next_element::<IgnoredAny>()?.is_none() {
                return Ok(found);
            }
            index += 1;
        }
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(pointer: &str, json: &str) -> Option<String> {
        let source = KeySource::Pointer(pointer.parse().expect("a pointer"));
        source.key(&Payload::text(json)).map(|key| key.to_string())
    }

    #[test]
    fn a_pointer_leads_to_a_value() {
        let long = "x".repeat(MAX_KEY);
        for (pointer, json, expected) in [
            ("/symbol", r#"{"symbol":"BTC","x":1}"#, Some("BTC")),
            ("/a/b", r#"{"x":[{}],"a":{"c":null,"b":"d"}}"#, Some("d")),
            ("/a/1/b", r#"{"a":[0,{"b":7},2]}"#, Some("7")),
            ("/0", r#"["first"]"#, Some("first")),
            ("/a~1b/~0", r#"{"a/b":{"~":true}}"#, Some("true")),
            ("/", r#"{"":"empty name"}"#, Some("empty name")),
            (
                "/n",
                r#"{"n": 12345678901234567890123.50 }"#,
                Some("12345678901234567890123.50"),
            ),
            ("/k", r#"{"k":"\u00e9 \"q\""}"#, Some("é \"q\"")),
            ("/k", r#"{"\u006b":"escaped name"}"#, Some("escaped name")),
            ("/k", r#"{"k":"first","k":"last"}"#, Some("last")),
            ("/k", " {\"k\" : \"x\"} \n", Some("x")),
            ("/k", &format!("{{\"k\":\"{long}\"}}"), Some(&long)),
            ("/k", &format!("{{\"k\":\"{long}x\"}}"), None),
            ("/k", r#"{"k":"line\n"}"#, None),
            ("/k", r#"{"k":""}"#, None),
            ("/k", r#"{"k":null}"#, None),
            ("/k", r#"{"k":{"k":"deeper"}}"#, None),
            ("/k", r#"{"k":["x"]}"#, None),
            ("/k/l", r#"{"k":"text"}"#, None),
            ("/k/l", r#"{"k":null}"#, None),
            ("/01", r#"["x","y"]"#, None),
            ("/2", r#"["x","y"]"#, None),
            ("/k", r#"{"K":"x"}"#, None),
            ("/k", r#"{"k":"x"}}"#, None),
            ("/k", r#"{"k":"x""#, None),
            ("/k", "k", None),
            ("/k", "", None),
            ("/k", "7", None),
            ("/k", "\"k\"", None),
        ] {
            assert_eq!(key(pointer, json).as_deref(), expected, "{pointer} {json}");
        }
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(key("/k", &deep), None);
        let binary = Payload::binary(&br#"{"k":"x"}"#[..]);
        let source = KeySource::Pointer("/k".parse().expect("a pointer"));
        assert_eq!(source.key(&binary), None);
    }

    #[test]
    fn what_is_no_pointer_is_refused() {
        for wrong in ["", "symbol", "/a~", "/a~2", "/~é"] {
            assert!(wrong.parse::<Pointer>().is_err(), "{wrong}");
        }
    }
}
