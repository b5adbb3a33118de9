//! Memory that strangers share for what they are sending: bodies of requests, and messages that have not ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// So much of it, and what is taken of that.
pub struct Memory {
    most: usize,
    taken: AtomicUsize,
}

impl Memory {
    /// `most` bytes.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            taken: AtomicUsize::new(0),
        })
    }

    /// Takes `more` bytes, if there are so many.
    pub fn take(&self, more: usize) -> bool {
        let taken = self.taken.fetch_add(more, Ordering::Relaxed);
        let has_room = taken.saturating_add(more) <= self.most;
        if !has_room {
            self.give_back(more);
        }
        has_room
    }

    /// Notes that somebody has taken so many more bytes already.
    pub fn note(&self, more: usize) {
        self.taken.fetch_add(more, Ordering::Relaxed);
    }

    /// Gives back what has been taken.
    pub fn give_back(&self, bytes: usize) {
        self.taken.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// How many bytes are taken.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

/// What one of them has taken; it is given back when this is dropped.
pub struct Share {
    len: usize,
    of: Arc<Memory>,
}

impl Share {
    /// Nothing yet.
    pub fn new(of: &Arc<Memory>) -> Self {
        Self {
            len: 0,
            of: of.clone(),
        }
    }

    /// Takes `len` bytes in all. False if there are not so many; then it has what it had.
    pub fn set(&mut self, len: usize) -> bool {
        let has_room = match len.checked_sub(self.len) {
            Some(more) => more == 0 || self.of.take(more),
            None => {
                self.of.give_back(self.len - len);
                true
            }
        };
        if has_room {
            self.len = len;
        }
        has_room
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.of.give_back(self.len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_given_back() {
        let memory = Memory::new(1_000);
        let (mut first, mut second) = (Share::new(&memory), Share::new(&memory));
        assert!(first.set(600));
        assert!(!second.set(401));
        assert!(second.set(400));
        assert!(!second.set(usize::MAX));
        assert!(first.set(100));
        assert!(second.set(900));
        assert_eq!(memory.taken(), 1_000);
        drop(first);
        assert!(memory.take(100));
        drop(second);
        assert_eq!(memory.taken(), 100);
    }
}
