//! A row of numbered things that come on several links: what is beyond a hole waits until another link has filled it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

/// The number of a link, among those into the same log.
pub type LinkId = u32;

/// What there is of one row. Numbers begin at 1.
pub struct Row<T> {
    /// Whether a number that is skipped is something that is missing; otherwise only a notice says so.
    counts: bool,
    /// The number of the last thing that has been released; none yet, if 0 and not `begun`.
    last: Arc<AtomicU64>,
    begun: bool,
    held: BTreeMap<u64, Held<T>>,
    /// The links that carry the row.
    carriers: Vec<Carrier>,
    /// The thing behind the last hole that was not filled.
    told: u64,
}

/// Something beyond a hole.
struct Held<T> {
    thing: T,
    until: Instant,
    /// A notice says that something is missing right before it.
    is_noticed: bool,
    /// The links that have skipped what is before it.
    missed: Vec<LinkId>,
}

/// A link that carries the row.
struct Carrier {
    link: LinkId,
    /// The number that it has come to since it was connected.
    position: Arc<AtomicU64>,
}

/// What a link has brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Brought {
    /// Whether it was not here.
    pub is_new: bool,
    /// What the link has skipped before it.
    pub hole: Hole,
}

/// What a link has skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hole {
    /// Nothing.
    None,
    /// Something that others have not brought, so far at least.
    Open,
    /// Something that others have brought already.
    Filled,
}

/// Something whose turn it is.
pub struct Released<T> {
    /// What it is.
    pub thing: T,
    /// Whether something is missing before it.
    pub is_behind_hole: bool,
    /// How many, if numbers tell.
    pub missing: u64,
    /// The links that had skipped what is before it.
    pub missed: Vec<LinkId>,
}

/// Where a link is in a row, for a look without any lock.
#[derive(Clone)]
pub struct Marks {
    last: Arc<AtomicU64>,
    position: Arc<AtomicU64>,
}

impl Marks {
    /// Notes that the link has come to this number, if it is the next one on that link, and has been here already; false if
    /// it is not that simple.
    pub fn pass(&self, number: u64) -> bool {
        // Only the link itself moves its position while it is up.
        let position = self.position.load(Ordering::Relaxed);
        let is_next = position.checked_add(1) == Some(number);
        let is_copy = is_next && number <= self.last.load(Ordering::Acquire);
        if is_copy {
            self.position.store(number, Ordering::Relaxed);
        }
        is_copy
    }
}

impl<T> Row<T> {
    /// A row of which everything up to `last` has been here, if it has begun.
    pub fn new(counts: bool, last: Option<u64>) -> Self {
        Self {
            counts,
            last: Arc::new(AtomicU64::new(last.unwrap_or(0))),
            begun: last.is_some(),
            held: BTreeMap::new(),
            carriers: Vec::new(),
            told: 0,
        }
    }

    /// Says whether a number that is skipped is something that is missing, from here on.
    pub fn counts(&mut self, counts: bool) {
        self.counts = counts;
    }

    /// Whether it is.
    pub fn tells(&self) -> bool {
        self.counts
    }

    /// The number of the last thing that has been released.
    pub fn last(&self) -> Option<u64> {
        self.begun.then(|| self.last.load(Ordering::Relaxed))
    }

    /// Everything up to this number counts as released.
    pub fn advance(&mut self, number: u64) {
        if self.last().is_none_or(|last| last < number) {
            self.begun = true;
            self.last.store(number, Ordering::Release);
        }
    }

    /// Whether something waits.
    pub fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// Until when the first of it does.
    pub fn deadline(&self) -> Option<Instant> {
        self.held.first_key_value().map(|(_, held)| held.until)
    }

    /// A link carries this row, so it may bring what is missing.
    pub fn is_carried_by(&mut self, link: LinkId) -> Marks {
        let known = self.carriers.iter().find(|carrier| carrier.link == link);
        let position = match known {
            Some(known) => known.position.clone(),
            None => {
                let position = Arc::<AtomicU64>::default();
                self.carriers.push(Carrier {
                    link,
                    position: position.clone(),
                });
                position
            }
        };
        Marks {
            last: self.last.clone(),
            position,
        }
    }

