//! `wsevent bench`: how many subscribers and events a second a URL carries.
//!
//! Subscribers are many connections on few threads ([`shard`]), which look at nothing but where an event begins and ends, its marker and its
//! id ([`reading`]). A publisher on a thread of its own puts a number and the time into each payload ([`marker`]), so that what is lost or
//! repeated is known exactly, whoever's server it is. Where nothing is published, what the stream brings is counted as far as it says its numbers.

mod account;
mod marker;
pub mod plan;
mod plot;
mod publisher;
mod reading;
pub mod report;
mod shard;
pub mod subscriber;

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::process::{self, Process};
use crate::shutdown::Signals;
use crate::source::produce::Rate;
use crate::source::upstream::{Upstream, port};
use marker::Run;
use plan::Load;
pub use publisher::Publishing;
use publisher::{Publisher, Running};
use report::{Clock, Connections, Latency, Reason, Report, Server, Step};
use shard::{Reasons, Shard, Tally};
use subscriber::{Subscription, Transport};

pub use marker::LENGTH as SMALLEST;

/// Connects that are under way at once.
const CONNECTING: usize = 128;
/// Files that are open beside connections.
const OTHER_FILES: u64 = 64;
/// How often figures are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Between the last handshake and the first event: some servers take a moment from the one to let a subscriber have the other.
const SETTLING: Duration = Duration::from_millis(300);
/// What has not come when nothing has come for so long is lost.
const LAST_EVENTS: Duration = Duration::from_secs(2);

/// What to load, and how.
pub struct Bench {
    /// The stream.
    pub upstream: Upstream,
    /// How it is read.
    pub transport: Transport,
    /// What is to be published; none if events come anyway.
    pub publishing: Option<Publishing>,
    /// The loads, one after the other.
    pub loads: Vec<Load>,
    /// How long each is kept up.
    pub duration: Duration,
    /// How long connecting may take; as fast as it goes if that is 0.
    pub connect_over: Duration,
    /// Threads that read; none for as many as suit.
    pub threads: Option<usize>,
    /// Print JSON.
    pub json: bool,
    /// Where to draw it.
    pub plot: Option<PathBuf>,
    /// What counts as failure.
    pub fail_on: Vec<Fault>,
}

/// What may go wrong without being an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Fault {
    /// Events did not come.
    Lost,
    /// Events came more than once.
    Repeated,
    /// Connections were not let in.
    Refused,
    /// Connections ended before they were to.
    Closed,
}

impl Bench {
    /// Makes the load and prints what it has led to. The exit status says whether anybody could connect, and whether what must not go
    /// wrong went well.
    pub async fn run(self) -> Result<ExitCode> {
        self.check_files()?;
        let stop = CancellationToken::new();
        stop_on_signals(stop.clone())?;
        let report = self.measure(&stop).await?;
        let out = match self.json {
            true => serde_json::to_string_pretty(&report)? + "\n",
            false => report.to_string(),
        };
        // Nobody may be reading it.
        let _ = io::stdout().lock().write_all(out.as_bytes());
        for warning in report.warnings() {
            let _ = writeln!(io::stderr(), "wsevent: {warning}");
        }
        if let Some(path) = &self.plot {
            draw(&report, path)?;
        }
        if let Some(error) = &report.error {
            bail!("{error}");
        }
        if report.connections.connected == 0 && report.connections.wanted > 0 {
            return Ok(ExitCode::FAILURE);
        }
        let faults = self.faults(&report);
        for fault in &faults {
            let _ = writeln!(io::stderr(), "wsevent: --fail-on {fault}");
        }
        Ok(match faults.is_empty() {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        })
    }

    /// What must not be, and is.
    fn faults(&self, report: &Report) -> Vec<String> {
        let sum = |count: fn(&Step) -> Option<u64>| {
            let counts = report.steps.iter().map(count);
            counts.sum::<Option<u64>>()
        };
        let fault = |fault: &Fault| {
            let (name, count) = match fault {
                Fault::Lost => ("lost", sum(|step| step.lost)),
                Fault::Repeated => ("repeated", sum(|step| step.repeated)),
                Fault::Refused => ("refused", Some(report.connections.refused)),
                Fault::Closed => ("closed", Some(report.connections.closed)),
            };
            match count {
                Some(0) => None,
                Some(count) => Some(format!("{name}: there were {count}")),
                None => Some(format!("{name}: whether there were any is unknown")),
            }
        };
        self.fail_on.iter().filter_map(fault).collect()
    }

    /// The most subscribers that there are to be at a time.
    fn most(&self) -> usize {
        self.loads
            .iter()
            .map(|load| load.connections)
            .max()
            .unwrap_or(0)
    }

