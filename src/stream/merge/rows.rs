//! What several links bring of events that have their ids: a row for each origin. No I/O, and no clock of its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::figures::Figures;
use super::row::{Brought, Hole, LinkId, Marks, Row};
use crate::event::{self, Event, Gap, Origin};
use crate::stream::history::cost;
use crate::stream::{EventLog, Way};

/// More origins than this are not remembered, unless something of them is held: the log knows the last event of each.
const MAX_ROWS: usize = 1_000;
/// More events than this are not held.
const MAX_HELD: usize = 10_000;
/// The bounds of what is held, in bytes: a quarter of what the history may have, within these.
const HELD_BYTES: std::ops::RangeInclusive<usize> = 64 << 10..=4 << 20;
const HELD_PART: usize = 4;

/// How many bytes may be held for a log that may hold so many.
pub(super) fn most_bytes(history: usize) -> usize {
    (history / HELD_PART).clamp(*HELD_BYTES.start(), *HELD_BYTES.end())
}

/// Of each origin what is held, and how far each link has come.
pub struct Rows {
    /// How long a hole is left open for another link to fill it.
    wait: Duration,
    most_bytes: usize,
    links: Vec<Link>,
    next: LinkId,
    rows: HashMap<Origin, Row<Waiting>>,
    /// Those that hold something: none as a rule.
    holding: Vec<Origin>,
    held: usize,
    bytes: usize,
}

/// A link into the log.
struct Link {
    id: LinkId,
    is_up: bool,
    figures: Arc<Figures>,
    /// The instances it leads through, each of which may be an origin.
    path: Vec<Origin>,
}

/// An event that waits for what is missing before it.
struct Waiting {
    event: Event,
    gap: Option<Gap>,
    way: Way,
    link: LinkId,
}

impl Rows {
    /// Nothing has come yet. `history` is how many bytes the log may hold.
    pub fn new(wait: Duration, history: usize) -> Self {
        Self {
            wait,
            most_bytes: most_bytes(history),
            links: Vec::new(),
            next: 0,
            rows: HashMap::new(),
            holding: Vec::new(),
            held: 0,
            bytes: 0,
        }
    }

    /// There is one more link, which is not connected yet.
    pub fn enter(&mut self, figures: Arc<Figures>) -> LinkId {
        let id = self.next;
        self.next += 1;
        self.links.push(Link {
            id,
            is_up: false,
            figures,
            path: Vec::new(),
        });
        id
    }

    /// A link is no more.
    pub fn leave(&mut self, log: &EventLog, link: LinkId, now: Instant) {
        self.links.retain(|known| known.id != link);
        for row in self.rows.values_mut() {
            row.leaves(link);
        }
        self.tick(log, now);
    }

    /// A link is connected, and goes on behind what the log has, at the latest.
    pub fn up(&mut self, link: LinkId) {
        if let Some(link) = self.links.iter_mut().find(|known| known.id == link) {
            link.is_up = true;
        }
        for row in self.rows.values_mut() {
            row.begins(link);
        }
    }

    /// A link is not connected any more: nothing is to be expected from it.
    pub fn down(&mut self, log: &EventLog, link: LinkId, now: Instant) {
        if let Some(link) = self.links.iter_mut().find(|known| known.id == link) {
            link.is_up = false;
        }
        self.tick(log, now);
    }

    /// A link leads through these instances, so it may bring what begins there.
    pub fn leads_through(&mut self, link: LinkId, path: Vec<Origin>) {
        for origin in &path {
            if let Some(row) = self.rows.get_mut(origin) {
                row.is_carried_by(link);
            }
        }
        if let Some(link) = self.links.iter_mut().find(|known| known.id == link) {
            link.path = path;
        }
    }

    /// An event has come. Whether it was not here.
    pub fn relay(
        &mut self,
        log: &EventLog,
        (link, way): (LinkId, Way),
        event: Event,
        gap: Option<Gap>,
        now: Instant,
    ) -> bool {
        let id = event.id;
        if id.origin == log.origin() {
            return false;
        }
        let is_noticed = gap.is_some() && !id.origin.counts();
        let row = self.row(log, id.origin);
        if row.last().is_none()
            && let Some(after) = gap.as_ref().and_then(|gap| gap.by_number(id))
        {
            // The first that comes of an origin, and more has been before it.
            row.advance(after);
        }
        let Brought { is_new, hole } = row.note(link, id.seq);
        if is_new && row.is_next(id.seq) && !is_noticed {
            row.advance(id.seq);
            let waiting = Waiting {
                event,
                gap,
                way,
                link,
            };
            self.count_hole(link, hole);
            self.deliver(log, waiting);
            return true;
        }
        if is_new {
            let cost = cost(&event);
            let waiting = Waiting {
                event,
                gap,
                way,
                link,
            };
            let until = now.checked_add(self.wait);
            // Longer than clocks can tell is until somebody else has passed.
            let until = until.unwrap_or(now + Duration::from_secs(1 << 30));
            let row = self.row(log, id.origin);
            row.hold(id.seq, waiting, is_noticed, until);
            self.held += 1;
            self.bytes += cost;
            if !self.holding.contains(&id.origin) {
                self.holding.push(id.origin);
            }
        } else if gap.is_none()
            && let Some(waiting) = self.row(log, id.origin).is_whole(id.seq)
            && !id.origin.counts()
        {
            waiting.gap = None;
        }
        if hole == Hole::Open {
            self.row(log, id.origin).has_missed(link, id.seq);
        }
        self.count_hole(link, hole);
        self.settle(log, id.origin, now);
        while self.is_over() {
            self.give_up_oldest(log, now);
        }
        is_new
    }

