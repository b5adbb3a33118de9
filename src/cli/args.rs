//! The flags as clap reads them. `--help` is written here.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{Parser, Subcommand, ValueEnum};

use super::limits::{LimitArgs, RouteLimitArgs};
use super::proxy::ProxyArgs;
use super::values;
use crate::client::{publish, tail};
use crate::endpoint::fanout::Overload;
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

    /// The URL path of the stream; with or without a leading slash
    #[arg(
        long,
        env = "WSEVENT_SERVE_PATH",
        value_name = "PATH",
        default_value = "events",
        help_heading = "Serving"
    )]
    pub serve_path: String,

    /// Address and path in one: localhost:9090/proxy-events or ws://localhost:9090/proxy-events
    #[arg(
        long,
        env = "WSEVENT_SERVE",
        value_name = "URL",
        help_heading = "Serving"
    )]
    pub serve: Option<String>,

    /// Keep the last events, up to so many bytes (and once more as encoded for each format that is read), for those who come later, come back, or are slow
    #[arg(long, env = "WSEVENT_HISTORY", value_name = "BYTES", default_value = "16MiB", value_parser = values::size, help_heading = "Serving")]
    pub history: usize,

    /// Keep no event for longer
    #[arg(long, env = "WSEVENT_HISTORY_AGE", value_name = "DURATION", value_parser = values::duration, help_heading = "Serving")]
    pub history_age: Option<Duration>,

    /// Keep at most so many events
    #[arg(long, env = "WSEVENT_HISTORY_COUNT", value_name = "N", value_parser = values::count, help_heading = "Serving")]
    pub history_count: Option<usize>,

    /// What happens to a subscriber that falls out of history: it is closed with 1013 (SSE and NDJSON end) and may resume, or it skips to the oldest event still held, after a gap notice
    #[arg(
        long,
        env = "WSEVENT_OVERLOAD",
        value_name = "POLICY",
        default_value = "disconnect",
        hide_possible_values = true,
        value_parser = values::overload,
        help_heading = "Serving"
    )]
    pub overload: Overload,

    /// Let clients publish: by POST, and by messages on a WebSocket
    #[arg(long, env = "WSEVENT_ACCEPT_PUBLISH", value_parser = BoolishValueParser::new(), help_heading = "Serving")]
    pub accept_publish: bool,

    /// The origins of pages that may read over HTTP and publish
    #[arg(
        long,
        env = "WSEVENT_ALLOW_ORIGIN",
        help = "Let pages of this origin read over HTTP and publish, such as https://app.example, or * for all; repeatable",
        value_name = "ORIGIN",
        help_heading = "Serving"
    )]
    pub allow_origin: Vec<String>,

    /// When stopping, how long subscribers may take to close
    #[arg(long, env = "WSEVENT_DRAIN", value_name = "DURATION", default_value = "5s", value_parser = values::duration, help_heading = "Serving")]
    pub drain: Duration,

    /// Consume this event URL (ws://, wss://, http:// or https://); repeatable, merged in order of arrival
    #[arg(
        long,
        env = "WSEVENT_CONSUME",
        value_name = "URL",
        hide_env_values = true,
        help_heading = "Sources"
    )]
    pub consume: Vec<String>,

    /// Consume ws://HOST:PORT/PATH, with --consume-path
    #[arg(
        long,
        env = "WSEVENT_CONSUME_ADDRESS",
        value_name = "HOST:PORT",
        help_heading = "Sources"
    )]
    pub consume_address: Option<String>,

    /// The path to consume at --consume-address
    #[arg(
        long,
        env = "WSEVENT_CONSUME_PATH",
        value_name = "PATH",
        default_value = "events",
        help_heading = "Sources"
    )]
    pub consume_path: String,

    /// Produce random events beside the other sources
    #[arg(long, env = "WSEVENT_PRODUCE", value_parser = BoolishValueParser::new(), help_heading = "Sources")]
    pub produce: bool,

    /// Produce no random events; the default when there is another source, or when clients may publish
    #[arg(long, env = "WSEVENT_NO_PRODUCE", value_parser = BoolishValueParser::new(), help_heading = "Sources")]
    pub no_produce: bool,

    /// How many random events to produce a second (fractions too), or max for as many as possible
    #[arg(long, env = "WSEVENT_PRODUCE_RATE", value_name = "N", default_value = "10", value_parser = values::rate, help_heading = "Sources")]
    pub produce_rate: Rate,

    /// The size of each random event; by default a counter, the serving address and ten random letters
    #[arg(long, env = "WSEVENT_PRODUCE_SIZE", value_name = "BYTES", value_parser = values::message_size, help_heading = "Sources")]
    pub produce_size: Option<usize>,

    /// What clients may cost the process
    #[command(flatten)]
    pub limits: LimitArgs,

    /// What they may cost each stream
    #[command(flatten)]
    pub route_limits: RouteLimitArgs,

    /// How to reach upstreams
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// How to reach the other side; the same for a hop, for `tail` and for `publish`.
#[derive(Debug, clap::Args)]
pub struct ConnectArgs {
    /// Trust the certificates in this PEM file too, beside the system's, for wss:// and https://
    #[arg(
        long,
        env = "WSEVENT_CONSUME_CA",
        value_name = "FILE",
        help_heading = "Connections"
    )]
    pub consume_ca: Option<PathBuf>,

    /// Send this header with every request or handshake; repeatable
    #[arg(
        long,
        env = "WSEVENT_CONSUME_HEADER",
        value_name = "NAME: VALUE",
        hide_env_values = true,
        help_heading = "Connections"
    )]
    pub consume_header: Vec<String>,

    /// Send this text as a message whenever a WebSocket is connected (not with publish); repeatable, in order
    #[arg(
        long,
        env = "WSEVENT_CONSUME_MESSAGE",
        value_name = "TEXT",
        hide_env_values = true,
        help_heading = "Connections"
    )]
    pub consume_message: Vec<String>,

    /// Ping the other side so often; if it is silent for two intervals, it is given up. Who reads SSE gets a comment as often, and every 15 s at least
    #[arg(long, env = "WSEVENT_PING_INTERVAL", value_name = "DURATION", default_value = "30s", value_parser = values::interval, help_heading = "Connections")]
    pub ping_interval: Duration,

    /// The largest event to take from anyone
    #[arg(long, env = "WSEVENT_MAX_MESSAGE_SIZE", value_name = "BYTES", default_value = "1MiB", value_parser = values::message_size, help_heading = "Connections")]
    pub max_message_size: usize,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print a stream, one event a line
    Tail(TailArgs),
    /// Publish events: one, or one a line
    Publish(PublishArgs),
    /// Bring each client to the next of several upstreams: a round-robin reverse proxy for connections that never end
    Proxy(Box<ProxyArgs>),
}

/// The flags of `tail`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Text is printed as it is, binary as base64. When the connection is lost, tail connects again, for ever, and goes on where it was, over a link to another wsevent and over HTTP; what is missing is said on standard error."
)]
pub struct TailArgs {
    /// The event URL (ws://, wss://, http:// or https://)
    pub url: String,

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
