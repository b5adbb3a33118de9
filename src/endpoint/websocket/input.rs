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
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: usize = 1_000;
    const NOBODY: Result<fn(Payload), Unheard> = Err(Unheard::Nobody);

    /// A client frame; the mask is zero, so the payload stands as it is.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        match payload.len() {
            len @ 0..126 => frame.push(0x80 | len as u8),
            len => {
                frame.push(0x80 | 126);
                frame.extend((len as u16).to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend(payload);
        frame
    }

    /// Feeds `bytes` in pieces of `step`; the replies and how it ended.
    fn feed(bytes: &[u8], step: usize) -> (Vec<u8>, Result<(), End>) {
        let mut input = Input::new(Format::WebSocket, MAX);
        let mut replies = vec![];
        for piece in bytes.chunks(step) {
            if let Err(end) = input.take(piece, &mut replies, NOBODY) {
                return (replies, Err(end));
            }
        }
        (replies, Ok(()))
    }

    fn code_of(bytes: &[u8]) -> u16 {
        match feed(bytes, bytes.len()).1 {
            Err(End::Violation { code, .. }) => code.into(),
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn pings_are_answered_with_their_payload_however_they_arrive() {
        let pings = [
            frame(0x89, b"one"),
            frame(0x8A, b"a pong"),
            frame(0x89, b""),
        ]
        .concat();
        for step in 1..=pings.len() {
            assert_eq!(
                feed(&pings, step),
                (b"\x8a\x03one\x8a\x00".to_vec(), Ok(())),
                "step {step}"
            );
        }
    }

    #[test]
    fn it_is_known_whether_a_message_is_whole() {
        let bytes = [
            frame(0x01, b"two "),
            frame(0x89, b"ping"),
            frame(0x80, b"halves"),
            frame(0x82, b"one"),
        ];
        let lens = bytes.each_ref().map(Vec::len);
        let bytes = bytes.concat();
        let whole = [lens[..3].iter().sum(), bytes.len()];
        let mut input = Input::new(Format::WebSocket, MAX);
        for (at, byte) in bytes.iter().enumerate() {
            let taken = input.take(&[*byte], &mut vec![], Ok(|_| ()));
            assert_eq!(taken, Ok(()));
            assert_eq!(
                input.is_between_messages(),
                whole.contains(&(at + 1)),
                "{at}"
            );
        }
    }

    #[test]
    fn nothing_is_kept_after_whole_control_frames() {
        let mut input = Input::new(Format::WebSocket, MAX);
        let ping = frame(0x89, b"ping");
        input
            .take(&ping, &mut vec![], NOBODY)
            .expect("a ping is welcome");
        assert!(input.parser.is_none());
        input
            .take(&ping[..5], &mut vec![], NOBODY)
            .expect("half a ping too");
        assert!(input.parser.is_some());
    }

    #[test]
    fn a_ping_alone_in_the_middle_of_a_message_leaves_that_as_it_is() {
        let (mut input, mut taken) = (Input::new(Format::WebSocket, MAX), vec![]);
        let ping = frame(0x89, b"ping");
        let whole = frame(0x82, &ping);
        let (begin, end) = whole.split_at(whole.len() - ping.len());
        for read in [
            &frame(0x01, b"two ")[..],
            &ping,
            &frame(0x80, b"halves"),
            begin,
            end,
        ] {
            let take = |payload| taken.push(payload);
            assert_eq!(input.take(read, &mut vec![], Ok(take)), Ok(()));
        }
        let expected = [Payload::text("two halves"), Payload::binary(ping.clone())];
        assert_eq!(taken, expected);
        // As before, nothing is kept once a ping has come between messages.
        assert!(input.parser.is_some());
        assert_eq!(input.take(&ping, &mut vec![], NOBODY), Ok(()));
        assert!(input.parser.is_none());
    }

    #[test]
    fn a_long_frame_takes_no_room_before_it_has_come() {
        let long = 100_000;
        let payload = vec![b'x'; long];
        let mut whole = vec![0x82, 0xFF];
        whole.extend((long as u64).to_be_bytes());
        whole.extend([0; 4]);
        whole.extend(&payload);
        let bytes = [&frame(0x89, b"one")[..], &whole, &frame(0x81, b"next")].concat();
        for step in [1, 13, 4_096, 99_999, bytes.len()] {
            let (mut input, mut replies, mut taken) =
                (Input::new(Format::WebSocket, long), vec![], vec![]);
            let mut come = 0;
            for piece in bytes.chunks(step) {
                let take = |payload: Payload| taken.push(payload.bytes.len());
                assert_eq!(input.take(piece, &mut replies, Ok(take)), Ok(()));
                come += piece.len();
                let room = input.parser.as_ref().map_or(0, |it| it.held.capacity());
                assert!(room <= 2 * come.max(8), "{room} bytes for {come}");
                assert!(
                    input.unfinished() <= come,
                    "{} of {come}",
                    input.unfinished()
                );
            }
            assert_eq!(taken, [long, 4], "in pieces of {step}");
            assert_eq!(replies, b"\x8a\x03one");
            assert_eq!(input.unfinished(), 0);
        }
        // The message behind it is one too many.
        let mut input = Input::new(Format::WebSocket, long);
        let begun = [&frame(0x01, &[b'x'; 500])[..], &whole[..4_000]].concat();
        let end = input.take(&begun, &mut vec![], Ok(|_| ()));
        assert!(matches!(
            end,
            Err(End::Violation {
                code: CloseCode::Protocol,
                ..
            })
        ));
    }

    #[test]
    fn of_who_is_not_heard_little_is_kept() {
        let unheard = Err(Unheard::Nobody);
        let mut begun = vec![0x82, 0xFE];
        begun.extend(60_000u16.to_be_bytes());
        let mut input = Input::new(Format::WebSocket, 1 << 20);
        let end = input.take(&begun, &mut vec![], unheard as Result<fn(_), _>);
        assert_eq!(end, Err(Unheard::Nobody.end()));
        let mut input = Input::new(Format::WebSocket, 1 << 20);
        let fragments = [frame(0x01, b"x"), frame(0x00, &[b'x'; 1_000]).repeat(3)].concat();
        let mut come = 0;
        let end = loop {
            let fragment = &fragments[come..(come + 500).min(fragments.len())];
            come += fragment.len();
            match input.take(fragment, &mut vec![], unheard as Result<fn(_), _>) {
                Ok(()) => assert!(input.unfinished() as u64 <= LONGEST_HANDED_ON),
                Err(end) => break end,
            }
        };
        assert_eq!(end, Unheard::Nobody.end());
    }

    #[test]
    fn a_close_is_answered_with_its_code() {
        let close = frame(0x88, &[0x03, 0xE8, b'b', b'y', b'e']);
        for step in 1..=close.len() {
            let (replies, end) = feed(&close, step);
            assert_eq!(end, Err(End::Closed { code: 1000 }));
            assert_eq!(replies[..4], [0x88, 5, 0x03, 0xE8]);
        }
        assert_eq!(
            feed(&frame(0x88, b""), 9).1,
            Err(End::Closed { code: 1005 })
        );
    }

    #[test]
    fn what_must_not_be_sent_is_named_by_its_code() {
        assert_eq!(code_of(&frame(0x81, b"hello")), 1003);
        assert_eq!(code_of(&frame(0x82, b"")), 1003);
        assert_eq!(code_of(&frame(0x81, b"\xff\xfe")), 1007);
        assert_eq!(code_of(&frame(0x82, &[0; MAX + 1])), 1009);
        assert_eq!(
            code_of(&[frame(0x02, &[0; MAX]), frame(0x80, b"1")].concat()),
            1009
        );
        let unmasked = [0x81, 0x02, b'h', b'i'];
        assert_eq!(code_of(&unmasked), 1002);
        let reserved_bit = frame(0xC1, b"");
        assert_eq!(code_of(&reserved_bit), 1002);
        let reserved_opcode = frame(0x83, b"");
        assert_eq!(code_of(&reserved_opcode), 1002);
        let fragmented_ping = frame(0x09, b"");
        assert_eq!(code_of(&fragmented_ping), 1002);
        let long_ping = frame(0x89, &[0; 126]);
        assert_eq!(code_of(&long_ping), 1002);
        let ping_with_a_long_length = [0x89, 0xFE, 0, 1, 0, 0, 0, 0, b'x'];
        assert_eq!(code_of(&ping_with_a_long_length), 1002);
        let continuation_of_nothing = frame(0x80, b"");
        assert_eq!(code_of(&continuation_of_nothing), 1002);
        let close_of_one_byte = frame(0x88, b"x");
        assert_eq!(code_of(&close_of_one_byte), 1002);
    }

    #[test]
    fn messages_are_taken_where_they_are_wanted() {
        let bytes = [
            frame(0x81, "é".as_bytes()),
            frame(0x89, b"ping"),
            frame(0x02, b"two "),
            frame(0x80, b"halves"),
        ]
        .concat();
        for step in 1..=bytes.len() {
            let (mut input, mut replies, mut taken) =
                (Input::new(Format::WebSocket, MAX), vec![], vec![]);
            for piece in bytes.chunks(step) {
                let take = |payload| taken.push(payload);
                assert_eq!(input.take(piece, &mut replies, Ok(take)), Ok(()));
            }
            let expected = [Payload::text("é"), Payload::binary(&b"two halves"[..])];
            assert_eq!((&taken[..], &replies[2..]), (&expected[..], &b"ping"[..]));
        }
    }

    #[test]
    fn what_comes_before_a_wrong_header_is_taken() {
        let long_ping = [0x89, 0xFE, 0, 1, 0, 0, 0, 0, b'x'];
        let bytes = [&frame(0x89, b"one")[..], &long_ping].concat();
        for step in 1..=bytes.len() {
            let (replies, end) = feed(&bytes, step);
            assert!(matches!(end, Err(End::Violation { .. })), "step {step}");
            assert_eq!(replies, b"\x8a\x03one", "step {step}");
        }
        let bytes = [&frame(0x88, b"")[..], &long_ping].concat();
        assert_eq!(feed(&bytes, bytes.len()).1, Err(End::Closed { code: 1005 }));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 1..200), step in 1usize..50) {
            let (_, _) = feed(&bytes, step);
        }
    }
}
