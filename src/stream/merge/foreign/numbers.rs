//! What feeds bring, recognised by a number that it bears: what is not above the last one is a copy.
//!
//! **Holes.** While numbers count up by ones on a link, a number that is skipped is an event that is missing: what is behind it
//! waits for another link, and then it is a gap with its count. A link counts when its score has come to [`COUNTS`] and until it is at 0
//! again: a step of one adds one, up to [`MAX_SCORE`], and a jump takes [`JUMP`] away, from links that are away as well. So a link that
//! loses much says nothing about the feed, and time stamps, that jump on all links, have no holes.
//!
//! **Rows.** A producer that is started again begins anew, so there is a row for each time. The current one and, for a while, the
//! one before are known, and each link is in one of the two:
//!
//! - A link whose number goes back below its own highest within one connection has come to the next row. If there is none, one begins.
//! - What a connection begins with says where it is: in the row that has had this number with this very payload; otherwise, if it
//!   is nearer to the end of the row before, in that one, unless that has had another payload there; otherwise in the
//!   current one, if it is above the last number there.
//! - If it is none of these, it is *in doubt*: a link that lags, or a producer that has begun anew. As long as another link that is
//!   up is in the current row, what it brings is dropped, and when that link goes on it is one that lags, unless it has brought
//!   nothing new when a link goes away. When there is no other in the current row, a row begins, and what has been dropped is told
//!   as a gap.
//! - When a row begins, the other links are in the one before; those in doubt are where their highest number is nearer.
//! - The row before is forgotten after [`LATE`], or when the current one has come as far. Whoever was still there may go back once,
//!   as that is no news.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::super::row::{Brought, Hole, LinkId, Row};
use super::number::Number;
use super::{Outlet, Taken, Waiting};

/// A score from which a link counts.
const COUNTS: u8 = 8;
/// The highest.
const MAX_SCORE: u8 = 16;
/// What a jump takes from it.
const JUMP: u8 = 4;
/// So many numbers are known with their payloads.
const MAX_KNOWN: usize = 10_000;
/// So long a link may be in the row before.
pub const LATE: Duration = Duration::from_secs(60);
/// More events than this are not held.
const MAX_HELD: usize = 10_000;

/// Of each row what is held, and where each link is.
pub struct Numbers {
    wait: Duration,
    most_bytes: usize,
    current: Line,
    before: Option<Before>,
    links: HashMap<LinkId, Place>,
}

/// A row, and what has been in it.
struct Line {
    row: Row<Numbered>,
    /// The number that was released last.
    last: Option<Number>,
    /// The last numbers, with the hashes of their payloads, and when they came.
    known: VecDeque<(Number, u64, Instant)>,
    bytes: usize,
    held: usize,
}

struct Before {
    line: Line,
    /// When it has become that.
    since: Instant,
}

/// When something comes, and until when it may be held.
struct Times {
    now: Instant,
    until: Instant,
}

struct Numbered {
    number: Number,
    hash: u64,
    waiting: Waiting,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    Current,
    Before,
}

/// Where a link is.
#[derive(Default)]
struct Place {
    /// Not known yet, since it was connected.
    row: Option<Which>,
    /// The highest number since it has been there.
    highest: Option<Number>,
    /// So much has been dropped though it may have been new.
    doubted: u64,
    /// It counts as one that lags, as long as nobody who has said so goes away.
    is_vouched_for: bool,
    /// It has not come to where the current row began, as far as is known.
    is_late: bool,
    score: u8,
    counts: bool,
}

impl Place {
    /// What is known of the connection is known no more.
    fn begins(&mut self) {
        *self = Self {
            score: self.score,
            counts: self.counts,
            ..Self::default()
        };
    }

    fn is_in(&mut self, row: Which) {
        (self.row, self.doubted) = (Some(row), 0);
        (self.is_vouched_for, self.is_late) = (false, false);
    }

    /// Whether this number comes after a jump.
    fn jumps_to(&self, number: Number) -> bool {
        let before = self.highest.filter(|highest| *highest < number);
        before.is_some_and(|before| number.distance(before) != (1, 0))
    }

    fn score(&mut self, jumps: bool) {
        self.score = match jumps {
            true => self.score.saturating_sub(JUMP),
            false => MAX_SCORE.min(self.score + 1),
        };
        self.counts = self.score >= COUNTS || self.counts && self.score > 0;
    }
}

