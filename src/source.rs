//! Sources: what brings events into a stream. The mirror image of [`crate::endpoint`].

pub mod http;
pub mod peers;
pub mod presence;
pub mod produce;
pub mod publish;
pub mod reached;
pub mod refusal;
pub mod secret;
pub mod standby;
pub mod upstream;
pub mod websocket;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bus::figures::Figures;
use crate::bus::{Bus, read};
use crate::pause::Pause;
use crate::shutdown::until_stopped;
use crate::stream::EventLog;
use crate::stream::merge::Inflow;
use crate::stream::via::Via;
use produce::Produce;
use upstream::Upstream;

/// Where the events of a source go.
#[derive(Clone)]
pub struct Destination {
    /// The stream.
    pub log: Arc<EventLog>,
    /// The way into it.
    pub inflow: Inflow,
    /// Gets to know the upstream, and the hops behind it.
    pub via: Arc<Via>,
    /// The number of the source there.
    pub number: usize,
    /// Whether the stream ends when there is none upstream.
    pub on_demand: bool,
    /// Whether somebody may be waiting for what the source tells of the stream's past.
    pub owes_past: bool,
    /// Holds it still for a moment.
    pub pause: Arc<Pause>,
}

/// A source as configured.
pub enum Source {
    /// Random events, made here.
    Produce(Produce),
    /// Another server's event stream, over a WebSocket.
    WebSocket(Arc<Upstream>),
    /// Another server's event stream, over plain HTTP: server-sent events or NDJSON.
    Http(Arc<Upstream>),
    /// A bus, and what is counted of it.
    Bus(Arc<Bus>, Arc<Figures>),
}

impl From<Upstream> for Source {
    /// The scheme of the URL says which kind it is.
    fn from(upstream: Upstream) -> Self {
        match upstream.url.scheme() {
            "http" | "https" => Self::Http(upstream.into()),
            _ => Self::WebSocket(upstream.into()),
        }
    }
}

impl Source {
    /// Lets a stream know that this source is going to be the one with this number. Whether somebody may be waiting for what it tells of the
    /// stream's past.
    pub fn announce(&self, inflow: &Inflow, via: &Via, number: usize) -> bool {
        match self {
            Self::Produce(_) => return false,
            Self::WebSocket(upstream) | Self::Http(upstream) => {
                via.expect(number, &upstream.to_string());
            }
            Self::Bus(bus, _) => via.expect(number, &bus.to_string()),
        }
        let tells_past = match self {
            // Another hop will tell what was before.
            Self::WebSocket(_) => true,
            Self::Bus(bus, _) => bus.is_durable(),
            Self::Produce(_) | Self::Http(_) => false,
        };
        if tells_past {
            inflow.expect_past();
        }
        tells_past
    }

    /// What it consumes, if that is an event URL.
    pub fn upstream(&self) -> Option<&Arc<Upstream>> {
        match self {
            Self::WebSocket(upstream) | Self::Http(upstream) => Some(upstream),
            Self::Produce(_) | Self::Bus(..) => None,
        }
    }

    /// What is read, as it may be shown to anyone.
    pub fn name(&self) -> Option<String> {
        match self {
            Self::Produce(_) => None,
            Self::WebSocket(upstream) | Self::Http(upstream) => Some(upstream.to_string()),
            Self::Bus(bus, _) => Some(bus.to_string()),
        }
    }

    /// Whether others may bring the same events: what is made here is nowhere else, and a bus has its own order.
    pub fn is_link(&self) -> bool {
        matches!(self, Self::WebSocket(_) | Self::Http(_))
    }

    /// Brings events to where they belong until `stop` is cancelled, as one of `tasks`.
    ///
    /// A task is as large as the largest that it may be, and of these there may be as many as streams: so each kind is one.
    pub fn start(self, to: Destination, stop: CancellationToken, tasks: &TaskTracker) {
        let pause = to.pause.clone();
        match self {
            Self::Produce(produce) => drop(tasks.spawn(pause.within(async move {
                until_stopped(&stop, pin!(produce.run(&to.log))).await;
            }))),
            Self::WebSocket(upstream) => {
                let consuming = websocket::consume(upstream, to, stop);
                drop(tasks.spawn(pause.within(consuming)));
            }
            Self::Http(upstream) => {
                drop(tasks.spawn(pause.within(http::consume(upstream, to, stop))));
            }
            Self::Bus(bus, figures) => {
                drop(tasks.spawn(pause.within(read::consume(bus, figures, to, stop))));
            }
        }
    }
}

