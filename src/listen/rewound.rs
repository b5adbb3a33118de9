//! A socket from which something has been read too early, or must not be read too early.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How an HTTP/2 connection begins (RFC 9113, section 3.4).
pub const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Yields what has been read, and then the rest.
pub struct Rewound<S> {
    early: Bytes,
    /// What comes may be a part of the preface of HTTP/2: then it is kept until all of it is here.
    is_new: bool,
    socket: S,
}

impl<S> Rewound<S> {
    /// `early` has been read from `socket`.
    pub fn new(socket: S, early: Bytes) -> Self {
        Self {
            early,
            is_new: false,
            socket,
        }
    }

    /// Nothing has been read yet. The preface of HTTP/2 comes out in one piece, however it has come: of a part of it hyper
    /// would make a wrong request of HTTP/1.
    pub fn opening(socket: S) -> Self {
        Self {
            early: Bytes::new(),
            is_new: true,
            socket,
        }
    }

    /// The socket, once all that was early has been read.
    pub fn into_socket(self) -> S {
        self.socket
    }
}

impl<S: AsyncRead + Unpin> Rewound<S> {
    /// Reads until it is plain whether this is the preface. What has come is in `buffer` then, or early.
    fn poll_opening(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.is_new {
            if self.early.is_empty() {
                let before = buffer.filled().len();
                ready!(Pin::new(&mut self.socket).poll_read(cx, buffer))?;
                let came = &buffer.filled()[before..];
                self.is_new = is_part_of_preface(came);
                if self.is_new {
                    self.early = Bytes::copy_from_slice(came);
                    buffer.set_filled(before);
                }
            } else {
                let mut more = [0; HTTP2_PREFACE.len()];
                let mut more = ReadBuf::new(&mut more[self.early.len()..]);
                ready!(Pin::new(&mut self.socket).poll_read(cx, &mut more))?;
                let has_ended = more.filled().is_empty();
                self.early = [&self.early, more.filled()].concat().into();
                self.is_new = !has_ended && is_part_of_preface(&self.early);
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Whether more has to come before this is the preface.
fn is_part_of_preface(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.len() < HTTP2_PREFACE.len() && HTTP2_PREFACE.starts_with(bytes)
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_new {
            ready!(self.poll_opening(cx, buffer))?;
            if self.early.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
        if self.early.is_empty() {
            return Pin::new(&mut self.socket).poll_read(cx, buffer);
        }
        let len = self.early.len().min(buffer.remaining());
        buffer.put_slice(&self.early[..len]);
        self.early.advance(len);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
