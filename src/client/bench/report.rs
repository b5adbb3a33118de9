//! What a bench has found: as one JSON object, and as a table.

use std::fmt::{self, Write as _};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::shard::Reasons;

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

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} over {}", self.url, self.transport)?;
        let Connections {
            wanted,
            connected,
            refused,
            closed,
            ..
        } = self.connections;
        let count = |number: u64| amount(number as f64);
        writeln!(
            f,
            "connected {} of {}, refused {}, closed {}",
            count(connected as u64),
            count(wanted as u64),
            count(refused),
            count(closed)
        )?;
        for (what, reasons) in [
            ("refused", &self.connections.refused_reasons),
            ("closed", &self.connections.closed_reasons),
        ] {
            for Reason { reason, count } in reasons {
                writeln!(f, "  {} × {what}: {reason}", amount(*count as f64))?;
            }
        }
        match &self.steps[..] {
            [] => {}
            [step] => write!(f, "\n{}", upright(&single(step, self.size)))?,
            steps => write!(f, "\n{}", table(steps))?,
        }
        if self.interrupted {
            writeln!(f, "\nended early")?;
        }
        Ok(())
    }
}

/// The rows for one step.
fn single(step: &Step, size: Option<usize>) -> Vec<[String; 2]> {
    let row = |name: &str, value: String| [name.to_owned(), value];
    let mut rows = vec![];
    if let (Some(published), Some(rate)) = (step.published, step.published_per_second) {
        let size = bytes(size.unwrap_or_default() as f64);
        rows.push(row(
            "published",
            format!(
                "{} events of {size}, {}/s",
                amount(published as f64),
                amount(rate)
            ),
        ));
    }
    rows.push(row(
        "delivered",
        format!(
            "{} events in {:.1} s",
            amount(step.delivered as f64),
            step.seconds
        ),
    ));
    rows.push(row("lost", known(step.lost)));
    rows.push(row("repeated", known(step.repeated)));
    for (name, number) in [
        ("gap notices", step.gaps),
        ("events of others", step.others),
    ] {
        if number > 0 {
            rows.push(row(name, amount(number as f64)));
        }
    }
    match step.latency {
        None => rows.push(row("latency", "unknown".to_owned())),
        Some(latency) => {
            for (name, micros) in latency.named() {
                rows.push(row(&format!("latency {name}"), duration(micros)));
            }
        }
    }
    rows.push(row(
        "throughput",
        format!(
            "{} events/s, {}/s",
            amount(step.events_per_second),
            bytes(step.bytes_per_second)
        ),
    ));
    if let Some(server) = &step.server {
        let pids: Vec<_> = server.pids.iter().map(u32::to_string).collect();
        rows.push(row(
            "server",
            format!("{} ({})", server.name, pids.join(", ")),
        ));
        let each = server.cpu_us_per_delivery;
        let each = each.map_or(String::new(), |each| format!(", {each:.2} µs a delivery"));
        rows.push(row(
            "  CPU",
            format!(
                "{:.2} s, {:.0} % of one{each}",
                server.cpu_seconds,
                server.cpu_seconds / step.seconds.max(1e-9) * 100.0
            ),
        ));
        let (before, peak) = (
            bytes(server.rss_before as f64),
            bytes(server.rss_peak as f64),
        );
        rows.push(row("  memory", format!("{before} before, {peak} at most")));
    }
    let Bench {
        cpu_seconds,
        busiest,
    } = step.bench;
    rows.push(row(
        "this bench",
        format!(
            "{cpu_seconds:.2} s of CPU, its busiest thread {:.0} %",
            busiest * 100.0
        ),
    ));
    rows
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

fn upright(rows: &[[String; 2]]) -> String {
    let width = rows.iter().map(|[name, _]| name.chars().count()).max();
    let width = width.unwrap_or_default();
    rows.iter().fold(String::new(), |mut text, [name, value]| {
        let _ = writeln!(text, "{name:width$}  {value}");
        text
    })
}

/// A row for each step, as text and as Markdown.
fn table(steps: &[Step]) -> String {
    let mut rows = vec![
        [
            "connections",
            "published/s",
            "delivered/s",
            "lost",
            "repeated",
            "p50",
            "p90",
            "p99",
            "p99.9",
            "max",
            "CPU µs/delivery",
            "memory",
        ]
        .map(str::to_owned),
    ];
    for step in steps {
        let latency = step
            .latency
            .map(|latency| latency.named().map(|(_, micros)| duration(micros)));
        let [p50, p90, p99, p99_9, max] =
            latency.unwrap_or_else(|| [(); 5].map(|()| "unknown".to_owned()));
        let server = step.server.as_ref();
        let cpu = server.and_then(|server| server.cpu_us_per_delivery);
        rows.push([
            amount(step.connections as f64),
            step.published_per_second.map_or("-".to_owned(), amount),
            amount(step.events_per_second),
            known(step.lost),
            known(step.repeated),
            p50,
            p90,
            p99,
            p99_9,
            max,
            cpu.map_or("-".to_owned(), |cpu| format!("{cpu:.2}")),
            server.map_or("-".to_owned(), |server| bytes(server.rss_peak as f64)),
        ]);
    }
    let widths: Vec<_> = (0..rows[0].len())
        .map(|column| {
            rows.iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        let cells: Vec<_> = row
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:>width$}"))
            .collect();
        let _ = writeln!(text, "| {} |", cells.join(" | "));
        if index == 0 {
            let lines: Vec<_> = widths
                .iter()
                .map(|&width| format!("{}:", "-".repeat(width - 1)))
                .collect();
            let _ = writeln!(text, "| {} |", lines.join(" | "));
        }
    }
    text
}

fn known(number: Option<u64>) -> String {
    number.map_or("unknown".to_owned(), |number| amount(number as f64))
}

/// A number with its thousands apart; of small ones a tenth.
pub fn amount(number: f64) -> String {
    if number < 100.0 && number.fract() != 0.0 {
        return format!("{number:.1}");
    }
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes, in a unit that suits.
fn bytes(number: f64) -> String {
    let units = [("GB", 1e9), ("MB", 1e6), ("KB", 1e3)];
    let unit = units.iter().find(|(_, size)| number >= *size);
    unit.map_or_else(
        || format!("{number:.0} B"),
        |(unit, size)| format!("{:.1} {unit}", number / size),
    )
}

/// Microseconds, in a unit that suits.
pub fn duration(micros: f64) -> String {
    match micros {
        ..1e3 => format!("{micros:.0} µs"),
        ..1e4 => format!("{:.2} ms", micros / 1e3),
        ..1e6 => format!("{:.1} ms", micros / 1e3),
        _ => format!("{:.2} s", micros / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_easy_to_read() {
        let amounts = [0.0, 7.0, 7.25, 999.0, 1_000.0, 1_234_567.8].map(amount);
        assert_eq!(amounts, ["0", "7", "7.2", "999", "1,000", "1,234,568"]);
        let durations = [0.0, 999.0, 1_234.0, 56_789.0, 1_500_000.0].map(duration);
        assert_eq!(
            durations,
            ["0 µs", "999 µs", "1.23 ms", "56.8 ms", "1.50 s"]
        );
        assert_eq!(
            [12.0, 1_500.0, 2.5e6].map(bytes),
            ["12 B", "1.5 KB", "2.5 MB"]
        );
    }

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
