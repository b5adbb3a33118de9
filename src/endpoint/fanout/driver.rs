//! Shards and their drivers: the fan-out.
//!
//! Each subscriber belongs to one shard. The shard's driver is a task that, for each new event (or each batch of them,
//! when it is busy), walks its caught-up subscribers and writes to each what is pending: no queue, no wake-up and no
//! task switch per subscriber, only the system call. A socket that would block is *parked*: its own task goes on with
//! it and gives it back once it has caught up.
//!
//! Who comes back and is far behind would be written for a long time before its socket blocks. Such subscribers wait in a
//! queue, and each gets a part of what it has missed in turn, while there is no new event for those who are caught up.
//!
//! Where the driver cannot write, as TLS and HTTP/2 are between, it wakes the subscriber's own task instead.
//!
//! Only the driver changes its lists. Everybody else puts a command into the shard's inbox, so nobody ever waits
//! for a walk.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::mem;
use std::num::NonZeroU32;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use smallvec::SmallVec;
use tokio::sync::oneshot;
use tokio::task::{unconstrained, yield_now};
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_util::sync::WaitForCancellationFuture;
use tokio_util::task::TaskTracker;

use super::connection::{Connection, Mode, Progress, Slot};
use super::moving::Collector;
use super::{Audience, Ender, Farewell, YOUNGEST};
use crate::endpoint::lag::Lag;
use crate::endpoint::subscribers::Sent;
use crate::stream::Amount;
use crate::stream::tape::{Changes, Chunk, TapeReader};

/// A shard's clock ticks this often in a ping interval: how exactly pings and silence are timed.
const TICKS_PER_PING: u32 = 8;

/// And at least so often in the age that a connection may reach: how finely those who have come together are spread.
const TICKS_PER_AGE: u32 = 100;

/// After so many writes the walk lets other tasks of its thread run: reading, accepting, and the sources.
const WRITES_PER_TURN: usize = 256;

/// A driver that does not say for so long how far its subscribers are behind is not waited for.
const LOOK: Duration = Duration::from_secs(1);

/// The bounds of the pause after a walk that did not keep up: what the runtime's timers can do, and what nobody notices.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(2);

/// A share of an endpoint's subscribers, as everybody but its driver sees it.
pub struct Shard {
    audience: Arc<Audience>,
    inbox: Mutex<Inbox>,
    /// Wakes the driver.
    driver: AtomicWaker,
    /// When its clock was at 0.
    began: Instant,
    tick_length: Duration,
    ticks_per_ping: u32,
    stopping: AtomicBool,
    /// What its subscribers have been sent.
    sent: Sent,
    tasks: TaskTracker,
    ender: Ender,
}

#[derive(Default)]
struct Inbox {
    commands: Vec<Command>,
    /// Whether there is a driver that will look into the inbox again.
    driven: bool,
}

enum Command {
    Join(Arc<Connection>),
    Unpark(Arc<Connection>),
    Leave(Arc<Connection>),
    Drain,
    /// All are to be let go of by their own tasks.
    Hold(Collector),
    /// Somebody wants to know how far they are behind.
    Lag(oneshot::Sender<Lag>),
}

impl Shard {
    /// A share of an audience, without subscribers. Its driver runs while it has some.
    pub fn new(audience: Arc<Audience>, tasks: TaskTracker, ender: Ender) -> Arc<Self> {
        let interval = audience.heartbeat_interval;
        let of_age = audience.max_connection_age.map(|age| age / TICKS_PER_AGE);
        let of_ping = interval / TICKS_PER_PING;
        let tick_length = of_age.map_or(of_ping, |of_age| of_ping.min(of_age));
        let tick_length = tick_length.max(Duration::from_millis(1));
        Arc::new(Self {
            audience,
            inbox: Mutex::default(),
            driver: AtomicWaker::new(),
            began: Instant::now(),
            tick_length,
            ticks_per_ping: ticks(interval, tick_length),
            stopping: AtomicBool::new(false),
            sent: Sent::default(),
            tasks,
            ender,
        })
    }

    /// What it is a share of.
    pub fn audience(&self) -> &Audience {
        &self.audience
    }

    /// What its subscribers have been sent. The driver counts for itself, and adds that up now and then.
    pub fn sent(&self) -> &Sent {
        &self.sent
    }

