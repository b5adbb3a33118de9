//! Recordings, as docs/recording.md describes them: events and gaps one behind the other, each with its length and a checksum.
//!
//! ```text
//!   "wsevent recording 1\n"
//!   length u32 │ checksum u32 │ body        a record: an event, or a notice that events are missing
//!   length u32 │ checksum u32 │ body
//!   …
//! ```
//!
//! Numbers are little-endian. The checksum is the CRC-32 of IEEE 802.3 over the length's four bytes and the body.

use std::sync::Arc;

use bytes::Bytes;

use crate::event::{Event, EventId, Gap, Kind, NewEvent, Origin, Payload};

/// How a recording begins. The number is that of the format.
pub const MAGIC: &[u8; 20] = b"wsevent recording 1\n";
/// What stands before each body: its length and the checksum, in bytes.
pub const HEAD: usize = 8;
/// The longest body in bytes: the largest event there may be, with its labels.
pub const LARGEST: usize = (512 << 20) + LABELS;
/// What an event may have beside its payload, in bytes.
pub const LABELS: usize = 1 << 20;

const EVENT: u8 = 1;
const GAP: u8 = 2;

const BINARY: u8 = 1;
const ID: u8 = 1 << 1;
const TYPE: u8 = 1 << 2;
const KEY: u8 = 1 << 3;
const KEPT: u8 = 1 << 4;

const AFTER: u8 = 1;
const NEXT: u8 = 1 << 1;
const LOST: u8 = 1 << 2;

/// What is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recorded {
    /// An event.
    Event {
        /// When it came to whoever has recorded it, in microseconds since the Unix epoch.
        arrived: u64,
        /// The event.
        event: Taken,
    },
    /// Events are missing here.
    Gap {
        /// When that was told, in microseconds since the Unix epoch.
        arrived: u64,
        /// Which, as far as it is known.
        gap: Gap,
    },
}

/// An event as whoever reads a stream has it: with the id and the time of its origin, if the server says them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Its id, if it has one.
    pub id: Option<EventId>,
    /// When its origin took it in, in microseconds since the Unix epoch, if that is known.
    pub time: Option<u64>,
    /// It is of the state that the server keeps, and not the next of the stream.
    pub is_kept: bool,
    /// What kind of event it is.
    pub event_type: Option<Arc<str>>,
    /// What it is about.
    pub key: Option<Arc<str>>,
    /// Its content.
    pub payload: Payload,
}

impl Taken {
    /// The same with its id, if it has one.
    pub fn known(&self) -> Option<Event> {
        Some(Event {
            id: self.id?,
            time: self.time?,
            event_type: self.event_type.clone(),
            key: self.key.clone(),
            payload: self.payload.clone(),
        })
    }

    /// The same, for a log that gives it another id.
    pub fn into_new(self) -> NewEvent {
        NewEvent {
            event_type: self.event_type,
            key: self.key,
            payload: self.payload,
        }
    }

    /// The same, as of the state that a server keeps.
    pub fn kept(self) -> Self {
        Self {
            is_kept: true,
            ..self
        }
    }
}

impl From<Event> for Taken {
    fn from(event: Event) -> Self {
        Self {
            id: Some(event.id),
            time: Some(event.time),
            is_kept: false,
            event_type: event.event_type,
            key: event.key,
            payload: event.payload,
        }
    }
}

impl From<NewEvent> for Taken {
    fn from(event: NewEvent) -> Self {
        Self {
            id: None,
            time: None,
            is_kept: false,
            event_type: event.event_type,
            key: event.key,
            payload: event.payload,
        }
    }
}

impl From<Payload> for Taken {
    fn from(payload: Payload) -> Self {
        NewEvent::from(payload).into()
    }
}

/// A checksum that is made piece by piece.
pub struct Checksum(crc32fast::Hasher);

impl Checksum {
    /// Of a record whose body is so long.
    pub fn of(len: u32) -> Self {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&len.to_le_bytes());
        Self(hasher)
    }

    /// And has this in it next.
    pub fn add(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// What it is.
    pub fn value(self) -> u32 {
        self.0.finalize()
    }
}

/// The length of a body, and its checksum, as they stand before it.
pub fn head(head: [u8; HEAD]) -> (u32, u32) {
    let number =
        |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    (number(0), number(4))
}

/// Appends a record, unless its body would be longer than [`LARGEST`]: then false, and nothing is appended.
pub fn encode(record: &Recorded, out: &mut Vec<u8>) -> bool {
    let begin = out.len();
    out.extend_from_slice(&[0; HEAD]);
    match record {
        Recorded::Event { arrived, event } => encode_event(*arrived, event, out),
        Recorded::Gap { arrived, gap } => encode_gap(*arrived, gap, out),
    }
    let len = out.len() - begin - HEAD;
    if len > LARGEST {
        out.truncate(begin);
        return false;
    }
    let len = u32::try_from(len).expect("it is below LARGEST");
    let mut checksum = Checksum::of(len);
    checksum.add(&out[begin + HEAD..]);
    out[begin..begin + 4].copy_from_slice(&len.to_le_bytes());
    out[begin + 4..begin + HEAD].copy_from_slice(&checksum.value().to_le_bytes());
    true
}

