//! Events and their ids: what every source produces, the log keeps, and every wire format encodes.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;

/// One event of a stream, as the log keeps it. The payload is never looked into and never changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Given once, by the first wsevent that saw the event.
    pub id: EventId,
    /// When the origin took it in, in microseconds since the Unix epoch.
    pub time: u64,
    /// The event's content.
    pub payload: Payload,
}

/// An event's content: its bytes as they came, and whether they are text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// Text or binary; a relay hands on what it got.
    pub kind: Kind,
    /// The bytes. When `kind` is [`Kind::Text`], whoever made the payload has checked that they are UTF-8.
    pub bytes: Bytes,
}

/// The two kinds of payload that a WebSocket message can be (RFC 6455, section 5.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8 text.
    Text,
    /// Any bytes.
    Binary,
}

impl Payload {
    /// A text payload.
    pub fn text(text: impl Into<String>) -> Self {
        Self {
            kind: Kind::Text,
            bytes: Bytes::from(text.into()),
        }
    }

    /// A binary payload.
    pub fn binary(bytes: impl Into<Bytes>) -> Self {
        Self {
            kind: Kind::Binary,
            bytes: bytes.into(),
        }
    }
}

/// Names an event everywhere: the instance that first saw it, and its number there.
///
/// Written as `<origin>-<seq>`, for example `0H3B6Q2ZK7M9T-42`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EventId {
    /// The instance where the event got this id.
    pub origin: Origin,
    /// Counts up from 1 without holes.
    pub seq: u64,
}

/// The random 64-bit id of an instance, shown as 13 characters of Crockford's base32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Origin(pub u64);

impl Origin {
    /// A new random origin; one is drawn for each log at start, so that a restarted instance never reuses an id.
    pub fn random() -> Self {
        Self(rand::random())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Crockford's alphabet leaves out I, L, O and U. 13 characters of 5 bits hold 65 bits: the first is at most `F`.
        const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
        let mut text = [0u8; 13];
        for (place, slot) in text.iter_mut().rev().enumerate() {
            *slot = ALPHABET[(self.0 >> (5 * place)) as usize & 31];
        }
        f.write_str(std::str::from_utf8(&text).expect("the alphabet is ASCII"))
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.origin, self.seq)
    }
}

/// Microseconds since the Unix epoch, now. A clock set before 1970 reads as 0.
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_micros() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_thirteen_crockford_characters() {
        assert_eq!(Origin(0).to_string(), "0000000000000");
        assert_eq!(Origin(31).to_string(), "000000000000Z");
        assert_eq!(Origin(32).to_string(), "0000000000010");
        assert_eq!(Origin(u64::MAX).to_string(), "FZZZZZZZZZZZZ");
    }

    #[test]
    fn an_id_names_origin_and_number() {
        let id = EventId {
            origin: Origin(1),
            seq: 42,
        };
        assert_eq!(id.to_string(), "0000000000001-42");
    }
}
