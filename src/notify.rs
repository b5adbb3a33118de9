//! Whoever has started this process and wants to know how it is: systemd with `Type=notify` (sd_notify(3)).
//!
//! What is said goes as a datagram to the Unix socket that `NOTIFY_SOCKET` names. Nobody waits for it, and nothing depends on it: that it
//! cannot be said is no reason to stop.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use rustix::time::{ClockId, clock_gettime};
use tracing::debug;

/// Everything that was asked for is there: clients may come.
pub fn ready(status: &str) {
    tell(&format!("READY=1\nSTATUS={}", line(status)));
}

/// The files are being read again. [`ready`] says that they have been.
pub fn reloading() {
    let now = clock_gettime(ClockId::Monotonic);
    let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
    tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
}

/// Stopping has begun.
pub fn stopping() {
    tell("STOPPING=1\nSTATUS=stopping");
}

/// One line of what is said.
fn line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

fn tell(text: &str) {
    let Some(name) = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
        return;
    };
    if let Err(error) = send(&name, text) {
        debug!(%error, "cannot tell NOTIFY_SOCKET");
    }
}

fn send(name: &OsStr, text: &str) -> io::Result<()> {
    let address = match name.as_bytes() {
        // An abstract name has no place in the file system (unix(7)).
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        _ => return Err(io::Error::other("only Unix sockets can be told")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to_addr(text.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_the_file_system_and_abstract_ones_are_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let name = format!("wsevent-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        for (socket, name) in [
            (UnixDatagram::bind(&path), path.clone().into_os_string()),
            (UnixDatagram::bind_addr(&address), format!("@{name}").into()),
        ] {
            let socket = socket.expect("it is free");
            send(&name, "READY=1").expect("it is there");
            let mut buffer = [0; 100];
            let len = socket.recv(&mut buffer).expect("a datagram");
            assert_eq!(&buffer[..len], b"READY=1");
        }
        assert!(send(OsStr::new("vsock:2:1"), "READY=1").is_err());
        assert!(send(path.with_extension("x").as_os_str(), "READY=1").is_err());
        assert_eq!(line("a\nb"), "a b");
    }
}
