//! What both sides of a bench use meanwhile.

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

use super::is_local;
use super::report::{self, Server};
use super::shard::Shard;
use crate::process::{self, Process};
use crate::source::upstream::{Upstream, port};

/// The processes of the server, if they are on this machine.
pub struct Watched {
    processes: Vec<Process>,
    before: u64,
}

impl Watched {
    /// Those that listen at the port of a URL.
    pub fn new(upstream: &Upstream) -> Option<Self> {
        let port = port(&upstream.url).filter(|_| is_local(upstream))?;
        let processes = process::holders(&process::listening(port));
        let before = resident(&processes);
        (!processes.is_empty()).then_some(Self { processes, before })
    }

    /// What each of them has used so far; none of one that has ended.
    fn cpu_seconds(&self) -> impl Iterator<Item = Option<f64>> {
        self.processes.iter().map(Process::cpu_seconds)
    }

    /// For a report: CPU time used meanwhile, the most memory that was seen, and what came of it.
    pub fn figures(&self, cpu: f64, peak: u64, delivered: u64) -> Server {
        Server {
            pids: self.processes.iter().map(|process| process.pid).collect(),
            name: self
                .processes
                .first()
                .map_or_else(String::new, |process| process.name.clone()),
            cpu_seconds: cpu,
            cpu_us_per_delivery: (delivered > 0).then(|| cpu * 1e6 / delivered as f64),
            rss_before: self.before,
            rss_peak: peak,
        }
    }
}

fn resident(processes: &[Process]) -> u64 {
    processes.iter().filter_map(Process::resident).sum()
}

/// What both sides use, from one moment to another.
pub struct Watch {
    begun: Instant,
    /// What each process of the server had used.
    server: Vec<f64>,
    /// What each has used when it was last seen: one may end under the load.
    used: Vec<f64>,
    own: f64,
    threads: Vec<f64>,
    /// The most memory of the server so far.
    pub peak: u64,
}

impl Watch {
    /// From here on.
    pub async fn start(server: Option<&Watched>, shards: &[Shard]) -> Self {
        let server_used: Vec<f64> = server.map_or_else(Vec::new, |server| {
            server
                .cpu_seconds()
                .map(Option::unwrap_or_default)
                .collect()
        });
        let mut watch = Self {
            begun: Instant::now(),
            used: server_used.clone(),
            server: server_used,
            own: own_cpu_seconds(),
            threads: threads(shards).await,
            peak: 0,
        };
        watch.look(server);
        watch
    }

    /// Looks at what comes and goes.
    pub fn look(&mut self, server: Option<&Watched>) {
        if let Some(server) = server {
            self.peak = self.peak.max(resident(&server.processes));
            for (used, now) in self.used.iter_mut().zip(server.cpu_seconds()) {
                *used = now.unwrap_or(*used);
            }
        }
    }

    /// CPU time of the server, and what this program has used.
    pub async fn end(
        &mut self,
        server: Option<&Watched>,
        shards: &[Shard],
    ) -> (f64, report::Bench) {
        self.look(server);
        let wall = self.begun.elapsed().as_secs_f64().max(1e-9);
        let now = threads(shards).await;
        let busy = now
            .iter()
            .zip(&self.threads)
            .map(|(now, then)| (now - then) / wall);
        let used = self.used.iter().zip(&self.server);
        (
            used.map(|(now, then)| (now - then).max(0.0)).sum(),
            report::Bench {
                cpu_seconds: own_cpu_seconds() - self.own,
                busiest: busy.fold(0.0, f64::max),
            },
        )
    }
}

/// What each thread of readers has used, in seconds.
async fn threads(shards: &[Shard]) -> Vec<f64> {
    let mut seconds = Vec::with_capacity(shards.len());
    for shard in shards {
        seconds.push(shard.cpu_seconds().await);
    }
    seconds
}

/// What this process has used, in seconds.
fn own_cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
