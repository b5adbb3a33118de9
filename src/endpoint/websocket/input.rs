//! What a subscriber sends: tungstenite parses it, this file decides what it means.
//!
//! A parser with its buffer is many times what an idle subscriber costs otherwise, so there is one only while the
//! client is in the middle of a message: what arrives in whole control frames leaves nothing behind.

use std::borrow::Cow;
use std::io::{self, Read, Write};

use tokio_tungstenite::tungstenite::error::{CapacityError, Error};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig, WebSocketContext};

use crate::event::{Kind, Payload};
use crate::wire::Format;
use crate::wire::compress::Coding;
use crate::wire::websocket::{
    Checked, HeaderCheck, Inflater, MAX_CONTROL_PAYLOAD, is_whole_control_frames,
};

/// A small buffer to begin with: clients send little.
const READ_BUFFER: usize = 1 << 10;
/// Of a longer frame the parser gets nothing before all of it is there: it makes room for the whole of a frame once it knows how long that
/// is to be, which anybody can claim in a few bytes.
const LONGEST_HANDED_ON: u64 = 2 << 10;

/// Of a masked frame (RFC 6455, section 5.2).
const LONGEST_HEADER: usize = 14;

/// The parser of one subscriber's frames.
pub struct Input {
    max_message_size: usize,
    /// Its messages may be compressed.
    inflates: bool,
    parser: Option<Box<Parser>>,
}

struct Parser {
    check: HeaderCheck,
    inflater: Option<Box<Inflater>>,
    context: WebSocketContext,
    /// What has come of a long frame.
    held: Vec<u8>,
}

/// Why a subscriber's input is over.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// It sent a Close frame; the answer to it is among the replies.
    Closed {
        /// The code it gave; 1005 stands for none (RFC 6455, section 7.1.5).
        code: u16,
    },
    /// It sent what it must not: close with this code and reason (RFC 6455, section 7.4.1).
    Violation {
        /// The code of the Close frame to send.
        code: CloseCode,
        /// What was wrong, for the Close frame and the log.
        reason: Cow<'static, str>,
    },
}

/// Whoever speaks where he may only listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unheard {
    /// Nobody is heard here.
    Nobody,
    /// Others are, who have the right to.
    WithoutRight,
}

impl Unheard {
    /// What a message of his is answered with (RFC 6455, section 7.4.1).
    fn end(self) -> End {
        match self {
            Self::Nobody => violation(CloseCode::Unsupported, "this path takes no messages"),
            Self::WithoutRight => violation(
                CloseCode::Policy,
                "you have no right to publish at this path",
            ),
        }
    }
}

impl Input {
    /// A parser that refuses messages above `max_message_size` bytes, from one who is written to in `format`.
    pub fn new(format: Format, max_message_size: usize) -> Self {
        Self {
            max_message_size,
            inflates: format.coding() == Some(Coding::Deflate),
            parser: None,
        }
    }

    /// Whether what has been taken in ends with a whole message: then another parser can go on.
    pub fn is_between_messages(&self) -> bool {
        let parser = self.parser.as_ref();
        parser.is_none_or(|parser| parser.check.is_between_messages())
    }

    /// So many bytes are kept of a message that has not ended, or a few more.
    pub fn unfinished(&self) -> usize {
        let parser = self.parser.as_ref();
        parser.map_or(0, |parser| parser.check.unfinished() as usize)
    }

