//! WebSocket frames as a server writes them (RFC 6455, section 5): one unmasked final frame a message, so the bytes
//! are the same for every subscriber.

pub mod extensions;
mod inflater;

use std::io::Cursor;

use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, OpCode};

use super::compress::{self, Coding};
use crate::event::{Kind, Payload};
pub use inflater::{Inflater, Violation};

/// The longest header of an unmasked frame: two bytes and a 64-bit length.
const MAX_HEADER: usize = 10;

/// The longest payload of a control frame.
pub const MAX_CONTROL_PAYLOAD: usize = 125;

/// Final frame, no extension bits.
const FIN: u8 = 0x80;
/// What the first frame of a compressed message has besides (RFC 7692, section 6).
const COMPRESSED: u8 = 0x40;
const OPCODE_CONTINUATION: u8 = 0x0;
const OPCODE_TEXT: u8 = 0x1;
const OPCODE_BINARY: u8 = 0x2;
const OPCODE_CLOSE: u8 = 0x8;
const OPCODE_PING: u8 = 0x9;

/// An encoded frame header.
#[derive(Debug, Clone, Copy)]
pub struct Header {
    bytes: [u8; MAX_HEADER],
    len: usize,
}

impl AsRef<[u8]> for Header {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// The header of the single frame that carries `payload`; the payload's own bytes follow it unchanged.
pub fn header(payload: &Payload) -> Header {
    message_header(payload.kind, payload.bytes.len())
}

/// The header of a single frame with a message of this kind and length.
pub fn message_header(kind: Kind, len: usize) -> Header {
    let opcode = match kind {
        Kind::Text => OPCODE_TEXT,
        Kind::Binary => OPCODE_BINARY,
    };
    encode_header(opcode, len)
}

fn encode_header(opcode: u8, len: usize) -> Header {
    let mut bytes = [0; MAX_HEADER];
    bytes[0] = FIN | opcode;
    let header_len = if len < 126 {
        bytes[1] = len as u8;
        2
    } else if let Ok(len) = u16::try_from(len) {
        bytes[1] = 126;
        bytes[2..4].copy_from_slice(&len.to_be_bytes());
        4
    } else {
        bytes[1] = 127;
        bytes[2..10].copy_from_slice(&(len as u64).to_be_bytes());
        10
    };
    Header {
        bytes,
        len: header_len,
    }
}

/// The smallest message that is worth an attempt to compress it: most JSON below that does not become smaller.
const LEAST_COMPRESSED: usize = 128;

/// Adds the frame of the message that consists of these parts, compressed by `permessage-deflate` (RFC 7692), if it is smaller so. If
/// it is not, nothing is added: such a message goes as it is, which is allowed at any time (section 6).
pub fn encode_deflated(kind: Kind, parts: &[&[u8]], out: &mut Vec<u8>) -> bool {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    if len < LEAST_COMPRESSED {
        return false;
    }
    let mut message = Vec::new();
    compress::deflate_message(parts, &mut message);
    let is_smaller = message.len() < len;
    Coding::Deflate.count(len, if is_smaller { message.len() } else { len });
    if !is_smaller {
        return false;
    }
    let mut header = message_header(kind, message.len());
    header.bytes[0] |= COMPRESSED;
    out.extend_from_slice(header.as_ref());
    out.extend_from_slice(&message);
    true
}

/// A Ping frame without payload.
pub const PING: [u8; 2] = [FIN | OPCODE_PING, 0];

/// A Close frame. A reason that would not fit a control frame (123 bytes) is cut at a character boundary.
pub fn close(code: CloseCode, reason: &str) -> Vec<u8> {
    let reason = &reason[..reason.floor_char_boundary(123)];
    let mut frame = Vec::with_capacity(4 + reason.len());
    frame.extend_from_slice(encode_header(OPCODE_CLOSE, 2 + reason.len()).as_ref());
    frame.extend_from_slice(&u16::from(code).to_be_bytes());
    frame.extend_from_slice(reason.as_bytes());
    frame
}

/// Where the frame that holds byte `at - 1` of `frames` ends, and how many frames end up to there.
///
/// `frames` holds whole unmasked frames one after another, and `0 < at <= frames.len()`: the first `at` bytes have
/// been written to a socket, and the answer tells what has to follow before anything else may.
pub fn boundary_at_or_after(frames: &[u8], at: usize) -> (usize, u64) {
    let (mut end, mut count) = (0, 0);
    while end < at {
        end += frame_len(&frames[end..]);
        count += 1;
    }
    (end, count)
}

fn frame_len(frame: &[u8]) -> usize {
    match frame[1] & 0x7f {
        126 => 4 + usize::from(u16::from_be_bytes([frame[2], frame[3]])),
        127 => {
            let len: [u8; 8] = frame[2..10].try_into().expect("a slice of eight bytes");
            10 + u64::from_be_bytes(len) as usize
        }
        len => 2 + usize::from(len),
    }
}

/// Follows what a client sends from frame to frame and finds what the parser behind it lets pass or finds late: a length
/// that is not in its shortest form (RFC 6455, section 5.2), and a control frame above 125 bytes (section 5.5).
#[derive(Debug, Default)]
pub struct HeaderCheck {
    /// The beginning of a header that has not all arrived; or the one of the frame that has not.
    header: [u8; 10],
    have: usize,
    /// Bytes left of a frame behind its length: mask and payload.
    skip: u64,
    /// How long the payload of that frame is.
    len: u64,
    /// The last frame of a message is still to come (RFC 6455, section 5.4).
    in_message: bool,
    /// So many bytes of that message were in frames that are whole.
    before: u64,
    /// Messages may be compressed.
    inflates: bool,
}

/// What [`HeaderCheck::take`] has found.
#[derive(Debug, PartialEq, Eq)]
pub struct Checked {
    /// So many bytes may be parsed.
    pub good: usize,
    /// So many of them end with a frame, if one ends in them.
    pub whole: Option<usize>,
    /// If they are not all: what is wrong with the frame behind them.
    pub wrong: Option<&'static str>,
}

impl HeaderCheck {
    /// Nothing has come yet from one whose messages may be compressed, or may not.
    pub fn of(inflates: bool) -> Self {
        Self {
            inflates,
            ..Self::default()
        }
    }

