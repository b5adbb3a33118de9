//! A stream: an ordered log of events behind one URL path. Everything else moves bytes into or out of it.
//!
//! - [`EventLog::append`] gives an event its id, adds it to the history, encodes it once for each wire format that has
//!   a reader, and wakes who waits. It never waits for a reader and never fails because of one. [`EventLog::relay`] does
//!   the same with an event that has its id already, unless it is here: then nothing happens.
//! - A reader is a [`Cursor`] on the [tape] of its format. It holds a position, no queue.
//! - What the history lets go of, the tapes let go of too; a cursor that stood there finds out when it next looks.
//! - Waking counts changes: register, then check, then sleep. There is no moment in which an append between the check and the
//!   sleep could be missed.

pub mod arrival;
pub mod cursor;
pub mod export;
pub mod follow;
pub mod head;
pub mod history;
pub mod join;
pub mod merge;
pub mod places;
mod rate;
pub mod retained;
pub mod tape;
mod tapes;
pub mod usage;
pub mod via;
pub mod walk;
mod way;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::event::{self, Event, EventId, Gap, NewEvent, Origin, Payload};
use crate::wire::Format;
use bytes::Bytes;
use cursor::Cursor;
use head::Head;
use history::{Entry, History, Limits};
use rate::Rate;
use retained::key::KeySource;
use retained::{Retain, Retained};
use tape::{Changes, TapeReader};
use tapes::Tapes;
use walk::Walk;
use way::Received;
pub use way::{Amount, Carrier, Way};

/// The number of the first event appended. Older ones may still come before it.
const FIRST: u64 = 1 << 62;

/// The log of one stream. Shared by its sources, which append, and its endpoints, which follow.
pub struct EventLog {
    origin: Origin,
    /// When it began, in microseconds since the Unix epoch.
    began: u64,
    /// Where keys come from, if the state is kept.
    keys: Option<KeySource>,
    state: Mutex<State>,
    /// Changes with each append, and with what is known of the past. Those who read have that of their tape.
    head: Head,
    /// How many sources have not got so far yet that they could tell what the stream's past is.
    unsettled: AtomicUsize,
    /// What of it has not come from a peer, if there are any: all that a peer is given. It is written under this log's lock, and
    /// never the other way round.
    local: Option<Arc<EventLog>>,
}

struct State {
    history: History,
    /// The last event of each key, where that is wanted.
    kept: Option<Box<Retained>>,
    /// For each format, while someone reads it.
    tapes: Tapes,
    /// The number that the next event from here gets in its id.
    next_own: u64,
    rate: Rate,
    /// Of the payloads of all events that have gone through.
    bytes: u64,
    /// What has come in this process, by what has carried it.
    received: Received,
    /// How often something was known to be missing before an event.
    gaps: u64,
    /// Whoever takes the log over has all of it, so nothing is published to it here.
    sealed: bool,
}

/// A subscriber's way into a log: where it stands, what it reads, and what wakes it.
pub struct Subscription {
    /// What it gets before that.
    pub walk: Option<Box<Walk>>,
    /// Where reading starts.
    pub cursor: Cursor,
    /// The number of the first event that was not there yet.
    pub live: u64,
    /// The tape to read.
    pub tape: TapeReader,
    /// Changes whenever there may be more to read.
    pub head: Changes,
}

/// A log takes no more events here: another process goes on with it, or is about to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sealed;

/// What has gone through a log.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figures {
    /// Events since it began.
    pub events: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// Events a second, over the last few seconds.
    pub rate: f64,
    /// How often something was known to be missing before an event, which everyone is told who gets that.
    pub gaps: u64,
}

/// What a log holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The events of the history, and their bytes with what is counted for each.
    pub history: Amount,
    /// The oldest of them, and when it came, in microseconds since the Unix epoch.
    pub oldest: Option<(EventId, u64)>,
    /// The newest, likewise.
    pub newest: Option<(EventId, u64)>,
    /// How many events are the state that is kept, and their bytes, where it is.
    pub kept: Option<Amount>,
}

