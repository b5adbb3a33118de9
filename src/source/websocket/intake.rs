//! What the connections to one upstream bring, one after another, on its way into the log: no I/O, and of time
//! only that of events, and that hops downstream are not told of each other all the time.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use anyhow::Result;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use super::super::Destination;
use super::login::Talk;
use crate::event::{Event, EventId, Gap, Origin, Payload, Snapshot};
use crate::stream::EventLog;
use crate::stream::merge::Inflow;
use crate::stream::merge::row::Marks;
use crate::stream::via::{Tell, Via};
use crate::wire::hop::{self, Begin, Control, Hello, Instance, Scope, StateWish, Welcome};

/// More notices than this are not kept at once: there is at most one for each origin.
const MAX_GAPS: usize = 1_000;
/// Of more origins than this it is not remembered how far they are.
const MAX_MARKS: usize = 64;
/// Nor of more than this how far that was which is too old to be kept.
const MAX_PASSED: usize = 1_000;

/// What is known of an upstream from one connection to the next.
pub struct Intake<'a> {
    to: &'a Destination,
    /// The largest event taken, in bytes.
    max_message_size: usize,
    /// Whether there has been a connection before.
    has_met: bool,
    /// Whether somebody may be waiting for what it tells of the past.
    owes_past: bool,
    /// So many of the events that were there before the connection are still to come.
    behind: u64,
    /// Events since they were last counted.
    count: u64,
    /// Messages that were to be ignored.
    ignored: u64,
    /// To be told with the event that they name as the next, or with whatever comes next.
    gaps: Vec<Gap>,
    /// What has come so far of a past that is not all here.
    past: Option<Past>,
    /// What comes is the state that the upstream keeps.
    is_state: bool,
    /// All of that has come once.
    has_state: bool,
    /// Where there are other links: how far this one has come in the rows of origins, and how far all have.
    marks: HashMap<Origin, Marks>,
}

/// Events that were in the upstream's log before this one began.
#[derive(Default)]
struct Past {
    /// So many of the upstream's backlog are still to come.
    left: u64,
    events: VecDeque<Event>,
    bytes: usize,
    /// Of each origin the last event for which there was no room.
    passed: HashMap<Origin, EventId>,
}

impl<'a> Intake<'a> {
    /// Nothing has come yet, to this process.
    pub fn new(to: &'a Destination, max_message_size: usize) -> Self {
        let met = to.via.met(to.number);
        let mut intake = Self {
            to,
            max_message_size,
            has_met: met.is_met,
            owes_past: to.owes_past,
            behind: 0,
            count: 0,
            ignored: 0,
            gaps: Vec::new(),
            past: None,
            is_state: false,
            has_state: met.has_state,
            marks: HashMap::new(),
        };
        if intake.has_met {
            intake.owe_nothing();
        }
        intake
    }

    /// How many events have come since this was last asked.
    pub fn take_count(&mut self) -> u64 {
        std::mem::take(&mut self.count)
    }

    /// What to say first on a new hop link.
    pub fn hello(&self) -> Hello {
        Hello {
            id: Some(self.to.log.origin()),
            have: self.to.log.have(),
            from: match self.has_met {
                true => Begin::First,
                false => Begin::All,
            },
            state: match (self.to.log.retains(), self.has_state) {
                (false, _) => StateWish::No,
                (true, false) => StateWish::Yes,
                (true, true) => StateWish::Missed,
            },
            scope: match self.to.inflow.is_peer() {
                true => Scope::Local,
                false => Scope::All,
            },
        }
    }

    /// The upstream has answered the hello.
    pub fn welcomed(&mut self, welcome: Welcome) {
        let Welcome { path, backlog, .. } = welcome;
        self.marks.clear();
        self.set_path(path);
        self.set_behind(backlog);
        self.gaps.clear();
        self.is_state = false;
        self.past = Some(Past {
            left: backlog,
            ..Past::default()
        });
        if backlog == 0 {
            self.settle_past();
        }
        self.to.inflow.up();
    }