    /// A link begins anew, and may bring what it has passed once more.
    pub fn begins(&mut self, link: LinkId) {
        if let Some(carrier) = self.carriers.iter().find(|carrier| carrier.link == link) {
            carrier.position.store(0, Ordering::Relaxed);
        }
    }

    /// A link has gone for good.
    pub fn leaves(&mut self, link: LinkId) {
        self.carriers.retain(|carrier| carrier.link != link);
    }

    /// Notes that a link has come to this number.
    pub fn note(&mut self, link: LinkId, number: u64) -> Brought {
        let marks = self.is_carried_by(link);
        let position = marks.position.load(Ordering::Relaxed);
        marks
            .position
            .store(position.max(number), Ordering::Relaxed);
        let last = self.last().unwrap_or(0);
        let before = if position == 0 { last } else { position };
        let has_skipped = self.counts && before != 0 && number > before.saturating_add(1);
        Brought {
            is_new: !(self.begun && number <= last || self.held.contains_key(&number)),
            hole: match has_skipped {
                false => Hole::None,
                true if number <= last.saturating_add(1) && number != self.told => Hole::Filled,
                true => Hole::Open,
            },
        }
    }

    /// Whether it is the turn of this number, if nothing is known to be missing before it but what the number says.
    pub fn is_next(&self, number: u64) -> bool {
        let is_adjacent = self
            .last()
            .is_none_or(|last| last.checked_add(1) == Some(number));
        self.held.is_empty() && (is_adjacent || !self.counts)
    }

    /// Holds what is new; `is_noticed` says that something is missing right before it, whatever its number says.
    pub fn hold(&mut self, number: u64, thing: T, is_noticed: bool, until: Instant) {
        // What is missing here is a part of what is missing before the thing behind it, and has been waited for as long.
        let behind = self.held.range(number..).next();
        let until = behind.map_or(until, |(_, behind)| behind.until.min(until));
        self.held.insert(
            number,
            Held {
                thing,
                until,
                is_noticed,
                missed: Vec::new(),
            },
        );
    }

    /// Notes that a link has skipped what is before this number; false if it is not held.
    pub fn has_missed(&mut self, link: LinkId, number: u64) -> bool {
        let held = self.held.get_mut(&number);
        held.map(|held| held.missed.push(link)).is_some()
    }

    /// Another link says that nothing is missing right before what is held at this number.
    pub fn is_whole(&mut self, number: u64) -> Option<&mut T> {
        let held = self.held.get_mut(&number)?;
        held.is_noticed = false;
        Some(&mut held.thing)
    }

    /// The next one of what is held, if it is its turn: nothing is missing before it, or nobody can bring that any more, or time is up,
    /// or there is no room (`by_force`).
    pub fn release(
        &mut self,
        now: Instant,
        is_up: impl Fn(LinkId) -> bool,
        by_force: bool,
    ) -> Option<Released<T>> {
        let last = self.last();
        let (&number, held) = self.held.first_key_value()?;
        let is_beyond = self.counts
            && last.is_some_and(|last| last.checked_add(1).is_none_or(|next| next < number));
        let is_behind_hole = is_beyond || held.is_noticed;
        let may_bring = |carrier: &Carrier| {
            carrier.position.load(Ordering::Relaxed) < number && is_up(carrier.link)
        };
        if is_behind_hole && !by_force && now < held.until && self.carriers.iter().any(may_bring) {
            return None;
        }
        let held = self.held.remove(&number)?;
        self.advance(number);
        if is_behind_hole {
            self.told = number;
        }
        let before = last.filter(|_| is_beyond);
        Some(Released {
            thing: held.thing,
            is_behind_hole,
            missing: before.map_or(0, |before| number - before - 1),
            missed: held.missed,
        })
    }
}
