//! `wsevent topology`: asks hops what they know of themselves and of those upstream, and prints that as one picture.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Result, bail};
use futures_util::future::join_all;
use tokio::time::Instant;

use crate::source::presence::Named;
use crate::source::upstream::Upstream;
use crate::stdout;
use crate::topology::ask::{PATIENCE, Question};
use crate::topology::expect::Expected;
use crate::topology::{self, Format, Node, plain};

/// Whom to ask, and how to print it.
pub struct Topology {
    /// The hops, by the URLs of their streams, or of all that they have.
    pub upstreams: Vec<Upstream>,
    /// So many of them, the first, were asked for; the others are of the figure.
    pub asked: usize,
    /// How to print it.
    pub format: Format,
    /// What to hold it against, instead of printing it.
    pub figure: Option<Figure>,
}

/// A figure, as a file has it.
pub struct Figure {
    /// The file.
    pub name: String,
    /// What it says.
    pub expected: Expected,
}

impl Topology {
    /// Asks all at once, and prints what they tell, or what differs from the figure. The exit status says whether all have told, and
    /// whether the figure is true.
    pub async fn run(self) -> Result<ExitCode> {
        let answers = join_all(self.upstreams.iter().map(ask)).await;
        let mut all = topology::Topology::default();
        let mut failed = 0;
        let mut silent = Vec::new();
        for (at, (upstream, answer)) in self.upstreams.iter().zip(answers).enumerate() {
            match answer {
                Ok(told) => all.merge(&told),
                Err(error) => {
                    silent.push(upstream.url.to_string());
                    // What it means for a figure is among the differences.
                    failed += usize::from(at < self.asked);
                    let reason = upstream.reason(&error);
                    // Nobody may be reading it.
                    let _ = writeln!(io::stderr(), "wsevent: {upstream}: {reason}");
                }
            }
        }
        let incomplete = all.nodes.iter().filter(|node| node.incomplete.is_some());
        let incomplete = incomplete.filter(|_| self.figure.is_none());
        let is_whole = incomplete.map(say_incomplete).count() == 0;
        let (text, is_true) = match &self.figure {
            Some(figure) => figure.held_against(&all, &silent),
            None if failed == self.upstreams.len() => (String::new(), true),
            None => (self.format.render(&all), true),
        };
        stdout::print(text.as_bytes())?;
        Ok(match failed == 0 && is_true && is_whole {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        })
    }
}

impl Figure {
    /// What there is to say, and whether the figure is true.
    fn held_against(&self, topology: &topology::Topology, silent: &[String]) -> (String, bool) {
        let verdict = self.expected.compare(topology, silent);
        match verdict.differences.is_empty() {
            true => (format!("{} is what runs: {verdict}\n", self.name), true),
            false => (verdict.differences.join("\n") + "\n", false),
        }
    }
}

/// A picture that is cut off says so.
fn say_incomplete(node: &Node) {
    let address = plain(&node.address);
    let reason = plain(node.incomplete.as_deref().unwrap_or_default());
    let _ = writeln!(
        io::stderr(),
        "wsevent: {address}: not all that is upstream of it is known: {reason}"
    );
}

/// What the hop at a URL tells.
async fn ask(upstream: &Upstream) -> Result<Arc<topology::Topology>> {
    let path = upstream.url.path();
    // The list of all streams, or of those of one route; what else has a path is a stream.
    let of_stream = !path.ends_with('/');
    let question = Question {
        upstream,
        what: ("topology", ""),
        of_stream,
        via: &[],
        at: None,
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
