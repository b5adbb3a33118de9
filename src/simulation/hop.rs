//! A hop: its log, what brings events into it, and what serves them; all of it the program's own, but sockets and clocks.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocket};
use tokio_util::sync::CancellationToken;

use super::World;
use super::net::{Arrived, End, Link, Node};
use crate::endpoint::answer;
use crate::endpoint::fanout::Overload;
use crate::endpoint::fanout::simulated::{Progress, Simulated};
use crate::endpoint::websocket::hello;
use crate::event::{EventId, Origin, Payload, SIMULATED_NOW};
use crate::source::Destination;
use crate::source::websocket::intake::Intake;
use crate::source::websocket::payload;
use crate::stream::EventLog;
use crate::stream::history::Limits;
use crate::stream::join::{Resumed, StateWish, Wish};
use crate::stream::merge::{Merge, Terms};
use crate::stream::tape::Changes;
use crate::stream::via::{self, Via};
use crate::wire::Format;
use crate::wire::hop::{self, Control, Instance as Named};

/// The largest event that is taken.
const MAX_MESSAGE: usize = 1 << 20;
/// The Unix time at which simulations begin, in microseconds.
const EPOCH: u64 = 1_700_000_000_000_000;
/// How long a link waits for its welcome.
const WELCOME: Duration = Duration::from_secs(10);

/// How a hop is started.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What it consumes.
    pub upstreams: Vec<Node>,
    /// The other members of its mesh.
    pub peers: Vec<Node>,
    /// Whether events enter the topology here.
    pub publishes: bool,
    /// The bounds of its history.
    pub history: Limits,
    /// What happens to slow plain readers.
    pub overload: Overload,
}

/// A place for a hop, which may be killed and started again there.
pub struct Hop {
    /// Its number.
    pub node: Node,
    /// How it is started.
    pub plan: Plan,
    /// How its clock differs from the simulation's, in microseconds.
    pub skew: Rc<Cell<i64>>,
    /// Stopped without being killed.
    pub freezer: Rc<Freezer>,
    /// The one that runs.
    running: RefCell<Option<Rc<Running>>>,
    /// How many have run.
    starts: Cell<u64>,
}

/// A process.
pub struct Running {
    /// The stream.
    pub log: Arc<EventLog>,
    merge: Arc<Merge>,
    via: Arc<Via>,
    stop: CancellationToken,
    /// Which one it is of those that have run here.
    pub generation: u64,
    tasks: RefCell<Vec<JoinHandle<()>>>,
    /// Whose order of events it has.
    order: Cell<Option<Order>>,
}

/// The instance that has put events into an order: place and generation.
pub type Order = (Node, u64);

/// What stops a process for a while.
#[derive(Default)]
pub struct Freezer {
    is_frozen: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
}

impl Freezer {
    /// Whether it is stopped.
    pub fn is_frozen(&self) -> bool {
        self.is_frozen.get()
    }

    /// It goes on, or does not.
    pub fn set(&self, is_frozen: bool) {
        self.is_frozen.set(is_frozen);
        if !is_frozen {
            self.waiting.borrow_mut().drain(..).for_each(Waker::wake);
        }
    }
}

/// How often anything has been done in a simulation: one that goes on and on while no time passes comes to an end by this.
#[derive(Default)]
pub struct Steps(Cell<u64>);

impl Steps {
    /// Far more than there are in any simulation that comes to rest.
    const MOST: u64 = 20_000_000;

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.0.get()
    }

    /// Whether there were too many: nothing is done any more.
    pub fn are_over(&self) -> bool {
        self.0.get() > Self::MOST
    }
}

/// A task of a process, with the clock of that process.
struct Clocked<F> {
    steps: Rc<Steps>,
    start: Instant,
    skew: Rc<Cell<i64>>,
    freezer: Rc<Freezer>,
    task: Pin<Box<F>>,
}

impl<F: Future<Output = ()>> Future for Clocked<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.steps.0.set(self.steps.0.get() + 1);
        if self.steps.are_over() {
            return Poll::Pending;
        }
        if self.freezer.is_frozen.get() {
            let mut waiting = self.freezer.waiting.borrow_mut();
            waiting.push(context.waker().clone());
            return Poll::Pending;
        }
        set_clock(self.start, self.skew.get());
        let polled = self.task.as_mut().poll(context);
        set_clock(self.start, 0);
        polled
    }
}

