//! What goes over the wire: requests and answers, and messages of fixed size that are found again in any pieces.
//!
//! As little as will do, for both ends of thousands of connections share a CPU.

use anyhow::{Context, Result, bail, ensure};
use memchr::memmem;

/// Payload bytes of every small message: sequence number, creation time, filling.
pub const MESSAGE_BYTES: usize = 128;

/// Payload bytes of a large one.
pub const BULK_BYTES: usize = 64 * 1024;

/// Sequence number and time, in hexadecimal.
const NUMBERS: usize = 32;

/// What stands around a payload of fixed size.
#[derive(Debug)]
pub struct Layout {
    before: &'static [u8],
    payload: usize,
    after: &'static [u8],
    /// Whether the payload says when and as which it was sent.
    numbered: bool,
}

/// From the upstream: an unmasked text frame.
pub static DOWN: Layout = Layout {
    before: &[0x81, 126, 0, MESSAGE_BYTES as u8],
    payload: MESSAGE_BYTES,
    after: b"",
    numbered: true,
};

/// From the client: masked, with the key that leaves the bytes as they are.
pub static UP: Layout = Layout {
    before: &[0x81, 0x80 | 126, 0, MESSAGE_BYTES as u8, 0, 0, 0, 0],
    payload: MESSAGE_BYTES,
    after: b"",
    numbered: true,
};

/// A server-sent event.
pub static EVENT: Layout = Layout {
    before: b"data: ",
    payload: MESSAGE_BYTES,
    after: b"\n\n",
    numbered: true,
};

/// A large unmasked binary frame.
pub static BULK: Layout = Layout {
    before: &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0],
    payload: BULK_BYTES,
    after: b"",
    numbered: false,
};

impl Layout {
    /// Bytes on the wire.
    pub fn size(&self) -> usize {
        self.before.len() + self.payload + self.after.len()
    }

    /// The whole message.
    pub fn message(&self, seq: u64, created_ns: u64) -> Vec<u8> {
        let mut message = Vec::with_capacity(self.size());
        message.extend_from_slice(self.before);
        for number in [seq, created_ns] {
            message.extend(
                (0..16)
                    .rev()
                    .map(|digit| b"0123456789abcdef"[(number >> (digit * 4)) as usize & 0xf]),
            );
        }
        message.resize(self.before.len() + self.payload, b'.');
        message.extend_from_slice(self.after);
        message
    }
}

/// A message as it arrived.
pub struct Message {
    /// Its number on its connection, from 1.
    pub seq: u64,
    /// When it was due.
    pub created_ns: u64,
}

/// Finds the messages of one connection.
pub struct Messages {
    layout: &'static Layout,
    /// Bytes of the message under way that have come.
    at: usize,
    head: Vec<u8>,
}

impl Messages {
    /// Nothing has come yet.
    pub fn new(layout: &'static Layout) -> Self {
        Self {
            layout,
            at: 0,
            head: Vec::new(),
        }
    }

    /// Expects messages of another kind; there must be none under way.
    pub fn expect(&mut self, layout: &'static Layout) {
        self.layout = layout;
    }

    /// Takes the next bytes and hands out the messages that end in them, without a value if they are not numbered.
    pub fn take(&mut self, mut bytes: &[u8], mut each: impl FnMut(Option<Message>)) -> Result<()> {
        let (size, start) = (self.layout.size(), self.layout.before.len());
        let head = start + if self.layout.numbered { NUMBERS } else { 0 };
        while !bytes.is_empty() {
            let more = bytes.len().min(size - self.at);
            let wanted = head.saturating_sub(self.at).min(more);
            self.head.extend_from_slice(&bytes[..wanted]);
            self.at += more;
            bytes = &bytes[more..];
            if self.at < size {
                break;
            }
            ensure!(
                self.head.starts_with(self.layout.before),
                "no message: {}",
                self.head.escape_ascii()
            );
            let numbers = &self.head[start..];
            let number = |digits: &[u8]| {
                digits.iter().fold(0, |number, digit| {
                    // Letters have the bit of 64 set, digits have not.
                    number << 4 | u64::from((digit & 0xf) + 9 * (digit >> 6))
                })
            };
            each(self.layout.numbered.then(|| Message {
                seq: number(&numbers[..16]),
                created_ns: number(&numbers[16..]),
            }));
            self.at = 0;
            self.head.clear();
        }
        Ok(())
    }
}

