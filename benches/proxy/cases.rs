//! The cases: what each does to a proxy, what it reads off, and the bars.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::common::process::Cpus;
use crate::ends::{Ends, Sender};
use crate::server::{Kind, Server};
use crate::wire::{Ask, BULK};

/// What every case needs to know.
pub struct Bench {
    /// Who runs where.
    pub cpus: Cpus,
    /// One round, little work.
    pub quick: bool,
    /// A line after every measurement.
    pub verbose: bool,
    /// Who takes part.
    pub kinds: Vec<Kind>,
}

impl Bench {
    fn amount(&self, full: u64) -> u64 {
        if self.quick { full / 4 } else { full }
    }
}

/// One case.
pub struct Case {
    /// Its letter on the command line.
    pub key: char,
    /// What is done.
    pub title: &'static str,
    /// What is read off.
    pub figures: &'static [Figure],
    /// Rounds in a full run.
    rounds: usize,
    /// Proxies and their connections stay for all rounds.
    kept: bool,
    /// What there is without a proxy is of interest, too.
    direct: bool,
    open: fn(&mut Seat) -> Result<()>,
    run: fn(&mut Seat, &Bench) -> Result<Outcome>,
}

/// One figure of a case.
pub struct Figure {
    /// With its unit.
    pub name: &'static str,
    /// Digits behind the point.
    pub digits: usize,
    /// Only what a proxy adds to the figure without it.
    pub added: bool,
    /// What is asked of `wsevent`.
    pub bar: Option<Most>,
}

/// The most a figure of `wsevent` may be.
pub enum Most {
    /// So many times that of another.
    Of(f64, Kind),
    /// So much.
    Flat(f64),
}

/// What one measurement showed.
pub struct Outcome {
    /// As many as the case has figures.
    pub figures: Vec<f64>,
    /// Messages lost or out of order, clients disconnected.
    pub wrong: u64,
}

const MESSAGE: Figure = Figure {
    name: "CPU µs/message",
    digits: 2,
    added: false,
    bar: Some(Most::Of(1.0, Kind::Nginx)),
};

const MEMORY: Figure = Figure {
    name: "bytes/connection",
    digits: 0,
    added: false,
    bar: Some(Most::Flat(4096.0)),
};

const BASE: Case = Case {
    key: ' ',
    title: "",
    figures: &[],
    rounds: 5,
    kept: true,
    direct: false,
    open: |_| Ok(()),
    run: |_, _| unreachable!("every case has its own"),
};

/// All cases.
pub const CASES: [Case; 9] = [
    Case {
        key: 'A',
        title: "1,000 WebSockets, 20,000 messages/s",
        figures: &[MESSAGE],
        open: |seat| seat.connect(Ask::WebSocket, 1_000),
        run: |seat, bench| seat.messages(bench.amount(20_000), 20_000, 1),
        ..BASE
    },
    Case {
        key: 'A',
        title: "the same in bursts of 1,000",
        figures: &[MESSAGE],
        open: |seat| seat.connect(Ask::WebSocket, 1_000),
        run: |seat, bench| seat.messages(bench.amount(20_000), 20_000, 1_000),
        ..BASE
    },
    Case {
        key: 'B',
        title: "8 WebSockets, 64 KiB messages",
        figures: &[Figure {
            name: "CPU s/GB",
            digits: 3,
            added: false,
            bar: Some(Most::Of(0.85, Kind::Haproxy)),
        }],
        open: |seat| seat.connect(Ask::WebSocket, 8),
        run: Seat::bulk,
        ..BASE
    },
    Case {
        key: 'C',
        title: "WebSockets that come and go",
        figures: &[Figure {
            name: "CPU µs/handshake",
            digits: 1,
            added: false,
            bar: Some(Most::Of(1.1, Kind::Haproxy)),
        }],
        run: Seat::handshakes,
        ..BASE
    },
    Case {
        key: 'D',
        title: "5,000 idle WebSockets",
        figures: &[MEMORY],
        rounds: 3,
        kept: false,
        run: |seat, bench| seat.idle(Ask::WebSocket, bench),
        ..BASE
    },
    Case {
        key: 'D',
        title: "5,000 idle SSE streams",
        figures: &[Figure {
            bar: None,
            ..MEMORY
        }],
        rounds: 3,
        kept: false,
        run: |seat, bench| seat.idle(Ask::Sse, bench),
        ..BASE
    },
    Case {
        key: 'E',
        title: "100 WebSockets, 1,000 pings/s",
        figures: &[
            Figure {
                name: "added p50 µs",
                digits: 1,
                added: true,
                bar: Some(Most::Of(1.1, Kind::Nginx)),
            },
            Figure {
                name: "added p99 µs",
                digits: 1,
                added: true,
                bar: Some(Most::Of(1.1, Kind::Nginx)),
            },
        ],
        direct: true,
        open: |seat| seat.connect(Ask::WebSocket, 100),
        run: Seat::pings,
        ..BASE
    },
    Case {
        key: 'F',
        title: "64 clients, plain requests",
        figures: &[Figure {
            name: "CPU µs/request",
            digits: 1,
            added: false,
            bar: None,
        }],
        open: |seat| seat.connect(Ask::Plain, 64),
        run: Seat::requests,
        ..BASE
    },
    Case {
        key: 'F',
        title: "1,000 SSE streams, 20,000 events/s",
        figures: &[Figure {
            name: "CPU µs/event",
            bar: None,
            ..MESSAGE
        }],
        open: |seat| seat.connect(Ask::Sse, 1_000),
        run: |seat, bench| seat.messages(bench.amount(20_000), 20_000, 1),
        ..BASE
    },
];