impl EventLog {
    /// An empty log with a history within `limits`; a number alone is a limit in bytes.
    pub fn new(limits: impl Into<Limits>) -> Self {
        Self::retaining(limits, None)
    }

    /// The same, with the last event of each key beside it.
    pub fn retaining(limits: impl Into<Limits>, retain: Option<Retain>) -> Self {
        Self::named(Origin::random(), limits, retain)
    }

    /// The same, for the stream whose events bear this name. No two logs may ever have the same one.
    pub fn named(origin: Origin, limits: impl Into<Limits>, retain: Option<Retain>) -> Self {
        let kept = retain
            .as_ref()
            .map(|retain| Box::new(Retained::new(retain.bytes)));
        Self {
            origin,
            began: event::now(),
            keys: retain.map(|retain| retain.key),
            state: Mutex::new(State {
                history: History::new(limits.into(), FIRST),
                kept,
                tapes: Tapes::default(),
                next_own: 1,
                rate: Rate::default(),
                bytes: 0,
                received: Received::default(),
                gaps: 0,
                sealed: false,
            }),
            head: Head::default(),
            unsettled: AtomicUsize::new(0),
            local: None,
        }
    }

    /// The same, for a stream that has peers. What has entered here is told from what peers have brought.
    pub fn with_peers(mut self) -> Self {
        let limits = self.limits();
        let retain = self.keys.clone().map(|key| Retain {
            key,
            bytes: self.lock().kept.as_ref().map_or(0, |kept| kept.limit()),
        });
        let local = Self::named(self.origin, limits, retain);
        let state = self.lock();
        let (first, next) = (state.history.first(), state.history.next());
        if let Some(kept) = &state.kept {
            kept.state(0, first)
                .for_each(|(_, event)| local.adopt(event.clone()));
        }
        for entry in state.history.range(first, next) {
            if !entry.is_from_peer {
                local.lock().push(entry.clone());
            }
        }
        drop(state);
        self.local = Some(Arc::new(local));
        self
    }

    /// What of it has not come from a peer: everything, where there are none.
    pub fn local(&self) -> &Self {
        self.local.as_deref().unwrap_or(self)
    }

    /// The same, if it is another log: it has the name of this one, as events in it have their ids from here.
    pub fn own_local(&self) -> Option<&Arc<Self>> {
        self.local.as_ref()
    }