    /// How far its subscribers are behind.
    pub async fn lag(&self) -> Lag {
        let (answer, lag) = oneshot::channel();
        if !self.asks(answer) {
            return Lag::default();
        }
        let lag = timeout(LOOK, lag).await;
        lag.ok().and_then(Result::ok).unwrap_or_default()
    }

    /// Whether there is a driver that answers: without one there are no subscribers, and nobody would look into the inbox.
    fn asks(&self, answer: oneshot::Sender<Lag>) -> bool {
        let mut inbox = self.lock();
        if inbox.driven {
            inbox.commands.push(Command::Lag(answer));
            self.driver.wake();
        }
        inbox.driven
    }

    /// The shard's clock: counts up [`TICKS_PER_PING`] times in a ping interval, or more often where connections have an age.
    pub fn tick(&self) -> u32 {
        (self.began.elapsed().as_micros() as u64 / self.tick_length.as_micros() as u64) as u32
    }

    /// When a connection that begins now has reached this age.
    pub fn last_tick(&self, age: Option<Duration>) -> Option<NonZeroU32> {
        let last = self.tick().wrapping_add(ticks(age?, self.tick_length));
        // That once in all its time it is a tick later makes no difference.
        Some(NonZeroU32::new(last).unwrap_or(NonZeroU32::MIN))
    }

    /// In so many ticks the driver looks again, whoever comes meanwhile.
    fn longest_sleep(&self) -> u32 {
        let youngest = self.audience.max_connection_age;
        let youngest = youngest.map(|age| ticks(age.mul_f64(YOUNGEST), self.tick_length));
        youngest.map_or(self.ticks_per_ping, |age| age.clamp(1, self.ticks_per_ping))
    }

    /// A subscriber has just taken all that it could. Of one that does not speak, that is a sign of life.
    pub fn note_full(&self, connection: &Connection) {
        if self.audience.format.is_body() {
            connection.set_heard(self.tick());
        }
    }

    /// A new subscriber.
    pub fn join(self: &Arc<Self>, connection: Arc<Connection>, head: Changes) {
        let tape = connection.tape().clone();
        let mut inbox = self.lock();
        inbox.commands.push(Command::Join(connection));
        let starts = !mem::replace(&mut inbox.driven, true);
        drop(inbox);
        if starts {
            let mut driver = Driver::new(self.clone(), tape, head);
            self.tasks.spawn(async move { driver.run().await });
        } else {
            self.driver.wake();
        }
    }

    /// A new subscriber, and what drives it, for a model to run.
    #[cfg(test)]
    pub fn driver_of(
        self: &Arc<Self>,
        connection: Arc<Connection>,
        head: Changes,
    ) -> impl Future<Output = ()> + Send + use<> {
        let mut driver = Driver::new(self.clone(), connection.tape().clone(), head);
        let mut inbox = self.lock();
        inbox.driven = true;
        inbox.commands.push(Command::Join(connection));
        drop(inbox);
        async move { driver.run().await }
    }

    /// A subscriber that was parked has caught up.
    pub fn unpark(&self, connection: Arc<Connection>) {
        self.send(Command::Unpark(connection));
    }

    /// A subscriber's task has ended.
    pub fn leave(&self, connection: Arc<Connection>) {
        self.send(Command::Leave(connection));
    }

    /// Subscribers are to go one by one.
    pub fn drain(&self) {
        self.send(Command::Drain);
    }

    /// Has all its subscribers let go of by their tasks.
    pub fn hold(&self, collector: Collector) {
        let mut inbox = self.lock();
        // Without a driver there are none, and nobody would look into the inbox.
        if inbox.driven {
            inbox.commands.push(Command::Hold(collector));
            drop(inbox);
            self.driver.wake();
        }
    }

    fn send(&self, command: Command) {
        self.lock().commands.push(command);
        self.driver.wake();
    }

