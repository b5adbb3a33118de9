//! What has been published lately under a name, so that a publisher that has had no answer may just send it again.

use std::collections::{HashMap, VecDeque};

use ring::hmac;
use serde::{Deserialize, Serialize};

use super::Refused;
use super::sink::Sink;
use crate::event::{EventId, NewEvent};
use crate::wire::cloudevents::{CloudEvent, Name};

/// So many names are remembered.
const REMEMBERED: usize = 10_000;

/// A name as it is remembered: 128 bits of keyed hash, however long the name is.
type Key = [u64; 2];

/// The last names, and the ids that their events have got.
pub(super) struct Repeated {
    /// What names are hashed with: nobody outside is to find two that look the same.
    secret: [u8; 32],
    hasher: hmac::Key,
    known: HashMap<Key, Ids>,
    /// From the oldest to the newest.
    order: VecDeque<Key>,
}

/// What has been published lately under names, on its way to another process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Names {
    /// What they are hashed with.
    secret: [u8; 32],
    /// From the oldest to the newest.
    known: Vec<(Key, Ids)>,
}

/// The ids of one name.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Ids {
    /// In a row, as a log gives them.
    Row { first: EventId, count: u64 },
    /// As a bus gives them, between those of others.
    Each(Box<[EventId]>),
}

impl From<&[EventId]> for Ids {
    fn from(ids: &[EventId]) -> Self {
        let first = ids[0];
        let follows = |(index, id): (usize, &EventId)| {
            id.origin == first.origin && id.seq == first.seq + index as u64
        };
        match ids.iter().enumerate().all(follows) {
            true => Self::Row {
                first,
                count: ids.len() as u64,
            },
            false => Self::Each(ids.into()),
        }
    }
}

impl Ids {
    fn first(&self) -> EventId {
        match self {
            Self::Row { first, .. } => *first,
            Self::Each(ids) => ids[0],
        }
    }

    fn iter(&self) -> impl Iterator<Item = EventId> {
        let (first, count, each) = match self {
            Self::Row { first, count } => (*first, *count, &[][..]),
            Self::Each(ids) => (ids[0], 0, &ids[..]),
        };
        let row = (0..count).map(move |index| EventId {
            seq: first.seq + index,
            ..first
        });
        row.chain(each.iter().copied())
    }
}

/// Events with names.
pub(super) enum Letter {
    /// A request that has one as a whole.
    Whole(Name, Vec<NewEvent>),
    /// One whose events have some.
    Each(Vec<CloudEvent>),
}

impl Default for Repeated {
    fn default() -> Self {
        Self::with(rand::random())
    }
}

impl From<Names> for Repeated {
    fn from(names: Names) -> Self {
        let mut repeated = Self::with(names.secret);
        for (key, ids) in names.known {
            repeated.remember(key, ids);
        }
        repeated
    }
}

