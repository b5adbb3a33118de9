//! What is promised to a subscriber, as docs/protocol.md and docs/architecture.md have it, and whether it is kept.
//!
//! - Of each origin, numbers only grow, and no event comes twice. Over a hop link events that the hello covers may come once more
//!   behind it: who reads passes over them by their ids. In a body nothing comes again.
//! - What is missing between two events of an origin is told where it is missing: by a notice that names the event behind it, or one that
//!   covers the numbers between; by a notice in the order of the log, which covers the next event of every origin; or by the answer that
//!   nothing of what the reader has is known there.
//! - The number of lost events, if it is told, is right. Between two events of one origin it says how many numbers there are. In the order
//!   of the log it says how many events of all origins there are, so of what shows to be missing behind it there is not more.
//! - A body whose head says that the id it was to go on behind is not known there begins with the next event, whatever that is.
//! - `next` in the notice that a body begins with is the first event behind it.
//! - Of an origin that a reader has had events of and the hop has never heard of, as it has just started, nobody there can say what is
//!   missing: the number of the first event shows it.
//! - Nothing is said of what was before the first event of an origin that a reader has not heard of.

use std::collections::BTreeMap;

use crate::event::{EventId, Gap, Origin};

/// What a subscriber has and what it was told.
pub struct Knowledge {
    /// Over hop links it says what it has of each origin.
    is_link: bool,
    /// The last event of each origin, over all connections.
    last: BTreeMap<Origin, u64>,
    /// The same on this connection, those included that it had.
    here: BTreeMap<Origin, u64>,
    /// On this connection, and in the order of the log before.
    told: Vec<Told>,
    /// The event that must be next.
    next: Option<EventId>,
    /// Nothing has come on this connection.
    is_fresh: bool,
}

/// A notice.
#[derive(Debug)]
enum Told {
    /// Of these numbers of an origin, the ends not included.
    Between(Origin, u64, u64),
    /// Of any numbers of all origins up to their next events.
    Log {
        /// So many are left of those that are lost, if that was told.
        left: Option<u64>,
        /// Those of which an event has come since.
        passed: Vec<Origin>,
    },
}

impl Knowledge {
    /// Of one that reads hop links.
    pub fn of_links() -> Self {
        Self::new(true)
    }

    /// Of one that reads bodies.
    pub fn of_bodies() -> Self {
        Self::new(false)
    }

    fn new(is_link: bool) -> Self {
        Self {
            is_link,
            last: BTreeMap::new(),
            here: BTreeMap::new(),
            told: Vec::new(),
            next: None,
            is_fresh: true,
        }
    }

    /// A new connection begins.
    pub fn begin(&mut self) {
        self.here.clear();
        // Who goes on in the order of the log behind an event that came behind a notice is not told again what that covers.
        let is_link = self.is_link;
        self.told.retain(
            |told| matches!(told, Told::Log { passed, .. } if !is_link && !passed.is_empty()),
        );
        self.next = None;
        self.is_fresh = true;
    }

    /// The last event of each origin.
    pub fn have(&self) -> Vec<EventId> {
        let have = self.last.iter();
        have.map(|(&origin, &seq)| EventId { origin, seq })
            .collect()
    }

    /// The hop has said that it knows nothing of what this reader has.
    pub fn is_unknown(&mut self) {
        self.told.push(Told::Log {
            left: None,
            passed: Vec::new(),
        });
    }

