//! Where the events of each origin stand in a history.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::event::{EventId, Origin};

/// Origins that have no event in the history any more are remembered up to this number: it is how repetitions are
/// recognised, and how a subscriber is told how much it has missed.
const MAX_FORMER: usize = 1_000;

/// Finds events by id. What one origin has sent in a row is one entry, so for a stream of one origin it takes no room: what
/// is known of the first origin, and of what an origin has sent last, is at hand.
#[derive(Debug, Default)]
pub struct Places {
    first: Option<(Origin, Runs)>,
    /// In their order, so that what is told of them is, too.
    others: BTreeMap<Origin, Runs>,
    /// With more origins than this those are looked for that have no events any more.
    most: usize,
}

/// The events of one origin: their numbers there only grow, and so do their numbers in the history.
#[derive(Debug)]
pub struct Runs {
    /// The number of the first event that was ever here.
    pub since: u64,
    /// The number of the last one.
    pub last: u64,
    /// Before the newest one. There is none without that.
    older: VecDeque<Run>,
    newest: Option<Run>,
    /// For forgetting who has been silent for longest.
    last_index: u64,
}

/// What is known of an origin beside where its events are that are held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// The origin.
    pub origin: u64,
    /// The number of the first event that was ever here.
    pub since: u64,
    /// The number of the last one.
    pub last: u64,
    /// Where that stands, or stood, in the history.
    pub last_index: u64,
    /// The oldest events in a row of which it is known where they stand or stood: the number of the first at the origin, its number
    /// in the history, and how many they are.
    #[serde(default)]
    pub oldest: Option<[u64; 3]>,
}

impl Known {
    /// The same, where events have other numbers in the history.
    pub fn without_place(self) -> Self {
        Self {
            last_index: 0,
            oldest: None,
            ..self
        }
    }
}

/// Events that follow each other without a hole both at their origin and in the history.
#[derive(Debug, Clone, Copy)]
struct Run {
    seq: u64,
    index: u64,
    len: u64,
    /// So many of them are not in the history any more. Where they stood is still known.
    gone: u64,
}

impl Run {
    fn new(id: EventId, index: u64) -> Self {
        Self {
            seq: id.seq,
            index,
            len: 1,
            gone: 0,
        }
    }

    fn is_gone(&self) -> bool {
        self.gone == self.len
    }

    /// Whether it ends before the event `seq`. An upstream may count up to the last number there is, so there may be none
    /// behind it.
    fn ends_before(&self, seq: u64) -> bool {
        seq.checked_sub(self.seq)
            .is_some_and(|offset| offset >= self.len)
    }
}

impl Runs {
    fn all(&self) -> impl Iterator<Item = &Run> {
        self.older.iter().chain(&self.newest)
    }

    fn oldest_mut(&mut self) -> Option<&mut Run> {
        self.older.front_mut().or(self.newest.as_mut())
    }

    /// The first run that `is_before` does not hold for; it holds for none behind that.
    fn first_not(&self, is_before: impl Fn(&Run) -> bool) -> Option<&Run> {
        let newest = self.newest.as_ref();
        // As a rule it is about what has come last.
        if self.older.back().is_none_or(&is_before) {
            return newest.filter(|run| !is_before(run));
        }
        self.older.get(self.older.partition_point(is_before))
    }

    /// The first event held with a number of at least `seq`: its number at the origin and in the history.
    pub fn at_or_after(&self, seq: u64) -> Option<(u64, u64)> {
        let at = self.older.partition_point(|run| run.ends_before(seq));
        let mut runs = self.older.range(at..).chain(&self.newest);
        let run = runs.find(|run| !run.is_gone() && !run.ends_before(seq))?;
        let offset = seq.saturating_sub(run.seq).max(run.gone);
        Some((run.seq + offset, run.index + offset))
    }

    /// Whether the event `seq`, whose place is not known, may be one that was here and has gone.
    pub fn may_have_had(&self, seq: u64) -> bool {
        let first = self.all().next().map(|run| run.seq);
        seq >= self.since && first.is_none_or(|first| seq < first)
    }

    /// Where the event `seq` stands in the history, or stood, if that is known.
    pub fn index_of(&self, seq: u64) -> Option<u64> {
        let run = self.first_not(|run| run.ends_before(seq));
        let run = run.filter(|run| run.seq <= seq)?;
        Some(run.index + (seq - run.seq))
    }
}

impl Places {
    /// What is known of an origin.
    pub fn of(&self, origin: Origin) -> Option<&Runs> {
        match &self.first {
            Some((first, runs)) if *first == origin => Some(runs),
            _ => self.others.get(&origin),
        }
    }

    fn of_mut(&mut self, origin: Origin) -> Option<&mut Runs> {
        match &mut self.first {
            Some((first, runs)) if *first == origin => Some(runs),
            _ => self.others.get_mut(&origin),
        }
    }

    /// All origins that are remembered.
    pub fn all(&self) -> impl Iterator<Item = (Origin, &Runs)> {
        let first = self.first.iter().map(|(origin, runs)| (*origin, runs));
        first.chain(self.others.iter().map(|(origin, runs)| (*origin, runs)))
    }

