//! What has been read of one stream and goes to another.

use std::io;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::listen::stream::Stream;

/// So much is read at once at most: fewer system calls than that cost less than the copies and the processor's caches.
pub const LARGEST_READ: usize = 256 << 10;
/// And so much to begin with, and wherever the reader is slower than the writer.
pub const SMALLEST_READ: usize = 16 << 10;
/// After so many bytes it is the turn of other tunnels.
pub const TURN: usize = 1 << 20;

/// Bytes on their way.
pub struct Relay {
    /// Read, and not yet written. While there is any, nothing is read; so there is never more than one read's worth.
    pub pending: Bytes,
    /// How many bytes have been written.
    written: u64,
    /// How many bytes are read at once.
    read_size: usize,
    /// The stream that is written to may hold something back.
    unflushed: bool,
    /// Something has been read or written since this was last asked.
    moved: bool,
}

impl Relay {
    /// With what has been read already.
    pub fn new(early: Bytes) -> Self {
        Self {
            // Empty bytes may keep the whole buffer that they were part of.
            pending: if early.is_empty() {
                Bytes::new()
            } else {
                early
            },
            written: 0,
            read_size: SMALLEST_READ,
            unflushed: false,
            moved: false,
        }
    }

    /// How many bytes have been written.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Whether everything read has been written, and has left.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty() && !self.unflushed
    }

    /// Whether something has moved since this was last asked.
    pub fn take_moved(&mut self) -> bool {
        mem::take(&mut self.moved)
    }

    /// Forgets what has not been written.
    pub fn give_up(&mut self) {
        self.pending = Bytes::new();
        self.unflushed = false;
    }

    /// Reads into `scratch`, which has room for the largest read.
    pub fn poll_read<'a>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream,
        scratch: &'a mut [u8],
    ) -> Poll<io::Result<&'a [u8]>> {
        let mut read = ReadBuf::new(&mut scratch[..self.read_size]);
        ready!(Pin::new(from).poll_read(cx, &mut read))?;
        self.moved = true;
        let len = read.filled().len();
        Poll::Ready(Ok(&scratch[..len]))
    }

    /// Writes what has just been read, and keeps what cannot be written now. `wrote` sees what has been written.
    pub fn pass_on(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut Stream,
        bytes: &[u8],
        mut wrote: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let Poll::Ready(written) = self.poll_write(cx, to, rest)? else {
                self.read_size = SMALLEST_READ;
                self.pending = Bytes::copy_from_slice(rest);
                return Ok(());
            };
            wrote(&rest[..written]);
            rest = &rest[written..];
        }
        if bytes.len() == self.read_size {
            self.read_size = (self.read_size * 2).min(LARGEST_READ);
        }
        Ok(())
    }

    /// Ready when nothing is left to be written. `wrote` sees what has been written.
    pub fn poll_pending(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut Stream,
        mut wrote: impl FnMut(&[u8]),
    ) -> Poll<io::Result<()>> {
        if !self.pending.is_empty() {
            let mut pending = mem::take(&mut self.pending);
            while !pending.is_empty() {
                match self.poll_write(cx, to, &pending) {
                    Poll::Ready(Ok(written)) => {
                        wrote(&pending[..written]);
                        pending.advance(written);
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => {
                        self.pending = pending;
                        return Poll::Pending;
                    }
                }
            }
        }
        if self.unflushed {
            ready!(Pin::new(to).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut Stream,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(to).poll_write(cx, bytes))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.written += written as u64;
        self.unflushed = true;
        self.moved = true;
        Poll::Ready(Ok(written))
    }
}
