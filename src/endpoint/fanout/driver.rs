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

use std::collections::VecDeque;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_util::task::TaskTracker;

use super::connection::{Connection, Mode, Progress, Slot};
use super::{Audience, Ender, Farewell};
use crate::stream::head::Changes;
use crate::stream::tape::{Chunk, TapeReader};

/// A shard's clock ticks this often in a ping interval: how exactly pings and silence are timed.
const TICKS_PER_PING: u32 = 8;

/// After so many writes the walk lets other tasks of its thread run: reading, accepting, and the sources.
const WRITES_PER_TURN: usize = 256;

/// The bounds of the pause after a walk that did not keep up: what the runtime's timers can do, and what nobody notices.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(2);

/// A share of an endpoint's subscribers, as everybody but its driver sees it.
pub struct Shard {
    audience: Arc<Audience>,
    inbox: Mutex<Inbox>,
    wake: Notify,
    /// Counts up [`TICKS_PER_PING`] times in a ping interval while there are subscribers.
    tick: AtomicU32,
    tick_length: Duration,
    stopping: AtomicBool,
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
}

impl Shard {
    /// A share of an audience, without subscribers. Its driver runs while it has some.
    pub fn new(audience: Arc<Audience>, tasks: TaskTracker, ender: Ender) -> Arc<Self> {
        let tick_length = audience.heartbeat_interval / TICKS_PER_PING;
        Arc::new(Self {
            audience,
            inbox: Mutex::default(),
            wake: Notify::new(),
            tick: AtomicU32::new(0),
            tick_length: tick_length.max(Duration::from_millis(1)),
            stopping: AtomicBool::new(false),
            tasks,
            ender,
        })
    }

    /// What it is a share of.
    pub fn audience(&self) -> &Audience {
        &self.audience
    }

    /// The shard's clock.
    pub fn tick(&self) -> u32 {
        self.tick.load(Ordering::Relaxed)
    }

    /// A new subscriber.
    pub fn join(self: &Arc<Self>, connection: Arc<Connection>, head: Changes) {
        let tape = connection.tape().clone();
        let mut inbox = self.lock();
        inbox.commands.push(Command::Join(connection));
        let starts = !mem::replace(&mut inbox.driven, true);
        drop(inbox);
        if starts {
            self.tasks
                .spawn(Driver::new(self.clone(), tape, head).run());
        } else {
            self.wake.notify_one();
        }
    }

    /// A subscriber that was parked has caught up.
    pub fn unpark(&self, connection: Arc<Connection>) {
        self.send(Command::Unpark(connection));
    }

    /// A subscriber's task has ended.
    pub fn leave(&self, connection: Arc<Connection>) {
        self.send(Command::Leave(connection));
    }

