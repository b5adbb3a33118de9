//! Other processes of this machine, as far as proc(5) tells of them: who listens at a port, and what a process uses. Where there is no
//! `/proc`, or where a process is another user's, nothing is known.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustix::param::{clock_ticks_per_second, page_size};

/// A socket that listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listening {
    /// The address; unspecified if it is all of the machine's.
    pub ip: IpAddr,
    /// What the kernel calls the socket.
    pub inode: u64,
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// The name of its program, 15 bytes at most.
    pub name: String,
}

/// The sockets that listen at this port.
pub fn listening(port: u16) -> Vec<Listening> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"]
        .map(|path| fs::read_to_string(path).unwrap_or_default());
    let lines = tables.iter().flat_map(|table| table.lines());
    lines.filter_map(|line| listener(line, port)).collect()
}

/// What a line of `/proc/net/tcp` says, if it is about a socket that listens at this port.
fn listener(line: &str, port: u16) -> Option<Listening> {
    const LISTEN: &str = "0A";
    let mut fields = line.split_whitespace();
    let (local, _, state) = (fields.nth(1)?, fields.next()?, fields.next()?);
    let (ip, at) = local.rsplit_once(':')?;
    if state != LISTEN || u16::from_str_radix(at, 16).ok()? != port {
        return None;
    }
    Some(Listening {
        ip: address(ip)?,
        inode: fields.nth(5)?.parse().ok()?,
    })
}

/// An address as words of 32 bits in the order of this machine.
fn address(text: &str) -> Option<IpAddr> {
    let words = text.as_bytes().chunks(8).map(|word| {
        let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        Some(word.to_ne_bytes())
    });
    let bytes = words.collect::<Option<Vec<_>>>()?.concat();
    match bytes.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        16 => {
            let ip = Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?);
            Some(ip.to_canonical())
        }
        _ => None,
    }
}

/// The processes that have one of these sockets; those of others cannot be seen.
pub fn holders(sockets: &[Listening]) -> Vec<Process> {
    let wanted: BTreeSet<_> = sockets
        .iter()
        .map(|socket| format!("socket:[{}]", socket.inode))
        .collect();
    let has_one = |pid: &u32| {
        let files = fs::read_dir(format!("/proc/{pid}/fd")).ok();
        let mut links = files
            .into_iter()
            .flatten()
            .flatten()
            .map(|file| fs::read_link(file.path()));
        links.any(|link| {
            link.is_ok_and(|link| link.to_str().is_some_and(|link| wanted.contains(link)))
        })
    };
    if wanted.is_empty() {
        return vec![];
    }
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut found: Vec<_> = pids.filter(has_one).map(Process::new).collect();
    found.sort();
    found
}

impl Process {
    fn new(pid: u32) -> Self {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        Self {
            pid,
            // Its owner has chosen it.
            name: name.trim_end().escape_debug().to_string(),
        }
    }

    /// The CPU time that it has used, in seconds, in steps of a tick of the kernel's clock; none if it has ended.
    pub fn cpu_seconds(&self) -> Option<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        // The name of the program, in brackets, may be anything.
        let (_, fields) = stat.rsplit_once(") ")?;
        let mut fields = fields
            .split(' ')
            .skip(11)
            .map(|ticks| ticks.parse::<u64>().ok());
        let ticks = fields.next()?? + fields.next()??;
        Some(ticks as f64 / clock_ticks_per_second() as f64)
    }

    /// How much of its memory is there, in bytes; none if it has ended.
    pub fn resident(&self) -> Option<u64> {
        let sizes = fs::read_to_string(format!("/proc/{}/statm", self.pid)).ok()?;
        let pages: u64 = sizes.split(' ').nth(1)?.parse().ok()?;
        Some(pages * page_size() as u64)
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn who_listens_is_found_by_the_port() {
        for at in ["127.0.0.1:0", "0.0.0.0:0"] {
            let listener = TcpListener::bind(at).expect("a free port");
            let address = listener.local_addr().expect("it is bound");
            let found = listening(address.port());
            let ips: Vec<_> = found.iter().map(|socket| socket.ip).collect();
            assert_eq!(ips, [address.ip()]);
            let holders = holders(&found);
            // Another test may just be starting a child.
            let own = holders
                .iter()
                .find(|holder| holder.pid == std::process::id());
            let own = own.expect("this process has it");
            assert!(own.cpu_seconds().is_some_and(|time| time >= 0.0));
            assert!(own.resident().is_some_and(|bytes| bytes > 1 << 20));
            drop(listener);
            assert_eq!(listening(address.port()), []);
        }
        assert_eq!(holders(&[]), []);
    }

    #[test]
    fn lines_of_the_table_are_read() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0 100 0 0 10 0";
        let found = Listening {
            ip: Ipv4Addr::LOCALHOST.into(),
            inode: 4711,
        };
        if cfg!(target_endian = "little") {
            assert_eq!(listener(line, 8080), Some(found));
        }
        assert_eq!(listener(line, 8081), None);
        assert_eq!(listener(&line.replace(" 0A ", " 01 "), 8080), None);
        assert_eq!(listener("  sl  local_address rem_address   st", 8080), None);
        assert_eq!(listener("", 8080), None);
    }
}
