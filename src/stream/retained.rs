//! Kept state: the last event of each key, however long ago it was.
//!
//! - Events are ordered as in the log, by the number that they have there. What a key had before is replaced.
//! - An event without a payload deletes its key. It stays as a mark, so that a reader that is given only the newest of each
//!   key learns of it; marks are the first to go when there is no room.
//! - What is kept is within its bound in bytes: then the key goes that has not changed for longest.
//! - The state of an upstream was before everything here: it gets the numbers from 1 up, in the order in which it comes.

pub mod key;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use tracing::warn;

use super::FIRST;
use super::history::{Entry, cost};
use crate::event::Event;
use key::KeySource;

/// What to keep of a stream beside its history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retain {
    /// Where keys come from.
    pub key: KeySource,
    /// At most so many bytes.
    pub bytes: usize,
}

/// The last event of each key.
#[derive(Debug)]
pub struct Retained {
    by_key: HashMap<Arc<str>, u64>,
    /// By their numbers in the log.
    events: BTreeMap<u64, Event>,
    /// Those of them that are deletions.
    deleted: BTreeSet<u64>,
    /// The events of the history that have no key.
    unkeyed: VecDeque<u64>,
    /// The newest event that is to be had nowhere any more though nothing has replaced it.
    gone: Option<u64>,
    bytes: usize,
    limit: usize,
    /// The number of the next event that was before everything here.
    past: u64,
    has_warned: bool,
}

impl Retained {
    /// Keeps at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            by_key: HashMap::new(),
            events: BTreeMap::new(),
            deleted: BTreeSet::new(),
            unkeyed: VecDeque::new(),
            gone: None,
            bytes: 0,
            limit,
            past: 1,
            has_warned: false,
        }
    }

    /// Takes in the newest event of the log.
    pub fn push(&mut self, index: u64, entry: &Entry) {
        match &entry.event.key {
            None => self.unkeyed.push_back(index),
            Some(_) => {
                if entry.gap.is_some() {
                    // Who is not given this event is not told of the gap before it.
                    self.lose(index);
                }
                self.put(index, entry.event.clone());
            }
        }
    }

    /// Takes in events that have been put before the history, which begins with number `first` now; what of them did not fit
    /// there has no number. The oldest first.
    pub fn prepend(&mut self, past: Vec<Event>, held: u64, first: u64) {
        let unfit = past.len() - held as usize;
        let mut unkeyed = VecDeque::new();
        for (at, event) in past.into_iter().enumerate() {
            let index = (at as u64).checked_sub(unfit as u64).map(|at| first + at);
            match (&event.key, index) {
                (None, Some(index)) => unkeyed.push_back(index),
                (None, None) => {}
                (Some(_), index) => self.put_older(event, index),
            }
        }
        unkeyed.append(&mut self.unkeyed);
        self.unkeyed = unkeyed;
    }

    /// Takes in an event from before this log, unless it is known, or its key has changed since. `has_passed` says that it was
    /// in the log once.
    pub fn remember(&mut self, event: Event, has_passed: bool) {
        let key = event.key.as_ref();
        let is_known = key.is_none_or(|key| self.by_key.contains_key(key));
        if !(has_passed && is_known || event.payload.bytes.is_empty()) {
            self.put_older(event, None);
        }
    }

    /// Puts an event from before this log in its place, if its key has none that is newer.
    fn put_older(&mut self, event: Event, index: Option<u64>) {
        let Some(key) = &event.key else { return };
        let before = self.by_key.get(key);
        if before.is_some_and(|at| {
            *at >= FIRST || self.events.get(at).is_some_and(|it| is_newer(it, &event))
        }) {
            return;
        }
        let index = index.unwrap_or_else(|| {
            self.past += 1;
            self.past - 1
        });
        self.put(index, event);
    }

    fn put(&mut self, index: u64, event: Event) {
        let Some(key) = &event.key else { return };
        match self.by_key.get_mut(key) {
            Some(at) => {
                let before = std::mem::replace(at, index);
                self.forget(before);
            }
            None => drop(self.by_key.insert(key.clone(), index)),
        }
        if event.payload.bytes.is_empty() {
            self.deleted.insert(index);
        }
        self.bytes += cost(&event);
        self.events.insert(index, event);
        while self.bytes > self.limit {
            self.shrink();
        }
    }

    /// Lets go of the event at `index`, but not of its key's place.
    fn forget(&mut self, index: u64) -> Option<Event> {
        let event = self.events.remove(&index)?;
        self.deleted.remove(&index);
        self.bytes -= cost(&event);
        Some(event)
    }

    fn shrink(&mut self) {
        let mark = self.deleted.first().copied();
        let Some(index) = mark.or_else(|| self.events.keys().next().copied()) else {
            return;
        };
        if mark.is_none() && !std::mem::replace(&mut self.has_warned, true) {
            let (keys, limit) = (self.by_key.len(), self.limit);
            warn!(
                keys,
                limit,
                "the state is larger than --retain-max: keys that have not changed for longest are not kept"
            );
        }
        if let Some(key) = self.forget(index).and_then(|event| event.key) {
            self.by_key.remove(&key);
        }
        self.lose(index);
    }

    /// The history begins with number `first` now.
    pub fn let_go(&mut self, first: u64) {
        while let Some(index) = self.unkeyed.front().copied().filter(|index| *index < first) {
            self.unkeyed.pop_front();
            self.lose(index);
        }
    }

    fn lose(&mut self, index: u64) {
        self.gone = self.gone.max(Some(index));
    }

    /// Whether, among the events from number `from` on, some may be gone that nothing has replaced.
    pub fn has_lost(&self, from: u64) -> bool {
        self.gone.is_some_and(|gone| gone >= from)
    }

    /// How many keys have not changed since the event before number `upto`.
    pub fn count(&self, upto: u64) -> u64 {
        let since = self.events.range(upto..);
        let since = since.filter(|(_, event)| !event.payload.bytes.is_empty());
        (self.events.len() - self.deleted.len() - since.count()) as u64
    }

    /// What is kept of the events from number `from` up to, without it, `upto`; deletions are not.
    pub fn state(&self, from: u64, upto: u64) -> impl Iterator<Item = (u64, &Event)> {
        let events = self
            .events
            .range(from..upto)
            .map(|(at, event)| (*at, event));
        events.filter(|(_, event)| !event.payload.bytes.is_empty())
    }

    /// The newest of each key among the events from number `from` up to, without it, `upto`; and those numbered without a key.
    pub fn changes(&self, from: u64, upto: u64) -> impl Iterator<Item = (u64, Option<&Event>)> {
        let mut keyed = self.events.range(from..upto).peekable();
        let start = self.unkeyed.partition_point(|index| *index < from);
        let unkeyed = self.unkeyed.range(start..).copied();
        let mut unkeyed = unkeyed.take_while(move |index| *index < upto).peekable();
        std::iter::from_fn(move || {
            let is_keyed = match (keyed.peek(), unkeyed.peek()) {
                (Some((keyed, _)), Some(unkeyed)) => *keyed < unkeyed,
                (keyed, _) => keyed.is_some(),
            };
            match is_keyed {
                true => keyed.next().map(|(at, event)| (*at, Some(event))),
                false => unkeyed.next().map(|at| (at, None)),
            }
        })
    }
}

/// Of two events from before this log. Where they are of different origins there are only their times to go by.
fn is_newer(one: &Event, other: &Event) -> bool {
    match one.id.origin == other.id.origin {
        true => one.id.seq >= other.id.seq,
        false => one.time > other.time,
    }
}

#[cfg(test)]
mod tests;
