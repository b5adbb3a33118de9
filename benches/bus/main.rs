//! What a bus costs: events from it to a subscriber, events that are published to it, and how much later they come than without a
//! hop. Against Redis and NATS of the distribution, which it starts itself on loopback.
//!
//! ```text
//! cargo bench --bench bus                 all cases, about four minutes
//! cargo bench --bench bus -- A            some of them
//! cargo bench --bench bus -- --quick      one short round each
//! cargo bench --bench bus -- --markdown   only the tables of docs/performance.md
//! ```
//!
//! | case | what |
//! | --- | --- |
//! | A | a plain client publishes, pipelined; a hop consumes the bus (`--consume`); one WebSocket subscriber gets all |
//! | B | clients publish by POST at a hop with `--bus`; it answers when the bus has confirmed |
//! | C | one event at a time: to a plain subscriber of the same library, and to a WebSocket subscriber of a hop |
//!
//! The hop is the real binary and has a CPU of its own; bus and clients (this process) share another. `server` is the buses, `place`
//! and `client` what is theirs, `hop` the hop and who reads from it, `throughput` and `latency` what is measured.
//!
//! The exit code is 1 if an event was lost, repeated or reordered; a missed bar is only said.

#[path = "../common/mod.rs"]
#[allow(dead_code)] // Other benches read more of it.
mod common;

mod client;
mod hop;
mod latency;
mod place;
mod server;
mod throughput;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};

use common::process::Cpus;
use common::table::machine;
use server::Servers;

/// Longer than this a run cannot be right.
const TIME_LIMIT: Duration = Duration::from_secs(15 * 60);

const USAGE: &str = "cargo bench --bench bus -- [A B C] [--quick] [--markdown]";

/// What every case needs to know.
pub struct Bench {
    /// Who runs where.
    pub cpus: Cpus,
    /// The buses.
    pub servers: Servers,
    /// One round, of few events.
    pub quick: bool,
    /// A line after every measurement.
    pub verbose: bool,
}

impl Bench {
    /// Rounds of a case; the middle one is reported.
    pub fn rounds(&self) -> usize {
        if self.quick { 1 } else { 5 }
    }

    /// Says how it goes.
    pub fn note(&self, line: impl FnOnce() -> String) {
        if self.verbose {
            eprintln!("{}", line());
        }
    }
}

fn main() -> Result<ExitCode> {
    let (mut cases, mut quick, mut markdown, mut meant) = (String::new(), false, false, false);
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--bench" => meant = true,
            "--quick" => quick = true,
            "--markdown" => markdown = true,
            "A" | "B" | "C" => cases += &argument,
            _ => bail!("what is {argument:?}? {USAGE}"),
        }
    }
    // `cargo test --all-targets` comes by here too, but says nothing of `--bench`.
    if !meant {
        println!("{USAGE}");
        return Ok(ExitCode::SUCCESS);
    }
    let cpus = common::prepare(TIME_LIMIT)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let bench = Bench {
            servers: Servers::start(&cpus).await?,
            cpus,
            quick,
            verbose: !markdown,
        };
        let is_chosen = |case| cases.is_empty() || cases.contains(case);
        let (mut tables, mut whole) = (Vec::new(), true);
        for way in throughput::Way::ALL {
            if is_chosen(way.case()) {
                let (table, all_came) = throughput::measure(way, &bench).await?;
                tables.push(table);
                whole &= all_came;
            }
        }
        if is_chosen('C') {
            tables.push(latency::measure(&bench).await?);
        }
        let pinned = bench.cpus.pinned;
        println!("Machine: {}; {}.", machine(pinned), bench.servers.versions);
        for table in tables {
            print!("\n{}", table.to_markdown());
        }
        Ok(match whole {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        })
    })
}