    fn lock(&self) -> MutexGuard<'_, Inbox> {
        #[cfg(test)]
        super::model::step();
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many ticks a time has.
fn ticks(time: Duration, tick_length: Duration) -> u32 {
    let ticks = time.as_micros() / tick_length.as_micros();
    // As many as can be told apart from those that are over.
    ticks.min(i32::MAX as u128) as u32
}

/// Of a stream with one or two subscribers, they are in the driver itself: nothing else has to be looked up for an event.
type List = SmallVec<[Arc<Connection>; 2]>;

struct Driver {
    shard: Arc<Shard>,
    tape: TapeReader,
    head: Changes,
    alarm: Alarm,
    /// Caught-up subscribers.
    driven: List,
    /// Those whose own tasks write, and those that are behind.
    parked: List,
    /// Those whose own tasks write in any case.
    own: List,
    /// Those that are behind though their sockets take what there is, in turns. Some may have blocked or left since.
    behind: VecDeque<Arc<Connection>>,
    /// Who has to go when, if the process drains: those last who go first. Some may have left since.
    departures: Vec<(Instant, Weak<Connection>)>,
    /// The oldest position on the tape when the parked ones were last compared with it.
    oldest: u64,
    /// Since other tasks last had their turn.
    writes: usize,
    /// Where on the tape the last write was.
    chunk: Option<Arc<Chunk>>,
    /// What has been sent since that was added up.
    sent: Amount,
}

/// What a driver has to do next.
enum Next {
    /// The stream ends.
    Stop,
    /// Somebody may be due to be pinged, or silent.
    Tick,
    /// There is more to write.
    Event,
    /// Somebody has asked for something.
    Command,
    /// Those that are behind have their turn.
    Turn,
}

/// When a driver next looks who is silent. There is one for each stream, or more, so it is not touched by an event.
struct Alarm {
    due: Instant,
    /// When somebody may be silent or due to be pinged. The alarm may be due before.
    pulse: Instant,
    sleep: Pin<Box<Sleep>>,
    /// Whether it was due, if somebody has just looked at the clock.
    looked: Option<bool>,
    /// Who is woken when it is due, and when the stream ends.
    told: Option<Waker>,
}

impl Alarm {
    fn set(&mut self, due: Instant) {
        self.due = due;
        self.looked = None;
        self.sleep.as_mut().reset(due);
        self.told = None;
    }

    fn is_due(&mut self) -> bool {
        let looked = self.looked.take();
        looked.unwrap_or_else(|| Instant::now() >= self.due)
    }

    /// Sees to it that the driver is woken when it is due and when `stop` comes. That has to be said once.
    fn register(&mut self, cx: &mut Context<'_>, stop: Pin<&mut WaitForCancellationFuture<'_>>) {
        if self
            .told
            .as_ref()
            .is_some_and(|told| told.will_wake(cx.waker()))
        {
            return;
        }
        // What they say is looked at in any case. Even if this task has had its share of time: later nobody asks again.
        let _ = pin!(unconstrained(self.sleep.as_mut())).poll(cx);
        let _ = stop.poll(cx);
        self.told = Some(cx.waker().clone());
    }
}

impl Driver {
    fn new(shard: Arc<Shard>, tape: TapeReader, head: Changes) -> Self {
        let due = Instant::now() + shard.tick_length * shard.longest_sleep();
        Self {
            oldest: tape.oldest().position,
            alarm: Alarm {
                due,
                pulse: due,
                sleep: Box::pin(sleep_until(due)),
                looked: None,
                told: None,
            },
            shard,
            tape,
            head,
            driven: List::new(),
            parked: List::new(),
            own: List::new(),
            behind: VecDeque::new(),
            departures: Vec::new(),
            writes: 0,
            chunk: None,
            sent: Amount::default(),
        }
    }

    /// Runs while there are subscribers.
    async fn run(&mut self) {
        let shard = self.shard.clone();
        let mut stop = pin!(shard.ender.token().cancelled());
        while self.empty_inbox() {
            // Whatever has been written since: one addition for a walk, and none for a subscriber.
            self.shard.sent.add(mem::take(&mut self.sent));
            match self.next(stop.as_mut()).await {
                Next::Stop => self.stop(),
                Next::Tick => {
                    let now = Instant::now();
                    if now >= self.alarm.pulse {
                        let ticks = self.keep_alive();
                        self.alarm.pulse = Instant::now() + shard.tick_length * ticks;
                    }
                    self.send_away_until(now);
                    self.set_alarm();
                }
                Next::Event => {
                    self.head.mark_seen();
                    let start = Instant::now();
                    self.walk().await;
                    let now = Instant::now();
                    self.alarm.looked = Some(now >= self.alarm.due);
                    self.catch_up_for(now - start);
                    self.end_passed();
                    self.gather(now - start).await;
                }
                Next::Command => {}
                Next::Turn => self.catch_up(),
            }
        }
    }

