//! Checks the hand-over of a subscriber between its driver and its own task, under every order in which the two can run: the real
//! [`Driver`](super::driver), the real [`Subscriber`] and the real [`Connection`], each on a thread of its own, with a socket that has as much room
//! as it is told.
//!
//! The threads stop before each lock that the two have in common, and one of them goes on: which one is tried out, one way after the other
//! (depth first, with at most [`SWITCHES`] changes away from one that could have gone on, as in CHESS: few are enough for most errors). What
//! happens to a subscriber meanwhile, events, room in the socket, history that passes by, may come at each of these points as well.
//!
//! Whenever neither of the two has anything to do:
//! - what the socket has got is whole frames in their order, each byte once, but for the end, where it had no room;
//! - if it has room, it has got everything: nobody has missed being woken;
//! - if history has passed by, the subscriber is about to be closed, or to skip.
//!
//! That there is one writer at a time is for the compiler to see: writing takes the writer, which is in a lock.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::{Builder, Runtime};
use tokio_util::task::TaskTracker;

use super::connection::Connection;
use super::driver::Shard;
use super::subscriber::Subscriber;
use super::{Audience, Ender, Overload, Permit};
use crate::endpoint::subscribers::Subscribers;
use crate::endpoint::websocket::input::{Input, Unheard};
use crate::event::Payload;
use crate::listen::admission::Admission;
use crate::listen::streams::Counted;
use crate::shutdown::Stop;
use crate::stream::EventLog;
use crate::stream::history::Limits;
use crate::stream::join::Wish;
use crate::stream::usage::Usage;
use crate::wire::Format;

/// So often one that could have gone on is left for another one. With two, all of it takes minutes.
const SWITCHES: usize = 1;

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A socket that takes what it has room for.
#[derive(Default)]
pub struct Socket(Mutex<Taken>);

#[derive(Default)]
struct Taken {
    room: usize,
    bytes: Vec<u8>,
    waiting: Option<Waker>,
}

impl Socket {
    pub fn poll_write_ready(&self, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let mut taken = locked(&self.0);
        if taken.room > 0 {
            return Poll::Ready(Ok(()));
        }
        taken.waiting = Some(context.waker().clone());
        Poll::Pending
    }

    pub fn write(&self, bytes: &[u8]) -> usize {
        let mut taken = locked(&self.0);
        let len = bytes.len().min(taken.room);
        taken.room -= len;
        taken.bytes.extend_from_slice(&bytes[..len]);
        len
    }

    fn make_room(&self, room: usize) {
        let mut taken = locked(&self.0);
        taken.room += room;
        let waiting = taken.waiting.take();
        drop(taken);
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// One of the two threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Actor {
    Driver,
    Task,
}

/// What one of them is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    /// It could go on.
    Paused,
    /// It waits to be woken.
    Asleep,
    Over,
}

/// Lets one of the threads run at a time.
struct Turnstile {
    state: Mutex<Turns>,
    changed: Condvar,
    woken: [AtomicBool; 2],
}

struct Turns {
    turn: Option<Actor>,
    doing: [Doing; 2],
    /// It is over: they run to their ends.
    is_over: bool,
    panicked: Option<String>,
}

thread_local! {
    /// Where this thread stops, if it is one of a model.
    static STOPS_AT: RefCell<Option<(Arc<Turnstile>, Actor)>> = const { RefCell::new(None) };
}

/// Here another thread may go on, if this one belongs to a model.
pub fn step() {
    let stops_at = STOPS_AT.with_borrow(Clone::clone);
    if let Some((turnstile, actor)) = stops_at {
        turnstile.stop(actor, Doing::Paused);
    }
}

