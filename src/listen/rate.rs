//! How often something may be done: token buckets, and one for each address.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::network::Network;

/// The buckets of so many addresses are known at once: 4 MiB at most.
const MAX_KNOWN: usize = 1 << 16;
/// A bucket that is empty is full after this time: what was not done in it may be done at once.
const BURST: Duration = Duration::from_secs(1);

/// So many times a second; after a second of rest so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate(pub NonZeroU32);

impl Rate {
    /// What is said of whoever publishes too fast.
    pub fn exceeded(self) -> String {
        format!("publishes faster than {} events a second", self.0)
    }

    /// How long a bucket takes to win back so many tokens, rounded down: all that fits in must fit in.
    fn cost(self, count: usize) -> Duration {
        const NANOS: u128 = 1_000_000_000;
        let nanos = count as u128 * NANOS / u128::from(self.0.get());
        Duration::from_nanos_u128(nanos.min(u128::from(u64::MAX)))
    }
}

/// A bucket of tokens, as the time at which it is full again (the generic cell rate algorithm of ATM, ITU-T I.371).
#[derive(Debug, Clone, Copy, Default)]
pub struct Bucket {
    /// None: it has always been full.
    full_at: Option<Instant>,
}

impl Bucket {
    /// Takes `count` tokens, or says after which time they could be taken. More than there is room for can be taken of a full
    /// bucket; then it takes the longer to fill again.
    pub fn take(&mut self, count: usize, rate: Rate) -> Result<(), Duration> {
        let now = Instant::now();
        self.check(count, rate, now)?;
        let missing = self.missing(now);
        self.full_at = Some(now + missing + rate.cost(count));
        Ok(())
    }

    /// Whether [`take`](Self::take) would succeed.
    fn check(&self, count: usize, rate: Rate, now: Instant) -> Result<(), Duration> {
        let missing = self.missing(now);
        let wanted = rate.cost(count);
        if missing.is_zero() || missing + wanted <= BURST {
            return Ok(());
        }
        Err((missing + wanted).saturating_sub(BURST).min(missing))
    }

    /// How long it takes to be full again.
    fn missing(&self, now: Instant) -> Duration {
        self.full_at
            .map_or(Duration::ZERO, |full_at| full_at.duration_since(now))
    }
}

/// A bucket for each address. It is constant work to use one, and no flood of addresses makes it large.
#[derive(Debug)]
pub struct OfAddresses {
    rate: Rate,
    known: Mutex<Known>,
}

/// The buckets that may not be full.
#[derive(Debug, Default)]
struct Known {
    buckets: HashMap<Network, Bucket>,
    /// First is whose bucket was looked at longest ago.
    order: VecDeque<Network>,
}

impl OfAddresses {
    /// Each address may do it this often.
    pub fn new(rate: Rate) -> Self {
        Self {
            rate,
            known: Mutex::default(),
        }
    }

    /// How often.
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// As [`Bucket::take`], of the bucket of `address`.
    pub fn take(&self, address: IpAddr, count: usize) -> Result<(), Duration> {
        let network = Network::of(address);
        let mut known = self.lock();
        known.forget_full();
        if let Some(bucket) = known.buckets.get_mut(&network) {
            return bucket.take(count, self.rate);
        }
        if known.order.len() >= MAX_KNOWN
            && let Some(oldest) = known.order.pop_front()
        {
            known.buckets.remove(&oldest);
        }
        let mut bucket = Bucket::default();
        let taken = bucket.take(count, self.rate);
        known.buckets.insert(network, bucket);
        known.order.push_back(network);
        taken
    }

    /// Whether one token could be taken of the bucket of `address`.
    pub fn check(&self, address: IpAddr) -> Result<(), Duration> {
        match self.lock().buckets.get(&Network::of(address)) {
            Some(bucket) => bucket.check(1, self.rate, Instant::now()),
            None => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Looks at two buckets, as at most one comes with each call: so those that are full do not pile up.
    fn forget_full(&mut self) {
        let now = Instant::now();
        for _ in 0..self.order.len().min(2) {
            let Some(network) = self.order.pop_front() else {
                return;
            };
            let bucket = self.buckets.get(&network);
            if bucket.is_none_or(|bucket| bucket.missing(now).is_zero()) {
                self.buckets.remove(&network);
            } else {
                self.order.push_back(network);
            }
        }
    }
}

#[cfg(test)]
mod tests;
