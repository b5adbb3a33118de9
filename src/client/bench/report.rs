//! What a bench has found: as one JSON object, and as a table.

mod shown;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::shard::Reasons;
pub use shown::{amount, duration};

/// All of it. The names of the JSON object are documented in docs/bench.md and stay.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The version of this program.
    pub version: &'static str,
    /// The stream, without what may be a secret.
    pub url: String,
    /// What it was read over: ws, sse, ndjson or hop.
    pub transport: &'static str,
    /// How many bytes each published event had; none if nothing was published.
    pub size: Option<usize>,
    /// It was ended by a signal, or by a failure.
    pub interrupted: bool,
    /// Why it could not go on, if it could not.
    pub error: Option<String>,
    /// Connections that have been made, and what became of them, in the whole run.
    pub connections: Connections,
    /// What was measured, step by step: one if nothing was to grow.
    pub steps: Vec<Step>,
}

/// Connections of the whole run.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Connections {
    /// So many were wanted.
    pub wanted: usize,
    /// So many were made.
    pub connected: usize,
    /// So many were not let in, or nobody answered.
    pub refused: u64,
    /// Why, and how often.
    pub refused_reasons: Vec<Reason>,
    /// So many of those that were made ended before they were to.
    pub closed: u64,
    /// Why, and how often.
    pub closed_reasons: Vec<Reason>,
}

/// Why something went wrong.
#[derive(Debug, Clone, Serialize)]
pub struct Reason {
    /// In words.
    pub reason: String,
    /// How often.
    pub count: u64,
}

impl Reason {
    /// The most frequent first.
    pub fn all(reasons: &Reasons) -> Vec<Self> {
        let mut all: Vec<_> = reasons
            .0
            .iter()
            .map(|(reason, &count)| Self {
                reason: reason.clone(),
                count,
            })
            .collect();
        all.sort_by_key(|reason| std::cmp::Reverse(reason.count));
        all
    }
}

/// What was measured under one load.
#[derive(Debug, Clone, Serialize)]
pub struct Step {
    /// Connections that lasted through it.
    pub connections: usize,
    /// Events a second that were to be published; none for as many as possible, or if nothing was.
    pub rate: Option<f64>,
    /// How long it was measured, in seconds: from the first event to when the last one had come.
    pub seconds: f64,
    /// Events that were published; none if nothing was.
    pub published: Option<u64>,
    /// Events a second that were published, while that lasted.
    pub published_per_second: Option<f64>,
    /// Events that came, all connections together.
    pub delivered: u64,
    /// Events that did not come; none if that cannot be known.
    pub lost: Option<u64>,
    /// Events that came again; none if that cannot be known.
    pub repeated: Option<u64>,
    /// Notices of the server that something is missing.
    pub gaps: u64,
    /// Events of others between those that were published.
    pub others: u64,
    /// From sending to arrival; none if events say nothing about that.
    pub latency: Option<Latency>,
    /// Events a second, all connections together.
    pub events_per_second: f64,
    /// Bytes a second, with all that the transport adds (but not TLS).
    pub bytes_per_second: f64,
    /// The server, if it runs on this machine and may be looked at.
    pub server: Option<Server>,
    /// This program.
    pub bench: Bench,
}

/// Latencies, in microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Latency {
    /// What they are measured with: `marker`, this machine's clock alone; or `time`, from the time that the origin has given an event, by another clock
    /// perhaps.
    pub clock: Clock,
    /// The median.
    pub p50: f64,
    /// 90 % are not above it.
    pub p90: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.9 %.
    pub p99_9: f64,
    /// The largest.
    pub max: f64,
    /// On average.
    pub mean: f64,
}

/// What latencies are measured with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Clock {
    /// A time in the payload, which this program has put there.
    Marker,
    /// The time that an event has from its origin.
    Time,
}