impl Turnstile {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(Turns {
                turn: None,
                doing: [Doing::Paused; 2],
                is_over: false,
                panicked: None,
            }),
            changed: Condvar::new(),
            woken: [AtomicBool::new(true), AtomicBool::new(true)],
        })
    }

    /// Gives the turn back, and waits for the next one; false if there will be none.
    fn stop(&self, actor: Actor, doing: Doing) -> bool {
        let mut state = locked(&self.state);
        state.doing[actor as usize] = doing;
        state.turn = None;
        self.changed.notify_all();
        self.wait(actor, state)
    }

    /// Waits for the turn; false if there will be none.
    fn wait(&self, actor: Actor, state: MutexGuard<'_, Turns>) -> bool {
        let waits = |state: &mut Turns| state.turn != Some(actor) && !state.is_over;
        let waiting = self.changed.wait_while(state, waits);
        !waiting.unwrap_or_else(PoisonError::into_inner).is_over
    }

    /// Lets one go on to where it stops next.
    fn run(&self, actor: Actor) {
        let mut state = locked(&self.state);
        state.turn = Some(actor);
        self.changed.notify_all();
        let state = self.changed.wait_while(state, |state| state.turn.is_some());
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        if let Some(message) = state.panicked.take() {
            drop(state);
            panic!("{actor:?}: {message}");
        }
    }

    fn can_go_on(&self, actor: Actor) -> bool {
        match locked(&self.state).doing[actor as usize] {
            Doing::Paused => true,
            Doing::Asleep => self.woken[actor as usize].load(Ordering::SeqCst),
            Doing::Over => false,
        }
    }

    fn is_paused(&self, actor: Actor) -> bool {
        locked(&self.state).doing[actor as usize] == Doing::Paused
    }

    /// Polls `future` whenever it has been woken, in turns.
    fn play(self: &Arc<Self>, actor: Actor, mut future: Pin<&mut impl Future<Output = ()>>) {
        struct Woken(Arc<Turnstile>, Actor);
        impl Wake for Woken {
            fn wake(self: Arc<Self>) {
                self.0.woken[self.1 as usize].store(true, Ordering::SeqCst);
            }
        }
        let waker = Waker::from(Arc::new(Woken(self.clone(), actor)));
        let mut context = Context::from_waker(&waker);
        let mut goes_on = self.wait(actor, locked(&self.state));
        while goes_on {
            goes_on = match self.woken[actor as usize].swap(false, Ordering::SeqCst) {
                true if future.as_mut().poll(&mut context).is_ready() => return,
                true => true,
                false => self.stop(actor, Doing::Asleep),
            };
        }
    }

    /// Runs `body` as one of the threads.
    fn thread(
        self: &Arc<Self>,
        actor: Actor,
        runtime: &Runtime,
        body: impl FnOnce(&Arc<Self>) + Send + 'static,
    ) -> thread::JoinHandle<()> {
        let (turnstile, handle) = (self.clone(), runtime.handle().clone());
        thread::spawn(move || {
            let _context = handle.enter();
            STOPS_AT.set(Some((turnstile.clone(), actor)));
            let result = catch_unwind(AssertUnwindSafe(|| body(&turnstile)));
            STOPS_AT.set(None);
            let mut state = locked(&turnstile.state);
            state.doing[actor as usize] = Doing::Over;
            if let Err(panic) = result {
                let message = panic.downcast_ref::<String>().cloned();
                state.panicked = Some(message.unwrap_or_else(|| "panicked".to_owned()));
            }
            state.turn = None;
            turnstile.changed.notify_all();
        })
    }

    fn end(&self) {
        locked(&self.state).is_over = true;
        self.changed.notify_all();
    }
}

/// One way through all choices after the other.
#[derive(Default)]
struct Choices {
    /// What was chosen, of how many.
    made: Vec<(usize, usize)>,
    at: usize,
}

impl Choices {
    fn choose(&mut self, of: usize) -> usize {
        if self.at == self.made.len() {
            self.made.push((0, of));
        }
        let (chosen, before) = self.made[self.at];
        assert_eq!(of, before, "the same choices lead to the same place");
        self.at += 1;
        chosen
    }

    /// Goes on to the next way; false if there is none.
    fn next(&mut self) -> bool {
        self.at = 0;
        while let Some((chosen, of)) = self.made.pop() {
            if chosen + 1 < of {
                self.made.push((chosen + 1, of));
                return true;
            }
        }
        false
    }
}

/// What happens to a subscriber.
#[derive(Debug, Clone, Copy)]
enum Happening {
    /// So many come at once.
    Events(u8),
    /// So many bytes fit in.
    Room(usize),
    Stop,
}
use Happening::{Events, Room, Stop as Ends};

/// Room for all that there may be.
const ALL: Happening = Room(1 << 30);

struct Scenario {
    overload: Overload,
    /// Events are so large.
    size: usize,
    /// So many are kept.
    history: usize,
    happenings: &'static [Happening],
}

