//! A log on its way to another process, which goes on with it: with all ids, numbers and places, so that whoever reads it
//! there notices nothing.
//!
//! Most of it goes out while events are still appended, in [pages](EventLog::page). Then the log is [sealed](EventLog::seal); what has
//! come since is the last pages, and a [`Summary`] says what is known beside the events. On the other side an [`Import`] takes
//! all of that in.

use serde::{Deserialize, Serialize};

use super::history::{Entry, History, Limits, Missed, cost};
use super::rate::Rate;
use super::retained::{self, Retain, Retained};
use super::tapes::Tapes;
use super::{EventLog, FIRST, Head, Received, State, Subscription, places};
use crate::event::Origin;
use crate::wire::Format;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

/// A part of a log.
#[derive(Debug)]
pub struct Page {
    /// In the order of the log.
    pub entries: Vec<Numbered>,
    /// Where the next page begins.
    pub next: u64,
    /// Whether there was nothing behind this one.
    pub is_last: bool,
}

/// An event of a log.
#[derive(Debug)]
pub struct Numbered {
    /// Its number in the log.
    pub index: u64,
    /// The event, and what is missing before it.
    pub entry: Entry,
    /// Whether it is in the history, and not only kept as the last of its key.
    pub is_held: bool,
}

/// What is known of a log beside its events.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Summary {
    /// The number of the oldest event held; of the next one, when none is.
    pub first: u64,
    /// The number that the next event gets in the log.
    pub next: u64,
    /// The number that the next event from here gets in its id.
    pub next_own: u64,
    /// How many events there have been, and how many bytes of payload.
    pub events: u64,
    /// See above.
    pub bytes: u64,
    /// Whether history has let go of an event.
    pub has_let_go: bool,
    /// What was missing before events that history has let go of, if something was.
    #[serde(default)]
    pub missed: Option<Missed>,
    /// Of each origin.
    pub origins: Vec<places::Known>,
    /// Of the state, if it is kept.
    #[serde(default)]
    pub kept: Option<retained::Known>,
    /// Of each origin, as far as its events have not come from peers; if there are peers.
    #[serde(default)]
    pub local: Option<Vec<places::Known>>,
}

impl EventLog {
    /// The events from number `from` on, about so many bytes of them: one at least, if there is one. What is kept from before the
    /// history comes first.
    pub fn page(&self, from: u64, most_bytes: usize) -> Page {
        let state = self.lock();
        let (first, next) = (state.history.first(), state.history.next());
        let (mut entries, mut bytes) = (Vec::new(), 0);
        if let Some(kept) = state.kept.as_ref().filter(|_| from < first) {
            for (index, event) in kept.state(from, first) {
                if bytes >= most_bytes {
                    return Page {
                        entries,
                        next: index,
                        is_last: false,
                    };
                }
                bytes += cost(event);
                entries.push(Numbered {
                    index,
                    entry: event.clone().into(),
                    is_held: false,
                });
            }
        }
        let mut at = from.clamp(first, next);
        for entry in state.history.range(at, next) {
            if bytes >= most_bytes {
                break;
            }
            bytes += cost(&entry.event);
            let mut entry = entry.clone();
            // What a peer has brought may have entered here as well, if it was faster.
            entry.is_from_peer &= !self.local_has(&entry);
            entries.push(Numbered {
                index: at,
                entry,
                is_held: true,
            });
            at += 1;
        }
        Page {
            entries,
            next: at,
            is_last: at == next,
        }
    }

    fn local_has(&self, entry: &Entry) -> bool {
        let id = entry.event.id;
        self.local.as_ref().is_some_and(|local| {
            let state = local.lock();
            let runs = state.history.places().of(id.origin);
            runs.is_some_and(|runs| runs.index_of(id.seq).is_some())
        })
    }

    /// From now on nothing that is [offered](Self::offer) is taken.
    pub fn seal(&self) {
        self.lock().sealed = true;
    }

    /// It goes on here after all.
    pub fn unseal(&self) {
        self.lock().sealed = false;
    }

