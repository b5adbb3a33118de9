//! Joining a stream: at the live edge, in its history, or where a former connection ended.

use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::timeout;

use super::cursor::Cursor;
use super::history::{Entry, cost};
use super::places::Runs;
use super::tape::{Tape, TapeReader};
use super::walk::Walk;
use super::{EventLog, State, Subscription};
use crate::event::{EventId, Gap, Snapshot};
use crate::wire::Format;

/// How long a subscriber that wants to go on waits for this instance to have what it had: a relay that has just started, or
/// is a little behind its sibling, is not told from one that will never know.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// So much of the past is compressed at a time, as it counts in history.
const PIECE: usize = 64 << 10;

/// Where a subscriber wants to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// With the next event.
    Live,
    /// So many events earlier, as far as they are held.
    Last(u64),
    /// With the oldest event that is held.
    All,
    /// Right behind this event; the text may be anything that a client says.
    After(Box<str>),
    /// With all that is not covered by `have`: the last event that it has of each origin.
    Beyond {
        /// At most one of each origin.
        have: Vec<EventId>,
        /// Whether it has missed what is not held any more of other origins.
        from_first: bool,
    },
}

/// Whether a subscriber wants to be given the state of the stream first, where it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateWish {
    /// It does not.
    No,
    /// Unless it goes on where it was, without having missed anything.
    Missed,
    /// Wherever it begins.
    Yes,
}

/// Whether a wish could be met: the header `Wsevent-Resumed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resumed {
    /// It gets all it asked for.
    Yes,
    /// It gets what is left of it.
    Partial,
    /// It asked for nothing, or for what is not known here.
    No,
}

impl Resumed {
    /// The header's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::Partial => "partial",
            Self::No => "no",
        }
    }
}

/// The answer to a wish.
pub struct Joined {
    /// Begins where the wish can be met.
    pub subscription: Subscription,
    /// How far it could be.
    pub resumed: Resumed,
    /// What the subscriber has missed, to be told before the first event.
    pub gaps: Vec<Gap>,
    /// So many events at most are the state of the stream, which comes first; none if there is no such part.
    pub state: Option<u64>,
    /// So many events were there before.
    pub backlog: u64,
    /// The event before the one that it begins with, if it is known.
    pub before: Option<EventId>,
}

/// Where a wish leads.
struct Start {
    index: u64,
    resumed: Resumed,
    gaps: Vec<Gap>,
}

impl EventLog {
    /// Subscribes at the live edge.
    pub fn follow(&self, format: Format) -> Subscription {
        self.subscribe(format, &Wish::Live).subscription
    }

    /// Subscribes to `format`, from where `wish` says as far as it can be met; with the state of the stream, unless that goes on
    /// where it was.
    pub fn subscribe(&self, format: Format, wish: &Wish) -> Joined {
        self.subscribe_with(format, wish, StateWish::Missed)
    }

    /// Subscribes to `format`, from where `wish` says as far as it can be met, with what is wanted of the state from before that.
    pub fn subscribe_with(&self, format: Format, wish: &Wish, wants: StateWish) -> Joined {
        let mut state = self.lock();
        state.history.forget_old(crate::event::now);
        state.evict();
        let start = state.start(wish);
        let next = state.history.next();
        let before = state.history.places().id_at(start.index - 1);
        let goes_on = matches!(wish, Wish::After(_) | Wish::Beyond { .. });
        let is_due = match wants {
            StateWish::No => false,
            StateWish::Missed => !goes_on || start.resumed != Resumed::Yes,
            StateWish::Yes => true,
        };
        let kept = state.kept.as_ref().filter(|_| is_due);
        let count = kept.map(|kept| kept.count(start.index));
        let walk = count.map(|_| {
            let mut end = Vec::new();
            format.encode_snapshot(&Snapshot::End { after: before }, &mut end);
            Box::new(Walk::through_state(start.index, end))
        });
        let cursor = state.cursor(format, start.index);
        let tape = state.tape(format);
        Joined {
            subscription: Subscription {
                walk,
                cursor,
                live: next,
                tape: tape.reader(),
                head: tape.reader().changes(),
            },
            resumed: start.resumed,
            gaps: start.gaps,
            state: count,
            backlog: next - start.index,
            before,
        }
    }

    /// Compresses what `wish` leads to and nobody has read in this format yet: piece by piece and without the lock, as it takes ten times as
    /// long as to encode it. Whoever subscribes while he holds what is returned finds it on the tape.
    pub async fn compress_past(&self, format: Format, wish: &Wish) -> Option<TapeReader> {
        format.coding()?;
        let kept = self.lock().tape(format).reader();
        while let Some((first, entries)) = self.uncompressed(format, wish) {
            let mut scratch = Vec::new();
            let frames = entries.iter().map(|entry| {
                let parts = format.encode(&entry.event, entry.gap.as_deref(), &mut scratch);
                parts.concat()
            });
            let frames: Vec<_> = frames.collect();
            self.prepend_frames(format, first, &frames);
            yield_now().await;
        }
        Some(kept)
    }