    /// Takes a notice; an error if it cannot be right.
    pub fn gap(&mut self, gap: &Gap) -> Result<(), String> {
        let after = gap
            .after
            .as_deref()
            .and_then(|id| id.parse::<EventId>().ok());
        if self.is_fresh && !self.is_link {
            self.next = gap.next;
        }
        match (after, gap.next, gap.lost) {
            (Some(after), Some(next), Some(lost)) if after.origin == next.origin => {
                let between = next.seq.checked_sub(after.seq + 1);
                let between = between.ok_or("a gap that ends before it begins")?;
                if lost < between {
                    return Err(format!(
                        "{between} events between {after} and {next}, and {lost} are said to be lost"
                    ));
                }
                self.told
                    .push(Told::Between(next.origin, after.seq, next.seq));
                if lost > between {
                    self.log(Some(lost));
                }
            }
            (Some(after), Some(next), None) if after.origin == next.origin => {
                self.told
                    .push(Told::Between(next.origin, after.seq, next.seq));
                self.log(None);
            }
            (Some(after), None, Some(lost)) if self.is_link => {
                self.told
                    .push(Told::Between(after.origin, after.seq, after.seq + lost + 1));
            }
            (None, Some(next), lost) => {
                self.told.push(Told::Between(next.origin, 0, next.seq));
                if !self.is_link {
                    // Who has skipped a part of the log is not told what was before it, if that is not known any more.
                    self.log(lost);
                }
            }
            (_, _, lost) => self.log(lost),
        }
        Ok(())
    }

    fn log(&mut self, left: Option<u64>) {
        self.told.push(Told::Log {
            left,
            passed: Vec::new(),
        });
    }

    /// Takes an event; whether it is new. An error if a promise is broken. `is_known` says whether the hop knew an origin when
    /// this reader joined.
    pub fn event(
        &mut self,
        id: EventId,
        is_known: impl Fn(Origin) -> bool,
    ) -> Result<bool, String> {
        let EventId { origin, seq } = id;
        self.is_fresh = false;
        if let Some(next) = self.next.take().filter(|next| *next != id) {
            return Err(format!("a notice says that {next} comes next"));
        }
        let here = self.here.insert(origin, seq);
        if let Some(here) = here.filter(|here| *here >= seq) {
            return Err(format!("behind number {here} on the same connection"));
        }
        let last = self.last.get(&origin).copied();
        if let Some(last) = last.filter(|last| *last >= seq) {
            return match self.is_link {
                true => Ok(false),
                false => Err(format!("twice, or behind number {last}")),
            };
        }
        self.last.insert(origin, seq);
        let missing = last.map_or(0, |last| seq - last - 1);
        if missing == 0 || !origin.counts() {
            self.pass(origin);
            return Ok(true);
        }
        let last = last.unwrap_or_default();
        let is_new_there = here.is_none() && !is_known(origin);
        let untold = (last + 1..seq).filter(|seq| {
            let mut told = self.told.iter();
            !told.any(|told| matches!(told, Told::Between(of, after, next) if *of == origin && after < seq && seq < next))
        });
        let untold = untold.count() as u64;
        if untold > 0 && !is_new_there {
            self.told_in_log(origin, untold)?;
        }
        self.pass(origin);
        Ok(true)
    }

    /// Whether so many missing events of an origin are among those that a notice in the order of the log has told of.
    fn told_in_log(&mut self, origin: Origin, missing: u64) -> Result<(), String> {
        let open = self.told.iter_mut().filter_map(|told| match told {
            Told::Log { left, passed } if !passed.contains(&origin) => Some(left),
            _ => None,
        });
        let mut open: Vec<_> = open.collect();
        if open.is_empty() {
            return Err(format!(
                "{missing} before it are missing and nobody has said so"
            ));
        }
        let Some(left) = open.iter().map(|left| **left).sum::<Option<u64>>() else {
            return Ok(());
        };
        if left < missing {
            return Err(format!(
                "{missing} before it are missing, and only {left} were said to be lost"
            ));
        }
        let mut missing = missing;
        for left in open.iter_mut().filter_map(|left| left.as_mut()) {
            let taken = missing.min(*left);
            (*left, missing) = (*left - taken, missing - taken);
        }
        Ok(())
    }

    fn pass(&mut self, origin: Origin) {
        for told in &mut self.told {
            if let Told::Log { passed, .. } = told
                && !passed.contains(&origin)
            {
                passed.push(origin);
            }
        }
        self.told.retain(|told| match told {
            Told::Between(of, _, next) => *of != origin || *next > self.here[&origin],
            Told::Log { .. } => true,
        });
    }
}