    /// Whether what has come so far ends with a whole message.
    pub fn is_between_messages(&self) -> bool {
        self.skip == 0 && self.have == 0 && !self.in_message
    }

    /// So many bytes of a message that has not ended have come, or a few more; control frames are none.
    pub fn unfinished(&self) -> u64 {
        match self.header[0] & 0x08 {
            0 => self
                .before
                .saturating_add(self.len.saturating_sub(self.skip)),
            _ => self.before,
        }
    }

    /// The length of the payload of a frame that has not all come, and whether such a frame may come here.
    pub fn begun(&self) -> Option<(u64, bool)> {
        let [first, second, ..] = self.header;
        let is_masked = second & 0x80 != 0;
        // A message begins once, and goes on only if it has begun.
        let is_compressed = self.inflates && first & COMPRESSED != 0;
        let is_due = match (first & 0x7F, is_compressed) {
            (0, _) => self.in_message,
            (1 | 2, _) | (0x41 | 0x42, true) => !self.in_message,
            _ => false,
        };
        (self.skip > 0).then_some((self.len, is_masked && is_due))
    }

    /// Looks at `input`, which goes on where the last one ended.
    pub fn take(&mut self, input: &[u8]) -> Checked {
        let (mut at, mut frame, mut whole) = (0, 0, None);
        while at < input.len() {
            if self.skip > 0 {
                let skipped = self.skip.min((input.len() - at) as u64);
                self.skip -= skipped;
                at += skipped as usize;
                frame = at;
                if self.skip == 0 {
                    self.end_frame();
                    whole = Some(at);
                }
                continue;
            }
            self.header[self.have] = input[at];
            self.have += 1;
            at += 1;
            match check_header(&self.header[..self.have]) {
                Ok(None) => {}
                Ok(Some((len, rest))) => {
                    self.have = 0;
                    (self.len, self.skip) = (len, rest);
                    frame = at;
                    if rest == 0 {
                        self.end_frame();
                        whole = Some(at);
                    }
                }
                Err(wrong) => {
                    return Checked {
                        good: frame,
                        whole,
                        wrong: Some(wrong),
                    };
                }
            }
        }
        Checked {
            good: at,
            whole,
            wrong: None,
        }
    }

