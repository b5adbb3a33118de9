//! How many subscribers a stream has, and what they are given.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::fanout::Overload;
use super::lag::{Lag, Place};
use crate::shutdown::Stop;
use crate::stream::{Amount, Subscription};
use crate::wire::Format;

/// Counts them, for each format that they read, compressed or not. A stream has one of these, and there may be many streams.
pub struct Subscribers {
    of: [AtomicU32; Format::PLAIN.len()],
    /// All that there have been.
    joined: [AtomicU64; Format::PLAIN.len()],
    /// What those have been sent that are in no shard of a fan-out: shards count for themselves.
    sent: [Sent; Format::PLAIN.len()],
    /// How often one was told alone that it has missed something.
    gaps: [AtomicU64; Format::PLAIN.len()],
    overloads: [AtomicU64; Overload::ALL.len()],
    /// Where those are that are in no shard.
    places: Mutex<Places>,
    /// Counts those of the whole process.
    stop: Stop,
}

/// By their names: whoever leaves is found at once, however many there are.
type Places = BTreeMap<usize, (Format, Place)>;

/// What some have been sent: whole events, and all bytes before encryption.
#[derive(Debug, Default)]
pub struct Sent {
    events: AtomicU64,
    bytes: AtomicU64,
}

impl Sent {
    /// They have been sent so much more.
    pub fn add(&self, amount: Amount) {
        self.events.fetch_add(amount.events, Ordering::Relaxed);
        self.bytes.fetch_add(amount.bytes, Ordering::Relaxed);
    }

    /// How much so far.
    pub fn amount(&self) -> Amount {
        Amount {
            events: self.events.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}

impl Subscribers {
    /// Nobody reads it. A process that stops so waits for those who will.
    pub fn new(stop: Stop) -> Self {
        Self {
            of: Default::default(),
            joined: Default::default(),
            sent: Default::default(),
            gaps: Default::default(),
            overloads: Default::default(),
            places: Mutex::default(),
            stop,
        }
    }

    /// One more reads the stream so.
    pub fn join(&self, format: Format) {
        self.of[format.plain() as usize].fetch_add(1, Ordering::Relaxed);
        self.joined[format.plain() as usize].fetch_add(1, Ordering::Relaxed);
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

    /// How many have come to read it so, since it began.
    pub fn joined(&self, format: Format) -> u64 {
        self.joined[format.plain() as usize].load(Ordering::Relaxed)
    }

    /// What those have been sent that are in no shard.
    pub fn sent(&self, format: Format) -> &Sent {
        &self.sent[format.plain() as usize]
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that is in no shard is followed until [`Self::unfollow`].
    pub fn follow(&self, subscription: &Subscription, format: Format) -> Place {
        let place = Place::new(subscription.tape.clone(), subscription.cursor);
        self.places().insert(place.name(), (format, place.clone()));
        place
    }

    /// It has gone.
    pub fn unfollow(&self, place: &Place) {
        let mut places = self.places();
        places.remove(&place.name());
        if places.is_empty() {
            *places = Places::new();
        }
    }

    /// How far those are behind that are in no shard.
    pub fn lag(&self, format: Format) -> Lag {
        let places = self.places();
        let same = places
            .values()
            .filter(|(it, _)| it.plain() == format.plain());
        same.map(|(_, place)| place.lag()).sum()
    }

    /// One of them has been told so often that it has missed something which others have not.
    pub fn told_gaps(&self, format: Format, count: usize) {
        self.gaps[format.plain() as usize].fetch_add(count as u64, Ordering::Relaxed);
    }

    /// How often they have been.
    pub fn gaps(&self, format: Format) -> u64 {
        self.gaps[format.plain() as usize].load(Ordering::Relaxed)
    }

    /// This has been done about one that was too slow.
    pub fn overloaded(&self, action: Overload) {
        self.overloads[action as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often that has been done.
    pub fn overloads(&self, action: Overload) -> u64 {
        self.overloads[action as usize].load(Ordering::Relaxed)
    }
}
