//! An entry of a Redis stream, and the event that it is.

use std::fmt;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use redis::Value;
use serde::Serializer;
use url::Url;

use super::super::super::Arrival;
use super::super::super::envelope::{self, Envelope};
use super::super::connection::database;
use super::{DATA, LINE};
use crate::event::{Event, EventId, Origin};
use crate::source::upstream::port;

/// The id of an entry: when it was added by the server's clock, and its number in that moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct EntryId {
    /// Milliseconds since the Unix epoch, mostly: whoever adds an entry may say something else.
    pub ms: u64,
    /// Counts up from 0.
    pub n: u64,
}

impl EntryId {
    /// Before all entries: none has this id.
    pub const ZERO: Self = Self { ms: 0, n: 0 };
    /// Behind all entries.
    pub const MAX: Self = Self {
        ms: u64::MAX,
        n: u64::MAX,
    };

    /// The next one that an entry may have.
    pub fn next(self) -> Self {
        match self.n.checked_add(1) {
            Some(n) => Self { n, ..self },
            None => Self {
                ms: self.ms.saturating_add(1),
                n: 0,
            },
        }
    }

    /// The one before.
    pub fn previous(self) -> Self {
        match (self.n.checked_sub(1), self.ms.checked_sub(1)) {
            (Some(n), _) => Self { n, ..self },
            (None, Some(ms)) => Self { ms, n: u64::MAX },
            (None, None) => Self::ZERO,
        }
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (ms, n) = std::str::from_utf8(bytes).ok()?.split_once('-')?;
        let (ms, n) = (ms.parse().ok()?, n.parse().ok()?);
        Some(Self { ms, n })
    }

    /// One that a server tells.
    pub fn of(value: &Value) -> Option<Self> {
        match value {
            Value::BulkString(bytes) => Self::parse(bytes),
            Value::SimpleString(text) => Self::parse(text.as_bytes()),
            _ => None,
        }
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.n)
    }
}

/// An entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Grows from entry to entry.
    pub id: EntryId,
    /// Names and values, in the order in which they were given.
    pub fields: Vec<(Bytes, Bytes)>,
}

impl Entry {
    fn of(value: Value) -> Option<Self> {
        let Value::Array(parts) = value else {
            return None;
        };
        let mut parts = parts.into_iter();
        let id = EntryId::of(&parts.next()?)?;
        let fields = match parts.next()? {
            Value::Array(fields) => fields,
            // It has been deleted.
            Value::Nil => Vec::new(),
            _ => return None,
        };
        let mut values = fields.into_iter().map(bytes);
        let mut fields = Vec::with_capacity(values.len() / 2);
        while let (Some(name), Some(value)) = (values.next(), values.next()) {
            fields.push((name?, value?));
        }
        Some(Self { id, fields })
    }

    /// How many bytes it has.
    pub fn len(&self) -> usize {
        let fields = self.fields.iter();
        fields.map(|(name, value)| name.len() + value.len()).sum()
    }

    /// The value of a field.
    pub fn field(&self, name: &str) -> Option<&Bytes> {
        let found = self.fields.iter().find(|(found, _)| *found == name);
        found.map(|(_, value)| value)
    }

    /// The id of the event that it is, if one of us has written it.
    pub fn event_id(&self) -> Option<EventId> {
        let line = std::str::from_utf8(self.field(LINE)?).ok()?;
        line.split(' ').next()?.parse().ok()
    }
}

fn bytes(value: Value) -> Option<Bytes> {
    match value {
        Value::BulkString(bytes) => Some(bytes.into()),
        Value::SimpleString(text) => Some(text.into()),
        Value::Okay => Some(Bytes::from_static(b"OK")),
        _ => None,
    }
}

/// The answer to XRANGE or XREVRANGE.
pub fn entries(answer: Value) -> Result<Vec<Entry>> {
    let entries = match answer {
        Value::Array(entries) => entries.into_iter().map(Entry::of).collect(),
        Value::Nil => Some(Vec::new()),
        _ => None,
    };
    entries.context("the server's answer has no entries of a stream")
}

/// The answer to XREAD of one stream.
pub fn entries_read(answer: Value) -> Result<Vec<Entry>> {
    let Value::Array(mut streams) = answer else {
        return entries(answer);
    };
    match streams.pop() {
        Some(Value::Array(mut stream)) => entries(stream.pop().unwrap_or(Value::Nil)),
        Some(_) => bail!("the server's answer has no entries of a stream"),
        None => Ok(Vec::new()),
    }
}

/// What events of a stream are called that have no id of ours: the same by all who read it by this address, and whenever.
///
/// Their origin is that of a [store](Origin::store): FNV-1a, 64 bits, of `redis://HOST:PORT/DATABASE?stream=KEY`. Their number is
/// the entry's id, `ms << 22 | n`. What of it has no room there, though no clock of today makes it so (`ms` from the year 2109 on, `n`
/// from 4,194,304 on), goes into the origin: ` MS/N` behind the text, what is above the bits that fit.
#[derive(Debug)]
pub struct Naming {
    name: String,
    origin: Origin,
}