    fn end_frame(&mut self) {
        let (first, len) = (self.header[0], std::mem::take(&mut self.len));
        // Control frames may come in the middle of a message.
        if first & 0x08 == 0 {
            self.in_message = first & FIN == 0;
            self.before = match self.in_message {
                true => self.before.saturating_add(len),
                false => 0,
            };
        }
    }
}

/// Once the header is there up to its length: that, and how many bytes follow.
fn check_header(header: &[u8]) -> Result<Option<(u64, u64)>, &'static str> {
    let &[first, second, ref extended @ ..] = header else {
        return Ok(None);
    };
    if first & 0x08 != 0 && usize::from(second & 0x7F) > MAX_CONTROL_PAYLOAD {
        return Err("a control frame above 125 bytes");
    }
    let (len, least) = match (second & 0x7F, extended) {
        (126, [high, low]) => (u64::from(u16::from_be_bytes([*high, *low])), 126),
        (127, bytes) if bytes.len() == 8 => (
            u64::from_be_bytes(bytes.try_into().unwrap_or_default()),
            65_536,
        ),
        (126 | 127, _) => return Ok(None),
        (len, _) => (u64::from(len), 0),
    };
    if len < least {
        return Err("a length that is not in its shortest form");
    }
    let mask = if second & 0x80 != 0 { 4 } else { 0 };
    match len.checked_add(mask).filter(|_| len >> 63 == 0) {
        Some(rest) => Ok(Some((len, rest))),
        None => Err("a length above 63 bits"),
    }
}

