//! What topologies cost: a second link beside one, a mesh of five, and the way through fifty hops.
//!
//! ```text
//! cargo bench --bench chain                   all cases, about three minutes
//! cargo bench --bench chain -- A              some of them
//! cargo bench --bench chain -- --quick        one short round each
//! cargo bench --bench chain -- --markdown     only the tables of docs/performance.md
//! ```
//!
//! Every server is the real binary. What is measured is on one CPU; the load generator (this process) and the hops that only lead
//! there are on another. `hothot`, `mesh` and `walk` are the cases; how events are made and read is what the bench `fanout` has.
//!
//! The exit code is 1 if an event was lost, repeated or reordered; a missed bar is only said.

#[path = "../common/mod.rs"]
#[allow(dead_code)] // Other benches report more with it.
mod common;
#[path = "../fanout/feed.rs"]
#[allow(dead_code)] // The bench it is from plays more.
mod feed;
#[path = "../fanout/load.rs"]
#[allow(dead_code)]
mod load;
#[path = "../fanout/play.rs"]
#[allow(dead_code)]
mod play;
#[path = "../fanout/server.rs"]
#[allow(dead_code)]
mod server;
#[path = "../fanout/transport.rs"]
#[allow(dead_code)]
mod transport;
#[path = "../fanout/upstream.rs"]
#[allow(dead_code)]
mod upstream;

mod hothot;
mod mesh;
mod walk;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};

use common::process::Cpus;
use common::table::machine;

/// Longer than this a run cannot be right.
const TIME_LIMIT: Duration = Duration::from_secs(15 * 60);

const USAGE: &str = "cargo bench --bench chain -- [A B C] [--quick] [--markdown]";

/// What every case needs to know.
pub struct Bench {
    /// Who runs where.
    pub cpus: Cpus,
    /// One short round.
    pub quick: bool,
    /// A line after every measurement.
    pub verbose: bool,
}

impl Bench {
    /// Rounds of a case; the middle one is reported.
    pub fn rounds(&self, full: usize) -> usize {
        if self.quick { 1 } else { full }
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
    let bench = Bench {
        cpus: common::prepare(TIME_LIMIT)?,
        quick,
        verbose: !markdown,
    };
    let mut tables = Vec::new();
    let mut whole = true;
    for (key, measure) in [
        ('A', hothot::measure as fn(&Bench) -> _),
        ('B', mesh::measure),
        ('C', walk::measure),
    ] {
        if cases.is_empty() || cases.contains(key) {
            let (table, all_came) = measure(&bench)?;
            tables.push(table);
            whole &= all_came;
        }
    }
    println!("Machine: {}.", machine(bench.cpus.pinned));
    for table in tables {
        print!("\n{}", table.to_markdown());
    }
    Ok(match whole {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
