//! Kept state: the last event of each key, however long ago it was.
//!
//! - Events are ordered as in the log, by the number that they have there. What a key had before is replaced.
//! - An event without a payload deletes its key. It stays as a mark, so that a reader that is given only the newest of each
//!   key learns of it; marks are the first to go when there is no room.
//! - What is kept is within its bound in bytes: then the key goes that has not changed for longest.
//! - The state of an upstream was before everything here: it gets the numbers from 1 up, in the order in which it comes.

pub mod key;

use std::collections::btree_map::{self, BTreeMap};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::history::{Entry, cost};
use super::{Amount, FIRST};
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

/// What is known of kept state beside its events.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Known {
    /// The number of the next event that was before everything here.
    pub past: u64,
    /// The numbers of those that are to be had nowhere any more though nothing has replaced them.
    pub gone: Vec<u64>,
    /// The last one that is in that list no more.
    pub gone_before: Option<u64>,
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
    /// For each [`BLOCK`] of numbers in which there are some, how many events of the state are there: so they need not be
    /// counted one by one under the log's lock.
    blocks: BTreeMap<u64, u32>,
    /// The last events, by their numbers, that are to be had nowhere any more though nothing has replaced them: so many as
    /// [`GONE_KNOWN`].
    gone: BTreeSet<u64>,
    /// The last of those that are not in that list any more.
    gone_before: Option<u64>,
    bytes: usize,
    limit: usize,
    /// The number of the next event that was before everything here.
    past: u64,
    has_warned: bool,
    has_warned_of_large: bool,
}

/// So many numbers are counted together.
const BLOCK: u64 = 1 << 10;

/// Of so many lost events it is known which they are.
const GONE_KNOWN: usize = 1 << 10;

impl Retained {
    /// The bound on what is kept, in bytes.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// What is kept: how many keys have a value, and the bytes of all, with what is counted for each.
    pub fn amount(&self) -> Amount {
        Amount {
            events: (self.events.len() - self.deleted.len()) as u64,
            bytes: self.bytes as u64,
        }
    }

    /// Keeps at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            by_key: HashMap::new(),
            events: BTreeMap::new(),
            deleted: BTreeSet::new(),
            unkeyed: VecDeque::new(),
            blocks: BTreeMap::new(),
            gone: BTreeSet::new(),
            gone_before: None,
            bytes: 0,
            limit,
            past: 1,
            has_warned: false,
            has_warned_of_large: false,
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
        if !(has_passed && is_known || is_deletion(&event)) {
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

    /// What is known beside the events.
    pub fn known(&self) -> Known {
        Known {
            past: self.past,
            gone: self.gone.iter().copied().collect(),
            gone_before: self.gone_before,
        }
    }

    /// Takes in what was known where the same events were kept, beside a history that began with number `first`.
    pub fn know(&mut self, known: &Known, first: u64) {
        self.past = self.past.max(known.past);
        self.let_go(first);
        self.gone.extend(&known.gone);
        self.gone_before = self.gone_before.max(known.gone_before);
    }

    /// Takes in an event that is kept, in the order of their numbers.
    pub(super) fn put(&mut self, index: u64, event: Event) {
        let Some(key) = &event.key else { return };
        let size = cost(&event);
        if size > self.limit {
            // Others would go for it, and then it as well. What its key had before is not its state any more.
            if let Some(before) = self.by_key.remove(key) {
                self.forget(before);
            }
            self.lose(index);
            if !std::mem::replace(&mut self.has_warned_of_large, true) {
                let limit = self.limit;
                warn!(
                    size,
                    limit, "an event is larger than --retain-max: its key is not kept"
                );
            }
            return;
        }
        match self.by_key.get_mut(key) {
            Some(at) => {
                let before = std::mem::replace(at, index);
                self.forget(before);
            }
            None => drop(self.by_key.insert(key.clone(), index)),
        }
        if is_deletion(&event) {
            self.deleted.insert(index);
        } else {
            *self.blocks.entry(index / BLOCK).or_default() += 1;
        }
        self.bytes += size;
        self.events.insert(index, event);
        while self.bytes > self.limit {
            self.shrink();
        }
    }

    /// Lets go of the event at `index`, but not of its key's place.
    fn forget(&mut self, index: u64) -> Option<Event> {
        let event = self.events.remove(&index)?;
        if !self.deleted.remove(&index)
            && let btree_map::Entry::Occupied(mut count) = self.blocks.entry(index / BLOCK)
        {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
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
        self.gone.insert(index);
        if self.gone.len() > GONE_KNOWN {
            self.gone_before = self.gone_before.max(self.gone.pop_first());
        }
    }

    /// Whether, among the events from number `from` up to, without it, `upto`, some may be gone that nothing has replaced. Only
    /// if more than [`GONE_KNOWN`] have been lost from `upto` on, none of them need be.
    pub fn has_lost(&self, from: u64, upto: u64) -> bool {
        self.gone.range(from..upto).next().is_some()
            || self.gone_before.is_some_and(|gone| gone >= from)
    }

    /// How many keys have not changed since the event before number `upto`. Looks at one block of events at most, and at one
    /// number for each block since.
    pub fn count(&self, upto: u64) -> u64 {
        let block = upto / BLOCK;
        let last = upto | (BLOCK - 1);
        let within = self.events.range(upto..=last);
        let within = within.filter(|(_, event)| !is_deletion(event)).count();
        let behind = self.blocks.range(block + 1..);
        let behind: u64 = behind.map(|(_, count)| u64::from(*count)).sum();
        (self.events.len() - self.deleted.len() - within) as u64 - behind
    }

    /// What is kept of the events from number `from` up to, without it, `upto`. Deletions are among them, so that whoever looks
    /// for a few others need not pass over any number of these.
    pub fn state(&self, from: u64, upto: u64) -> impl Iterator<Item = (u64, &Event)> {
        let events = self.events.range(from..upto);
        events.map(|(at, event)| (*at, event))
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

/// Whether it says that its key has no value any more.
pub(super) fn is_deletion(event: &Event) -> bool {
    event.payload.bytes.is_empty()
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
