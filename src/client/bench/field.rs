//! All that takes part in a bench, and what they do under one load.

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::plan::Load;
use super::publisher::{Publisher, Running};
use super::report::{self, Clock, Connections, Latency, Reason, Step};
use super::shard::{Reasons, Shard, Tally};
use super::subscriber::Subscription;
use super::watch::{Watch, Watched};
use crate::source::produce::Rate;

/// Connects that are under way at once.
const CONNECTING: usize = 128;
/// How often figures are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Between the last handshake and the first event: some servers take a moment from the one to let a subscriber have the other.
const SETTLING: Duration = Duration::from_millis(300);
/// What has not come when nothing has come for so long is lost.
const LAST_EVENTS: Duration = Duration::from_secs(2);

/// All that takes part in a run.
pub struct Field {
    /// The threads with subscribers.
    pub shards: Vec<Shard>,
    /// What subscribers have in common.
    pub subscription: Arc<Subscription>,
    /// The server, if it is on this machine.
    pub server: Option<Watched>,
    /// What publishes, if anything is to be.
    pub publisher: Option<Publisher>,
    /// Connections that have been tried.
    pub wanted: usize,
    /// How far it is.
    pub bar: ProgressBar,
    /// Cancelled when it is to end early.
    pub stop: CancellationToken,
}

impl Field {
    /// Shows what it is about.
    pub fn tell(&self, prefix: String) {
        self.bar.set_prefix(prefix);
    }

