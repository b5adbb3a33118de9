//! What of an upstream's bytes reaches hyper, where the connection may be taken away from it behind the head of an answer.
//!
//! hyper's client has decoded the beginning of a body by the time its head is known. Once armed, a sluice lets hyper read up
//! to the end of the final head, and withholds what is behind it until it is decided who goes on with it. It finds that end
//! where `httparse`, hyper's parser, does; whatever else is wrong with a head is hyper's to say.

#[cfg(test)]
mod tests;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::task::AtomicWaker;
use memchr::memchr;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::listen::stream::Stream;

/// All passes.
const OPEN: u8 = 0;
/// All passes up to the end of the next final head.
const ARMED: u8 = 1;
/// That head has passed, and nothing behind it.
const WITHHELD: u8 = 2;
/// Nothing passes ever again.
const TAKEN: u8 = 3;

/// An upstream's connection as hyper sees it.
pub struct Sluice {
    stream: Stream,
    control: Arc<Control>,
    search: Search,
    /// Read from the stream, and not yet passed on.
    withheld: BytesMut,
}

/// What speaks to a sluice while hyper has it.
#[derive(Default)]
pub struct Control {
    state: AtomicU8,
    /// The task that drives the connection.
    driver: AtomicWaker,
}

/// A sluice that is armed for one request. It opens when this is dropped, so that no connection waits for ever.
pub struct Armed(Arc<Control>);

impl Control {
    /// To be done before the request is given to hyper.
    pub fn arm(self: &Arc<Self>) -> Armed {
        self.state.store(ARMED, Ordering::Release);
        Armed(self.clone())
    }

    /// Whether the connection is to be taken apart.
    pub fn is_taken(&self) -> bool {
        self.state.load(Ordering::Acquire) == TAKEN
    }
}

impl Armed {
    /// Has the connection taken apart by whoever drives it; false if it is too late for that. Only when hyper has given the
    /// answer's head, and as long as its body is there: without a reader of that, hyper would close the connection.
    pub fn take(&self) -> bool {
        let taken = self.change(WITHHELD, TAKEN);
        self.0.driver.wake();
        taken
    }

    fn change(&self, from: u8, to: u8) -> bool {
        let state = &self.0.state;
        let changed = state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire);
        changed.is_ok()
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        if self.change(ARMED, OPEN) || self.change(WITHHELD, OPEN) {
            self.0.driver.wake();
        }
    }
}

impl Sluice {
    /// Nothing has been read from `stream`.
    pub fn new(stream: Stream) -> Self {
        Self {
            stream,
            control: Arc::default(),
            search: Search::default(),
            withheld: BytesMut::new(),
        }
    }

    /// What speaks to it.
    pub fn control(&self) -> Arc<Control> {
        self.control.clone()
    }

    /// The stream, with what was read of it and has not reached hyper.
    pub fn into_parts(self) -> (Stream, Bytes) {
        (self.stream, self.withheld.freeze())
    }

    /// Reads, and passes on no more than the rest of a head.
    fn poll_head(&mut self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = out.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, out))?;
        let came = &out.filled()[before..];
        if let Some(end) = self.search.pass(came) {
            self.search = Search::default();
            let state = &self.control.state;
            let withholds =
                state.compare_exchange(ARMED, WITHHELD, Ordering::AcqRel, Ordering::Acquire);
            // Otherwise nobody is interested any more.
            if withholds.is_ok() {
                self.withheld.extend_from_slice(&came[end..]);
                out.set_filled(before + end);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Sluice {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let sluice = self.get_mut();
        let mut state = sluice.control.state.load(Ordering::Acquire);
        if state == WITHHELD {
            sluice.control.driver.register(cx.waker());
            state = sluice.control.state.load(Ordering::Acquire);
        }
        match state {
            WITHHELD | TAKEN => Poll::Pending,
            _ if !sluice.withheld.is_empty() => {
                let len = sluice.withheld.len().min(out.remaining());
                out.put_slice(&sluice.withheld[..len]);
                sluice.withheld.advance(len);
                if sluice.withheld.is_empty() {
                    sluice.withheld = BytesMut::new();
                }
                Poll::Ready(Ok(()))
            }
            ARMED => sluice.poll_head(cx, out),
            _ => Pin::new(&mut sluice.stream).poll_read(cx, out),
        }
    }
}

impl AsyncWrite for Sluice {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// The search for the end of the final head (RFC 9112, section 2.1), whatever the pieces.
#[derive(Debug, Default)]
struct Search {
    /// So many bytes of the current line have been seen; more than a status line's beginning are not told apart.
    seen: u8,
    /// The first of them is a CR.
    begins_with_cr: bool,
    /// The status line is behind.
    in_fields: bool,
    /// The status, of the last status line.
    status: [u8; 3],
}

/// Where the status stands in its line, behind `HTTP/1.1 ` (RFC 9112, section 4).
const STATUS: usize = 9;

impl Search {
    /// How many of `bytes` belong to heads, if the final one ends with them.
    fn pass(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while let Some(len) = memchr(b'\n', &bytes[at..]) {
            self.pass_line(&bytes[at..at + len]);
            at += len + 1;
            let is_empty = self.seen == 0 || self.seen == 1 && self.begins_with_cr;
            self.seen = 0;
            // Empty lines before a status line are no end of anything (RFC 9112, section 2.2).
            match (is_empty, self.in_fields) {
                (true, true) if self.is_interim() => self.in_fields = false,
                (true, true) => return Some(at),
                (is_empty, in_fields) => self.in_fields = in_fields || !is_empty,
            }
        }
        self.pass_line(&bytes[at..]);
        None
    }

    /// Notes a part of a line, without its end.
    fn pass_line(&mut self, part: &[u8]) {
        if self.seen == 0 {
            self.begins_with_cr = part.first() == Some(&b'\r');
        }
        if !self.in_fields {
            let places = usize::from(self.seen)..;
            for (place, byte) in places.zip(part).take(STATUS + self.status.len()) {
                if let Some(digit) = place
                    .checked_sub(STATUS)
                    .and_then(|at| self.status.get_mut(at))
                {
                    *digit = *byte;
                }
            }
        }
        let len = u8::try_from(part.len()).unwrap_or(u8::MAX);
        self.seen = self.seen.saturating_add(len);
    }

    /// Whether another head follows (RFC 9110, section 15.2); behind 101 there is none.
    fn is_interim(&self) -> bool {
        self.status[0] == b'1' && self.status != *b"101"
    }
}