/// The data of a chunked body (RFC 9112, section 7.1), however its chunks were cut anew.
#[derive(Default)]
pub struct Chunks {
    /// Bytes of data before the next chunk's head.
    left: usize,
    /// The head under way, with the line end of the data before it.
    head: Vec<u8>,
}

impl Chunks {
    /// Takes the next bytes and hands out the data in them.
    pub fn take(
        &mut self,
        mut bytes: &[u8],
        mut each: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        while !bytes.is_empty() {
            if self.left > 0 {
                let more = self.left.min(bytes.len());
                each(&bytes[..more])?;
                self.left -= more;
                bytes = &bytes[more..];
                continue;
            }
            self.head.push(bytes[0]);
            bytes = &bytes[1..];
            let line = self.head.strip_prefix(b"\r\n").unwrap_or(&self.head);
            if let Some(size) = line.strip_suffix(b"\r\n")
                && !size.is_empty()
            {
                let size = std::str::from_utf8(size)?;
                self.left = usize::from_str_radix(size.trim(), 16).context("a chunk's size")?;
                ensure!(self.left > 0, "the stream has ended");
                self.head.clear();
            }
        }
        Ok(())
    }
}

/// A message of server-sent events as a chunk of its own.
pub fn chunk(message: &[u8]) -> Vec<u8> {
    [
        format!("{:x}\r\n", message.len()).as_bytes(),
        message,
        b"\r\n",
    ]
    .concat()
}

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A WebSocket.
    WebSocket,
    /// A stream of server-sent events.
    Sse,
    /// An answer of [`MESSAGE_BYTES`].
    Plain,
}

impl Ask {
    /// The request of the client with this number.
    pub fn request(self, number: usize) -> String {
        let (path, more) = match self {
            Self::WebSocket => (
                "ws",
                "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            ),
            Self::Sse => ("sse", "Accept: text/event-stream\r\n"),
            Self::Plain => ("plain", "Accept: text/plain\r\n"),
        };
        format!("GET /{path}/{number} HTTP/1.1\r\nHost: bench.example\r\n{more}\r\n")
    }

    /// What the upstream answers.
    pub fn answer(self) -> Vec<u8> {
        match self {
            Self::WebSocket => {
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                                 Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
                    .to_vec()
            }
            Self::Sse => {
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n\
                           Transfer-Encoding: chunked\r\n\r\n"
                    .to_vec()
            }
            Self::Plain => {
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {MESSAGE_BYTES}\r\n\r\n"
                );
                let mut answer = head.into_bytes();
                answer.resize(answer.len() + MESSAGE_BYTES, b'.');
                answer
            }
        }
    }

    /// The request that begins here, once its head is there: what is asked for, by which client, and the head's length.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize, usize)>> {
        let Some(end) = memmem::find(bytes, b"\r\n\r\n") else {
            return Ok(None);
        };
        let line = bytes.split(|byte| *byte == b' ').nth(1).unwrap_or(b"");
        let path = String::from_utf8_lossy(line);
        let mut parts = path.split('/').skip(1);
        let ask = match parts.next() {
            Some("ws") => Self::WebSocket,
            Some("sse") => Self::Sse,
            Some("plain") => Self::Plain,
            _ => bail!("asked for {path}"),
        };
        let number = parts.next().context("no number")?.parse()?;
        Ok(Some((ask, number, end + 4)))
    }

    /// The length of the answer's head, once all of it is there, and whether its body is chunked.
    pub fn head(self, bytes: &[u8]) -> Result<Option<(usize, bool)>> {
        let Some(end) = memmem::find(bytes, b"\r\n\r\n") else {
            return Ok(None);
        };
        let status: &[u8] = match self {
            Self::WebSocket => b"HTTP/1.1 101 ",
            Self::Sse | Self::Plain => b"HTTP/1.1 200 ",
        };
        let head = &bytes[..end];
        ensure!(head.starts_with(status), "refused: {}", head.escape_ascii());
        let chunked = self == Self::Sse
            && memmem::find(&head.to_ascii_lowercase(), b"transfer-encoding: chunked").is_some();
        Ok(Some((end + 4, chunked)))
    }
}