    fn send(&self, command: Command) {
        self.lock().commands.push(command);
        self.wake.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Driver {
    shard: Arc<Shard>,
    tape: TapeReader,
    head: Changes,
    clock: Interval,
    /// Caught-up subscribers.
    driven: Vec<Arc<Connection>>,
    /// Those whose own tasks write, and those that are behind.
    parked: Vec<Arc<Connection>>,
    /// Those whose own tasks write in any case.
    own: Vec<Arc<Connection>>,
    /// Those that are behind though their sockets take what there is, in turns. Some may have blocked or left since.
    behind: VecDeque<Arc<Connection>>,
    /// The oldest position on the tape when the parked ones were last compared with it.
    oldest: u64,
    /// Since other tasks last had their turn.
    writes: usize,
    /// Where on the tape the last write was.
    chunk: Option<Arc<Chunk>>,
}

impl Driver {
    fn new(shard: Arc<Shard>, tape: TapeReader, head: Changes) -> Self {
        let mut clock = interval(shard.tick_length);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            oldest: tape.oldest().position,
            shard,
            tape,
            head,
            clock,
            driven: Vec::new(),
            parked: Vec::new(),
            own: Vec::new(),
            behind: VecDeque::new(),
            writes: 0,
            chunk: None,
        }
    }

    async fn run(mut self) {
        while self.empty_inbox() {
            tokio::select! {
                biased;
                () = self.shard.ender.token().cancelled(), if !self.shard.stopping.load(Ordering::Relaxed) => self.stop(),
                // Before the events: of these there may always be more.
                _ = self.clock.tick() => self.keep_alive(),
                () = self.head.changed() => {
                    let start = Instant::now();
                    self.walk().await;
                    let walk = start.elapsed();
                    self.catch_up_for(walk);
                    self.end_passed();
                    self.gather(walk).await;
                }
                () = self.shard.wake.notified() => {}
                // Others run first: they may bring events.
                () = tokio::task::yield_now(), if !self.behind.is_empty() => self.catch_up(),
            }
        }
    }

    /// Carries out what has been asked for; false when there is no subscriber left and this driver is to end.
    fn empty_inbox(&mut self) -> bool {
        loop {
            let commands = {
                let mut inbox = self.shard.lock();
                if inbox.commands.is_empty() {
                    // Under the lock: who joins from now on sees that a new driver is needed.
                    inbox.driven = self.all().next().is_some();
                    return inbox.driven;
                }
                mem::take(&mut inbox.commands)
            };
            for command in commands {
                match command {
                    Command::Join(connection) => self.join(connection),
                    Command::Unpark(connection) => self.enqueue(connection),
                    Command::Leave(connection) => drop(self.remove(&connection)),
                }
            }
        }
    }

    fn join(&mut self, connection: Arc<Connection>) {
        if self.shard.stopping.load(Ordering::Relaxed) {
            self.end(&connection);
        }
        let writer = connection.lock();
        let (mode, is_walking) = (writer.mode, writer.is_walking() && !writer.is_ending());
        drop(writer);
        if mode == Mode::Own {
            self.insert(connection.clone(), Mode::Own);
            // Events may have come since it subscribed.
            connection.task.wake();
            return;
        }
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

    /// It may have blocked or left by the time it has its turn.
    fn enqueue(&mut self, connection: Arc<Connection>) {
        if !mem::replace(&mut connection.lock().queued, true) {
            self.behind.push_back(connection);
        }
    }

    /// However fast events come, those that are behind get on: they get as much time as those that are not.
    fn catch_up_for(&mut self, time: Duration) {
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
        let progress = connection.write(&mut writer, &mut self.chunk, &self.shard.audience);
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
        for connection in &self.own {
            if connection.wants_events() {
                connection.task.wake();
            }
        }
    }

    /// When a walk takes so long that the next events have come before it ends, walking on at once would use all of the
    /// CPU for writes of a few events each. A pause, short beside the walk, makes fewer and larger ones of them, and
    /// leaves time for the sources. A walk that keeps up never gets here.
    async fn gather(&self, walk: Duration) {
        if walk >= SHORTEST_PAUSE && self.head.has_changed() {
            sleep((walk / 2).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)).await;
        }
    }

    /// Writes to the subscriber at `index` what is pending; false when it is not there any more, but parked.
    fn write(&mut self, index: usize) -> bool {
        let connection = &self.driven[index];
        let mut writer = connection.lock();
        if writer.mode == Mode::Driven {
            match connection.write(&mut writer, &mut self.chunk, &self.shard.audience) {
                Progress::CaughtUp => return true,
                Progress::Behind => {
                    if !mem::replace(&mut writer.queued, true) {
                        self.behind.push_back(connection.clone());
                    }
                }
                Progress::Blocked | Progress::Closed | Progress::Broken => {
                    writer.mode = Mode::Parked
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

    /// Once a tick: pings who is due, closes who is silent.
    fn keep_alive(&mut self) {
        let now = self.shard.tick.load(Ordering::Relaxed).wrapping_add(1);
        self.shard.tick.store(now, Ordering::Relaxed);
        let audience = &self.shard.audience;
        let format = audience.format;
        for connection in self.all() {
            let mut writer = connection.lock();
            if writer.is_ending() {
                continue;
            }
            // Of a client that does not speak, that it takes what it is sent is the only sign of life.
            if format.is_body() && writer.is_clear() {
                connection.set_heard(now);
            }
            if now.wrapping_sub(connection.heard()) > audience.patience() * TICKS_PER_PING {
                writer.end(format, CloseCode::Error, audience.complaint());
            } else if now.wrapping_sub(writer.pinged) >= TICKS_PER_PING
                && !writer.has_control()
                && !format.heartbeat().is_empty()
            {
                // While a pong waits to get out, it is not to be lost to a ping.
                writer.pinged = now;
                writer.set_control(format.heartbeat());
            } else {
                continue;
            }
            drop(writer);
            connection.task.wake();
        }
    }

    /// The process stops, or the stream does: everybody gets a Close frame.
    fn stop(&mut self) {
        self.shard.stopping.store(true, Ordering::Relaxed);
        for connection in self.all() {
            self.end(connection);
        }
    }

    fn end(&self, connection: &Connection) {
        let format = self.shard.audience.format;
        let Farewell { code, reason } = self.shard.ender.farewell();
        connection.lock().end(format, code, reason);
        connection.task.wake();
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Connection>> {
        let others = self.parked.iter().chain(&self.own);
        self.driven.iter().chain(others)
    }

    fn list(&mut self, mode: Mode) -> &mut Vec<Arc<Connection>> {
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
