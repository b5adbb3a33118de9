//! The three servers under test, and where their events come from.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::common::process::{Cpus, Process};
use crate::common::wsevent;
use crate::feed::{Form, Play};
use crate::upstream::Upstream;

/// How long a server may take to listen, and to reach its upstream.
const STARTING: Duration = Duration::from_secs(10);

/// What is compared.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One thread, one `write` per delivery.
    Bare,
    /// `tokio::sync::broadcast` and tokio-tungstenite.
    Broadcast,
    /// The real binary.
    Wsevent,
}

impl Kind {
    /// All of them, in the order they take turns.
    pub const ALL: [Self; 3] = [Self::Bare, Self::Broadcast, Self::Wsevent];

    /// As in the tables, and as the hidden argument that runs a baseline.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Broadcast => "broadcast",
            Self::Wsevent => "wsevent",
        }
    }
}

/// A server that listens and has its source of events.
pub struct Server {
    /// The process, for its figures.
    pub process: Process,
    /// Where subscribers connect.
    pub address: SocketAddr,
    /// On which path.
    pub path: &'static str,
    /// What makes it send.
    pub source: Source,
}

impl Server {
    /// Starts one; when this returns it accepts subscribers and a play reaches it.
    pub fn start(kind: Kind, cpus: &Cpus) -> Result<Self> {
        match kind {
            Kind::Wsevent => Self::start_hop(Upstream::start(1, Form::Binary, cpus)?, cpus),
            baseline => Self::start_baseline(baseline.name(), cpus),
        }
    }

    /// Starts a hop that reads this upstream.
    pub fn start_hop(upstream: Upstream, cpus: &Cpus) -> Result<Self> {
        let hop = Hop::start(&["--consume", &upstream.url()], cpus)?;
        upstream.wait_linked(STARTING)?;
        Ok(Self {
            process: hop.process,
            address: hop.address,
            path: Hop::PATH,
            source: Source::Upstream(upstream),
        })
    }

    /// The same with more flags, and of another binary if one is given.
    pub fn start_hop_of(
        binary: Option<&OsStr>,
        upstream: Upstream,
        flags: &[&str],
        cpus: &Cpus,
    ) -> Result<Self> {
        let binary = binary.unwrap_or(env!("CARGO_BIN_EXE_wsevent").as_ref());
        let url = upstream.url();
        let arguments = [&["--consume", &*url], flags].concat();
        let (process, address) = wsevent::start_program(binary, "127.0.0.1:0", &arguments, cpus)?;
        upstream.wait_linked(STARTING)?;
        Ok(Self {
            process,
            address,
            path: Hop::PATH,
            source: Source::Upstream(upstream),
        })
    }

    /// Starts the baseline that answers everything with these bytes.
    pub fn start_backlog(answer: &[u8], cpus: &Cpus) -> Result<Self> {
        let mut server = Self::start_baseline("backlog", cpus)?;
        if let Source::Own { orders, .. } = &mut server.source {
            orders.write_all(&(answer.len() as u64).to_le_bytes())?;
            orders.write_all(answer)?;
        }
        Ok(server)
    }

    fn start_baseline(name: &str, cpus: &Cpus) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["--baseline", name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = Process::start(&mut command, cpus)?;
        let orders = process.child().stdin.take().context("stdin")?;
        let answers = BufReader::new(process.child().stdout.take().context("stdout")?);
        let (listening, address) = channel();
        let (finish, done) = channel();
        thread::spawn(move || {
            for line in answers.lines().map_while(Result::ok) {
                match line.split_once(' ') {
                    Some(("listening", address)) => drop(listening.send(address.to_owned())),
                    Some(("done", last)) => drop(finish.send(last.parse().unwrap_or(0))),
                    _ => {}
                }
            }
        });
        let address = address
            .recv_timeout(STARTING)
            .with_context(|| format!("{name} does not listen"))?
            .parse()?;
        Ok(Self {
            process,
            address,
            path: "/",
            source: Source::Own { orders, done },
        })
    }
}

/// Who makes the events.
pub enum Source {
    /// The baseline itself, told on its standard input.
    Own {
        /// A play per line.
        orders: ChildStdin,
        /// The last sequence number of each finished play.
        done: Receiver<u64>,
    },
    /// An upstream in this process.
    Upstream(Upstream),
}

impl Source {
    /// Begins a play.
    pub fn play(&mut self, play: Play) -> Result<()> {
        match self {
            Self::Own { orders, .. } => Ok(orders.write_all(play.to_line().as_bytes())?),
            Self::Upstream(upstream) => upstream.play(play),
        }
    }

    /// The last sequence number of the play, once all of it has been sent.
    pub fn finished(&self) -> Result<Option<u64>> {
        let done = match self {
            Self::Own { done, .. } => done,
            Self::Upstream(upstream) => upstream.done(),
        };
        match done.try_recv() {
            Ok(last) => Ok(Some(last)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => bail!("the source has ended"),
        }
    }
}

/// The real binary as a hop, with the settings a user gets.
pub struct Hop {
    /// The process, for its figures.
    pub process: Process,
    /// Where it serves.
    pub address: SocketAddr,
}

impl Hop {
    /// The path it serves by default.
    pub const PATH: &str = "/events";

    /// Starts a hop that has its events from where `source` says, and returns when it listens.
    pub fn start(source: &[&str], cpus: &Cpus) -> Result<Self> {
        let (process, address) = wsevent::start(source, cpus)?;
        Ok(Self { process, address })
    }

    /// Its event URL.
    pub fn url(&self) -> String {
        format!("ws://{}{}", self.address, Self::PATH)
    }
}
