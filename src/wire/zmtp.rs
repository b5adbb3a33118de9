//! ZMTP 3.1 (ZeroMQ RFC 37), as far as sockets that publish and subscribe need it: greeting, READY, messages, subscriptions, PING.
//!
//! Security is the NULL mechanism. Peers that speak 3.0 subscribe with messages, others with commands; both are understood.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The length of a greeting in bytes.
pub const GREETING: usize = 64;
/// So many bytes of it say which version the other side speaks; one that speaks an old one sends no more.
pub const VERSION: usize = 11;

/// A frame with others behind it in the same message.
const MORE: u8 = 1;
/// A frame whose length has eight bytes.
const LONG: u8 = 2;
/// A frame that is a command.
const COMMAND: u8 = 4;
/// The longest command in bytes: what is in one is names and topics.
const MAX_COMMAND: usize = 64 << 10;

/// The longest topic in bytes that a peer may subscribe to, by message or by command.
pub const MAX_TOPIC: usize = 1 << 10;

/// What the other side does that this protocol does not know. No way back leads from there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong(pub String);

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Wrong {}

/// The kinds of sockets that publish and subscribe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Socket {
    /// Publishes.
    Pub,
    /// Publishes what others do.
    XPub,
    /// Subscribes.
    Sub,
    /// Subscribes for others.
    XSub,
}

impl Socket {
    /// As it is called in READY.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pub => "PUB",
            Self::XPub => "XPUB",
            Self::Sub => "SUB",
            Self::XSub => "XSUB",
        }
    }

    /// Whether a socket of this name is a peer for it.
    fn fits(self, other: &[u8]) -> bool {
        match self {
            Self::Pub | Self::XPub => matches!(other, b"SUB" | b"XSUB"),
            Self::Sub | Self::XSub => matches!(other, b"PUB" | b"XPUB"),
        }
    }
}

/// What is said first, by both sides.
pub fn greeting() -> [u8; GREETING] {
    let mut greeting = [0; GREETING];
    greeting[0] = 0xff;
    greeting[9] = 0x7f;
    (greeting[10], greeting[11]) = (3, 1);
    greeting[12..16].copy_from_slice(b"NULL");
    greeting
}

/// Whether the first bytes of a greeting are those of a version that is spoken here.
pub fn check_version(begun: &[u8; VERSION]) -> Result<(), Wrong> {
    if begun[0] != 0xff || begun[9] & 1 != 1 {
        return Err(Wrong("what is there does not speak ZeroMQ".to_owned()));
    }
    match begun[10] {
        0..3 => Err(Wrong(
            "it speaks an old version of ZeroMQ: libzmq 4 is needed, or what is as new".to_owned(),
        )),
        _ => Ok(()),
    }
}

/// Whether the other side knows what has come with version 3.1: subscriptions that are commands, and PING.
pub fn check_greeting(greeting: &[u8; GREETING]) -> Result<bool, Wrong> {
    let mechanism = greeting[12..32].split(|&byte| byte == 0).next();
    match mechanism {
        Some(b"NULL") => Ok((greeting[10], greeting[11]) >= (3, 1)),
        other => Err(Wrong(format!(
            "it wants security by {}, and none is spoken here",
            String::from_utf8_lossy(other.unwrap_or_default()).escape_debug()
        ))),
    }
}

/// A message: one frame or more, as they are on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    wire: Bytes,
}

impl Message {
    /// A message of these frames. There is at least one.
    pub fn new(frames: &[&[u8]]) -> Self {
        let len = frames.iter().map(|frame| frame.len() + 9).sum();
        let mut wire = BytesMut::with_capacity(len);
        for (number, frame) in frames.iter().enumerate() {
            let more = if number + 1 < frames.len() { MORE } else { 0 };
            put_frame(more, frame, &mut wire);
        }
        Self {
            wire: wire.freeze(),
        }
    }

    /// As it goes over the wire.
    pub fn wire(&self) -> &Bytes {
        &self.wire
    }

    /// What is in its frames.
    pub fn frames(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.wire[..];
        std::iter::from_fn(move || {
            let head = Head::read(rest)?;
            let (frame, behind) = rest[head.len..].split_at(head.body as usize);
            rest = behind;
            Some(frame)
        })
    }

    /// The first frame: what subscriptions are about.
    pub fn topic(&self) -> &[u8] {
        self.frames().next().unwrap_or_default()
    }
}

/// What a peer says between messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Its kind of socket fits, and it begins.
    Ready,
    /// It refuses, and says why.
    Error(String),
    /// It wants what begins so.
    Subscribe(Bytes),
    /// It does not any more.
    Cancel(Bytes),
    /// It asks for a [`pong`] with this context.
    Ping(Bytes),
    /// It is there, or says what means nothing here.
    Other,
}

