//! Events and their ids: what every source produces, the log keeps, and every wire format encodes.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// One event of a stream, as the log keeps it. The payload is never looked into and never changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Given once, by the first wsevent that saw the event.
    pub id: EventId,
    /// When the origin took it in, in microseconds since the Unix epoch.
    pub time: u64,
    /// What kind of event it is, if its producer says so: SSE's `event:`, CloudEvents' `type`.
    pub event_type: Option<Arc<str>>,
    /// What it is about, if its producer says so: CloudEvents' `subject`.
    pub key: Option<Arc<str>>,
    /// The event's content.
    pub payload: Payload,
}

/// An event on its way into a log, which gives it id and time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// What kind of event it is.
    pub event_type: Option<Arc<str>>,
    /// What it is about.
    pub key: Option<Arc<str>>,
    /// Its content.
    pub payload: Payload,
}

impl From<Payload> for NewEvent {
    fn from(payload: Payload) -> Self {
        Self {
            event_type: None,
            key: None,
            payload,
        }
    }
}

/// What a publisher says of all its events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels {
    /// What kind of events they are.
    pub event_type: Option<Arc<str>>,
    /// What they are about.
    pub key: Option<Arc<str>>,
}

impl Labels {
    /// One of these events.
    pub fn event(&self, payload: Payload) -> NewEvent {
        NewEvent {
            event_type: self.event_type.clone(),
            key: self.key.clone(),
            payload,
        }
    }
}

/// A notice that events are missing: behind `after` and before `next`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The id of the last event before the gap: as a subscriber gave it, so perhaps not one of ours.
    pub after: Option<Box<str>>,
    /// The event that comes next, if it is there already.
    pub next: Option<EventId>,
    /// How many events are missing, if that is known.
    pub lost: Option<u64>,
}

impl Gap {
    /// The number behind which all is missing up to `next`, which is the event behind this gap, if that is what it says: then `next`'s
    /// own number says it as well. What has no number, as it was lost before the origin could give it one, is missing between
    /// neighbours.
    pub fn by_number(&self, next: EventId) -> Option<u64> {
        if !next.origin.counts() {
            return None;
        }
        match &self.after {
            Some(after) => {
                let after: EventId = after.parse().ok()?;
                let is_before = after.origin == next.origin && after.seq.checked_add(1)? < next.seq;
                is_before.then_some(after.seq)
            }
            // Without a place it is of anything.
            None if self.next != Some(next) => None,
            None => {
                let lost = self.lost.filter(|&lost| lost > 0)?;
                next.seq.checked_sub(lost)?.checked_sub(1)
            }
        }
    }

    /// Whether it is between two events that follow each other by their numbers: the origin itself has missed something there.
    pub fn is_between_neighbours(&self) -> bool {
        let after = self.after.as_ref().and_then(|after| after.parse().ok());
        after
            .zip(self.next)
            .is_some_and(|(after, next): (EventId, _)| {
                after.origin == next.origin && after.seq.checked_add(1) == Some(next.seq)
            })
    }
}

/// A boundary of a snapshot: what is kept of a stream's state, as a subscriber gets it before the events behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Snapshot {
    /// What follows is the state, one event a key, up to the end of the snapshot. What a subscriber knew of keys is void.
    Begin {
        /// So many events at most: a key that changes meanwhile is not among them, but comes with the events behind.
        count: u64,
    },
    /// It is over.
    End {
        /// The event that the subscriber stands behind now, if it is known.
        after: Option<EventId>,
    },
}

/// A notice that a slow subscriber was given the newest events of each key only: between `after` and `next`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged {
    /// The last event that it was given before, if it is known.
    pub after: Option<EventId>,
    /// The event that comes next, if it is there already.
    pub next: Option<EventId>,
    /// So many events it was not given.
    pub merged: u64,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EventId {
    /// The instance where the event got this id.
    pub origin: Origin,
    /// Counts up from 1; without holes, if the origin [counts](Origin::counts).
    pub seq: u64,
}

