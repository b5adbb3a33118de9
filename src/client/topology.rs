//! `wsevent topology`: asks hops what they know of themselves and of those upstream, and prints that as one picture.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::ValueEnum;
use futures_util::future::join_all;
use tokio::time::Instant;

use crate::source::presence::Named;
use crate::source::upstream::Upstream;
use crate::topology;
use crate::topology::ask::{PATIENCE, Question};

/// Whom to ask, and how to print it.
pub struct Topology {
    /// The hops, by the URLs of their streams, or of all that they have.
    pub upstreams: Vec<Upstream>,
    /// How to print it.
    pub format: Format,
}

/// How a topology is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A component diagram for PlantUML.
    Puml,
    /// A flowchart for Mermaid.
    Mermaid,
    /// A graph for Graphviz.
    Dot,
    /// As hops tell it.
    Json,
}

impl Topology {
    /// Asks all at once, and prints what they tell. The exit status says whether all have told.
    pub async fn run(self) -> Result<ExitCode> {
        let answers = join_all(self.upstreams.iter().map(ask)).await;
        let mut all = topology::Topology::default();
        let mut failed = 0;
        for (upstream, answer) in self.upstreams.iter().zip(answers) {
            match answer {
                Ok(told) => all.merge(told),
                Err(error) => {
                    failed += 1;
                    let reason = upstream.reason(&error);
                    // Nobody may be reading it.
                    let _ = writeln!(io::stderr(), "wsevent: {upstream}: {reason}");
                }
            }
        }
        if failed < self.upstreams.len() {
            let text = self.format.render(&all)?;
            // Who does not want to know all is told nothing any more.
            let _ = io::stdout().lock().write_all(text.as_bytes());
        }
        Ok(match failed {
            0 => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        })
    }
}

impl Format {
    fn render(self, topology: &topology::Topology) -> Result<String> {
        match self {
            Self::Json => Ok(serde_json::to_string_pretty(topology)? + "\n"),
            other => bail!("--format {other:?} cannot be drawn by this build: use --format json"),
        }
    }
}

/// What the hop at a URL tells.
async fn ask(upstream: &Upstream) -> Result<topology::Topology> {
    let path = upstream.url.path();
    // The list of all streams, or of those of one route; what else has a path is a stream.
    let of_stream = !path.ends_with('/');
    let question = Question {
        upstream,
        what: ("topology", ""),
        of_stream,
        via: &[],
        deadline: Instant::now() + PATIENCE,
    };
    let behind = question.topology(None).await?;
    let mut nodes = behind.topology.nodes.iter();
    let own = nodes.find(|node| node.id == behind.node);
    if of_stream && own.is_none_or(|node| node.streams.is_empty()) {
        bail!("there is no stream at {path} now, or none that may be seen with what was said");
    }
    Ok(behind.topology)
}