    /// The last of what `wish` leads to and is not on the tape of this format, and with which number that begins.
    fn uncompressed(&self, format: Format, wish: &Wish) -> Option<(u64, Vec<Entry>)> {
        let mut state = self.lock();
        let index = state.start(wish).index;
        let first = state.tape(format).first();
        if index >= first {
            return None;
        }
        let mut room = PIECE;
        let before = state.history.range(index, first).rev();
        let last = before.take_while(|entry| {
            let goes_on = room > 0;
            room = room.saturating_sub(cost(&entry.event));
            goes_on
        });
        let mut last: Vec<_> = last.cloned().collect();
        last.reverse();
        Some((first, last))
    }

    /// Puts frames before a tape that begins with the number `first`. If it does not any more, somebody else was faster, or history has
    /// moved on.
    fn prepend_frames(&self, format: Format, first: u64, frames: &[Vec<u8>]) {
        let mut state = self.lock();
        let tape = state.tape(format);
        if tape.first() == first {
            tape.prepend(frames);
        }
    }

    /// Subscribes right behind this event, if that can be done without missing anything.
    pub fn subscribe_behind(&self, format: Format, id: EventId) -> Option<Subscription> {
        let mut state = self.lock();
        state.history.forget_old(crate::event::now);
        state.evict();
        let index = state.history.places().of(id.origin)?.index_of(id.seq)? + 1;
        let next = state.history.next();
        if index < state.history.first() {
            return None;
        }
        let cursor = state.cursor(format, index);
        let tape = state.tape(format);
        Some(Subscription {
            walk: None,
            cursor,
            live: next,
            tape: tape.reader(),
            head: tape.reader().changes(),
        })
    }

    /// The same, once it can be done.
    pub async fn join_behind(&self, format: Format, id: EventId) -> Subscription {
        loop {
            let seen = self.head.count();
            if let Some(subscription) = self.subscribe_behind(format, id) {
                return subscription;
            }
            self.head.beyond(seen).await;
        }
    }

    /// The oldest event that is held.
    pub fn oldest(&self) -> Option<EventId> {
        let state = self.lock();
        let first = state.history.first();
        state.history.get(first).map(|entry| entry.event.id)
    }

    /// Waits until this instance knows what `wish` refers to, or cannot be expected to any more.
    pub async fn wait_for(&self, wish: &Wish) {
        if self.retains() {
            // The state of the stream is its past.
            self.wait_for_past().await;
        }
        let Wish::After(id) = wish else { return };
        let Ok(id) = id.parse::<EventId>() else {
            return;
        };
        let is_known = || match self.lock().history.places().of(id.origin) {
            Some(runs) => runs.last >= id.seq,
            None => id.origin == self.origin || self.is_settled(),
        };
        self.wait_until(is_known).await;
    }

    /// Waits until all sources have told the past of the stream, or cannot be expected to any more.
    pub async fn wait_for_past(&self) {
        self.wait_until(|| self.is_settled()).await;
    }

    /// The same, but for so many sources as `spared` says each time.
    pub async fn wait_for_past_but(&self, spared: impl Fn() -> usize) {
        self.wait_until(|| self.unsettled() <= spared()).await;
    }

    async fn wait_until(&self, is_so: impl Fn() -> bool) {
        let mut seen = self.head.count();
        let waiting = async {
            while !is_so() {
                seen = self.head.beyond(seen).await;
            }
        };
        let _ = timeout(PATIENCE, waiting).await;
    }

    /// For a reader of `format` that was before the event numbered `from` when history moved on: where it goes on, and what it
    /// has missed.
    pub fn skip(&self, format: Format, from: u64) -> (Cursor, Gap) {
        let mut state = self.lock();
        // The tape may still begin earlier, with events that are held no more and whose ids are no longer known.
        let oldest = state.history.first();
        let cursor = state.cursor(format, oldest);
        let before = state.history.places().id_at(from.saturating_sub(1));
        let gap = Gap {
            after: before.map(|id| id.to_string().into()),
            next: state.history.get(oldest).map(|entry| entry.event.id),
            lost: state.history.missed_since(from),
        };
        (cursor, gap)
    }
}

impl State {
    fn start(&self, wish: &Wish) -> Start {
        let (first, next) = (self.history.first(), self.history.next());
        let start = |index, resumed| Start {
            index,
            resumed,
            gaps: vec![],
        };
        match wish {
            Wish::Live => start(next, Resumed::No),
            Wish::Last(count) => start(next.saturating_sub(*count).max(first), Resumed::Yes),
            Wish::All => start(first, Resumed::Yes),
            Wish::After(text) => self.start_after(text),
            Wish::Beyond { have, from_first } => self.start_beyond(have, *from_first),
        }
    }