/// The pauses between attempts to reach an upstream: jitter, so that a thousand hops that have lost the same upstream do
/// not come back together, below a ceiling that doubles with each attempt.
#[derive(Debug)]
pub struct Backoff {
    shortest: Duration,
    ceiling: Duration,
    /// The next pause, if the upstream has said when to come back.
    asked: Option<Duration>,
}

impl Backoff {
    const SHORTEST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(10);
    /// The most that an upstream may ask for.
    const MOST_PATIENT: Duration = Duration::from_secs(60 * 60);

    /// The first pause is short.
    pub fn new() -> Self {
        Self::from(Self::SHORTEST)
    }

    fn from(shortest: Duration) -> Self {
        Self {
            shortest,
            ceiling: shortest * 2,
            asked: None,
        }
    }

    /// The upstream wants all pauses to be at least as long as this, within reason (the reconnection time of WHATWG HTML,
    /// section 9.2.3).
    pub fn ask_for(&mut self, shortest: Duration) {
        self.shortest = shortest.clamp(Self::SHORTEST, Self::MOST_PATIENT);
        // Not begun anew: asking brings no events.
        self.ceiling = self.ceiling.clamp(self.shortest * 2, self.longest());
    }

    fn longest(&self) -> Duration {
        Self::LONGEST.max(self.shortest * 2)
    }

    /// A connection made at `since` has ended. After one that brought events, or that has lasted, pauses begin short again;
    /// a server that accepts and closes at once does not get away with that.
    pub fn connection_ended(&mut self, since: Instant, brought_events: bool) {
        if brought_events || since.elapsed() > Self::LONGEST {
            *self = Self {
                asked: self.asked,
                ..Self::from(self.shortest)
            };
        }
    }

    /// The upstream has said when to come back: each of those whom it sends away is told another time.
    pub fn come_back_in(&mut self, pause: Option<Duration>) {
        self.asked = pause;
    }

    /// How long to wait before the next attempt.
    pub fn pause(&mut self) -> Duration {
        if let Some(asked) = self.asked.take() {
            return asked.max(self.shortest);
        }
        let pause = rand::random_range(self.shortest..=self.ceiling);
        self.ceiling = (self.ceiling * 2).min(self.longest());
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

    #[test]
    fn an_upstream_may_ask_for_longer_pauses_within_reason() {
        for (asked, least) in [
            (Duration::ZERO, Backoff::SHORTEST),
            (Duration::from_secs(3), Duration::from_secs(3)),
            (Duration::MAX, Backoff::MOST_PATIENT),
        ] {
            let mut backoff = Backoff::new();
            backoff.ask_for(asked);
            backoff.connection_ended(Instant::now(), true);
            let first = backoff.pause();
            assert!((least..=least * 2).contains(&first), "{first:?}");
            for _ in 0..1_000 {
                let pause = backoff.pause();
                let most = Backoff::LONGEST.max(least * 2);
                assert!((least..=most).contains(&pause), "{pause:?}");
            }
        }
    }

    #[test]
    fn who_is_told_when_to_come_back_does_so_once() {
        let asked = Duration::from_millis(1_234);
        let mut backoff = Backoff::new();
        backoff.come_back_in(Some(asked));
        backoff.connection_ended(Instant::now(), true);
        assert_eq!(backoff.pause(), asked);
        assert!(backoff.pause() <= Duration::from_millis(200));
        backoff.come_back_in(Some(Duration::ZERO));
        assert_eq!(backoff.pause(), Backoff::SHORTEST);
    }

    /// Connecting takes some thousand bytes, for a moment; that must not become a part of what there is afterwards.
    #[test]
    #[cfg(target_pointer_width = "64")]
    fn a_source_that_waits_is_small() {
        fn future<F>(_: fn(Arc<Upstream>, Destination, CancellationToken) -> F) -> usize {
            size_of::<F>()
        }
        assert!(future(websocket::consume) <= 1_280);
        assert!(future(http::consume) <= 1_792);
    }
}