    /// Waits for something to do.
    async fn next(&mut self, mut stop: Pin<&mut WaitForCancellationFuture<'_>>) -> Next {
        let Self {
            shard,
            head,
            alarm,
            behind,
            ..
        } = self;
        let mut event = pin!(head.next());
        let mut turn = pin!(yield_now());
        poll_fn(|cx| {
            shard.driver.register(cx.waker());
            alarm.register(cx, stop.as_mut());
            if shard.ender.token().is_cancelled() && !shard.stopping.load(Ordering::Relaxed) {
                return Poll::Ready(Next::Stop);
            }
            // Before the events: of these there may always be more.
            if alarm.is_due() {
                return Poll::Ready(Next::Tick);
            }
            if head.has_changed() || event.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Next::Event);
            }
            if !shard.lock().commands.is_empty() {
                return Poll::Ready(Next::Command);
            }
            // Others run first: they may bring events.
            if !behind.is_empty() && turn.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Next::Turn);
            }
            Poll::Pending
        })
        .await
    }

    /// Carries out what has been asked for; false when there is no subscriber left and this driver is to end.
    fn empty_inbox(&mut self) -> bool {
        loop {
            let commands = {
                let mut inbox = self.shard.lock();
                if inbox.commands.is_empty() {
                    // Under the lock: who joins from now on sees that a new driver is needed.
                    inbox.driven = self.all().next().is_some();
                    if !inbox.driven {
                        // It would keep the memory of this task.
                        drop(self.shard.driver.take());
                    }
                    return inbox.driven;
                }
                mem::take(&mut inbox.commands)
            };
            for command in commands {
                match command {
                    Command::Join(connection) => self.join(connection),
                    Command::Unpark(connection) => self.enqueue(connection),
                    Command::Leave(connection) => drop(self.remove(&connection)),
                    Command::Drain => self.plan_departures(),
                    Command::Hold(collector) => self.hold(&collector),
                    // Who asks may not wait any more.
                    Command::Lag(answer) => drop(answer.send(self.lag())),
                }
            }
        }
    }

    fn join(&mut self, connection: Arc<Connection>) {
        if self.shard.stopping.load(Ordering::Relaxed) {
            self.end(&connection);
        } else if self.shard.ender.stop().is_drain() {
            self.plan_departure(&connection);
        }
        self.note_age(&connection);
        // By what cannot change: its own task may have begun to write, and have blocked.
        if connection.writes_itself() {
            self.insert(connection.clone(), Mode::Own);
            // Events may have come since it subscribed.
            connection.task.wake();
            return;
        }
        let writer = connection.lock();
        let is_walking = writer.is_walking() && !writer.is_ending();
        drop(writer);
        if is_walking {
            // However many join at once, and however much there is for each: they wait for their turns.
            self.insert(connection.clone(), Mode::Parked);
            self.enqueue(connection);
            return;
        }
        let index = self.insert(connection, Mode::Driven);
        // Events may have come since it subscribed.
        self.write(index);
    }

    /// One that has been elsewhere may be old enough before anybody would look.
    fn note_age(&mut self, connection: &Connection) {
        let Some(last) = connection.last_tick() else {
            return;
        };
        let left = last.get().wrapping_sub(self.shard.tick()) as i32;
        let due = Instant::now() + self.shard.tick_length * left.max(0) as u32;
        if due < self.alarm.pulse {
            self.alarm.pulse = due;
            self.set_alarm();
        }
    }

    /// Whoever is here gets a moment to go.
    fn plan_departures(&mut self) {
        let stop = self.shard.ender.stop();
        let mut departures: Vec<_> = self
            .all()
            .map(|connection| (stop.moment(), Arc::downgrade(connection)))
            .collect();
        departures.sort_unstable_by_key(|(moment, _)| Reverse(*moment));
        self.departures = departures;
        self.set_alarm();
    }

    /// One more has come meanwhile.
    fn plan_departure(&mut self, connection: &Arc<Connection>) {
        let moment = self.shard.ender.stop().moment();
        let later = self.departures.partition_point(|(at, _)| *at > moment);
        let departure = (moment, Arc::downgrade(connection));
        self.departures.insert(later, departure);
        self.set_alarm();
    }

    /// Sends away those whose moment has come.
    fn send_away_until(&mut self, now: Instant) {
        while let Some((_, connection)) = self.departures.pop_if(|(moment, _)| *moment <= now) {
            if let Some(connection) = connection.upgrade() {
                self.end(&connection);
            }
        }
    }

    /// The alarm is due when there is something to do again.
    fn set_alarm(&mut self) {
        let departure = self.departures.last().map(|(moment, _)| *moment);
        let pulse = self.alarm.pulse;
        self.alarm
            .set(departure.map_or(pulse, |moment| moment.min(pulse)));
    }

    /// How far those are behind that are not just being written to.
    fn lag(&self) -> Lag {
        let newest = self.tape.newest();
        let others = self.parked.iter().chain(&self.own);
        let lags = others.map(|connection| {
            let writer = connection.lock();
            match writer.is_ending() {
                true => Lag::default(),
                false => Lag::of(writer.cursor(), newest),
            }
        });
        lags.sum()
    }

    fn hold(&self, collector: &Collector) {
        for connection in self.all().filter(|it| !it.writes_itself()) {
            connection.hold(collector.clone());
        }
    }

    /// It may have blocked or left by the time it has its turn.
    fn enqueue(&mut self, connection: Arc<Connection>) {
        if !mem::replace(&mut connection.lock().queued, true) {
            self.behind.push_back(connection);
        }
    }

    /// However fast events come, those that are behind get on: they get as much time as those that are not.
    fn catch_up_for(&mut self, time: Duration) {
        if self.behind.is_empty() {
            return;
        }
        let start = Instant::now();
        while !self.behind.is_empty() {
            self.catch_up();
            if start.elapsed() >= time {
                return;
            }
        }
    }

    /// Gives the first of those that are behind its turn.
    fn catch_up(&mut self) {
        let Some(connection) = self.behind.pop_front() else {
            return;
        };
        let mut writer = connection.lock();
        writer.queued = false;
        let waits = writer.slot.is_some_and(|slot| slot.mode == Mode::Parked);
        if !waits || writer.mode != Mode::Driven {
            return;
        }
        let before = writer.given();
        let progress = connection.write(&mut writer, &mut self.chunk, &self.shard.audience);
        self.sent += writer.given().since(before);
        match progress {
            Progress::CaughtUp => {
                drop(writer);
                self.remove(&connection);
                self.insert(connection, Mode::Driven);
            }
            Progress::Behind => {
                drop(writer);
                self.enqueue(connection);
            }
            Progress::Blocked | Progress::Closed | Progress::Broken => {
                writer.mode = Mode::Parked;
                drop(writer);
                connection.task.wake();
            }
        }
    }

    /// Writes to each caught-up subscriber what is pending, and wakes those that write themselves.
    async fn walk(&mut self) {
        let mut index = 0;
        while index < self.driven.len() {
            if self.write(index) {
                index += 1;
            }
            self.writes += 1;
            if self.writes.is_multiple_of(WRITES_PER_TURN) {
                tokio::task::yield_now().await;
            }
        }
        for index in 0.. {
            // Others run meanwhile, and none of them changes this list.
            let Some(connection) = self.own.get(index) else {
                return;
            };
            if connection.wants_events() {
                connection.task.wake();
            }
            self.writes += 1;
            if self.writes.is_multiple_of(WRITES_PER_TURN) {
                tokio::task::yield_now().await;
            }
        }
    }

    /// When a walk takes so long that the next events have come before it ends, walking on at once would use all of the
    /// CPU for writes of a few events each. A pause, short beside the walk, makes fewer and larger ones of them, and
    /// leaves time for the sources. A walk that keeps up never gets here.
    async fn gather(&self, walk: Duration) {
        if walk >= SHORTEST_PAUSE && self.head.has_changed() {
            // Now and then, so it is in a box meanwhile.
            Box::pin(sleep((walk / 2).clamp(SHORTEST_PAUSE, LONGEST_PAUSE))).await;
        }
    }

    /// Writes to the subscriber at `index` what is pending; false when it is not there any more, but parked.
    fn write(&mut self, index: usize) -> bool {
        let connection = &self.driven[index];
        let mut writer = connection.lock();
        if writer.mode == Mode::Driven {
            let before = writer.given();
            let progress = connection.write(&mut writer, &mut self.chunk, &self.shard.audience);
            self.sent += writer.given().since(before);
            match progress {
                Progress::CaughtUp => return true,
                Progress::Behind => {
                    if !mem::replace(&mut writer.queued, true) {
                        self.behind.push_back(connection.clone());
                    }
                }
                progress => {
                    if progress == Progress::Blocked {
                        self.shard.note_full(connection);
                    }
                    writer.mode = Mode::Parked;
                }
            }
        }
        let is_parked = writer.mode == Mode::Parked;
        drop(writer);
        let connection = connection.clone();
        self.remove(&connection);
        if is_parked {
            connection.task.wake();
        }
        self.insert(connection, Mode::Parked);
        false
    }

    /// Sees to those subscribers that others write to and that history has passed by.
    fn end_passed(&mut self) {
        if self.parked.is_empty() && self.own.is_empty() {
            return;
        }
        let oldest = self.tape.oldest().position;
        if oldest == mem::replace(&mut self.oldest, oldest) {
            return;
        }
        for connection in self.parked.iter().chain(&self.own) {
            if connection.lock().pass(oldest, &self.shard.audience) {
                connection.task.wake();
            }
        }
    }

    /// Pings who is due, closes who is silent or old enough; in how many ticks there may be somebody again. Who joins until then is not due
    /// before.
    fn keep_alive(&mut self) -> u32 {
        let now = self.shard.tick();
        let audience = &self.shard.audience;
        let format = audience.format;
        let ticks_per_ping = self.shard.ticks_per_ping as i32;
        let patience = audience.patience() as i32 * ticks_per_ping;
        let mut next = self.shard.longest_sleep() as i32;
        for connection in self.all() {
            let mut writer = connection.lock();
            if writer.is_ending() {
                continue;
            }
            // Of a client that does not speak, that it takes what it is sent is the only sign of life.
            if format.is_body() && writer.is_clear() {
                connection.set_heard(now);
            }
            // The clock may have gone on since.
            let silent = now.wrapping_sub(connection.heard()) as i32;
            let pinged = now.wrapping_sub(writer.pinged) as i32;
            // How long it may still be there.
            let life = connection.last_tick();
            let life = life.map_or(i32::MAX, |last| last.get().wrapping_sub(now) as i32);
            let is_silent = silent > patience;
            let is_due = pinged >= ticks_per_ping && !format.heartbeat().is_empty();
            if is_silent {
                writer.end(format, CloseCode::Error, audience.complaint());
            } else if life <= 0 {
                writer.send_away(format, Farewell::aged());
            } else if is_due && !writer.has_control() {
                // While a pong waits to get out, it is not to be lost to a ping.
                writer.pinged = now;
                writer.set_control(format.heartbeat());
                next = next.min(life);
            } else {
                let to_ping = match format.heartbeat().is_empty() {
                    true => i32::MAX,
                    false => ticks_per_ping - pinged,
                };
                let left = (patience + 1 - silent).min(to_ping);
                next = next.min(left.min(life).max(1));
                continue;
            }
            drop(writer);
            connection.task.wake();
        }
        next as u32
    }

    /// The process stops, or the stream does: everybody gets a Close frame.
    fn stop(&mut self) {
        self.shard.stopping.store(true, Ordering::Relaxed);
        self.departures = Vec::new();
        for connection in self.all() {
            self.end(connection);
        }
    }

    fn end(&self, connection: &Connection) {
        let format = self.shard.audience.format;
        let farewell = self.shard.ender.farewell();
        connection.lock().send_away(format, farewell);
        connection.task.wake();
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Connection>> {
        let others = self.parked.iter().chain(&self.own);
        self.driven.iter().chain(others)
    }

    fn list(&mut self, mode: Mode) -> &mut List {
        match mode {
            Mode::Driven => &mut self.driven,
            Mode::Parked => &mut self.parked,
            Mode::Own => &mut self.own,
        }
    }

    /// Puts a connection that is in no list into one.
    fn insert(&mut self, connection: Arc<Connection>, mode: Mode) -> usize {
        let list = self.list(mode);
        let index = list.len();
        connection.lock().slot = Some(Slot { mode, index });
        list.push(connection);
        index
    }

    /// Takes a connection out of the list it is in, if any.
    fn remove(&mut self, connection: &Connection) -> Option<Arc<Connection>> {
        let Slot { mode, index } = connection.lock().slot.take()?;
        let list = self.list(mode);
        let removed = list.swap_remove(index);
        if let Some(moved) = list.get(index) {
            moved.lock().slot = Some(Slot { mode, index });
        }
        Some(removed)
    }
}
