//! The way into a log for what several links bring: the first copy of each event counts, and what one link has skipped is waited for
//! as long as another may bring it.
//!
//! ```text
//!   link ──► Inflow ─┐                 a hole: held, until another link
//!   link ──► Inflow ─┴─► Merge: Rows ──► fills it, or has passed it too,    ──► EventLog
//!                         one an origin   or is gone, or time is up
//! ```
//!
//! Where there is one link, there is nothing of this: events go to the log directly.

pub mod figures;
pub mod row;
pub mod rows;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{EventLog, Way};
use crate::event::{Event, EventId, Gap, NewEvent, Origin};
use figures::Figures;
use row::{LinkId, Marks};
use rows::Rows;

/// A link's copies are looked at for how late they are so often at most.
const SAMPLED: Duration = Duration::from_millis(100);

/// How what several links bring is merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// How long a hole is left open for another link to fill it.
    pub gap_wait: Duration,
}

impl Terms {
    /// If nothing is said.
    pub const GAP_WAIT: Duration = Duration::from_millis(250);
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            gap_wait: Self::GAP_WAIT,
        }
    }
}

/// What the links into one log have in common.
pub struct Merge {
    log: Arc<EventLog>,
    /// Where there are several.
    several: Option<Box<Several>>,
}

struct Several {
    /// Comes before the log's own lock, and never the other way round.
    state: Mutex<State>,
    /// There is something to wait for that the task does not know of.
    changed: Notify,
    is_tended: AtomicBool,
}

struct State {
    rows: Rows,
    /// When the task wakes.
    alarm: Option<Instant>,
}

/// The way into a log of one source.
#[derive(Clone)]
pub struct Inflow {
    merge: Arc<Merge>,
    way: Way,
    seat: Option<Arc<Seat>>,
}

/// The place of a link among several; gone with the last who knows it.
struct Seat {
    merge: Arc<Merge>,
    link: LinkId,
    figures: Arc<Figures>,
    /// When it was last looked at how late it is.
    sampled: Mutex<Option<Instant>>,
}

impl Merge {
    /// For the one link into `log`. If there are more, what they bring is taken as it comes.
    pub fn new(log: Arc<EventLog>) -> Arc<Self> {
        Arc::new(Self { log, several: None })
    }

    /// For several links. Somebody has to [tend](Self::tend) it, or to call [`tick`](Self::tick) at each [`deadline`](Self::deadline).
    pub fn of_several(log: Arc<EventLog>, terms: &Terms) -> Arc<Self> {
        let rows = Rows::new(terms.gap_wait, log.capacity());
        let several = Several {
            state: Mutex::new(State { rows, alarm: None }),
            changed: Notify::new(),
            is_tended: AtomicBool::new(false),
        };
        Arc::new(Self {
            log,
            several: Some(Box::new(several)),
        })
    }

    /// Whether they lead there.
    pub fn leads_to(&self, log: &Arc<EventLog>) -> bool {
        Arc::ptr_eq(&self.log, log)
    }

    /// The way of the source with this number; events that come from a peer are not for other peers.
    pub fn inflow(self: &Arc<Self>, number: usize, is_from_peer: bool) -> Inflow {
        let seat = self.several.as_ref().map(|several| {
            let figures = Arc::<Figures>::default();
            let link = several.lock().rows.enter(figures.clone());
            Arc::new(Seat {
                merge: self.clone(),
                link,
                figures,
                sampled: Mutex::default(),
            })
        });
        Inflow {
            merge: self.clone(),
            way: Way {
                is_from_peer,
                ..Way::of(number)
            },
            seat,
        }
    }

    /// When something that is held has waited long enough, if anything is.
    pub fn deadline(&self) -> Option<Instant> {
        self.several.as_ref()?.lock().rows.deadline()
    }

    /// Lets go of what has waited long enough.
    pub fn tick(&self, now: Instant) {
        if let Some(several) = &self.several {
            several.lock().rows.tick(&self.log, now);
        }
    }

    /// Does so in time, as one of `tasks`, until `stop` is cancelled; from then on nothing is held. Once is enough; where there is
    /// one link there is no task.
    pub fn tend(self: &Arc<Self>, stop: CancellationToken, tasks: &TaskTracker) {
        let Some(several) = &self.several else { return };
        if !several.is_tended.swap(true, Ordering::AcqRel) {
            let merge = self.clone();
            tasks.spawn(async move {
                if let Some(several) = &merge.several {
                    stop.run_until_cancelled(several.keep_time(&merge.log))
                        .await;
                    let now = Instant::now();
                    several.lock().rows.close(&merge.log, now);
                }
            });
        }
    }
}

impl Several {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something to the rows, and sees to it that the task knows how long to wait.
    fn with<T>(&self, act: impl FnOnce(&mut Rows) -> T) -> T {
        let mut state = self.lock();
        let done = act(&mut state.rows);
        let deadline = state.rows.deadline();
        let is_sooner = deadline.is_some_and(|deadline| {
            let alarm = state.alarm;
            alarm.is_none_or(|alarm| deadline < alarm)
        });
        if is_sooner {
            state.alarm = deadline;
            drop(state);
            self.changed.notify_one();
        }
        done
    }

