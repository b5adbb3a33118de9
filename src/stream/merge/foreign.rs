//! What several feeds bring whose events have no ids: the same event is recognised by a number that it bears, or by what it is, and the
//! first copy gets an id here. No I/O, and no clock of its own.
//!
//! What such a feed has sent while there was no connection to it, nobody knows. But where another link was up all the while, nothing is
//! missing; so a gap is told only if there was a moment without any, and numbers do not say better.

pub mod number;
mod numbers;
mod window;

use std::hash::{BuildHasher, RandomState};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::debug;

use super::figures::Figures;
use super::row::{Hole, LinkId};
use super::rows::most_bytes;
use crate::event::{self, EventId, Gap, NewEvent};
use crate::stream::retained::key::Pointer;
use crate::stream::{EventLog, Way};
use number::Number;
use numbers::Numbers;
use window::Window;

/// How events without ids are recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dedup {
    /// By a number in the payload, which is JSON.
    Number(Pointer),
    /// By what they are.
    Hash,
}

impl FromStr for Dedup {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("json:")) {
            ("hash", _) => Ok(Self::Hash),
            (_, Some(pointer)) => pointer.parse().map(Self::Number),
            _ => Err("json:/POINTER is expected, such as json:/seq, or hash".to_owned()),
        }
    }
}

/// Reads what events are recognised by.
pub struct Signs {
    dedup: Dedup,
    hashes: RandomState,
}

/// What an event is recognised by.
#[derive(Debug, Clone, Copy)]
pub struct Sign {
    number: Option<Number>,
    hash: u64,
}

impl Signs {
    /// Of events that are recognised so.
    pub fn new(dedup: Dedup) -> Self {
        Self {
            dedup,
            hashes: RandomState::new(),
        }
    }

    /// That of an event.
    pub fn of(&self, event: &NewEvent) -> Sign {
        let NewEvent {
            event_type,
            key,
            payload,
        } = event;
        let is_text = payload.kind == event::Kind::Text;
        let hash = self
            .hashes
            .hash_one((event_type, key, is_text, &payload.bytes));
        let number = match &self.dedup {
            Dedup::Hash => None,
            Dedup::Number(pointer) => {
                let number = Number::find(pointer, payload);
                if number.is_none() {
                    let bytes = payload.bytes.len();
                    debug!(bytes, "event without the number of --dedup: not recognised");
                }
                number
            }
        };
        Sign { number, hash }
    }
}

/// What has come of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is in the log.
    New(EventId),
    /// It is going to be.
    Held,
    /// It was here; since when, if that is known.
    Copy(Option<Instant>),
}

/// Where feeds meet.
pub struct Foreign {
    how: How,
    links: Links,
    /// Whether there has been a connection, to this process.
    has_met: bool,
    missed: Missed,
}

enum How {
    Numbers(Box<Numbers>),
    Window(Window),
}

/// What is to be told as missing with the next event, if anything is: how many, if that is known.
type Missed = Option<Option<u64>>;

/// The links, as far as they are feeds.
#[derive(Default)]
struct Links(Vec<Link>);

struct Link {
    id: LinkId,
    is_up: bool,
    figures: Arc<Figures>,
}

/// An event that has come, or waits for what is missing before it.
struct Waiting {
    event: NewEvent,
    gap: Option<Gap>,
    way: Way,
    link: LinkId,
}

/// The way out, into the log.
struct Outlet<'a> {
    log: &'a EventLog,
    links: &'a Links,
    missed: &'a mut Missed,
}

impl Foreign {
    /// Nothing has come yet. A hole is left open for so long; `history` is how many bytes the log may hold.
    pub fn new(dedup: &Dedup, wait: Duration, history: usize) -> Self {
        Self {
            how: match dedup {
                Dedup::Number(_) => How::Numbers(Box::new(Numbers::new(wait, most_bytes(history)))),
                Dedup::Hash => How::Window(Window::default()),
            },
            links: Links::default(),
            has_met: false,
            missed: None,
        }
    }

    /// There is one more link, which is not connected yet, and may turn out to be none to a feed.
    pub fn enter(&mut self, id: LinkId, figures: Arc<Figures>) {
        self.links.0.push(Link {
            id,
            is_up: false,
            figures,
        });
    }

    /// A link is no more.
    pub fn leave(&mut self, log: &EventLog, link: LinkId, now: Instant) {
        self.down(log, link, now);
        self.links.0.retain(|known| known.id != link);
        match &mut self.how {
            How::Numbers(numbers) => numbers.leaves(link),
            How::Window(window) => window.leaves(link),
        }
    }

