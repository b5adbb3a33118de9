//! Case A: what a second link costs. Two hops get the same events at the same time, one over one link, the other over two, and each
//! has as many subscribers.
//!
//! ```text
//!   upstream ──► first ──► relay ──► one link    ──► subscribers
//!                     └──► relay ─┬► two links   ──► subscribers
//!                                 └─ (the first relay as well)
//! ```

use std::time::Duration;

use anyhow::{Context, Result};

use crate::Bench;
use crate::common::process::Process;
use crate::common::table::{Bar, Table, median};
use crate::feed::{Form, Play};
use crate::load::Load;
use crate::play::{run, warm_up};
use crate::server::{Hop, Source};
use crate::transport::Transport;
use crate::upstream::Upstream;

/// The most that a delivery may cost with two links, as a multiple of what it costs with one.
const MOST: f64 = 1.25;

/// Two hops with their subscribers, and what leads to them.
struct Seat {
    source: Source,
    load: Load,
    one: Process,
    two: Process,
    _before: [Hop; 3],
}

/// One round: CPU per delivery in µs with one link and with two, and what went wrong.
struct Round {
    one: f64,
    two: f64,
    wrong: u64,
}

/// Measures, and says whether everything was delivered.
pub fn measure(bench: &Bench) -> Result<(Table, bool)> {
    let mut table = Table::new(&["case A", "one link", "two links", "ratio", "bars"]);
    let mut whole = true;
    for (subscribers, rate, seconds) in [(1_000, 50, 3), (100, 5_000, 2), (1, 5_000, 2)] {
        let mut seat = Seat::take(subscribers, bench)?;
        let rounds: Vec<Round> = (0..bench.rounds(5))
            .map(|_| seat.play(rate, seconds, subscribers as u64, bench))
            .collect::<Result<_>>()?;
        let middle = |of: fn(&Round) -> f64| median(rounds.iter().map(of).collect());
        let ratio = middle(|round| round.two / round.one);
        let wrong: u64 = rounds.iter().map(|round| round.wrong).sum();
        whole &= wrong == 0;
        let bars = match subscribers {
            1_000 => vec![Bar::at_most(ratio, MOST, "×"), Bar::none(wrong)],
            _ => vec![Bar::none(wrong)],
        };
        table.push(vec![
            format!("{subscribers} subscribers × {rate}/s"),
            format!("{:.3} µs", middle(|round| round.one)),
            format!("{:.3} µs", middle(|round| round.two)),
            format!("{ratio:.2} ×"),
            Bar::verdict(&bars),
        ]);
    }
    Ok((table, whole))
}

impl Seat {
    fn take(subscribers: usize, bench: &Bench) -> Result<Self> {
        let apart = bench.cpus.beside_load();
        let upstream = Upstream::start_apart(1, Form::Binary, &bench.cpus)?;
        let first = Hop::start(&["--consume", &upstream.url()], &apart)?;
        upstream.wait_linked(Duration::from_secs(10))?;
        let relay = || Hop::start(&["--consume", &first.url()], &apart);
        let relays = [relay()?, relay()?];
        let urls = [relays[0].url(), relays[1].url()];
        let one = Hop::start(&["--consume", &urls[0]], &bench.cpus)?;
        let two = Hop::start(&["--consume", &urls[0], "--consume", &urls[1]], &bench.cpus)?;
        let mut load = Load::new()?;
        for hop in [&one, &two] {
            load.connect(Transport::WebSocket, hop.address, Hop::PATH, subscribers)?;
        }
        let mut source = Source::Upstream(upstream);
        warm_up(&mut source, &mut load).context("case A")?;
        let [left, right] = relays;
        Ok(Self {
            source,
            load,
            one: one.process,
            two: two.process,
            _before: [first, left, right],
        })
    }

    fn play(&mut self, rate: u64, seconds: u64, subscribers: u64, bench: &Bench) -> Result<Round> {
        let events = rate * seconds;
        let before = (self.one.cpu_ns()?, self.two.cpu_ns()?);
        let play = Play::Paced { events, rate };
        let sample = run(play, &mut self.source, None, &mut self.load)?;
        let each = (events * subscribers) as f64 * 1e3;
        let round = Round {
            one: (self.one.cpu_ns()? - before.0) as f64 / each,
            two: (self.two.cpu_ns()? - before.1) as f64 / each,
            wrong: sample.lost + sample.disordered + sample.disconnected,
        };
        bench.note(|| {
            let Round { one, two, wrong } = &round;
            format!("A {subscribers} × {rate}/s: one link {one:.3} µs, two {two:.3}, wrong {wrong}")
        });
        Ok(round)
    }
}
