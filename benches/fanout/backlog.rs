//! Baseline `backlog`: the kernel's price of a backlog. Every request gets the same bytes, those that `wsevent` sends, in as
//! few writes as its socket allows; nothing is looked at, nothing encoded.

use std::io::{self, ErrorKind, Read, Write};

use anyhow::Result;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

const LISTENER: Token = Token(usize::MAX);

/// Serves what it reads from standard input, a length of eight bytes before it, until it is killed.
pub fn main() -> Result<()> {
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(([127, 0, 0, 1], 0).into())?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    println!("listening {}", listener.local_addr()?);
    let (mut length, mut bytes) = ([0; 8], Vec::new());
    let mut input = io::stdin().lock();
    input.read_exact(&mut length)?;
    input
        .take(u64::from_le_bytes(length))
        .read_to_end(&mut bytes)?;

    let mut readers: Vec<Option<Reader>> = Vec::new();
    let mut events = Events::with_capacity(1024);
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut socket, _)) = listener.accept() {
                    socket.set_nodelay(true)?;
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    poll.registry()
                        .register(&mut socket, Token(readers.len()), interest)?;
                    readers.push(Some(Reader {
                        socket,
                        asked: false,
                        sent: 0,
                    }));
                }
            } else if let Some(slot) = readers.get_mut(event.token().0)
                && slot.as_mut().is_some_and(|reader| !reader.go_on(&bytes))
            {
                *slot = None;
            }
        }
    }
}

struct Reader {
    socket: TcpStream,
    asked: bool,
    sent: usize,
}

impl Reader {
    /// Writes what the socket takes; says whether the connection goes on.
    fn go_on(&mut self, bytes: &[u8]) -> bool {
        let mut request = [0; 4096];
        loop {
            match self.socket.read(&mut request) {
                Ok(0) => return false,
                // The bench sends all of its request with one write.
                Ok(_) => self.asked = true,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return false,
            }
        }
        while self.asked && self.sent < bytes.len() {
            match self.socket.write(&bytes[self.sent..]) {
                Ok(written) => self.sent += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return false,
            }
        }
        true
    }
}
