//! The PROXY protocol (`doc/proxy-protocol.txt` of HAProxy), versions 1 and 2: a header in front of a connection's first byte,
//! in which the proxy before this one says whose connection it is.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::{self, FromStr};

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// The longest header of version 1 with its line end (section 2.1).
const MAX_LINE: usize = 107;
/// The shortest header there is, `PROXY UNKNOWN` with its line end: so much can be read before the version is known.
const SHORTEST: usize = 15;
/// What a header of version 1 begins with (section 2.1).
const LINE_START: &[u8] = b"PROXY ";
/// What a header of version 2 begins with (section 2.2).
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// In front of the addresses of version 2: signature, version and command, family and transport, length.
const FIXED: usize = SIGNATURE.len() + 4;
/// The longest rest of a header of version 2 that is taken. Of a connection's beginning 536 bytes arrive together
/// (section 2); with certificates among the extensions (section 2.2.6) it is more.
const MAX_REST: usize = 4 << 10;

/// Version 2 and its commands (section 2.2).
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
/// Families and transports of version 2 that have addresses of TCP (section 2.2).
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

/// How a header is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

impl FromStr for Version {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "v1" => Ok(Self::V1),
            "v2" => Ok(Self::V2),
            _ => Err("v1 or v2 is expected"),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        })
    }
}

/// The two ends of the connection that a header is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proxied {
    /// The client's.
    pub source: SocketAddr,
    /// Where the client has connected to.
    pub destination: SocketAddr,
}

impl Proxied {
    /// IPv4 within IPv6 (RFC 4291, section 2.5.5.2) is IPv4: rules about addresses must not depend on how they are written.
    fn canonical(self) -> Self {
        let canonical =
            |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        Self {
            source: canonical(self.source),
            destination: canonical(self.destination),
        }
    }

    /// Both addresses as IPv4 if they are that, else both as IPv6: a header has one family.
    fn family(self) -> Family {
        let Self {
            source,
            destination,
        } = self.canonical();
        match (source.ip(), destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Family::V4(source, destination),
            (source, destination) => Family::V6(to_v6(source), to_v6(destination)),
        }
    }
}

enum Family {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

fn to_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

/// Why there is no header.
#[derive(Debug)]
pub enum Failure {
    /// The connection failed.
    Io(io::Error),
    /// The connection ended before the header did. Who only looks whether somebody listens does that.
    Ended,
    /// It is none: what is wrong, in a few words. Nothing of the connection may be used (section 2).
    Malformed(&'static str),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Ended => f.write_str("the connection ended before its PROXY header"),
            Self::Malformed(what) => write!(f, "no PROXY header: {what}"),
        }
    }
}

impl Error for Failure {}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Ended,
            _ => Self::Io(error),
        }
    }
}

/// Reads the header that a connection begins with, and not a byte of what is behind it. A header without addresses stands
/// for the connection's own. How long it may take is the caller's business.
pub async fn read(stream: &mut TcpStream) -> Result<Proxied, Failure> {
    let mut head = [0; MAX_LINE];
    let mut length = 0;
    while length < SHORTEST {
        length += match stream.read(&mut head[length..SHORTEST]).await? {
            0 => return Err(Failure::Ended),
            read => read,
        };
        let begins = |with: &[u8]| {
            let common = length.min(with.len());
            head[..common] == with[..common]
        };
        // At once: who does not speak this may be waiting for an answer (section 2.1).
        if !begins(LINE_START) && !begins(SIGNATURE) {
            return Err(Failure::Malformed("the connection begins otherwise"));
        }
    }
    let proxied = if head.starts_with(SIGNATURE) {
        stream.read_exact(&mut head[SHORTEST..FIXED]).await?;
        read_binary(stream, &head[SIGNATURE.len()..FIXED]).await?
    } else {
        let line = read_line(stream, &mut head).await?;
        parse_line(line)?
    };
    match proxied {
        Some(proxied) => Ok(proxied.canonical()),
        None => Ok(Proxied {
            source: stream.peer_addr()?,
            destination: stream.local_addr()?,
        }),
    }
}

/// The rest of a line whose beginning is there. Looks ahead for its end, so that nothing behind it is read.
async fn read_line<'a>(
    stream: &mut TcpStream,
    head: &'a mut [u8; MAX_LINE],
) -> Result<&'a [u8], Failure> {
    let mut length = SHORTEST;
    loop {
        // Neither stands for a line end alone (section 2.1).
        let end = memchr::memchr2(b'\r', b'\n', &head[..length]);
        match end.map(|end| (end, &head[end..length])) {
            Some((end, b"\r\n")) => return Ok(&head[..end]),
            None | Some((_, b"\r")) => {}
            Some(_) => return Err(Failure::Malformed("its line does not end with CR LF")),
        }
        if length == MAX_LINE {
            return Err(Failure::Malformed("its line is too long"));
        }
        let ahead = stream.peek(&mut head[length..]).await?;
        if ahead == 0 {
            return Err(Failure::Ended);
        }
        let rest = &head[length..length + ahead];
        let count = memchr::memchr(b'\n', rest).map_or(ahead, |end| end + 1);
        stream.read_exact(&mut head[length..length + count]).await?;
        length += count;
    }
}

