//! One direction of a tunnel: what is read here is written there.

use std::io;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::AsyncWrite;

use super::frames::Frames;
use super::relay::{Relay, TURN};
use crate::listen::stream::Stream;

/// One direction.
pub struct Direction {
    relay: Relay,
    /// Of what has been written.
    frames: Frames,
    until: Until,
    /// Nothing more can be read.
    read_to_end: bool,
    /// Nothing more can be written.
    shut: bool,
}

/// How far it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// The end of what is read.
    End,
    /// The next place where a Close of ours may stand, and then that Close.
    Boundary,
    /// A Close frame; if there is none before the end of what is read, one of ours.
    Close,
    /// No further. What is still read is dropped.
    Here,
    /// No further, and the other side is told that nothing more comes.
    Shut,
}

/// Which of the two streams has failed, and how.
pub enum Failure {
    /// The one that is read.
    Read(io::Error),
    /// The one that is written.
    Write(io::Error),
}

impl Direction {
    /// With what has been read already.
    pub fn new(early: Bytes, frames: Frames) -> Self {
        Self {
            relay: Relay::new(early),
            frames,
            until: Until::End,
            read_to_end: false,
            shut: false,
        }
    }

    /// How many bytes have been written.
    pub fn written(&self) -> u64 {
        self.relay.written()
    }

    /// How far it goes.
    pub fn until(&self) -> Until {
        self.until
    }

    /// Whether a whole Close frame has been written.
    pub fn closed(&self) -> bool {
        self.frames.closed()
    }

    /// Whether everything read has been written, and has left.
    pub fn is_empty(&self) -> bool {
        self.relay.is_empty()
    }

    /// How many bytes it keeps.
    #[cfg(test)]
    pub fn held(&self) -> usize {
        self.relay.pending.len()
    }

    /// Whether nothing can move here any more.
    pub fn has_ended(&self) -> bool {
        self.read_to_end && self.shut
    }

    /// Whether it has gone as far as it was to go, short of the end of what is read, or cannot.
    pub fn is_done(&self) -> bool {
        self.has_ended() || (matches!(self.until, Until::Here | Until::Shut) && self.is_empty())
    }

    /// Whether something has moved since this was last asked.
    pub fn take_moved(&mut self) -> bool {
        self.relay.take_moved()
    }

    /// From now on it goes only so far.
    pub fn go_until(&mut self, until: Until) {
        self.until = until;
        if matches!(until, Until::Boundary | Until::Close) {
            let pending = mem::take(&mut self.relay.pending);
            self.relay.pending = self.up_to_limit(pending);
        }
    }

    /// Ends it: the stream that it writes to has failed.
    pub fn give_up(&mut self) {
        self.relay.give_up();
        self.read_to_end = true;
        self.shut = true;
    }

    /// Moves what can be moved; ready when the direction has ended, or when a stream has failed. `scratch` has room for
    /// the largest read. With `closes`, both streams are closed as soon as it has ended.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream,
        to: &mut Stream,
        scratch: &mut [u8],
        closes: bool,
    ) -> Poll<Result<(), Failure>> {
        let result = ready!(self.poll_move(cx, from, to, scratch, closes));
        match result {
            Ok(()) => {}
            // What has been read still goes out.
            Err(Failure::Read(_)) => self.read_to_end = true,
            Err(Failure::Write(_)) => self.give_up(),
        }
        Poll::Ready(result)
    }

    fn poll_move(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream,
        to: &mut Stream,
        scratch: &mut [u8],
        closes: bool,
    ) -> Poll<Result<(), Failure>> {
        let mut turn = 0;
        loop {
            let frames = &mut self.frames;
            let pending = self.relay.poll_pending(cx, to, |bytes| frames.pass(bytes));
            ready!(pending).map_err(Failure::Write)?;
            if (self.read_to_end || self.until == Until::Shut) && !self.shut {
                // Closing a TCP connection from which all has been read says the same, without a call of its own.
                if !(closes && matches!(to, Stream::Plain(_))) {
                    // One that is gone already need not be told.
                    let _ = ready!(Pin::new(&mut *to).poll_shutdown(cx));
                }
                self.shut = true;
            }
            if self.read_to_end {
                return Poll::Ready(Ok(()));
            }
            if turn >= TURN {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let bytes = ready!(self.relay.poll_read(cx, from, scratch)).map_err(Failure::Read)?;
            turn += bytes.len();
            if bytes.is_empty() {
                self.read_to_end = true;
                self.end();
            } else if self.until == Until::End {
                let frames = &mut self.frames;
                self.relay
                    .pass_on(cx, to, bytes, |bytes| frames.pass(bytes))
                    .map_err(Failure::Write)?;
            } else {
                self.relay.pending = self.up_to_limit(Bytes::copy_from_slice(bytes));
            }
        }
    }

    /// Of the bytes that come next, and have not been written, those that still go out, and the Close that ends them.
    fn up_to_limit(&mut self, bytes: Bytes) -> Bytes {
        let limit = match self.until {
            Until::End => return bytes,
            Until::Here | Until::Shut => return Bytes::new(),
            Until::Boundary => self.frames.distance(&bytes, Frames::at_boundary),
            Until::Close => self.frames.distance(&bytes, Frames::closed),
        };
        let Some(limit) = limit else {
            return bytes;
        };
        let until = mem::replace(&mut self.until, Until::Here);
        let mut last = bytes[..limit].to_vec();
        let mut frames = self.frames.clone();
        frames.pass(&last);
        if until == Until::Boundary && !frames.closed() {
            last.extend_from_slice(&frames.going_away());
        }
        last.into()
    }

    /// There was nothing more to read.
    fn end(&mut self) {
        if self.until == Until::Close && self.frames.at_boundary() {
            self.relay.pending = self.frames.going_away();
            self.until = Until::Here;
        }
    }
}
