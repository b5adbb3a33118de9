//! Cases A and B: as many events as go through.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use futures_util::future::try_join_all;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::Bench;
use crate::client::Publisher;
use crate::common::table::{Bar, Table, median};
use crate::hop::{Hop, Subscriber};
use crate::place::{Kind, Place};

/// So many events a second have to go through.
const LEAST: f64 = 50_000.0;
/// The size of an event, in bytes.
const SIZE: usize = 128;
/// So many are published at once.
const BATCH: usize = 1_000;
/// So many are on their way at most: more than any part of the way holds at once, and less than what a bus gives up a reader for.
const WINDOW: usize = 20 * BATCH;
/// So many clients publish at once.
const CLIENTS: usize = 8;
/// If nothing comes for so long, nothing will.
const SILENCE: Duration = Duration::from_secs(10);

/// Which way events go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the bus.
    In,
    /// To the bus.
    Out,
}

impl Way {
    /// Both.
    pub const ALL: [Self; 2] = [Self::In, Self::Out];

    /// The letter of the case.
    pub fn case(self) -> char {
        match self {
            Self::In => 'A',
            Self::Out => 'B',
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::In => "plain publisher → bus → hop → subscriber",
            Self::Out => "POST → hop → bus → confirmed",
        }
    }
}

/// What one hop did.
struct Sample {
    per_second: f64,
    cpu_us: f64,
    wrong: u64,
}

/// Lets the buses take turns, and adds them up to a table; says whether everything came.
pub async fn measure(way: Way, bench: &Bench) -> Result<(Table, bool)> {
    let mut rounds = Vec::new();
    for _ in 0..bench.rounds() {
        let mut round = Vec::new();
        for kind in Kind::ALL {
            let sample = match way {
                Way::In => incoming(kind, bench).await,
                Way::Out => outgoing(kind, bench).await,
            };
            let sample = sample.with_context(|| format!("{} {}", way.case(), kind.title()))?;
            bench.note(|| {
                let Sample {
                    per_second, cpu_us, ..
                } = sample;
                let (case, title) = (way.case(), kind.title());
                format!("{case} {title:14} {per_second:9.0}/s, {cpu_us:6.3} µs/event")
            });
            round.push(sample);
        }
        rounds.push(round);
    }
    let mut table = Table::new(&[
        "case",
        "bus",
        "events/s",
        "hop CPU µs/event",
        "wrong",
        "bar",
    ]);
    let mut whole = true;
    for (at, kind) in Kind::ALL.into_iter().enumerate() {
        let samples = || rounds.iter().map(|round| &round[at]);
        let mid = |field: fn(&Sample) -> f64| median(samples().map(field).collect());
        let per_second = mid(|sample| sample.per_second);
        let wrong: u64 = samples().map(|sample| sample.wrong).sum();
        whole &= wrong == 0;
        let bars = [
            Bar::new(format!("≥ {LEAST} events/s"), per_second >= LEAST),
            Bar::none(wrong),
        ];
        table.push(vec![
            format!("{}: {}", way.case(), way.title()),
            kind.title().to_owned(),
            format!("{per_second:.0}"),
            format!("{:.3}", mid(|sample| sample.cpu_us)),
            wrong.to_string(),
            Bar::verdict(&bars),
        ]);
    }
    Ok((table, whole))
}

/// How many events are sent first, and how many are then counted.
fn counts(bench: &Bench) -> (usize, usize) {
    match bench.quick {
        true => (10 * BATCH, 100 * BATCH),
        false => (50 * BATCH, 500 * BATCH),
    }
}

/// An event: its number, and what fills it up.
fn payload(number: usize) -> String {
    format!("{number:020} {:.<1$}", "", SIZE - 21)
}

fn number(payload: &[u8]) -> Option<usize> {
    std::str::from_utf8(payload.get(..20)?).ok()?.parse().ok()
}