/// The samples of a case: `rounds[round]`, in each of them who took part.
pub type Rounds = Vec<Vec<(Kind, Outcome)>>;

impl Case {
    /// All proxies in turns, for several rounds.
    pub fn run(&self, bench: &Bench) -> Result<Rounds> {
        let kinds = bench.kinds.iter();
        let kinds = kinds.filter(|kind| self.direct || **kind != Kind::Direct);
        let mut seats: Vec<(Kind, Option<Seat>)> = kinds.map(|kind| (*kind, None)).collect();
        let mut rounds = Vec::new();
        for _ in 0..if bench.quick { 1 } else { self.rounds } {
            let mut round = Vec::new();
            for (kind, seat) in &mut seats {
                let outcome = self
                    .measure(*kind, seat, bench)
                    .with_context(|| format!("case {}, {}", self.key, kind.name()))?;
                if bench.verbose {
                    let figures = self.figures.iter().zip(&outcome.figures);
                    let figures: Vec<String> = figures
                        .map(|(figure, value)| format!("{value:.*} {}", figure.digits, figure.name))
                        .collect();
                    let (key, name, wrong) = (self.key, kind.name(), outcome.wrong);
                    eprintln!("{key} {name:8} {}, {wrong} wrong", figures.join(", "));
                }
                round.push((*kind, outcome));
            }
            rounds.push(round);
        }
        Ok(rounds)
    }

    fn measure(&self, kind: Kind, kept: &mut Option<Seat>, bench: &Bench) -> Result<Outcome> {
        let mut seat = match kept.take() {
            Some(seat) => seat,
            None => {
                let mut seat = Seat::take(kind, bench)?;
                (self.open)(&mut seat)?;
                // Whatever is done for the first time is done now.
                if self.kept {
                    (self.run)(&mut seat, bench)?;
                }
                seat
            }
        };
        seat.ends.start();
        let outcome = (self.run)(&mut seat, bench);
        if self.kept {
            *kept = Some(seat);
        }
        outcome
    }
}

/// A proxy with its clients and upstreams.
struct Seat {
    // Before the server: what ends is the connection, not the proxy.
    ends: Ends,
    server: Option<Server>,
    addresses: Vec<SocketAddr>,
}

impl Seat {
    fn take(kind: Kind, bench: &Bench) -> Result<Self> {
        let ends = Ends::new()?;
        let server = Server::start(kind, &ends.upstreams, &bench.cpus)?;
        let addresses = match &server {
            Some(server) => vec![server.address],
            None => ends.upstreams.clone(),
        };
        Ok(Self {
            ends,
            server,
            addresses,
        })
    }

    fn connect(&mut self, ask: Ask, count: usize) -> Result<()> {
        self.ends.connect(&self.addresses, ask, count)?;
        let accepted = self.ends.accepted;
        // Plain requests share connections; all others have their own, and nobody here fails.
        if ask != Ask::Plain
            && accepted.iter().max() > accepted.iter().min().map(|few| few + 1).as_ref()
        {
            eprintln!("not spread evenly: {accepted:?}");
        }
        Ok(())
    }

