//! The way into a log for what several links bring: the first copy of each event counts, and what one link has skipped is waited for
//! as long as another may bring it.
//!
//! ```text
//!   link ──► Inflow ─┐                 a hole: held, until another link
//!   link ──► Inflow ─┴─► Merge: Rows ──► fills it, or has passed it too,    ──► EventLog
//!                         one an origin   or is gone, or time is up
//! ```
//!
//! What has no ids is recognised in another way, if that is wanted: see [`foreign`].
//!
//! Where there is one link, there is nothing of this: events go to the log directly.

pub mod figures;
pub mod foreign;
pub mod row;
pub mod rows;

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{Carrier, EventLog, Way};
use crate::event::{Event, EventId, Gap, NewEvent, Origin};
use figures::Figures;
use foreign::{Dedup, Foreign, Signs, Taken};
use row::{LinkId, Marks};
use rows::Rows;

/// A link's copies are looked at for how late they are so often at most.
const SAMPLED: Duration = Duration::from_millis(100);

/// How what several links bring is merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// How long a hole is left open for another link to fill it.
    pub gap_wait: Duration,
    /// How events that have no ids are recognised, if they are.
    pub dedup: Option<Dedup>,
}

impl Terms {
    /// If nothing is said.
    pub const GAP_WAIT: Duration = Duration::from_millis(250);
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            gap_wait: Self::GAP_WAIT,
            dedup: None,
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
    /// What events without ids are recognised by, if they are.
    signs: Option<Signs>,
    /// There is something to wait for that the task does not know of.
    changed: Notify,
    is_tended: AtomicBool,
}

struct State {
    rows: Rows,
    /// What has no ids, if it is recognised.
    foreign: Option<Foreign>,
    /// When the task wakes.
    alarm: Option<Instant>,
}

/// The way into a log of one source.
#[derive(Clone)]
pub struct Inflow {
    merge: Arc<Merge>,
    way: Way,
    /// What carries them at the moment: a [`Carrier`], by its place.
    carrier: Arc<AtomicU8>,
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

    /// For several links. Somebody has to await [what tends it](Self::tending), or to call [`tick`](Self::tick) at each [`deadline`](Self::deadline).
    pub fn of_several(log: Arc<EventLog>, terms: &Terms) -> Arc<Self> {
        let (wait, capacity) = (terms.gap_wait, log.capacity());
        let foreign = terms.dedup.as_ref();
        let state = State {
            rows: Rows::new(wait, capacity),
            foreign: foreign.map(|dedup| Foreign::new(dedup, wait, capacity)),
            alarm: None,
        };
        let several = Several {
            state: Mutex::new(state),
            signs: terms.dedup.clone().map(Signs::new),
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
            let link = several.lock().enter(&figures);
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
            carrier: Arc::default(),
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
            several.lock().tick(&self.log, now);
        }
    }

    /// Does so in time, until `stop` is cancelled; from then on nothing is held. None where there is one link, and where somebody does it.
    pub fn tending(
        self: &Arc<Self>,
        stop: CancellationToken,
    ) -> Option<impl Future<Output = ()> + Send + use<>> {
        let several = self.several.as_ref()?;
        let merge = self.clone();
        let is_first = !several.is_tended.swap(true, Ordering::AcqRel);
        is_first.then_some(async move {
            if let Some(several) = &merge.several {
                stop.run_until_cancelled(several.keep_time(&merge.log))
                    .await;
                let now = Instant::now();
                several.lock().close(&merge.log, now);
            }
        })
    }
}

impl Several {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something to what is held, and sees to it that the task knows how long to wait.
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let done = act(&mut state);
        let deadline = state.deadline();
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
            state.tick(log, Instant::now());
            state.alarm = state.deadline();
        }
    }
}

impl State {
    fn enter(&mut self, figures: &Arc<Figures>) -> LinkId {
        let link = self.rows.enter(figures.clone());
        if let Some(foreign) = &mut self.foreign {
            foreign.enter(link, figures.clone());
        }
        link
    }

    fn down(&mut self, log: &EventLog, link: LinkId, now: Instant) {
        self.rows.down(log, link, now);
        if let Some(foreign) = &mut self.foreign {
            foreign.down(log, link, now);
        }
    }

    fn leave(&mut self, log: &EventLog, link: LinkId, now: Instant) {
        self.rows.leave(log, link, now);
        if let Some(foreign) = &mut self.foreign {
            foreign.leave(log, link, now);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let foreign = self.foreign.as_ref().and_then(Foreign::deadline);
        self.rows.deadline().into_iter().chain(foreign).min()
    }

    fn tick(&mut self, log: &EventLog, now: Instant) {
        self.rows.tick(log, now);
        if let Some(foreign) = &mut self.foreign {
            foreign.tick(log, now);
        }
    }

    fn close(&mut self, log: &EventLog, now: Instant) {
        self.rows.close(log, now);
        if let Some(foreign) = &mut self.foreign {
            foreign.close(log);
        }
    }
}

impl Inflow {
    /// Where it leads.
    pub fn log(&self) -> &EventLog {
        &self.merge.log
    }

    /// A connection has been made, and this carries what comes from here on.
    pub fn comes_by(&self, carrier: Carrier) {
        self.carrier.store(carrier as u8, Ordering::Relaxed);
    }

    fn way(&self) -> Way {
        let carrier = self.carrier.load(Ordering::Relaxed);
        let carrier = Carrier::ALL.get(usize::from(carrier)).copied();
        self.way.by(carrier.unwrap_or_default())
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
        self.with(|state, link| state.rows.up(link));
    }

    /// There is none any more.
    pub fn down(&self) {
        self.with(|state, link| state.down(&self.merge.log, link, Instant::now()));
    }