/// From now on it is this time on this thread.
pub fn set_clock(start: Instant, skew: i64) {
    let elapsed = start.elapsed().as_micros() as u64;
    SIMULATED_NOW.set(Some((EPOCH + elapsed).saturating_add_signed(skew)));
}

impl Hop {
    /// Nothing runs there yet.
    pub fn new(node: Node, plan: Plan, skew: i64) -> Rc<Self> {
        Rc::new(Self {
            node,
            plan,
            skew: Rc::new(Cell::new(skew)),
            freezer: Rc::default(),
            running: RefCell::default(),
            starts: Cell::new(0),
        })
    }

    /// What runs there.
    pub fn running(&self) -> Option<Rc<Running>> {
        self.running.borrow().clone()
    }

    /// Starts a process, with a new name and nothing in its history.
    pub fn start(self: &Rc<Self>, world: &Rc<World>) {
        let generation = self.starts.get() + 1;
        self.starts.set(generation);
        set_clock(world.start, self.skew.get());
        let name = world.new_origin(self.node, generation);
        let mut log = EventLog::named(name, self.plan.history, None);
        if !self.plan.peers.is_empty() {
            log = log.with_peers();
        }
        let log = Arc::new(log);
        let links = self.plan.upstreams.len() + self.plan.peers.len();
        let running = Rc::new(Running {
            merge: match links {
                0 | 1 => Merge::new(log.clone()),
                _ => Merge::of_several(log.clone(), &Terms::default()),
            },
            stop: CancellationToken::new(),
            via: Arc::new(Via::new(Named {
                id: name,
                address: format!("hop{}", self.node).into(),
                distance: 0,
            })),
            log,
            generation,
            tasks: RefCell::default(),
            order: Cell::new(None),
        });
        if let Some(tending) = running.merge.tending(running.stop.clone()) {
            tokio::spawn(tending);
        }
        let sources = self.plan.upstreams.iter().map(|node| (*node, false));
        let sources = sources.chain(self.plan.peers.iter().map(|node| (*node, true)));
        let sources: Vec<_> = sources.collect();
        for (number, (node, is_peer)) in sources.iter().enumerate() {
            let role = match is_peer {
                true => via::Role::Peer,
                false => via::Role::Consumed,
            };
            running
                .via
                .expect_as(role, number, &format!("ws://hop{node}/"));
        }
        for (number, (node, is_peer)) in sources.into_iter().enumerate() {
            let to = Destination {
                log: running.log.clone(),
                inflow: running.merge.inflow(number, is_peer),
                owes_past: true,
                pause: Arc::default(),
                via: running.via.clone(),
                number,
                on_demand: false,
            };
            to.inflow.expect_past();
            let (world, hop) = (world.clone(), self.clone());
            let process = running.clone();
            self.spawn(&world.clone(), &running, async move {
                hop.consume(&world, &process, node, to).await;
            });
        }
        *self.running.borrow_mut() = Some(running);
        world.note((1, self.node as u64, generation), || {
            format!("hop{} starts as {name}", self.node)
        });
    }

    /// Ends the process at once.
    pub fn kill(&self, world: &Rc<World>) {
        let Some(running) = self.running.take() else {
            return;
        };
        self.freezer.set(false);
        running.stop.cancel();
        running.tasks.take().iter().for_each(JoinHandle::abort);
        world.note((2, self.node as u64, 0), || {
            format!("hop{} is killed", self.node)
        });
        world.break_all(self.node);
    }

    /// Runs a task of the process.
    pub fn spawn(
        &self,
        world: &World,
        running: &Running,
        task: impl Future<Output = ()> + 'static,
    ) {
        let task = Clocked {
            steps: world.steps.clone(),
            start: world.start,
            skew: self.skew.clone(),
            freezer: self.freezer.clone(),
            task: Box::pin(task),
        };
        let mut tasks = running.tasks.borrow_mut();
        tasks.retain(|task| !task.is_finished());
        tasks.push(tokio::task::spawn_local(task));
    }

    /// Whose order of events this process has, as far as it is one that others have, too.
    pub fn order(&self, running: &Running) -> Order {
        let own = (self.node, running.generation);
        let is_relay =
            self.plan.upstreams.len() == 1 && self.plan.peers.is_empty() && !self.plan.publishes;
        match running.order.get() {
            Some(order) if is_relay => order,
            _ => own,
        }
    }