    /// How far a link has come in the row of an origin, to be looked at without a lock.
    pub fn marks(&mut self, log: &EventLog, link: LinkId, origin: Origin) -> Marks {
        self.row(log, origin).is_carried_by(link)
    }

    /// The log has been given events in another way.
    pub fn refresh(&mut self, log: &EventLog, now: Instant) {
        for (origin, row) in &mut self.rows {
            if let Some(last) = log.last_of(*origin) {
                row.advance(last);
            }
        }
        self.tick(log, now);
    }

    /// When there will be something to do, if nothing comes.
    pub fn deadline(&self) -> Option<Instant> {
        let holding = self.holding.iter();
        let deadlines = holding.filter_map(|origin| self.rows.get(origin)?.deadline());
        deadlines.min()
    }

    /// Lets go of what need not wait any more.
    pub fn tick(&mut self, log: &EventLog, now: Instant) {
        for origin in self.holding.clone() {
            self.settle(log, origin, now);
        }
    }

    /// From now on nothing is held, and nothing that is.
    pub fn close(&mut self, log: &EventLog, now: Instant) {
        self.wait = Duration::ZERO;
        while !self.holding.is_empty() {
            self.give_up_oldest(log, now);
        }
    }

    fn row(&mut self, log: &EventLog, origin: Origin) -> &mut Row<Waiting> {
        if self.rows.len() >= MAX_ROWS && !self.rows.contains_key(&origin) {
            self.rows.retain(|_, row| row.holds());
        }
        let links = &self.links;
        self.rows.entry(origin).or_insert_with(|| {
            let mut row = Row::new(origin.counts(), log.last_of(origin));
            let carriers = links.iter().filter(|link| link.path.contains(&origin));
            for link in carriers {
                row.is_carried_by(link.id);
            }
            row
        })
    }

    fn settle(&mut self, log: &EventLog, origin: Origin, now: Instant) {
        while self.release(log, origin, now, false) {}
    }

    /// Hands one event of an origin on, if it is its turn. Whether it was.
    fn release(&mut self, log: &EventLog, origin: Origin, now: Instant, by_force: bool) -> bool {
        let Some(row) = self.rows.get_mut(&origin) else {
            return false;
        };
        let links = &self.links;
        let is_up = |id| links.iter().any(|link| link.id == id && link.is_up);
        let Some(released) = row.release(now, is_up, by_force) else {
            return false;
        };
        if !row.holds() {
            self.holding.retain(|holding| *holding != origin);
        }
        self.held -= 1;
        self.bytes -= cost(&released.thing.event);
        if !released.is_behind_hole {
            for link in released.missed {
                self.count(link, Figures::filled);
            }
        }
        let mut waiting = released.thing;
        if released.missing > 0 && waiting.gap.is_none() {
            // The log knows as much by the number, unless it is the first that it gets of this origin.
            waiting.gap = Some(Gap {
                after: None,
                next: Some(waiting.event.id),
                lost: Some(released.missing),
            });
        }
        self.deliver(log, waiting);
        true
    }

    fn is_over(&self) -> bool {
        self.held > MAX_HELD || self.held > 0 && self.bytes > self.most_bytes
    }

    /// Calls the hole a gap that has been open for longest.
    fn give_up_oldest(&mut self, log: &EventLog, now: Instant) {
        let deadline = |origin: &&Origin| self.rows.get(origin).and_then(Row::deadline);
        if let Some(&origin) = self.holding.iter().min_by_key(deadline) {
            self.release(log, origin, now, true);
            self.settle(log, origin, now);
        }
    }

    fn deliver(&self, log: &EventLog, waiting: Waiting) {
        // It may have come in another way meanwhile.
        if log.relay_by(waiting.way, waiting.event, waiting.gap) {
            self.count(waiting.link, |figures| figures.won(event::now()));
        }
    }

    fn count_hole(&self, link: LinkId, hole: Hole) {
        if hole != Hole::None {
            self.count(link, Figures::skipped);
        }
        if hole == Hole::Filled {
            self.count(link, Figures::filled);
        }
    }

    fn count(&self, link: LinkId, count: impl FnOnce(&Figures)) {
        if let Some(link) = self.links.iter().find(|known| known.id == link) {
            count(&link.figures);
        }
    }
}

#[cfg(test)]
mod tests;
