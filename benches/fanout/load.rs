//! The load generator: thousands of subscribers on one thread.
//!
//! It shares the machine with what it measures, so it does as little as it can: epoll, one big read buffer for all, no
//! library for what it reads. It checks that each subscriber gets every sequence number once and in order, and records
//! every latency.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mio::net::TcpStream as Socket;
use mio::{Events, Interest, Poll, Token};

use crate::common::histogram::Histogram;
use crate::common::now_ns;
use crate::feed::Event;
use crate::transport::{Item, Transport};

/// Connects under way at once.
const CONNECTING: usize = 100;

/// Bytes of one read; a subscriber that is behind hands over this much at a time.
const READ_BYTES: usize = 256 * 1024;

/// What one group of subscribers has seen since [`Load::start`].
#[derive(Default)]
pub struct Tally {
    /// Events that arrived, repeats included.
    pub received: u64,
    /// Events that came twice or late.
    pub disordered: u64,
    /// The sum of all sequence numbers: what says that nothing is missing where several publish and the order is nobody's.
    pub sum: u64,
    /// Creation to arrival, in nanoseconds.
    pub latency: Histogram,
}

/// All subscribers of one server (or, in groups, of several).
pub struct Load {
    poll: Poll,
    events: Events,
    buffer: Box<[u8]>,
    clients: Vec<Client>,
    opening: usize,
    closed: u64,
    tallies: Vec<Tally>,
    spinning: bool,
}

struct Client {
    socket: Socket,
    transport: Transport,
    group: usize,
    phase: Phase,
    /// Sequence number of the latest event; 0 before the first, which may be any.
    last: u64,
    /// The cut item at the end of the last read.
    rest: Vec<u8>,
}

#[derive(PartialEq)]
enum Phase {
    Opening,
    Open,
    Closed,
}

impl Load {
    /// No subscribers yet.
    pub fn new() -> Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            clients: Vec::new(),
            opening: 0,
            closed: 0,
            tallies: Vec::new(),
            spinning: false,
        })
    }

    /// From now on looks for arrivals without ever sleeping: the time to wake up, which is longer than what a hop
    /// takes, would hide the difference between two subscribers.
    pub fn spin(&mut self) {
        self.spinning = true;
    }

    /// Connects `count` subscribers, who are a group of their own, and returns when all handshakes are done.
    pub fn connect(
        &mut self,
        transport: Transport,
        address: SocketAddr,
        target: &str,
        count: usize,
    ) -> Result<()> {
        let group = self.tallies.len();
        self.tallies.push(Tally::default());
        let request = transport.request(address, target);
        let deadline = Instant::now() + Duration::from_secs(60);
        let all = self.clients.len() + count;
        while self.clients.len() < all || self.opening > 0 {
            while self.clients.len() < all && self.opening < CONNECTING {
                self.connect_one(address, transport, &request, group)?;
            }
            self.turn(Duration::from_millis(100))?;
            ensure!(self.closed == 0, "a subscriber was refused");
            ensure!(
                Instant::now() < deadline,
                "subscribers could not connect within a minute"
            );
        }
        Ok(())
    }

    fn connect_one(
        &mut self,
        address: SocketAddr,
        transport: Transport,
        request: &str,
        group: usize,
    ) -> Result<()> {
        // On loopback a connect is done when the call returns, unless the backlog is full.
        let mut stream = TcpStream::connect(address).context("connect a subscriber")?;
        stream.set_nodelay(true)?;
        stream.write_all(request.as_bytes())?;
        stream.set_nonblocking(true)?;
        let mut socket = Socket::from_std(stream);
        self.poll.registry().register(
            &mut socket,
            Token(self.clients.len()),
            Interest::READABLE,
        )?;
        self.clients.push(Client {
            socket,
            transport,
            group,
            phase: Phase::Opening,
            last: 0,
            rest: Vec::new(),
        });
        self.opening += 1;
        Ok(())
    }

    /// Forgets the counts so far.
    pub fn start(&mut self) {
        self.tallies
            .iter_mut()
            .for_each(|tally| *tally = Tally::default());
    }

    /// What each group has seen, in the order they connected.
    pub fn tallies(&self) -> &[Tally] {
        &self.tallies
    }

    /// Events that arrived at all groups, repeats included.
    pub fn received(&self) -> u64 {
        self.tallies.iter().map(|tally| tally.received).sum()
    }

    /// Events that came twice or out of order.
    pub fn disordered(&self) -> u64 {
        self.tallies.iter().map(|tally| tally.disordered).sum()
    }

    /// Subscribers that are connected.
    pub fn open(&self) -> usize {
        self.clients.len() - self.closed as usize
    }

    /// Subscribers that have been disconnected, ever.
    pub fn closed(&self) -> u64 {
        self.closed
    }

    /// Open subscribers that have not got as far as this event.
    pub fn behind(&self, seq: u64) -> usize {
        self.clients
            .iter()
            .filter(|client| client.phase != Phase::Closed && client.last < seq)
            .count()
    }

    /// Half a second without events, in which a server finishes what it does behind a handshake.
    pub fn settle(&mut self) -> Result<()> {
        let until = Instant::now() + Duration::from_millis(500);
        while Instant::now() < until {
            self.turn(Duration::from_millis(50))?;
        }
        Ok(())
    }

    /// Waits for something to read and reads it.
    pub fn turn(&mut self, wait: Duration) -> Result<()> {
        let wait = if self.spinning { Duration::ZERO } else { wait };
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        for event in &self.events {
            let client = &mut self.clients[event.token().0];
            if client.phase == Phase::Closed {
                continue;
            }
            let was_opening = client.phase == Phase::Opening;
            let alive = client.read(&mut self.buffer, &mut self.tallies)?;
            if was_opening && (client.phase == Phase::Open || !alive) {
                self.opening -= 1;
            }
            if !alive {
                client.phase = Phase::Closed;
                let _ = client.socket.shutdown(Shutdown::Both);
                self.closed += 1;
            }
        }
        Ok(())
    }
}

