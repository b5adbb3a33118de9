//! Sources: what brings events into a stream. The mirror image of [`crate::endpoint`].

pub mod produce;
pub mod websocket;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::stream::EventLog;
use produce::Produce;
use websocket::Upstream;

/// A source as configured.
pub enum Source {
    /// Random events, made here.
    Produce(Produce),
    /// Another server's event stream.
    WebSocket(Upstream),
}

impl Source {
    /// Brings events into `log` until `stop` is cancelled.
    pub async fn run(self, log: Arc<EventLog>, stop: CancellationToken) {
        match self {
            Self::Produce(produce) => {
                stop.run_until_cancelled(produce.run(&log)).await;
            }
            Self::WebSocket(upstream) => websocket::consume(upstream, &log, &stop).await,
        }
    }
}

/// The pauses between attempts to reach an upstream: full jitter, so that a thousand hops that have lost the same
/// upstream do not come back together, below a ceiling that doubles with each attempt.
#[derive(Debug)]
pub struct Backoff {
    ceiling: Duration,
}

impl Backoff {
    const SHORTEST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(10);

    /// The first pause is short.
    pub fn new() -> Self {
        Self {
            ceiling: Self::SHORTEST * 2,
        }
    }

    /// A connection made at `since` has ended. After one that brought events, or that has lasted, pauses begin short again;
    /// a server that accepts and closes at once does not get away with that.
    pub fn connection_ended(&mut self, since: Instant, brought_events: bool) {
        if brought_events || since.elapsed() > Self::LONGEST {
            *self = Self::new();
        }
    }

    /// How long to wait before the next attempt.
    pub fn pause(&mut self) -> Duration {
        let pause = rand::random_range(Self::SHORTEST..=self.ceiling);
        self.ceiling = (self.ceiling * 2).min(Self::LONGEST);
        pause
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_within_their_bounds() {
        let mut backoff = Backoff::new();
        assert!(backoff.pause() <= Duration::from_millis(200));
        for _ in 0..1_000 {
            let pause = backoff.pause();
            assert!(
                (Backoff::SHORTEST..=Backoff::LONGEST).contains(&pause),
                "{pause:?}"
            );
        }
        assert_eq!(backoff.ceiling, Backoff::LONGEST);
    }
}
