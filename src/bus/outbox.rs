//! From clients to a bus: what is published is taken when the bus has confirmed it, and comes back from there as everybody else's.
//!
//! While the bus is away nothing is taken. What was under way when it was lost is sent again, with the same ids, for a moment; then whoever
//! waits is told that it was not taken, and the next events get their ids from a new origin, so that numbers of which nobody knows
//! whether they were used are no gap.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::anyhow;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::figures::Figures;
use super::forward::{BATCH, BATCH_BYTES};
use super::{Bus, Sent, Writer};
use crate::event::{self, Event, EventId, NewEvent, Origin};
use crate::source::Backoff;
use crate::source::presence::Presence;

/// How long what is under way waits for a bus that has just been lost.
const GRACE: Duration = Duration::from_secs(2);
/// How long the bus may take to confirm what it was sent; then it is taken for lost.
const PATIENCE: Duration = Duration::from_secs(10);
/// More bytes of payload than these do not wait.
const MAX_WAITING: usize = 64 << 20;
/// What an event costs beside its payload.
const OVERHEAD: usize = size_of::<Event>();

/// Why something is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotTaken {
    /// The bus is away: it may be back in a moment. Why, in one line.
    Away(String),
    /// The bus does not get on as fast as events come.
    Full,
    /// The bus will not have it, however often it is sent. Why, in one line.
    Refused(String),
}

/// Whom to tell, and when: with the ids on the bus, or why it is not taken.
type Tell = Box<dyn FnOnce(Result<Vec<EventId>, NotTaken>) + Send>;

/// Events that were published together.
struct Letter {
    events: Vec<Event>,
    tell: Tell,
}

/// What waits for a bus.
pub struct Outbox {
    state: Mutex<State>,
    arrived: Notify,
    figures: Arc<Figures>,
}

struct State {
    /// Where ids are from, and the next one.
    next: EventId,
    letters: VecDeque<Letter>,
    bytes: usize,
    /// Why nothing is taken now.
    closed: Option<String>,
}

impl State {
    fn letter(&mut self, events: Vec<NewEvent>, tell: Tell) -> Letter {
        let time = event::now();
        let events = events.into_iter().map(|event| {
            let id = self.next;
            self.next.seq += 1;
            Event {
                id,
                time,
                event_type: event.event_type,
                key: event.key,
                payload: event.payload,
            }
        });
        Letter {
            events: events.collect(),
            tell,
        }
    }
}

fn cost(letter: &Letter) -> usize {
    let payloads = letter.events.iter();
    payloads
        .map(|event| event.payload.bytes.len() + OVERHEAD)
        .sum()
}