impl Numbers {
    /// Nothing has come yet.
    pub fn new(wait: Duration, most_bytes: usize) -> Self {
        Self {
            wait,
            most_bytes,
            current: Line::new([].into_iter()),
            before: None,
            links: HashMap::new(),
        }
    }

    /// There is one more link; or it begins anew.
    pub fn begins(&mut self, link: LinkId) {
        self.links.entry(link).or_default().begins();
        self.current.row.is_carried_by(link);
        self.current.row.begins(link);
        if let Some(before) = &mut self.before {
            before.line.row.begins(link);
        }
    }

    /// A link has gone away. Those that have only lagged behind others may be where a row begins.
    pub fn ends(&mut self) {
        for place in self.links.values_mut() {
            if std::mem::take(&mut place.is_vouched_for) {
                place.row = None;
            }
        }
    }

    /// A link is no more.
    pub fn leaves(&mut self, link: LinkId) {
        self.links.remove(&link);
        self.current.row.leaves(link);
        if let Some(before) = &mut self.before {
            before.line.row.leaves(link);
        }
    }

    /// Whether there has been a number.
    pub fn have_begun(&self) -> bool {
        self.current.last.is_some()
    }

    /// An event has come.
    pub fn take(
        &mut self,
        out: &mut Outlet<'_>,
        (number, hash): (Number, u64),
        waiting: Waiting,
        now: Instant,
    ) -> Taken {
        let link = waiting.link;
        self.forget_before(out, now);
        let Some(which) = self.place(out, link, number, hash, now) else {
            return Taken::Copy(None);
        };
        let goes_on = self.step(out, link, number);
        let counts = self.links.values().any(|place| place.counts);
        if which == Which::Current {
            self.is_alive(out, link);
        }
        let until = now.checked_add(self.wait);
        // Longer than clocks can tell is until somebody else has passed.
        let until = until.unwrap_or(now + Duration::from_secs(1 << 30));
        let (most, times) = (self.most_bytes, Times { now, until });
        let (line, links) = self.line(which);
        if !counts {
            line.let_go(out);
        }
        line.row.counts(counts);
        let is_up = |id| out.links.is_up(id) && links.reach(id, which);
        let numbered = Numbered {
            number,
            hash,
            waiting,
        };
        let taken = line.bring(out, numbered, goes_on, times);
        line.settle(out, &is_up, now, most);
        taken
    }

    /// When there will be something to do, if nothing comes.
    pub fn deadline(&self) -> Option<Instant> {
        let before = self.before.as_ref();
        let before = before.and_then(|before| before.line.row.deadline());
        let current = self.current.row.deadline();
        current.into_iter().chain(before).min()
    }

    /// Lets go of what need not wait any more.
    pub fn tick(&mut self, out: &mut Outlet<'_>, now: Instant) {
        self.forget_before(out, now);
        let most = self.most_bytes;
        for which in [Which::Before, Which::Current] {
            if which == Which::Before && self.before.is_none() {
                continue;
            }
            let (line, links) = self.line(which);
            let is_up = |id| out.links.is_up(id) && links.reach(id, which);
            line.settle(out, &is_up, now, most);
        }
    }

    /// From now on nothing is held, and nothing that is.
    pub fn close(&mut self, out: &mut Outlet<'_>) {
        self.wait = Duration::ZERO;
        if let Some(before) = &mut self.before {
            before.line.let_go(out);
        }
        self.current.let_go(out);
    }

    fn line(&mut self, which: Which) -> (&mut Line, Places<'_>) {
        let line = match (which, &mut self.before) {
            (Which::Before, Some(before)) => &mut before.line,
            _ => &mut self.current,
        };
        (line, Places(&self.links))
    }

    /// A link has come to this number. Whether it goes on behind another one.
    fn step(&mut self, out: &Outlet<'_>, link: LinkId, number: Number) -> bool {
        let place = self.links.entry(link).or_default();
        let (goes_on, jumps) = (place.highest.is_some(), place.jumps_to(number));
        if place.highest.is_some_and(|highest| highest < number) {
            place.score(jumps);
        }
        place.highest = place.highest.max(Some(number));
        if jumps {
            // What counted once may do so no more: those who are away do not see that.
            let others = self.links.iter_mut();
            let away = others.filter(|(id, _)| **id != link && !out.links.is_up(**id));
            away.for_each(|(_, place)| place.score(true));
        }
        goes_on
    }

