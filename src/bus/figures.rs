//! What has gone over a connection to a bus, for whoever watches.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Way {
    /// From the bus into the stream.
    In,
    /// From the stream to the bus.
    Out,
}

impl Way {
    /// The name for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
        }
    }
}

/// How it stands with a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// There is none.
    Away {
        /// Since when.
        since: Instant,
        /// Why, in one line; none before the first attempt has failed.
        reason: Option<Box<str>>,
    },
    /// There is one.
    Connected,
    /// There was one, and there is no more to come.
    Ended,
}

/// Counts, for one connection of one stream to one bus.
#[derive(Debug)]
pub struct Figures {
    /// The bus, as it may be shown to anyone.
    pub bus: String,
    /// Which way.
    pub way: Way,
    link: Mutex<Link>,
    /// How often there was one.
    connects: AtomicU64,
    events: AtomicU64,
    bytes: AtomicU64,
    refused: AtomicU64,
    lost: AtomicU64,
}

/// What the counts are at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Whether there is a connection.
    pub connected: bool,
    /// How often there was one.
    pub connects: u64,
    /// Events that came, or that the bus has confirmed.
    pub events: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// Events that were not taken, by us or by the bus, and never will be.
    pub refused: u64,
    /// Events that are known to be missing: history let go of them before the bus had them, or the bus has lost them.
    pub lost: u64,
}

impl Figures {
    /// Nothing yet.
    pub fn new(bus: String, way: Way) -> Self {
        Self {
            bus,
            way,
            link: Mutex::new(Link::Away {
                since: Instant::now(),
                reason: None,
            }),
            connects: AtomicU64::default(),
            events: AtomicU64::default(),
            bytes: AtomicU64::default(),
            refused: AtomicU64::default(),
            lost: AtomicU64::default(),
        }
    }

    /// A connection has been made.
    pub fn connected(&self) {
        self.connects.fetch_add(1, Ordering::Relaxed);
        *self.lock() = Link::Connected;
    }

    /// It is lost, or could not be made, and why.
    pub fn away(&self, why: &str) {
        let mut link = self.lock();
        let since = match *link {
            Link::Away { since, .. } => since,
            Link::Connected | Link::Ended => Instant::now(),
        };
        *link = Link::Away {
            since,
            reason: Some(why.into()),
        };
    }

    /// There is no more to come over it.
    pub fn ended(&self) {
        *self.lock() = Link::Ended;
    }

    /// How it stands with it now.
    pub fn link(&self) -> Link {
        self.lock().clone()
    }

    /// Whether there is a connection, and if not, why, in one line.
    pub fn presence(&self) -> (bool, Option<String>) {
        match &*self.lock() {
            Link::Connected => (true, None),
            Link::Ended => (false, Some("there is no more to come".to_owned())),
            Link::Away { reason, .. } => (false, reason.as_deref().map(str::to_owned)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many events have gone over it, of so many bytes.
    pub fn passed(&self, events: u64, bytes: u64) {
        self.events.fetch_add(events, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// One was not taken. How many that makes.
    pub fn refused(&self) -> u64 {
        self.refused.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// So many are missing.
    pub fn lost(&self, events: u64) {
        self.lost.fetch_add(events, Ordering::Relaxed);
    }

    /// The counts now.
    pub fn counts(&self) -> Counts {
        Counts {
            connected: *self.lock() == Link::Connected,
            connects: self.connects.load(Ordering::Relaxed),
            events: self.events.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            lost: self.lost.load(Ordering::Relaxed),
        }
    }
}
