//! The parser of an event stream (WHATWG HTML, sections 9.2.5 and 9.2.6), fed in pieces.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use memchr::{memchr, memchr2};

/// May stand once at the very beginning of a stream and is not part of it.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// The length of the longest field names that mean something, `event` and `retry`.
const LONGEST_NAME: usize = 5;

/// What a stream tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// An event.
    Event {
        /// What the block's last `event` field said; `None` if it said nothing, which means `message`.
        event_type: Option<String>,
        /// The values of the block's `data` fields, one a line.
        data: String,
        /// The id that the block or the last one before it with an id gave; the empty one takes back what was given.
        last_event_id: Option<Arc<str>>,
        /// Whether this block itself gave the id.
        has_own_id: bool,
    },
    /// How long the server wants readers to wait before they connect again: anything up to 2^64 milliseconds, for the
    /// caller to bound.
    Retry(Duration),
}

/// An event was larger than the parser's limit. The rest of it is passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLarge {
    /// The limit in bytes.
    pub limit: usize,
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an event of more than {} bytes", self.limit)
    }
}

impl std::error::Error for TooLarge {}

/// Reads one stream, which may be cut into pieces anywhere. An unfinished block at the end of the stream is never told.
///
/// It keeps the beginning of a block, so a few times the largest event, and one piece of input, at most.
#[derive(Debug)]
pub struct Parser {
    max_event_size: usize,
    /// The beginning of a line that has not ended.
    line: Vec<u8>,
    /// The rest of the line means nothing; `line` is empty.
    skips_line: bool,
    /// The last line ended with CR. A LF that follows belongs to it.
    after_cr: bool,
    /// No line has been looked into: there may be a byte order mark.
    at_start: bool,
    block: Block,
    last_event_id: Option<Arc<str>>,
}

/// What the fields of the current block have said.
#[derive(Debug, Default)]
struct Block {
    event_type: Option<String>,
    data: Option<String>,
    id: Option<Arc<str>>,
    /// Has been told as [`TooLarge`]: data and type mean nothing any more, the id still takes effect.
    too_large: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Event,
    Data,
    Id,
    Retry,
}

impl Parser {
    /// A parser at the beginning of a stream. An event is too large when its data, its type or its id alone is longer
    /// than `max_event_size` bytes.
    pub fn new(max_event_size: usize) -> Self {
        Self {
            max_event_size,
            line: Vec::new(),
            skips_line: false,
            after_cr: false,
            at_start: true,
            block: Block::default(),
            last_event_id: None,
        }
    }

    /// The id that the last finished block or one before it gave, with data or without: from where to resume.
    pub fn last_event_id(&self) -> Option<&str> {
        self.last_event_id.as_deref()
    }

    /// Takes from the front of `input`, which goes on where the last one ended, up to the end of the next item. When
    /// there is none, all of `input` has been taken.
    pub fn next(&mut self, input: &mut &[u8]) -> Option<Result<Item, TooLarge>> {
        while let Some(&first) = input.first() {
            if std::mem::take(&mut self.after_cr) && first == b'\n' {
                *input = &input[1..];
                continue;
            }
            let Some(end) = memchr2(b'\n', b'\r', input) else {
                return self.hold(std::mem::take(input)).err().map(Err);
            };
            let (line, rest) = input.split_at(end);
            self.after_cr = rest[0] == b'\r';
            *input = &rest[1..];
            if let Some(item) = self.end_line(line).transpose() {
                return Some(item);
            }
        }
        None
    }

    /// Keeps a part of a line whose end has not come, as far as it means something.
    fn hold(&mut self, part: &[u8]) -> Result<(), TooLarge> {
        if self.skips_line {
            return Ok(());
        }
        self.line.extend_from_slice(part);
        if self.at_start {
            if self.line.len() < BYTE_ORDER_MARK.len() && BYTE_ORDER_MARK.starts_with(&self.line) {
                return Ok(());
            }
            if self.line.starts_with(BYTE_ORDER_MARK) {
                self.line.drain(..BYTE_ORDER_MARK.len());
            }
            self.at_start = false;
        }
        let checked = match field(&self.line) {
            _ if self.line.len() <= LONGEST_NAME => return Ok(()),
            Some((field, value)) if self.fits(field, value.len()) => return Ok(()),
            Some(_) => self.too_large(),
            None => Ok(()),
        };
        self.skips_line = true;
        self.line = Vec::new();
        checked
    }