/// Whether `input`, which begins at a frame boundary, is nothing but whole control frames from a client: then a
/// parser that has consumed it is back where it began, and need not be kept.
pub fn is_whole_control_frames(input: &[u8]) -> bool {
    let mut rest = input;
    while !rest.is_empty() {
        let mut cursor = Cursor::new(rest);
        let Ok(Some((header, len))) = FrameHeader::parse(&mut cursor) else {
            return false;
        };
        if !matches!(header.opcode, OpCode::Control(_)) {
            return false;
        }
        // The length is what a stranger says it is, up to 64 bits of it.
        let payload = &rest[cursor.position() as usize..];
        let Some(behind) = usize::try_from(len).ok().and_then(|len| payload.get(len..)) else {
            return false;
        };
        rest = behind;
    }
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocket};

    use super::*;

    /// Reads server frames with the parser of a library that did not write them.
    fn decode(wire: Vec<u8>) -> Vec<Message> {
        let mut socket = WebSocket::from_raw_socket(Cursor::new(wire), Role::Client, None);
        std::iter::from_fn(|| socket.read().ok()).collect()
    }

    fn frame(payload: &Payload) -> Vec<u8> {
        [header(payload).as_ref(), &payload.bytes].concat()
    }

    fn payload() -> impl Strategy<Value = Payload> {
        // Around the lengths where the header changes its form.
        let len = prop_oneof![0usize..300, 65_500usize..65_600];
        (any::<bool>(), len).prop_map(|(text, len)| match text {
            true => Payload::text("é".repeat(len / 2)),
            false => Payload::binary(vec![0xFF; len]),
        })
    }

    proptest! {
        #[test]
        fn payloads_come_out_unchanged(payloads in proptest::collection::vec(payload(), 1..8)) {
            let wire = payloads.iter().flat_map(frame).collect();
            let decoded = decode(wire);
            prop_assert_eq!(decoded.len(), payloads.len());
            for (message, payload) in decoded.into_iter().zip(payloads) {
                prop_assert_eq!(message.is_text(), payload.kind == Kind::Text);
                prop_assert_eq!(message.into_data(), payload.bytes);
            }
        }

        #[test]
        fn a_cut_is_mended_at_the_end_of_its_frame(
            payloads in proptest::collection::vec(payload(), 1..8),
            cut in any::<proptest::sample::Index>(),
        ) {
            let mut ends = vec![];
            let mut wire = vec![];
            for payload in &payloads {
                wire.extend(frame(payload));
                ends.push(wire.len());
            }
            let at = cut.index(wire.len()) + 1;
            let (end, count) = boundary_at_or_after(&wire, at);
            let frames = ends.iter().position(|&end| end >= at).expect("the last end is the length") + 1;
            prop_assert_eq!((end, count), (ends[frames - 1], frames as u64));
        }
    }

    #[test]
    fn a_close_frame_carries_code_and_reason() {
        let messages = decode(close(CloseCode::Again, "history has passed"));
        let Some(Message::Close(Some(frame))) = messages.first() else {
            panic!("not a Close frame: {messages:?}");
        };
        assert_eq!(frame.code, CloseCode::Again);
        assert_eq!(frame.reason.as_str(), "history has passed");
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let frame = close(CloseCode::Away, &"é".repeat(100));
        assert_eq!(frame.len(), 2 + 2 + 122);
        assert_eq!(decode(frame).len(), 1);
    }

    #[test]
    fn headers_are_checked_wherever_the_input_is_cut() {
        let good = [
            &[0x89, 0x80, 0, 0, 0, 0][..],
            &[0x81, 0x82, 0, 0, 0, 0, b'h', b'i'],
            &[0x82, 0xFE, 0, 126, 0, 0, 0, 0],
            &[0xFF; 126],
        ]
        .concat();
        let wrong: [&[u8]; 5] = [
            &[0x81, 0xFE, 0, 125],
            &[0x81, 0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF],
            &[0x81, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0],
            &[0x89, 0xFE],
            &[0x88, 0xFF],
        ];
        for wrong in wrong {
            let input = [&good[..], wrong].concat();
            for step in 1..=input.len() {
                let mut check = HeaderCheck::default();
                let mut results = input
                    .chunks(step)
                    .map(|piece| (piece.len(), check.take(piece)));
                let (_, found) = results
                    .find(|(len, checked)| checked.good < *len)
                    .expect("found");
                assert!(found.wrong.is_some(), "{wrong:?} in pieces of {step}");
            }
            let checked = HeaderCheck::default().take(&input);
            assert_eq!(
                (checked.good, checked.whole, checked.wrong.is_some()),
                (good.len(), Some(good.len()), true),
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn a_length_beyond_all_memory_is_no_whole_frame() {
        for len in [u64::MAX, u64::MAX - 13, 1 << 63, 127] {
            let frame = [&[0x89, 0xFF][..], &len.to_be_bytes(), &[0; 4]].concat();
            assert!(!is_whole_control_frames(&frame), "{len}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_loop_or_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = is_whole_control_frames(&bytes);
        }
    }

    #[test]
    fn control_frames_are_told_from_the_rest() {
        let ping = [0x89, 0x81, 1, 2, 3, 4, 5];
        let text = [0x81, 0x81, 1, 2, 3, 4, 5];
        assert!(is_whole_control_frames(&[]));
        assert!(is_whole_control_frames(&ping));
        assert!(is_whole_control_frames(&[ping, ping].concat()));
        assert!(!is_whole_control_frames(&[ping, text].concat()));
        for cut in 1..ping.len() {
            assert!(!is_whole_control_frames(&ping[..cut]), "cut at {cut}");
        }
    }
}
