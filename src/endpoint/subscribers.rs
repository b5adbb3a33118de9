//! How many subscribers a stream has.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::shutdown::Stop;
use crate::wire::Format;

/// Counts them, for each format that they read, compressed or not. A stream has one of these, and there may be many streams.
#[derive(Debug)]
pub struct Subscribers {
    of: [AtomicU32; Format::PLAIN.len()],
    /// Counts those of the whole process.
    stop: Stop,
}

impl Subscribers {
    /// Nobody reads it. A process that stops so waits for those who will.
    pub fn new(stop: Stop) -> Self {
        Self {
            of: Default::default(),
            stop,
        }
    }

    /// One more reads the stream so.
    pub fn join(&self, format: Format) {
        self.of[format.plain() as usize].fetch_add(1, Ordering::Relaxed);
        self.stop.join();
    }

    /// One less does.
    pub fn leave(&self, format: Format) {
        self.of[format.plain() as usize].fetch_sub(1, Ordering::Relaxed);
        self.stop.leave();
    }

    /// How many read it so.
    pub fn of(&self, format: Format) -> usize {
        self.of[format.plain() as usize].load(Ordering::Relaxed) as usize
    }

    /// How many there are.
    pub fn all(&self) -> usize {
        Format::PLAIN.iter().map(|format| self.of(*format)).sum()
    }
}
