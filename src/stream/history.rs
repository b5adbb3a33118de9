//! History: the last events of a stream, bounded in bytes, and if wanted in number and age.

mod missed;

use std::collections::VecDeque;
use std::time::Duration;

use super::places::{Known, Places};
use super::{Carrier, Way};
use crate::event::{Event, EventId, Gap};
pub use missed::Missed;

/// What an event costs beside its payload, so that the bound holds for streams of small events too.
const OVERHEAD: usize = size_of::<Entry>();

/// An event of the history, and what is missing right before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The event.
    pub event: Event,
    /// What was lost on the way here; told to everyone who gets the event.
    pub gap: Option<Box<Gap>>,
    /// When it came, in microseconds since the Unix epoch: of the event's own time, another clock and the way here are a part.
    pub since: u64,
    /// The number of the source that brought it first, if one did.
    pub link: Option<u16>,
    /// Whether that is a peer.
    pub is_from_peer: bool,
    /// What has carried it here.
    pub carrier: Carrier,
}

impl Entry {
    /// It has come this way.
    pub fn come(&mut self, way: Way) {
        (self.link, self.is_from_peer) = (way.link, way.is_from_peer);
        self.carrier = way.carrier;
    }

    /// An event that is here since `now`.
    pub fn new(event: Event, gap: Option<Gap>, now: u64) -> Self {
        Self {
            event,
            gap: gap.map(Box::new),
            since: now,
            link: None,
            is_from_peer: false,
            carrier: Carrier::default(),
        }
    }
}

/// Here since it happened.
impl From<Event> for Entry {
    fn from(event: Event) -> Self {
        Self {
            since: event.time,
            event,
            gap: None,
            link: None,
            is_from_peer: false,
            carrier: Carrier::default(),
        }
    }
}

/// The bounds of a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// At most so many bytes, except that the newest event is always held.
    pub bytes: usize,
    /// At most so many events.
    pub count: Option<usize>,
    /// None that has been in the log for longer.
    pub age: Option<Duration>,
}

impl From<usize> for Limits {
    fn from(bytes: usize) -> Self {
        Self {
            bytes,
            count: None,
            age: None,
        }
    }
}

/// The newest events, oldest first, numbered without holes.
#[derive(Debug)]
pub struct History {
    entries: VecDeque<Entry>,
    /// The number of the oldest event held; of the next one, when none is.
    first: u64,
    bytes: usize,
    limits: Limits,
    places: Places,
    /// Whether an event has been let go of: its number is not to be given again.
    has_let_go: bool,
    /// What was missing before events that have been let go of; none if nothing was.
    missed: Option<Box<Missed>>,
}

impl History {
    /// An empty history. The first event will have the number `first`.
    pub fn new(limits: Limits, first: u64) -> Self {
        Self {
            entries: VecDeque::new(),
            first,
            bytes: 0,
            limits,
            places: Places::default(),
            has_let_go: false,
            missed: None,
        }
    }

    /// Appends an event and lets go of the oldest ones until the bounds hold again. Its id must be new here.
    pub fn push(&mut self, entry: Entry) {
        self.places.push(entry.event.id, self.next());
        self.bytes += cost(&entry.event);
        self.entries.push_back(entry);
        while self.is_over() {
            self.pop();
        }
    }

    /// Puts older events before those held, as far as there is room: none, if events had to go already. Their ids must be
    /// new here. Whether there was any. Of those for which there is none it is remembered that they have been.
    pub fn prepend(&mut self, older: Vec<Entry>) -> bool {
        let first = self.first;
        let mut is_full = self.has_let_go;
        for entry in older.into_iter().rev() {
            let id = entry.event.id;
            if is_full {
                self.places.pass(id);
                continue;
            }
            self.bytes += cost(&entry.event);
            self.entries.push_front(entry);
            if self.is_over() {
                let oldest = self.entries.pop_front();
                self.bytes -= oldest.map_or(0, |oldest| cost(&oldest.event));
                self.places.pass(id);
                is_full = true;
                continue;
            }
            self.first -= 1;
            self.places.push_front(id, self.first);
        }
        self.first < first
    }

    /// Lets go of what is too old by the clock `now`, in microseconds since the Unix epoch.
    pub fn forget_old(&mut self, now: impl FnOnce() -> u64) {
        let Some(age) = self.limits.age else { return };
        let oldest = now().saturating_sub(age.as_micros() as u64);
        while self
            .entries
            .front()
            .is_some_and(|entry| entry.since < oldest)
        {
            self.pop();
        }
    }

    /// Lets go of what is numbered below `first`.
    pub fn let_go_before(&mut self, first: u64) {
        while self.first < first && !self.entries.is_empty() {
            self.pop();
        }
    }

    /// Goes on with number `next`, where nothing is held.
    pub fn skip_to(&mut self, next: u64) {
        self.let_go_before(next);
        self.first = self.first.max(next);
    }

