//! Sockets that whoever has started this process listens on already, and hands over: systemd's socket activation
//! (sd_listen_fds(3)).
//!
//! `LISTEN_FDS` says how many there are, `LISTEN_PID` whose they are, and `LISTEN_FDNAMES` what each is for: those named `admin` are for
//! administration, all others for clients. They are looked at once, as a variable is: what they are is a part of the environment.

use std::env;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::process;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use listenfd::ListenFd;
use socket2::SockRef;

use super::Listeners;

/// More sockets than this nobody hands over.
const MOST: usize = 1_024;
/// What those for administration are called.
const ADMIN: &str = "admin";

/// What has been handed over and not been taken, or why it cannot be.
static HANDED: LazyLock<Mutex<Result<Handed, String>>> =
    LazyLock::new(|| Mutex::new(Handed::from_environment()));

/// What a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum For {
    /// Clients.
    Clients,
    /// Those who run the process.
    Admin,
}

/// The sockets, and where each is; without those that have been taken.
#[derive(Default)]
struct Handed(Vec<(For, SocketAddr, Option<TcpListener>)>);

fn lock() -> MutexGuard<'static, Result<Handed, String>> {
    HANDED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where clients come to what has been handed over; none if nothing was. An error says what is wrong with it.
pub fn addresses() -> Result<Vec<SocketAddr>, String> {
    let handed = lock();
    let sockets = handed.as_ref().map_err(Clone::clone)?.0.iter();
    let sockets = sockets.filter(|(purpose, ..)| *purpose == For::Clients);
    Ok(sockets.map(|(_, address, _)| *address).collect())
}

/// Takes those for this purpose; none if there are none.
pub fn take(purpose: For) -> anyhow::Result<Option<Listeners>> {
    let mut handed = lock();
    let sockets = match &mut *handed {
        Ok(Handed(sockets)) => sockets.iter_mut(),
        Err(error) => anyhow::bail!(error.clone()),
    };
    let sockets = sockets.filter(|(of, ..)| *of == purpose);
    let taken = sockets.filter_map(|(_, _, socket)| socket.take().map(OwnedFd::from));
    let taken: Vec<_> = taken.collect();
    Ok(match taken.is_empty() {
        true => None,
        false => Some(Listeners::inherit(taken)?),
    })
}

impl Handed {
    fn from_environment() -> Result<Self, String> {
        let number = |name| {
            env::var(name)
                .ok()
                .and_then(|text| text.parse::<usize>().ok())
        };
        // What another process was given may have been inherited from it.
        let is_ours = number("LISTEN_PID") == Some(process::id() as usize);
        let Some(count) = number("LISTEN_FDS").filter(|count| is_ours && *count > 0) else {
            return Ok(Self::default());
        };
        if count > MOST {
            return Err(format!(
                "LISTEN_FDS says {count} sockets, which is more than may be"
            ));
        }
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let names: Vec<&str> = names.split(':').collect();
        let mut handed = ListenFd::from_env();
        let sockets = (0..count).map(|at| {
            let purpose = match names.get(at) {
                Some(&ADMIN) => For::Admin,
                _ => For::Clients,
            };
            let socket = handed.take_tcp_listener(at).and_then(usable);
            let what = |error: io::Error| {
                format!(
                    "socket {} of {count} that LISTEN_FDS hands over cannot be used: {error}",
                    at + 1
                )
            };
            let socket = socket.and_then(|socket| Ok((socket.local_addr()?, socket)));
            socket
                .map(|(address, socket)| (purpose, address, Some(socket)))
                .map_err(what)
        });
        Ok(Self(sockets.collect::<Result<_, _>>()?))
    }
}

/// The socket, if connections can be accepted on it.
fn usable(socket: Option<TcpListener>) -> io::Result<TcpListener> {
    let socket = socket.ok_or(io::ErrorKind::NotFound)?;
    if !SockRef::from(&socket).is_listener()? {
        return Err(io::Error::other(
            "nobody listens on it (Accept=no is expected)",
        ));
    }
    // As on what this process would have made itself.
    SockRef::from(&socket).set_tcp_nodelay(true)?;
    Ok(socket)
}