    fn start_after(&self, text: &str) -> Start {
        let (first, next) = (self.history.first(), self.history.next());
        let id = text.parse::<EventId>().ok();
        let known = id.and_then(|id| Some((id, self.history.places().of(id.origin)?)));
        let gap = |next, lost| Gap {
            after: Some(text.into()),
            next,
            lost,
        };
        let Some((id, runs)) = known.filter(|(id, runs)| id.seq <= runs.last) else {
            return Start {
                index: next,
                resumed: Resumed::No,
                gaps: vec![gap(None, None)],
            };
        };
        let (index, lost) = match runs.index_of(id.seq) {
            Some(index) if index + 1 >= first => (index + 1, Some(0)),
            Some(index) => (first, self.history.missed_since(index + 1)),
            // In a hole, or gone so long ago that nothing is known of it.
            None => match runs.at_or_after(id.seq) {
                Some((seq, index)) if self.is_right_before(id, index) => {
                    (index, id.origin.counts().then(|| seq - id.seq - 1))
                }
                // Others' events in between belong to nobody knows which side of it.
                Some((_, index)) if !runs.may_have_had(id.seq) => (index, None),
                _ => (first, None),
            },
        };
        if lost == Some(0) {
            return Start {
                index,
                resumed: Resumed::Yes,
                gaps: vec![],
            };
        }
        Start {
            index,
            resumed: Resumed::Partial,
            gaps: vec![gap(
                self.history.get(index).map(|entry| entry.event.id),
                lost,
            )],
        }
    }

    /// Whether nothing but events of its own origin, if any, can have been between `id`, which is not here, and the event
    /// at `index`.
    fn is_right_before(&self, id: EventId, index: u64) -> bool {
        let places = self.history.places();
        let is_behind = |before: EventId| before.origin == id.origin && before.seq < id.seq;
        places.id_at(index - 1).is_some_and(is_behind)
            || places.all().all(|(origin, _)| origin == id.origin)
    }

    /// The first event that is not covered. Behind it there may be some that are, where several origins are merged.
    fn start_beyond(&self, have: &[EventId], from_first: bool) -> Start {
        let mut start = Start {
            index: self.history.next(),
            resumed: Resumed::Yes,
            gaps: vec![],
        };
        for (origin, runs) in self.history.places().all() {
            let had = have.iter().find(|id| id.origin == origin);
            let expected = had.map_or(runs.since, |id| id.seq.saturating_add(1));
            let found = runs.at_or_after(expected);
            if let Some((_, index)) = found {
                start.index = start.index.min(index);
            }
            let counts = had.is_some() || from_first;
            let missing = self.missing(had.copied(), expected, runs, found);
            if let Some(gap) = missing.filter(|_| counts) {
                start.resumed = Resumed::Partial;
                start.gaps.push(gap);
            }
        }
        let is_known = |id: &EventId| self.history.places().of(id.origin).is_some();
        if !have.is_empty() && !have.iter().any(is_known) {
            start.resumed = Resumed::No;
        }
        start
    }

    /// What is missing of one origin between the event that was `expected` and the one that was `found`.
    fn missing(
        &self,
        had: Option<EventId>,
        expected: u64,
        runs: &Runs,
        found: Option<(u64, u64)>,
    ) -> Option<Gap> {
        let next = found.and_then(|(_, index)| self.history.get(index));
        let gap = |lost| Gap {
            after: had.map(|id| id.to_string().into()),
            next: next.map(|entry| entry.event.id),
            lost,
        };
        if let Some(had) = had.filter(|had| !had.origin.counts()) {
            let index = runs.index_of(had.seq);
            return match index {
                // It is held, or what follows is.
                Some(index) if index + 1 >= self.history.first() => None,
                Some(index) => Some(gap(self.history.missed_since(index + 1))),
                // Nobody knows what has been between.
                None => next.map(|_| gap(None)),
            };
        }
        // A hole that was there before is told with the event behind it: this one ends where that begins.
        let told = next.and_then(|entry| entry.gap.as_ref()?.by_number(entry.event.id));
        let behind = found.map_or(runs.last.saturating_add(1), |(seq, _)| seq);
        let end = told.map_or(behind, |after| after.saturating_add(1).min(behind));
        let lost = end.checked_sub(expected)?;
        (lost > 0).then(|| Gap {
            next: next.filter(|_| end == behind).map(|entry| entry.event.id),
            ..gap(Some(lost))
        })
    }

    /// The tape of a format; a new one begins at the live edge.
    pub(super) fn tape(&mut self, format: Format) -> &mut Tape {
        let next = self.history.next();
        self.tapes.get_or_make(format, next)
    }

    /// The place on a tape before the event numbered `index`, which is held, or the next. If the tape begins later, the frames
    /// between are made now, once for all who want them.
    pub(super) fn cursor(&mut self, format: Format, index: u64) -> Cursor {
        let first = self.tape(format).first();
        let mut frames = vec![];
        if index < first {
            let mut scratch = vec![];
            for entry in self.history.range(index, first) {
                let parts = format.encode(&entry.event, entry.gap.as_deref(), &mut scratch);
                frames.push(parts.concat());
            }
        }
        let tape = self.tape(format);
        tape.prepend(&frames);
        tape.before(index).unwrap_or_else(|| tape.end())
    }
}

#[cfg(test)]
mod tests;