/// What has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A message.
    Message(Message),
    /// A message that is too long, of so many bytes. It has been skipped.
    TooLong(u64),
    /// A command.
    Command(Command),
}

/// Takes what comes behind the greeting apart.
#[derive(Debug)]
pub struct Decoder {
    own: Socket,
    /// The longest message in bytes, as it is on the wire.
    most: usize,
    /// Of the message that comes, so many bytes are whole frames.
    whole: usize,
    skipping: Option<Skipping>,
}

/// A message that is too long.
#[derive(Debug)]
struct Skipping {
    /// So many bytes of it have come, or are known to come.
    len: u64,
    /// So many are still to come of its frame.
    left: u64,
    /// Whether more frames are to come.
    more: bool,
}

/// The head of a frame.
struct Head {
    flags: u8,
    /// Of the head itself.
    len: usize,
    /// Of what it is the head of.
    body: u64,
}

impl Head {
    fn read(bytes: &[u8]) -> Option<Self> {
        let (&flags, mut rest) = bytes.split_first()?;
        let is_long = flags & LONG != 0;
        let len = if is_long { 9 } else { 2 };
        let body = match (bytes.len() >= len, is_long) {
            (false, _) => return None,
            (true, true) => rest.get_u64(),
            (true, false) => rest.get_u8().into(),
        };
        Some(Self { flags, len, body })
    }
}

impl Decoder {
    /// For a socket that takes messages of at most `most` bytes.
    pub fn new(own: Socket, most: usize) -> Self {
        Self {
            own,
            most,
            whole: 0,
            skipping: None,
        }
    }

    /// The next of what has come, taken from `buffer`; none if more has to come. The buffer holds no more than a message
    /// may have, and what has been read at once.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Item>, Wrong> {
        loop {
            if self.skipping.is_some() && !self.skip(buffer)? {
                return Ok(None);
            }
            if let Some(Skipping {
                len, more: false, ..
            }) = self.skipping
            {
                self.skipping = None;
                return Ok(Some(Item::TooLong(len)));
            }
            let begun = &buffer[self.whole..];
            if begun
                .first()
                .is_some_and(|flags| flags & !(MORE | LONG | COMMAND) != 0)
            {
                return Err(Wrong("it sends what is no frame of ZeroMQ".to_owned()));
            }
            let Some(head) = Head::read(begun) else {
                return Ok(None);
            };
            if head.flags & COMMAND != 0 {
                return self.command(&head, buffer);
            }
            let end = (self.whole as u64).saturating_add(head.len as u64);
            let end = end.saturating_add(head.body);
            let more = head.flags & MORE != 0;
            if self.skipping.is_some() || end > self.most as u64 {
                self.begin_to_skip(&head, more, buffer);
                continue;
            }
            let end = end as usize;
            if buffer.len() < end {
                return Ok(None);
            }
            self.whole = end;
            if more {
                continue;
            }
            self.whole = 0;
            let message = buffer.split_to(end);
            return self.message(&message).map(Some);
        }
    }

    /// A frame with which the message is too long, or one behind such a one.
    fn begin_to_skip(&mut self, head: &Head, more: bool, buffer: &mut BytesMut) {
        let before = self
            .skipping
            .as_ref()
            .map_or(self.whole as u64, |skipping| skipping.len);
        buffer.advance(self.whole + head.len);
        self.whole = 0;
        self.skipping = Some(Skipping {
            len: before
                .saturating_add(head.body)
                .saturating_add(head.len as u64),
            left: head.body,
            more,
        });
    }

    /// Whether the frame that is skipped has been skipped.
    fn skip(&mut self, buffer: &mut BytesMut) -> Result<bool, Wrong> {
        let Some(skipping) = &mut self.skipping else {
            return Ok(true);
        };
        let here = skipping.left.min(buffer.len() as u64);
        buffer.advance(here as usize);
        skipping.left -= here;
        Ok(skipping.left == 0)
    }

    /// Subscriptions of those who speak 3.0 are messages.
    fn message(&self, wire: &[u8]) -> Result<Item, Wrong> {
        let message = Message {
            // No more memory than it needs, for as long as it waits.
            wire: Bytes::copy_from_slice(wire),
        };
        if matches!(self.own, Socket::Sub | Socket::XSub) {
            return Ok(Item::Message(message));
        }
        let mut frames = message.frames();
        let command = match (frames.next(), frames.next()) {
            (Some([is_wanted @ (0 | 1), topic @ ..]), None) => {
                check_topic(topic.len())?;
                let topic = Bytes::copy_from_slice(topic);
                match is_wanted {
                    1 => Command::Subscribe(topic),
                    _ => Command::Cancel(topic),
                }
            }
            _ => Command::Other,
        };
        Ok(Item::Command(command))
    }

    fn command(&mut self, head: &Head, buffer: &mut BytesMut) -> Result<Option<Item>, Wrong> {
        if head.body > MAX_COMMAND as u64 || head.flags & MORE != 0 || self.whole > 0 {
            return Err(Wrong("it sends what is no command of ZeroMQ".to_owned()));
        }
        let body = head.body as usize;
        // Known by its name alone, so that what is too long is never waited for.
        if let Some((name @ (b"SUBSCRIBE" | b"CANCEL"), _)) = short(&buffer[head.len..]) {
            check_topic(body.saturating_sub(1 + name.len()))?;
        }
        let end = head.len + body;
        if buffer.len() < end {
            return Ok(None);
        }
        let frame = buffer.split_to(end);
        let wrong = || Wrong("it sends a command that is cut off".to_owned());
        let (name, body) = short(&frame[head.len..]).ok_or_else(wrong)?;
        let command = match name {
            b"READY" => self.ready(body)?,
            b"ERROR" => {
                let reason = short(body).map_or(&b""[..], |(reason, _)| reason);
                Command::Error(String::from_utf8_lossy(reason).escape_debug().to_string())
            }
            b"SUBSCRIBE" => Command::Subscribe(Bytes::copy_from_slice(body)),
            b"CANCEL" => Command::Cancel(Bytes::copy_from_slice(body)),
            // Behind two bytes that say for how long the peer is patient.
            b"PING" => Command::Ping(Bytes::copy_from_slice(body.get(2..).ok_or_else(wrong)?)),
            _ => Command::Other,
        };
        Ok(Some(Item::Command(command)))
    }

    /// Whether the peer's properties say that it is a fitting socket.
    fn ready(&self, mut properties: &[u8]) -> Result<Command, Wrong> {
        let mut socket = &b""[..];
        while let Some((name, rest)) = short(properties) {
            let Some((length, rest)) = rest.split_at_checked(4) else {
                break;
            };
            let length = u32::from_be_bytes(length.try_into().expect("four bytes"));
            let Some((value, rest)) = rest.split_at_checked(length as usize) else {
                break;
            };
            if name.eq_ignore_ascii_case(b"Socket-Type") {
                socket = value;
            }
            properties = rest;
        }
        match self.own.fits(socket) {
            true => Ok(Command::Ready),
            false => Err(Wrong(format!(
                "its socket is a {}, and no peer for {}",
                String::from_utf8_lossy(socket).escape_debug(),
                self.own.name()
            ))),
        }
    }
}