impl Client {
    /// Reads all there is; says whether the connection goes on.
    fn read(&mut self, buffer: &mut [u8], tallies: &mut [Tally]) -> Result<bool> {
        loop {
            let kept = self.rest.len();
            buffer[..kept].copy_from_slice(&self.rest);
            let read = match self.socket.read(&mut buffer[kept..]) {
                Ok(0) => return Ok(false),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(_) => return Ok(false),
            };
            self.rest.clear();
            let Some(taken) = self.take(&buffer[..kept + read], &mut tallies[self.group])? else {
                return Ok(false);
            };
            self.rest.extend_from_slice(&buffer[taken..kept + read]);
            // A short read has emptied the socket; a new arrival wakes us again.
            if read < buffer.len() - kept {
                return Ok(true);
            }
        }
    }

    /// Consumes whole items and returns how many bytes they were; `None` after a Close.
    fn take(&mut self, bytes: &[u8], tally: &mut Tally) -> Result<Option<usize>> {
        let mut at = 0;
        if self.phase == Phase::Opening {
            let Some(head) = self.transport.head(bytes)? else {
                return Ok(Some(0));
            };
            self.phase = Phase::Open;
            at = head;
        }
        let now = now_ns();
        while let Some((item, length)) = self.transport.item(&bytes[at..])? {
            match item {
                Item::Event(event) => self.count(event, now, tally),
                Item::Ping(payload) => self.pong(payload)?,
                Item::Close => return Ok(None),
                Item::Other => {}
            }
            at += length;
        }
        Ok(Some(at))
    }

    fn count(&mut self, event: Event, now: u64, tally: &mut Tally) {
        tally.received += 1;
        tally.sum = tally.sum.wrapping_add(event.seq);
        tally.latency.add(now.saturating_sub(event.created_ns));
        if event.seq > self.last {
            self.last = event.seq;
        } else {
            tally.disordered += 1;
        }
    }

    fn pong(&mut self, payload: &[u8]) -> Result<()> {
        Ok(self.socket.write_all(&self.transport.pong(payload)?)?)
    }
}