    /// A connection to a foreign WebSocket has been made.
    pub fn begin_raw(&mut self) {
        if self.to.inflow.feed_begins(self.has_met) {
            // What such a server has sent meanwhile, nobody knows.
            self.gaps = vec![Gap {
                after: self.to.log.last().map(|id| id.to_string().into()),
                next: None,
                lost: None,
            }];
        }
    }

    /// A foreign WebSocket sends what there is, from here on.
    pub fn follow_raw(&mut self) {
        self.note_met();
        self.to.inflow.feed_is_up(false);
    }

    /// The connection has ended. What has come of a past is better than nothing, and the next one goes on from there.
    pub fn ended(&mut self) {
        if self.past.is_some() {
            self.settle_past();
        }
        self.set_behind(0);
        self.to.inflow.down();
    }

    /// Takes one message of a foreign WebSocket.
    pub fn take_raw(&mut self, payload: Payload, talk: &Talk) {
        if talk.ignores(&payload) {
            self.ignored += 1;
            let (number, ignored) = (self.to.number, self.ignored);
            debug!(upstream = number, ignored, "message ignored");
            return;
        }
        self.count += 1;
        self.to.inflow.append(payload, self.gaps.pop());
    }

    /// Takes one message of a hop link.
    pub fn take(&mut self, payload: Payload) -> Result<()> {
        if self.is_copy(&payload) {
            return Ok(());
        }
        match hop::decode(payload)? {
            hop::Message::Event(event) => {
                self.count += 1;
                let len = event.payload.bytes.len();
                let is_too_large = len > self.max_message_size;
                if is_too_large {
                    // Refused with the connection, it would come again with the next one. The event behind it shows the gap.
                    warn!(id = %event.id, len, "an event above --max-message-size is passed over");
                }
                if self.behind > 0 && !self.is_state {
                    self.set_behind(self.behind - 1);
                }
                if self.is_state {
                    if !is_too_large {
                        self.adopt(event);
                    }
                    return Ok(());
                }
                if let Some(past) = &mut self.past {
                    past.left = past.left.saturating_sub(1);
                    let is_last = past.left == 0;
                    // What has happened since this log began is news here, as it is to those who have been waiting for it. So
                    // is what goes on where the last connection ended, whatever the clock at the origin says.
                    let log = &self.to.log;
                    if is_too_large || event.time < log.began() && !log.goes_on_with(event.id) {
                        if !is_too_large {
                            past.push(event, &self.to.inflow);
                        }
                        if is_last {
                            self.settle_past();
                        }
                        return Ok(());
                    }
                    self.settle_past();
                }
                if is_too_large {
                    return Ok(());
                }
                let is_before = |gap: &Gap| gap.next.is_none_or(|next| next == event.id);
                let at = self.gaps.iter().position(is_before);
                let gap = at.map(|at| self.gaps.swap_remove(at));
                let origin = event.id.origin;
                self.to.inflow.relay(event, gap);
                self.mark(origin);
            }
            hop::Message::Control(Control::Gap(gap)) => {
                if !shows_by_number(&gap) && self.gaps.len() < MAX_GAPS {
                    self.gaps.push(gap);
                }
            }
            hop::Message::Control(Control::Path(path)) => self.set_path(path),
            hop::Message::Control(Control::Snapshot(boundary)) => {
                self.is_state = matches!(boundary, Snapshot::Begin { .. });
                self.has_state |= !self.is_state;
                let (via, has_state) = (&self.to.via, self.has_state);
                via.note_met(self.to.number, |met| met.has_state = has_state);
            }
            hop::Message::Control(_) | hop::Message::Unknown => {}
        }
        Ok(())
    }

    /// Whether it is an event that another link has brought, and nothing else: then there is nothing to do with it, and no need to
    /// read more of it than its id.
    fn is_copy(&mut self, message: &Payload) -> bool {
        if self.marks.is_empty() || self.past.is_some() || self.is_state {
            return false;
        }
        let Some(id) = hop::id_of(message) else {
            return false;
        };
        let marks = self.marks.get(&id.origin);
        let is_copy = marks.is_some_and(|marks| self.to.inflow.repeats(marks, id));
        if is_copy {
            self.count += 1;
            self.drop_gap(id);
        }
        is_copy
    }

