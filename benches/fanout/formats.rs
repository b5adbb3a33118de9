//! Case H: the same events over each transport of `wsevent`.

use anyhow::{Context, Result};

use crate::cases::{Bench, Seat};
use crate::common::table::thousands;
use crate::common::table::{Bar, Table, median};
use crate::feed::{Form, Play};
use crate::idle::Idle;
use crate::play::{Sample, run};
use crate::report::middle;
use crate::server::{Kind, Server};
use crate::transport::Transport;
use crate::upstream::Upstream;

/// One comparison of the transports.
pub struct Formats {
    subscribers: usize,
    rate: u64,
    seconds: u64,
    rounds: usize,
    /// Most CPU per delivery of SSE, as a multiple of WebSocket.
    most_of_websocket: Option<f64>,
}

/// The transports beside each other: often to some, and now and then to many.
pub const FORMATS: [Formats; 2] = [
    Formats {
        subscribers: 1_000,
        rate: 50,
        seconds: 1,
        rounds: 9,
        most_of_websocket: Some(1.6),
    },
    Formats {
        subscribers: 10_000,
        rate: 10,
        seconds: 3,
        rounds: 3,
        most_of_websocket: None,
    },
];

impl Formats {
    /// Lets the transports take turns, each with a server of its own, and adds their rows; says whether everything was
    /// delivered.
    pub fn run(&self, table: &mut Table, bench: &Bench) -> Result<bool> {
        let mut seats: [Option<Seat>; Transport::ALL.len()] = Default::default();
        let mut rounds = Vec::new();
        for _ in 0..bench.rounds(self.rounds) {
            let mut round = Vec::new();
            for (transport, kept) in Transport::ALL.into_iter().zip(&mut seats) {
                let mut seat = match kept.take() {
                    Some(seat) => seat,
                    None => self
                        .seat(transport, bench)
                        .with_context(|| transport.name())?,
                };
                let play = Play::Paced {
                    events: self.rate * self.seconds,
                    rate: self.rate,
                };
                let Server {
                    source, process, ..
                } = &mut seat.server;
                let sample = run(play, source, Some(process), &mut seat.load)?;
                if bench.verbose {
                    eprintln!("H {:9} {sample}", transport.name());
                }
                round.push(sample);
                // There are not files enough to connect all of the larger case at once.
                *kept = (self.subscribers <= 5_000).then_some(seat);
            }
            rounds.push(round);
        }
        Ok(self.add(table, &rounds))
    }

    fn seat(&self, transport: Transport, bench: &Bench) -> Result<Seat> {
        let upstream = Upstream::start(1, Form::Text, &bench.cpus)?;
        let server = Server::start_hop(upstream, &bench.cpus)?;
        Seat::fill(server, transport, self.subscribers)
    }

    /// The columns of this case.
    pub fn table() -> Table {
        Table::new(&[
            "case",
            "transport",
            "CPU µs/delivery",
            "× websocket",
            "deliveries/s",
            "p50 ms",
            "p99 ms",
            "RSS MiB",
            "lost",
            "disconnected",
            "bar",
        ])
    }

    /// `rounds[round][transport]`, transports as in [`Transport::ALL`].
    fn add(&self, table: &mut Table, rounds: &[Vec<Sample>]) -> bool {
        let mut all_whole = true;
        for transport in Transport::ALL {
            let samples = || rounds.iter().map(|round| &round[transport as usize]);
            let mid = |field: fn(&Sample) -> f64| middle(samples(), field);
            let ratios = rounds
                .iter()
                .map(|round| round[transport as usize].cpu_us / round[0].cpu_us);
            let ratio = median(ratios.collect());
            let mut bars = Vec::new();
            if transport == Transport::Sse {
                bars.extend(
                    self.most_of_websocket
                        .map(|most| Bar::at_most(ratio, most, "× websocket")),
                );
            }
            let whole = Bar::whole(samples());
            all_whole &= whole.reached();
            bars.push(whole);
            table.push(vec![
                format!(
                    "H: {} × {}/s",
                    thousands(self.subscribers as u64),
                    thousands(self.rate)
                ),
                transport.name().to_owned(),
                format!("{:.3}", mid(|sample| sample.cpu_us)),
                format!("{ratio:.2}"),
                thousands(mid(|sample| sample.per_second) as u64),
                format!("{:.2}", mid(|sample| sample.p50_us) / 1e3),
                format!("{:.2}", mid(|sample| sample.p99_us) / 1e3),
                format!(
                    "{:.1}",
                    mid(|sample| sample.rss as f64) / f64::from(1 << 20)
                ),
                thousands(samples().map(|sample| sample.lost).sum()),
                thousands(samples().map(|sample| sample.disconnected).sum()),
                Bar::verdict(&bars),
            ]);
        }
        all_whole
    }
}

/// What a subscriber costs that only connects, over the transports that case F does not have.
pub fn idle(table: &mut Table, bench: &Bench) -> Result<()> {
    for transport in [Transport::Sse, Transport::Ndjson] {
        let rounds = (0..bench.rounds(3))
            .map(|_| Idle::run(Kind::Wsevent, transport, bench))
            .collect::<Result<Vec<_>>>()?;
        let mid = |field: fn(&Idle) -> f64| median(rounds.iter().map(field).collect());
        table.push(vec![
            format!("H: {} idle", thousands(Idle::SUBSCRIBERS as u64)),
            format!("wsevent, {}", transport.name()),
            format!("{:.2}", mid(|idle| idle.rss / 1024.0)),
            format!("{:.1}", mid(|idle| idle.handshake_us)),
            String::new(),
        ]);
    }
    Ok(())
}
