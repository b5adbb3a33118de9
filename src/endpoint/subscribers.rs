//! How many subscribers a stream has.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::wire::Format;

/// Counts them, for each format that they read. A stream has one of these, and there may be many streams.
#[derive(Debug, Default)]
pub struct Subscribers([AtomicU32; Format::ALL.len()]);

impl Subscribers {
    /// One more reads the stream so.
    pub fn join(&self, format: Format) {
        self.0[format as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// One less does.
    pub fn leave(&self, format: Format) {
        self.0[format as usize].fetch_sub(1, Ordering::Relaxed);
    }

    /// How many read it so.
    pub fn of(&self, format: Format) -> usize {
        self.0[format as usize].load(Ordering::Relaxed) as usize
    }

    /// How many there are.
    pub fn all(&self) -> usize {
        Format::ALL.iter().map(|format| self.of(*format)).sum()
    }
}