    /// Connections that last.
    pub fn open(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.lock().open_count())
            .sum()
    }

    /// Connects until so many have been tried. Those under way are waited for.
    pub async fn connect(&mut self, until: usize, over: Duration) {
        let places = Arc::new(Semaphore::new(CONNECTING));
        let mut connecting = JoinSet::new();
        let (first, start) = (self.wanted, Instant::now());
        self.bar.set_length(until as u64);
        while self.wanted < until && !self.stop.is_cancelled() {
            let part = (self.wanted - first) as f64 / (until - first) as f64;
            self.stop
                .run_until_cancelled(sleep_until(start + over.mul_f64(part)))
                .await;
            let acquiring = self
                .stop
                .run_until_cancelled(places.clone().acquire_owned());
            let Some(Ok(place)) = acquiring.await else {
                break;
            };
            let shard = &self.shards[self.wanted % self.shards.len()];
            let (state, handle) = (shard.state().clone(), shard.handle.clone());
            let subscription = self.subscription.clone();
            let task = shard.handle.spawn(async move {
                let reading = subscription.connect(&state).await;
                drop(place);
                if let Some(reading) = reading {
                    handle.spawn(reading);
                }
            });
            connecting.spawn(task);
            self.wanted += 1;
            self.bar.set_position(self.wanted as u64);
            if self.wanted.is_multiple_of(CONNECTING) {
                self.bar.set_message(format!(
                    "{} connections",
                    report::amount(self.wanted as f64)
                ));
                while connecting.try_join_next().is_some() {}
            }
        }
        let rest = async { while connecting.join_next().await.is_some() {} };
        self.stop.run_until_cancelled(rest).await;
    }

    /// Keeps up a load, and counts. With the figures comes the error of a publisher that could not go on.
    pub async fn measure(
        &mut self,
        load: &Load,
        duration: Duration,
    ) -> Result<(Step, Option<anyhow::Error>)> {
        self.stop.run_until_cancelled(sleep(SETTLING)).await;
        let first = self.publisher.as_ref().map_or(0, Publisher::published);
        for shard in &self.shards {
            shard.lock().begin(first)?;
        }
        let mut watch = Watch::start(self.server.as_ref(), &self.shards).await;
        let running = match (&self.publisher, load.rate) {
            (Some(publisher), Some(rate)) => Some(publisher.begin(rate).await?),
            _ => None,
        };
        let start = Instant::now();
        let mut failure = None;
        self.keep_up(duration, &mut watch, running.as_ref()).await;
        let mut seconds = start.elapsed().as_secs_f64();
        let mut step_published = None;
        if let Some(running) = running {
            failure = running.end().await.err();
            let published = self.publisher.as_ref().map_or(0, Publisher::published);
            let count = published - first;
            step_published = Some((
                published,
                count,
                count as f64 / start.elapsed().as_secs_f64(),
            ));
            seconds = self.last_events(published, start, &mut watch).await;
        }
        let (cpu, bench) = watch.end(self.server.as_ref(), &self.shards).await;
        let mut step = self.step(seconds, step_published)?;
        step.rate = match load.rate {
            Some(Rate::PerSecond(rate)) if step_published.is_some() => Some(rate),
            _ => None,
        };
        step.bench = bench;
        step.server = self
            .server
            .as_ref()
            .map(|server| server.figures(cpu, watch.peak, step.delivered));
        Ok((step, failure))
    }

    /// Lets it run for so long, unless it is ended before.
    async fn keep_up(&self, duration: Duration, watch: &mut Watch, running: Option<&Running>) {
        let start = Instant::now();
        self.bar.set_length(duration.as_millis() as u64);
        let is_over = |running: &Running| running.is_over();
        while start.elapsed() < duration
            && !self.stop.is_cancelled()
            && !running.is_some_and(is_over)
        {
            let left = duration.saturating_sub(start.elapsed());
            self.stop.run_until_cancelled(sleep(left.min(LOOK))).await;
            watch.look(self.server.as_ref());
            self.bar.set_position(start.elapsed().as_millis() as u64);
            if !self.bar.is_hidden() {
                let delivered: u64 = self
                    .shards
                    .iter()
                    .map(|shard| shard.lock().tally.delivered)
                    .sum();
                let rate = delivered as f64 / start.elapsed().as_secs_f64();
                self.bar.set_message(format!(
                    "{} connections, {} deliveries/s",
                    report::amount(self.open() as f64),
                    report::amount(rate)
                ));
            }
            if self.open() == 0 {
                return;
            }
        }
    }

    /// Waits until all that has been published is there, or until nothing comes any more. When the last one came, in seconds from `start`.
    async fn last_events(&self, published: u64, start: Instant, watch: &mut Watch) -> f64 {
        const OFTEN: Duration = Duration::from_millis(5);
        let mut last = (self.delivered(), Instant::now());
        loop {
            let behind: usize = self
                .shards
                .iter()
                .map(|shard| shard.lock().behind(published).1)
                .sum();
            if behind == 0 || last.1.elapsed() > LAST_EVENTS {
                return (last.1 - start).as_secs_f64();
            }
            sleep(OFTEN).await;
            watch.look(self.server.as_ref());
            let delivered = self.delivered();
            if delivered > last.0 {
                last = (delivered, Instant::now());
            }
        }
    }

    fn delivered(&self) -> u64 {
        self.shards
            .iter()
            .map(|shard| shard.lock().tally.delivered)
            .sum()
    }

    /// What has been counted. `published`: the last number, how many, and how many a second.
    fn step(&self, seconds: f64, published: Option<(u64, u64, f64)>) -> Result<Step> {
        let mut all = Tally::new()?;
        let mut missing = 0;
        for shard in &self.shards {
            let state = shard.lock();
            all.add(&state.tally);
            if let Some((last, ..)) = published {
                missing += state.behind(last).0;
            }
        }
        let is_numbered = published.is_some() || all.delivered > 0 && all.unnumbered == 0;
        let between = u64::try_from(all.lost).unwrap_or(0);
        let clock = match published {
            Some(_) => Clock::Marker,
            None => Clock::Time,
        };
        let each_second = |count: u64| count as f64 / seconds.max(1e-9);
        Ok(Step {
            connections: self.open(),
            rate: None,
            seconds,
            published: published.map(|(_, count, _)| count),
            published_per_second: published.map(|(.., rate)| rate),
            delivered: all.delivered,
            lost: is_numbered.then_some(between + missing),
            repeated: is_numbered.then_some(all.repeated),
            gaps: all.gaps,
            others: all.others,
            latency: Latency::of(&all.latency, clock),
            events_per_second: each_second(all.delivered),
            bytes_per_second: each_second(all.bytes),
            server: None,
            bench: report::Bench {
                cpu_seconds: 0.0,
                busiest: 0.0,
            },
        })
    }

    /// What has become of all connections.
    pub fn connections(&self) -> Connections {
        let (mut refused, mut closed) = (Reasons::default(), Reasons::default());
        let mut connected = 0;
        for shard in &self.shards {
            let state = shard.lock();
            connected += state.connected;
            refused.merge(&state.refused);
            closed.merge(&state.closed);
        }
        Connections {
            wanted: self.wanted,
            connected,
            refused: refused.total(),
            refused_reasons: Reason::all(&refused),
            closed: closed.total(),
            closed_reasons: Reason::all(&closed),
        }
    }
}

/// What shows how far it is, on a terminal only.
pub fn progress_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {prefix}: {msg} {bar:30}");
    let target = match io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    ProgressBar::with_draw_target(Some(1), target)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