/// So many bits of a number are for `n`, and the rest for `ms`.
const N_BITS: u32 = 22;
const MS_BITS: u32 = u64::BITS - N_BITS;
const N_MASK: u64 = (1 << N_BITS) - 1;

impl Naming {
    /// Of the stream of this key at the server of this URL.
    pub fn new(url: &Url, key: &str) -> Self {
        let host = url.host_str().unwrap_or_default();
        let port = port(url).unwrap_or_default();
        Self::named(format!(
            "redis://{host}:{port}/{}?stream={key}",
            database(url)
        ))
    }

    fn named(name: String) -> Self {
        let origin = Origin::store(fnv1a(&name));
        Self { name, origin }
    }

    /// The stream was made anew, and has ids again that there were before: from this one on they need another origin. Who is here
    /// meanwhile calls them the same.
    pub fn begin_anew(&mut self, first: EntryId) {
        *self = Self::named(format!("{} from {first}", self.name));
    }

    /// What the event in an entry is called.
    pub fn event_id(&self, entry: EntryId) -> EventId {
        let above = (entry.ms >> MS_BITS, entry.n >> N_BITS);
        let origin = match above {
            (0, 0) => self.origin,
            (ms, n) => Origin::store(fnv1a(&format!("{} {ms}/{n}", self.name))),
        };
        let seq = entry.ms << N_BITS | entry.n & N_MASK;
        EventId { origin, seq }
    }

    /// The origin of entries whose ids have room in a number.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// The id of the entry that has this number.
    pub fn entry_id(number: u64) -> EntryId {
        EntryId {
            ms: number >> N_BITS,
            n: number & N_MASK,
        }
    }
}

/// FNV-1a, 64 bits (draft-eastlake-fnv): known everywhere, and the same for ever.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// How entries are read.
#[derive(Debug, Clone, Copy)]
pub struct Reading<'a> {
    /// Whether there are lines of ours.
    pub envelope: Envelope,
    /// The field that others have the payload in, if the user says it.
    pub field: Option<&'a str>,
}

impl Reading<'_> {
    /// What an entry is.
    pub fn open(self, entry: &Entry, naming: &Naming) -> Arrival {
        if let Some(line) = entry.field(LINE).filter(|_| self.envelope.is_beside()) {
            let payload = self.own_payload(entry);
            return self.envelope.open_beside(Some(line), payload);
        }
        match self.foreign_payload(entry) {
            Some(bytes) => Arrival::Known(Event {
                id: naming.event_id(entry.id),
                time: entry.id.ms.saturating_mul(1_000),
                event_type: None,
                key: None,
                payload: envelope::payload(bytes),
            }),
            None => Arrival::Unusable(format!(
                "it has no field '{}'",
                self.field.unwrap_or_default()
            )),
        }
    }

    /// Beside our line.
    fn own_payload(self, entry: &Entry) -> Bytes {
        let field = self.field.and_then(|field| entry.field(field));
        field
            .or_else(|| entry.field(DATA))
            .cloned()
            .unwrap_or_default()
    }

    /// None if it is not where the user says.
    fn foreign_payload(self, entry: &Entry) -> Option<Bytes> {
        if let Some(field) = self.field {
            return entry.field(field).cloned();
        }
        match &entry.fields[..] {
            [(_, value)] => Some(value.clone()),
            _ => Some(match entry.field(DATA) {
                Some(value) => value.clone(),
                None => object(&entry.fields),
            }),
        }
    }
}

/// Fields as one JSON object, in their order. A value that is no text is in base64, as everywhere in JSON here.
fn object(fields: &[(Bytes, Bytes)]) -> Bytes {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD as BASE64;
    let members = fields.iter().map(|(name, value)| {
        let name = String::from_utf8_lossy(name);
        match std::str::from_utf8(value) {
            Ok(text) => (name.into_owned(), text.to_owned()),
            Err(_) => (format!("{name}_base64"), BASE64.encode(value)),
        }
    });
    let mut json = Vec::new();
    let written = serde_json::Serializer::new(&mut json).collect_map(members);
    written.expect("texts are JSON, and there is memory");
    json.into()
}

/// How many entries to ask for, so that an answer is neither tiny nor huge: the server and we have it in memory as a whole.
#[derive(Debug)]
pub struct Page(usize);

impl Default for Page {
    fn default() -> Self {
        Self(128)
    }
}

impl Page {
    /// At most.
    const MOST: usize = 1_024;
    /// About so many bytes are wanted.
    const BYTES: usize = 2 << 20;

    /// So many.
    pub fn count(&self) -> usize {
        self.0
    }

    /// From how large these are, it is known what the next ones will be like.
    pub fn learn(&mut self, entries: &[Entry]) {
        let bytes: usize = entries.iter().map(|entry| entry.len().max(1)).sum();
        if entries.is_empty() {
            return;
        }
        let fit = (Self::BYTES / bytes.div_ceil(entries.len())).clamp(1, Self::MOST);
        self.0 = fit.min(self.0 * 2);
    }
}

#[cfg(test)]
mod tests;