    /// Takes in what was known of origins where the same events were held, and of those that have been let go of, if some have.
    pub fn remember(&mut self, known: &[Known], has_let_go: bool, missed: Option<Missed>) {
        known.iter().for_each(|known| self.places.remember(known));
        self.has_let_go |= has_let_go;
        self.missed = missed.map(Box::new);
    }

    /// Notes that an event is too old to be held: see [`Places::pass`].
    pub fn pass(&mut self, id: EventId) {
        self.places.pass(id);
    }

    /// What was missing before events that have been let go of.
    pub fn missed(&self) -> Option<&Missed> {
        self.missed.as_deref()
    }

    /// How many events somebody has missed who would have gone on with the one numbered `from`, which has been let go of, and now
    /// goes on with the oldest; none if nobody knows.
    pub fn missed_since(&self, from: u64) -> Option<u64> {
        let gone = self.first.saturating_sub(from);
        let missed = match &self.missed {
            Some(missed) => missed.since(from)?,
            None => 0,
        };
        gone.checked_add(missed)
    }

    /// Whether an event has been let go of.
    pub fn has_let_go(&self) -> bool {
        self.has_let_go
    }

    fn is_over(&self) -> bool {
        let over_count = self
            .limits
            .count
            .is_some_and(|count| self.entries.len() > count);
        self.entries.len() > 1 && self.bytes > self.limits.bytes || over_count
    }

    fn pop(&mut self) {
        if let Some(oldest) = self.entries.pop_front() {
            self.bytes -= cost(&oldest.event);
            self.places.pop(oldest.event.id);
            if let Some(gap) = &oldest.gap {
                let missed = self.missed.get_or_insert_default();
                missed.push(self.first, gap.lost);
            }
            self.first += 1;
            self.has_let_go = true;
        }
    }

    /// What it holds, in bytes, as its bound counts them.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Its bounds.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The number of the oldest event held; of the next one, when none is.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// The number the next event will have.
    pub fn next(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// The event with this number, if it is held.
    pub fn get(&self, index: u64) -> Option<&Entry> {
        let offset = index.checked_sub(self.first)?;
        self.entries.get(usize::try_from(offset).ok()?)
    }

    /// The events from number `from` up to, without it, `to`; both must be held or the next.
    pub fn range(&self, from: u64, to: u64) -> impl DoubleEndedIterator<Item = &Entry> {
        let (from, to) = (from - self.first, to - self.first);
        self.entries.range(from as usize..to as usize)
    }

    /// Where the events of each origin are.
    pub fn places(&self) -> &Places {
        &self.places
    }
}

/// So many bytes an event counts for.
pub(super) fn cost(event: &Event) -> usize {
    let texts = [&event.event_type, &event.key];
    let texts: usize = texts.into_iter().flatten().map(|text| text.len()).sum();
    event.payload.bytes.len() + texts + OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{EventId, Origin, Payload};

    fn event(seq: u64, len: usize) -> Entry {
        Entry::from(Event {
            id: EventId {
                origin: Origin(0),
                seq,
            },
            time: seq * 1_000_000,
            event_type: None,
            key: None,
            payload: Payload::binary(vec![0; len]),
        })
    }

    fn held(history: &History) -> (u64, u64) {
        (history.first(), history.next())
    }

    #[test]
    fn the_oldest_go_first_and_the_newest_always_stays() {
        let mut history = History::new((3 * (100 + OVERHEAD)).into(), 1);
        for seq in 1..=3 {
            history.push(event(seq, 100));
        }
        assert_eq!(held(&history), (1, 4));
        history.push(event(4, 1));
        assert_eq!(held(&history), (2, 5));
        history.push(event(5, 1_000_000));
        assert_eq!(held(&history), (5, 6));
        history.push(event(6, 0));
        assert_eq!(held(&history), (6, 7));
    }

    #[test]
    fn number_and_age_are_bounds_too() {
        let limits = Limits {
            bytes: 1 << 20,
            count: Some(3),
            age: Some(Duration::from_secs(10)),
        };
        let mut history = History::new(limits, 1);
        for seq in 1..=5 {
            history.push(event(seq, 0));
        }
        assert_eq!(held(&history), (3, 6));
        history.forget_old(|| 14_500_000);
        assert_eq!(held(&history), (5, 6));
        history.forget_old(|| 60_000_000);
        assert_eq!(held(&history), (6, 6));
        history.push(event(6, 0));
        assert_eq!(held(&history), (6, 7));
    }

    #[test]
    fn older_events_fill_the_room_there_is() {
        let mut history = History::new((4 * OVERHEAD).into(), 100);
        history.push(event(11, 0));
        history.push(event(12, 0));
        history.prepend((1..=10).map(|seq| event(seq, 0)).collect());
        assert_eq!(held(&history), (98, 102));
        let seqs: Vec<_> = history
            .range(98, 102)
            .map(|entry| entry.event.id.seq)
            .collect();
        assert_eq!(seqs, [9, 10, 11, 12]);
        history.push(event(13, 0));
        assert_eq!(held(&history), (99, 103));
        let id = |index| history.places().id_at(index).map(|id| id.seq);
        assert_eq!((id(98), id(102)), (Some(9), Some(13)));
    }
}
