//! What a subscriber asks for and how it finds the events in what it gets, over each transport.
//!
//! As little as will do, for thousands of them share a CPU with nothing else on it: no library, and no more of a format
//! than `wsevent` writes for the events of this bench.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use memchr::{memchr, memmem};

use crate::feed::{EVENT_BYTES, Event};

/// How a subscriber reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A message each.
    WebSocket,
    /// Server-sent events.
    Sse,
    /// A JSON object a line.
    Ndjson,
    /// The client protocol of NATS.
    Nats,
}

/// What stands at the beginning of what a subscriber has got.
pub enum Item<'a> {
    /// An event.
    Event(Event),
    /// It wants an answer with the same bytes.
    Ping(&'a [u8]),
    /// The end.
    Close,
    /// Nothing that matters here.
    Other,
}

impl Transport {
    /// Those of `wsevent`.
    pub const ALL: [Self; 3] = [Self::WebSocket, Self::Sse, Self::Ndjson];

    /// As in the tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Sse => "sse",
            Self::Ndjson => "ndjson",
            Self::Nats => "nats",
        }
    }

    /// The request for a stream.
    pub fn request(self, address: SocketAddr, target: &str) -> String {
        let wanted = match self {
            Self::WebSocket => {
                "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
            }
            Self::Sse => "Accept: text/event-stream",
            Self::Ndjson => "Accept: application/x-ndjson",
            Self::Nats => {
                return format!("CONNECT {{\"verbose\":false}}\r\nSUB {target} 1\r\nPING\r\n");
            }
        };
        format!("GET {target} HTTP/1.1\r\nHost: {address}\r\n{wanted}\r\n\r\n")
    }

    /// The length of the answer's head, once all of it is there; what follows it must be the stream and nothing else.
    pub fn head(self, bytes: &[u8]) -> Result<Option<usize>> {
        if self == Self::Nats {
            // It says what it is, and answers the ping once it has the subscription.
            return Ok(memmem::find(bytes, b"PONG\r\n").map(|at| at + 6));
        }
        let Some(end) = memmem::find(bytes, b"\r\n\r\n") else {
            return Ok(None);
        };
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let status = match self {
            Self::WebSocket => "http/1.1 101 ",
            _ => "http/1.1 200 ",
        };
        ensure!(head.starts_with(status), "refused: {head}");
        ensure!(!head.contains("transfer-encoding"), "in chunks: {head}");
        Ok(Some(end + 4))
    }

    /// The item that begins here and its length, once all of it is there.
    pub fn item(self, bytes: &[u8]) -> Result<Option<(Item<'_>, usize)>> {
        match self {
            Self::WebSocket => frame(bytes),
            Self::Sse => block(bytes),
            Self::Ndjson => line(bytes),
            Self::Nats => operation(bytes),
        }
    }

    /// What a subscriber answers to a ping with these bytes.
    pub fn pong(self, payload: &[u8]) -> Result<Vec<u8>> {
        if self == Self::Nats {
            return Ok(b"PONG\r\n".to_vec());
        }
        ensure!(payload.len() <= 125, "a ping of {} bytes", payload.len());
        // Masked, as a client must, with the key that leaves the bytes as they are.
        let mut frame = vec![0x8a, 0x80 | payload.len() as u8, 0, 0, 0, 0];
        frame.extend_from_slice(payload);
        Ok(frame)
    }
}

/// What a NATS server says: `MSG <subject> <sid> <bytes>`, a line by itself, and the payload in another.
fn operation(bytes: &[u8]) -> Result<Option<(Item<'_>, usize)>> {
    let Some(end) = memmem::find(bytes, b"\r\n") else {
        return Ok(None);
    };
    let (line, after) = (&bytes[..end], end + 2);
    let item = match line.first() {
        Some(b'M') => {
            let digits = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
            let length: usize = std::str::from_utf8(digits)?.parse()?;
            let Some(payload) = bytes.get(after..after + length) else {
                return Ok(None);
            };
            if bytes.len() < after + length + 2 {
                return Ok(None);
            }
            let event = event(Event::parse(payload), payload)?;
            return Ok(Some((Item::Event(event), after + length + 2)));
        }
        Some(b'P') if line == b"PING" => Item::Ping(b""),
        Some(b'-') => Item::Close,
        _ => Item::Other,
    };
    Ok(Some((item, after)))
}

/// A WebSocket frame, unmasked.
fn frame(bytes: &[u8]) -> Result<Option<(Item<'_>, usize)>> {
    let Some((header, length)) = frame_size(bytes) else {
        return Ok(None);
    };
    let Some(payload) = bytes.get(header..header + length) else {
        return Ok(None);
    };
    let item = match bytes[0] {
        0x81 => Item::Event(event(Event::parse_text(payload), payload)?),
        0x82 => Item::Event(event(Event::parse(payload), payload)?),
        0x89 => Item::Ping(payload),
        0x88 => Item::Close,
        other => bail!("a frame that starts with {other:#04x}"),
    };
    Ok(Some((item, header + length)))
}

/// Header and payload length of the frame that begins here, once enough of it is there to tell.
fn frame_size(bytes: &[u8]) -> Option<(usize, usize)> {
    match *bytes.get(1)? {
        126 => Some((
            4,
            usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?])),
        )),
        127 => {
            let length = u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?);
            Some((10, usize::try_from(length).ok()?))
        }
        short => Some((2, usize::from(short))),
    }
}

/// A block of server-sent events: with an id and one line of data it is an event. Without the data it says where the stream
/// begins; anything but these, `retry` and comments would be a notice that something is lost.
fn block(bytes: &[u8]) -> Result<Option<(Item<'_>, usize)>> {
    let Some(end) = memmem::find(bytes, b"\n\n") else {
        return Ok(None);
    };
    let block = &bytes[..end];
    let item = match block.first() {
        Some(b'i') => match memchr(b'\n', block) {
            Some(at) => {
                let data = block[at..].strip_prefix(b"\ndata: ");
                let data =
                    data.with_context(|| format!("not an event: {}", block.escape_ascii()))?;
                Item::Event(event(Event::parse_text(data), data)?)
            }
            None => Item::Other,
        },
        Some(b'r' | b':') => Item::Other,
        _ => bail!("not an event: {}", block.escape_ascii()),
    };
    Ok(Some((item, end + 2)))
}

/// A line of JSON, in which the text of an event needs no escapes.
fn line(bytes: &[u8]) -> Result<Option<(Item<'_>, usize)>> {
    const DATA: &[u8] = b"\"data\":\"";
    let Some(end) = memchr(b'\n', bytes) else {
        return Ok(None);
    };
    let line = &bytes[..end];
    if line.trim_ascii().is_empty() {
        return Ok(Some((Item::Other, end + 1)));
    }
    let data = memmem::find(line, DATA).map(|at| &line[at + DATA.len()..]);
    let data = data.and_then(|data| data.get(..EVENT_BYTES));
    let data = data.with_context(|| format!("not an event: {}", line.escape_ascii()))?;
    Ok(Some((
        Item::Event(event(Event::parse_text(data), data)?),
        end + 1,
    )))
}

fn event(parsed: Option<Event>, payload: &[u8]) -> Result<Event> {
    parsed.with_context(|| format!("not an event: {} bytes", payload.len()))
}
