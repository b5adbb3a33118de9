//! What a message of a foreign WebSocket must be like: a regular expression, or members of a JSON object.

use std::str::FromStr;

use regex::Regex;
use serde_json::{Map, Value};

use crate::event::{Kind, Payload};

/// Matches some text messages, and no binary ones.
#[derive(Debug, Clone)]
pub enum Pattern {
    /// It is found somewhere in the text.
    Regex(Regex),
    /// The text is a JSON object (RFC 8259, section 4) that has all of these members, and perhaps others.
    Members(Map<String, Value>),
}

impl FromStr for Pattern {
    type Err = String;

    /// What is a JSON object is one; anything else is a regular expression.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(Value::Object(members)) = serde_json::from_str(text) {
            return Ok(Self::Members(members));
        }
        Regex::new(text).map(Self::Regex).map_err(|error| {
            // It draws the place on lines of its own; the last one says what it is.
            let error = error.to_string();
            let reason = error.lines().last().unwrap_or_default().trim();
            let reason = reason.strip_prefix("error: ").unwrap_or(reason);
            format!("'{text}' is neither a JSON object nor a regular expression ({reason})")
        })
    }
}

impl Pattern {
    /// Whether this message is like that.
    pub fn matches(&self, message: &Payload) -> bool {
        if message.kind != Kind::Text {
            return false;
        }
        match self {
            Self::Regex(regex) => {
                std::str::from_utf8(&message.bytes).is_ok_and(|text| regex.is_match(text))
            }
            Self::Members(members) => {
                // Of a feed most messages are something else: what is no object need not be parsed.
                let is_object = message.bytes.trim_ascii_start().starts_with(b"{");
                let object = is_object.then(|| serde_json::from_slice(&message.bytes));
                matches!(object, Some(Ok(Value::Object(object))) if has(&object, members))
            }
        }
    }
}

/// Whether `object` has all these members; of an object in it the same is asked, and of anything else that it is equal.
fn has(object: &Map<String, Value>, members: &Map<String, Value>) -> bool {
    members.iter().all(|(name, wanted)| {
        object.get(name).is_some_and(|value| match (value, wanted) {
            (Value::Object(value), Value::Object(wanted)) => has(value, wanted),
            // 1 and 1.0 are one number.
            (Value::Number(value), Value::Number(wanted)) => {
                value == wanted || value.as_f64() == wanted.as_f64()
            }
            (value, wanted) => value == wanted,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        let pattern: Pattern = pattern.parse().expect("a pattern");
        pattern.matches(&Payload::text(text.to_owned()))
    }

    #[test]
    fn members_must_be_there_and_others_may_be() {
        const MESSAGE: &str =
            r#" {"op":"auth","ok":true,"n":1.0,"at":{"id":7,"x":[1,{"y":2}]},"no":null}"#;
        for pattern in [
            "{}",
            r#"{"op":"auth"}"#,
            r#"{"ok":true,"op":"auth"}"#,
            r#"{"n":1}"#,
            r#"{"at":{"id":7}}"#,
            r#"{"at":{}}"#,
            r#"{"at":{"x":[1,{"y":2}]}}"#,
            r#"{"no":null}"#,
        ] {
            assert!(matches(pattern, MESSAGE), "{pattern}");
        }
        for pattern in [
            r#"{"op":"Auth"}"#,
            r#"{"op":"auth","other":1}"#,
            r#"{"ok":"true"}"#,
            r#"{"n":2}"#,
            r#"{"at":{"id":8}}"#,
            r#"{"at":7}"#,
            r#"{"op":{}}"#,
            r#"{"at":{"x":[1]}}"#,
            r#"{"other":null}"#,
        ] {
            assert!(!matches(pattern, MESSAGE), "{pattern}");
        }
        for text in ["", "{", "[]", r#"[{"op":"auth"}]"#, r#""op""#, "{} {}"] {
            assert!(!matches("{}", text), "{text}");
        }
    }

    #[test]
    fn a_regular_expression_is_searched_in_text() {
        assert!(matches("^ok", "ok then"));
        assert!(matches(
            r#""type":\s*"(pong|heartbeat)""#,
            r#"{"type": "pong"}"#
        ));
        assert!(matches("", "anything"));
        assert!(!matches("^ok$", "ok then"));
        // An array is no object, so it is an expression: one of these letters.
        assert!(matches("[ok]", "k"));
    }

    #[test]
    fn binary_messages_match_nothing() {
        for pattern in ["", "ok", "{}"] {
            let pattern: Pattern = pattern.parse().expect("a pattern");
            for bytes in [&b"ok"[..], b"{}", b"\xff"] {
                assert!(!pattern.matches(&Payload::binary(bytes.to_vec())));
            }
        }
    }

    #[test]
    fn what_is_wrong_is_said_in_one_line() {
        for text in ["(", "{\"op\":", "a{2,1}", "\\q", "(a{1000}){1000}"] {
            let error = text.parse::<Pattern>().expect_err(text);
            assert!(!error.contains('\n') && !error.contains("()"), "{error}");
            assert!(error.contains(text), "{error}");
        }
    }
}
