//! Subscribers that want more than history holds, where a bus keeps more: each has a reader of its own, which brings it page by page what
//! is kept, until it has got so far that the log goes on from there. Then it is a subscriber like any other.
//!
//! That works where all that is in the log comes from one bus: its order is the bus's, so what follows an event there follows it here.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::figures::Figures;
use super::{Arrival, Begin, Bus, Reader};
use crate::event::{Event, EventId, Gap, Origin};
use crate::source::presence::Named;
use crate::stream::join::{Joined, Resumed, Wish};
use crate::stream::{EventLog, Subscription, hole};
use crate::wire::Format;

/// So many readers at once may go through what a stream's bus keeps. Each is a connection to it, and some pages of a MiB.
const MOST_READERS: usize = 16;
/// For so long nothing comes at the end of what is kept.
const QUIET: Duration = Duration::from_secs(1);
/// How long somebody waits until it is his turn, and for the bus to find the place. Then there is what history holds.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is kept of a stream beyond its history.
pub struct Archive {
    bus: Arc<Bus>,
    /// What comes from there into the log.
    figures: Arc<Figures>,
    readers: Arc<Semaphore>,
}

/// A way through it, for one subscriber.
pub struct Deep {
    bus: Arc<Bus>,
    figures: Arc<Figures>,
    reader: Box<dyn Reader>,
    log: Arc<EventLog>,
    format: Format,
    /// The largest payload that is in the log, in bytes.
    most: usize,
    /// Of each origin the last number: what is kept twice is told once, as by the log.
    last: HashMap<Origin, u64>,
    /// The last event that it has brought.
    behind: Option<EventId>,
    /// What is missing before the next one, and how many if that is known.
    missing: Option<Option<u64>>,
    arrivals: Vec<Arrival>,
    _turn: OwnedSemaphorePermit,
}

/// What comes next.
pub enum Step {
    /// Frames.
    Frames(Bytes),
    /// The log, from here on.
    Join(Subscription),
}

impl Archive {
    /// What `bus` keeps, which the log is from: `figures` are those of what comes from there.
    pub fn new(bus: Bus, figures: Arc<Figures>) -> Self {
        Self {
            bus: Arc::new(bus),
            figures,
            readers: Arc::new(Semaphore::new(MOST_READERS)),
        }
    }

    /// The way to where `wish` leads, if that is beyond what `log` holds, and how far it can be met then, in `joined`.
    pub async fn reach(
        &self,
        log: &Arc<EventLog>,
        format: Format,
        wish: &Wish,
        joined: &mut Joined,
    ) -> Option<Box<Deep>> {
        // State comes first where it is kept; what was before it nobody needs.
        let begin = self.begin(log, wish, joined).filter(|_| !log.retains())?;
        match timeout(PATIENCE, self.open(log, format, begin)).await {
            Ok(Ok(found)) => {
                let (deep, found) = found?;
                joined.resumed = Resumed::Yes;
                joined.before = None;
                joined.backlog = found.count;
                joined.gaps = Vec::new();
                if let (Some(lost), Begin::After(id)) = (found.lost, begin) {
                    joined.resumed = Resumed::Partial;
                    joined.gaps.push(Gap {
                        after: Some(id.to_string().into()),
                        next: None,
                        lost,
                    });
                }
                return Some(Box::new(deep));
            }
            Ok(Err(error)) => {
                let reason = self.bus.reason(&error);
                debug!(bus = %self.bus, reason, "what is kept cannot be read");
            }
            Err(_) => debug!(bus = %self.bus, "what is kept cannot be read in time"),
        }
        // Not all that was wanted.
        if joined.resumed == Resumed::Yes {
            joined.resumed = Resumed::Partial;
        }
        None
    }

    /// Where in what is kept that is; none if the log has it all.
    fn begin(&self, log: &EventLog, wish: &Wish, joined: &Joined) -> Option<Begin> {
        // The first that there ever was.
        let is_first = |id: EventId| !id.origin.counts() && id.seq == 1;
        let holds_all = || log.oldest().is_some_and(is_first);
        match wish {
            Wish::Live => None,
            Wish::All => Some(Begin::First).filter(|_| !holds_all()),
            Wish::Last(count) => {
                Some(Begin::Last(*count)).filter(|_| *count > joined.backlog && !holds_all())
            }
            Wish::After(id) => self.after(id.parse().ok()?, joined),
            // Links say so of each origin; of one it is a place.
            Wish::Beyond { have, .. } => match have[..] {
                [id] => self.after(id, joined),
                _ => None,
            },
        }
    }