impl Outbox {
    /// What it takes before the bus has been reached waits until that has succeeded or failed for the first time: a stream may
    /// have been made just now by whoever publishes to it.
    pub fn new(figures: Arc<Figures>) -> Self {
        Self {
            state: Mutex::new(State {
                next: EventId {
                    origin: Origin::random(),
                    seq: 1,
                },
                letters: VecDeque::new(),
                bytes: 0,
                closed: None,
            }),
            arrived: Notify::new(),
            figures,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes events in a row. Their ids, once the bus has confirmed them all.
    pub async fn publish(&self, events: Vec<NewEvent>) -> Result<Vec<EventId>, NotTaken> {
        let (told, answer) = oneshot::channel();
        self.offer(events, move |result| {
            // Whoever is not there any more does not want to know.
            let _ = told.send(result);
        })?;
        let gone = || Err(NotTaken::Away("it is given up just now".to_owned()));
        answer.await.unwrap_or_else(|_| gone())
    }

    /// Publishes events in a row, and tells what has become of them. An error if they are not even sent; then it tells nothing.
    pub fn offer(
        &self,
        events: Vec<NewEvent>,
        tell: impl FnOnce(Result<Vec<EventId>, NotTaken>) + Send + 'static,
    ) -> Result<(), NotTaken> {
        let mut state = self.lock();
        if let Some(reason) = &state.closed {
            return Err(NotTaken::Away(reason.clone()));
        }
        if state.bytes > MAX_WAITING {
            return Err(NotTaken::Full);
        }
        let letter = state.letter(events, Box::new(tell));
        state.bytes += cost(&letter);
        state.letters.push_back(letter);
        drop(state);
        self.arrived.notify_one();
        Ok(())
    }

    fn open(&self) {
        self.lock().closed = None;
    }

    /// Nothing is taken from now on, and nothing of what waits.
    fn close(&self, reason: &str) {
        let mut state = self.lock();
        state.closed = Some(reason.to_owned());
        state.bytes = 0;
        state.next = EventId {
            origin: Origin::random(),
            seq: 1,
        };
        let letters = std::mem::take(&mut state.letters);
        drop(state);
        for letter in letters {
            (letter.tell)(Err(NotTaken::Away(reason.to_owned())));
        }
    }

    /// The next letters, as many as are sent at once.
    fn take(&self) -> Vec<Letter> {
        let mut state = self.lock();
        let (mut letters, mut events, mut bytes) = (Vec::new(), 0, 0);
        while events < BATCH && bytes < BATCH_BYTES {
            let Some(letter) = state.letters.pop_front() else {
                break;
            };
            events += letter.events.len();
            bytes += cost(&letter);
            letters.push(letter);
        }
        state.bytes = state.bytes.saturating_sub(bytes);
        letters
    }

    /// Brings letters to `bus` until `stop` is cancelled, and then those that wait, as long as the bus is there.
    pub async fn run(self: Arc<Self>, bus: Arc<Bus>, stop: CancellationToken) {
        let presence = Presence::downstream(&bus);
        self.carry(bus.writer(), presence, stop).await;
    }

    async fn carry(
        self: Arc<Self>,
        writer: Box<dyn Writer>,
        presence: Presence,
        stop: CancellationToken,
    ) {
        let mut carrier = Carrier {
            outbox: self,
            writer,
            presence,
            backoff: Backoff::new(),
            letters: Vec::new(),
            sent: Vec::new(),
            stop,
        };
        carrier.run().await;
        carrier.fail("this hop stops");
    }
}

/// Who carries letters, and those that are on the way.
struct Carrier {
    outbox: Arc<Outbox>,
    writer: Box<dyn Writer>,
    presence: Presence,
    backoff: Backoff,
    letters: Vec<Letter>,
    /// What has become of the first of their events.
    sent: Vec<Sent>,
    stop: CancellationToken,
}

impl Carrier {
    async fn run(&mut self) {
        // Once there are letters on the way, they wait for so long: for something to be confirmed, not just for a connection.
        let mut deadline: Option<Instant> = None;
        loop {
            let since = Instant::now();
            let stop = self.stop.clone();
            let connect = self.writer.connect();
            let connected = match deadline {
                // Whoever waits is waited for, whether or not everything stops.
                Some(deadline) => timeout_at(deadline, connect)
                    .await
                    .unwrap_or_else(|_| Err(anyhow!("it does not answer"))),
                None => tokio::select! {
                    connected = connect => connected,
                    () = stop.cancelled() => return,
                },
            };
            let error = match connected {
                Err(error) => error,
                Ok(()) => {
                    // Whoever hears that the bus is there may publish at once.
                    self.outbox.open();
                    self.outbox.figures.connected();
                    self.presence.connected();
                    let before = self.outbox.figures.counts().events;
                    let unsent = self.sent.len();
                    let Some(error) = self.carry(deadline).await else {
                        return;
                    };
                    let brought_events = self.outbox.figures.counts().events > before;
                    if brought_events || self.sent.len() > unsent || self.letters.is_empty() {
                        deadline = None;
                    }
                    self.backoff.connection_ended(since, brought_events);
                    error
                }
            };
            let reason = self.presence.lost(&error);
            self.outbox.figures.away(&reason);
            if self.letters.is_empty() && deadline.is_none() {
                self.fail(&reason);
            }
            let pause = self.backoff.pause();
            match self.letters.is_empty() {
                true => {
                    tokio::select! {
                        () = sleep(pause) => {}
                        () = stop.cancelled() => return,
                    }
                }
                false => {
                    let until = *deadline.get_or_insert_with(|| Instant::now() + GRACE);
                    if Instant::now() + pause >= until {
                        self.fail(&reason);
                        deadline = None;
                    }
                    sleep(pause).await;
                }
            }
        }
    }

    /// Carries letters until the connection is lost: why. None when there are no more, and everything stops.
    /// What was on its way before has until `deadline`.
    async fn carry(&mut self, mut deadline: Option<Instant>) -> Option<anyhow::Error> {
        loop {
            if self.letters.is_empty() {
                self.letters = self.outbox.take();
            }
            if self.letters.is_empty() {
                tokio::select! {
                    biased;
                    () = self.outbox.arrived.notified() => continue,
                    error = self.writer.lost() => return Some(error),
                    () = self.stop.cancelled() => return None,
                }
            }
            let events = self.letters.iter().flat_map(|letter| &letter.events);
            let events: Vec<_> = events.skip(self.sent.len()).cloned().collect();
            for batch in events.chunks(BATCH) {
                let own = batch.first().map(|event| event.id.origin);
                let sending = self.writer.send(batch, own, &mut self.sent);
                let until = deadline.unwrap_or_else(|| Instant::now() + PATIENCE);
                match timeout_at(until, sending).await {
                    Ok(Ok(())) => deadline = None,
                    Ok(Err(error)) => return Some(error),
                    Err(_) => return Some(anyhow!("it confirms nothing of what it is sent")),
                }
            }
            self.deliver();
        }
    }

    /// Tells everybody what has become of their events.
    fn deliver(&mut self) {
        let mut sent = self.sent.drain(..);
        for letter in self.letters.drain(..) {
            let (mut ids, mut refusal) = (Vec::with_capacity(letter.events.len()), None);
            let count = letter.events.len();
            for (number, (event, sent)) in letter.events.iter().zip(&mut sent).enumerate() {
                match sent {
                    Sent::Taken(id) => {
                        let bytes = event.payload.bytes.len() as u64;
                        self.outbox.figures.passed(1, bytes);
                        ids.push(id);
                    }
                    Sent::Refused(reason) => {
                        self.outbox.figures.refused();
                        refusal.get_or_insert((number + 1, reason));
                    }
                }
            }
            (letter.tell)(match refusal {
                None => Ok(ids),
                Some((_, reason)) if ids.is_empty() => Err(NotTaken::Refused(reason)),
                Some((number, reason)) => Err(NotTaken::Refused(format!(
                    "event {number}: {reason}; {} of {count} are taken, and must not be sent again",
                    ids.len()
                ))),
            });
        }
    }

    /// Nobody waits any longer.
    fn fail(&mut self, reason: &str) {
        // Of those that are whole on the bus, that is known.
        let mut left = self.sent.len();
        let whole = self.letters.iter().take_while(|letter| {
            let is_whole = letter.events.len() <= left;
            left = left.saturating_sub(letter.events.len());
            is_whole
        });
        let whole = whole.count();
        let others = self.letters.split_off(whole);
        self.deliver();
        if !others.is_empty() {
            warn!(reason, requests = others.len(), "published, and not taken");
        }
        for letter in others {
            (letter.tell)(Err(NotTaken::Away(reason.to_owned())));
        }
        self.outbox.close(reason);
    }
}

#[cfg(test)]
mod tests;