/// Whether a topic of this length in bytes may be subscribed to.
fn check_topic(len: usize) -> Result<(), Wrong> {
    match len {
        ..=MAX_TOPIC => Ok(()),
        _ => Err(Wrong(format!(
            "it subscribes to a topic of {len} bytes, and at most {MAX_TOPIC} are possible"
        ))),
    }
}

/// What has its length in one byte before it, and what stands behind that.
fn short(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = bytes.split_first()?;
    rest.split_at_checked(length.into())
}

fn put_frame(flags: u8, body: &[u8], wire: &mut BytesMut) {
    match u8::try_from(body.len()) {
        Ok(length) => wire.put_slice(&[flags, length]),
        Err(_) => {
            wire.put_u8(flags | LONG);
            wire.put_u64(body.len() as u64);
        }
    }
    wire.put_slice(body);
}

fn command(name: &str, body: &[&[u8]]) -> Bytes {
    let mut whole = BytesMut::new();
    whole.put_u8(name.len() as u8);
    whole.put_slice(name.as_bytes());
    body.iter().for_each(|part| whole.put_slice(part));
    let mut wire = BytesMut::new();
    put_frame(COMMAND, &whole, &mut wire);
    wire.freeze()
}

/// What a socket says behind the greeting.
pub fn ready(own: Socket) -> Bytes {
    let name = own.name().as_bytes();
    let length = (name.len() as u32).to_be_bytes();
    command("READY", &[b"\x0bSocket-Type", &length, name])
}

/// Asks for what begins with `topic`, or for it no more; as a command, if the peer knows that.
pub fn subscription(topic: &[u8], is_wanted: bool, by_command: bool) -> Bytes {
    match (by_command, is_wanted) {
        (true, true) => command("SUBSCRIBE", &[topic]),
        (true, false) => command("CANCEL", &[topic]),
        (false, _) => Message::new(&[&[&[u8::from(is_wanted)], topic].concat()]).wire,
    }
}

/// Asks whether the peer is there.
pub fn ping() -> Bytes {
    // Zero: it need not expect the next one.
    command("PING", &[&[0, 0]])
}

/// The answer to a ping.
pub fn pong(context: &[u8]) -> Bytes {
    command("PONG", &[context])
}

#[cfg(test)]
mod tests;