    /// A connection to a feed begins. `misses` says that there has been one before, and what was sent meanwhile does not come.
    pub fn begins(&mut self, link: LinkId, misses: bool) {
        if misses && !self.has_met {
            // To another process, that was here before this one.
            self.missed = Some(None);
        }
        match &mut self.how {
            How::Numbers(numbers) => numbers.begins(link),
            How::Window(window) => window.begins(link),
        }
    }

    /// From here on it brings what is sent. `resumes` says that it also brings what was sent since it was last there.
    pub fn up(&mut self, link: LinkId, resumes: bool) {
        self.has_met = true;
        if resumes {
            self.missed = None;
        }
        if let Some(link) = self.links.get_mut(link) {
            link.is_up = true;
        }
    }

    /// A link is not connected any more.
    pub fn down(&mut self, log: &EventLog, link: LinkId, now: Instant) {
        let Some(link) = self.links.get_mut(link).filter(|link| link.is_up) else {
            return;
        };
        link.is_up = false;
        if !self.links.0.iter().any(|link| link.is_up) {
            self.missed = Some(None);
        }
        if let How::Numbers(numbers) = &mut self.how {
            numbers.ends();
        }
        self.tick(log, now);
    }

    /// An event has come.
    pub fn take(
        &mut self,
        log: &EventLog,
        (link, way): (LinkId, Way),
        (event, sign): (NewEvent, Sign),
        gap: Option<Gap>,
        now: Instant,
    ) -> Taken {
        self.has_met = true;
        let waiting = Waiting {
            event,
            gap,
            way,
            link,
        };
        let mut out = Outlet {
            log,
            links: &self.links,
            missed: &mut self.missed,
        };
        match (&mut self.how, sign.number) {
            (How::Numbers(numbers), Some(number)) => {
                numbers.take(&mut out, (number, sign.hash), waiting, now)
            }
            (How::Numbers(numbers), None) => {
                // What is missing is told where numbers could say better, if there are any.
                let missed = out.missed.take_if(|_| numbers.have_begun());
                let id = out.deliver(waiting, false);
                *out.missed = missed;
                Taken::New(id)
            }
            (How::Window(window), _) => match window.take(link, sign.hash, now) {
                Some(since) => Taken::Copy(Some(since)),
                None => Taken::New(out.deliver(waiting, false)),
            },
        }
    }

    /// When there will be something to do, if nothing comes.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.how {
            How::Numbers(numbers) => numbers.deadline(),
            How::Window(_) => None,
        }
    }

    /// Lets go of what need not wait any more.
    pub fn tick(&mut self, log: &EventLog, now: Instant) {
        self.with_numbers(log, |numbers, out| numbers.tick(out, now));
    }

    /// From now on nothing is held, and nothing that is.
    pub fn close(&mut self, log: &EventLog) {
        self.with_numbers(log, |numbers, out| numbers.close(out));
    }

    fn with_numbers(&mut self, log: &EventLog, act: impl FnOnce(&mut Numbers, &mut Outlet<'_>)) {
        let mut out = Outlet {
            log,
            links: &self.links,
            missed: &mut self.missed,
        };
        if let How::Numbers(numbers) = &mut self.how {
            act(numbers, &mut out);
        }
    }
}

impl Links {
    fn get_mut(&mut self, link: LinkId) -> Option<&mut Link> {
        self.0.iter_mut().find(|known| known.id == link)
    }

    fn is_up(&self, link: LinkId) -> bool {
        self.0.iter().any(|known| known.id == link && known.is_up)
    }

    fn count(&self, link: LinkId, count: impl FnOnce(&Figures)) {
        if let Some(link) = self.0.iter().find(|known| known.id == link) {
            count(&link.figures);
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
}

impl Waiting {
    /// In bytes.
    fn cost(&self) -> usize {
        self.event.payload.bytes.len() + size_of::<Self>()
    }
}

impl Outlet<'_> {
    /// So many more are missing before the next event.
    fn miss(&mut self, count: u64) {
        if count > 0 {
            *self.missed = match *self.missed {
                Some(before) => Some(before.map(|before| before.saturating_add(count))),
                None => Some(Some(count)),
            };
        }
    }

    /// Whatever was to be told: it is known now that nothing is missing.
    fn nothing_missed(&mut self) {
        *self.missed = None;
    }

    /// Hands an event to the log. `is_known` says that what is missing before it is known, whatever its link says.
    fn deliver(&mut self, waiting: Waiting, is_known: bool) -> EventId {
        let Waiting {
            event,
            gap,
            way,
            link,
        } = waiting;
        let missed = self.missed.take().map(|lost| Gap {
            after: self.log.last().map(|id| id.to_string().into()),
            next: None,
            lost,
        });
        let gap = missed.or(gap.filter(|_| !is_known));
        self.links.count(link, |it| it.won(event::now()));
        self.log.append_by(way, event, gap)
    }
}

#[cfg(test)]
mod tests;
