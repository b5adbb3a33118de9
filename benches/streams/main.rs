//! What many streams cost beside one: ten thousand streams of one subscriber each, and streams on which nothing happens.
//!
//! ```text
//! cargo bench --bench streams                 all cases, about four minutes
//! cargo bench --bench streams -- A            some of them
//! cargo bench --bench streams -- --quick      one short round each
//! cargo bench --bench streams -- --markdown   only the tables of docs/performance.md
//! ```
//!
//! Every server is the real binary on one CPU, the load generator (this process) has another. docs/performance.md says what
//! is measured and how. `load` is the subscribers, `hop` the servers, `idle` and `busy` what is done to them.
//!
//! The exit code is 1 if an event was lost, repeated or reordered, or a reader let go; a missed bar is only said.

#[path = "../common/mod.rs"]
#[allow(dead_code)] // Other benches measure latencies with it.
mod common;

mod busy;
mod hop;
mod idle;
mod load;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};

use common::process::Cpus;
use common::table::machine;

/// Longer than this a run cannot be right.
const TIME_LIMIT: Duration = Duration::from_secs(15 * 60);

const USAGE: &str = "cargo bench --bench streams -- [A B] [--quick] [--markdown]";

/// What every case needs to know.
pub struct Bench {
    /// Who runs where.
    pub cpus: Cpus,
    /// One round, of few streams.
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
            "A" | "B" => cases += &argument,
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
    let is_chosen = |case| cases.is_empty() || cases.contains(case);
    let mut tables = Vec::new();
    let mut whole = true;
    if is_chosen('A') {
        tables.push(idle::measure(&bench)?);
    }
    if is_chosen('B') {
        let (table, all_came) = busy::measure(&bench)?;
        tables.push(table);
        whole = all_came;
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