struct World<'a> {
    scenario: &'a Scenario,
    log: Arc<EventLog>,
    socket: Arc<Socket>,
    connection: Arc<Connection>,
    turnstile: Arc<Turnstile>,
    stop: Stop,
    happened: usize,
    /// So many have come.
    events: u8,
}

/// What a socket has got, which must be whole but for the end: the events, and the code of a Close frame.
fn got(bytes: &[u8], size: usize) -> (Vec<u8>, Option<u16>) {
    let (mut rest, mut events, mut closed) = (bytes, vec![], None);
    while rest.len() >= 10 || rest.first().is_some_and(|first| first & 0xf == 8) {
        assert_eq!(closed, None, "nothing follows a Close frame");
        if rest[0] & 0xf == 8 {
            if rest.len() < 4 || rest.len() < 2 + usize::from(rest[1]) {
                break;
            }
            closed = Some(u16::from_be_bytes([rest[2], rest[3]]));
            rest = &rest[2 + usize::from(rest[1])..];
            continue;
        }
        let header = crate::wire::websocket::header(&Payload::binary(vec![0; size]));
        let (header, payload) = rest.split_at(header.as_ref().len().min(rest.len()));
        assert_eq!(
            header,
            crate::wire::websocket::header(&Payload::binary(vec![0; size])).as_ref()
        );
        let payload = &payload[..size.min(payload.len())];
        let Some(number) = payload.first().copied() else {
            break;
        };
        assert!(
            payload.iter().all(|byte| *byte == number),
            "parts of two events"
        );
        if payload.len() < size {
            break;
        }
        events.push(number);
        rest = &rest[header.len() + size..];
    }
    (events, closed)
}

impl World<'_> {
    fn happen(&mut self) {
        match self.scenario.happenings[self.happened] {
            Events(count) => {
                for _ in 0..count {
                    self.events += 1;
                    let payload = vec![self.events; self.scenario.size];
                    self.log.append(Payload::binary(payload));
                }
            }
            Room(room) => self.socket.make_room(room),
            Ends => self.stop.now(),
        }
        self.happened += 1;
    }

    /// Neither of the two has anything to do.
    fn check(&self) {
        let taken = locked(&self.socket.0);
        let (events, closed) = got(&taken.bytes, self.scenario.size);
        let writer = self.connection.lock();
        let skips = self.scenario.overload == Overload::Skip;
        for (before, number) in events.iter().zip(&events[1.min(events.len())..]) {
            let follows = *number == before + 1 || skips && number > before;
            assert!(follows, "{events:?}");
        }
        assert!(
            skips || events.first().is_none_or(|first| *first == 1),
            "{events:?}"
        );
        if writer.is_ending() {
            assert_eq!(closed.is_some(), taken.room > 0, "{events:?}");
        } else {
            assert_eq!(closed, None);
            let oldest = self.connection.tape().oldest();
            assert!(
                writer.stands_at().position >= oldest.position || writer.is_passed(),
                "history has passed by, and nobody has noticed"
            );
            assert!(
                taken.room == 0 || events.last().copied().unwrap_or(0) == self.events,
                "it has room and has got {events:?} of {}",
                self.events
            );
        }
    }

    /// Runs one way.
    fn run(&mut self, choices: &mut Choices) {
        let (mut running, mut switches) = (None, 0);
        loop {
            let able = [Actor::Driver, Actor::Task].map(Some);
            let mut able: Vec<_> = able
                .into_iter()
                .filter(|actor| actor.is_some_and(|actor| self.turnstile.can_go_on(actor)))
                .collect();
            if able.is_empty() {
                self.check();
            }
            if self.happened < self.scenario.happenings.len() {
                able.push(None);
            }
            let goes_on = running.filter(|actor| self.turnstile.is_paused(*actor));
            if let Some(actor) = goes_on {
                // The way without a switch is the first.
                able.retain(|other| *other != Some(actor));
                able.insert(0, Some(actor));
                if switches == SWITCHES {
                    able.truncate(1);
                }
            }
            if able.is_empty() {
                return;
            }
            let chosen = able[choices.choose(able.len())];
            switches += usize::from(goes_on.is_some() && chosen != goes_on);
            match chosen {
                Some(actor) => self.turnstile.run(actor),
                None => self.happen(),
            }
            running = chosen;
        }
    }
}