    /// What is told of an event that is here has been told with the first copy.
    fn drop_gap(&mut self, id: EventId) {
        self.gaps
            .retain(|gap| gap.next.is_some_and(|next| next != id));
    }

    fn mark(&mut self, origin: Origin) {
        if self.marks.contains_key(&origin) || self.marks.len() == MAX_MARKS {
            return;
        }
        if let Some(marks) = self.to.inflow.marks(origin) {
            self.marks.insert(origin, marks);
        }
    }

    /// Takes one event of the state that the upstream keeps.
    fn adopt(&mut self, event: Event) {
        // Should it be news, what is missing behind it shows by the ids.
        self.gaps
            .retain(|gap| gap.next.is_none_or(|next| next.origin != event.id.origin));
        self.to.inflow.adopt(event);
    }

    /// Lets the hops downstream know, too, when the path has changed.
    fn set_path(&self, path: Vec<Instance>) {
        let Destination {
            log, via, number, ..
        } = self.to;
        let origins = path.iter().map(|hop| hop.id);
        self.to.inflow.leads_through(origins);
        via.set(*number, path, |change| {
            if change.is_circle {
                let address = &*via.own().address;
                warn!(
                    address,
                    "this stream comes from this hop itself: its only upstream leads back here. Nothing goes round, but only what \
                     enters on the way comes: if no ring is meant, check --consume"
                );
            }
            if change.path.is_none() && change.local_path.is_none() {
                return;
            }
            match via.when_to_tell() {
                Tell::Now => {
                    if let Some(path) = change.path {
                        announce(log, path);
                    }
                    if let (Some(path), Some(local)) = (change.local_path, log.own_local()) {
                        announce(local, path);
                    }
                }
                Tell::Later(at) => tell_again_at(at, log.clone(), via.clone()),
                Tell::IsDue => {}
            }
        });
    }

    /// What is to come from here on is news.
    fn settle_past(&mut self) {
        if let Some(past) = self.past.take() {
            self.to.inflow.backfill(past.events);
            self.to.inflow.pass(past.passed.into_values());
        }
        self.note_met();
    }

    /// The upstream has shown what it is.
    pub fn note_met(&mut self) {
        if !std::mem::replace(&mut self.has_met, true) {
            let (via, number) = (&self.to.via, self.to.number);
            via.note_met(number, |met| met.is_met = true);
        }
        self.owe_nothing();
    }

    /// Nobody is to wait any more for what this upstream tells of the past.
    pub fn owe_nothing(&mut self) {
        if std::mem::take(&mut self.owes_past) {
            // In this order: who waits for all but this source must not take another one for it.
            self.to.via.has_told(self.to.number);
            self.to.inflow.past_is_settled();
        }
    }

    /// So much of the upstream's backlog is still to come.
    fn set_behind(&mut self, behind: u64) {
        if (self.behind > 0) != (behind > 0) {
            self.to.via.set_behind(self.to.number, behind > 0);
        }
        self.behind = behind;
    }
}

/// Whether it tells only what the number of the next event of an origin shows: nothing that another event could be told with.
fn shows_by_number(gap: &Gap) -> bool {
    let after = gap.after.as_ref().and_then(|after| after.parse().ok());
    gap.next.is_none() && after.is_some_and(|after: EventId| after.origin.counts())
}

/// Lets the hops downstream know a little later, in a task that ends with that.
fn tell_again_at(at: Instant, log: Arc<EventLog>, via: Arc<Via>) {
    tokio::spawn(async move {
        sleep_until(at).await;
        via.tell_again(|path, local_path| {
            announce(&log, path);
            if let Some(local) = log.own_local() {
                announce(local, local_path);
            }
        });
    });
}

fn announce(log: &EventLog, path: Vec<Instance>) {
    let mut frame = Vec::new();
    hop::encode_control(&Control::Path(path), &mut frame);
    log.announce(&frame);
}