    /// A connection to a feed begins whose events have no ids. `misses` says that there has been one before, and that what was sent
    /// meanwhile does not come: whether the source is to tell that, as nobody else does.
    pub fn feed_begins(&self, misses: bool) -> bool {
        let is_known = self.with_foreign(|foreign, link| foreign.begins(link, misses));
        misses && is_known.is_none()
    }

    /// From here on that feed brings what is sent. `resumes` says that it also brings what was sent since it was last there.
    pub fn feed_is_up(&self, resumes: bool) {
        self.with_foreign(|foreign, link| foreign.up(link, resumes));
    }

    /// It leads through these instances.
    pub fn leads_through(&self, path: impl IntoIterator<Item = Origin>) {
        let path = path.into_iter().collect();
        self.with(|state, link| state.rows.leads_through(link, path));
    }

    /// An event that has its id. `gap` is what the other side says is missing right before it.
    pub fn relay(&self, event: Event, gap: Option<Gap>) {
        let (log, id) = (&self.merge.log, event.id);
        let Some(seat) = &self.seat else {
            log.relay_by(self.way(), event, gap);
            return;
        };
        let (link, now) = ((seat.link, self.way()), Instant::now());
        let copy = self.is_for_peers().then(|| (event.clone(), gap.clone()));
        let is_new = self.with(|state, _| {
            let is_new = state.rows.relay(log, link, event, gap, now);
            if let Some((event, gap)) = copy.filter(|_| !is_new) {
                log.relay_to_peers(self.way(), event, gap);
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
        self.with(|state, link| state.rows.marks(&self.merge.log, link, origin))
    }

    /// Whether this event is a copy that need not be looked at any further: then it has been taken.
    pub fn repeats(&self, marks: &Marks, id: EventId) -> bool {
        let Some(seat) = self.seat.as_ref().filter(|_| marks.pass(id.seq)) else {
            return false;
        };
        seat.has_repeated(id, Instant::now());
        true
    }

    /// An event that has none: the id that it has got, unless it was here, or waits for others. `gap` is what is known to be missing
    /// right before it.
    pub fn append(&self, event: impl Into<NewEvent>, gap: Option<Gap>) -> Option<EventId> {
        let (log, event, now) = (&self.merge.log, event.into(), Instant::now());
        let several = self.merge.several.as_ref();
        let signs = several.and_then(|several| several.signs.as_ref());
        let (Some(signs), Some(seat)) = (signs, &self.seat) else {
            return Some(log.append_by(self.way(), event, gap));
        };
        let sign = signs.of(&event);
        let way = (seat.link, self.way());
        let taken = self
            .with_foreign(|foreign, _| foreign.take(log, way, (event, sign), gap, now))
            .unwrap_or(Taken::Held);
        match taken {
            Taken::New(id) => Some(id),
            Taken::Held => None,
            Taken::Copy(since) => {
                seat.has_brought_copy(since, now);
                None
            }
        }
    }

    /// Events from before this log began, oldest first: see [`EventLog::backfill`].
    pub fn backfill(&self, past: impl IntoIterator<Item = Event>) {
        let past: Vec<_> = past.into_iter().collect();
        if past.is_empty() {
            return;
        }
        let backfill = || {
            if let Some(local) = self.merge.log.own_local().filter(|_| !self.is_peer()) {
                local.backfill_by(self.way(), past.iter().cloned());
            }
            self.merge.log.backfill_by(self.way(), past.iter().cloned());
        };
        self.around(backfill);
    }

    /// Events for which there was no room among those: see [`EventLog::pass`].
    pub fn pass(&self, last: impl IntoIterator<Item = EventId>) {
        let last: Vec<_> = last.into_iter().collect();
        if last.is_empty() {
            return;
        }
        self.around(|| {
            if let Some(local) = self.merge.log.own_local().filter(|_| !self.is_peer()) {
                local.pass(&last);
            }
            self.merge.log.pass(&last);
        });
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
        several.with(|state| {
            act();
            state.rows.refresh(&self.merge.log, Instant::now());
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut State, LinkId) -> T) -> Option<T> {
        let (several, seat) = (self.merge.several.as_ref()?, self.seat.as_ref()?);
        Some(several.with(|state| act(state, seat.link)))
    }

    fn with_foreign<T>(&self, act: impl FnOnce(&mut Foreign, LinkId) -> T) -> Option<T> {
        self.with(|state, link| Some(act(state.foreign.as_mut()?, link)))?
    }
}

impl Seat {
    /// An event that was here has come on this link, too.
    fn has_repeated(&self, id: EventId, now: Instant) {
        self.figures.repeated();
        self.sample(now, || {
            let since = self.merge.log.since_of(id)?;
            Some(crate::event::now().saturating_sub(since))
        });
    }

    /// An event without an id has come on this link that was here, since then.
    fn has_brought_copy(&self, since: Option<Instant>, now: Instant) {
        self.figures.repeated();
        self.sample(now, || {
            let lag = now.duration_since(since?).as_micros();
            Some(u64::try_from(lag).unwrap_or(u64::MAX))
        });
    }

    /// Looks how late it is, in microseconds, if it is time to.
    fn sample(&self, now: Instant, lag: impl FnOnce() -> Option<u64>) {
        let mut sampled = self.sampled.lock().unwrap_or_else(PoisonError::into_inner);
        if sampled.is_some_and(|sampled| now.duration_since(sampled) < SAMPLED) {
            return;
        }
        if let Some(lag) = lag() {
            *sampled = Some(now);
            self.figures.lagged(lag);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(several) = &self.merge.several {
            let (log, link) = (&self.merge.log, self.link);
            several.with(|state| state.leave(log, link, Instant::now()));
        }
    }
}
