//! Where in a Redis stream somebody is, and what the server says of the stream: so it is known what is missing.

use anyhow::{Context, Result};
use redis::{ServerError, Value};

use super::super::connection::refusal;
use super::entry::EntryId;

/// What XINFO STREAM says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Info {
    /// How many entries there are.
    pub length: u64,
    /// The oldest of them.
    pub first: Option<EntryId>,
    /// The newest id there ever was.
    pub newest: EntryId,
    /// How many entries there ever were. Redis 7 says that.
    pub added: Option<u64>,
    /// Whether entries have been deleted one by one, as far as the server says.
    pub has_deleted: bool,
}

impl Info {
    /// From an answer. None if there is no such key.
    pub fn of(answer: Value) -> Result<Option<Self>> {
        let pairs = match answer {
            Value::ServerError(error) if is_absent(&error) => return Ok(None),
            Value::ServerError(error) => return Err(refusal(&error)),
            Value::Array(pairs) => pairs,
            other => anyhow::bail!("the answer to XINFO is none: {other:?}"),
        };
        let mut info = Self::default();
        let mut is_stream = false;
        for pair in pairs.chunks_exact(2) {
            let name = match &pair[0] {
                Value::BulkString(name) => &name[..],
                Value::SimpleString(name) => name.as_bytes(),
                _ => continue,
            };
            match (name, &pair[1]) {
                (b"length", Value::Int(length)) => info.length = u64::try_from(*length)?,
                (b"entries-added", Value::Int(added)) => info.added = u64::try_from(*added).ok(),
                (b"last-generated-id", id) => {
                    info.newest = EntryId::of(id).context("XINFO tells no last id")?;
                    is_stream = true;
                }
                (b"max-deleted-entry-id", id) => {
                    info.has_deleted = EntryId::of(id).is_some_and(|id| id != EntryId::ZERO);
                }
                (b"first-entry", Value::Array(entry)) => {
                    info.first = entry.first().and_then(EntryId::of);
                }
                _ => {}
            }
        }
        is_stream
            .then_some(Some(info))
            .context("XINFO tells no last id")
    }
}

fn is_absent(error: &ServerError) -> bool {
    error.code() == "ERR"
        && error
            .details()
            .is_some_and(|said| said.contains("no such key"))
}

/// What is missing right before the next entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// Nothing.
    Nothing,
    /// So many entries, if it is known how many: the server had let go of them before they were read.
    Entries(Option<u64>),
}

/// Right behind an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// The entry.
    pub last: EntryId,
    /// How many entries there ever were up to this one, if it is known.
    pub added: Option<u64>,
    /// The oldest entry there was when the stream was first seen.
    pub eldest: EntryId,
}

impl Place {
    /// Before the first entry of a stream that there is not yet.
    pub const BEGINNING: Self = Self {
        last: EntryId::ZERO,
        added: Some(0),
        eldest: EntryId::ZERO,
    };

    /// Goes on behind entries with these ids, which followed. `info` is what was true a moment later. What was missing before them.
    pub fn advance(&mut self, ids: &[EntryId], info: Option<&Info>) -> Missing {
        let before = self.last;
        self.last = ids.last().copied().unwrap_or(before);
        let expected = self.added.map(|added| added + ids.len() as u64);
        self.added = expected;
        let Some(info) = info else {
            return Missing::Nothing;
        };
        let is_at_end = info.newest == self.last;
        // Nothing behind the place has gone, except what was deleted by itself: that is no part of the stream.
        if info.first.is_some_and(|first| first <= before) {
            let unseen = info.added.zip(expected).map(|(a, b)| a.saturating_sub(b));
            self.added = if is_at_end { info.added } else { expected };
            return match unseen {
                Some(unseen) if is_at_end && unseen > 0 && !info.has_deleted => {
                    Missing::Entries(Some(unseen))
                }
                _ => Missing::Nothing,
            };
        }
        let held = ids.iter().filter(|id| info.first <= Some(**id));
        let behind = match info.first {
            None => 0,
            Some(_) => info.length.saturating_sub(held.count() as u64),
        };
        self.added = info.added.map(|added| added.saturating_sub(behind));
        match self.added.zip(expected) {
            Some((added, expected)) if added > expected => Missing::Entries(Some(added - expected)),
            Some(_) => Missing::Nothing,
            // All that was read before has gone, and perhaps more.
            None if before != EntryId::ZERO && info.length > 0 => Missing::Entries(None),
            None => Missing::Nothing,
        }
    }

    /// Whether the stream is not what it was: the server has lost the end of it, or somebody has made it anew. Then this is where
    /// to go on.
    pub fn elsewhere(&self, info: Option<&Info>) -> Option<Self> {
        let Some(info) = info else {
            return (self.last != EntryId::ZERO).then_some(Self::BEGINNING);
        };
        let has_fewer = info
            .added
            .zip(self.added)
            .is_some_and(|(now, then)| now < then);
        if info.newest >= self.last && !has_fewer {
            return None;
        }
        if info.newest >= self.last {
            // Made anew, and its ids go on: none of its entries has been read.
            return Some(Self {
                added: Some(0),
                ..*self
            });
        }
        let first = info.first.unwrap_or(info.newest);
        let is_whole = info.added == Some(info.length);
        let is_new = info.newest < self.eldest || is_whole && first > self.eldest;
        Some(match is_new {
            true => Self::BEGINNING,
            // What is still there has been read.
            false => Self {
                last: info.newest,
                added: info.added,
                eldest: self.eldest,
            },
        })
    }
}

#[cfg(test)]
mod tests;
