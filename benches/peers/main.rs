//! `wsevent` beside the usual alternatives, on the same work, in one run.
//!
//! ```text
//! scripts/bench/peers                         installs them, runs this, and writes the tables into docs/performance.md
//! cargo bench --bench peers                   all cases, about twelve minutes
//! cargo bench --bench peers -- A R            some of them
//! cargo bench --bench peers -- --quick        one short round each
//! cargo bench --bench peers -- --markdown     only the tables of docs/performance.md
//! ```
//!
//! Every server is a child process on one CPU, the load generator (this process) has another. `peer` starts the servers, each as its
//! own documentation has it; `fan_out`, `idle` and `slow` are what is done to them. How events are made and read is what the bench `fanout`
//! has.
//!
//! A server that is not installed is left out, and said so. The exit code is 1 if `wsevent` lost, repeated or reordered anything.

#[path = "../fanout/bare.rs"]
mod bare;
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

mod fan_out;
mod idle;
mod peer;
mod slow;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};

use common::process::Cpus;
use common::table::machine;
use fan_out::FAN_OUT;
use peer::Peer;

/// The allocator of `wsevent`, so that the baseline is not the worse for its own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Longer than this a run cannot be right.
const TIME_LIMIT: Duration = Duration::from_secs(30 * 60);

const USAGE: &str = "cargo bench --bench peers -- [A B C D I R S] [--quick] [--markdown]";

/// What every case needs to know.
struct Bench {
    cpus: Cpus,
    /// Those that are there.
    peers: Vec<Peer>,
    /// One round, short plays.
    quick: bool,
    /// A line after every play.
    verbose: bool,
}

impl Bench {
    /// Rounds of a case; the middle one is reported.
    fn rounds(&self, full: usize) -> usize {
        if self.quick { 1 } else { full }
    }

    fn say(&self, what: impl FnOnce() -> String) {
        if self.verbose {
            eprintln!("{}", what());
        }
    }
}

fn main() -> Result<ExitCode> {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = given.iter().map(String::as_str).collect();
    match words[..] {
        ["--baseline", "bare"] => return bare::main().map(|()| ExitCode::SUCCESS),
        // `cargo test --all-targets` comes by here too, but says nothing of `--bench`.
        _ if !words.contains(&"--bench") => {
            println!("{USAGE}");
            return Ok(ExitCode::SUCCESS);
        }
        _ => {}
    }
    let (mut cases, mut quick, mut markdown) = (String::new(), false, false);
    for word in words {
        match word {
            "--bench" => {}
            "--quick" => quick = true,
            "--markdown" => markdown = true,
            "A" | "B" | "C" | "D" | "I" | "R" | "S" => cases += word,
            _ => bail!("what is {word:?}? {USAGE}"),
        }
    }
    if cases.is_empty() {
        cases = "ABCDIRS".to_owned();
    }
    let cpus = common::prepare(TIME_LIMIT)?;
    let mut peers = Vec::new();
    let mut versions = Vec::new();
    for peer in Peer::ALL {
        match peer.version() {
            Ok(version) => {
                versions.push(version);
                peers.push(peer);
            }
            Err(why) => eprintln!("without {}: {why:#}", peer.name()),
        }
    }
    let bench = Bench {
        cpus,
        peers,
        quick,
        verbose: !markdown,
    };
    println!("Machine: {}.\n", machine(bench.cpus.pinned));
    println!("Beside it: {}.", versions[2..].join(", "));
    let whole = measure(&cases, &bench)?;
    Ok(match whole {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Runs the chosen cases and prints their tables; says whether `wsevent` delivered everything.
fn measure(cases: &str, bench: &Bench) -> Result<bool> {
    let mut whole = true;
    let chosen = FAN_OUT.iter().filter(|case| cases.contains(case.key));
    let chosen: Vec<_> = chosen.collect();
    if !chosen.is_empty() {
        let mut table = fan_out::table();
        for case in chosen {
            whole &= case.run(&mut table, bench)?;
        }
        print!("\n{}", table.to_markdown());
    }
    if cases.contains('I') {
        print!("\n{}", idle::idle(bench)?.to_markdown());
    }
    if cases.contains('R') {
        let (table, is_whole) = slow::slow(bench)?;
        whole &= is_whole;
        print!("\n{}", table.to_markdown());
    }
    if cases.contains('S') {
        print!("\n{}", idle::start(bench)?.to_markdown());
    }
    Ok(whole)
}
