//! Case B: ten thousand streams of one subscriber each, beside one stream of ten thousand.

use std::time::Duration;

use anyhow::Result;

use crate::Bench;
use crate::common::table::{Bar, Table, median};
use crate::hop::Hop;
use crate::load::{Load, Transport};

/// Subscribers, each with an event a second.
const SUBSCRIBERS: usize = 10_000;

/// A process has 20,000 open files: for a stream that is consumed it needs two.
const CONSUMING: usize = 5_000;

/// What many streams may cost, as a multiple of one.
const MOST: f64 = 1.5;

const PRODUCE: &[&str] = &["--produce", "--produce-rate", "1"];

/// Who serves whom.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// One stream.
    One(Transport),
    /// A stream for each.
    Many(Transport),
    /// A stream for each that is consumed from another hop.
    Consuming,
}

impl Kind {
    const ALL: [Self; 5] = [
        Self::One(Transport::WebSocket),
        Self::Many(Transport::WebSocket),
        Self::One(Transport::Sse),
        Self::Many(Transport::Sse),
        Self::Consuming,
    ];

    /// What it is compared with.
    fn base(self) -> usize {
        match self {
            Self::One(Transport::WebSocket) | Self::Many(Transport::WebSocket) => 0,
            Self::One(Transport::Sse) | Self::Many(Transport::Sse) => 2,
            Self::Consuming => 0,
        }
    }

    fn subscribers(self) -> usize {
        match self {
            Self::Consuming => CONSUMING,
            Self::One(_) | Self::Many(_) => SUBSCRIBERS,
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::One(_) => "one stream of 10,000 subscribers",
            Self::Many(_) => "10,000 streams of one subscriber",
            Self::Consuming => "5,000 streams, each consumed from another hop",
        }
    }

    fn transport(self) -> Transport {
        match self {
            Self::One(transport) | Self::Many(transport) => transport,
            Self::Consuming => Transport::WebSocket,
        }
    }
}

/// What one server did for its subscribers.
struct Sample {
    cpu_us: f64,
    per_second: f64,
    rss: u64,
    wrong: u64,
    closed: u64,
}

/// Lets the servers take turns, and adds them up to a table; says whether everything was delivered.
pub fn measure(bench: &Bench) -> Result<(Table, bool)> {
    let mut rounds = Vec::new();
    for _ in 0..bench.rounds(5) {
        let mut round = Vec::new();
        for kind in Kind::ALL {
            let sample = sample(kind, bench)?;
            bench.note(|| {
                let Sample {
                    cpu_us, per_second, ..
                } = sample;
                let (title, transport) = (kind.title(), kind.transport());
                format!("B {title:46} {transport:?} {cpu_us:6.3} µs/delivery, {per_second:.0}/s")
            });
            round.push(sample);
        }
        rounds.push(round);
    }
    let mut table = Table::new(&[
        "case",
        "transport",
        "CPU µs/delivery",
        "× one stream",
        "deliveries/s",
        "RSS MiB",
        "lost",
        "disconnected",
        "bar",
    ]);
    let mut whole = true;
    for (at, kind) in Kind::ALL.into_iter().enumerate() {
        let samples = || rounds.iter().map(|round| &round[at]);
        let mid = |field: fn(&Sample) -> f64| median(samples().map(field).collect());
        let ratios = rounds
            .iter()
            .map(|round| round[at].cpu_us / round[kind.base()].cpu_us);
        let ratio = median(ratios.collect());
        let lost: u64 = samples().map(|sample| sample.wrong).sum();
        let closed: u64 = samples().map(|sample| sample.closed).sum();
        let mut bars = Vec::new();
        if let Kind::Many(_) = kind {
            bars.push(Bar::at_most(ratio, MOST, "× one stream"));
        }
        bars.push(Bar::none(lost + closed));
        whole &= lost + closed == 0;
        table.push(vec![
            format!("B: {}", kind.title()),
            format!("{:?}", kind.transport()).to_lowercase(),
            format!("{:.3}", mid(|sample| sample.cpu_us)),
            format!("{ratio:.2}"),
            format!("{:.0}", mid(|sample| sample.per_second)),
            format!(
                "{:.1}",
                mid(|sample| sample.rss as f64 / f64::from(1 << 20))
            ),
            lost.to_string(),
            closed.to_string(),
            Bar::verdict(&bars),
        ]);
    }
    Ok((table, whole))
}

/// Connects all subscribers to a fresh server, and counts its CPU time for some seconds.
fn sample(kind: Kind, bench: &Bench) -> Result<Sample> {
    let origin;
    let hop = match kind {
        Kind::One(_) => Hop::with_one_stream(PRODUCE, &bench.cpus)?,
        Kind::Many(_) => Hop::with_many_streams(PRODUCE, &bench.cpus)?,
        Kind::Consuming => {
            origin = Hop::with_many_streams(PRODUCE, &bench.cpus)?;
            Hop::with_many_streams(&["--consume", &origin.url("ws")], &bench.cpus)?
        }
    };
    let mut load = Load::new(kind.transport())?;
    let path = |number| hop.path(number);
    load.connect(hop.address, path, kind.subscribers(), true)?;
    // The generators begin with their streams: the first event of the last one is still to come.
    // So is the first growth of its history.
    load.read_for(Duration::from_secs(4))?;
    let seconds = if bench.quick { 4 } else { 8 };
    let cpu = hop.process.cpu_ns()?;
    let tally = load.read_for(Duration::from_secs(seconds))?;
    let cpu = hop.process.cpu_ns()? - cpu;
    // Whoever was let go before is missing here, too.
    let due = kind.subscribers() as u64 * (seconds - 1);
    Ok(Sample {
        cpu_us: cpu as f64 / 1e3 / tally.received.max(1) as f64,
        per_second: tally.received as f64 / seconds as f64,
        rss: hop.rss()?,
        wrong: tally.wrong + due.saturating_sub(tally.received),
        closed: tally.closed,
    })
}
