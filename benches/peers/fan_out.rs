//! Cases A to D: the same events to so many subscribers.

use std::collections::HashMap;

use anyhow::{Context, Result};

use crate::Bench;
use crate::common::table::{Bar, Table, median, thousands};
use crate::feed::{EVENT_BYTES, Play};
use crate::load::Load;
use crate::peer::Peer;
use crate::play::{Sample, run, warm_up};

/// A case in which events are played to subscribers.
pub struct FanOut {
    /// Its letter on the command line.
    pub key: char,
    subscribers: usize,
    rate: u64,
    seconds: u64,
    rounds: usize,
    /// More than most can carry: what counts is how many deliveries a second of CPU makes.
    is_saturating: bool,
}

/// All of them.
pub const FAN_OUT: [FanOut; 4] = [
    FanOut::new('A', 1_000, 50, 3, 5),
    FanOut::new('B', 1_000, 150, 3, 5),
    FanOut::new('C', 10_000, 10, 3, 3),
    FanOut {
        is_saturating: true,
        ..FanOut::new('D', 1_000, 5_000, 2, 1)
    },
];

/// The columns of these cases.
pub fn table() -> Table {
    Table::new(&[
        "case",
        "server",
        "CPU µs/delivery",
        "× bare",
        "deliveries/s",
        "deliveries per CPU s",
        "p50 ms",
        "p99 ms",
        "RSS MiB",
        "lost",
        "disconnected",
        "bar",
    ])
}

impl FanOut {
    const fn new(key: char, subscribers: usize, rate: u64, seconds: u64, rounds: usize) -> Self {
        Self {
            key,
            subscribers,
            rate,
            seconds,
            rounds,
            is_saturating: false,
        }
    }

    /// Lets the servers take turns for some rounds, so that what drifts drifts for all of them.
    pub fn run(&self, table: &mut Table, bench: &Bench) -> Result<bool> {
        let mut samples: HashMap<&str, Vec<Sample>> = HashMap::new();
        let mut failed: HashMap<&str, String> = HashMap::new();
        for _ in 0..bench.rounds(self.rounds) {
            for peer in &bench.peers {
                if failed.contains_key(peer.name()) {
                    continue;
                }
                let sample = self.play(*peer, bench);
                let sample = sample.with_context(|| format!("{}: {}", self.key, peer.name()));
                match sample {
                    Ok(sample) => {
                        bench.say(|| format!("{} {:11} {sample}", self.key, peer.name()));
                        samples.entry(peer.name()).or_default().push(sample);
                    }
                    Err(error) if peer.is_foreign() => {
                        eprintln!("{error:#}");
                        samples.remove(peer.name());
                        failed.insert(peer.name(), error.root_cause().to_string());
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        let whole = self.add(table, bench, &samples);
        for peer in &bench.peers {
            if let Some(why) = failed.remove(peer.name()) {
                let mut row = vec![self.title(), peer.name().to_owned()];
                row.resize(table.columns() - 1, String::new());
                row.push(format!("could not: {why}"));
                table.push(row);
            }
        }
        Ok(whole)
    }

    fn title(&self) -> String {
        let subscribers = thousands(self.subscribers as u64);
        format!("{}: {subscribers} × {}/s", self.key, thousands(self.rate))
    }

    fn play(&self, peer: Peer, bench: &Bench) -> Result<Sample> {
        let mut running = peer.start(EVENT_BYTES, &bench.cpus)?;
        let server = &mut running.server;
        let mut load = Load::new()?;
        load.connect(
            peer.transport(),
            server.address,
            server.path,
            self.subscribers,
        )?;
        warm_up(&mut server.source, &mut load)?;
        let play = Play::Paced {
            events: self.rate * self.seconds,
            rate: self.rate,
        };
        run(play, &mut server.source, Some(&server.process), &mut load)
    }

    fn add(&self, table: &mut Table, bench: &Bench, samples: &HashMap<&str, Vec<Sample>>) -> bool {
        let middle = |peer: Peer, field: fn(&Sample) -> f64| {
            let of_peer = samples.get(peer.name()).into_iter().flatten();
            median(of_peer.map(field).collect())
        };
        let ratio = |peer: Peer, to: Peer| {
            let of = |peer: Peer| samples.get(peer.name()).into_iter().flatten();
            let each = of(peer).zip(of(to));
            median(each.map(|(one, other)| one.cpu_us / other.cpu_us).collect())
        };
        let mut whole = true;
        for peer in &bench.peers {
            let Some(own) = samples.get(peer.name()) else {
                continue;
            };
            let sum = |field: fn(&Sample) -> u64| own.iter().map(field).sum::<u64>();
            let mut bars = Vec::new();
            if *peer == Peer::Wsevent {
                let delivered = Bar::none(sum(|it| it.lost + it.disordered + it.disconnected));
                whole = delivered.reached();
                bars = self.bars(bench, ratio);
                bars.push(delivered);
            }
            let cpu = middle(*peer, |it| it.cpu_us);
            table.push(vec![
                self.title(),
                peer.name().to_owned(),
                format!("{cpu:.3}"),
                format!("{:.2}", ratio(*peer, Peer::Bare)),
                thousands(middle(*peer, |it| it.per_second) as u64),
                thousands((1e6 / cpu) as u64),
                format!("{:.2}", middle(*peer, |it| it.p50_us) / 1e3),
                format!("{:.2}", middle(*peer, |it| it.p99_us) / 1e3),
                format!(
                    "{:.1}",
                    middle(*peer, |it| it.rss as f64) / f64::from(1 << 20)
                ),
                thousands(sum(|it| it.lost)),
                thousands(sum(|it| it.disconnected)),
                Bar::verdict(&bars),
            ]);
        }
        whole
    }

    fn bars(&self, bench: &Bench, ratio: impl Fn(Peer, Peer) -> f64) -> Vec<Bar> {
        let is_there = |peer: &Peer| bench.peers.contains(peer);
        if self.is_saturating {
            let nats = Some(Peer::Nats).filter(is_there);
            let times = nats.map(|nats| ratio(nats, Peer::Wsevent));
            return times
                .map(|times| Bar::new("≥ 4 × nats-server per CPU s".to_owned(), times >= 4.0))
                .into_iter()
                .collect();
        }
        let mut bars = vec![Bar::at_most(
            ratio(Peer::Wsevent, Peer::Bare),
            1.15,
            "× bare",
        )];
        for peer in [Peer::Nchan, Peer::NodeWs, Peer::Nats]
            .iter()
            .filter(|peer| is_there(peer))
        {
            let is_below = ratio(Peer::Wsevent, *peer) < 1.0;
            bars.push(Bar::new(format!("< {}", peer.name()), is_below));
        }
        bars
    }
}