/// Where an event has its number from: the random 63-bit id of an instance, or the name of a store that numbers its entries
/// itself. Shown as 13 characters of Crockford's base32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Origin(pub u64);

impl Origin {
    /// Marks a store: the first of the 13 characters is one of 8 to F.
    const STORE: u64 = 1 << 63;

    /// A new random origin; one is drawn for each log at start, so that a restarted instance never reuses an id.
    pub fn random() -> Self {
        Self(rand::random::<u64>() & !Self::STORE)
    }

    /// A store whose entries bear numbers already, such as a stream of a bus: the same for all who read it, and whenever. `name` is
    /// a hash of what it is called.
    pub fn store(name: u64) -> Self {
        Self(name | Self::STORE)
    }

    /// Whether its numbers have no holes, so that a number that is skipped is an event that is missing. Those of a store may:
    /// what it has deleted, or what a filter leaves out, was never a part of the stream.
    pub fn counts(self) -> bool {
        self.0 & Self::STORE == 0
    }
}

/// Crockford's alphabet leaves out I, L, O and U.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // 13 characters of 5 bits hold 65 bits: the first is at most `F`.
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

/// A text that is no id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAnId;

impl fmt::Display for NotAnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an id of the form <13 characters>-<number>")
    }
}

impl std::error::Error for NotAnId {}

/// Letters of either case; one spelling otherwise, so that two ids are the same when their texts are.
impl FromStr for Origin {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        if text.len() != 13 {
            return Err(NotAnId);
        }
        let value = text.bytes().try_fold(0u128, |value, letter| {
            let letter = letter.to_ascii_uppercase();
            let digit = ALPHABET.iter().position(|&known| known == letter)?;
            Some(value << 5 | digit as u128)
        });
        let value = value.and_then(|value| u64::try_from(value).ok());
        value.map(Self).ok_or(NotAnId)
    }
}

impl FromStr for EventId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let (origin, seq) = text.split_once('-').ok_or(NotAnId)?;
        // `parse` would take a plus sign and leading zeros.
        let plain = seq.bytes().all(|digit| digit.is_ascii_digit()) && !seq.starts_with('0');
        let seq = seq.parse().map_err(|_| NotAnId)?;
        match plain {
            true => Ok(Self {
                origin: origin.parse()?,
                seq,
            }),
            false => Err(NotAnId),
        }
    }
}

#[cfg(test)]
thread_local! {
    /// What [`now`] is on this thread, while it simulates a hop: each has a clock of its own.
    pub static SIMULATED_NOW: std::cell::Cell<Option<u64>> = const { std::cell::Cell::new(None) };
}

/// Microseconds since the Unix epoch, now. A clock set before 1970 reads as 0.
pub fn now() -> u64 {
    #[cfg(test)]
    if let Some(simulated) = SIMULATED_NOW.get() {
        return simulated;
    }
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
        assert_eq!("0000000000001-42".parse(), Ok(id));
    }

    #[test]
    fn ids_are_read_as_they_are_written() {
        for origin in [0, 1, 31, u64::MAX, 0x0123_4567_89AB_CDEF] {
            let origin = Origin(origin);
            assert_eq!(origin.to_string().parse(), Ok(origin));
            assert_eq!(origin.to_string().to_lowercase().parse(), Ok(origin));
        }
        for wrong in [
            "",
            "-",
            "1",
            "0000000000001",
            "0000000000001-",
            "0000000000001-0",
            "0000000000001-+1",
            "0000000000001-01",
            "0000000000001-1 ",
            "0000000000001-18446744073709551616",
            "000000000000-1",
            "000000000000U-1",
            "G000000000000-1",
            "00000000000é-1",
        ] {
            assert_eq!(wrong.parse::<EventId>(), Err(NotAnId), "{wrong}");
        }
    }
}