/// From a plain publisher to a subscriber of the hop.
async fn incoming(kind: Kind, bench: &Bench) -> Result<Sample> {
    let place = Place::new(kind, &bench.servers).await?;
    let hop = Hop::start(&["--consume", &place.foreign_url()], &bench.cpus).await?;
    let mut subscriber = hop.subscribe().await?;
    let mut publisher = Publisher::connect(&place).await?;
    let (first, count) = counts(bench);
    let mut wrong = transfer(&mut publisher, &mut subscriber, 0..first).await?;
    let (cpu, start) = (hop.cpu_ns()?, Instant::now());
    wrong += transfer(&mut publisher, &mut subscriber, first..first + count).await?;
    let sample = Sample {
        per_second: count as f64 / start.elapsed().as_secs_f64(),
        cpu_us: (hop.cpu_ns()? - cpu) as f64 / 1e3 / count as f64,
        wrong,
    };
    drop(hop);
    place.clear().await?;
    Ok(sample)
}

/// Publishes events with these numbers, as fast as they arrive, and counts those that do not come, or not in their place.
async fn transfer(
    publisher: &mut Publisher,
    subscriber: &mut Subscriber,
    numbers: std::ops::Range<usize>,
) -> Result<u64> {
    let room = Semaphore::new(WINDOW);
    let publishing = async {
        for from in numbers.clone().step_by(BATCH) {
            room.acquire_many(BATCH as u32).await?.forget();
            let batch = (from..from + BATCH).map(|number| Bytes::from(payload(number)));
            publisher.send(batch.collect()).await?;
        }
        anyhow::Ok(())
    };
    let reading = async {
        let (mut next, mut wrong) = (numbers.start, 0);
        while next < numbers.end {
            let Ok(event) = timeout(SILENCE, subscriber.next()).await else {
                wrong += numbers.end - next;
                break;
            };
            match number(&event?) {
                Some(number) if number >= next => {
                    wrong += number - next;
                    // What was lost makes room as well.
                    room.add_permits(number + 1 - next);
                    next = number + 1;
                }
                _ => wrong += 1,
            }
        }
        anyhow::Ok(wrong as u64)
    };
    let mut reading = std::pin::pin!(reading);
    tokio::select! {
        wrong = &mut reading => return wrong,
        result = publishing => result?,
    }
    reading.await
}

/// From clients that publish at the hop to the bus.
async fn outgoing(kind: Kind, bench: &Bench) -> Result<Sample> {
    let place = Place::new(kind, &bench.servers).await?;
    let arguments = ["--accept-publish", "--bus", &place.url];
    let hop = Hop::start(&arguments, &bench.cpus).await?;
    let (first, count) = counts(bench);
    publish(&hop, 0..first).await?;
    let (cpu, start) = (hop.cpu_ns()?, Instant::now());
    publish(&hop, first..first + count).await?;
    let sample = Sample {
        per_second: count as f64 / start.elapsed().as_secs_f64(),
        cpu_us: (hop.cpu_ns()? - cpu) as f64 / 1e3 / count as f64,
        wrong: 0,
    };
    let buses = hop.buses().await?;
    let out = buses.iter().find(|bus| bus["way"] == "out");
    let figure = |name: &str| out.and_then(|bus| bus[name].as_u64()).unwrap_or(0);
    drop(hop);
    place.clear().await?;
    let missing = ((first + count) as u64).abs_diff(figure("events"));
    Ok(Sample {
        wrong: missing + figure("refused") + figure("lost"),
        ..sample
    })
}

/// Publishes events with these numbers, by several clients that share them.
async fn publish(hop: &Hop, numbers: std::ops::Range<usize>) -> Result<()> {
    let batches: Vec<_> = numbers.step_by(BATCH).collect();
    let share = batches.len().div_ceil(CLIENTS);
    let clients = batches.chunks(share).map(|share| async move {
        let mut client = hop.client().await?;
        for from in share {
            let lines =
                (*from..from + BATCH).map(|at| format!("{{\"data\":\"{}\"}}\n", payload(at)));
            client.publish(lines.collect::<String>().into()).await?;
        }
        anyhow::Ok(())
    });
    try_join_all(clients).await.map(drop)
}
