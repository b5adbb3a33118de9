//! `wsevent check FILE`: what is wrong with a configuration file, or what it serves.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use super::config::{ConfigFile, Unusable};
use crate::route::Policy;
use crate::stdout;

/// The flags of `check`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Each mistake is one line, FILE:LINE: reason; exit status 1. A file without mistakes is a line for each route; exit status 0. Variables of the environment count as they do for a hop."
)]
pub struct CheckArgs {
    /// The configuration file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// A file that is to be looked at.
pub struct Check {
    /// The file.
    pub file: ConfigFile,
}

impl Check {
    /// Prints what there is to say.
    pub fn run(&self) -> Result<ExitCode> {
        let (text, status) = match self.file.load() {
            Ok(loaded) => {
                let routes = loaded.hop.routes.iter();
                let lines = routes.map(|route| line(route) + "\n");
                (lines.collect(), ExitCode::SUCCESS)
            }
            Err(Unusable::Usage(error)) => {
                // Nobody may be reading it.
                let _ = error.print();
                return Ok(ExitCode::from(2));
            }
            Err(faults) => (faults.to_string(), ExitCode::FAILURE),
        };
        stdout::print(text.as_bytes())?;
        Ok(status)
    }
}

/// A route in a line: its pattern, what feeds it, and what is kept.
fn line(route: &Policy) -> String {
    let mut parts = vec![route.pattern.to_string()];
    let names = route.pattern.key_query();
    if !names.is_empty() {
        parts.push(format!("by {}", names.join(",")));
    }
    parts.extend(route.upstreams.iter().map(|from| format!("from {from}")));
    let peers = route.peers.listed.iter().map(|peer| format!("peer {peer}"));
    parts.extend(peers);
    let named = route.peers.named.iter();
    parts.extend(named.map(|peers| format!("peers of {peers}")));
    let standbys = route.standbys.iter();
    parts.extend(standbys.map(|standby| format!("else from {standby}")));
    let buses = &route.buses;
    parts.extend(buses.consume.iter().map(|from| format!("from {from}")));
    parts.extend(buses.both.iter().map(|bus| format!("around {bus}")));
    parts.extend(buses.forward.iter().map(|to| format!("to {to}")));
    if route.produce.is_some() {
        parts.push("random events".to_owned());
    }
    if route.subscribers.accept_publish {
        parts.push("publish".to_owned());
    }
    parts.push(format!("history {}", history(route)));
    parts.join(", ")
}

/// The bounds of a route's history.
fn history(route: &Policy) -> String {
    let limits = &route.history;
    let bytes = Some(format!("{} bytes", limits.bytes));
    let count = limits.count.map(|count| format!("{count} events"));
    let age = limits
        .age
        .map(|age| humantime::format_duration(age).to_string());
    let bounds: Vec<_> = [bytes, count, age].into_iter().flatten().collect();
    bounds.join(" or ")
}
