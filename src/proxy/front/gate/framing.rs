//! Where in a client's requests the reading is (RFC 9112, section 6).

use hyper::StatusCode;
use memchr::{memchr2_iter, memmem};

use super::MAX_HEAD;
use super::chunked::Chunked;
use super::head::{self, Body, Head};
use crate::listen::rewound::HTTP2_PREFACE;

/// Why nothing passes any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// A handshake has passed, and what is behind it may be something else than requests.
    Handshake,
    /// All of HTTP/2's preface is here.
    Http2,
    /// A head must not pass.
    Head(StatusCode, &'static str),
    /// A body must not pass.
    Body(&'static str),
}

/// What comes next.
#[derive(Debug, Default)]
pub enum Framing {
    /// The first bytes of a connection.
    #[default]
    Beginning,
    /// A head, of which so much has been searched for its end.
    Head(usize),
    /// So much of a body.
    Body(u64),
    /// A body in chunks.
    Chunked(Chunked),
}

impl Framing {
    /// How much of `bytes` may pass, and why nothing does behind that, if it is not just that more has to come. What does not
    /// pass is to be given again, with what follows it.
    pub fn advance(&mut self, bytes: &[u8]) -> (usize, Option<Stop>) {
        let mut passed = 0;
        loop {
            let rest = &bytes[passed..];
            match self {
                Self::Beginning => {
                    let begun = &HTTP2_PREFACE[..rest.len().min(HTTP2_PREFACE.len())];
                    if !rest.starts_with(begun) {
                        *self = Self::Head(0);
                    } else if begun.len() == HTTP2_PREFACE.len() {
                        return (passed, Some(Stop::Http2));
                    } else {
                        return (passed, None);
                    }
                }
                _ if rest.is_empty() => return (passed, None),
                Self::Head(searched) => {
                    let head = match read_head(rest, searched) {
                        Ok(Some(head)) => head,
                        Ok(None) => return (passed, None),
                        Err((status, reason)) => return (passed, Some(Stop::Head(status, reason))),
                    };
                    passed += head.len;
                    *self = match head.body {
                        Body::Handshake | Body::Len(0) => Self::Head(0),
                        Body::Len(len) => Self::Body(len),
                        Body::Chunked => Self::Chunked(Chunked::default()),
                    };
                    if head.body == Body::Handshake {
                        return (passed, Some(Stop::Handshake));
                    }
                }
                Self::Body(left) => {
                    let len =
                        usize::try_from(*left).map_or(rest.len(), |left| left.min(rest.len()));
                    passed += len;
                    *left -= len as u64;
                    if *left == 0 {
                        *self = Self::Head(0);
                    }
                }
                Self::Chunked(chunked) => match chunked.advance(rest) {
                    Ok((len, has_ended)) => {
                        passed += len;
                        if !has_ended {
                            return (passed, None);
                        }
                        *self = Self::Head(0);
                    }
                    Err(reason) => return (passed, Some(Stop::Body(reason))),
                },
            }
        }
    }
}

/// The head that `bytes` begins with, if it is whole. It is read when its first bytes come, so that what is none is refused
/// at once, and then again only when its end may have come.
fn read_head(
    bytes: &[u8],
    searched: &mut usize,
) -> Result<Option<Head>, (StatusCode, &'static str)> {
    let window = &bytes[..bytes.len().min(MAX_HEAD)];
    let may_be_whole = *searched == 0 || has_empty_line(window, *searched);
    let head = match may_be_whole {
        true => head::read(window)?,
        false => None,
    };
    let len = head.as_ref().map_or(window.len(), |head| head.len);
    if has_bare_line_end(&bytes[..len], *searched) {
        return Err((
            StatusCode::BAD_REQUEST,
            "a line does not end with CR and LF",
        ));
    }
    if head.is_none() && bytes.len() >= MAX_HEAD {
        return Err((
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "the head is too large",
        ));
    }
    *searched = len;
    Ok(head)
}

/// Whether there is an empty line that ends behind `searched`.
pub(super) fn has_empty_line(bytes: &[u8], searched: usize) -> bool {
    memmem::find(&bytes[searched.saturating_sub(2)..], b"\n\r\n").is_some()
}

/// Whether there is a CR or LF without the other behind `searched`: some take it for the end of a line, and others do not.
pub(super) fn has_bare_line_end(bytes: &[u8], searched: usize) -> bool {
    let from = searched.saturating_sub(1);
    let mut ends = memchr2_iter(b'\r', b'\n', &bytes[from..]).map(|at| from + at);
    ends.any(|at| match bytes[at] {
        b'\r' => bytes.get(at + 1).is_some_and(|next| *next != b'\n'),
        _ => at
            .checked_sub(1)
            .is_none_or(|before| bytes[before] != b'\r'),
    })
}
