//! Where connections come in: the listening sockets, TLS, what a proxy in front says about them, and whether there is room.

pub mod admission;
pub mod entrance;
pub mod handed;
pub mod memory;
pub mod network;
pub mod opening;
pub mod proxied;
pub mod rate;
pub mod refusal;
pub mod rewound;
pub mod sampled;
pub mod stream;
pub mod streams;
pub mod tls;

use std::env;
use std::future::poll_fn;
use std::io;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};
use tokio::time::sleep;
use tracing::warn;

/// How often another free port is tried.
const PORT_ATTEMPTS: u32 = 10;
/// Connections that the kernel completes before they are accepted (it has a bound of its own, `somaxconn`).
const BACKLOG: u32 = 4096;
/// The first port that everyone may listen on, unless the system is told otherwise (ip(7)).
const UNPRIVILEGED: u16 = 1024;
/// How long accepting pauses when the process has run out of files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// When the other end of a silent connection is asked whether it is still there, and how often before it is given up.
pub const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(60))
    .with_interval(Duration::from_secs(15));

/// The sockets of one listen address. A name such as `localhost` may stand for several.
pub struct Listeners {
    sockets: Vec<TcpListener>,
    /// Which of them is asked first: the one behind the one that had a connection last.
    first: usize,
    /// Accepting fails, and the log says so already.
    failing: bool,
}

impl Listeners {
    fn new(sockets: Vec<TcpListener>) -> Self {
        Self {
            sockets,
            first: 0,
            failing: false,
        }
    }

    /// Listens on each address that `host:port` stands for. With port 0 they all get the same free port.
    pub async fn bind(address: &str) -> Result<Self> {
        let cannot = || format!("cannot listen on {address}");
        let resolved = lookup_host(address).await.with_context(cannot)?;
        // A hosts file may well say the same twice.
        let mut addresses: Vec<SocketAddr> = resolved.collect();
        addresses.sort_unstable();
        addresses.dedup();
        let privileged = addresses
            .iter()
            .any(|address| address.port() < UNPRIVILEGED);
        let any_port = addresses.iter().all(|address| address.port() == 0);
        let mut attempts = if any_port { PORT_ATTEMPTS } else { 1 };
        loop {
            attempts -= 1;
            match listen_on_all(&addresses) {
                // The port that was free at the first address was not so at the next one.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempts > 0 => {}
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied && privileged => {
                    bail!("{}: permission denied; {}", cannot(), what_permits());
                }
                result => return result.map(Self::new).with_context(cannot),
            }
        }
    }

    /// Listens on what has been handed over for clients; else on each address that `host:port` stands for.
    pub async fn handed_or_bound(address: &str) -> Result<Self> {
        match handed::take(handed::For::Clients)? {
            Some(listeners) => Ok(listeners),
            None => Self::bind(address).await,
        }
    }

    /// Listens on these sockets, which another process has bound.
    pub fn inherit(sockets: Vec<OwnedFd>) -> io::Result<Self> {
        let sockets = sockets.into_iter().map(|socket| {
            let socket = std::net::TcpListener::from(socket);
            socket.set_nonblocking(true)?;
            TcpListener::from_std(socket)
        });
        Ok(Self::new(sockets.collect::<io::Result<_>>()?))
    }

    /// The same sockets once more, for another process that is to listen on them.
    pub fn duplicate(&self) -> io::Result<Vec<OwnedFd>> {
        let sockets = self.sockets.iter();
        sockets
            .map(|socket| socket.as_fd().try_clone_to_owned())
            .collect()
    }

    /// The addresses listened on, with the real port.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.sockets.iter().map(TcpListener::local_addr).collect()
    }

    /// Connections whose other end is not there any more end even if nothing is ever sent on them, and those whose other end
    /// takes nothing for `unacknowledged` (RFC 5482). What is accepted inherits this.
    pub fn notice_the_dead(&self, unacknowledged: Option<Duration>) -> io::Result<()> {
        for socket in &self.sockets {
            let socket = SockRef::from(socket);
            socket.set_tcp_keepalive(&KEEPALIVE)?;
            socket.set_tcp_user_timeout(unacknowledged)?;
        }
        Ok(())
    }

    /// The next connection, and whose it is. May be dropped and called again; nothing is lost.
    pub async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            match poll_fn(|cx| self.poll_accept(cx)).await {
                Ok(accepted) => {
                    self.failing = false;
                    return accepted;
                }
                // The client was gone before it was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    if !mem::replace(&mut self.failing, true) {
                        warn!(%error, "cannot accept connections for now");
                    }
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        let count = self.sockets.len();
        for number in (self.first..count).chain(0..self.first) {
            if let Poll::Ready(result) = self.sockets[number].poll_accept(cx) {
                self.first = (number + 1) % count;
                return Poll::Ready(result);
            }
        }
        Poll::Pending
    }
}

/// Whether `host` and `port` plainly are one of these addresses that are listened on. A name other than localhost is not
/// looked up. An IPv6 address may stand in brackets.
pub fn leads_to(addresses: &[SocketAddr], host: &str, port: u16) -> bool {
    let ip: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
    addresses.iter().any(|address| {
        let here = address.ip();
        address.port() == port
            && match ip {
                Some(ip) => here == ip || here.is_unspecified() && ip.is_loopback(),
                None => host == "localhost" && (here.is_loopback() || here.is_unspecified()),
            }
    })
}

/// What to do where the ports below [`UNPRIVILEGED`] are not for everyone (capabilities(7)).
fn what_permits() -> String {
    let program = env::current_exe().unwrap_or_else(|_| "wsevent".into());
    format!(
        "take a port from {UNPRIVILEGED} on, or run `sudo setcap cap_net_bind_service=+ep {}` first",
        program.display()
    )
}

fn listen_on_all(addresses: &[SocketAddr]) -> io::Result<Vec<TcpListener>> {
    let mut listeners: Vec<TcpListener> = vec![];
    let mut unavailable = io::Error::other("the name has no address");
    for &(mut address) in addresses {
        if address.port() == 0
            && let Some(first) = listeners.first()
        {
            address.set_port(first.local_addr()?.port());
        }
        match listen(address) {
            Ok(listener) => listeners.push(listener),
            // A machine without IPv6 still has ::1 as a name for localhost.
            Err(error) if is_unavailable(&error) => unavailable = error,
            Err(error) => return Err(error),
        }
    }
    match listeners.is_empty() {
        true => Err(unavailable),
        false => Ok(listeners),
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address.ip() {
        IpAddr::V4(_) => TcpSocket::new_v4(),
        IpAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // Restarting must not have to wait for old connections to leave TIME_WAIT.
    socket.set_reuseaddr(true)?;
    // Events go out when they come. What is accepted inherits this, so it need not be said for each connection.
    socket.set_nodelay(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn is_unavailable(error: &io::Error) -> bool {
    // EAFNOSUPPORT has no kind of its own.
    const EAFNOSUPPORT: i32 = 97;
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(EAFNOSUPPORT)
}