    fn count(&self) -> usize {
        usize::from(self.first.is_some()) + self.others.len()
    }

    /// Notes a new event at the end of the history.
    pub fn push(&mut self, id: EventId, index: u64) {
        let runs = self.runs(id);
        runs.last = id.seq;
        runs.last_index = index;
        match &mut runs.newest {
            Some(run)
                if run.seq.checked_add(run.len) == Some(id.seq) && run.index + run.len == index =>
            {
                run.len += 1
            }
            newest => runs.older.extend(newest.replace(Run::new(id, index))),
        }
        if self.count() > self.most.max(MAX_FORMER) {
            self.forget();
        }
    }

    /// Notes an older event at the beginning of the history.
    pub fn push_front(&mut self, id: EventId, index: u64) {
        let runs = self.runs(id);
        runs.since = runs.since.min(id.seq);
        match runs.oldest_mut() {
            Some(run)
                if run.gone == 0
                    && run.seq.checked_sub(1) == Some(id.seq)
                    && run.index == index + 1 =>
            {
                run.seq -= 1;
                run.index -= 1;
                run.len += 1;
            }
            Some(_) => runs.older.push_front(Run::new(id, index)),
            None => runs.newest = Some(Run::new(id, index)),
        }
    }

    /// Notes that an event, and what its origin has sent before it, has been elsewhere and is too old to be here. What comes of it all the
    /// same, from one who has it later, is no news.
    pub fn pass(&mut self, id: EventId) {
        if self.of(id.origin).is_none() && self.count() < MAX_FORMER {
            // Nothing of it was ever here.
            self.runs(id).since = id.seq.saturating_add(1);
        }
    }

    fn runs(&mut self, id: EventId) -> &mut Runs {
        let new = || Runs {
            since: id.seq,
            last: id.seq,
            older: VecDeque::new(),
            newest: None,
            last_index: 0,
        };
        match &mut self.first {
            first @ None if self.others.is_empty() => &mut first.insert((id.origin, new())).1,
            Some((first, runs)) if *first == id.origin => runs,
            _ => self.others.entry(id.origin).or_insert_with(new),
        }
    }

    /// The oldest event of the history, which is this one, has gone.
    pub fn pop(&mut self, id: EventId) {
        let Some(runs) = self.of_mut(id.origin) else {
            return;
        };
        // The last run of an origin stays when all of it has gone. Once there is another one, it is not the oldest.
        runs.older.pop_front_if(|run| run.is_gone());
        if let Some(run) = runs.oldest_mut() {
            run.gone += 1;
        }
        runs.older.pop_front_if(|run| run.is_gone());
    }

    /// The id of the event that stands in the history at `index`, or stood there, if that is known.
    pub fn id_at(&self, index: u64) -> Option<EventId> {
        self.all().find_map(|(origin, runs)| {
            let run = runs.first_not(|run| run.index + run.len <= index);
            let run = run.filter(|run| run.index <= index)?;
            let seq = run.seq + (index - run.index);
            Some(EventId { origin, seq })
        })
    }

    /// What is known beside the events that are held: with these and this, all is known again.
    pub fn known(&self) -> Vec<Known> {
        let known = self.all().map(|(origin, runs)| {
            let oldest = runs.all().next().copied();
            Known {
                origin: origin.0,
                since: runs.since,
                last: runs.last,
                last_index: runs.last_index,
                oldest: oldest.map(|run| [run.seq, run.index, run.len]),
            }
        });
        known.collect()
    }

    /// Takes in what was known elsewhere, where the same events are held.
    pub fn remember(&mut self, known: &Known) {
        let runs = self.runs(EventId {
            origin: Origin(known.origin),
            seq: known.last,
        });
        (runs.since, runs.last) = (known.since, known.last);
        runs.last_index = known.last_index;
        let Some([seq, index, len]) = known.oldest else {
            return;
        };
        let Some(oldest) = runs.oldest_mut() else {
            runs.newest = Some(Run {
                seq,
                index,
                len,
                gone: len,
            });
            return;
        };
        // They are parts of one run only if they are as far from each other here and at their origin.
        let before = oldest.seq.checked_sub(seq);
        if let Some(before) =
            before.filter(|before| oldest.index.checked_sub(index) == Some(*before))
        {
            *oldest = Run {
                seq,
                index,
                len: oldest.len + before,
                gone: oldest.gone + before,
            };
        }
    }