    /// The id of this instance, for this stream.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// When this log began, in microseconds since the Unix epoch.
    pub fn began(&self) -> u64 {
        self.began
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends one event and returns its id; when this returns, the event is in the log.
    pub fn append(&self, event: impl Into<NewEvent>) -> EventId {
        self.append_with_gap(event, None)
    }

    /// Appends one event; `gap` is what is known to be missing right before it.
    pub fn append_with_gap(&self, event: impl Into<NewEvent>, gap: Option<Gap>) -> EventId {
        self.append_by(Way::default(), event, gap)
    }

    /// The same; `way` is the one that it has come.
    pub fn append_by(&self, way: Way, event: impl Into<NewEvent>, gap: Option<Gap>) -> EventId {
        let mut event = event.into();
        self.prepare(&mut event.key, &mut event.payload);
        let mut state = self.lock();
        let mut entry = state.append(self.origin, event, gap);
        entry.come(way);
        let id = entry.event.id;
        self.mirror(&entry);
        state.push(entry);
        self.publish(state);
        id
    }

    /// Appends events in a row, with nothing between them, and returns their ids.
    pub fn append_all(&self, events: Vec<NewEvent>) -> Vec<EventId> {
        self.append_unless(Way::default(), events, |_| false)
            .unwrap_or_default()
    }

    /// The same, for those who can be told to come again: none of them is in a log that is [sealed](Self::seal).
    pub fn offer(&self, way: Way, events: Vec<NewEvent>) -> Result<Vec<EventId>, Sealed> {
        self.append_unless(way, events, |state| state.sealed)
    }

    fn append_unless(
        &self,
        way: Way,
        mut events: Vec<NewEvent>,
        refuses: impl Fn(&State) -> bool,
    ) -> Result<Vec<EventId>, Sealed> {
        for event in &mut events {
            self.prepare(&mut event.key, &mut event.payload);
        }
        let mut state = self.lock();
        if refuses(&state) {
            return Err(Sealed);
        }
        let events = events.into_iter();
        let append = |event| {
            let mut entry = state.append(self.origin, event, None);
            entry.come(way);
            let id = entry.event.id;
            self.mirror(&entry);
            state.push(entry);
            id
        };
        let ids = events.map(append).collect();
        self.publish(state);
        Ok(ids)
    }

    /// Appends an event that has its id from elsewhere; false if it is in the log already, or was. `gap` is what is known to
    /// be missing before it, beyond what its id tells.
    pub fn relay(&self, event: Event, gap: Option<Gap>) -> bool {
        self.relay_by(Way::default(), event, gap)
    }

    /// The same; `way` is the one that it has come.
    pub fn relay_by(&self, way: Way, mut event: Event, gap: Option<Gap>) -> bool {
        self.prepare(&mut event.key, &mut event.payload);
        let state = self.lock();
        if let Some(local) = self.local.as_ref().filter(|_| !way.is_from_peer) {
            // Even if a peer was faster: it may be gone before all others have the event from it.
            local.take_in(local.lock(), way, event.clone(), gap.clone());
        }
        self.take_in(state, way, event, gap)
    }

    /// Lets peers have an event that is here, or is just being held, as it has come this way, too. For each origin this is called in the
    /// order of [`relay_by`](Self::relay_by), and not while that is.
    pub fn relay_to_peers(&self, way: Way, mut event: Event, gap: Option<Gap>) {
        if let Some(local) = self.local.as_ref().filter(|_| !way.is_from_peer) {
            self.prepare(&mut event.key, &mut event.payload);
            local.take_in(local.lock(), way, event, gap);
        }
    }

    fn take_in(
        &self,
        mut state: MutexGuard<'_, State>,
        way: Way,
        event: Event,
        gap: Option<Gap>,
    ) -> bool {
        let Some(mut entry) = state.relay(self.origin, event, gap) else {
            return false;
        };
        entry.come(way);
        state.push(entry);
        self.publish(state);
        true
    }

    /// Lets peers have an event, too, under the lock of this log.
    fn mirror(&self, entry: &Entry) {
        if let Some(local) = &self.local {
            let mut state = local.lock();
            state.push(entry.clone());
            local.publish(state);
        }
    }

    /// Gives an event its key, if it has none and its payload says it. What has one may be kept for long, and must not keep more
    /// memory than it needs, such as all that was read from a socket at once.
    fn prepare(&self, key: &mut Option<Arc<str>>, payload: &mut Payload) {
        let Some(keys) = &self.keys else { return };
        if key.is_none() {
            *key = keys.key(payload);
        }
        if key.is_some() {
            payload.bytes = Bytes::copy_from_slice(&payload.bytes);
        }
    }

    /// Whether the last event of each key is kept.
    pub fn retains(&self) -> bool {
        self.keys.is_some()
    }

    /// Takes in an event of the state that an upstream keeps. If it is news to those who read here, it is an event like any
    /// other; otherwise it is from before everything in this log.
    pub fn adopt(&self, mut event: Event) {
        self.prepare(&mut event.key, &mut event.payload);
        if event.key.is_none() || event.id.origin == self.origin {
            return;
        }
        let mut state = self.lock();
        let last = state.history.places().of(event.id.origin);
        let last = last.map(|runs| runs.last);
        let has_passed = last.is_some_and(|last| event.id.seq <= last);
        // Who reads already has not been given this key with a snapshot, and would never get to know it.
        let is_news = event.time >= self.began || last.is_some() || state.is_read();
        if is_news && !has_passed {
            if let Some(entry) = state.relay(self.origin, event, None) {
                state.push(entry);
                self.publish(state);
            }
        } else if let Some(kept) = &mut state.kept {
            kept.remember(event, has_passed);
        }
    }

    /// Takes in events from before this log began, oldest first, as far as they are not known: they go before what is held,
    /// as far as there is room, and subscribers at the live edge do not get them. Where the state is kept, they do: it is theirs.
    pub fn backfill(&self, past: impl IntoIterator<Item = Event>) {
        self.backfill_by(Way::default(), past);
    }

    /// The same, of events that the source with this number has brought.
    pub fn backfill_by(&self, way: Way, past: impl IntoIterator<Item = Event>) {
        let past = past.into_iter().map(|mut event| {
            self.prepare(&mut event.key, &mut event.payload);
            event
        });
        let state = self.lock();
        // Another link may have told a shorter past: what that did not have is news.
        let is_beyond = |event: &Event| {
            let runs = state.history.places().of(event.id.origin);
            runs.is_some_and(|runs| runs.last < event.id.seq)
        };
        let (beyond, past): (Vec<_>, Vec<_>) = past.partition(is_beyond);
        self.put_before(state, way, past);
        for event in beyond {
            self.take_in(self.lock(), way, event, None);
        }
    }

    /// Notes that these events, and those of their origins before them, are too old to be held here: they are no news any more, whoever
    /// brings them.
    pub fn pass(&self, last: &[EventId]) {
        let mut state = self.lock();
        for id in last.iter().filter(|id| id.origin != self.origin) {
            state.history.pass(*id);
        }
    }

    fn put_before(&self, mut state: MutexGuard<'_, State>, way: Way, past: Vec<Event>) {
        if state.kept.is_some() && state.is_read() {
            for event in past {
                if let Some(mut entry) = state.relay(self.origin, event, None) {
                    entry.come(way);
                    state.push(entry);
                }
            }
            self.publish(state);
            return;
        }
        let is_known = |event: &Event| {
            let runs = state.history.places().of(event.id.origin);
            event.id.origin == self.origin || runs.is_some_and(|runs| runs.since <= event.id.seq)
        };
        let mut last = HashMap::new();
        let entries = past
            .into_iter()
            .filter(|event| !is_known(event))
            .filter_map(|event| {
                let before = last.get(&event.id.origin).copied();
                if before.is_some_and(|before| before >= event.id.seq) {
                    return None;
                }
                last.insert(event.id.origin, event.id.seq);
                let gap = before.and_then(|before| hole(before, event.id));
                let gap = gap.map(Box::new);
                Some(Entry {
                    gap,
                    link: way.link,
                    is_from_peer: way.is_from_peer,
                    ..Entry::from(event)
                })
            });
        let mut entries: Vec<_> = entries.collect();
        // Where an origin has events here, what goes before them has to lead up to them: nobody would be told of a hole.
        last.retain(|origin, last| {
            let runs = state.history.places().of(*origin);
            runs.is_some_and(|runs| origin.counts() && last.checked_add(1) != Some(runs.since))
        });
        entries.retain(|entry| !last.contains_key(&entry.event.id.origin));
        let events = state.kept.is_some().then(|| {
            let events = entries.iter().map(|entry| entry.event.clone());
            events.collect::<Vec<_>>()
        });
        let before = state.history.first();
        let has_held = state.history.prepend(entries);
        let first = state.history.first();
        if let (Some(kept), Some(events)) = (&mut state.kept, events) {
            kept.prepend(events, before - first, first);
        }
        if !has_held {
            return;
        }
        // Links that were there before would miss these events: they have to come again and say what they have.
        for tape in state.tapes.all_of(Format::Hop) {
            tape.cut_off();
        }
        self.publish(state);
    }

    /// Tells the hops downstream something that is no event.
    pub fn announce(&self, frame: &[u8]) {
        let mut state = self.lock();
        for tape in state.tapes.all_of(Format::Hop) {
            tape.append_notice(frame);
        }
        self.tell(state);
    }

    /// Lets readers know of what has been appended.
    fn publish(&self, mut state: MutexGuard<'_, State>) {
        state.history.forget_old(event::now);
        state.evict();
        self.tell(state);
        self.head.advance();
    }

    fn tell(&self, state: MutexGuard<'_, State>) {
        let readers = state.tapes.readers();
        drop(state);
        readers.iter().for_each(TapeReader::tell);
    }

    /// Whether this event comes behind others of its origin, which is another one, that have been here.
    pub fn goes_on_with(&self, id: EventId) -> bool {
        let state = self.lock();
        let runs = state.history.places().of(id.origin);
        id.origin != self.origin && runs.is_some_and(|runs| runs.last < id.seq)
    }

    /// For each other origin that is remembered, the last event from there.
    pub fn have(&self) -> Vec<EventId> {
        let state = self.lock();
        let others = state
            .history
            .places()
            .all()
            .filter(|(origin, _)| *origin != self.origin);
        let last = others.map(|(origin, runs)| EventId {
            origin,
            seq: runs.last,
        });
        last.collect()
    }

    /// The event that was appended last, if it is held.
    pub fn last(&self) -> Option<EventId> {
        let state = self.lock();
        let last = state.history.next().checked_sub(1)?;
        state.history.get(last).map(|entry| entry.event.id)
    }

    /// Whether there has been an event of this origin, as far as that is remembered.
    pub fn knows(&self, origin: Origin) -> bool {
        self.lock().history.places().of(origin).is_some()
    }

    /// The number of the last event of this origin, which is another one, if that is remembered.
    pub fn last_of(&self, origin: Origin) -> Option<u64> {
        let state = self.lock();
        state.history.places().of(origin).map(|runs| runs.last)
    }

    /// When this event came, in microseconds since the Unix epoch, if it is held.
    pub fn since_of(&self, id: EventId) -> Option<u64> {
        let state = self.lock();
        let index = state.history.places().of(id.origin)?.index_of(id.seq)?;
        let entry = state.history.get(index);
        entry
            .filter(|entry| entry.event.id == id)
            .map(|entry| entry.since)
    }

    /// The bounds of its history.
    pub fn limits(&self) -> Limits {
        self.lock().history.limits()
    }

    /// So many bytes of history are kept.
    pub fn capacity(&self) -> usize {
        self.lock().history.limits().bytes
    }

    /// What has gone through so far.
    pub fn figures(&self) -> Figures {
        let state = self.lock();
        Figures {
            events: state.rate.total(),
            bytes: state.bytes,
            rate: state.rate.per_second(event::now()),
            gaps: state.gaps,
        }
    }

    /// What has come in this process, by what has carried it, with the bytes of the payloads.
    pub fn received(&self) -> Vec<(Carrier, Amount)> {
        self.lock().received.all()
    }

    /// What it holds now.
    pub fn held(&self) -> Held {
        let state = self.lock();
        let history = &state.history;
        let (first, next) = (history.first(), history.next());
        let shown = |index| {
            let entry: &Entry = history.get(index)?;
            Some((entry.event.id, entry.since))
        };
        Held {
            history: Amount {
                events: next - first,
                bytes: history.bytes() as u64,
            },
            oldest: shown(first),
            newest: next.checked_sub(1).and_then(shown),
            kept: state.kept.as_ref().map(|kept| kept.amount()),
        }
    }

    /// When the event with this number came, in microseconds since the Unix epoch, or the oldest that is held if it is not any more;
    /// none if that has not come yet.
    pub fn since_of_number(&self, index: u64) -> Option<u64> {
        let state = self.lock();
        let index = index.max(state.history.first());
        state.history.get(index).map(|entry| entry.since)
    }

    /// A source will tell the past of the stream, once it is connected.
    pub fn expect_past(&self) {
        self.expect_past_of_peer();
        if let Some(local) = &self.local {
            local.expect_past();
        }
    }

    /// A peer will. Other peers do not wait for that: each would wait for all others.
    pub fn expect_past_of_peer(&self) {
        self.unsettled.fetch_add(1, Ordering::AcqRel);
    }

    fn is_settled(&self) -> bool {
        self.unsettled() == 0
    }

    /// How many sources are still to tell the past of the stream.
    fn unsettled(&self) -> usize {
        self.unsettled.load(Ordering::Acquire)
    }

    /// Wakes those who wait for the past: something else that counts for them has changed.
    pub fn look_again(&self) {
        self.head.advance();
    }

    /// A source has told the past of the stream, or there is none to be had.
    pub fn past_is_settled(&self) {
        self.past_of_peer_is_settled();
        if let Some(local) = &self.local {
            local.past_is_settled();
        }
    }

    /// A peer has, or there is none to be had from it.
    pub fn past_of_peer_is_settled(&self) {
        let one_less = |count: usize| count.checked_sub(1);
        let _ = self
            .unsettled
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, one_less);
        self.head.advance();
    }
}

