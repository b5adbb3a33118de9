//! `wsevent bench`: how many subscribers and events a second a URL carries.
//!
//! Subscribers are many connections on few threads ([`shard`]), which look at nothing but where an event begins and ends, its marker and its
//! id ([`reading`]). A publisher on a thread of its own puts a number and the time into each payload ([`marker`]), so that what is lost or
//! repeated is known exactly, whosever server it is. Where nothing is published, what the stream brings is counted as far as it says its numbers.

mod account;
mod field;
mod marker;
pub mod plan;
mod plot;
mod publisher;
mod reading;
pub mod report;
mod shard;
pub mod subscriber;
mod watch;

use std::fs::{self, OpenOptions};
use std::future::pending;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread as threads;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use rustix::process::{Resource, getrlimit};
use tokio::net::{TcpStream, lookup_host};
use tokio::runtime::{self, Handle};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::shutdown::Signals;
use crate::source::upstream::{Upstream, port};
use crate::stdout;
use field::{Field, progress_bar};
use marker::Run;
use plan::Load;
use publisher::Publisher;
use report::{Report, Step};
use shard::Shard;
use subscriber::{Subscription, Transport};
use watch::Watched;

pub use marker::LENGTH as SMALLEST;
pub use publisher::Publishing;

/// Files that are open beside connections.
const OTHER_FILES: u64 = 64;
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
        if let Some(path) = &self.plot {
            check_writable(path)?;
        }
        let stop = CancellationToken::new();
        stop_on_signals(stop.clone())?;
        let report = self.measure(&stop).await?;
        let out = match self.json {
            true => serde_json::to_string_pretty(&report)? + "\n",
            false => report.to_string(),
        };
        let printed = stdout::print(out.as_bytes());
        for warning in report.warnings() {
            // Nobody may be reading it.
            let _ = writeln!(io::stderr(), "wsevent: {warning}");
        }
        if let Some(path) = &self.plot {
            draw(&report, path)?;
        }
        printed?;
        if let Some(error) = &report.error {
            bail!("{error}");
        }
        if report.connections.connected == 0 && report.connections.wanted > 0 {
            bail!("nobody could connect to {}", self.upstream);
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
        let subscription = Subscription {
            upstream,
            transport: self.transport,
            published: published.clone(),
        };
        let publisher = match (&self.publishing, run) {
            (Some(publishing), Some(run)) => {
                Some(Publisher::start(publishing.clone(), run, published)?)
            }
            _ => None,
        };
        let mut field = Field {
            shards: shards.collect::<Result<_>>()?,
            subscription: Arc::new(subscription),
            server: Watched::new(&self.upstream),
            publisher,
            wanted: 0,
            bar: progress_bar(),
            stop: stop.clone(),
        };
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
async fn reached(upstream: &Upstream) -> Option<SocketAddr> {
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

/// Whether a file can be written: that is better known before the load than behind it. What it holds stays, and what was not there is not made.
fn check_writable(path: &Path) -> Result<()> {
    let is_new = !path.exists();
    let opened = OpenOptions::new().append(true).create(true).open(path);
    opened.with_context(|| format!("cannot write {}", path.display()))?;
    if is_new {
        let _ = fs::remove_file(path);
    }
    Ok(())
}

fn draw(report: &Report, path: &Path) -> Result<()> {
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

/// Whether a URL plainly leads to this machine.
pub fn is_local(upstream: &Upstream) -> bool {
    match upstream.url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// A thread of its own for tasks, which ends with the process.
fn thread(name: &str) -> Result<Handle> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a thread")?;
    let handle = runtime.handle().clone();
    threads::Builder::new()
        .name(name.into())
        .spawn(move || runtime.block_on(pending::<()>()))
        .context("cannot start a thread")?;
    Ok(handle)
}