    /// A relay has met an upstream.
    fn meet(&self, world: &World, running: &Running, upstream: Node) {
        let upstream = &world.hops[upstream];
        let Some(order) = upstream.running().map(|process| upstream.order(&process)) else {
            return;
        };
        running.order.set(Some(match running.order.get() {
            None => order,
            Some(before) if before == order => order,
            Some(_) => (self.node, running.generation),
        }));
    }

    /// One upstream, connection after connection, as `source::websocket::consume` does it.
    async fn consume(&self, world: &Rc<World>, running: &Running, upstream: Node, to: Destination) {
        let mut intake = Intake::new(&to, MAX_MESSAGE);
        let mut ceiling = 200;
        loop {
            sleep(Duration::from_millis(world.between(50, ceiling))).await;
            ceiling = (ceiling * 2).min(1_600);
            let Some(link) = world.connect(upstream, self.node).await else {
                to.via.lost(to.number, None);
                continue;
            };
            to.via.connected(to.number);
            let (node, number) = (self.node, link.number);
            let met = || self.meet(world, running, upstream);
            let end = follow(world, &mut intake, &link, met).await;
            intake.ended();
            link.break_at(End::Client);
            world.break_later(&link, End::Server);
            if intake.take_count() > 0 {
                ceiling = 200;
            }
            to.via.lost(to.number, None);
            world.note((3, node as u64, number as u64), || {
                format!("hop{node} <- hop{upstream}: link {number} ends: {end}")
            });
        }
    }

    /// Serves a link that has just been made.
    pub fn serve(self: &Rc<Self>, world: &Rc<World>, link: Rc<Link>) {
        let Some(running) = self.running() else {
            link.break_at(End::Server);
            return world.break_later(&link, End::Client);
        };
        let (world, hop, process) = (world.clone(), self.clone(), running.clone());
        self.spawn(&world.clone(), &running, async move {
            if let Err(error) = hop.answer(&world, &process, &link).await {
                world.note((4, link.number as u64, 0), || {
                    format!("link {} is not served: {error:#}", link.number)
                });
            }
            link.down.finish();
        });
    }

    /// Answers what a client asks for, and writes to it until one of them ends it.
    async fn answer(&self, world: &Rc<World>, running: &Running, link: &Link) -> Result<()> {
        let Some(said) = link.hear(world).await else {
            return Ok(());
        };
        let (mut head, subscriber) = match Asked::parse(&said)? {
            Asked::Link(asked) => {
                let (joined, _) =
                    hello::join(&running.log, Format::Hop, &running.via, &asked).await?;
                let log = match asked.scope {
                    hop::Scope::All => running.log.clone(),
                    hop::Scope::Local => running.log.own_local().unwrap_or(&running.log).clone(),
                };
                let have = asked.have.iter().map(|id| id.origin);
                let known = have.filter(|origin| log.knows(*origin));
                *link.known.borrow_mut() = known.collect();
                let preface = hello::welcome(&joined, &running.via, asked.scope);
                let how = (Format::Hop, self.plan.overload);
                let head = joined.subscription.head.clone();
                (head, Simulated::new(log, how, preface, joined.subscription))
            }
            Asked::Plain(format, wish) => {
                let log = running.log.clone();
                log.wait_for(&wish).await;
                let joined = log.subscribe_with(format, &wish, StateWish::No);
                let known = log.have().into_iter().map(|id| id.origin);
                *link.known.borrow_mut() = known.chain([log.origin()]).collect();
                let mut preface = format!("{}\n", joined.resumed.as_str()).into_bytes();
                preface.extend(answer::preface(format, &wish, &joined));
                if joined.resumed == Resumed::Yes {
                    assert!(joined.gaps.is_empty(), "resumed in full, and a gap");
                }
                let how = (format, self.plan.overload);
                let head = joined.subscription.head.clone();
                (
                    head,
                    Simulated::new(log, how, preface.into(), joined.subscription),
                )
            }
        };
        write(world, link, &mut head, subscriber).await;
        Ok(())
    }

    /// Appends an event; its id.
    pub fn publish(&self, world: &World, running: &Running, payload: Payload) -> EventId {
        set_clock(world.start, self.skew.get());
        running.log.append(payload)
    }
}

