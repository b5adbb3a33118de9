//! The chunked transfer coding, read strictly (RFC 9112, section 7.1).

use httparse::{EMPTY_HEADER, Status, parse_headers};

use super::framing::{has_bare_line_end, has_empty_line};
use super::{MAX_FIELDS, MAX_HEAD};

/// The most digits of a chunk's size: more do not fit.
const MAX_DIGITS: u8 = 16;
/// So many bytes of chunk extensions a message may have: nobody uses them but to keep others busy.
const MAX_EXTENSIONS: usize = 4 << 10;

/// Where in a chunked body the reading is.
#[derive(Debug, Default)]
pub struct Chunked {
    state: State,
    extensions: usize,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Size {
        size: u64,
        digits: u8,
    },
    Extension {
        size: u64,
    },
    /// Behind the CR of the line with the size.
    SizeEnd {
        size: u64,
    },
    Data {
        left: u64,
    },
    /// Behind all of a chunk's data.
    DataEnd,
    /// Behind the CR behind that.
    DataLineFeed,
    /// Behind the last chunk; so much has been searched for the end.
    Trailers {
        searched: usize,
    },
}

impl Default for State {
    fn default() -> Self {
        Self::Size { size: 0, digits: 0 }
    }
}

impl Chunked {
    /// How much of `bytes` may pass, and whether the body ends there. What does not pass is to be given again, with what
    /// follows it.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<(usize, bool), &'static str> {
        let mut at = 0;
        while at < bytes.len() {
            let (len, has_ended) = self.advance_chunk(&bytes[at..], |_| {})?;
            at += len;
            if has_ended || len == 0 {
                return Ok((at, has_ended));
            }
        }
        Ok((at, false))
    }

    /// The same up to the end of a chunk at most, and `content` gets what is data. None of `bytes` pass if they are a part of a
    /// trailer section, which passes as a whole.
    pub fn advance_chunk(
        &mut self,
        bytes: &[u8],
        mut content: impl FnMut(&[u8]),
    ) -> Result<(usize, bool), &'static str> {
        let mut at = 0;
        while at < bytes.len() {
            match &mut self.state {
                State::Data { left } => {
                    let rest = bytes.len() - at;
                    let len = usize::try_from(*left).map_or(rest, |left| left.min(rest));
                    content(&bytes[at..at + len]);
                    at += len;
                    *left -= len as u64;
                    if *left == 0 {
                        self.state = State::DataEnd;
                    }
                }
                State::Trailers { searched } => {
                    let len = read_trailers(&bytes[at..], searched)?;
                    return Ok((at + len.unwrap_or(0), len.is_some()));
                }
                _ => {
                    self.state = self.next(bytes[at])?;
                    at += 1;
                    if self.is_between() {
                        break;
                    }
                }
            }
        }
        Ok((at, false))
    }

    /// Whether a chunk comes next, of which nothing has been seen.
    pub fn is_between(&self) -> bool {
        matches!(self.state, State::Size { digits: 0, .. })
    }

    /// The state behind one byte that is not data.
    fn next(&mut self, byte: u8) -> Result<State, &'static str> {
        match (self.state, byte) {
            (State::Size { size, digits }, _) if byte.is_ascii_hexdigit() => {
                if digits == MAX_DIGITS {
                    return Err("a chunk's size is too large");
                }
                let digit = char::from(byte).to_digit(16).unwrap_or(0);
                Ok(State::Size {
                    size: size << 4 | u64::from(digit),
                    digits: digits + 1,
                })
            }
            (State::Size { digits: 0, .. }, _) => Err("a chunk has no size"),
            (State::Size { size, .. } | State::Extension { size }, b'\r') => {
                Ok(State::SizeEnd { size })
            }
            (State::Size { size, .. }, b';')
            | (State::Extension { size }, b'\t' | b' '..=b'~' | 0x80..) => {
                self.extensions += 1;
                match self.extensions > MAX_EXTENSIONS {
                    true => Err("the chunk extensions are too large"),
                    false => Ok(State::Extension { size }),
                }
            }
            (State::Size { .. }, _) => Err("a chunk's size is not a number"),
            (State::Extension { .. }, _) => Err("a chunk extension has a control character"),
            (State::SizeEnd { size: 0 }, b'\n') => Ok(State::Trailers { searched: 0 }),
            (State::SizeEnd { size }, b'\n') => Ok(State::Data { left: size }),
            (State::DataEnd, b'\r') => Ok(State::DataLineFeed),
            (State::DataLineFeed, b'\n') => Ok(State::default()),
            (State::DataEnd | State::DataLineFeed, _) => Err("a chunk is longer than its size"),
            _ => Err("a line of a chunked body ends wrongly"),
        }
    }
}

/// The length of the trailer section that `bytes` begins with, with the line that ends it, if it is whole.
fn read_trailers(bytes: &[u8], searched: &mut usize) -> Result<Option<usize>, &'static str> {
    let is_whole = bytes.starts_with(b"\r\n") || has_empty_line(bytes, *searched);
    if !is_whole && has_bare_line_end(bytes, *searched) {
        return Err("a trailer's line does not end with CR and LF");
    }
    *searched = bytes.len();
    let mut fields = [EMPTY_HEADER; MAX_FIELDS];
    let len = match is_whole {
        false if bytes.len() > MAX_HEAD => return Err("the trailers are too large"),
        false => return Ok(None),
        true => match parse_headers(bytes, &mut fields) {
            Ok(Status::Complete((len, trailers))) => {
                if trailers.iter().any(|field| is_forbidden(field.name)) {
                    return Err("a trailer frames or routes its message");
                }
                len
            }
            Ok(Status::Partial) => return Ok(None),
            Err(_) => return Err("a trailer is not a field"),
        },
    };
    match len > MAX_HEAD || has_bare_line_end(&bytes[..len], 0) {
        true => Err("the trailers are too large, or a line of them does not end with CR and LF"),
        false => Ok(Some(len)),
    }
}

/// What would say too late, or to others, how a message is framed and for whom it is (RFC 9110, section 6.5.1).
pub fn is_forbidden(name: &str) -> bool {
    const NAMES: [&str; 12] = [
        "connection",
        "content-length",
        "expect",
        "forwarded",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "via",
        "x-real-ip",
    ];
    let is_told = |prefix: &[u8]| prefix.eq_ignore_ascii_case(b"x-forwarded-");
    NAMES.iter().any(|other| name.eq_ignore_ascii_case(other))
        || name.as_bytes().get(..12).is_some_and(is_told)
}
