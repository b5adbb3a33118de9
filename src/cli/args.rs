//! The flags as clap reads them. `--help` is written here.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{Parser, Subcommand, ValueEnum};

use super::admin::AdminArgs;
use super::auth::AuthArgs;
use super::bench::BenchArgs;
use super::check::CheckArgs;
use super::config::ConfigArgs;
use super::connect::ConnectArgs;
use super::doctor::DoctorArgs;
use super::explain::ExplainArgs;
#[cfg(feature = "zeromq")]
use super::forwarder::ForwarderArgs;
use super::limits::LimitArgs;
use super::pages::{CompletionsArgs, ManArgs};
use super::proxy::ProxyArgs;
use super::record::RecordArgs;
use super::replay::ReplayArgs;
use super::route::RouteArgs;
use super::tls::TlsArgs;
use super::topology::TopologyArgs;
use super::trace::TraceArgs;
use super::values;
use crate::client::{publish, tail};
use crate::source::produce::Rate;

const EXAMPLES: &str = "\
Examples:
  wsevent
      produce random events on ws://localhost:8080/events, ten a second
  wsevent --consume ws://localhost:8080/events --serve localhost:9090/proxy-events
      a hop: read that stream over one connection, serve it again to everyone
  wsevent --consume wss://feed.example/v1 --consume-header 'Authorization: Bearer ...' \\
          --consume-message '{\"op\":\"subscribe\",\"channel\":\"trades\"}'
      anybody's WebSocket; the header and the message are sent on every connect
  wsevent --consume https://feed.example/sse
      anybody's server-sent events; after a lost connection it goes on where it was
  wsevent --accept-publish
      a stream of what clients publish, on the same URL
  wsevent --config wsevent.toml
      many routes in one process, from a file with the names of these flags; SIGHUP reads it again
  wsevent publish http://localhost:8080/events 'an event'
      publish there; without the event, each line of standard input is one
  wsevent tail ws://localhost:9090/proxy-events
      print a stream, one event a line

A flag wins over its environment variable. In a variable, several values of a repeatable flag stand on a line each.
Exit status: 0 after SIGINT or SIGTERM, 1 for what fails at run time, 2 for wrong usage.";

/// Moves endless event streams over point-to-point links: one connection in, thousands of subscribers out, no broker.
///
/// Without a subcommand, wsevent is a hop: it reads events from its sources and serves them at one URL, to everyone, over
/// WebSocket, Server-Sent Events or NDJSON. What it serves is again an event URL, so instances chain. Without a source it produces random
/// events.
#[derive(Debug, Parser)]
#[command(
    name = "wsevent",
    version,
    after_help = EXAMPLES
)]
pub struct Args {
    /// What to do; a hop if nothing is named
    #[command(subcommand)]
    pub command: Option<Command>,

    /// How to log to standard error
    #[arg(
        long,
        env = "WSEVENT_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "human",
        global = true
    )]
    pub log_format: LogFormat,

    /// What to log: error, warn, info, debug or trace, or directives as in RUST_LOG, which counts when this is not given
    #[arg(long, env = "WSEVENT_LOG_LEVEL", value_name = "LEVEL", default_value_t = values::default_log_level(), value_parser = values::log_filter, hide_default_value = true, global = true)]
    pub log_level: String,

    /// The hop's flags
    #[command(flatten)]
    pub hop: HopArgs,
}

/// The flags of a hop.
#[derive(Debug, clap::Args)]
pub struct HopArgs {
    /// Where to listen; port 0 takes any free port
    #[arg(
        long,
        env = "WSEVENT_SERVE_ADDRESS",
        value_name = "HOST:PORT",
        default_value = "localhost:8080",
        help_heading = "Serving"
    )]
    pub serve_address: String,

    /// Address and path in one: localhost:9090/proxy-events or ws://localhost:9090/proxy-events
    #[arg(
        long,
        env = "WSEVENT_SERVE",
        value_name = "URL",
        help_heading = "Serving"
    )]
    pub serve: Option<String>,

    /// When stopping, how long all of it may take: after SIGTERM each subscriber is sent away at a moment of its own in the first three quarters
    #[arg(long, env = "WSEVENT_DRAIN", value_name = "DURATION", default_value = "5s", value_parser = values::duration, help_heading = "Serving")]
    pub drain: Duration,

    /// Take over from the instance that listens at this Unix socket, with its subscribers, and listen there for the next one
    #[arg(
        long,
        env = "WSEVENT_TAKEOVER",
        value_name = "PATH",
        help_heading = "Serving"
    )]
    pub takeover: Option<PathBuf>,

    /// Where the process tells how it is
    #[command(flatten)]
    pub admin: AdminArgs,

    /// Where many routes are described
    #[command(flatten)]
    pub config: ConfigArgs,

    /// What clients may cost the process
    #[command(flatten)]
    pub limits: LimitArgs,

    /// TLS in front
    #[command(flatten)]
    pub tls: TlsArgs,

    /// Who may what
    #[command(flatten)]
    pub auth: AuthArgs,

    /// What is served
    #[command(flatten)]
    pub route: RouteArgs,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print a stream, one event a line
    Tail(TailArgs),
    /// Publish events: one, or one a line
    Publish(PublishArgs),
    /// Load a stream with subscribers, and say how many, and how many events a second, it carries
    Bench(Box<BenchArgs>),
    /// Write a stream into a file, to be served again by replay
    Record(RecordArgs),
    /// Serve what a file holds, as a hop whose source it is, with the pauses between events as they were
    Replay(Box<ReplayArgs>),
    /// Print the way that an event has come, hop by hop, with the time that each link has taken
    Trace(TraceArgs),
    /// Draw what runs: hops, and the links between them, from these upstream
    Topology(TopologyArgs),
    /// Bring each client to the next of several upstreams: a round-robin reverse proxy for connections that never end
    Proxy(Box<ProxyArgs>),
    /// Bring what ZeroMQ publishers send to ZeroMQ subscribers: a fixed point for both (XSUB and XPUB)
    #[cfg(feature = "zeromq")]
    Forwarder(ForwarderArgs),
    /// Say what is wrong with a configuration file, each mistake with its line
    Check(CheckArgs),
    /// Say what a hop with these flags, or this configuration file, serves at a URL, and how; nothing is connected
    Explain(Box<ExplainArgs>),
    /// Say whether a hop with these flags, or this configuration file, has what it needs on this machine, and what to change
    Doctor(Box<DoctorArgs>),
    /// Print what a shell needs to complete flags and subcommands: source <(wsevent completions bash)
    Completions(CompletionsArgs),
    /// Print the manual page of wsevent, or of a subcommand: wsevent man tail | man -l -
    Man(ManArgs),
}

