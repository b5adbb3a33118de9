//! How a process stops: at once, or after its subscribers have gone one by one.
//!
//! ```text
//!   drain():  begun ───── each subscriber at a moment of its own ─────► over ── closing handshakes ──► the end
//!             |<──────────────── 3/4 of --drain ─────────────────────>|<────── the rest of it ───────>|
//!   now():    begun and over in one
//! ```

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

/// Longer than anybody waits, and no more than an instant can be away.
const FOREVER: Duration = Duration::from_secs(1 << 32);

/// The stop of a process: whether it has begun, who has to go when, and how many are still there.
#[derive(Debug, Clone)]
pub struct Stop(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    begun: CancellationToken,
    over: CancellationToken,
    /// How long all of it may take.
    within: Duration,
    /// When it has to end.
    end: OnceLock<Instant>,
    /// By when the last subscriber has to go, if each has a moment of its own.
    last: OnceLock<Instant>,
    subscribers: AtomicUsize,
    none_left: Notify,
}

impl Stop {
    /// One that has not begun, and may take so long.
    pub fn new(within: Duration) -> Self {
        let over = CancellationToken::new();
        Self(Arc::new(Shared {
            // Whatever ends everything ends what a drain ends.
            begun: over.child_token(),
            over,
            within: within.min(FOREVER),
            end: OnceLock::new(),
            last: OnceLock::new(),
            subscribers: AtomicUsize::new(0),
            none_left: Notify::new(),
        }))
    }

    /// Ends everything.
    pub fn now(&self) {
        self.note_end();
        self.0.over.cancel();
    }

    /// Begins to drain: nobody new is let in, and those who are there go one by one.
    pub fn drain(&self) {
        let begun = self.note_end() - self.0.within;
        let _ = self.0.last.set(begun + self.spread());
        self.0.begun.cancel();
    }

    /// When it ends, from whatever began it first.
    fn note_end(&self) -> Instant {
        *self.0.end.get_or_init(|| Instant::now() + self.0.within)
    }

    /// Cancelled when nobody new is to be let in.
    pub fn begun(&self) -> &CancellationToken {
        &self.0.begun
    }

    /// Cancelled when everything is to end.
    pub fn over(&self) -> &CancellationToken {
        &self.0.over
    }

    /// Whether it is one that lets subscribers go one by one, or was.
    pub fn is_drain(&self) -> bool {
        self.0.last.get().is_some()
    }

    /// How long all of it may take.
    pub fn within(&self) -> Duration {
        self.0.within
    }

    /// How much of that is left.
    pub fn left(&self) -> Duration {
        self.note_end().saturating_duration_since(Instant::now())
    }

    /// Over what time subscribers go. The rest is for those who go last, and for what is behind them.
    pub fn spread(&self) -> Duration {
        self.0.within / 4 * 3
    }

    /// A moment for one subscriber to go: each has one of its own, so that those who come back do not come together.
    pub fn moment(&self) -> Instant {
        let now = Instant::now();
        let last = self.0.last.get().copied().unwrap_or(now);
        now + last.saturating_duration_since(now).mul_f64(rand::random())
    }

    /// Waits until one subscriber has to go. Should everything end at once, that is at once.
    pub fn departure(&self) -> impl Future<Output = ()> + Send + use<> {
        let stop = self.clone();
        async move {
            stop.0.begun.cancelled().await;
            let moment = stop.moment();
            if moment > Instant::now() {
                // Most of the time there is nothing to wait for, so it is in a box when there is.
                Box::pin(sleep_until(moment)).await;
            }
        }
    }

    /// A subscriber has come.
    pub fn join(&self) {
        self.0.subscribers.fetch_add(1, Ordering::Relaxed);
    }

    /// One has gone.
    pub fn leave(&self) {
        if self.0.subscribers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.none_left.notify_one();
        }
    }

    /// How many there are.
    pub fn subscribers(&self) -> usize {
        self.0.subscribers.load(Ordering::Acquire)
    }

    /// Waits until there are none, or until the last one has been told to go.
    pub async fn drained(&self) {
        let Some(last) = self.0.last.get() else {
            return;
        };
        let none_left = async {
            while self.subscribers() > 0 {
                self.0.none_left.notified().await;
            }
        };
        let _ = timeout_at(*last, none_left).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_stop_is_at_once_and_the_other_begins_first() {
        let stop = Stop::new(Duration::from_secs(4));
        assert!(!stop.begun().is_cancelled() && !stop.is_drain());
        stop.drain();
        assert!(stop.begun().is_cancelled() && stop.is_drain());
        assert!(!stop.over().is_cancelled());
        stop.now();
        assert!(stop.over().is_cancelled());
        let stop = Stop::new(Duration::from_secs(4));
        stop.now();
        assert!(stop.begun().is_cancelled() && stop.over().is_cancelled());
        assert!(!stop.is_drain());
    }

    #[tokio::test(start_paused = true)]
    async fn moments_lie_in_the_first_three_quarters_and_differ() {
        let stop = Stop::new(Duration::from_secs(4));
        stop.drain();
        let now = Instant::now();
        let moments: Vec<_> = (0..1_000)
            .map(|_| (stop.moment() - now).as_millis())
            .collect();
        assert!(moments.iter().all(|at| *at <= 3_000));
        for quarter in 0..4 {
            let range = quarter * 750..=(quarter + 1) * 750;
            let here = moments.iter().filter(|at| range.contains(*at)).count();
            assert!((150..350).contains(&here), "{here} in {range:?}");
        }
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(stop.moment(), Instant::now(), "who comes late goes at once");
        assert_eq!(stop.left(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn it_has_drained_with_the_last_subscriber_or_when_the_time_is_up() {
        for leaves in [true, false] {
            let stop = Stop::new(Duration::from_secs(4));
            stop.join();
            stop.join();
            stop.drain();
            let begun = Instant::now();
            let drained = tokio::spawn({
                let stop = stop.clone();
                async move { stop.drained().await }
            });
            tokio::time::sleep(Duration::from_secs(1)).await;
            stop.leave();
            if leaves {
                stop.leave();
            }
            drained.await.expect("it does not panic");
            let expected = if leaves { 1 } else { 3 };
            assert_eq!(begun.elapsed().as_secs(), expected);
        }
    }

    #[test]
    fn no_time_is_too_long() {
        let stop = Stop::new(Duration::MAX);
        stop.drain();
        assert!(stop.left() > Duration::from_secs(1 << 31));
        stop.moment();
    }
}
