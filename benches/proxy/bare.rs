//! Baseline `bare`: the kernel's price. One thread reads what has come on one socket and writes it to the other, with one
//! buffer for all; it looks at nothing, logs nothing and has no time limits.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::thread;

use anyhow::Result;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

/// Larger ones are no faster, smaller ones are slower.
const BUFFER_BYTES: usize = 256 * 1024;

const LISTENER: Token = Token(usize::MAX);

/// Relays until standard input ends.
pub fn main(upstreams: &[String]) -> Result<()> {
    let upstreams: Vec<SocketAddr> = upstreams
        .iter()
        .map(|address| address.parse())
        .collect::<Result<_, _>>()?;
    let mut listener = TcpListener::bind(([127, 0, 0, 1], 0).into())?;
    println!("listening {}", listener.local_addr()?);
    thread::spawn(|| {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        std::process::exit(0);
    });

    let mut poll = Poll::new()?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut relay = Relay {
        upstreams,
        turn: 0,
        pairs: Vec::new(),
        free: Vec::new(),
        buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
    };
    let mut events = Events::with_capacity(1024);
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        }
        // A place is given away only after the events that may still be for its last owner.
        let mut ended = Vec::new();
        for event in &events {
            if event.token() == LISTENER {
                relay.accept(&listener, poll.registry())?;
                continue;
            }
            let (place, side) = (event.token().0 / 2, event.token().0 % 2);
            if let Some(pair) = &mut relay.pairs[place]
                && !pair.serve(side, event.is_writable(), &mut relay.buffer)
            {
                relay.pairs[place] = None;
                ended.push(place);
            }
        }
        relay.free.append(&mut ended);
    }
}

struct Relay {
    upstreams: Vec<SocketAddr>,
    turn: usize,
    pairs: Vec<Option<Pair>>,
    free: Vec<usize>,
    buffer: Box<[u8]>,
}

impl Relay {
    fn accept(&mut self, listener: &TcpListener, registry: &mio::Registry) -> Result<()> {
        loop {
            let mut client = match listener.accept() {
                Ok((client, _)) => client,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let mut upstream = TcpStream::connect(self.upstreams[self.turn])?;
            self.turn = (self.turn + 1) % self.upstreams.len();
            client.set_nodelay(true)?;
            upstream.set_nodelay(true)?;
            let place = self.free.pop().unwrap_or_else(|| {
                self.pairs.push(None);
                self.pairs.len() - 1
            });
            let both = Interest::READABLE | Interest::WRITABLE;
            registry.register(&mut client, Token(place * 2), both)?;
            registry.register(&mut upstream, Token(place * 2 + 1), both)?;
            self.pairs[place] = Some(Pair {
                sockets: [client, upstream],
                unwritten: [Vec::new(), Vec::new()],
                ended: [false; 2],
            });
        }
    }
}

/// A client and its upstream.
struct Pair {
    sockets: [TcpStream; 2],
    /// What has been read for each side and does not fit into its socket; nothing more is read for it meanwhile.
    unwritten: [Vec<u8>; 2],
    /// Which sides will send no more.
    ended: [bool; 2],
}

impl Pair {
    /// Does all that can be done; says whether the pair goes on.
    fn serve(&mut self, side: usize, writable: bool, buffer: &mut [u8]) -> bool {
        let served = (|| {
            if writable && !self.unwritten[side].is_empty() {
                let rest = std::mem::take(&mut self.unwritten[side]);
                self.write(side, &rest)?;
                self.relay(1 - side, buffer)?;
            }
            self.relay(side, buffer)
        })();
        served.is_ok() && self.ended != [true; 2]
    }

    fn relay(&mut self, from: usize, buffer: &mut [u8]) -> io::Result<()> {
        let to = 1 - from;
        while self.unwritten[to].is_empty() && !self.ended[from] {
            match self.sockets[from].read(buffer) {
                Ok(0) => {
                    self.ended[from] = true;
                    self.sockets[to].shutdown(Shutdown::Write)?;
                }
                Ok(read) => {
                    self.write(to, &buffer[..read])?;
                    // A short read has emptied the socket; a new arrival wakes us again.
                    if read < buffer.len() {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn write(&mut self, to: usize, bytes: &[u8]) -> io::Result<()> {
        let mut at = 0;
        while at < bytes.len() {
            match self.sockets[to].write(&bytes[at..]) {
                Ok(written) => at += written,
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::NotConnected
                    ) =>
                {
                    self.unwritten[to].extend_from_slice(&bytes[at..]);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