    /// In which row a link is that brings this; none if that is in doubt.
    fn place(
        &mut self,
        out: &mut Outlet<'_>,
        link: LinkId,
        number: Number,
        hash: u64,
        now: Instant,
    ) -> Option<Which> {
        let place = self.links.entry(link).or_default();
        let Some(row) = place.row else {
            return self.decide(out, link, number, hash, now);
        };
        if place.highest.is_none_or(|highest| highest <= number) {
            if row == Which::Current && self.current.last < Some(number) {
                place.is_in(row);
            }
            return Some(row);
        }
        if row == Which::Current && !place.is_late {
            self.begin(out, link, number, now);
            return Some(Which::Current);
        }
        // It has come to where the current row began.
        place.begins();
        place.is_in(Which::Current);
        self.current.row.begins(link);
        Some(Which::Current)
    }

    fn decide(
        &mut self,
        out: &mut Outlet<'_>,
        link: LinkId,
        number: Number,
        hash: u64,
        now: Instant,
    ) -> Option<Which> {
        let mut row = None;
        let last = self.current.last;
        if self.current.knows(number, hash) == Some(true) {
            // It may still be where a row begins as the one before did.
            return Some(Which::Current);
        }
        if let Some(before) = &self.before
            && let Some(end) = before.line.last
        {
            let is_nearer = last.is_some_and(|last| number.distance(end) < number.distance(last));
            let is_there = before.line.knows(number, hash).unwrap_or(is_nearer);
            row = is_there.then_some(Which::Before);
        }
        if row.is_none() && last.is_none_or(|last| last < number) {
            row = Some(Which::Current);
        }
        let is_current = |(id, place): (&LinkId, &Place)| {
            *id != link && place.row == Some(Which::Current) && out.links.is_up(*id)
        };
        let is_doubtful = row.is_none() && self.links.iter().any(is_current);
        let place = self.links.entry(link).or_default();
        match row {
            Some(row) => place.is_in(row),
            None if is_doubtful => {
                place.doubted += 1;
                place.highest = place.highest.max(Some(number));
                return None;
            }
            None => {
                self.begin(out, link, number, now);
                return Some(Which::Current);
            }
        }
        row
    }

    /// The current row goes on with what this link has brought: others that are in doubt lag behind it.
    fn is_alive(&mut self, out: &Outlet<'_>, link: LinkId) {
        let is_settled = |place: &Place| place.row == Some(Which::Current);
        if !self.links.get(&link).is_some_and(is_settled) || self.links.len() < 2 {
            return;
        }
        for (id, place) in &mut self.links {
            if place.row.is_none() && place.highest.is_some() && out.links.is_up(*id) {
                (place.row, place.is_vouched_for) = (Some(Which::Current), true);
            }
        }
    }

    /// A row begins, with this number.
    fn begin(&mut self, out: &mut Outlet<'_>, link: LinkId, number: Number, now: Instant) {
        if let Some(mut older) = self.before.take() {
            older.line.let_go(out);
        }
        let line = Line::new(self.links.keys().copied());
        let line = std::mem::replace(&mut self.current, line);
        let end = line.last;
        for (id, place) in &mut self.links {
            let (row, highest) = (place.row, place.highest);
            if *id == link {
                out.miss(std::mem::take(&mut place.doubted));
                place.begins();
                place.row = Some(Which::Current);
            } else if let (Some(highest), Some(end)) = (highest, end) {
                let is_old =
                    place.doubted == 0 || highest.distance(end) <= highest.distance(number);
                place.row = match is_old {
                    true => Some(Which::Before),
                    false => row.map(|_| Which::Current),
                };
                place.is_late = false;
            }
        }
        self.before = Some(Before { line, since: now });
    }

    /// Forgets the row before, when it is time.
    fn forget_before(&mut self, out: &mut Outlet<'_>, now: Instant) {
        let is_over = |before: &mut Before| {
            now.duration_since(before.since) > LATE || self.current.last >= before.line.last
        };
        let Some(mut before) = self.before.take_if(is_over) else {
            return;
        };
        before.line.let_go(out);
        for place in self.links.values_mut() {
            if place.row == Some(Which::Before) {
                place.begins();
                place.is_late = true;
            }
        }
    }
}

/// Where links are.
struct Places<'a>(&'a HashMap<LinkId, Place>);

