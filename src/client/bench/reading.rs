//! What is looked at of what comes over a connection: where events begin and end, and of each its beginning, where marker, id and time stand.
//!
//! Thousands of connections share one thread with this, so nothing is kept but what a read has cut in two, nothing is allocated for an
//! event, and the rest of a payload is skipped without being looked at.

pub mod body;
mod frames;
mod lines;

use std::time::UNIX_EPOCH;

use memchr::{memchr, memmem};

use super::marker::{Mark, Run};
use crate::event::EventId;

pub use frames::Frames;
pub use lines::{Format, Lines};

/// So much of an event is looked at, in bytes. A header line with the longest key is longer, but id and time stand first in it.
const LOOK: usize = 1024;

/// What has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item<'a> {
    /// An event.
    Event(Event),
    /// The server has told that events are missing.
    Gap,
    /// It wants an answer with the same bytes.
    Ping(&'a [u8]),
    /// The server closes the connection, with what it says about that.
    Close(String),
}

/// An event, as far as it is looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Event {
    /// The marker of this run.
    pub mark: Option<Mark>,
    /// The id that a wsevent has given it.
    pub id: Option<EventId>,
    /// When its origin took it in, in microseconds since 1970.
    pub time: Option<u64>,
}

/// What cannot be understood: the connection is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wrong(pub &'static str);

/// What the beginning of a hop link's message says; none if it is no event. `Some(Err)` for a gap.
fn of_hop(text: &[u8], run: Option<Run>) -> Option<Item<'static>> {
    if text.first() == Some(&b'!') {
        return text.starts_with(b"!gap").then_some(Item::Gap);
    }
    let end = memchr(b'\n', text).unwrap_or(text.len());
    let mut fields = text[..end].split(|&byte| byte == b' ');
    let id = fields.next().and_then(parsed);
    let time = fields.find_map(|field| field.strip_prefix(b"t="));
    Some(Item::Event(Event {
        mark: run.and_then(|run| run.find(text.get(end + 1..).unwrap_or_default())),
        id,
        time: time.and_then(parsed),
    }))
}

/// What the beginning of a line of NDJSON says; none if it is no event.
fn of_ndjson(line: &[u8], run: Option<Run>) -> Option<Item<'static>> {
    let line = line.trim_ascii();
    if line.starts_with(b"{\"gap\":") {
        return Some(Item::Gap);
    }
    if line.is_empty() || line.starts_with(b"{\"snapshot\":{") || line.starts_with(b"{\"merged\":")
    {
        return None;
    }
    let head = &line[..line.len().min(128)];
    let id = head.strip_prefix(b"{\"id\":\"").map(text_before_quote);
    let time = memmem::find(head, b"\"time\":\"").map(|at| text_before_quote(&head[at + 8..]));
    Some(Item::Event(Event {
        mark: run.and_then(|run| run.find(line)),
        id: id.and_then(parsed),
        time: time.and_then(instant),
    }))
}

fn text_before_quote(text: &[u8]) -> &[u8] {
    &text[..memchr(b'"', text).unwrap_or(text.len())]
}

fn parsed<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A time of RFC 3339, in microseconds since 1970.
fn instant(text: &[u8]) -> Option<u64> {
    let time = humantime::parse_rfc3339(std::str::from_utf8(text).ok()?).ok()?;
    let since = time.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_micros()).ok()
}

#[cfg(test)]
mod tests;
