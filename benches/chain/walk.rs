//! Case C: how long `wsevent topology` and `wsevent trace` take through fifty hops.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::Bench;
use crate::common::table::{Bar, Table, median};
use crate::server::Hop;

/// Hops of the chain.
const HOPS: usize = 50;
/// The most that a command may take, in seconds.
const MOST: f64 = 2.0;

/// Measures; there is nothing to be delivered.
pub fn measure(bench: &Bench) -> Result<(Table, bool)> {
    let mut chain = vec![Hop::start(&["--produce-rate", "1000"], &bench.cpus)?];
    while chain.len() < HOPS {
        let before = chain[chain.len() - 1].url();
        chain.push(Hop::start(&["--consume", &before], &bench.cpus)?);
    }
    let last = chain[HOPS - 1].url();
    // An event has come through, so all links are there.
    run(&["tail", "--count", "1", &last])?;
    let mut table = Table::new(&["case C", "time", "bars"]);
    for (name, arguments) in [
        ("topology", &["topology", "--format", "json", &last][..]),
        ("trace", &["trace", &last]),
    ] {
        let mut times = Vec::new();
        for _ in 0..bench.rounds(5) {
            // What hops have just been told of their upstreams they keep for a second.
            std::thread::sleep(Duration::from_millis(1_500));
            let (took, output) = run(arguments)?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            for hop in &chain {
                ensure!(
                    text.contains(&hop.address.to_string()),
                    "{name} does not show {}: {text}",
                    hop.address
                );
            }
            bench.note(|| format!("C {name} {took:.3} s"));
            times.push(took);
        }
        let time = median(times);
        table.push(vec![
            format!("{name} of {HOPS} hops"),
            format!("{time:.3} s"),
            Bar::verdict(&[Bar::at_most(time, MOST, "s")]),
        ]);
    }
    Ok((table, true))
}

/// Runs the binary as a client, from its start to its end.
fn run(arguments: &[&str]) -> Result<(f64, Output)> {
    let began = Instant::now();
    let output = Command::new(env!("CARGO_BIN_EXE_wsevent"))
        .args(arguments)
        .output()?;
    let took = began.elapsed().as_secs_f64();
    ensure!(
        output.status.success(),
        "wsevent {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok((took, output))
}
