//! A socket that is read in large pieces when there is much to read, and that costs nothing while there is nothing.
//!
//! tungstenite has a read buffer of its own, which is there as long as the connection is, is filled with zeros before each
//! read, and of which every event that history keeps would keep the whole. With a small one it asks for a few bytes at a time:
//! here these become one read of the socket, and a buffer is kept only for what has been read and not asked for yet.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::wire::websocket::{Inflater, Violation};

/// One read takes many events.
const PIECE: usize = 32 << 10;

/// Reads ahead of whoever reads from it.
pub struct Ahead<S> {
    socket: S,
    /// What has been read and not asked for yet.
    left: Bytes,
    /// Takes the compression out of it.
    inflater: Option<Box<Inflater>>,
    /// What is wrong behind what is left.
    wrong: Option<Box<Violation>>,
}

impl<S> Ahead<S> {
    /// `early` has been read from `socket` before.
    pub fn new(socket: S, early: Bytes) -> Self {
        Self {
            socket,
            left: early,
            inflater: None,
            wrong: None,
        }
    }

    /// The same, with the compression of messages taken out.
    pub fn inflating(mut self, inflater: Inflater) -> Self {
        self.inflater = Some(Box::new(inflater));
        let early = std::mem::take(&mut self.left);
        self.inflate(&early);
        self
    }

    /// Takes in what has been read. What comes before something wrong is as good as ever.
    fn inflate(&mut self, bytes: &[u8]) {
        let Some(inflater) = &mut self.inflater else {
            return;
        };
        let mut out = Vec::new();
        self.wrong = inflater.take(bytes, &mut out).err().map(Box::new);
        self.left = out.into();
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Ahead<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.left.is_empty() && self.inflater.is_some() {
            if let Some((_, reason)) = self.wrong.as_deref() {
                let reason = reason.clone();
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, reason)));
            }
            let mut piece = [MaybeUninit::uninit(); PIECE];
            let mut piece = ReadBuf::uninit(&mut piece);
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut piece))?;
            if piece.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.inflate(piece.filled());
        }
        if self.left.is_empty() {
            if buffer.remaining() >= PIECE {
                return Pin::new(&mut self.socket).poll_read(cx, buffer);
            }
            let mut piece = [MaybeUninit::uninit(); PIECE];
            let mut piece = ReadBuf::uninit(&mut piece);
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut piece))?;
            let fits = piece.filled().len().min(buffer.remaining());
            let (now, later) = piece.filled().split_at(fits);
            buffer.put_slice(now);
            self.left = Bytes::copy_from_slice(later);
        } else {
            let fits = self.left.len().min(buffer.remaining());
            buffer.put_slice(&self.left[..fits]);
            self.left.advance(fits);
            if self.left.is_empty() {
                self.left = Bytes::new();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Ahead<S> {
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

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::event::Kind;
    use crate::wire::websocket::encode_deflated;

    #[tokio::test]
    async fn all_comes_out_in_order_and_nothing_is_kept_then() {
        let sent: Vec<u8> = (0..3 * PIECE).map(|at| at as u8).collect();
        for asked in [1, 14, 700, PIECE, 2 * PIECE] {
            let mut ahead = Ahead::new(&sent[3..], Bytes::from_static(&[0, 1, 2]));
            let (mut read, mut buffer) = (Vec::new(), vec![0; asked]);
            loop {
                match ahead.read(&mut buffer).await.expect("memory can be read") {
                    0 => break,
                    len => read.extend_from_slice(&buffer[..len]),
                }
                assert!(ahead.left.len() < PIECE);
            }
            assert!(read == sent, "{asked} bytes at a time");
        }
    }

    #[tokio::test]
    async fn what_comes_before_something_wrong_comes_out() {
        let text = "a message that is worth it ".repeat(20);
        let mut sent = Vec::new();
        assert!(encode_deflated(Kind::Text, &[text.as_bytes()], &mut sent));
        // A compressed message that is none.
        sent.extend([0xC1, 3, 0xFF, 0xFF, 0xFF]);
        for early in [0, sent.len()] {
            let (early, late) = sent.split_at(early);
            let ahead = Ahead::new(late, Bytes::copy_from_slice(early));
            let mut ahead = ahead.inflating(Inflater::new(1_000));
            let mut read = Vec::new();
            let end = ahead.read_to_end(&mut read).await;
            let end = end.expect_err("it is broken");
            assert_eq!(end.kind(), io::ErrorKind::InvalidData);
            assert!(read.ends_with(text.as_bytes()), "{} bytes", read.len());
        }
    }
}
