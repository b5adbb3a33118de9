//! The body of an answer that is an event stream: where it ends, and where it may be ended.

use std::borrow::Cow;
use std::mem;

use hyper::Version;
use hyper::header::{self, HeaderValue};
use hyper::http::response;

use crate::proxy::events::Events;
use crate::proxy::front::gate::Chunked;

/// The chunk behind all others, and no trailers (RFC 9112, section 7.1).
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Follows a body that passes as it is.
pub struct Content {
    coding: Coding,
    events: Events,
    /// How many bytes of content there were.
    seen: u64,
    /// The beginning of a trailer section, which passes as a whole.
    held: Vec<u8>,
}

/// What tells where it ends (RFC 9112, section 6.3).
enum Coding {
    Chunked(Chunked),
    UntilClose,
}

/// What is behind the bytes that pass.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing: it is whole.
    Whole,
    /// A place where it may end early.
    Between,
    /// What must not pass, and why.
    Broken(&'static str),
}

impl Content {
    /// What is behind the head of an upstream's answer that has a body. None if that is not an event stream without a length,
    /// or not coded so that it can pass as it is.
    pub fn of(head: &response::Parts) -> Option<Self> {
        if head.headers.contains_key(header::CONTENT_LENGTH) {
            return None;
        }
        let mut codings = head.headers.get_all(header::TRANSFER_ENCODING).iter();
        let is_chunked = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
        let coding = match (codings.next(), codings.next()) {
            (None, _) => Coding::UntilClose,
            (Some(coding), None) if is_chunked(coding) && head.version == Version::HTTP_11 => {
                Coding::Chunked(Chunked::default())
            }
            _ => return None,
        };
        Some(Self {
            coding,
            events: Events::of(&head.headers)?,
            seen: 0,
            held: Vec::new(),
        })
    }

    /// Whether it passes in chunks.
    pub fn is_chunked(&self) -> bool {
        matches!(self.coding, Coding::Chunked(_))
    }

    /// How many bytes of content there were.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Whether it may end here.
    pub fn may_end(&self) -> bool {
        let is_between = match &self.coding {
            Coding::Chunked(chunked) => chunked.is_between(),
            Coding::UntilClose => true,
        };
        is_between && self.events.is_between()
    }

    /// What ends it where it may end.
    pub fn end(&self) -> &'static [u8] {
        match self.coding {
            Coding::Chunked(_) => LAST_CHUNK,
            Coding::UntilClose => b"",
        }
    }

    /// Which of `bytes`, which come next, may pass; and why nothing else does, if so. If it is to end early, it does so at the
    /// first place where it may.
    pub fn pass<'a>(&mut self, bytes: &'a [u8], ends_early: bool) -> (Cow<'a, [u8]>, Option<End>) {
        match self.coding {
            Coding::Chunked(_) => self.pass_chunks(bytes, ends_early),
            Coding::UntilClose => {
                let (len, end) = self.pass_plain(bytes, ends_early);
                (Cow::Borrowed(&bytes[..len]), end)
            }
        }
    }

    fn pass_plain(&mut self, bytes: &[u8], ends_early: bool) -> (usize, Option<End>) {
        let mut passed = 0;
        while ends_early && passed < bytes.len() && !self.events.is_between() {
            self.events.note(&bytes[passed..=passed]);
            passed += 1;
        }
        let end = (ends_early && self.events.is_between()).then_some(End::Between);
        if end.is_none() {
            self.events.note(&bytes[passed..]);
            passed = bytes.len();
        }
        self.seen += passed as u64;
        (passed, end)
    }

    fn pass_chunks<'a>(
        &mut self,
        bytes: &'a [u8],
        ends_early: bool,
    ) -> (Cow<'a, [u8]>, Option<End>) {
        let mut bytes = Cow::Borrowed(bytes);
        if !self.held.is_empty() {
            let mut all = mem::take(&mut self.held);
            all.extend_from_slice(&bytes);
            bytes = Cow::Owned(all);
        }
        let Coding::Chunked(chunked) = &mut self.coding else {
            return (bytes, None);
        };
        let (events, content) = (&mut self.events, &mut self.seen);
        let mut passed = 0;
        let end = loop {
            if ends_early && chunked.is_between() && events.is_between() {
                break Some(End::Between);
            }
            let rest = &bytes[passed..];
            if rest.is_empty() {
                break None;
            }
            let advanced = chunked.advance_chunk(rest, |data| {
                events.note(data);
                *content += data.len() as u64;
            });
            match advanced {
                Err(reason) => break Some(End::Broken(reason)),
                Ok((0, false)) => {
                    self.held = rest.to_vec();
                    break None;
                }
                Ok((len, has_ended)) => {
                    passed += len;
                    if has_ended {
                        break Some(End::Whole);
                    }
                }
            }
        };
        match &mut bytes {
            Cow::Borrowed(bytes) => *bytes = &bytes[..passed],
            Cow::Owned(bytes) => bytes.truncate(passed),
        }
        (bytes, end)
    }
}