    fn cpu_ns(&self) -> Result<f64> {
        let server = self.server.as_ref();
        Ok(server.map_or(Ok(0), |server| server.process.cpu_ns())? as f64)
    }

    /// Case A: messages from the upstreams.
    fn messages(&mut self, messages: u64, rate: u64, at_once: u64) -> Result<Outcome> {
        let cpu = self.cpu_ns()?;
        self.ends.pace(Sender::Upstream, messages, rate, at_once)?;
        let cpu = self.cpu_ns()? - cpu;
        Ok(self.outcome(vec![cpu / 1e3 / messages as f64], messages))
    }

    /// Case B.
    fn bulk(&mut self, bench: &Bench) -> Result<Outcome> {
        let bytes_each = bench.amount(128 << 20) as usize;
        let cpu = self.cpu_ns()?;
        self.ends.flood(&BULK, bytes_each)?;
        let cpu = self.cpu_ns()? - cpu;
        let messages = (bytes_each / BULK.size() * self.ends.clients()) as u64;
        let gigabytes = self.ends.seen.bytes as f64 / 1e9;
        Ok(self.outcome(vec![cpu / 1e9 / gigabytes], messages))
    }

    /// Case C.
    fn handshakes(&mut self, bench: &Bench) -> Result<Outcome> {
        let count = bench.amount(4_000);
        let cpu = self.cpu_ns()?;
        self.ends.come_and_go(&self.addresses, count as usize)?;
        self.ends.settle(Duration::from_millis(100))?;
        let cpu = self.cpu_ns()? - cpu;
        let missing = count.saturating_sub(self.ends.seen.ended);
        Ok(Outcome {
            figures: vec![cpu / 1e3 / count as f64],
            wrong: missing + self.ends.seen.cut,
        })
    }

    /// Case D. What the first connections bring into memory is there before those that count.
    fn idle(&mut self, ask: Ask, bench: &Bench) -> Result<Outcome> {
        let (first, count) = (100, 5_000);
        self.used_once(ask, first, bench)?;
        let memory = self.memory()?;
        self.used_once(ask, count, bench)?;
        let memory = self.memory()? - memory;
        Ok(self.outcome(vec![memory / count as f64], (first + first + count) as u64))
    }

    /// Opens streams and passes a message on each of all there are.
    fn used_once(&mut self, ask: Ask, count: usize, bench: &Bench) -> Result<()> {
        self.connect(ask, count)?;
        let sender = match ask {
            Ask::WebSocket => Sender::Client,
            _ => Sender::Upstream,
        };
        let messages = self.ends.clients() as u64;
        self.ends.pace(sender, messages, 10_000, 1)?;
        self.ends.settle(Duration::from_millis(bench.amount(1_000)))
    }

    fn memory(&self) -> Result<f64> {
        Ok(self.server.as_ref().context("no proxy")?.memory()? as f64)
    }

    /// Case E.
    fn pings(&mut self, bench: &Bench) -> Result<Outcome> {
        let messages = bench.amount(2_000);
        self.ends.pace(Sender::Client, messages, 1_000, 1)?;
        let latency = &self.ends.seen.latency;
        let figures = [0.5, 0.99].map(|part| latency.quantile(part) as f64 / 1e3);
        Ok(self.outcome(figures.to_vec(), messages))
    }

    /// Case F: plain requests.
    fn requests(&mut self, bench: &Bench) -> Result<Outcome> {
        let count = bench.amount(20_000);
        let cpu = self.cpu_ns()?;
        self.ends.request(count)?;
        let cpu = self.cpu_ns()? - cpu;
        Ok(Outcome {
            figures: vec![cpu / 1e3 / count as f64],
            wrong: count.saturating_sub(self.ends.seen.answered) + self.ends.seen.cut,
        })
    }

    fn outcome(&self, figures: Vec<f64>, due: u64) -> Outcome {
        let seen = &self.ends.seen;
        Outcome {
            figures,
            wrong: due.saturating_sub(seen.received) + seen.disordered + seen.cut,
        }
    }
}