    /// What is to be known beside the events.
    pub fn summary(&self) -> Summary {
        let state = self.lock();
        Summary {
            first: state.history.first(),
            next: state.history.next(),
            next_own: state.next_own,
            events: state.rate.total(),
            bytes: state.bytes,
            has_let_go: state.history.has_let_go(),
            missed: state.history.missed().cloned(),
            origins: state.history.places().known(),
            kept: state.kept.as_ref().map(|kept| kept.known()),
            local: self.local.as_ref().map(|local| {
                let known = local.lock().history.places().known();
                // Where they stand there is said by what goes into it.
                let known = known.into_iter();
                known.map(places::Known::without_place).collect()
            }),
        }
    }

    /// Subscribes right before the event numbered `index`, which is held or is the next; none if it is neither.
    pub fn subscribe_at(&self, format: Format, index: u64) -> Option<Subscription> {
        let mut state = self.lock();
        let live = state.history.next();
        if !(state.history.first()..=live).contains(&index) {
            return None;
        }
        let cursor = state.cursor(format, index);
        let tape = state.tape(format);
        Some(Subscription {
            walk: None,
            cursor,
            live,
            tape: tape.reader(),
            head: tape.reader().changes(),
        })
    }

    /// How many events bear the name of this log, so far.
    pub fn own_events(&self) -> u64 {
        self.lock().next_own - 1
    }
}

/// A log that comes from another process.
pub struct Import {
    origin: Origin,
    began: u64,
    retain: Option<Retain>,
    limits: Limits,
    history: History,
    kept: Option<Box<Retained>>,
    has_peers: bool,
}

impl Import {
    /// The log of this name that began then, in microseconds since the Unix epoch. It goes on with the bounds that it had.
    pub fn new(
        (origin, began): (Origin, u64),
        limits: impl Into<Limits>,
        retain: Option<Retain>,
    ) -> Self {
        let (limits, kept) = (limits.into(), retain.as_ref());
        Self {
            origin,
            began,
            history: History::new(limits, FIRST),
            kept: kept.map(|retain| Box::new(Retained::new(retain.bytes))),
            retain,
            limits,
            has_peers: false,
        }
    }

    /// The same, for a stream that has peers.
    pub fn with_peers(self) -> Self {
        Self {
            has_peers: true,
            ..self
        }
    }

    /// Takes in the next event.
    pub fn take(
        &mut self,
        Numbered {
            index,
            entry,
            is_held,
        }: Numbered,
    ) {
        if !is_held {
            if let Some(kept) = &mut self.kept {
                kept.put(index, entry.event);
            }
            return;
        }
        if index != self.history.next() {
            // What was before it is held no more where it comes from, either.
            self.history = History::new(self.limits, index);
        }
        if let Some(kept) = &mut self.kept {
            kept.push(index, &entry);
        }
        self.history.push(entry);
    }

    /// The log, once all is here.
    pub fn finish(self, summary: &Summary) -> EventLog {
        let Self {
            mut history,
            mut kept,
            ..
        } = self;
        history.let_go_before(summary.first);
        if history.next() != summary.next {
            history = History::new(self.limits, FIRST);
            history.skip_to(summary.next);
        }
        history.remember(&summary.origins, summary.has_let_go, summary.missed.clone());
        if let (Some(kept), Some(known)) = (&mut kept, &summary.kept) {
            kept.know(known, history.first());
        }
        let log = EventLog {
            origin: self.origin,
            began: self.began,
            keys: self.retain.map(|retain| retain.key),
            state: Mutex::new(State {
                history,
                kept,
                tapes: Tapes::default(),
                next_own: summary.next_own,
                rate: Rate::begin_with(summary.events),
                bytes: summary.bytes,
                received: Received::default(),
                gaps: 0,
                sealed: false,
            }),
            head: Head::default(),
            unsettled: AtomicUsize::new(0),
            local: None,
        };
        match self.has_peers {
            true => log.with_peers_who_know(summary),
            false => log,
        }
    }
}

impl EventLog {
    /// With a log of what has not come from peers, of which as much is known as there was where it comes from. If that had no
    /// peers, nothing has come from them.
    fn with_peers_who_know(self, summary: &Summary) -> Self {
        let log = self.with_peers();
        if let Some(local) = &log.local {
            let known = summary.local.as_ref().unwrap_or(&summary.origins);
            let known: Vec<_> = known
                .iter()
                .cloned()
                .map(places::Known::without_place)
                .collect();
            let mut state = local.lock();
            let missed = Missed::unknown_before(state.history.first());
            state
                .history
                .remember(&known, summary.has_let_go, Some(missed));
        }
        log
    }
}

#[cfg(test)]
mod tests;