/// A header of version 1 (section 2.1) without its line end; nothing if it does not say whose the connection is.
fn parse_line(line: &[u8]) -> Result<Option<Proxied>, Failure> {
    // What else is in such a line does not count.
    if let Some(rest) = line.strip_prefix(b"PROXY UNKNOWN")
        && matches!(rest.first(), None | Some(b' '))
    {
        return Ok(None);
    }
    let line = str::from_utf8(line).map_err(|_| Failure::Malformed("its line is not text"))?;
    let mut words = line.split(' ').skip(1);
    let mut word = || words.next().unwrap_or_default();
    let (source, destination) = match word() {
        "TCP4" => (parse::<Ipv4Addr>(word())?, parse::<Ipv4Addr>(word())?),
        "TCP6" => (parse::<Ipv6Addr>(word())?, parse::<Ipv6Addr>(word())?),
        _ => return Err(Failure::Malformed("its protocol is not known")),
    };
    let proxied = Proxied {
        source: SocketAddr::new(source, parse_port(word())?),
        destination: SocketAddr::new(destination, parse_port(word())?),
    };
    match words.next() {
        Some(_) => Err(Failure::Malformed("there is more in its line")),
        None => Ok(Some(proxied)),
    }
}

fn parse<A: FromStr + Into<IpAddr>>(word: &str) -> Result<IpAddr, Failure> {
    match word.parse::<A>() {
        Ok(address) => Ok(address.into()),
        Err(_) => Err(Failure::Malformed("its address is none")),
    }
}

/// Digits only, and no zero in front of others.
fn parse_port(word: &str) -> Result<u16, Failure> {
    let is_decimal = word.bytes().all(|byte| byte.is_ascii_digit());
    let is_octal = word.len() > 1 && word.starts_with('0');
    match word.parse() {
        Ok(port) if is_decimal && !is_octal => Ok(port),
        _ => Err(Failure::Malformed("its port is none")),
    }
}

/// The rest of a header of version 2 (section 2.2), whose `fixed` part ends with these bytes; nothing if it does not say
/// whose the connection is. Extensions are passed over.
async fn read_binary(stream: &mut TcpStream, fixed: &[u8]) -> Result<Option<Proxied>, Failure> {
    let &[command, family, high, low] = fixed else {
        return Err(Failure::Malformed("it is too short"));
    };
    // Before the rest is waited for, which may then be anything.
    let addresses = check_binary(command, family)?;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > MAX_REST {
        return Err(Failure::Malformed("it is too long"));
    }
    if command == PROXY && length < addresses {
        return Err(Failure::Malformed("it is too short for its addresses"));
    }
    let mut rest = vec![0; length];
    stream.read_exact(&mut rest).await?;
    Ok(match (command, family) {
        (PROXY, TCP4) => parse_addresses::<4>(&rest),
        (PROXY, TCP6) => parse_addresses::<16>(&rest),
        _ => None,
    })
}

/// How long the addresses are that a header of version 2 must have.
fn check_binary(command: u8, family: u8) -> Result<usize, Failure> {
    if command & 0xf0 != 0x20 {
        return Err(Failure::Malformed("its version is not known"));
    }
    match (command, family >> 4, family & 0xf) {
        // The family is ignored then.
        (LOCAL, ..) => Ok(0),
        (PROXY, 0, 0..=2) => Ok(0),
        (PROXY, 1, 0..=2) => Ok(2 * (4 + 2)),
        (PROXY, 2, 0..=2) => Ok(2 * (16 + 2)),
        // Unix sockets.
        (PROXY, 3, 0..=2) => Ok(2 * 108),
        (PROXY, ..) => Err(Failure::Malformed("its address family is not known")),
        _ => Err(Failure::Malformed("its command is not known")),
    }
}

/// Source and destination, then their ports, each in the network's byte order.
fn parse_addresses<const N: usize>(bytes: &[u8]) -> Option<Proxied>
where
    IpAddr: From<[u8; N]>,
{
    let (source, bytes) = bytes.split_first_chunk::<N>()?;
    let (destination, bytes) = bytes.split_first_chunk::<N>()?;
    let (source_port, bytes) = bytes.split_first_chunk()?;
    let (destination_port, _) = bytes.split_first_chunk()?;
    let address = |ip: [u8; N], port| SocketAddr::new(ip.into(), u16::from_be_bytes(port));
    Some(Proxied {
        source: address(*source, *source_port),
        destination: address(*destination, *destination_port),
    })
}

/// The header that says that a connection is made for this client. It must not be made for another one as well (section 2).
pub fn write(version: Version, proxied: Proxied) -> Vec<u8> {
    let ports = (proxied.source.port(), proxied.destination.port());
    match version {
        Version::V1 => write_line(proxied.family(), ports),
        Version::V2 => write_binary(proxied.family(), ports),
    }
}

/// The header of a connection that is made for no client, such as one that finds out whether the other end is there. `own`
/// are the connection's ends: version 1 has nothing else that everybody accepts (section 2.1).
pub fn write_local(version: Version, own: Proxied) -> Vec<u8> {
    match version {
        Version::V1 => write(version, own),
        Version::V2 => [&SIGNATURE[..], &[LOCAL, 0, 0, 0]].concat(),
    }
}

fn write_line(family: Family, (source_port, destination_port): (u16, u16)) -> Vec<u8> {
    let addresses = match family {
        Family::V4(source, destination) => format!("TCP4 {source} {destination}"),
        Family::V6(source, destination) => format!("TCP6 {source} {destination}"),
    };
    format!("PROXY {addresses} {source_port} {destination_port}\r\n").into()
}

fn write_binary(family: Family, ports: (u16, u16)) -> Vec<u8> {
    let (family, addresses) = match family {
        Family::V4(source, destination) => (TCP4, [source.octets(), destination.octets()].concat()),
        Family::V6(source, destination) => (TCP6, [source.octets(), destination.octets()].concat()),
    };
    let ports = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    let length = (addresses.len() + ports.len()) as u16;
    [
        &SIGNATURE[..],
        &[PROXY, family],
        &length.to_be_bytes(),
        &addresses,
        &ports,
    ]
    .concat()
}

#[cfg(test)]
mod tests;
