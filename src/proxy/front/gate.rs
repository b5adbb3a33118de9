//! What of a client's bytes reaches hyper.
//!
//! hyper's server takes some messages that two readers could take for different ones, and does not say so: a length together
//! with chunks, line ends without CR. Whoever passes requests on must refuse those (RFC 9112, section 11.2). So the gate
//! reads along: it follows the requests and their bodies strictly, lets only whole heads through that can be read in one way,
//! and nothing behind a WebSocket handshake until it is known what that is.
//!
//! A refused head must not overtake the answers to the requests before it. hyper gets HTTP/2's preface in its place, which
//! was made so that no server of HTTP/1 takes it for a request (RFC 9113, section 3.4): hyper ends the connection at that
//! point and writes nothing, and the refusal is its task's to write.

mod chunked;
mod control;
pub(crate) mod framing;
mod head;
#[cfg(test)]
mod tests;

use std::future::pending;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use hyper::StatusCode;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

pub use chunked::{Chunked, is_forbidden};
pub use control::Control;

use crate::listen::rewound::HTTP2_PREFACE;
use crate::listen::stream::Stream;
use framing::{Framing, Stop};

/// The longest head of a request, and the longest trailer section, in bytes.
const MAX_HEAD: usize = 16 << 10;
/// The most fields that one has.
const MAX_FIELDS: usize = 100;

/// What ended the reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The client speaks HTTP/2: nothing of it has reached hyper.
    Http2,
    /// A request that must not be let in, with the reason in one line. If hyper's connection has ended with an error, all that
    /// were before it have been answered and it has not; without one, hyper had said its last already.
    Refused(StatusCode, &'static str),
    /// A body that must not be passed on. Its request has been let in, and reading its body fails: whoever serves it answers,
    /// with 400 if it can.
    BrokenBody(&'static str),
}

/// The client's side of a connection as hyper sees it.
pub struct Gate {
    stream: Stream,
    control: Arc<Control>,
    /// Read from the stream, and not yet passed on.
    held: BytesMut,
    /// So much of it has been checked, and may pass.
    checked: usize,
    framing: Framing,
    /// Why nothing passes behind what has been checked.
    stop: Option<Stop>,
}

impl Gate {
    /// `early` has been read from `stream`.
    pub fn new(stream: Stream, early: BytesMut) -> Self {
        let mut gate = Self {
            stream,
            control: Arc::default(),
            held: early,
            checked: 0,
            framing: Framing::default(),
            stop: None,
        };
        if !gate.held.is_empty() {
            gate.check_held();
        }
        gate
    }

    /// The head of the WebSocket handshake that the connection begins with, if that is here as a whole.
    pub fn handshake(&self) -> Option<&[u8]> {
        let is_first = self.stop == Some(Stop::Handshake);
        Some(&self.held[..self.checked]).filter(|_| is_first)
    }

    /// Comes when the client has gone while its handshake has no answer. What it sends behind that is held, and tells that it
    /// is there: then this does not come any more.
    pub async fn gone(&mut self) {
        while self.held.len() == self.checked {
            if matches!(self.stream.read_buf(&mut self.held).await, Ok(0) | Err(_)) {
                return;
            }
        }
        pending().await
    }

    /// The stream, with what was read of it behind the handshake.
    pub fn into_tunnel(mut self) -> (Stream, Bytes) {
        self.held.advance(self.checked);
        match self.held.is_empty() {
            true => (self.stream, Bytes::new()),
            false => (self.stream, self.held.freeze()),
        }
    }

    /// The stream, with what was read of it and has not reached hyper.
    pub fn into_parts(self) -> (Stream, Bytes) {
        (self.stream, self.held.freeze())
    }

    /// What speaks to the gate while hyper has it.
    pub fn control(&self) -> Arc<Control> {
        self.control.clone()
    }

    /// Passes on what has been checked.
    fn pass(&mut self, out: &mut ReadBuf<'_>) {
        let len = self.checked.min(out.remaining());
        out.put_slice(&self.held[..len]);
        self.held.advance(len);
        self.checked -= len;
        if self.held.is_empty() {
            // Most clients never send more than one request at once.
            self.held = BytesMut::new();
        }
    }

    /// Reads more. What may pass of it is in `out` then, or `checked`; the rest is held. Whether there was more.
    fn poll_more(&mut self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        let before = out.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, out))?;
        let came = &out.filled()[before..];
        let is_more = !came.is_empty();
        if self.held.is_empty() {
            let may_pass = self.check(came);
            self.held.extend_from_slice(&came[may_pass..]);
            out.set_filled(before + may_pass);
        } else {
            self.held.extend_from_slice(came);
            out.set_filled(before);
            self.check_held();
        }
        Poll::Ready(Ok(is_more))
    }

    fn check_held(&mut self) {
        let held = std::mem::take(&mut self.held);
        self.checked = self.check(&held);
        self.held = held;
    }

    /// How much of `bytes` may pass.
    fn check(&mut self, bytes: &[u8]) -> usize {
        let (may_pass, stop) = self.framing.advance(bytes);
        if stop == Some(Stop::Handshake) {
            self.control.ask();
        }
        self.stop = stop;
        may_pass
    }

    /// Waits until it is known what is behind a handshake. Whether the client may still send.
    fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<bool>> {
        if self.control.poll_stays_http(cx).is_ready() {
            self.stop = None;
            self.check_held();
            return Poll::Ready(Ok(true));
        }
        // Reading goes on only so far that a client that has gone is noticed: one that has sent something behind its handshake
        // may well have ended its side.
        if !self.held.is_empty() {
            return Poll::Pending;
        }
        let before = out.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, out))?;
        self.held.extend_from_slice(&out.filled()[before..]);
        out.set_filled(before);
        Poll::Ready(Ok(!self.held.is_empty()))
    }
}

impl AsyncRead for Gate {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let gate = self.get_mut();
        let before = out.filled().len();
        if out.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            if gate.checked > 0 {
                gate.pass(out);
                return Poll::Ready(Ok(()));
            }
            let is_more = match gate.stop {
                None => ready!(gate.poll_more(cx, out))?,
                Some(Stop::Handshake) => ready!(gate.poll_answer(cx, out))?,
                Some(Stop::Http2) => {
                    gate.control.decide(Verdict::Http2);
                    return Poll::Ready(Err(refused("HTTP/2")));
                }
                Some(Stop::Body(reason)) => {
                    gate.control.decide(Verdict::BrokenBody(reason));
                    return Poll::Ready(Err(refused(reason)));
                }
                Some(Stop::Head(status, reason)) => {
                    if gate.control.decide(Verdict::Refused(status, reason)) {
                        // There is always room for much more: hyper reads when it has taken all that it has read.
                        let len = HTTP2_PREFACE.len().min(out.remaining());
                        out.put_slice(&HTTP2_PREFACE[..len]);
                    }
                    return Poll::Ready(Ok(()));
                }
            };
            if !is_more || out.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

fn refused(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

impl AsyncWrite for Gate {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let gate = self.get_mut();
        ready!(gate.control.poll_finish_interim(cx, &mut gate.stream))?;
        Pin::new(&mut gate.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let gate = self.get_mut();
        ready!(gate.control.poll_finish_interim(cx, &mut gate.stream))?;
        Pin::new(&mut gate.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper calls this whenever its connection is polled and its own buffer is empty, so that what it has written of earlier
    /// answers is before an interim response.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let gate = self.get_mut();
        ready!(gate.control.poll_interim(cx, &mut gate.stream))?;
        Pin::new(&mut gate.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