/// Writes to a client as its driver and its own task do.
async fn write(world: &World, link: &Link, head: &mut Changes, mut to: Simulated) {
    let mut looks = 0u64;
    loop {
        head.mark_seen();
        let room = link.down.changed.notified();
        if link.is_broken(End::Server) {
            return;
        }
        match to.write(|bytes| link.send(world, bytes)) {
            Progress::CaughtUp => {
                tokio::select! {
                    biased;
                    () = head.changed() => {}
                    () = room => {}
                }
            }
            Progress::Behind => tokio::task::yield_now().await,
            Progress::Blocked => {
                tokio::select! {
                    biased;
                    () = room => {}
                    () = head.changed() => {}
                }
                looks += 1;
                if looks.is_multiple_of(3) {
                    to.look_at_history();
                }
            }
            Progress::Closed | Progress::Broken => return,
        }
    }
}

/// What a client has asked for, as it is written in the simulation.
enum Asked {
    Link(hop::Hello),
    Plain(Format, Wish),
}

impl Asked {
    fn parse(said: &str) -> Result<Self> {
        if said.starts_with('!') {
            return match hop::decode(Payload::text(said))? {
                hop::Message::Control(Control::Hello(hello)) => Ok(Self::Link(hello)),
                other => bail!("no hello, but {other:?}"),
            };
        }
        let (format, wish) = said.split_once(' ').unwrap_or((said, ""));
        let format = match format {
            "sse" => Format::Sse,
            _ => Format::Ndjson,
        };
        Ok(Self::Plain(
            format,
            match wish {
                "" => Wish::Live,
                "all" => Wish::All,
                id => Wish::After(id.into()),
            },
        ))
    }
}

/// Takes what comes over a link until it ends, and says how it did.
async fn follow(world: &World, intake: &mut Intake<'_>, link: &Link, met: impl Fn()) -> String {
    let hello = Control::Hello(intake.hello()).to_string();
    if world.chance(4) {
        sleep(Duration::from_millis(world.between(1, 1_500))).await;
    }
    link.say(world, &hello);
    let mut messages = Messages::default();
    let welcome = timeout(WELCOME, messages.next(world, link)).await;
    let Ok(Some(first)) = welcome else {
        return "no welcome".into();
    };
    match hop::decode(first) {
        Ok(hop::Message::Control(Control::Welcome(welcome))) => intake.welcomed(welcome),
        other => return format!("no welcome, but {other:?}"),
    }
    met();
    while let Some(payload) = messages.next(world, link).await {
        world.note((14, link.number as u64, 0), || {
            // The header line, in which names are numbers.
            let line = payload.bytes.split(|byte| *byte == b'\n').next();
            let line = line.unwrap_or_default().escape_ascii();
            format!("link {}: {line}", link.number)
        });
        if let Err(error) = intake.take(payload) {
            return format!("{error:#}");
        }
    }
    messages.end.unwrap_or_else(|| "lost".into())
}

/// The messages of a link.
pub struct Messages {
    socket: WebSocket<Arrived>,
    /// How it ended, if in due form.
    pub end: Option<String>,
}

impl Default for Messages {
    fn default() -> Self {
        Self {
            socket: WebSocket::from_raw_socket(Arrived::default(), Role::Client, None),
            end: None,
        }
    }
}

impl Messages {
    /// The next one; none if there will be none.
    pub async fn next(&mut self, world: &World, link: &Link) -> Option<Payload> {
        use tokio_tungstenite::tungstenite::Error;
        loop {
            match self.socket.read() {
                Ok(message @ (Message::Text(_) | Message::Binary(_))) => {
                    return payload(Some(Ok(message))).ok().flatten();
                }
                Ok(Message::Close(frame)) => {
                    let code = frame.map(|frame| u16::from(frame.code));
                    self.end = Some(format!("closed with {code:?}"));
                    return None;
                }
                Ok(_) => {}
                Err(Error::Io(_)) => {
                    let bytes = link.receive(world).await?;
                    self.socket.get_mut().add(&bytes);
                }
                Err(error) => {
                    world.fail(format!("link {}: {error}", link.number));
                    return None;
                }
            }
        }
    }
}

/// The name of an instance for the trace.
pub fn shown(world: &World, origin: Origin) -> String {
    let births = world.births.borrow();
    births.get(&origin).map_or_else(
        || origin.to_string(),
        |(node, generation)| format!("{node}.{generation}"),
    )
}