impl Places<'_> {
    /// Whether a link may still bring something of this row: those in the row before will come to the current one.
    fn reach(&self, link: LinkId, which: Which) -> bool {
        let row = self.0.get(&link).and_then(|place| place.row);
        which == Which::Current || row == Some(Which::Before)
    }
}

impl Line {
    fn new(links: impl Iterator<Item = LinkId>) -> Self {
        let mut row = Row::new(false, None);
        links.for_each(|link| drop(row.is_carried_by(link)));
        Self {
            row,
            last: None,
            known: VecDeque::new(),
            bytes: 0,
            held: 0,
        }
    }

    /// Whether this number was here with this payload; unknown if it was not, or long ago.
    fn knows(&self, number: Number, hash: u64) -> Option<bool> {
        let at = self.known.partition_point(|(known, ..)| *known < number);
        let (known, payload, _) = self.known.get(at)?;
        (*known == number).then_some(*payload == hash)
    }

    /// When this number was here.
    fn since(&self, number: Number) -> Option<Instant> {
        let at = self.known.partition_point(|(known, ..)| *known < number);
        let (known, _, since) = self.known.get(at)?;
        (*known == number).then_some(*since)
    }

    /// Takes what a link has brought. `goes_on` says that the link has brought what was before, too.
    fn bring(
        &mut self,
        out: &mut Outlet<'_>,
        numbered: Numbered,
        goes_on: bool,
        Times { now, until }: Times,
    ) -> Taken {
        let (number, link) = (numbered.number, numbered.waiting.link);
        // Rows begin at 1.
        let place = number.whole + 1;
        let is_between = self.row.last() == Some(place)
            && self.last.is_some_and(|last| last < number)
            && !self.row.holds();
        let Brought { is_new, hole } = self.row.note(link, place);
        let is_next = is_between || is_new && self.row.is_next(place);
        // By the numbers nothing is missing, or it would be behind a hole.
        let is_whole = goes_on || self.row.tells() && self.last.is_some();
        let taken = match (is_next, is_new) {
            (true, _) => {
                self.row.advance(place);
                Taken::New(self.deliver(out, numbered, 0, is_whole, now))
            }
            (false, true) => {
                self.bytes += numbered.waiting.cost();
                self.held += 1;
                self.row.hold(place, numbered, false, until);
                Taken::Held
            }
            (false, false) => Taken::Copy(self.since(number)),
        };
        if hole == Hole::Open {
            self.row.has_missed(link, place);
        }
        out.links.count_hole(link, hole);
        taken
    }

    fn deliver(
        &mut self,
        out: &mut Outlet<'_>,
        numbered: Numbered,
        missing: u64,
        is_whole: bool,
        now: Instant,
    ) -> crate::event::EventId {
        let Numbered {
            number,
            hash,
            waiting,
        } = numbered;
        self.last = Some(number);
        if self.known.len() == MAX_KNOWN {
            self.known.pop_front();
        }
        self.known.push_back((number, hash, now));
        match (missing, is_whole) {
            (0, true) => out.nothing_missed(),
            (0, false) => {}
            (missing, _) => {
                out.nothing_missed();
                out.miss(missing);
            }
        }
        out.deliver(waiting, is_whole || missing > 0)
    }

    fn settle(
        &mut self,
        out: &mut Outlet<'_>,
        is_up: &impl Fn(LinkId) -> bool,
        now: Instant,
        most_bytes: usize,
    ) {
        while self.release(out, is_up, now, false) {}
        while self.held > MAX_HELD || self.held > 0 && self.bytes > most_bytes {
            self.release(out, is_up, now, true);
            while self.release(out, is_up, now, false) {}
        }
    }

    /// Hands on all that is held.
    fn let_go(&mut self, out: &mut Outlet<'_>) {
        while self.release(out, &|_| false, Instant::now(), true) {}
    }

    /// Hands on the next of what is held, if it is its turn. Whether it was.
    fn release(
        &mut self,
        out: &mut Outlet<'_>,
        is_up: &impl Fn(LinkId) -> bool,
        now: Instant,
        by_force: bool,
    ) -> bool {
        let Some(released) = self.row.release(now, is_up, by_force) else {
            return false;
        };
        self.held -= 1;
        self.bytes -= released.thing.waiting.cost();
        if !released.is_behind_hole {
            for link in released.missed {
                out.links.count(link, super::Figures::filled);
            }
        }
        self.deliver(out, released.thing, released.missing, true, now);
        true
    }
}