    /// Whether there may be so many files.
    fn check_files(&self) -> Result<()> {
        let most = self.most() as u64;
        let Some(allowed) = getrlimit(Resource::Nofile).current else {
            return Ok(());
        };
        if most + OTHER_FILES > allowed {
            bail!(
                "{most} connections need {} open files, and this process may have {allowed}: raise the limit (ulimit -Hn, LimitNOFILE= of systemd), or take --connections {}",
                most + OTHER_FILES,
                allowed.saturating_sub(OTHER_FILES)
            );
        }
        Ok(())
    }

    async fn measure(&self, stop: &CancellationToken) -> Result<Report> {
        let run = self.publishing.as_ref().map(|_| Run::random());
        let threads = self.threads.unwrap_or_else(|| {
            /// So many connections are no work for a second thread.
            const EACH: usize = 5_000;
            let cpus = std::thread::available_parallelism().map_or(1, usize::from);
            cpus.min(1 + self.most() / EACH)
        });
        let shards = (0..threads).map(|_| Shard::start(run));
        let published = Arc::new(AtomicU64::new(0));
        let upstream = Upstream {
            address: reached(&self.upstream).await,
            ..self.upstream.clone()
        };
        let mut field = Field {
            shards: shards.collect::<Result<_>>()?,
            subscription: Arc::new(Subscription {
                upstream,
                transport: self.transport,
                published: published.clone(),
            }),
            server: Watched::new(&self.upstream),
            publisher: None,
            wanted: 0,
            bar: progress_bar(),
            stop: stop.clone(),
        };
        if let (Some(publishing), Some(run)) = (&self.publishing, run) {
            let publishing = Publishing {
                upstream: publishing.upstream.clone(),
                ..*publishing
            };
            field.publisher = Some(Publisher::start(publishing, run, published)?);
        }
        let mut steps = Vec::new();
        let mut failure = None;
        for (at, load) in self.loads.iter().enumerate() {
            field.tell(format!("step {} of {}", at + 1, self.loads.len()));
            field.connect(load.connections, self.connect_over).await;
            if stop.is_cancelled() || field.open() == 0 {
                break;
            }
            match field.measure(load, self.duration).await {
                Ok((step, error)) => {
                    steps.push(step);
                    failure = error;
                }
                Err(error) => failure = Some(error),
            }
            if stop.is_cancelled() || failure.is_some() {
                break;
            }
        }
        field.bar.finish_and_clear();
        let is_cut_short = stop.is_cancelled() || failure.is_some();
        Ok(Report {
            version: env!("CARGO_PKG_VERSION"),
            url: self.upstream.to_string(),
            transport: self.transport.name(),
            size: self.publishing.as_ref().map(|publishing| publishing.size),
            interrupted: is_cut_short,
            error: failure.map(|error| crate::reason::of(&error)),
            connections: field.connections(),
            steps,
        })
    }
}

/// The first signal ends the bench, with what there is so far; the second ends the process.
fn stop_on_signals(stop: CancellationToken) -> Result<()> {
    const INTERRUPTED: i32 = 130;
    let mut signals = Signals::take().context("cannot listen for signals")?;
    tokio::spawn(async move {
        signals.next().await;
        stop.cancel();
        signals.next().await;
        std::process::exit(INTERRUPTED);
    });
    Ok(())
}

/// The first address of the host that takes a connection: looking the name up for each of thousands would be another bench.
async fn reached(upstream: &Upstream) -> Option<std::net::SocketAddr> {
    const PATIENCE: Duration = Duration::from_secs(3);
    let host = upstream.url.host_str()?.trim_matches(['[', ']']).to_owned();
    let port = port(&upstream.url)?;
    for address in lookup_host((host, port)).await.ok()? {
        if let Ok(Ok(_)) = timeout(PATIENCE, TcpStream::connect(address)).await {
            return Some(address);
        }
    }
    None
}

/// On a terminal only.
fn progress_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {prefix}: {msg} {bar:30}");
    let target = match io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    ProgressBar::with_draw_target(Some(1), target)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn draw(report: &Report, path: &PathBuf) -> Result<()> {
    match plot::draw(report) {
        Some(svg) => {
            fs::write(path, svg).with_context(|| format!("cannot write {}", path.display()))
        }
        None => {
            warn!(path = %path.display(), "there is no latency to draw");
            Ok(())
        }
    }
}

/// The processes of the server, if they are on this machine.
struct Watched {
    processes: Vec<Process>,
    before: u64,
}

impl Watched {
    fn new(upstream: &Upstream) -> Option<Self> {
        let port = port(&upstream.url).filter(|_| is_local(upstream))?;
        let processes = process::holders(&process::listening(port));
        let before = resident(&processes);
        (!processes.is_empty()).then_some(Self { processes, before })
    }

    fn cpu_seconds(&self) -> f64 {
        let seconds = self.processes.iter().filter_map(Process::cpu_seconds);
        seconds.sum()
    }
}

