//! The way into a log for what several links bring: the first copy of each event counts.

use std::sync::Arc;

use super::{EventLog, Way};
use crate::event::{Event, EventId, Gap, NewEvent};

/// What the links into one log have in common.
pub struct Merge {
    log: Arc<EventLog>,
}

/// The way into a log of one source.
#[derive(Clone)]
pub struct Inflow {
    merge: Arc<Merge>,
    way: Way,
}

impl Merge {
    /// For the links into `log`.
    pub fn new(log: Arc<EventLog>) -> Arc<Self> {
        Arc::new(Self { log })
    }

    /// Whether they lead there.
    pub fn leads_to(&self, log: &Arc<EventLog>) -> bool {
        Arc::ptr_eq(&self.log, log)
    }

    /// The way of the source with this number; events that come from a peer are not for other peers.
    pub fn inflow(self: &Arc<Self>, number: usize, is_from_peer: bool) -> Inflow {
        Inflow {
            merge: self.clone(),
            way: Way {
                is_from_peer,
                ..Way::of(number)
            },
        }
    }
}

impl Inflow {
    /// Where it leads.
    pub fn log(&self) -> &EventLog {
        &self.merge.log
    }

    /// Whether it comes from a peer.
    pub fn is_peer(&self) -> bool {
        self.way.is_from_peer
    }

    /// The source will tell the past of the stream, once it is connected.
    pub fn expect_past(&self) {
        match self.is_peer() {
            true => self.merge.log.expect_past_of_peer(),
            false => self.merge.log.expect_past(),
        }
    }

    /// It has, or cannot be expected to any more.
    pub fn past_is_settled(&self) {
        match self.is_peer() {
            true => self.merge.log.past_of_peer_is_settled(),
            false => self.merge.log.past_is_settled(),
        }
    }

    /// There is a connection now, and it has been told where to go on.
    pub fn up(&self) {}

    /// There is none any more.
    pub fn down(&self) {}

    /// An event that has its id. `gap` is what the other side says is missing right before it.
    pub fn relay(&self, event: Event, gap: Option<Gap>) {
        self.merge.log.relay_by(self.way, event, gap);
    }

    /// An event that has none.
    pub fn append(&self, event: impl Into<NewEvent>, gap: Option<Gap>) -> EventId {
        self.merge.log.append_by(self.way, event, gap)
    }

    /// Events from before this log began, oldest first: see [`EventLog::backfill`].
    pub fn backfill(&self, past: impl IntoIterator<Item = Event>) {
        let past: Vec<_> = past.into_iter().collect();
        if let Some(local) = self.merge.log.own_local().filter(|_| !self.is_peer()) {
            local.backfill_by(self.way, past.iter().cloned());
        }
        self.merge.log.backfill_by(self.way, past);
    }

    /// An event of the state that the other side keeps: see [`EventLog::adopt`].
    pub fn adopt(&self, event: Event) {
        if let Some(local) = self.merge.log.own_local().filter(|_| !self.is_peer()) {
            local.adopt(event.clone());
        }
        self.merge.log.adopt(event);
    }
}
