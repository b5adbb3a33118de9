//! The bodies of requests: how long each may be, and how much memory all that are being received may take.

use std::net::SocketAddr;
use std::sync::Arc;

use hyper::StatusCode;

use super::{Refused, too_large};
use crate::listen::memory::Memory;
use crate::listen::sampled::Sampled;

/// How soon a publisher may try again that has found no memory for its body, in seconds.
const RETRY_AFTER: u64 = 1;

/// What all publishers of the process share.
pub struct Bodies {
    max_size: usize,
    /// What they take until they are in a log.
    memory: Arc<Memory>,
    large: Arc<Sampled>,
    no_memory: Arc<Sampled>,
    fast: Arc<Sampled>,
}

impl Bodies {
    /// Each at most `max_size` bytes, and all together at most `max_memory`.
    pub fn new(max_size: usize, max_memory: usize) -> Self {
        let refused = || Sampled::new("request refused");
        Self {
            max_size,
            memory: Memory::new(max_memory),
            large: refused(),
            no_memory: refused(),
            fast: refused(),
        }
    }

    /// What they take, which others may have a share of.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// The longest body, in bytes.
    pub fn max_size(&self) -> usize {
        self.max_size
    }

    /// A body of which nothing has come yet.
    pub(super) fn receive(&self) -> Received<'_> {
        Received {
            bytes: Vec::new(),
            of: self,
        }
    }

    /// A line in the log, if a limit is why a request of `address` is refused.
    pub(super) fn log(&self, address: SocketAddr, refused: &Refused) {
        let limit = match refused.status {
            StatusCode::PAYLOAD_TOO_LARGE => &self.large,
            StatusCode::SERVICE_UNAVAILABLE => &self.no_memory,
            StatusCode::TOO_MANY_REQUESTS => &self.fast,
            _ => return,
        };
        limit.note(address, refused.status.as_u16(), refused.reason.clone());
    }
}

/// A body, as far as it has come. Its memory counts until it is dropped.
pub(super) struct Received<'a> {
    bytes: Vec<u8>,
    of: &'a Bodies,
}

impl Received<'_> {
    /// Adds what has come, if all of it is at most `limit` bytes then.
    pub fn push(&mut self, piece: &[u8], limit: usize) -> Result<(), Refused> {
        let len = self.bytes.len() + piece.len();
        if len > limit {
            return Err(too_large("body", limit));
        }
        if len > self.bytes.capacity() {
            // Twice as much each time, as a vector by itself would, but never beyond what is allowed.
            self.make_room(len.max(2 * self.bytes.capacity()).min(limit))?;
        }
        self.bytes.extend_from_slice(piece);
        Ok(())
    }

    /// Makes room for `len` bytes in all.
    pub fn make_room(&mut self, len: usize) -> Result<(), Refused> {
        let before = self.bytes.capacity();
        let more = len.saturating_sub(before);
        if !self.of.memory.take(more) {
            return Err(Refused {
                retry_after: Some(RETRY_AFTER),
                ..Refused::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "there is no memory for this body, as many others are being received",
                )
            });
        }
        self.bytes.reserve_exact(len - self.bytes.len());
        // An allocator may give more than is asked for.
        let given = self.bytes.capacity() - before;
        self.of.memory.note(given - more);
        Ok(())
    }

    /// What has come. A payload goes to its stream's history, and is bounded there.
    pub fn take(&mut self) -> Vec<u8> {
        let bytes = std::mem::take(&mut self.bytes);
        self.of.memory.give_back(bytes.capacity());
        bytes
    }
}

impl std::ops::Deref for Received<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Received<'_> {
    fn drop(&mut self) {
        self.take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 1 << 20;

    fn status(result: Result<(), Refused>) -> Option<u16> {
        result.err().map(|refused| refused.status.as_u16())
    }

    #[test]
    fn all_bodies_share_the_memory_and_give_it_back() {
        let bodies = Bodies::new(LIMIT, 1_000);
        let (mut first, mut second) = (bodies.receive(), bodies.receive());
        assert_eq!(status(first.push(&[1; 600], LIMIT)), None);
        assert_eq!(status(second.push(&[2; 600], LIMIT)), Some(503));
        assert_eq!(status(second.push(&[2; 400], LIMIT)), None);
        assert_eq!(status(second.push(&[2; 1], LIMIT)), Some(503));
        assert_eq!(second[..], [2; 400]);
        drop(first);
        assert_eq!(status(second.push(&[2; 100], LIMIT)), None);
        assert_eq!(second.take(), [2; 500]);
        assert_eq!(bodies.memory.taken(), 0);
    }

    #[test]
    fn what_grows_byte_by_byte_never_takes_more_than_its_limit() {
        let bodies = Bodies::new(LIMIT, 100);
        let mut body = bodies.receive();
        for byte in 0..100 {
            assert_eq!(status(body.push(&[byte], 100)), None);
        }
        assert_eq!(bodies.memory.taken(), 100);
        assert_eq!(status(body.push(&[0], 100)), Some(413));
        drop(body);
        assert_eq!(bodies.memory.taken(), 0);
    }
}
