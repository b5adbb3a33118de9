//! The cases of fan-out, A to E: how many subscribers, what is played to them, and the bars.

use anyhow::{Context, Result};

use crate::common::process::Cpus;
use crate::common::table::thousands;
use crate::feed::Play;
use crate::load::Load;
use crate::play::{Sample, run, warm_up};
use crate::server::{Kind, Server};
use crate::transport::Transport;

/// What every case needs to know.
pub struct Bench {
    /// Who runs where.
    pub cpus: Cpus,
    /// One round, short plays.
    pub quick: bool,
    /// A line after every play.
    pub verbose: bool,
}

impl Bench {
    /// Rounds of a case; the middle one is reported.
    pub fn rounds(&self, full: usize) -> usize {
        if self.quick { 1 } else { full }
    }
}

/// A case in which events are played to subscribers.
pub struct FanOut {
    /// Its letter on the command line.
    pub key: char,
    /// Subscribers.
    pub subscribers: usize,
    /// What is played.
    pub work: Work,
    /// Rounds in a full run.
    pub rounds: usize,
    /// Most CPU per delivery, as a multiple of `bare`.
    pub most_of_bare: Option<f64>,
    /// Most CPU per delivery, as a multiple of `broadcast`.
    pub most_of_broadcast: Option<f64>,
    /// Most CPU per delivery, in µs.
    pub most_us: Option<f64>,
}

/// What is played in a case.
pub enum Work {
    /// Events per second, for seconds.
    Paced(u64, u64),
    /// Events at once; how often, for `wsevent`, to whom it is cheap.
    Burst(u64, usize),
}

/// The cases A to E.
pub const FAN_OUT: [FanOut; 5] = {
    const BASE: FanOut = FanOut {
        key: ' ',
        subscribers: 1_000,
        work: Work::Paced(50, 1),
        rounds: 9,
        most_of_bare: None,
        most_of_broadcast: None,
        most_us: None,
    };
    [
        FanOut {
            key: 'A',
            most_of_bare: Some(1.15),
            ..BASE
        },
        FanOut {
            key: 'B',
            work: Work::Paced(1_000, 1),
            rounds: 5,
            most_of_bare: Some(1.5),
            most_of_broadcast: Some(0.6),
            ..BASE
        },
        FanOut {
            key: 'C',
            work: Work::Paced(5_000, 2),
            rounds: 1,
            ..BASE
        },
        FanOut {
            key: 'D',
            work: Work::Burst(2_000, 10),
            rounds: 1,
            most_us: Some(0.15),
            ..BASE
        },
        FanOut {
            key: 'E',
            subscribers: 10_000,
            work: Work::Paced(10, 3),
            rounds: 5,
            most_of_bare: Some(1.15),
            ..BASE
        },
    ]
};

impl FanOut {
    /// What is played, in a few words.
    pub fn title(&self) -> String {
        match self.work {
            Work::Paced(rate, _) => format!(
                "{} × {}/s",
                thousands(self.subscribers as u64),
                thousands(rate)
            ),
            Work::Burst(events, _) => format!(
                "{} × {} at once",
                thousands(self.subscribers as u64),
                thousands(events)
            ),
        }
    }

    /// Whether all three servers can be up at once: a process has at most some 20,000 files to connect with.
    fn together(&self) -> bool {
        self.subscribers * Kind::ALL.len() <= 15_000
    }

    /// Lets the servers take turns for some rounds, so that what drifts drifts for all of them.
    pub fn run(&self, bench: &Bench) -> Result<Rounds> {
        let mut seats: [Option<Seat>; Kind::ALL.len()] = Default::default();
        let mut rounds = Vec::new();
        for _ in 0..bench.rounds(self.rounds) {
            let mut round = Vec::new();
            for (kind, kept) in Kind::ALL.into_iter().zip(&mut seats) {
                let mut seat = match kept.take() {
                    Some(seat) => seat,
                    None => Seat::take(kind, self.subscribers, bench)?,
                };
                round.push(
                    self.play(kind, &mut seat, bench)
                        .with_context(|| format!("case {}", self.key))?,
                );
                *kept = self.together().then_some(seat);
            }
            rounds.push(round);
        }
        Ok(rounds)
    }

    /// One server's turn.
    fn play(&self, kind: Kind, seat: &mut Seat, bench: &Bench) -> Result<Vec<Sample>> {
        let (play, times) = match self.work {
            Work::Paced(rate, seconds) => (
                Play::Paced {
                    events: rate * seconds,
                    rate,
                },
                1,
            ),
            Work::Burst(events, times) => (
                Play::Burst { events },
                if kind == Kind::Wsevent { times } else { 1 },
            ),
        };
        let samples: Result<Vec<Sample>> = (0..times)
            .map(|_| {
                run(
                    play,
                    &mut seat.server.source,
                    Some(&seat.server.process),
                    &mut seat.load,
                )
            })
            .collect();
        if bench.verbose {
            samples
                .iter()
                .flatten()
                .for_each(|sample| eprintln!("{} {:9} {sample}", self.key, kind.name()));
        }
        samples
    }
}

/// The samples of a case: `rounds[round][server][repetition]`, servers as in [`Kind::ALL`].
pub type Rounds = Vec<Vec<Vec<Sample>>>;

/// A server with all its subscribers, warmed up.
pub struct Seat {
    /// The server.
    pub server: Server,
    /// Its subscribers.
    pub load: Load,
}

impl Seat {
    fn take(kind: Kind, subscribers: usize, bench: &Bench) -> Result<Self> {
        let server = Server::start(kind, &bench.cpus)?;
        Self::fill(server, Transport::WebSocket, subscribers).with_context(|| kind.name())
    }

    /// Connects subscribers to a server that has none.
    pub fn fill(mut server: Server, transport: Transport, subscribers: usize) -> Result<Self> {
        let mut load = Load::new()?;
        load.connect(transport, server.address, server.path, subscribers)?;
        warm_up(&mut server.source, &mut load)?;
        Ok(Self { server, load })
    }
}
