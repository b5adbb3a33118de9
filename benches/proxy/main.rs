//! What a proxied connection costs: `wsevent proxy` beside nginx, HAProxy and the kernel's price, in one run.
//!
//! ```text
//! cargo bench --bench proxy                   all cases, about five minutes
//! cargo bench --bench proxy -- A D            some of them
//! cargo bench --bench proxy -- nginx wsevent  some of those who take part
//! cargo bench --bench proxy -- --quick        one short round each
//! cargo bench --bench proxy -- --markdown     only the table of docs/performance.md
//! ```
//!
//! Every proxy is a child process on one CPU; clients and upstreams, which are this process, have another.
//! docs/performance.md says what is measured and how. `wire` is what goes over the connections, `ends` both ends of them, `end` one,
//! `bare` the baseline, `server` runs all proxies, `cases` is what is done to them, `report` the table.
//!
//! The exit code is 1 if `wsevent` lost or reordered anything or cut a client off; a missed bar is only said.

#[path = "../common/mod.rs"]
mod common;

mod bare;
mod cases;
mod end;
mod ends;
mod report;
mod server;
mod wire;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};

use cases::{Bench, CASES};
use common::table::machine;
use server::Kind;

/// The allocator of `wsevent`, so that the baseline is not the worse for its own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Longer than this a run cannot be right.
const TIME_LIMIT: Duration = Duration::from_secs(10 * 60);

const USAGE: &str = "cargo bench --bench proxy -- [A B C D E F] [direct bare nginx haproxy wsevent] [--quick] [--markdown]";

struct Arguments {
    cases: String,
    kinds: Vec<Kind>,
    quick: bool,
    markdown: bool,
}

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [first, second, upstreams @ ..] if first == "--baseline" && second == "bare" => {
            return bare::main(upstreams).map(|()| ExitCode::SUCCESS);
        }
        // `cargo test --all-targets` comes by here too, but says nothing of `--bench`.
        given if !given.iter().any(|argument| argument == "--bench") => {
            println!("{USAGE}");
            return Ok(ExitCode::SUCCESS);
        }
        _ => {}
    }
    let arguments = parse(arguments)?;
    let versions = arguments.kinds.iter().map(|kind| kind.version());
    let versions: Vec<Option<String>> = versions.collect::<Result<_>>()?;
    let versions: Vec<String> = versions.into_iter().flatten().collect();
    let bench = Bench {
        cpus: common::prepare(TIME_LIMIT)?,
        quick: arguments.quick,
        verbose: !arguments.markdown,
        kinds: arguments.kinds,
    };
    let mut table = report::table();
    let mut whole = true;
    for case in CASES
        .iter()
        .filter(|case| arguments.cases.contains(case.key))
    {
        whole &= report::add(&mut table, case, &case.run(&bench)?);
    }
    let machine = machine(bench.cpus.pinned);
    println!("Machine: {machine}. Beside {}.\n", versions.join(" and "));
    print!("{}", table.to_markdown());
    Ok(if whole {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn parse(given: Vec<String>) -> Result<Arguments> {
    let mut arguments = Arguments {
        cases: String::new(),
        kinds: Vec::new(),
        quick: false,
        markdown: false,
    };
    for argument in given {
        let kind = Kind::ALL.into_iter().find(|kind| kind.name() == argument);
        match argument.as_str() {
            "--bench" => {}
            "--quick" => arguments.quick = true,
            "--markdown" => arguments.markdown = true,
            "A" | "B" | "C" | "D" | "E" | "F" => arguments.cases += &argument,
            _ => match kind {
                Some(kind) => arguments.kinds.push(kind),
                None => bail!("what is {argument:?}? {USAGE}"),
            },
        }
    }
    if arguments.cases.is_empty() {
        arguments.cases = "ABCDEF".to_owned();
    }
    if arguments.kinds.is_empty() {
        arguments.kinds = Kind::ALL.to_vec();
    }
    Ok(arguments)
}