    /// Forgets origins that have no event here, those that were heard of least recently.
    fn forget(&mut self) {
        let is_former = |runs: &Runs| runs.all().all(Run::is_gone);
        let former = self.all().filter(|(_, runs)| is_former(runs));
        let mut former: Vec<_> = former
            .map(|(origin, runs)| (runs.last_index, origin))
            .collect();
        former.sort_unstable();
        // Half of them stay, so that not each further origin has all looked at.
        for (_, origin) in &former[..former.len().saturating_sub(MAX_FORMER / 2)] {
            if self.others.remove(origin).is_none() {
                self.first = None;
            }
        }
        self.most = self.count() + MAX_FORMER / 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(origin: u64, seq: u64) -> EventId {
        EventId {
            origin: Origin(origin),
            seq,
        }
    }

    #[test]
    fn events_are_found_among_those_of_others() {
        let mut places = Places::default();
        let ids = [(1, 5), (2, 1), (1, 6), (1, 7), (2, 2), (1, 10)];
        for (index, (origin, seq)) in ids.into_iter().enumerate() {
            places.push(id(origin, seq), 100 + index as u64);
        }
        let one = places.of(Origin(1)).expect("known");
        assert_eq!((one.since, one.last), (5, 10));
        assert_eq!(one.at_or_after(1), Some((5, 100)));
        assert_eq!(one.at_or_after(7), Some((7, 103)));
        assert_eq!(one.at_or_after(8), Some((10, 105)));
        assert_eq!(one.at_or_after(11), None);
        for gone in [(1, 5), (2, 1), (1, 6)] {
            places.pop(id(gone.0, gone.1));
        }
        let one = places.of(Origin(1)).expect("known");
        assert_eq!(one.at_or_after(1), Some((7, 103)));
        let two = places.of(Origin(2)).expect("known");
        assert_eq!(two.at_or_after(1), Some((2, 104)));
    }

    #[test]
    fn what_has_just_gone_is_still_known() {
        let mut places = Places::default();
        for seq in 3..=9 {
            places.push(id(1, seq), 100 + seq);
        }
        for seq in 3..=9 {
            places.pop(id(1, seq));
        }
        let runs = places.of(Origin(1)).expect("known");
        assert_eq!(runs.at_or_after(1), None);
        assert_eq!((runs.index_of(2), runs.index_of(3)), (None, Some(103)));
        assert_eq!((runs.index_of(9), runs.index_of(10)), (Some(109), None));
        assert_eq!(places.id_at(109), Some(id(1, 9)));
        assert_eq!(places.id_at(102), None);
        // A hole, and behind it nothing is known of what was before.
        places.push(id(1, 12), 110);
        let runs = places.of(Origin(1)).expect("known");
        assert_eq!(runs.at_or_after(1), Some((12, 110)));
        assert_eq!(runs.index_of(10), None);
        places.push(id(2, 1), 111);
        assert_eq!(places.id_at(111), Some(id(2, 1)));
        assert_eq!(places.id_at(110), Some(id(1, 12)));
        places.push_front(id(3, 7), 102);
        assert_eq!(places.id_at(102), Some(id(3, 7)));
    }

    #[test]
    fn numbers_may_be_the_last_there_are() {
        let mut places = Places::default();
        for (index, seq) in [u64::MAX - 2, u64::MAX - 1, u64::MAX]
            .into_iter()
            .enumerate()
        {
            places.push(id(1, seq), 100 + index as u64);
        }
        let one = places.of(Origin(1)).expect("known");
        assert_eq!(one.index_of(u64::MAX), Some(102));
        assert_eq!(one.at_or_after(u64::MAX), Some((u64::MAX, 102)));
        assert_eq!(one.at_or_after(1), Some((u64::MAX - 2, 100)));
    }

    #[test]
    fn what_comes_behind_all_that_has_gone_goes_in_its_turn() {
        let mut places = Places::default();
        places.push(id(1, 1), 100);
        places.pop(id(1, 1));
        places.push(id(2, 1), 101);
        places.push(id(1, 2), 102);
        places.push(id(1, 3), 103);
        places.pop(id(2, 1));
        places.pop(id(1, 2));
        let runs = places.of(Origin(1)).expect("known");
        assert_eq!(runs.at_or_after(1), Some((3, 103)));
        places.pop(id(1, 3));
        let runs = places.of(Origin(1)).expect("known");
        assert_eq!(runs.at_or_after(1), None);
    }

    #[test]
    fn what_was_too_old_to_be_here_has_passed() {
        let mut places = Places::default();
        places.push(id(1, 5), 100);
        for (origin, seq) in [(1, 4), (2, 9), (2, 8)] {
            places.pass(id(origin, seq));
        }
        let last = |origin| {
            places
                .of(Origin(origin))
                .map(|runs| (runs.since, runs.last))
        };
        assert_eq!([last(1), last(2)], [Some((5, 5)), Some((10, 9))]);
        assert_eq!(places.of(Origin(2)).expect("known").at_or_after(1), None);
    }

    #[test]
    fn only_origins_without_events_are_forgotten() {
        let mut places = Places::default();
        for origin in 0..3 * MAX_FORMER as u64 {
            places.push(id(origin, 1), origin);
            if origin % 2 == 0 {
                places.pop(id(origin, 1));
            }
        }
        let held = 3 * MAX_FORMER / 2;
        assert!((held..=held + MAX_FORMER).contains(&places.count()));
        assert!(places.of(Origin(1)).is_some());
        assert!(places.of(Origin(0)).is_none());
    }
}
