//! The load generator: thousands of subscribers on one thread, each at a path of its own or all at the same.
//!
//! What they get are the events of `--produce`, which begin with a number that counts up: each is checked.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use memchr::{memchr, memmem};
use mio::net::TcpStream as Socket;
use mio::{Events, Interest, Poll, Token};

/// Connects under way at once.
const CONNECTING: usize = 50;

/// How a subscriber reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A message each.
    WebSocket,
    /// Server-sent events.
    Sse,
}

/// What has arrived.
#[derive(Clone, Copy, Default)]
pub struct Tally {
    /// Events.
    pub received: u64,
    /// Events that came twice, late, or behind one that has not come.
    pub wrong: u64,
    /// Subscribers that were disconnected.
    pub closed: u64,
}

/// All subscribers of one server.
pub struct Load {
    poll: Poll,
    events: Events,
    buffer: Vec<u8>,
    transport: Transport,
    clients: Vec<Client>,
    opening: usize,
    tally: Tally,
}

struct Client {
    socket: Option<Socket>,
    is_open: bool,
    /// The number in the latest event; 0 before the first, which may be any.
    last: u64,
    /// The cut item at the end of the last read.
    rest: Vec<u8>,
}

impl Load {
    /// No subscribers yet.
    pub fn new(transport: Transport) -> Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            buffer: vec![0; 64 << 10],
            transport,
            clients: Vec::new(),
            opening: 0,
            tally: Tally::default(),
        })
    }

    /// Connects `count` subscribers and returns when they have their answers. `path` says where each is to go; unless they
    /// `stay`, they leave again at once, so that there are never more than a few.
    pub fn connect(
        &mut self,
        address: SocketAddr,
        path: impl Fn(usize) -> String,
        count: usize,
        stay: bool,
    ) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(120);
        let all = self.clients.len() + count;
        while self.clients.len() < all || self.opening > 0 {
            while self.clients.len() < all && self.opening < CONNECTING {
                self.connect_one(address, &path(self.clients.len()))?;
            }
            self.turn(Duration::from_millis(100), stay)?;
            ensure!(self.tally.closed == 0, "a subscriber was refused");
            ensure!(Instant::now() < deadline, "subscribers cannot connect");
        }
        Ok(())
    }

    fn connect_one(&mut self, address: SocketAddr, path: &str) -> Result<()> {
        // On loopback a connect is done when the call returns, unless the backlog is full.
        let mut stream = TcpStream::connect(address).context("connect a subscriber")?;
        stream.set_nodelay(true)?;
        let wanted = match self.transport {
            Transport::WebSocket => {
                "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
            }
            Transport::Sse => "Accept: text/event-stream",
        };
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{wanted}\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        stream.set_nonblocking(true)?;
        let mut socket = Socket::from_std(stream);
        let token = Token(self.clients.len());
        let registry = self.poll.registry();
        registry.register(&mut socket, token, Interest::READABLE)?;
        self.clients.push(Client {
            socket: Some(socket),
            is_open: false,
            last: 0,
            rest: Vec::new(),
        });
        self.opening += 1;
        Ok(())
    }

    /// Reads for so long, without ever sleeping, so that nobody is charged for waking it; and looks once a millisecond, so that
    /// a server that writes now and then does not meet it at each of its writes. What has arrived meanwhile.
    pub fn read_for(&mut self, time: Duration) -> Result<Tally> {
        self.tally = Tally::default();
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.turn(Duration::ZERO, true)?;
            let next = Instant::now() + Duration::from_millis(1);
            while Instant::now() < next {
                std::hint::spin_loop();
            }
        }
        Ok(self.tally)
    }

    /// Lets a server finish what it does behind the last handshakes.
    pub fn settle(&mut self) -> Result<()> {
        let until = Instant::now() + Duration::from_millis(500);
        while Instant::now() < until {
            self.turn(Duration::from_millis(50), true)?;
        }
        Ok(())
    }

    fn turn(&mut self, wait: Duration, stay: bool) -> Result<()> {
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        for event in &self.events {
            let client = &mut self.clients[event.token().0];
            let was_open = client.is_open;
            let is_there = client.read(&mut self.buffer, self.transport, &mut self.tally)?;
            let opened = !was_open && client.is_open;
            if opened || !is_there && !was_open {
                self.opening -= 1;
            }
            if !is_there {
                self.tally.closed += 1;
            }
            if !is_there || opened && !stay {
                client.socket = None;
            }
        }
        Ok(())
    }
}

impl Client {
    /// Reads all there is; says whether the connection goes on.
    fn read(&mut self, buffer: &mut [u8], transport: Transport, tally: &mut Tally) -> Result<bool> {
        let kept = self.rest.len();
        buffer[..kept].copy_from_slice(&self.rest);
        let Some(socket) = &mut self.socket else {
            return Ok(true);
        };
        let read = match socket.read(&mut buffer[kept..]) {
            Ok(0) => return Ok(false),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
            Err(_) => return Ok(false),
        };
        let mut bytes = &buffer[..kept + read];
        if !self.is_open {
            match memmem::find(bytes, b"\r\n\r\n") {
                Some(end) => {
                    let is_granted = [&b"HTTP/1.1 101 "[..], b"HTTP/1.1 200 "];
                    let is_granted = is_granted.iter().any(|status| bytes.starts_with(status));
                    ensure!(is_granted, "refused: {}", bytes[..end].escape_ascii());
                    bytes = &bytes[end + 4..];
                    self.is_open = true;
                }
                None => bytes = &[],
            }
        }
        while let Some(len) = match transport {
            Transport::WebSocket => self.frame(bytes, tally)?,
            Transport::Sse => self.block(bytes, tally)?,
        } {
            bytes = &bytes[len..];
        }
        self.rest.clear();
        self.rest.extend_from_slice(bytes);
        Ok(true)
    }

    /// The length of the WebSocket frame that begins here, if all of it is there.
    fn frame(&mut self, bytes: &[u8], tally: &mut Tally) -> Result<Option<usize>> {
        let [kind, len, ..] = *bytes else {
            return Ok(None);
        };
        ensure!(len < 126, "a frame that is longer than any event");
        let end = 2 + usize::from(len);
        let Some(payload) = bytes.get(2..end) else {
            return Ok(None);
        };
        match kind {
            0x81 => self.count(payload, tally)?,
            0x89 => {
                // Masked, as a client must, with the key that leaves the bytes as they are.
                let pong = [&[0x8a, 0x80 | len, 0, 0, 0, 0], payload].concat();
                self.socket.as_mut().context("closed")?.write_all(&pong)?;
            }
            other => bail!("a frame that starts with {other:#04x}"),
        }
        Ok(Some(end))
    }

    /// The length of the block of server-sent events that begins here, if all of it is there.
    fn block(&mut self, bytes: &[u8], tally: &mut Tally) -> Result<Option<usize>> {
        let Some(end) = memmem::find(bytes, b"\n\n") else {
            return Ok(None);
        };
        if let Some(at) = memmem::find(&bytes[..end], b"\ndata: ") {
            self.count(&bytes[at + 7..end], tally)?;
        }
        Ok(Some(end + 2))
    }

    fn count(&mut self, payload: &[u8], tally: &mut Tally) -> Result<()> {
        let digits = memchr(b' ', payload).map(|end| &payload[..end]);
        let number = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        let number: u64 = number.context("an event without a number")?;
        tally.received += 1;
        tally.wrong += u64::from(self.last > 0 && number != self.last + 1);
        self.last = number;
        Ok(())
    }
}
