//! What has been published lately under a name, so that a publisher that has had no answer may just send it again.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};

use crate::event::{EventId, NewEvent};
use crate::stream::EventLog;
use crate::wire::cloudevents::{CloudEvent, Name};

/// So many names are remembered.
const REMEMBERED: usize = 10_000;

/// A name as it is remembered: 128 bits of keyed hash, however long the name is.
type Key = [u64; 2];

/// The last names, and the ids that their events have got.
#[derive(Default)]
pub(super) struct Repeated {
    hashers: [RandomState; 2],
    known: HashMap<Key, Ids>,
    /// From the oldest to the newest.
    order: VecDeque<Key>,
}

/// Ids in a row.
#[derive(Clone, Copy)]
struct Ids {
    first: EventId,
    count: u64,
}

impl Ids {
    fn iter(self) -> impl Iterator<Item = EventId> {
        (0..self.count).map(move |index| EventId {
            seq: self.first.seq + index,
            ..self.first
        })
    }
}

impl Repeated {
    /// Appends the events of one request that has a name as a whole, unless it has been here.
    pub fn append_named(
        &mut self,
        log: &EventLog,
        name: &Name,
        events: Vec<NewEvent>,
    ) -> Vec<EventId> {
        let key = self.key(name);
        if let Some(ids) = self.known.get(&key) {
            return ids.iter().collect();
        }
        let ids = log.append_all(events);
        if let Some(&first) = ids.first() {
            let count = ids.len() as u64;
            self.remember(key, Ids { first, count });
        }
        ids
    }

    /// Appends those of these events that are new; the ids of all.
    pub fn append_each(&mut self, log: &EventLog, events: Vec<CloudEvent>) -> Vec<EventId> {
        let mut new = Vec::new();
        let mut within = HashMap::new();
        // For each event its id, or its place among the new ones.
        let places: Vec<_> = events
            .into_iter()
            .map(|CloudEvent { name, event }| {
                let key = name.map(|name| self.key(&name));
                if let Some(ids) = key.and_then(|key| self.known.get(&key)) {
                    return Ok(ids.first);
                }
                let next = new.len();
                let place = key.map_or(next, |key| *within.entry(key).or_insert(next));
                if place == next {
                    new.push(event);
                }
                Err(place)
            })
            .collect();
        let ids = match new.is_empty() {
            true => vec![],
            false => log.append_all(new),
        };
        let mut named: Vec<_> = within.into_iter().collect();
        named.sort_unstable_by_key(|(_, place)| *place);
        for (key, place) in named {
            let (first, count) = (ids[place], 1);
            self.remember(key, Ids { first, count });
        }
        let id = |place: Result<EventId, usize>| place.unwrap_or_else(|place| ids[place]);
        places.into_iter().map(id).collect()
    }

    fn key(&self, name: &Name) -> Key {
        self.hashers.each_ref().map(|hasher| hasher.hash_one(name))
    }

    fn remember(&mut self, key: Key, ids: Ids) {
        if self.order.len() == REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.order.push_back(key);
        self.known.insert(key, ids);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Payload;

    fn event(id: &str) -> CloudEvent {
        CloudEvent {
            name: (!id.is_empty()).then(|| Name {
                source: "/s".into(),
                id: id.into(),
            }),
            event: Payload::text(id).into(),
        }
    }

    #[test]
    fn only_what_is_new_is_appended() {
        let (log, mut repeated) = (EventLog::new(1 << 20), Repeated::default());
        let events = |ids: &str| ids.split(',').map(event).collect::<Vec<_>>();
        let seqs = |ids: Vec<EventId>| ids.iter().map(|id| id.seq).collect::<Vec<_>>();
        assert_eq!(seqs(repeated.append_each(&log, events("a,b"))), [1, 2]);
        assert_eq!(
            seqs(repeated.append_each(&log, events("b,c,,a,c,"))),
            [2, 3, 4, 1, 3, 5]
        );
        let name = event("whole").name.expect("it has one");
        let two = || vec![Payload::text("").into(); 2];
        assert_eq!(seqs(repeated.append_named(&log, &name, two())), [6, 7]);
        assert_eq!(seqs(repeated.append_named(&log, &name, two())), [6, 7]);
        assert_eq!(log.figures().events, 7);
    }

    #[test]
    fn names_are_forgotten_in_their_order() {
        let (log, mut repeated) = (EventLog::new(1 << 20), Repeated::default());
        let mut seq = |id: usize| repeated.append_each(&log, vec![event(&id.to_string())])[0].seq;
        for id in 0..=REMEMBERED {
            assert_eq!(seq(id), id as u64 + 1);
        }
        assert_eq!(seq(1), 2, "still known");
        assert_eq!(seq(0), REMEMBERED as u64 + 2, "forgotten");
        assert_eq!(repeated.known.len(), REMEMBERED);
        assert_eq!(repeated.order.len(), REMEMBERED);
    }
}