fn encode_event(arrived: u64, event: &Taken, out: &mut Vec<u8>) {
    let mut flags = 0;
    for (flag, is_set) in [
        (BINARY, event.payload.kind == Kind::Binary),
        (ID, event.id.is_some()),
        (TYPE, event.event_type.is_some()),
        (KEY, event.key.is_some()),
        (KEPT, event.is_kept),
    ] {
        flags |= if is_set { flag } else { 0 };
    }
    out.extend_from_slice(&[EVENT, flags]);
    out.extend_from_slice(&arrived.to_le_bytes());
    out.extend_from_slice(&event.time.unwrap_or(arrived).to_le_bytes());
    if let Some(id) = event.id {
        encode_id(id, out);
    }
    for text in [&event.event_type, &event.key].into_iter().flatten() {
        encode_text(text, out);
    }
    out.extend_from_slice(&event.payload.bytes);
}

fn encode_gap(arrived: u64, gap: &Gap, out: &mut Vec<u8>) {
    let mut flags = 0;
    for (flag, is_set) in [
        (AFTER, gap.after.is_some()),
        (NEXT, gap.next.is_some()),
        (LOST, gap.lost.is_some()),
    ] {
        flags |= if is_set { flag } else { 0 };
    }
    out.extend_from_slice(&[GAP, flags]);
    out.extend_from_slice(&arrived.to_le_bytes());
    if let Some(after) = &gap.after {
        encode_text(after, out);
    }
    if let Some(next) = gap.next {
        encode_id(next, out);
    }
    if let Some(lost) = gap.lost {
        out.extend_from_slice(&lost.to_le_bytes());
    }
}

fn encode_id(id: EventId, out: &mut Vec<u8>) {
    out.extend_from_slice(&id.origin.0.to_le_bytes());
    out.extend_from_slice(&id.seq.to_le_bytes());
}

/// One that is longer than a number can say is longer than a record may be, too.
fn encode_text(text: &str, out: &mut Vec<u8>) {
    let len = u32::try_from(text.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Reads the body of a record; none if it is of a kind that a later version may have, to be passed over.
pub fn decode(body: &[u8]) -> Result<Option<Recorded>, &'static str> {
    let mut rest = Rest(body);
    match rest.byte()? {
        EVENT => decode_event(rest).map(Some),
        GAP => decode_gap(rest).map(Some),
        _ => Ok(None),
    }
}

fn decode_event(mut rest: Rest<'_>) -> Result<Recorded, &'static str> {
    let flags = rest.flags(BINARY | ID | TYPE | KEY | KEPT)?;
    let arrived = rest.number()?;
    let time = rest.number()?;
    let id = rest.when(flags & ID, Rest::id)?;
    let event_type = rest.when(flags & TYPE, Rest::text)?.map(Arc::from);
    let key = rest.when(flags & KEY, Rest::text)?.map(Arc::from);
    let kind = match flags & BINARY {
        0 => Kind::Text,
        _ => Kind::Binary,
    };
    if kind == Kind::Text && std::str::from_utf8(rest.0).is_err() {
        return Err("its text is not UTF-8");
    }
    Ok(Recorded::Event {
        arrived,
        event: Taken {
            id,
            time: Some(time),
            is_kept: flags & KEPT > 0,
            event_type,
            key,
            payload: Payload {
                kind,
                bytes: Bytes::copy_from_slice(rest.0),
            },
        },
    })
}

fn decode_gap(mut rest: Rest<'_>) -> Result<Recorded, &'static str> {
    let flags = rest.flags(AFTER | NEXT | LOST)?;
    let arrived = rest.number()?;
    let gap = Gap {
        after: rest.when(flags & AFTER, Rest::text)?.map(Box::from),
        next: rest.when(flags & NEXT, Rest::id)?,
        lost: rest.when(flags & LOST, Rest::number)?,
    };
    match rest.0.is_empty() {
        true => Ok(Recorded::Gap { arrived, gap }),
        false => Err("there is more in it than a gap has"),
    }
}

/// What is left of a body.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], &'static str> {
        let (taken, rest) = self
            .0
            .split_at_checked(len)
            .ok_or("there is less in it than it says")?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, &'static str> {
        self.take(1).map(|byte| byte[0])
    }

    fn flags(&mut self, known: u8) -> Result<u8, &'static str> {
        match self.byte()? {
            flags if flags & !known == 0 => Ok(flags),
            _ => Err("it says of itself what is not known here"),
        }
    }

    fn number(&mut self) -> Result<u64, &'static str> {
        let bytes = self.take(8)?;
        Ok(u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
    }

    fn id(&mut self) -> Result<EventId, &'static str> {
        let origin = Origin(self.number()?);
        match self.number()? {
            0 => Err("its id has the number 0"),
            seq => Ok(EventId { origin, seq }),
        }
    }

    fn text(&mut self) -> Result<&'a str, &'static str> {
        let len = self.take(4)?;
        let len = u32::from_le_bytes(len.try_into().expect("four bytes"));
        let text = self.take(len as usize)?;
        std::str::from_utf8(text).map_err(|_| "a text in it is not UTF-8")
    }

    fn when<T>(
        &mut self,
        flag: u8,
        read: impl FnOnce(&mut Self) -> Result<T, &'static str>,
    ) -> Result<Option<T>, &'static str> {
        (flag > 0).then(|| read(self)).transpose()
    }
}

#[cfg(test)]
mod tests;
