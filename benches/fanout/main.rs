//! What fan-out costs: `wsevent` beside the kernel's price and beside the usual server, in one run.
//!
//! ```text
//! cargo bench --bench fanout                  all cases, about ten minutes
//! cargo bench --bench fanout -- A D           some of them
//! cargo bench --bench fanout -- --quick       one short round each
//! cargo bench --bench fanout -- --markdown    only the tables of docs/performance.md
//! ```
//!
//! Every server is a child process on one CPU, the load generator (this process) has another. docs/performance.md says
//! what is measured and how. The files in the order events flow: `feed` makes them, `upstream` hands them to `wsevent`,
//! `bare`, `broadcast` and `backlog` are the baselines, `server` runs all servers, `load` is the subscribers,
//! `transport` what they read, `cases`, `idle`, `hops`, `formats`, `resume`, `publish` and `figures` what is done to them, `play` one
//! measurement, `report` the tables.
//!
//! The exit code is 1 if `wsevent` lost, repeated or reordered anything or let a reader go; a missed bar is only said.

#[path = "../common/mod.rs"]
mod common;

mod backlog;
mod bare;
mod broadcast;
mod cases;
#[allow(dead_code)] // The bench `peers` does more with it.
mod feed;
mod figures;
mod formats;
mod hops;
mod idle;
mod load;
#[allow(dead_code)] // The bench `peers` does more with it.
mod play;
mod publish;
mod report;
mod resume;
mod server;
#[allow(dead_code)] // The bench `peers` does more with it.
mod transport;
#[allow(dead_code)] // The bench `peers` does more with it.
mod upstream;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use cases::{Bench, FAN_OUT};
use common::table::{Table, machine};
use formats::{FORMATS, Formats};
use hops::Chain;
use idle::Idle;
use report::{add_chain, add_fan_out, add_idle};
use server::Kind;
use transport::Transport;

/// The allocator of `wsevent`, so that the baselines are not the worse for theirs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Longer than this a run cannot be right.
const TIME_LIMIT: Duration = Duration::from_secs(15 * 60);

const USAGE: &str = "cargo bench --bench fanout -- [A B C D E F G H I J K] [--quick] [--markdown]";

struct Arguments {
    cases: String,
    quick: bool,
    markdown: bool,
}

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        ["--baseline", "backlog"] => return backlog::main().map(|()| ExitCode::SUCCESS),
        ["--baseline", "bare"] => return bare::main().map(|()| ExitCode::SUCCESS),
        ["--baseline", "broadcast"] => return broadcast::main().map(|()| ExitCode::SUCCESS),
        // `cargo test --all-targets` comes by here too, but says nothing of `--bench`.
        given if !given.contains(&"--bench") => {
            println!("{USAGE}");
            return Ok(ExitCode::SUCCESS);
        }
        _ => {}
    }
    let arguments = parse(arguments)?;
    let cpus = common::prepare(TIME_LIMIT)?;
    let whole = measure(
        &arguments,
        &Bench {
            cpus,
            quick: arguments.quick,
            verbose: !arguments.markdown,
        },
    )?;
    Ok(if whole {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn parse(given: Vec<String>) -> Result<Arguments> {
    let mut arguments = Arguments {
        cases: String::new(),
        quick: false,
        markdown: false,
    };
    for argument in given {
        match argument.as_str() {
            "--bench" => {}
            "--quick" => arguments.quick = true,
            "--markdown" => arguments.markdown = true,
            "A" | "B" | "C" | "D" | "E" | "F" | "G" | "H" | "I" | "J" | "K" => {
                arguments.cases += &argument
            }
            _ => bail!("what is {argument:?}? {USAGE}"),
        }
    }
    if arguments.cases.is_empty() {
        arguments.cases = "ABCDEFGHIJK".to_owned();
    }
    Ok(arguments)
}

/// Runs the chosen cases and prints their tables; says whether `wsevent` delivered everything.
fn measure(arguments: &Arguments, bench: &Bench) -> Result<bool> {
    let (mut fan_out, mut idle, mut hops) = (Table::fan_out(), Table::idle(), Table::hops());
    let mut formats = Formats::table();
    let (mut resume, mut publish) = (resume::table(), publish::table());
    let mut counted = figures::table();
    let mut whole = true;
    for case in FAN_OUT
        .iter()
        .filter(|case| arguments.cases.contains(case.key))
    {
        let rounds = case.run(bench)?;
        whole &= add_fan_out(&mut fan_out, case, &rounds);
    }
    if arguments.cases.contains('F') {
        idle_rounds(&mut idle, bench)?;
    }
    if arguments.cases.contains('G') {
        for chain in [Chain::one, Chain::ten] {
            whole &= add_chain(&mut hops, &chain(bench)?);
        }
    }
    if arguments.cases.contains('H') {
        for case in FORMATS {
            whole &= case.run(&mut formats, bench).context("case H")?;
        }
        formats::idle(&mut idle, bench)?;
    }
    if arguments.cases.contains('I') {
        whole &= resume::resume(&mut resume, bench).context("case I")?;
    }
    if arguments.cases.contains('J') {
        whole &= publish::publish(&mut publish, bench).context("case J")?;
    }
    if arguments.cases.contains('K') {
        whole &= figures::figures(&mut counted, bench).context("case K")?;
    }
    println!("Machine: {}.", machine(bench.cpus.pinned));
    for table in [fan_out, formats, idle, hops, resume, publish, counted]
        .iter()
        .filter(|table| !report::is_empty(table))
    {
        print!("\n{}", table.to_markdown());
    }
    Ok(whole)
}

/// Case F, in turns like the others.
fn idle_rounds(table: &mut Table, bench: &Bench) -> Result<()> {
    let mut rounds = Vec::new();
    for _ in 0..bench.rounds(3) {
        let round = Kind::ALL
            .into_iter()
            .map(|kind| Idle::run(kind, Transport::WebSocket, bench));
        rounds.push(round.collect::<Result<Vec<_>>>()?);
    }
    Kind::ALL
        .into_iter()
        .for_each(|kind| add_idle(table, kind, &rounds));
    Ok(())
}
