//! The network: bytes arrive late, in other pieces than they were sent in, in order, or not at all.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::World;

/// Where a link ends: a hop or a subscriber, by its number.
pub type Node = usize;

/// How a way through the network is at the moment.
#[derive(Debug, Clone, Copy)]
pub struct Quality {
    /// How long bytes travel.
    pub latency: Duration,
    /// How much longer some of them do, at most.
    pub jitter: Duration,
    /// Bytes a second.
    pub bandwidth: u64,
    /// Bytes that may be on their way, or arrived and not read.
    pub window: usize,
}

/// A connection between a server and its client.
pub struct Link {
    /// Tells it from all others, in the order in which they were made.
    pub number: usize,
    /// Where the bytes of the stream come from.
    pub server: Node,
    /// Where they go.
    pub client: Node,
    /// What the server sends.
    pub down: Pipe,
    /// What the client sends, in whole messages.
    pub up: Pipe,
    /// What of it the client asked for is known at the server, for the client to judge what it should be told.
    pub known: RefCell<Vec<crate::event::Origin>>,
    /// Each end finds out by itself that it has broken.
    is_broken: [Cell<bool>; 2],
}

/// The two ends of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// That of the server.
    Server,
    /// That of the client.
    Client,
}

impl Link {
    /// A link on which nothing has been sent.
    pub fn new(number: usize, (server, client): (Node, Node), quality: Quality) -> Rc<Self> {
        Rc::new(Self {
            number,
            server,
            client,
            down: Pipe::new((server, client), quality),
            up: Pipe::new((client, server), quality),
            known: RefCell::default(),
            is_broken: [Cell::new(false), Cell::new(false)],
        })
    }

    /// Whether this end knows that it has broken.
    pub fn is_broken(&self, end: End) -> bool {
        self.is_broken[end as usize].get()
    }

    /// This end finds out that it has broken: what is on its way to it is lost.
    pub fn break_at(&self, end: End) {
        self.is_broken[end as usize].set(true);
        self.down.changed.notify_waiters();
        self.up.changed.notify_waiters();
    }

    /// Whether it has broken for both.
    pub fn is_over(&self) -> bool {
        self.is_broken(End::Server) && self.is_broken(End::Client)
    }

    /// What the server can send now.
    pub fn send(&self, world: &World, bytes: &[u8]) -> io::Result<usize> {
        match self.is_broken(End::Server) {
            true => Err(io::ErrorKind::ConnectionReset.into()),
            false => Ok(self.down.push(world, bytes)),
        }
    }

    /// The next bytes for the client; none if there will be no more.
    pub async fn receive(&self, world: &World) -> Option<Vec<u8>> {
        self.down.pull(world, || self.is_broken(End::Client)).await
    }

    /// Says something to the server, as a whole.
    pub fn say(&self, world: &World, text: &str) {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            // There is room for all that a client says.
            rest = &rest[self.up.push(world, rest)..];
        }
        self.up.finish();
    }

    /// What the client has said, as a whole.
    pub async fn hear(&self, world: &World) -> Option<String> {
        let mut said = Vec::new();
        while let Some(bytes) = self.up.pull(world, || self.is_broken(End::Server)).await {
            said.extend_from_slice(&bytes);
        }
        match self.is_broken(End::Server) {
            true => None,
            false => String::from_utf8(said).ok(),
        }
    }
}

/// One direction of a link.
pub struct Pipe {
    way: (Node, Node),
    quality: Cell<Quality>,
    /// With when they arrive.
    segments: RefCell<VecDeque<(Instant, Vec<u8>)>>,
    on_the_way: Cell<usize>,
    is_finished: Cell<bool>,
    /// When there is something to look at again.
    pub changed: Notify,
}

impl Pipe {
    fn new(way: (Node, Node), quality: Quality) -> Self {
        Self {
            way,
            quality: Cell::new(quality),
            segments: RefCell::default(),
            on_the_way: Cell::new(0),
            is_finished: Cell::new(false),
            changed: Notify::new(),
        }
    }

    /// From now on it is like this.
    pub fn set_quality(&self, quality: Quality) {
        self.quality.set(quality);
        self.changed.notify_waiters();
    }

    /// Nothing follows.
    pub fn finish(&self) {
        self.is_finished.set(true);
        self.changed.notify_waiters();
    }

    fn push(&self, world: &World, bytes: &[u8]) -> usize {
        let quality = self.quality.get();
        let room = quality.window.saturating_sub(self.on_the_way.get());
        let mut len = bytes.len().min(room);
        if len > 1 && world.chance(5) {
            len = world.between(1, len as u64) as usize;
        }
        if len == 0 {
            return 0;
        }
        let now = Instant::now();
        let mut segments = self.segments.borrow_mut();
        let before = segments.back().map_or(now, |(arrival, _)| *arrival);
        let jitter = quality.jitter.as_micros() as u64;
        let late = Duration::from_micros(world.between(0, jitter));
        let sending = Duration::from_micros(len as u64 * 1_000_000 / quality.bandwidth);
        let arrival = (now + quality.latency + late).max(before) + sending;
        segments.push_back((arrival, bytes[..len].to_vec()));
        self.on_the_way.set(self.on_the_way.get() + len);
        self.changed.notify_waiters();
        len
    }

    async fn pull(&self, world: &World, is_broken: impl Fn() -> bool) -> Option<Vec<u8>> {
        loop {
            let changed = self.changed.notified();
            let cut_changed = world.cuts_changed.notified();
            if is_broken() {
                return None;
            }
            let arrival = self.segments.borrow().front().map(|(arrival, _)| *arrival);
            let is_cut = world.is_cut(self.way);
            match arrival {
                Some(arrival) if !is_cut && arrival <= Instant::now() => {
                    return Some(self.pop(world));
                }
                None if self.is_finished.get() => return None,
                Some(arrival) if !is_cut => tokio::select! {
                    biased;
                    () = changed => {}
                    () = cut_changed => {}
                    () = sleep_until(arrival) => {}
                },
                _ => tokio::select! {
                    biased;
                    () = changed => {}
                    () = cut_changed => {}
                },
            }
        }
    }

    /// Takes what has arrived first, or a part of it.
    fn pop(&self, world: &World) -> Vec<u8> {
        let mut segments = self.segments.borrow_mut();
        let (arrival, mut bytes) = segments.pop_front().expect("it was there");
        if bytes.len() > 1 && world.chance(8) {
            let rest = bytes.split_off(world.between(1, bytes.len() as u64 - 1) as usize);
            segments.push_front((arrival, rest));
        }
        drop(segments);
        self.on_the_way.set(self.on_the_way.get() - bytes.len());
        self.changed.notify_waiters();
        world.delivered.set(world.delivered.get() + 1);
        bytes
    }
}

/// What has arrived, as a WebSocket reads it.
#[derive(Default)]
pub struct Arrived(VecDeque<u8>);

impl Arrived {
    /// More has.
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }
}

impl Read for Arrived {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            len => Ok(len),
        }
    }
}

/// What a client answers to frames is not sent: nobody would look at it.
impl Write for Arrived {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
