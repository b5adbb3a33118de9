//! Both ends of every proxied connection, clients and upstreams, in one epoll loop on one thread.
//!
//! It never sleeps while something is measured: waking it up would be part of the proxy's CPU time, and dear where the CPUs
//! are virtual.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use crate::common::histogram::Histogram;
use crate::common::now_ns;
use crate::end::{End, Role};
use crate::wire::{Ask, Chunks, DOWN, EVENT, Layout, MESSAGE_BYTES, Message, UP};

/// Upstreams behind every proxy.
const UPSTREAMS: usize = 3;

/// Connects under way at once.
pub const CONNECTING: usize = 50;

/// Bytes of one read.
const READ_BYTES: usize = 256 * 1024;

/// How long nothing may happen before what is due is given up.
const QUIET: Duration = Duration::from_secs(3);

/// What the ends have seen since [`Ends::start`].
#[derive(Default)]
pub struct Seen {
    /// Messages that arrived at clients.
    pub received: u64,
    /// Those whose number was not the next one.
    pub disordered: u64,
    /// Due to arrival (from a request to its answer, from a ping to its echo), in nanoseconds.
    pub latency: Histogram,
    /// Bytes that arrived at clients.
    pub bytes: u64,
    /// Plain requests that were answered.
    pub answered: u64,
    /// Clients that were disconnected.
    pub cut: u64,
    /// Connections that ended at the upstreams.
    pub ended: u64,
}

/// Who sends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// The upstream, to the client.
    Upstream,
    /// The client, and the upstream sends it back.
    Client,
}

/// The clients of one proxy, and its upstreams.
pub struct Ends {
    poll: Poll,
    events: Events,
    buffer: Vec<u8>,
    listeners: Vec<TcpListener>,
    /// Where the upstreams listen.
    pub upstreams: Vec<SocketAddr>,
    /// Connections that came to each of them.
    pub accepted: [u64; UPSTREAMS],
    ends: Vec<Option<End>>,
    free: Vec<usize>,
    /// The client's place in `ends`, by its number.
    clients: Vec<usize>,
    /// The place of the stream's other end, by the client's number.
    streams: Vec<Option<usize>>,
    opening: usize,
    opened: u64,
    /// Clients go as soon as they are connected.
    leave: bool,
    /// Plain requests to make yet.
    requests: u64,
    /// What has been seen.
    pub seen: Seen,
}

impl Ends {
    /// Upstreams that listen, on an address each, and no clients.
    pub fn new() -> Result<Self> {
        let poll = Poll::new()?;
        let (mut listeners, mut upstreams) = (Vec::new(), Vec::new());
        for index in 0..UPSTREAMS {
            let mut listener = TcpListener::bind(([127, 0, 0, 2 + index as u8], 0).into())?;
            upstreams.push(listener.local_addr()?);
            poll.registry()
                .register(&mut listener, Token(index), Interest::READABLE)?;
            listeners.push(listener);
        }
        Ok(Self {
            poll,
            events: Events::with_capacity(1024),
            buffer: vec![0; READ_BYTES],
            listeners,
            upstreams,
            accepted: [0; UPSTREAMS],
            ends: Vec::new(),
            free: Vec::new(),
            clients: Vec::new(),
            streams: Vec::new(),
            opening: 0,
            opened: 0,
            leave: false,
            requests: 0,
            seen: Seen::default(),
        })
    }

    /// Forgets what was seen.
    pub fn start(&mut self) {
        self.seen = Seen::default();
    }

    /// Clients there have been.
    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    /// Connects so many clients, to these addresses in turn, and returns when each has its answer's head.
    pub fn connect(&mut self, addresses: &[SocketAddr], ask: Ask, count: usize) -> Result<()> {
        let all = self.clients.len() + count;
        let mut progress = Progress::new();
        while self.clients.len() < all || self.opening > 0 {
            while self.clients.len() < all && self.opening < CONNECTING {
                let address = addresses[self.clients.len() % addresses.len()];
                self.connect_one(address, ask)?;
            }
            self.turn(Duration::ZERO)?;
            ensure!(self.seen.cut == 0, "a client was disconnected");
            ensure!(
                progress.made(self.opened),
                "{} clients could not connect",
                self.opening
            );
        }
        Ok(())
    }

    /// So many clients connect, get a WebSocket, and go at once; returns when the upstreams have seen all of them go.
    pub fn come_and_go(&mut self, addresses: &[SocketAddr], count: usize) -> Result<()> {
        self.leave = true;
        self.connect(addresses, Ask::WebSocket, count)?;
        self.leave = false;
        let mut progress = Progress::new();
        while self.seen.ended < count as u64 && progress.made(self.seen.ended) {
            self.turn(Duration::ZERO)?;
        }
        Ok(())
    }