impl Drop for Intake<'_> {
    fn drop(&mut self) {
        self.owe_nothing();
    }
}

impl Past {
    /// Takes the next event, and keeps no more bytes of the newest than the log will. What goes may still be state.
    fn push(&mut self, event: Event, inflow: &Inflow) {
        let log = inflow.log();
        let capacity = log.capacity();
        self.bytes += event.payload.bytes.len() + size_of::<Event>();
        self.events.push_back(event);
        while self.bytes > capacity
            && let Some(oldest) = self.events.pop_front()
        {
            self.bytes -= oldest.payload.bytes.len() + size_of::<Event>();
            let origin = oldest.id.origin;
            if self.passed.len() < MAX_PASSED || self.passed.contains_key(&origin) {
                self.passed.insert(origin, oldest.id);
            }
            if log.retains() {
                inflow.adopt(oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::stream::merge::Merge;
    use crate::stream::via::Via;

    fn destination(log: &Arc<EventLog>) -> Destination {
        Destination {
            log: log.clone(),
            inflow: Merge::new(log.clone()).inflow(0, false),
            owes_past: false,
            pause: Arc::default(),
            via: Arc::new(Via::new(Instance {
                id: log.origin(),
                address: "here".into(),
                distance: 0,
            })),
            number: 0,
            on_demand: false,
        }
    }

    fn id(origin: u64, seq: u64) -> EventId {
        EventId {
            origin: Origin(origin),
            seq,
        }
    }

    fn welcome(backlog: u64) -> Welcome {
        Welcome {
            path: vec![],
            backlog,
            resumed: None,
        }
    }

    fn take(intake: &mut Intake, event: EventId) {
        let time = crate::event::now() + 1_000_000;
        let message = Payload::text(format!("{event} t={time}\nx"));
        intake.take(message).expect("an event");
    }

    #[test]
    fn what_is_too_old_to_be_kept_is_no_news_of_somebody_else() {
        let log = Arc::new(EventLog::new(1_000));
        let to = destination(&log);
        let past = |intake: &mut Intake, event: EventId| {
            let text = format!("{event} t=1\n{}", "x".repeat(300));
            intake.take(Payload::text(text)).expect("an event");
        };
        let mut first = Intake::new(&to, 1_000);
        first.welcomed(welcome(6));
        for event in [(1, 1), (1, 2), (2, 1), (2, 2), (2, 3), (2, 4)] {
            past(&mut first, id(event.0, event.1));
        }
        assert!(log.has_passed(id(1, 2)));
        assert!(log.have().contains(&id(1, 2)), "{:?}", log.have());
        // This one knows less of it.
        let mut second = Intake::new(&to, 1_000);
        second.welcomed(welcome(1));
        past(&mut second, id(1, 1));
        assert_eq!(log.last_of(Origin(1)), Some(2));
        assert_eq!(log.last(), Some(id(2, 4)));
    }

    #[test]
    fn what_is_told_of_one_origin_is_not_told_with_an_event_of_another() {
        let log = Arc::new(EventLog::new(1 << 20));
        let to = destination(&log);
        let mut intake = Intake::new(&to, 1_000);
        intake.welcomed(welcome(0));
        take(&mut intake, id(1, 4));
        let gap = Payload::text(format!("!gap after={} lost=3", id(1, 4)));
        intake.take(gap).expect("a notice");
        take(&mut intake, id(2, 1));
        assert_eq!(log.gap_before(id(2, 1)), None);
        take(&mut intake, id(1, 8));
        let told = log.gap_before(id(1, 8)).expect("the number shows it");
        assert_eq!((told.next, told.lost), (Some(id(1, 8)), Some(3)));
        // Of what has no place, nobody can say better where it is missing.
        intake.take(Payload::text("!gap lost=2")).expect("a notice");
        take(&mut intake, id(2, 2));
        let told = log.gap_before(id(2, 2)).expect("it is told");
        assert_eq!((told.next, told.lost), (Some(id(2, 2)), Some(2)));
    }
}
