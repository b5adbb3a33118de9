//! Case C: how much later an event comes through a hop than to a plain client of the bus.

use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::Bench;
use crate::client::{Publisher, Subscriber};
use crate::common::histogram::Histogram;
use crate::common::now_ns;
use crate::common::table::{Bar, Table, median};
use crate::hop::{self, Hop};
use crate::place::{Kind, Place};

/// What a hop may make of it, as a multiple.
const MOST: f64 = 2.0;
/// One event at a time, so often.
const EVERY: Duration = Duration::from_millis(2);
/// Those that come first find caches cold, and do not count.
const FIRST: usize = 50;
/// If one has not come after so long, it will not.
const SILENCE: Duration = Duration::from_secs(10);

/// Medians, in microseconds.
struct Sample {
    plain: f64,
    hop: f64,
}

/// Lets the buses take turns, and adds them up to a table.
pub async fn measure(bench: &Bench) -> Result<Table> {
    let mut rounds = Vec::new();
    for _ in 0..bench.rounds() {
        let mut round = Vec::new();
        for kind in Kind::ALL {
            let sample = sample(kind, bench).await;
            let sample = sample.with_context(|| format!("C {}", kind.title()))?;
            bench.note(|| {
                let Sample { plain, hop } = sample;
                let title = kind.title();
                format!("C {title:14} {plain:7.0} µs plain, {hop:7.0} µs by the hop")
            });
            round.push(sample);
        }
        rounds.push(round);
    }
    let mut table = Table::new(&[
        "case",
        "bus",
        "plain client p50 µs",
        "by the hop p50 µs",
        "× plain",
        "bar",
    ]);
    for (at, kind) in Kind::ALL.into_iter().enumerate() {
        let samples = || rounds.iter().map(|round| &round[at]);
        let mid = |field: fn(&Sample) -> f64| median(samples().map(field).collect());
        let ratio = mid(|sample| sample.hop / sample.plain);
        table.push(vec![
            "C: one event at a time".to_owned(),
            kind.title().to_owned(),
            format!("{:.0}", mid(|sample| sample.plain)),
            format!("{:.0}", mid(|sample| sample.hop)),
            format!("{ratio:.2}"),
            Bar::verdict(&[Bar::at_most(ratio, MOST, "× plain")]),
        ]);
    }
    Ok(table)
}

async fn sample(kind: Kind, bench: &Bench) -> Result<Sample> {
    let count = if bench.quick { 250 } else { 2_000 };
    let place = Place::new(kind, &bench.servers).await?;
    let reader = Reader::Plain(Box::new(Subscriber::connect(&place).await?), Vec::new());
    let plain = p50(&place, reader, count).await.context("plain")?;
    place.clear().await?;
    let place = Place::new(kind, &bench.servers).await?;
    let process = Hop::start(&["--consume", &place.foreign_url()], &bench.cpus).await?;
    let reader = Reader::Hop(Box::new(process.subscribe().await?));
    let hop = p50(&place, reader, count).await.context("by the hop")?;
    drop(process);
    place.clear().await?;
    Ok(Sample { plain, hop })
}

/// Who gets the events.
enum Reader {
    /// A client of the bus, and what it has got and not given out.
    Plain(Box<Subscriber>, Vec<Bytes>),
    /// A subscriber of the hop.
    Hop(Box<hop::Subscriber>),
}

impl Reader {
    async fn next(&mut self) -> Result<Bytes> {
        match self {
            Self::Plain(subscriber, got) => loop {
                if !got.is_empty() {
                    return Ok(got.remove(0));
                }
                subscriber.next(got).await?;
            },
            Self::Hop(subscriber) => subscriber.next().await,
        }
    }
}

/// The median of how long an event takes from its publisher to `reader`, in microseconds.
async fn p50(place: &Place, mut reader: Reader, count: usize) -> Result<f64> {
    let mut publisher = Publisher::connect(place).await?;
    let publishing = async {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for _ in 0..FIRST + count {
            ticks.tick().await;
            let payload = format!("{:020} {:.<107}", now_ns(), "");
            publisher.send(vec![payload.into()]).await?;
        }
        anyhow::Ok(())
    };
    let reading = async {
        let mut histogram = Histogram::default();
        for number in 0..FIRST + count {
            let event = timeout(SILENCE, reader.next());
            let event = event.await.context("an event is lost")??;
            let now = now_ns();
            let sent = std::str::from_utf8(&event[..20])?.parse::<u64>()?;
            if number >= FIRST {
                histogram.add(now.saturating_sub(sent));
            }
        }
        anyhow::Ok(histogram.quantile(0.5) as f64 / 1e3)
    };
    let (_, p50) = tokio::try_join!(publishing, reading)?;
    Ok(p50)
}
