//! The flags of `wsevent topology`.

use std::fs;
use std::path::{Path, PathBuf};

use clap::ArgMatches;

use super::Usage;
use super::connect::{ReachArgs, event_url, reach};
use crate::client::topology::{Figure, Topology};
use crate::reason;
use crate::topology::Format;
use crate::topology::expect::{As, Expected};
use crate::topology::figure;

const EXAMPLES: &str = "\
Examples:
  wsevent topology ws://localhost:9090/events > topology.puml
      what the events of that stream come through, as PlantUML
  wsevent topology http://a.example:8080/ http://b.example:8080/ --format json
      all streams of both hops that may be seen, and what they come through, for programs
  wsevent topology --expect docs/puml/chained-services.puml --as hop1=ws://localhost:19090/proxy-events
      whether what runs is what that figure shows; where the others are, their labels say

Each hop is asked over HTTP, at the host of its URL, and asks those upstream of it. Exit status: 0 if all URLs were asked, and the
figure is true; 1 if one could not be, which is said on standard error (what the others tell is printed), or if something differs from
the figure, which is said in one line each; 2 for wrong usage, and for a file that cannot be read as a figure.";

/// The flags of `topology`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct TopologyArgs {
    /// Event URLs (ws://, wss://, http:// or https://): of a stream, or with the path / of a hop and all of its streams
    #[arg(value_name = "URL", required_unless_present = "expect")]
    pub urls: Vec<String>,

    /// How to draw it: puml (PlantUML), mermaid, dot (Graphviz), or json
    #[arg(
        long,
        env = "WSEVENT_FORMAT",
        value_name = "FORMAT",
        default_value = "puml",
        hide_possible_values = true,
        conflicts_with = "expect"
    )]
    pub format: Format,

    /// Print no picture, but in which ways what runs differs from this figure in PlantUML; its hops are asked, too: what
    /// --consume-header and the like say goes to each host that stands in it
    #[arg(long, env = "WSEVENT_EXPECT", value_name = "FILE")]
    pub expect: Option<PathBuf>,

    /// Where something in the figure runs, if not where its label says: the name that its arrows have, and a URL or host:port;
    /// a bus may have several
    #[arg(
        long = "as",
        env = "WSEVENT_AS",
        value_name = "NAME=URL",
        value_delimiter = '\n',
        requires = "expect"
    )]
    pub places: Vec<As>,

    /// What of the figure is not there today; what would go through it is expected to go on directly
    #[arg(
        long,
        env = "WSEVENT_WITHOUT",
        value_name = "NAME",
        value_delimiter = '\n',
        requires = "expect"
    )]
    pub without: Vec<String>,

    /// How to reach the hops
    #[command(flatten)]
    pub reach: ReachArgs,
}

/// What the flags say.
pub fn topology(args: &TopologyArgs, matches: &ArgMatches) -> Usage<Topology> {
    let urls = args.urls.iter().map(|url| event_url(url));
    let mut urls = urls.collect::<Usage<Vec<_>>>()?;
    let figure = args.expect.as_deref().map(|path| figure(path, args));
    let figure = figure.transpose()?;
    let asked = urls.len();
    if let Some(figure) = &figure {
        for at in figure.expected.asked(&args.places) {
            let url = if at.contains("://") {
                at
            } else {
                format!("http://{at}")
            };
            let mut url = event_url(&url)?;
            url.url.set_path("/");
            if urls.iter().all(|known| known.url != url.url) {
                urls.push(url);
            }
        }
        if urls.is_empty() {
            return Err(format!("{} shows no hop that could be asked", figure.name));
        }
    }
    let reach = reach(&args.reach, matches, &urls)?;
    Ok(Topology {
        upstreams: urls.iter().map(|url| reach.upstream(url)).collect(),
        asked,
        format: args.format,
        figure,
    })
}

fn figure(path: &Path, args: &TopologyArgs) -> Usage<Figure> {
    let name = path.display().to_string();
    let text = fs::read(path).map_err(|error| format!("{name}: {}", reason::io_text(&error)))?;
    let text = String::from_utf8(text).map_err(|_| format!("{name} is no text in UTF-8"))?;
    let figure = figure::Figure::parse(&text).map_err(|error| format!("{name}, {error}"))?;
    let expected = Expected::new(&figure, &args.places, &args.without);
    let expected = expected.map_err(|error| format!("{name}: {error}"))?;
    Ok(Figure { name, expected })
}