    fn end_line(&mut self, part: &[u8]) -> Result<Option<Item>, TooLarge> {
        if std::mem::take(&mut self.skips_line) {
            return Ok(None);
        }
        if self.line.is_empty() {
            return self.read_line(part);
        }
        let mut line = std::mem::take(&mut self.line);
        line.extend_from_slice(part);
        let item = self.read_line(&line);
        line.clear();
        self.line = line;
        item
    }

    fn read_line(&mut self, mut line: &[u8]) -> Result<Option<Item>, TooLarge> {
        if std::mem::take(&mut self.at_start) {
            line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
        }
        if line.is_empty() {
            return Ok(self.end_block());
        }
        let Some((field, value)) = field(line) else {
            return Ok(None);
        };
        if !self.fits(field, value.len()) {
            return self.too_large().map(|()| None);
        }
        // The standard decodes the stream before it looks for lines. That comes to the same: no character is cut, for
        // what separates lines and fields is ASCII, and a character that is broken off ends there in both.
        if let Field::Retry = field {
            return Ok(milliseconds(value).map(Item::Retry));
        }
        let value = decode(value);
        // Replacement characters are longer than what they replace, if anything.
        if !self.fits(field, value.len()) {
            return self.too_large().map(|()| None);
        }
        match field {
            Field::Event => self.block.event_type = Some(value.into_owned()),
            Field::Data => self.add_data(value),
            Field::Id if !value.contains('\0') => self.block.id = Some(value.into()),
            Field::Id | Field::Retry => {}
        }
        Ok(None)
    }

    fn add_data(&mut self, value: Cow<'_, str>) {
        if self.block.too_large {
            return;
        }
        match &mut self.block.data {
            Some(data) => {
                data.push('\n');
                data.push_str(&value);
            }
            None => self.block.data = Some(value.into_owned()),
        }
    }

    /// Whether the block may have a value of `len` bytes for this field. More bytes never fit where fewer did not: it
    /// does not matter when it is asked, and so not where the stream is cut.
    fn fits(&self, field: Field, len: usize) -> bool {
        let before = match (field, &self.block.data) {
            (Field::Data, Some(data)) => data.len() + 1,
            _ => 0,
        };
        before + len <= self.max_event_size
    }

    /// Forgets the block up to its id, and tells so unless that has been told.
    fn too_large(&mut self) -> Result<(), TooLarge> {
        self.block.event_type = None;
        self.block.data = None;
        match std::mem::replace(&mut self.block.too_large, true) {
            true => Ok(()),
            false => Err(TooLarge {
                limit: self.max_event_size,
            }),
        }
    }

    fn end_block(&mut self) -> Option<Item> {
        let block = std::mem::take(&mut self.block);
        let has_own_id = block.id.is_some();
        if has_own_id {
            self.last_event_id = block.id;
        }
        Some(Item::Event {
            event_type: block.event_type.filter(|event_type| !event_type.is_empty()),
            data: block.data?,
            last_event_id: self.last_event_id.clone(),
            has_own_id,
        })
    }
}

/// The field of a line and its value, if it is one that means something. Comments have the empty name.
fn field(line: &[u8]) -> Option<(Field, &[u8])> {
    let beginning = &line[..line.len().min(LONGEST_NAME + 1)];
    let (name, value) = match memchr(b':', beginning) {
        Some(colon) => (&line[..colon], &line[colon + 1..]),
        None => (line, &[][..]),
    };
    let field = match name {
        b"event" => Field::Event,
        b"data" => Field::Data,
        b"id" => Field::Id,
        b"retry" => Field::Retry,
        _ => return None,
    };
    Some((field, value.strip_prefix(b" ").unwrap_or(value)))
}

/// UTF-8 decode as the Encoding standard has it: U+FFFD for each maximal part of a character that is none.
fn decode(value: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(value)
}

/// Nothing but ASCII digits, and at least one.
fn milliseconds(value: &[u8]) -> Option<Duration> {
    let digits = std::str::from_utf8(value).ok()?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // What does not fit is the longest wait there is.
    Some(Duration::from_millis(digits.parse().unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests;
