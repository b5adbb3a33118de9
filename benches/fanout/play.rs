//! One play of events to the subscribers of one server, and what it showed.

use std::fmt;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::common::process::Process;
use crate::feed::Play;
use crate::load::Load;
use crate::server::Source;

/// A play is over when this long nothing has arrived although all was sent.
const QUIET: Duration = Duration::from_secs(2);

/// Plays a few events until all subscribers have the last one: from there on nothing may be missing.
pub fn warm_up(source: &mut Source, load: &mut Load) -> Result<()> {
    let mut behind = usize::MAX;
    for _ in 0..5 {
        behind = run(
            Play::Paced {
                events: 10,
                rate: 20,
            },
            source,
            None,
            load,
        )?
        .behind;
        if behind == 0 {
            break;
        }
    }
    ensure!(behind == 0, "{behind} subscribers do not get the events");
    ensure!(
        load.closed() == 0,
        "{} subscribers were disconnected before it began",
        load.closed()
    );
    Ok(())
}

/// What one play of one server showed.
pub struct Sample {
    /// Server CPU per delivery, in µs.
    pub cpu_us: f64,
    /// Deliveries per second, from the first event to the last arrival.
    pub per_second: f64,
    /// Median latency in µs (of the group that connected last).
    pub p50_us: f64,
    /// 99th percentile of latency in µs.
    pub p99_us: f64,
    /// Server memory at the end, in bytes.
    pub rss: u64,
    /// Deliveries that were due and did not come.
    pub lost: u64,
    /// Deliveries that came twice or out of order.
    pub disordered: u64,
    /// Subscribers the server let go.
    pub disconnected: u64,
    /// Subscribers that never got the last event.
    pub behind: usize,
    /// The number of the last event that was sent.
    pub last: u64,
    /// How long sending took, in seconds: as long as the schedule, if the server takes events as they come.
    pub sending: f64,
}

impl fmt::Display for Sample {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            cpu_us,
            per_second,
            p50_us,
            p99_us,
            lost,
            ..
        } = self;
        write!(
            out,
            "{cpu_us:6.3} µs/delivery, {per_second:8.0}/s, p50 {p50_us:.0} µs, p99 {p99_us:.0} µs, lost {lost}"
        )
    }
}

/// Plays once and waits until everything has arrived, or nothing more does.
pub fn run(
    play: Play,
    source: &mut Source,
    process: Option<&Process>,
    load: &mut Load,
) -> Result<Sample> {
    let cpu_ns = || process.map_or(Ok(0), Process::cpu_ns);
    let subscribers = load.open();
    let closed = load.closed();
    load.start();
    let cpu = cpu_ns()?;
    let began = Instant::now();
    source.play(play)?;

    let (mut last, mut received, mut latest) = (None, 0, began);
    let mut sending = 0.0;
    let behind = loop {
        load.turn(Duration::from_millis(20))?;
        if last.is_none() {
            last = source.finished()?;
            sending = began.elapsed().as_secs_f64();
        }
        if load.received() > received {
            (received, latest) = (load.received(), Instant::now());
        }
        let behind = last.map(|last| load.behind(last));
        if behind == Some(0) || latest.elapsed() > QUIET + play.length() {
            break behind.unwrap_or(subscribers);
        }
    };
    let cpu = cpu_ns()?.saturating_sub(cpu);
    let seconds = (latest - began).as_secs_f64();
    let us = |part| {
        load.tallies()
            .last()
            .map_or(0.0, |tally| tally.latency.quantile(part) as f64 / 1e3)
    };
    Ok(Sample {
        cpu_us: cpu as f64 / 1e3 / received.max(1) as f64,
        per_second: received as f64 / seconds,
        p50_us: us(0.5),
        p99_us: us(0.99),
        rss: process.map_or(Ok(0), rss)?,
        lost: (play.events() * subscribers as u64).saturating_sub(received - load.disordered()),
        disordered: load.disordered(),
        disconnected: load.closed() - closed,
        behind,
        last: last.unwrap_or_default(),
        sending,
    })
}

/// Resident memory of a server in bytes.
pub fn rss(process: &Process) -> Result<u64> {
    let mut sum = 0;
    for pid in process.tree() {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .context("VmRSS")?;
        sum += line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024;
    }
    Ok(sum)
}
