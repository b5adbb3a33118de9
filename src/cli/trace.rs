//! The flags of `wsevent trace`.

use clap::ArgMatches;
use clap::builder::BoolishValueParser;

use super::Usage;
use super::connect::{ReachArgs, event_url, reach};
use crate::client::tail::Transport;
use crate::client::trace::{Event, Trace};
use crate::event::EventId;

const EXAMPLES: &str = "\
Examples:
  wsevent trace ws://localhost:9090/events
      the way of the next event: each hop that it comes through, with the time that each link has taken
  wsevent trace ws://localhost:9090/events --event 0H3B6Q2ZK7M9T-42 --json
      that of an event that is still held, for programs

Clocks differ: each hop compares its own with the next one's, and a time is given with what it may be wrong by (±) where that
shows. Exit status: 0 if a way was found, whole or not; 1 if not; 2 for wrong usage.";

/// The flags of `trace`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct TraceArgs {
    /// The event URL (ws://, wss://, http:// or https://)
    pub url: String,

    /// The event with this id, which must be held yet; without it, the next that comes
    #[arg(long, env = "WSEVENT_EVENT", value_name = "ID", conflicts_with_all = ["history", "count"])]
    pub event: Option<EventId>,

    /// The last event that is held, and not the next that comes
    #[arg(long, env = "WSEVENT_TRACE_HISTORY", value_parser = BoolishValueParser::new(), conflicts_with = "count")]
    pub history: bool,

    /// So many events, one after the other
    #[arg(long, env = "WSEVENT_COUNT", value_name = "N", default_value = "1", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: u64,

    /// Print each way as one JSON object a line
    #[arg(long, env = "WSEVENT_JSON", value_parser = BoolishValueParser::new())]
    pub json: bool,

    /// How to reach the stream
    #[command(flatten)]
    pub reach: ReachArgs,
}

/// What the flags say.
pub fn trace(args: &TraceArgs, matches: &ArgMatches) -> Usage<Trace> {
    let mut url = event_url(&args.url)?;
    url.url = Transport::Ndjson.mapped(url.url);
    let reach = reach(&args.reach, matches, std::slice::from_ref(&url))?;
    Ok(Trace {
        upstream: reach.upstream(&url),
        event: match (args.event, args.history) {
            (Some(id), _) => Event::This(id),
            (None, true) => Event::Last,
            (None, false) => Event::Next(args.count),
        },
        json: args.json,
    })
}
