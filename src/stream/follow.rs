//! Following a log event by event, within the process. A subscriber gets encoded frames; who writes to a bus wants the events.

use std::sync::Arc;

use super::EventLog;
#[cfg(test)]
use super::history::{Limits, cost};
use crate::event::Event;

/// A place in a log, for one who takes events from it, and who may have to take them again.
pub struct Follower {
    log: Arc<EventLog>,
    /// The number of the first event that has not been [taken](Self::advance) yet.
    next: u64,
}

/// The events behind a place.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// In the order of the log.
    pub events: Vec<Event>,
    /// So many were before these, and history has let go of them meanwhile.
    pub lost: u64,
}

impl Follower {
    /// Begins with the next event that is appended to `log`.
    pub fn new(log: Arc<EventLog>) -> Self {
        let next = log.lock().history.next();
        Self { log, next }
    }

    /// Waits until there is an event.
    pub async fn wait(&self) {
        loop {
            let seen = self.log.head.count();
            if self.has_more() {
                return;
            }
            self.log.head.beyond(seen).await;
        }
    }

    /// Whether there is an event.
    pub fn has_more(&self) -> bool {
        self.count() > 0
    }

    /// How many events there are, with those that history has let go of.
    pub fn count(&self) -> u64 {
        self.log.lock().history.next().saturating_sub(self.next)
    }

    /// The next events: so many at most, and so many bytes of payload, unless the first one has more. What has been lost
    /// before them is not told again.
    pub fn peek(&mut self, most_events: usize, most_bytes: usize) -> Batch {
        let state = self.log.lock();
        let first = state.history.first().max(self.next);
        let lost = first - self.next;
        self.next = first;
        let mut bytes = 0;
        let events = state.history.range(first, state.history.next());
        let events = events.map(|entry| &entry.event).take(most_events);
        let events = events.take_while(|event| {
            let before = bytes;
            bytes += event.payload.bytes.len();
            before == 0 || bytes <= most_bytes
        });
        Batch {
            events: events.cloned().collect(),
            lost,
        }
    }

    /// So many of the events that were there are done with.
    pub fn advance(&mut self, count: usize) {
        self.next += count as u64;
    }
}

#[cfg(test)]
impl EventLog {
    /// What it holds beyond its bounds, if it does.
    pub fn excess(&self) -> Option<String> {
        let mut state = self.lock();
        let (first, next) = (state.history.first(), state.history.next());
        let Limits { bytes, count, .. } = state.history.limits();
        let held: usize = state
            .history
            .range(first, next)
            .map(|entry| cost(&entry.event))
            .sum();
        let events = (next - first) as usize;
        if events > 1 && held > bytes || count.is_some_and(|count| events > count) {
            return Some(format!("{events} events of {held} bytes are held"));
        }
        state.tapes.iter_mut().find_map(|(format, tape)| {
            let chunks = tape.firsts();
            let is_gone = chunks.get(1).is_some_and(|second| *second <= first);
            is_gone.then(|| format!("the tape of {format:?} has chunks that begin with {chunks:?}, and history with {first}"))
        })
    }

    /// Of each origin the newest event that is held.
    pub fn newest_of_each(&self) -> Vec<Event> {
        let state = self.lock();
        let held = state
            .history
            .range(state.history.first(), state.history.next());
        let newest = held.map(|entry| (entry.event.id.origin, entry.event.clone()));
        let newest: std::collections::BTreeMap<_, _> = newest.collect();
        newest.into_values().collect()
    }

    /// Whether it has this event, or a later one of its origin.
    pub fn has_passed(&self, id: crate::event::EventId) -> bool {
        let state = self.lock();
        let runs = state.history.places().of(id.origin);
        runs.is_some_and(|runs| runs.last >= id.seq)
    }

    /// What is missing right before an event.
    pub fn gap_before(&self, id: crate::event::EventId) -> Option<crate::event::Gap> {
        let state = self.lock();
        let mut entries = state
            .history
            .range(state.history.first(), state.history.next());
        let entry = entries.find(|entry| entry.event.id == id)?;
        entry.gap.as_deref().cloned()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::event::Payload;

    fn texts(batch: &Batch) -> Vec<&[u8]> {
        let payloads = batch.events.iter().map(|event| &*event.payload.bytes);
        payloads.collect()
    }

    #[test]
    fn events_are_there_until_they_are_done_with() {
        let log = Arc::new(EventLog::new(1 << 20));
        log.append(Payload::text("before"));
        let mut follower = Follower::new(log.clone());
        assert!(follower.wait().now_or_never().is_none());
        for text in ["a", "b", "cc"] {
            log.append(Payload::text(text));
        }
        assert!(follower.wait().now_or_never().is_some());
        assert_eq!(texts(&follower.peek(2, 100)), [b"a", b"b"]);
        assert_eq!(texts(&follower.peek(9, 1)), [b"a"]);
        follower.advance(2);
        assert_eq!(texts(&follower.peek(9, 1)), [b"cc"], "too large, but first");
        follower.advance(1);
        assert!(!follower.has_more());
    }

    #[test]
    fn what_history_has_let_go_of_is_counted_once() {
        let mut limits = super::super::history::Limits::from(1 << 20);
        limits.count = Some(2);
        let log = Arc::new(EventLog::new(limits));
        let mut follower = Follower::new(log.clone());
        for text in ["a", "b", "c", "d", "e"] {
            log.append(Payload::text(text));
        }
        assert_eq!(follower.count(), 5);
        let batch = follower.peek(1, 100);
        assert_eq!((texts(&batch), batch.lost), (vec![&b"d"[..]], 3));
        assert_eq!(follower.peek(1, 100).lost, 0);
    }
}