/// What is missing between the event `last` of an origin and the one that came next from there.
pub(crate) fn hole(last: u64, next: EventId) -> Option<Gap> {
    (next.origin.counts() && next.seq > last + 1).then(|| Gap {
        after: Some(EventId { seq: last, ..next }.to_string().into()),
        next: Some(next),
        lost: Some(next.seq - last - 1),
    })
}

impl State {
    /// The next event from here.
    fn append(&mut self, origin: Origin, event: NewEvent, gap: Option<Gap>) -> Entry {
        let id = EventId {
            origin,
            seq: self.next_own,
        };
        self.next_own += 1;
        let now = event::now();
        let event = Event {
            id,
            time: now,
            event_type: event.event_type,
            key: event.key,
            payload: event.payload,
        };
        let gap = gap.map(|gap| Gap {
            next: Some(id),
            ..gap
        });
        Entry::new(event, gap, now)
    }

    /// An event that has its id, unless it is here.
    fn relay(&self, own: Origin, event: Event, gap: Option<Gap>) -> Option<Entry> {
        let id = event.id;
        // What was here before it went round, even if the number is not one we have given: ours are ours.
        if id.origin == own {
            return None;
        }
        let last = self.history.places().of(id.origin).map(|runs| runs.last);
        let hole = match last {
            Some(last) if id.seq <= last => return None,
            Some(last) => hole(last, id),
            None => None,
        };
        let hole = match (hole, gap) {
            // What is missing by the numbers is here, or it is the hole.
            (hole, Some(gap)) if last.is_some() && gap.by_number(id).is_some() => hole,
            (Some(hole), Some(gap)) => {
                let both = hole.lost.zip(gap.lost);
                let lost = match gap.next.is_none() || gap.is_between_neighbours() {
                    // What else is missing right before this event.
                    true => both.map(|(a, b)| a.saturating_add(b)),
                    // A part of the log, and so of any origins: the hole is in it.
                    false => both.map(|(a, b)| a.max(b)),
                };
                Some(Gap { lost, ..hole })
            }
            (hole, gap) => hole.or(gap).map(|gap| Gap {
                next: Some(id),
                ..gap
            }),
        };
        Some(Entry::new(event, hole, event::now()))
    }