fn resident(processes: &[Process]) -> u64 {
    processes.iter().filter_map(Process::resident).sum()
}

/// Whether a URL plainly leads to this machine.
pub fn is_local(upstream: &Upstream) -> bool {
    match upstream.url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// All that takes part in a run.
struct Field {
    shards: Vec<Shard>,
    subscription: Arc<Subscription>,
    server: Option<Watched>,
    publisher: Option<Publisher>,
    /// Connections that have been tried.
    wanted: usize,
    bar: ProgressBar,
    stop: CancellationToken,
}

impl Field {
    fn tell(&self, prefix: String) {
        self.bar.set_prefix(prefix);
    }

    /// Connections that last.
    fn open(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.lock().open_count())
            .sum()
    }

    /// Connects until so many have been tried. Those under way are waited for.
    async fn connect(&mut self, until: usize, over: Duration) {
        let places = Arc::new(Semaphore::new(CONNECTING));
        let mut connecting = JoinSet::new();
        let (first, start) = (self.wanted, Instant::now());
        self.bar.set_length(until as u64);
        while self.wanted < until && !self.stop.is_cancelled() {
            let part = (self.wanted - first) as f64 / (until - first) as f64;
            self.stop
                .run_until_cancelled(sleep_until(start + over.mul_f64(part)))
                .await;
            let Ok(place) = places.clone().acquire_owned().await else {
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
        while connecting.join_next().await.is_some() {}
    }

    /// Keeps up a load, and counts. With the figures comes the error of a publisher that could not go on.
    async fn measure(
        &mut self,
        load: &Load,
        duration: Duration,
    ) -> Result<(Step, Option<anyhow::Error>)> {
        self.stop.run_until_cancelled(sleep(SETTLING)).await;
        let first = self.publisher.as_ref().map_or(0, Publisher::published);
        for shard in &self.shards {
            shard.lock().begin(first)?;
        }
        let mut watch = Watch::start(self).await;
        let start = Instant::now();
        let mut failure = None;
        let running = match (&self.publisher, load.rate) {
            (Some(publisher), Some(rate)) => Some(publisher.begin(rate).await?),
            _ => None,
        };
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
        let (cpu, bench) = watch.end(self).await;
        let mut step = self.step(seconds, step_published)?;
        step.rate = match load.rate {
            Some(Rate::PerSecond(rate)) if step_published.is_some() => Some(rate),
            _ => None,
        };
        step.bench = bench;
        step.server = self
            .server
            .as_ref()
            .map(|server| server_figures(server, cpu, watch.peak, step.delivered));
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
            watch.look(self);
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
            watch.look(self);
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

    fn connections(&self) -> Connections {
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

fn server_figures(server: &Watched, cpu: f64, peak: u64, delivered: u64) -> Server {
    Server {
        pids: server.processes.iter().map(|process| process.pid).collect(),
        name: server
            .processes
            .first()
            .map_or_else(String::new, |process| process.name.clone()),
        cpu_seconds: cpu,
        cpu_us_per_delivery: (delivered > 0).then(|| cpu * 1e6 / delivered as f64),
        rss_before: server.before,
        rss_peak: peak,
    }
}

/// What both sides use, from one moment to another.
struct Watch {
    begun: Instant,
    server: f64,
    own: f64,
    threads: Vec<f64>,
    /// The most memory of the server so far.
    peak: u64,
}

impl Watch {
    async fn start(field: &Field) -> Self {
        let mut watch = Self {
            begun: Instant::now(),
            server: field.server.as_ref().map_or(0.0, Watched::cpu_seconds),
            own: own_cpu_seconds(),
            threads: threads(field).await,
            peak: 0,
        };
        watch.look(field);
        watch
    }

    fn look(&mut self, field: &Field) {
        if let Some(server) = &field.server {
            self.peak = self.peak.max(resident(&server.processes));
        }
    }

    /// CPU time of the server, and what this program has used.
    async fn end(&mut self, field: &Field) -> (f64, report::Bench) {
        self.look(field);
        let wall = self.begun.elapsed().as_secs_f64().max(1e-9);
        let now = threads(field).await;
        let busy = now
            .iter()
            .zip(&self.threads)
            .map(|(now, then)| (now - then) / wall);
        let server = field.server.as_ref().map_or(0.0, Watched::cpu_seconds);
        (
            (server - self.server).max(0.0),
            report::Bench {
                cpu_seconds: own_cpu_seconds() - self.own,
                busiest: busy.fold(0.0, f64::max),
            },
        )
    }
}

async fn threads(field: &Field) -> Vec<f64> {
    let mut seconds = Vec::with_capacity(field.shards.len());
    for shard in &field.shards {
        seconds.push(shard.cpu_seconds().await);
    }
    seconds
}

fn own_cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