impl Latency {
    /// Of these, in nanoseconds; none if there are none.
    pub fn of(histogram: &Histogram<u64>, clock: Clock) -> Option<Self> {
        if histogram.is_empty() {
            return None;
        }
        let micros = |nanos: u64| nanos as f64 / 1e3;
        // Of a bucket the upper end, but nothing is above the largest.
        let at = |quantile| micros(histogram.value_at_quantile(quantile).min(histogram.max()));
        Some(Self {
            clock,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            max: micros(histogram.max()),
            mean: histogram.mean() / 1e3,
        })
    }
}

impl Latency {
    /// The figures with their names, in rising order.
    pub fn named(&self) -> [(&'static str, f64); 5] {
        [
            ("p50", self.p50),
            ("p90", self.p90),
            ("p99", self.p99),
            ("p99.9", self.p99_9),
            ("max", self.max),
        ]
    }
}

/// The processes that listen at the port of the URL.
#[derive(Debug, Clone, Serialize)]
pub struct Server {
    /// Their numbers.
    pub pids: Vec<u32>,
    /// The name of the program.
    pub name: String,
    /// CPU time used meanwhile, in seconds.
    pub cpu_seconds: f64,
    /// The same for each delivery, in microseconds; none if there was none.
    pub cpu_us_per_delivery: Option<f64>,
    /// Memory that was there before the first connection, in bytes.
    pub rss_before: u64,
    /// The most that was seen, in bytes.
    pub rss_peak: u64,
}

/// This program.
#[derive(Debug, Clone, Serialize)]
pub struct Bench {
    /// CPU time used meanwhile, in seconds.
    pub cpu_seconds: f64,
    /// Which part of the time (0 to 1) the busiest thread of readers had to do. Near 1 it is the bench that is measured.
    pub busiest: f64,
}

/// A bench is not to be believed whose readers were busier.
const TOO_BUSY: f64 = 0.9;
/// Less than this part of the rate that was asked for is said to be less.
const FULL_RATE: f64 = 0.95;

impl Report {
    /// What the figures are not to be taken for, a line each.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = vec![];
        let mut steps = self.steps.iter();
        if steps.any(|step| step.bench.busiest > TOO_BUSY) {
            warnings.push("a thread of this bench was busy all the time, so latencies are its own: raise --threads, or use another machine".to_owned());
        }
        let slow = self.steps.iter().filter(|step| {
            let is = step.published_per_second.zip(step.rate);
            is.is_some_and(|(is, wanted)| is < wanted * FULL_RATE)
        });
        for step in slow {
            let (is, wanted) = (step.published_per_second, step.rate);
            warnings.push(format!(
                "the server accepted {} events/s of {} that were to be published",
                amount(is.unwrap_or_default()),
                amount(wanted.unwrap_or_default())
            ));
        }
        if self
            .steps
            .iter()
            .any(|step| step.delivered > 0 && step.lost.is_none())
        {
            warnings.push("whether something was lost is unknown: events bear no numbers (publish with --rate, or read a wsevent with --transport hop, ndjson or sse)".to_owned());
        }
        let clocks = self.steps.iter().filter_map(|step| step.latency);
        if clocks
            .into_iter()
            .any(|latency| latency.clock == Clock::Time)
        {
            warnings.push("latencies count from the time that events have from their origin: if that is another machine, its clock is in them".to_owned());
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_what_was_recorded() {
        let mut histogram =
            Histogram::new_with_bounds(1_000, 3_600_000_000_000, 3).expect("good bounds");
        assert!(Latency::of(&histogram, Clock::Time).is_none());
        for micros in 1..=10_000_u64 {
            histogram.record(micros * 1_000).expect("within bounds");
        }
        let latency = Latency::of(&histogram, Clock::Marker).expect("there is something");
        let wanted = [5_000.0, 9_000.0, 9_900.0, 9_990.0, 10_000.0];
        for ((name, is), wanted) in latency.named().into_iter().zip(wanted) {
            assert!((is - wanted).abs() <= wanted / 500.0, "{name}: {is}");
        }
    }
}