    /// Sends messages on all streams in turn, `at_once` of them whenever that many are due at this rate, until all have
    /// arrived or nothing more does.
    pub fn pace(&mut self, sender: Sender, messages: u64, rate: u64, at_once: u64) -> Result<()> {
        let streams = self.clients.len() as u64;
        let begin = now_ns();
        let due = |n: u64| begin + n / at_once * at_once * 1_000_000_000 / rate;
        let mut progress = Progress::new();
        let mut sent = 0;
        let all = self.seen.received + messages;
        while self.seen.received < all && progress.made(self.seen.received) {
            let now = now_ns();
            let first = sent;
            // Not all of a burst before the first is read: what is late at the ends is nothing a proxy can help.
            while sent < messages && due(sent) <= now && sent - first < 32 {
                let number = (sent % streams) as usize;
                match sender {
                    Sender::Upstream => self.send_down(number, due(sent))?,
                    Sender::Client => self.send_up(number, due(sent))?,
                }
                sent += 1;
            }
            self.turn(Duration::ZERO)?;
        }
        Ok(())
    }

    /// Sends so many bytes on each stream, as large messages one behind the other, as fast as they are taken.
    pub fn flood(&mut self, layout: &'static Layout, bytes_each: usize) -> Result<()> {
        let block = layout.message(0, 0).repeat(4);
        let bytes_each = bytes_each / layout.size() * layout.size();
        for client in &self.clients {
            let client = self.ends[*client].as_mut().context("no client")?;
            client.messages.expect(layout);
        }
        let mut sent = vec![0; self.clients.len()];
        let due = (bytes_each * sent.len()) as u64;
        let mut progress = Progress::new();
        while self.seen.bytes < due && progress.made(self.seen.bytes) {
            for (number, sent) in sent.iter_mut().enumerate() {
                let at = *sent % block.len();
                let piece = &block[at..block.len().min(at + bytes_each - *sent)];
                if piece.is_empty() {
                    continue;
                }
                let stream = self.stream(number)?;
                match stream.socket.write(piece) {
                    Ok(written) => *sent += written,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error.into()),
                }
            }
            self.turn(Duration::ZERO)?;
        }
        Ok(())
    }

    /// All clients make plain requests, each the next one when it has its answer, so many in all.
    pub fn request(&mut self, count: u64) -> Result<()> {
        self.requests = count;
        for client in self.clients.clone() {
            let mut end = self.ends[client].take().context("no client")?;
            let sent = self.ask_again(&mut end);
            self.ends[client] = Some(end);
            sent?;
        }
        let mut progress = Progress::new();
        while self.seen.answered < count && progress.made(self.seen.answered) {
            self.turn(Duration::ZERO)?;
        }
        Ok(())
    }

    /// Time without traffic, in which a proxy finishes what it does behind it.
    pub fn settle(&mut self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.turn(Duration::from_millis(20))?;
        }
        Ok(())
    }

    fn connect_one(&mut self, address: SocketAddr, ask: Ask) -> Result<()> {
        let number = self.clients.len();
        // Blocking, so that the request can be written; on a loopback this takes no time.
        let socket = std::net::TcpStream::connect(address).context("connect")?;
        socket.set_nonblocking(true)?;
        let mut end = End::new(
            TcpStream::from_std(socket),
            number,
            Role::Asking(ask),
            if ask == Ask::Sse { &EVENT } else { &DOWN },
        )?;
        end.asked_ns = now_ns();
        end.write(ask.request(number).as_bytes())?;
        let place = self.place(end)?;
        self.clients.push(place);
        self.streams.push(None);
        self.opening += 1;
        Ok(())
    }

    fn place(&mut self, mut end: End) -> Result<usize> {
        let place = self.free.pop().unwrap_or_else(|| {
            self.ends.push(None);
            self.ends.len() - 1
        });
        self.poll.registry().register(
            &mut end.socket,
            Token(UPSTREAMS + place),
            Interest::READABLE,
        )?;
        self.ends[place] = Some(end);
        Ok(place)
    }

    fn stream(&mut self, number: usize) -> Result<&mut End> {
        let place = self.streams[number].context("no stream")?;
        self.ends[place].as_mut().context("the stream has ended")
    }

    fn send_down(&mut self, number: usize, created_ns: u64) -> Result<()> {
        self.stream(number)?.send_down(created_ns)
    }

    fn send_up(&mut self, number: usize, created_ns: u64) -> Result<()> {
        let client = self.ends[self.clients[number]].as_mut();
        let message = UP.message(1, created_ns);
        client.context("no client")?.write(&message)
    }

    /// Sees to all that has come; waits for it if nothing has.
    fn turn(&mut self, wait: Duration) -> Result<()> {
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        let tokens: Vec<usize> = self.events.iter().map(|event| event.token().0).collect();
        let mut buffer = std::mem::take(&mut self.buffer);
        // A place is given away only after the events that may still be for its last owner.
        let mut free = Vec::new();
        for token in tokens {
            let Some(place) = token.checked_sub(UPSTREAMS) else {
                self.accept(token)?;
                continue;
            };
            let Some(mut end) = self.ends[place].take() else {
                continue;
            };
            if self.serve(place, &mut end, &mut buffer)? {
                self.ends[place] = Some(end);
            } else {
                free.push(place);
            }
        }
        self.free.append(&mut free);
        self.buffer = buffer;
        Ok(())
    }

    fn accept(&mut self, index: usize) -> Result<()> {
        loop {
            match self.listeners[index].accept() {
                Ok((socket, _)) => {
                    self.accepted[index] += 1;
                    self.place(End::new(socket, usize::MAX, Role::Serving, &UP)?)?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Reads all there is; says whether the connection goes on.
    fn serve(&mut self, place: usize, end: &mut End, buffer: &mut [u8]) -> Result<bool> {
        loop {
            let read = match end.socket.read(buffer) {
                Ok(read) if read > 0 => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                _ => {
                    match end.role {
                        Role::Asking(_) | Role::Reading => self.seen.cut += 1,
                        Role::Serving | Role::Streaming(_) => self.seen.ended += 1,
                    }
                    return Ok(false);
                }
            };
            let bytes = &buffer[..read];
            let stays = match end.role {
                Role::Asking(ask) => self.answered(ask, end, bytes)?,
                Role::Reading => self.arrived(end, bytes).map(|()| true)?,
                Role::Serving => self.asked(place, end, bytes).map(|()| true)?,
                Role::Streaming(_) => end.echo(bytes).map(|()| true)?,
            };
            // A short read has emptied the socket; a new arrival wakes us again.
            if !stays || read < buffer.len() {
                return Ok(stays);
            }
        }
    }

    fn answered(&mut self, ask: Ask, end: &mut End, bytes: &[u8]) -> Result<bool> {
        end.rest.extend_from_slice(bytes);
        let Some((head, chunked)) = ask.head(&end.rest)? else {
            return Ok(true);
        };
        if ask == Ask::Plain {
            if end.rest.len() < head + MESSAGE_BYTES {
                return Ok(true);
            }
            end.rest.clear();
            self.seen.answered += 1;
            self.seen.latency.add(now_ns().saturating_sub(end.asked_ns));
            if end.seq == 0 {
                self.opening -= 1;
                self.opened += 1;
            }
            end.seq += 1;
            self.ask_again(end)?;
            return Ok(true);
        }
        self.opening -= 1;
        self.opened += 1;
        if self.leave {
            return Ok(false);
        }
        end.role = Role::Reading;
        end.chunks = chunked.then(Chunks::default);
        let rest = std::mem::take(&mut end.rest);
        self.arrived(end, &rest[head..])?;
        Ok(true)
    }

    fn ask_again(&mut self, end: &mut End) -> Result<()> {
        if self.requests == 0 {
            return Ok(());
        }
        self.requests -= 1;
        end.asked_ns = now_ns();
        end.write(Ask::Plain.request(end.number).as_bytes())
    }

    fn arrived(&mut self, end: &mut End, bytes: &[u8]) -> Result<()> {
        let seen = &mut self.seen;
        seen.bytes += bytes.len() as u64;
        let now = now_ns();
        let (messages, seq) = (&mut end.messages, &mut end.seq);
        let mut count = |message: Option<Message>| {
            seen.received += 1;
            if let Some(message) = message {
                seen.latency.add(now.saturating_sub(message.created_ns));
                seen.disordered += u64::from(message.seq != *seq + 1);
                *seq = message.seq;
            }
        };
        match &mut end.chunks {
            Some(chunks) => chunks.take(bytes, |data| messages.take(data, &mut count)),
            None => messages.take(bytes, &mut count),
        }
    }

    fn asked(&mut self, place: usize, end: &mut End, bytes: &[u8]) -> Result<()> {
        end.rest.extend_from_slice(bytes);
        while let Some((ask, number, length)) = Ask::parse(&end.rest)? {
            end.rest.drain(..length);
            end.write(&ask.answer())?;
            if ask != Ask::Plain {
                end.role = Role::Streaming(ask);
                end.number = number;
                self.streams[number] = Some(place);
                ensure!(end.rest.is_empty(), "something behind the request");
                break;
            }
        }
        Ok(())
    }
}

/// Whether there is still progress.
struct Progress {
    latest: u64,
    since: Instant,
}

impl Progress {
    fn new() -> Self {
        Self {
            latest: 0,
            since: Instant::now(),
        }
    }

    fn made(&mut self, count: u64) -> bool {
        if count != self.latest {
            self.latest = count;
            self.since = Instant::now();
        }
        self.since.elapsed() < QUIET
    }
}