    async fn keep_time(&self, log: &EventLog) {
        loop {
            let alarm = self.lock().alarm;
            tokio::select! {
                () = self.changed.notified() => continue,
                () = sleep_until(alarm.unwrap_or_else(Instant::now)), if alarm.is_some() => {}
            }
            let mut state = self.lock();
            state.rows.tick(log, Instant::now());
            state.alarm = state.rows.deadline();
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

    /// Whether what comes is for peers as well, even if one of them has brought it before.
    fn is_for_peers(&self) -> bool {
        !self.is_peer() && self.merge.log.own_local().is_some()
    }

    /// What is counted of this link, where there are several.
    pub fn figures(&self) -> Option<&Arc<Figures>> {
        self.seat.as_ref().map(|seat| &seat.figures)
    }

    /// There is a connection now, and it has been told where to go on.
    pub fn up(&self) {
        self.with(|rows, link| rows.up(link));
    }

    /// There is none any more.
    pub fn down(&self) {
        self.with(|rows, link| rows.down(&self.merge.log, link, Instant::now()));
    }

    /// It leads through these instances.
    pub fn leads_through(&self, path: impl IntoIterator<Item = Origin>) {
        self.with(|rows, link| rows.leads_through(link, path.into_iter().collect()));
    }

    /// An event that has its id. `gap` is what the other side says is missing right before it.
    pub fn relay(&self, event: Event, gap: Option<Gap>) {
        let (log, id) = (&self.merge.log, event.id);
        let Some(seat) = &self.seat else {
            log.relay_by(self.way, event, gap);
            return;
        };
        let (link, now) = ((seat.link, self.way), Instant::now());
        let copy = self.is_for_peers().then(|| (event.clone(), gap.clone()));
        let is_new = self.with(|rows, _| {
            let is_new = rows.relay(log, link, event, gap, now);
            if let Some((event, gap)) = copy.filter(|_| !is_new) {
                log.relay_to_peers(self.way, event, gap);
            }
            is_new
        });
        if is_new == Some(false) {
            seat.has_repeated(id, now);
        }
    }

    /// How far this link has come in the row of an origin, where there are several: for [`Self::repeats`].
    pub fn marks(&self, origin: Origin) -> Option<Marks> {
        if self.is_for_peers() {
            return None;
        }
        self.with(|rows, link| rows.marks(&self.merge.log, link, origin))
    }

    /// Whether this event is a copy that need not be looked at any further: then it has been taken.
    pub fn repeats(&self, marks: &Marks, id: EventId) -> bool {
        let Some(seat) = self.seat.as_ref().filter(|_| marks.pass(id.seq)) else {
            return false;
        };
        seat.has_repeated(id, Instant::now());
        true
    }

    /// An event that has none.
    pub fn append(&self, event: impl Into<NewEvent>, gap: Option<Gap>) -> EventId {
        self.merge.log.append_by(self.way, event, gap)
    }

    /// Events from before this log began, oldest first: see [`EventLog::backfill`].
    pub fn backfill(&self, past: impl IntoIterator<Item = Event>) {
        let past: Vec<_> = past.into_iter().collect();
        if past.is_empty() {
            return;
        }
        let backfill = || {
            if let Some(local) = self.merge.log.own_local().filter(|_| !self.is_peer()) {
                local.backfill_by(self.way, past.iter().cloned());
            }
            self.merge.log.backfill_by(self.way, past.iter().cloned());
        };
        self.around(backfill);
    }

    /// An event of the state that the other side keeps: see [`EventLog::adopt`].
    pub fn adopt(&self, event: Event) {
        let adopt = || {
            if let Some(local) = self.merge.log.own_local().filter(|_| !self.is_peer()) {
                local.adopt(event.clone());
            }
            self.merge.log.adopt(event);
        };
        self.around(adopt);
    }

    /// Does something to the log itself, between two events.
    fn around(&self, act: impl FnOnce()) {
        let Some(several) = &self.merge.several else {
            return act();
        };
        several.with(|rows| {
            act();
            rows.refresh(&self.merge.log, Instant::now());
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut Rows, LinkId) -> T) -> Option<T> {
        let (several, seat) = (self.merge.several.as_ref()?, self.seat.as_ref()?);
        Some(several.with(|rows| act(rows, seat.link)))
    }
}

impl Seat {
    /// An event that was here has come on this link, too.
    fn has_repeated(&self, id: EventId, now: Instant) {
        self.figures.repeated();
        let mut sampled = self.sampled.lock().unwrap_or_else(PoisonError::into_inner);
        if sampled.is_some_and(|sampled| now.duration_since(sampled) < SAMPLED) {
            return;
        }
        if let Some(since) = self.merge.log.since_of(id) {
            *sampled = Some(now);
            self.figures
                .lagged(crate::event::now().saturating_sub(since));
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(several) = &self.merge.several {
            let (log, link) = (&self.merge.log, self.link);
            several.with(|rows| rows.leave(log, link, Instant::now()));
        }
    }
}