/// One run of a scenario.
fn play(scenario: &Scenario, runtime: &Runtime, choices: &mut Choices) {
    let context = runtime.enter();
    let log = Arc::new(EventLog::new(Limits {
        count: Some(scenario.history),
        ..Limits::from(1 << 30)
    }));
    let stop = Stop::new(Duration::from_secs(5));
    let count = Arc::new(Subscribers::new(stop.clone()));
    let audience = Arc::new(Audience {
        log: log.clone(),
        format: Format::WebSocket,
        path: "/".into(),
        heartbeat_interval: Duration::from_secs(30),
        max_connection_age: None,
        overload: scenario.overload,
        max_publish_rate: None,
        count,
    });
    let shard = Shard::new(audience.clone(), TaskTracker::new(), Ender::new(&stop));
    let subscription = log.subscribe(Format::WebSocket, &Wish::Live).subscription;
    let head = subscription.head.clone();
    let socket = Arc::new(Socket::default());
    let admitted = Admission::new(1, None).enter().expect("there is room");
    let connection = Arc::new(Connection::new(
        (
            Some(super::socket::Socket::Model(socket.clone())),
            Counted::Connection(admitted),
        ),
        ([127, 0, 0, 1], 1).into(),
        Bytes::new(),
        subscription,
        (0, None),
    ));
    audience.join();
    let permit = Permit {
        publish: Err(Unheard::Nobody),
        remaining: None,
        user: Arc::new(Usage::default()).enter(),
    };
    let subscriber = Subscriber::new(
        connection.clone(),
        shard.clone(),
        Input::new(Format::WebSocket, 1 << 20),
        permit,
        &[],
    );
    let turnstile = Turnstile::new();
    let driver = shard.driver_of(connection.clone(), head);
    drop((context, shard));
    let threads = [
        turnstile.thread(Actor::Driver, runtime, |turnstile| {
            turnstile.play(Actor::Driver, pin!(driver));
        }),
        turnstile.thread(Actor::Task, runtime, |turnstile| {
            turnstile.play(Actor::Task, pin!(subscriber));
        }),
    ];
    let mut world = World {
        scenario,
        log,
        socket,
        connection,
        turnstile: turnstile.clone(),
        stop,
        happened: 0,
        events: 0,
    };
    let result = catch_unwind(AssertUnwindSafe(|| world.run(choices)));
    turnstile.end();
    for thread in threads {
        thread.join().expect("panics have been caught");
    }
    if let Err(panic) = result {
        eprintln!("the choices were {:?}", choices.made);
        std::panic::resume_unwind(panic);
    }
}

/// All runs of a scenario.
fn explore(scenario: &Scenario) {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let (mut choices, mut runs) = (Choices::default(), 0);
    loop {
        play(scenario, &runtime, &mut choices);
        runs += 1;
        if !choices.next() {
            break;
        }
    }
    assert!(runs > 100, "there is more than {runs} orders to it");
}

#[test]
fn who_has_blocked_gets_on_when_there_is_room() {
    explore(&Scenario {
        overload: Overload::Disconnect,
        size: 400,
        history: 100,
        happenings: &[Room(300), Events(1), Room(200), Events(1), ALL],
    });
}

#[test]
fn who_is_far_behind_gets_all_in_turns() {
    explore(&Scenario {
        overload: Overload::Disconnect,
        size: 40 << 10,
        history: 100,
        happenings: &[Events(3), ALL, Events(1)],
    });
}

#[test]
fn who_is_passed_by_history_is_closed() {
    explore(&Scenario {
        overload: Overload::Disconnect,
        size: 400,
        history: 1,
        happenings: &[Room(300), Events(1), Events(3), ALL],
    });
}

#[test]
fn who_is_passed_by_history_skips() {
    explore(&Scenario {
        overload: Overload::Skip,
        size: 400,
        history: 1,
        happenings: &[Room(300), Events(1), Events(3), ALL],
    });
}

#[test]
fn who_has_to_go_gets_a_close_frame_at_a_boundary() {
    explore(&Scenario {
        overload: Overload::Disconnect,
        size: 400,
        history: 100,
        happenings: &[Room(300), Events(1), Ends, ALL],
    });
}