    /// Takes in what has been read from the socket. Encoded replies (pongs, the answer to a Close) are added to
    /// `replies`; with [`End::Violation`] they are worth nothing. Messages go to `publish`, in order; from those who
    /// are unheard they are a violation, and not much of one is kept to find that out.
    pub fn take(
        &mut self,
        bytes: &[u8],
        replies: &mut Vec<u8>,
        mut publish: Result<impl FnMut(Payload), Unheard>,
    ) -> Result<(), End> {
        let (max_message_size, inflates) = (self.max_message_size, self.inflates);
        // A ping may come alone in the middle of a message, and what belongs to a message may look like one.
        let leaves_nothing = self.is_between_messages() && is_whole_control_frames(bytes);
        let mut parser = self.parser.take().unwrap_or_else(|| {
            let config = WebSocketConfig::default()
                .read_buffer_size(READ_BUFFER)
                .write_buffer_size(0)
                .max_message_size(Some(max_message_size))
                // A control frame is no message: it may be as long as control frames may be.
                .max_frame_size(Some(max_message_size.max(MAX_CONTROL_PAYLOAD)));
            Box::new(Parser {
                check: HeaderCheck::of(inflates),
                inflater: inflates.then(|| Box::new(Inflater::new(max_message_size))),
                context: WebSocketContext::new(Role::Server, Some(config)),
                held: vec![],
            })
        });
        let Checked { good, whole, wrong } = parser.check.take(bytes);
        // What is too long even to be held is refused as soon as that is said.
        let held = LONGEST_HANDED_ON + 1..=max_message_size as u64;
        let begun = parser.check.begun();
        let begun = begun.filter(|(len, _)| held.contains(len));
        let (ready, wrong) = match begun {
            Some((_, is_due)) => {
                let wrong = (!is_due).then_some("a frame that must not come here");
                (whole.unwrap_or(0), wrong)
            }
            None => (good, wrong),
        };
        let is_much = begun.is_some() || parser.check.unfinished() > LONGEST_HANDED_ON;
        let before = match ready {
            0 => vec![],
            _ => std::mem::take(&mut parser.held),
        };
        let wrong = wrong.map(|wrong| (CloseCode::Protocol, Cow::Borrowed(wrong)));
        let mut inflated = Vec::new();
        let (input, wrong) = match &mut parser.inflater {
            None => ((&before[..]).chain(&bytes[..ready]), wrong),
            Some(inflater) => {
                let taken = inflater.take(&before, &mut inflated);
                let taken = taken.and_then(|()| inflater.take(&bytes[..ready], &mut inflated));
                let nothing: &[u8] = &[];
                ((&inflated[..]).chain(nothing), taken.err().or(wrong))
            }
        };
        let mut wire = Wire {
            input,
            output: replies,
        };
        let mut closed = None;
        let result = loop {
            match parser.context.read(&mut wire) {
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                Ok(Message::Close(frame)) => {
                    closed =
                        Some(frame.map_or(u16::from(CloseCode::Status), |frame| frame.code.into()));
                }
                Ok(message) => match (&mut publish, payload(message)) {
                    (Ok(publish), Some(payload)) => publish(payload),
                    (Err(unheard), _) => break Err(unheard.end()),
                    // There is no other kind of message.
                    (Ok(_), None) => break Err(Unheard::Nobody.end()),
                },
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    break match (wrong, &publish) {
                        (Some((code, reason)), _) => Err(End::Violation { code, reason }),
                        (None, Err(unheard)) if is_much => Err(unheard.end()),
                        (None, _) => Ok(()),
                    };
                }
                Err(error) => break Err(refusal(error)),
            }
        };
        match (closed, result) {
            (Some(code), _) => Err(End::Closed { code }),
            (None, Err(end)) => Err(end),
            (None, Ok(())) => {
                if let Some((len, _)) = begun {
                    hold(&bytes[ready..good], len as usize, &mut parser.held);
                }
                self.parser = (!leaves_nothing).then_some(parser);
                Ok(())
            }
        }
    }
}

/// Adds what has come of a frame with a payload of `len` bytes: with room for twice as much as there is, but for no more than is to come.
fn hold(come: &[u8], len: usize, held: &mut Vec<u8>) {
    let least = held.len() + come.len();
    if least > held.capacity() {
        let room = (2 * least).min(len + LONGEST_HEADER).max(least);
        held.reserve_exact(room - held.len());
    }
    held.extend_from_slice(come);
}

fn payload(message: Message) -> Option<Payload> {
    let (kind, bytes) = match message {
        Message::Text(text) => (Kind::Text, text.into()),
        Message::Binary(bytes) => (Kind::Binary, bytes),
        _ => return None,
    };
    Some(Payload { kind, bytes })
}

fn violation(code: CloseCode, reason: &'static str) -> End {
    End::Violation {
        code,
        reason: Cow::Borrowed(reason),
    }
}

fn refusal(error: Error) -> End {
    match error {
        Error::Capacity(CapacityError::MessageTooLong { size, max_size }) => End::Violation {
            code: CloseCode::Size,
            reason: format!("message of {size} bytes, at most {max_size} allowed").into(),
        },
        Error::Utf8(_) => violation(CloseCode::Invalid, "text that is not UTF-8"),
        Error::Protocol(error) => End::Violation {
            code: CloseCode::Protocol,
            reason: error.to_string().into(),
        },
        error => End::Violation {
            code: CloseCode::Error,
            reason: error.to_string().into(),
        },
    }
}

/// Stands in for the socket: the parser reads what has been read already, and what it writes is kept as a reply.
struct Wire<'a> {
    input: io::Chain<&'a [u8], &'a [u8]>,
    output: &'a mut Vec<u8>,
}

impl Read for Wire<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.input.read(buffer)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            len => Ok(len),
        }
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
