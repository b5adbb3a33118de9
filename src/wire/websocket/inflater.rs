//! Takes the compression out of what the other side of a WebSocket sends (RFC 7692), before a parser that knows nothing of it
//! reads it.
//!
//! Frames that are not compressed pass as they are, also those with which something is wrong: that is for the parser to say. A
//! compressed message is kept up to its end, and goes on as one frame.

use std::borrow::Cow;

use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::{
    COMPRESSED, FIN, OPCODE_BINARY, OPCODE_CONTINUATION, OPCODE_TEXT, check_header, encode_header,
};
use crate::wire::compress::{self, Wrong};

const MASKED: u8 = 0x80;
const OPCODE: u8 = 0x0F;
const CONTROL: u8 = 0x08;

/// What has been read of a header, up to the mask: two bytes, a length and a mask.
const MAX_HEADER: usize = 14;

/// Why a message cannot be taken: the code and the reason to close with (RFC 6455, section 7.4.1).
pub type Violation = (CloseCode, Cow<'static, str>);

/// Follows what the other side sends, from frame to frame.
pub struct Inflater {
    /// The most that a message may have once it is expanded.
    max_message_size: usize,
    header: [u8; MAX_HEADER],
    have: usize,
    /// How many bytes of this frame's payload are still to come.
    left: u64,
    frame: Frame,
    /// A compressed message of which some frames have come, and what it is.
    message: Option<(u8, Vec<u8>)>,
    /// A message that is not compressed, and not at its end.
    in_plain: bool,
}

/// What becomes of the payload of a frame.
#[derive(Clone, Copy)]
enum Frame {
    /// It passes as it is.
    Passes,
    /// It is a part of the compressed message.
    Kept {
        mask: Option<[u8; 4]>,
        /// How many bytes of it have been there.
        at: usize,
        is_last: bool,
    },
}

impl Inflater {
    /// Messages may have `max_message_size` bytes once they are expanded; never is more made of one.
    pub fn new(max_message_size: usize) -> Self {
        Self {
            max_message_size,
            header: [0; MAX_HEADER],
            have: 0,
            left: 0,
            frame: Frame::Passes,
            message: None,
            in_plain: false,
        }
    }

    /// What a compressed message may have: what is random becomes larger.
    fn max_compressed(&self) -> usize {
        self.max_message_size
            .saturating_add(self.max_message_size / 8 + 64)
    }

    /// Takes in `input`, which goes on where the last one ended, and adds to `out` what a parser is to read. An error is about what
    /// follows that.
    pub fn take(&mut self, mut input: &[u8], out: &mut Vec<u8>) -> Result<(), Violation> {
        loop {
            if self.left > 0 {
                let len = self.left.min(input.len() as u64) as usize;
                let (payload, rest) = input.split_at(len);
                self.left -= len as u64;
                input = rest;
                self.take_payload(payload, out)?;
                if self.left > 0 {
                    return Ok(());
                }
            }
            let Some((&byte, rest)) = input.split_first() else {
                return Ok(());
            };
            self.header[self.have] = byte;
            self.have += 1;
            input = rest;
            self.take_header(out)?;
        }
    }

    /// Acts on a header, once it is whole.
    fn take_header(&mut self, out: &mut Vec<u8>) -> Result<(), Violation> {
        // Two bytes, a length, and a mask.
        let header = &self.header[..self.have];
        let Some(second) = header.get(1) else {
            return Ok(());
        };
        let extended = match second & !MASKED {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if second & MASKED != 0 { 4 } else { 0 };
        if header.len() < 2 + extended + mask {
            return Ok(());
        }
        let wrong = |wrong| (CloseCode::Protocol, Cow::Borrowed(wrong));
        let found = check_header(&header[..2 + extended]).map_err(wrong)?;
        self.left = found.map_or(0, |(len, _)| len);
        let first = header[0];
        self.frame = match first & OPCODE {
            OPCODE_CONTINUATION if self.message.is_some() && first & !(FIN | OPCODE) == 0 => {
                self.kept(extended)
            }
            OPCODE_TEXT | OPCODE_BINARY if first & !(FIN | OPCODE) == COMPRESSED => {
                if self.message.is_some() || self.in_plain {
                    return Err(wrong("a message begins within another one"));
                }
                self.message = Some((first & OPCODE, Vec::new()));
                self.kept(extended)
            }
            opcode if opcode & CONTROL == 0 && self.message.is_some() => {
                return Err(wrong("a message begins within another one"));
            }
            opcode => {
                if opcode & CONTROL == 0 {
                    self.in_plain = first & FIN == 0;
                }
                out.extend_from_slice(header);
                Frame::Passes
            }
        };
        self.have = 0;
        if let Some((_, message)) = &self.message
            && matches!(self.frame, Frame::Kept { .. })
        {
            let len = (message.len() as u64).saturating_add(self.left);
            if len > self.max_compressed() as u64 {
                return Err(self.too_large());
            }
        }
        if self.left == 0 {
            self.take_payload(&[], out)?;
        }
        Ok(())
    }

    /// A frame that is a part of the compressed message; its mask, if it has one, stands behind its length.
    fn kept(&self, extended: usize) -> Frame {
        let mask = self.header[2 + extended..self.have].try_into();
        Frame::Kept {
            mask: mask.ok(),
            at: 0,
            is_last: self.header[0] & FIN != 0,
        }
    }

    fn take_payload(&mut self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), Violation> {
        let (mask, is_last) = match &mut self.frame {
            Frame::Passes => {
                out.extend_from_slice(payload);
                return Ok(());
            }
            Frame::Kept { mask, at, is_last } => {
                if let Some((_, message)) = &mut self.message {
                    let begin = message.len();
                    message.extend_from_slice(payload);
                    if let Some(mask) = mask {
                        let from = *at;
                        for (index, byte) in message[begin..].iter_mut().enumerate() {
                            *byte ^= mask[(from + index) % 4];
                        }
                    }
                    *at += payload.len();
                }
                (*mask, *is_last)
            }
        };
        if self.left > 0 || !is_last {
            return Ok(());
        }
        let Some((opcode, message)) = self.message.take() else {
            return Ok(());
        };
        let whole = compress::inflate_message(&message, self.max_message_size);
        let whole = whole.map_err(|wrong| match wrong {
            Wrong::Broken => (
                CloseCode::Invalid,
                "a message's compressed data is broken".into(),
            ),
            Wrong::TooLarge => self.too_large(),
        })?;
        let mut header = encode_header(opcode, whole.len());
        if mask.is_some() {
            header.bytes[1] |= MASKED;
        }
        out.extend_from_slice(header.as_ref());
        if mask.is_some() {
            // A mask that changes nothing.
            out.extend_from_slice(&[0; 4]);
        }
        out.extend_from_slice(&whole);
        Ok(())
    }

    fn too_large(&self) -> Violation {
        let most = self.max_message_size;
        let reason = format!("a compressed message of more than {most} bytes");
        (CloseCode::Size, reason.into())
    }
}

#[cfg(test)]
mod tests;
