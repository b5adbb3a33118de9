//! The flags of `wsevent topology`.

use clap::ArgMatches;

use super::Usage;
use super::connect::{ReachArgs, event_url, reach};
use crate::client::topology::{Format, Topology};

const EXAMPLES: &str = "\
Examples:
  wsevent topology ws://localhost:9090/events > topology.puml
      what the events of that stream come through, as PlantUML
  wsevent topology http://a.example:8080/ http://b.example:8080/ --format json
      all streams of both hops that may be seen, and what they come through, for programs

Each hop is asked over HTTP, at the host of its URL, and asks those upstream of it. Exit status: 0 if all URLs were asked; 1 if one
could not be, which is said on standard error (what the others tell is printed); 2 for wrong usage.";

/// The flags of `topology`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct TopologyArgs {
    /// Event URLs (ws://, wss://, http:// or https://): of a stream, or with the path / of a hop and all of its streams
    #[arg(value_name = "URL", required = true)]
    pub urls: Vec<String>,

    /// How to draw it: puml (PlantUML), mermaid, dot (Graphviz), or json
    #[arg(
        long,
        env = "WSEVENT_FORMAT",
        value_name = "FORMAT",
        default_value = "puml",
        hide_possible_values = true
    )]
    pub format: Format,

    /// How to reach the hops
    #[command(flatten)]
    pub reach: ReachArgs,
}

/// What the flags say.
pub fn topology(args: &TopologyArgs, matches: &ArgMatches) -> Usage<Topology> {
    let urls = args.urls.iter().map(|url| event_url(url));
    let urls = urls.collect::<Usage<Vec<_>>>()?;
    let reach = reach(&args.reach, matches, &urls)?;
    Ok(Topology {
        upstreams: urls.iter().map(|url| reach.upstream(url)).collect(),
        format: args.format,
    })
}
