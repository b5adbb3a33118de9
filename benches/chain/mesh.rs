//! Case B: a mesh of five. Each has its own events to give, and all subscribers of all five are to get all of them.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::Bench;
use crate::common::process::Process;
use crate::common::table::{Bar, Table};
use crate::common::wsevent;
use crate::feed::{Form, Play};
use crate::load::Load;
use crate::server::Hop;
use crate::transport::Transport;
use crate::upstream::Upstream;

/// Instances.
const MEMBERS: usize = 5;
/// Subscribers of each.
const SUBSCRIBERS: usize = 1_000;
/// It is over when for so long nothing has come.
const QUIET: Duration = Duration::from_secs(3);

/// A running mesh.
struct Mesh {
    members: Vec<Process>,
    upstreams: Vec<Upstream>,
    load: Load,
}

/// Measures at several rates, and says whether everything was delivered.
pub fn measure(bench: &Bench) -> Result<(Table, bool)> {
    let mut table = Table::new(&[
        "case B",
        "deliveries/s",
        "events/s to each",
        "CPU per delivery",
        "p50",
        "p99",
        "bars",
    ]);
    let mut whole = true;
    let mut mesh = Mesh::start(bench)?;
    let rates: &[u64] = if bench.quick {
        &[50, 1_000]
    } else {
        &[50, 500, 1_000]
    };
    for &rate in rates {
        let seconds = 2;
        let (row, wrong) = mesh.play(rate, seconds, bench)?;
        whole &= wrong == 0;
        table.push(row);
    }
    Ok((table, whole))
}

impl Mesh {
    fn start(bench: &Bench) -> Result<Self> {
        // Each has to know where the others will be.
        let free = || TcpListener::bind("127.0.0.1:0")?.local_addr();
        let addresses: Vec<_> = (0..MEMBERS).map(|_| free()).collect::<Result<_, _>>()?;
        let (mut members, mut upstreams) = (Vec::new(), Vec::new());
        for own in &addresses {
            let upstream = Upstream::start_apart(1, Form::Binary, &bench.cpus)?;
            let mut arguments = vec!["--consume".to_owned(), upstream.url()];
            for other in addresses.iter().filter(|other| *other != own) {
                arguments.extend(["--peer".to_owned(), format!("ws://{other}{}", Hop::PATH)]);
            }
            let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
            members.push(wsevent::start_at(&own.to_string(), &arguments, &bench.cpus)?.0);
            upstreams.push(upstream);
        }
        let mut load = Load::new()?;
        for address in &addresses {
            load.connect(Transport::WebSocket, *address, Hop::PATH, SUBSCRIBERS)?;
        }
        for upstream in &upstreams {
            upstream.wait_linked(Duration::from_secs(10))?;
        }
        let mut mesh = Self {
            members,
            upstreams,
            load,
        };
        mesh.warm_up()?;
        Ok(mesh)
    }

    /// Plays a few events until all come everywhere.
    fn warm_up(&mut self) -> Result<()> {
        for _ in 0..20 {
            let (events, rate) = (5, 10);
            if self
                .run(Play::Paced { events, rate }, Duration::from_millis(500))?
                .0
                == 0
            {
                return Ok(());
            }
        }
        ensure!(false, "the mesh does not come together");
        Ok(())
    }

    /// How many deliveries are missing, and how long it has taken.
    fn run(&mut self, play: Play, quiet: Duration) -> Result<(u64, Duration)> {
        self.load.start();
        let began = Instant::now();
        for upstream in &self.upstreams {
            upstream.play(play)?;
        }
        let due = play.events() * (MEMBERS * MEMBERS * SUBSCRIBERS) as u64;
        let (mut received, mut latest) = (0, Instant::now());
        while received < due && latest.elapsed() < quiet + play.length() {
            self.load.turn(Duration::from_millis(20))?;
            if self.load.received() > received {
                (received, latest) = (self.load.received(), Instant::now());
            }
        }
        for upstream in &self.upstreams {
            upstream
                .done()
                .recv_timeout(QUIET)
                .context("an upstream is stuck")?;
        }
        Ok((due.saturating_sub(received), latest - began))
    }

    fn play(&mut self, rate: u64, seconds: u64, bench: &Bench) -> Result<(Vec<String>, u64)> {
        let cpu = |members: &[Process]| members.iter().map(Process::cpu_ns).sum::<Result<u64>>();
        let before = cpu(&self.members)?;
        let play = Play::Paced {
            events: rate * seconds,
            rate,
        };
        let (missing, took) = self.run(play, QUIET)?;
        let received = self.load.received();
        let cpu_us = (cpu(&self.members)? - before) as f64 / 1e3 / received.max(1) as f64;
        let per_second = received as f64 / took.as_secs_f64();
        let each = per_second / (MEMBERS * SUBSCRIBERS) as f64;
        let wanted = rate * MEMBERS as u64;
        let latencies = self.load.tallies().iter();
        let worst = |part| {
            latencies
                .clone()
                .map(|tally| tally.latency.quantile(part))
                .max()
        };
        let ms = |part| worst(part).unwrap_or(0) as f64 / 1e6;
        let wrong = missing + self.load.closed();
        let bars = [
            Bar::new(format!("{wanted}/s"), each >= wanted as f64 * 0.95),
            Bar::none(wrong),
        ];
        let row = vec![
            format!("{MEMBERS} × {SUBSCRIBERS} subscribers, {MEMBERS} × {rate} events/s"),
            format!("{:.2} million", per_second / 1e6),
            format!("{each:.0}"),
            format!("{cpu_us:.3} µs"),
            format!("{:.1} ms", ms(0.5)),
            format!("{:.1} ms", ms(0.99)),
            Bar::verdict(&bars),
        ];
        bench.note(|| format!("B {}", row.join(", ")));
        Ok((row, wrong))
    }
}