    fn after(&self, id: EventId, joined: &Joined) -> Option<Begin> {
        let is_lacking = joined.resumed != Resumed::Yes && self.bus.finds(id.origin);
        is_lacking.then_some(Begin::After(id))
    }

    async fn open(
        &self,
        log: &Arc<EventLog>,
        format: Format,
        begin: Begin,
    ) -> Result<Option<(Deep, super::Begun)>> {
        let turn = self.readers.clone().acquire_owned().await?;
        let mut reader = self.bus.reader();
        reader.connect().await?;
        let Some(begun) = reader.begin(begin).await? else {
            return Ok(None);
        };
        let deep = Deep {
            bus: self.bus.clone(),
            figures: self.figures.clone(),
            reader,
            log: log.clone(),
            format,
            most: self.bus.upstream.max_message_size,
            last: HashMap::new(),
            behind: None,
            missing: None,
            arrivals: Vec::new(),
            _turn: turn,
        };
        Ok(Some((deep, begun)))
    }
}

impl Deep {
    /// Why something has failed, for the log.
    pub fn reason(&self, error: &anyhow::Error) -> String {
        self.bus.reason(error)
    }

    /// Waits for what comes next; an error if that cannot be had any more.
    pub async fn next(&mut self) -> Result<Step> {
        loop {
            if self.arrivals.is_empty() {
                let Self {
                    figures,
                    reader,
                    arrivals,
                    log,
                    behind,
                    format,
                    ..
                } = self;
                let joined = async {
                    match behind {
                        Some(id) => log.join_behind(*format, *id).await,
                        None => std::future::pending().await,
                    }
                };
                let mut joined = pin!(joined);
                let mut reading = pin!(reader.next(arrivals));
                let mut spare = None;
                loop {
                    tokio::select! {
                        // The log first: what is read is not needed any more then, nor is the reader.
                        biased;
                        subscription = &mut joined => return Ok(Step::Join(subscription)),
                        read = &mut reading => {
                            read.context("what is kept cannot be read on")?;
                            break;
                        }
                        // The log does not know the last of what is kept, and there is no more: perhaps that is no event for it. What
                        // comes from here on it will have, if nothing has come to either since, and if it was connected all the while.
                        () = sleep(QUIET) => {
                            let now = figures.counts();
                            match spare.take() {
                                Some((subscription, then)) if then == now => {
                                    return Ok(Step::Join(subscription));
                                }
                                _ if now.connected => spare = Some((log.follow(*format), now)),
                                _ => {}
                            }
                        }
                    }
                }
            }
            let mut frames = Vec::new();
            for arrival in std::mem::take(&mut self.arrivals) {
                self.take(arrival, &mut frames);
            }
            if !frames.is_empty() {
                return Ok(Step::Frames(frames.into()));
            }
        }
    }

    fn take(&mut self, arrival: Arrival, frames: &mut Vec<u8>) {
        match arrival {
            Arrival::Known(event) if event.payload.bytes.len() <= self.most => {
                self.put(&event, frames);
            }
            Arrival::Lost(count) => self.lose(count),
            // What is not in the log either is missing here as it is there.
            Arrival::Known(_)
            | Arrival::Told(..)
            | Arrival::Kept(_)
            | Arrival::New(_)
            | Arrival::Unusable(_) => self.lose(Some(1)),
        }
    }

    fn put(&mut self, event: &Event, frames: &mut Vec<u8>) {
        let id = event.id;
        let before = self.last.insert(id.origin, id.seq);
        if let Some(before) = before.filter(|before| id.seq <= *before) {
            self.last.insert(id.origin, before);
            return;
        }
        let missing = self.missing.take().map(|lost| Gap {
            after: self.behind.map(|id| id.to_string().into()),
            next: Some(id),
            lost,
        });
        // Of an origin that counts, its numbers say it better.
        let hole = before.and_then(|before| hole(before, id));
        let gap = hole.or(missing);
        let mut scratch = Vec::new();
        for part in self.format.encode(event, gap.as_ref(), &mut scratch) {
            frames.extend_from_slice(part);
        }
        self.behind = Some(id);
    }

    fn lose(&mut self, count: Option<u64>) {
        self.missing = Some(match self.missing {
            None => count,
            Some(before) => before.zip(count).map(|(a, b)| a.saturating_add(b)),
        });
    }
}