/// The flags of `tail`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Text is printed as it is, binary as base64. When the connection is lost, tail connects again, for ever, and goes on where it was, over a link to another wsevent and over HTTP; what is missing is said on standard error. Of several URLs it reads the first that answers, and goes on at the next when that is lost; it ends if all refuse."
)]
pub struct TailArgs {
    /// The event URL (ws://, wss://, http:// or https://); more than one if each serves the same events
    #[arg(required = true)]
    pub url: Vec<String>,

    /// Read the stream over websocket, sse or ndjson, whatever the scheme of the URL; by default http:// and https:// mean sse
    #[arg(
        long,
        env = "WSEVENT_TRANSPORT",
        value_name = "TRANSPORT",
        hide_possible_values = true
    )]
    pub transport: Option<tail::Transport>,

    /// Begin so many events earlier, or with all that the server still has (all)
    // The variable of the hop's flag of this name holds a size.
    #[arg(long, env = "WSEVENT_TAIL_HISTORY", value_name = "N", value_parser = values::past)]
    pub history: Option<String>,

    /// Begin right behind this event
    #[arg(long, env = "WSEVENT_LAST_EVENT_ID", value_name = "ID")]
    pub last_event_id: Option<String>,

    /// End after so many events
    #[arg(long, env = "WSEVENT_COUNT", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,

    /// Begin each line with the time of arrival
    #[arg(long, env = "WSEVENT_TIMESTAMPS", value_parser = BoolishValueParser::new())]
    pub timestamps: bool,

    /// End when the connection ends, rather than connecting again
    #[arg(long, env = "WSEVENT_EXIT_ON_CLOSE", value_parser = BoolishValueParser::new())]
    pub exit_on_close: bool,

    /// How to reach the stream
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// The flags of `publish`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The server must let clients publish (--accept-publish). Text that is not UTF-8 is sent as binary. Over HTTP the ids of the events are known, and a request whose answer was lost is sent again, without being published twice. The exit status is 0 only if all events were accepted."
)]
pub struct PublishArgs {
    /// The event URL (http://, https://, ws:// or wss://)
    pub url: String,

    /// The event; without it, each line of standard input is one
    pub data: Option<String>,

    /// Publish by POST (http) or by messages on a WebSocket (websocket), whatever the scheme of the URL
    #[arg(
        long,
        env = "WSEVENT_PUBLISH_TRANSPORT",
        value_name = "TRANSPORT",
        hide_possible_values = true
    )]
    pub transport: Option<publish::Transport>,

    /// The type of the events
    #[arg(long, env = "WSEVENT_TYPE", value_name = "TYPE")]
    pub r#type: Option<String>,

    /// The key of the events: what they are about
    #[arg(long, env = "WSEVENT_KEY", value_name = "KEY")]
    pub key: Option<String>,

    /// Publish at most so many events a second (fractions too), or max for as many as possible
    #[arg(long, env = "WSEVENT_RATE", value_name = "N", default_value = "max", value_parser = values::rate)]
    pub rate: Rate,

    /// Publish all of standard input as one event
    #[arg(long, env = "WSEVENT_WHOLE", value_parser = BoolishValueParser::new())]
    pub whole: bool,

    /// Publish binary events, even if they could be text
    #[arg(long, env = "WSEVENT_BINARY", value_parser = BoolishValueParser::new())]
    pub binary: bool,

    /// Print the id of each event (HTTP only); a single event's is printed anyway
    #[arg(long, env = "WSEVENT_IDS", value_parser = BoolishValueParser::new())]
    pub ids: bool,

    /// Over HTTP, how long to try again when the server goes away after its first answer; it does not publish twice, unless it was started again and has forgotten what it had
    #[arg(long, env = "WSEVENT_RETRY", value_name = "DURATION", default_value = "30s", value_parser = values::duration)]
    pub retry: Duration,

    /// How to reach the stream
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For a person; with colours on a terminal
    Human,
    /// One JSON object a line
    Json,
}