impl Repeated {
    fn with(secret: [u8; 32]) -> Self {
        Self {
            hasher: hmac::Key::new(hmac::HMAC_SHA256, &secret),
            secret,
            known: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    /// All that is remembered.
    pub fn names(&self) -> Names {
        let known = self.order.iter().filter_map(|key| {
            let ids = self.known.get(key)?;
            Some((*key, ids.clone()))
        });
        Names {
            secret: self.secret,
            known: known.collect(),
        }
    }

    /// Appends those events of a letter that are new; the ids of all.
    pub async fn append(&mut self, sink: &Sink, letter: Letter) -> Result<Vec<EventId>, Refused> {
        match letter {
            Letter::Whole(name, events) => self.append_named(sink, &name, events).await,
            Letter::Each(events) => self.append_each(sink, events).await,
        }
    }

    /// As a whole, unless it has been here.
    async fn append_named(
        &mut self,
        sink: &Sink,
        name: &Name,
        events: Vec<NewEvent>,
    ) -> Result<Vec<EventId>, Refused> {
        let key = self.key(name);
        if let Some(ids) = self.known.get(&key) {
            return Ok(ids.iter().collect());
        }
        let ids = sink.append_all(events).await?;
        if !ids.is_empty() {
            self.remember(key, Ids::from(&ids[..]));
        }
        Ok(ids)
    }

    async fn append_each(
        &mut self,
        sink: &Sink,
        events: Vec<CloudEvent>,
    ) -> Result<Vec<EventId>, Refused> {
        let mut new = Vec::new();
        let mut within = HashMap::new();
        // For each event its id, or its place among the new ones.
        let places: Vec<_> = events
            .into_iter()
            .map(|CloudEvent { name, event }| {
                let key = name.map(|name| self.key(&name));
                if let Some(ids) = key.and_then(|key| self.known.get(&key)) {
                    return Ok(ids.first());
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
            false => sink.append_all(new).await?,
        };
        let mut named: Vec<_> = within.into_iter().collect();
        named.sort_unstable_by_key(|(_, place)| *place);
        for (key, place) in named {
            self.remember(key, Ids::from(&ids[place..=place]));
        }
        let id = |place: Result<EventId, usize>| place.unwrap_or_else(|place| ids[place]);
        Ok(places.into_iter().map(id).collect())
    }

    fn key(&self, name: &Name) -> Key {
        let mut context = hmac::Context::with_key(&self.hasher);
        // With its length before it, a source cannot be taken for a part of the id.
        context.update(&(name.source.len() as u64).to_be_bytes());
        context.update(name.source.as_bytes());
        context.update(name.id.as_bytes());
        let tag = context.sign();
        let mut words = tag.as_ref().chunks_exact(8);
        let mut word = || words.next().and_then(|word| word.try_into().ok());
        [word(), word()].map(|word| u64::from_be_bytes(word.unwrap_or_default()))
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
    use std::sync::Arc;

    use futures_util::FutureExt;

    use super::*;
    use crate::event::Payload;
    use crate::stream::EventLog;

    /// A log never lets anybody wait.
    fn append(repeated: &mut Repeated, log: &Arc<EventLog>, letter: Letter) -> Vec<u64> {
        let sink = Sink::Log(log.clone());
        let ids = repeated.append(&sink, letter).now_or_never();
        let ids = ids.expect("it waits").expect("it is taken");
        ids.iter().map(|id| id.seq).collect()
    }

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
        let (log, mut repeated) = (Arc::new(EventLog::new(1 << 20)), Repeated::default());
        let events = |ids: &str| Letter::Each(ids.split(',').map(event).collect());
        assert_eq!(append(&mut repeated, &log, events("a,b")), [1, 2]);
        assert_eq!(
            append(&mut repeated, &log, events("b,c,,a,c,")),
            [2, 3, 4, 1, 3, 5]
        );
        let name = event("whole").name.expect("it has one");
        let two = || Letter::Whole(name.clone(), vec![Payload::text("").into(); 2]);
        assert_eq!(append(&mut repeated, &log, two()), [6, 7]);
        assert_eq!(append(&mut repeated, &log, two()), [6, 7]);
        assert_eq!(log.figures().events, 7);
    }

    #[test]
    fn names_are_forgotten_in_their_order() {
        let (log, mut repeated) = (Arc::new(EventLog::new(1 << 20)), Repeated::default());
        let mut seq = |id: usize| {
            let letter = Letter::Each(vec![event(&id.to_string())]);
            append(&mut repeated, &log, letter)[0]
        };
        for id in 0..=REMEMBERED {
            assert_eq!(seq(id), id as u64 + 1);
        }
        assert_eq!(seq(1), 2, "still known");
        assert_eq!(seq(0), REMEMBERED as u64 + 2, "forgotten");
        assert_eq!(repeated.known.len(), REMEMBERED);
        assert_eq!(repeated.order.len(), REMEMBERED);
    }

    #[test]
    fn ids_need_not_be_in_a_row() {
        let id = |seq| EventId {
            origin: crate::event::Origin(1),
            seq,
        };
        for ids in [vec![id(3)], vec![id(3), id(4)], vec![id(3), id(5), id(9)]] {
            let kept = Ids::from(&ids[..]);
            assert_eq!(kept.first(), ids[0]);
            assert_eq!(kept.iter().collect::<Vec<_>>(), ids);
        }
    }
}
