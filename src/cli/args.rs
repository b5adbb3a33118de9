//! The flags as clap reads them. `--help` is written here.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{Parser, Subcommand, ValueEnum};

use super::values;
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
  wsevent tail ws://localhost:9090/proxy-events
      print a stream, one event a line

A flag wins over its environment variable. In a variable, several values of a repeatable flag stand on a line each.
Exit status: 0 after SIGINT or SIGTERM, 1 for what fails at run time, 2 for wrong usage.";

/// Moves endless event streams over point-to-point links: one connection in, thousands of subscribers out, no broker.
///
/// Without a subcommand, wsevent is a hop: it reads events from its sources and serves them at one URL, to any number of
/// WebSocket subscribers. What it serves is again an event URL, so instances chain. Without a source it produces random
/// events.
#[derive(Debug, Parser)]
#[command(
    name = "wsevent",
    version,
    after_help = EXAMPLES,
    disable_help_subcommand = true
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

    /// Keep the last events for slow readers, up to so many bytes (and once more as encoded for them); one that falls further behind is closed with 1013
    #[arg(long, env = "WSEVENT_HISTORY", value_name = "BYTES", default_value = "16MiB", value_parser = values::size, help_heading = "Serving")]
    pub history: usize,

    /// When stopping, how long subscribers may take to close
    #[arg(long, env = "WSEVENT_DRAIN", value_name = "DURATION", default_value = "5s", value_parser = values::duration, help_heading = "Serving")]
    pub drain: Duration,

    /// Consume this event URL (ws:// or wss://); repeatable, merged in order of arrival
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

    /// Produce no random events; the default when there is another source
    #[arg(long, env = "WSEVENT_NO_PRODUCE", value_parser = BoolishValueParser::new(), help_heading = "Sources")]
    pub no_produce: bool,

    /// How many random events to produce a second (fractions too), or max for as many as possible
    #[arg(long, env = "WSEVENT_PRODUCE_RATE", value_name = "N", default_value = "10", value_parser = values::rate, help_heading = "Sources")]
    pub produce_rate: Rate,

    /// The size of each random event; by default a counter, the serving address and ten random letters
    #[arg(long, env = "WSEVENT_PRODUCE_SIZE", value_name = "BYTES", value_parser = values::message_size, help_heading = "Sources")]
    pub produce_size: Option<usize>,

    /// How to reach upstreams
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// How to reach an upstream; the same for a hop and for `tail`.
#[derive(Debug, clap::Args)]
pub struct ConnectArgs {
    /// Trust the certificates in this PEM file too, beside the system's, for wss://
    #[arg(
        long,
        env = "WSEVENT_CONSUME_CA",
        value_name = "FILE",
        help_heading = "Connections"
    )]
    pub consume_ca: Option<PathBuf>,

    /// Send this header with the handshake to every upstream; repeatable
    #[arg(
        long,
        env = "WSEVENT_CONSUME_HEADER",
        value_name = "NAME: VALUE",
        hide_env_values = true,
        help_heading = "Connections"
    )]
    pub consume_header: Vec<String>,

    /// Send this text to every upstream on every connect; repeatable, in order
    #[arg(
        long,
        env = "WSEVENT_CONSUME_MESSAGE",
        value_name = "TEXT",
        hide_env_values = true,
        help_heading = "Connections"
    )]
    pub consume_message: Vec<String>,

    /// Ping subscribers and upstreams so often; one that is silent for two intervals is given up
    #[arg(long, env = "WSEVENT_PING_INTERVAL", value_name = "DURATION", default_value = "30s", value_parser = values::interval, help_heading = "Connections")]
    pub ping_interval: Duration,

    /// The largest message to take from anyone
    #[arg(long, env = "WSEVENT_MAX_MESSAGE_SIZE", value_name = "BYTES", default_value = "1MiB", value_parser = values::message_size, help_heading = "Connections")]
    pub max_message_size: usize,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print a stream, one event a line
    Tail(TailArgs),
}

/// The flags of `tail`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Text is printed as it is, binary as base64. When the connection is lost, tail connects again, forever."
)]
pub struct TailArgs {
    /// The event URL (ws:// or wss://)
    pub url: String,

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

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For a person; with colours on a terminal
    Human,
    /// One JSON object a line
    Json,
}