    fn push(&mut self, entry: Entry) {
        self.rate.count(entry.since);
        let bytes = entry.event.payload.bytes.len() as u64;
        self.bytes += bytes;
        self.received
            .add(entry.carrier, Amount { events: 1, bytes });
        self.gaps += u64::from(entry.gap.is_some());
        self.write_tapes(&entry);
        if let Some(kept) = &mut self.kept {
            kept.push(self.history.next(), &entry);
        }
        self.history.push(entry);
    }

    /// Whether there are subscribers.
    fn is_read(&self) -> bool {
        self.tapes.are_read()
    }

    /// Encodes the event for the formats that are read, and drops the tapes that no longer are.
    ///
    /// A reader is only ever handed out under the lock that is held here, so a tape found unread stays unread.
    fn write_tapes(&mut self, entry: &Entry) {
        self.tapes.drop_unread();
        for (format, tape) in self.tapes.iter_mut() {
            let mut scratch = Vec::new();
            tape.append(format.encode(&entry.event, entry.gap.as_deref(), &mut scratch));
        }
    }

    fn evict(&mut self) {
        let oldest = self.history.first();
        if let Some(kept) = &mut self.kept {
            kept.let_go(oldest);
        }
        for (_, tape) in self.tapes.iter_mut() {
            tape.evict_before(oldest);
        }
    }
}

#[cfg(test)]
mod tests;
