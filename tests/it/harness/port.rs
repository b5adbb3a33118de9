//! A port that stays ours while nobody listens on it.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::Instant;

use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;

use super::GUARD;

/// A free port of 127.0.0.1, held by a bound socket that never listens. Connecting is refused until somebody does
/// listen; that may end and begin again, and meanwhile the system gives the port to nobody else.
pub struct ReservedPort {
    address: SocketAddr,
    _socket: Socket,
}

impl ReservedPort {
    pub fn new() -> Self {
        Self::at((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port")
    }

    /// The one at this address, if it is free.
    pub fn at(address: SocketAddr) -> io::Result<Self> {
        let socket = bind(address)?;
        let address = socket.local_addr().expect("a bound socket has an address");
        let address = address.as_socket().expect("it is an IP address");
        Ok(Self {
            address,
            _socket: socket,
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Listens on it.
    pub fn listen(&self) -> TcpListener {
        let start = Instant::now();
        loop {
            let listening = bind(self.address).and_then(|socket| {
                socket.listen(128)?;
                Ok(socket)
            });
            match listening {
                Ok(socket) => return TcpListener::from_std(socket.into()).expect("a runtime"),
                // A socket that has just been closed may live on for a moment, in a child that another test is about
                // to start.
                Err(error) if error.kind() == ErrorKind::AddrInUse && start.elapsed() < GUARD => {
                    thread::yield_now();
                }
                Err(error) => panic!("cannot listen on {}: {error}", self.address),
            }
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    // Sockets may share a port if all of them say so, except that one at most may listen.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}
