//! Flags and environment variables, turned once into a typed [`Config`]. What does not fit together is a usage error.

mod args;
mod values;

use std::sync::Arc;
use std::time::Duration;

use clap::builder::Resettable;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches};
use hyper::http::HeaderMap;
use tokio_rustls::rustls::ClientConfig;
use url::Url;

pub use args::{Args, LogFormat};
use args::{Command, ConnectArgs, HopArgs};

use crate::client::tail::Tail;
use crate::endpoint::websocket::Settings;
use crate::reason;
use crate::source::produce::Produce;
use crate::source::websocket::{Upstream, tls_config};

/// What the process is to do.
pub struct Config {
    /// How to log.
    pub log: LogConfig,
    /// The role to play.
    pub role: Role,
}

/// How to log.
pub struct LogConfig {
    /// For a person or for a program.
    pub format: LogFormat,
    /// Which events, in the syntax of `RUST_LOG`.
    pub filter: String,
}

/// The roles of the one binary.
pub enum Role {
    /// Sources in, endpoints out.
    Hop(Hop),
    /// Prints a stream.
    Tail(Tail),
}

/// A hop: one route, as the flags describe it.
pub struct Hop {
    /// `host:port` to listen on.
    pub address: String,
    /// The path of the stream.
    pub path: String,
    /// Upstreams to read.
    pub upstreams: Vec<Upstream>,
    /// Random events, if wanted.
    pub produce: Option<Produce>,
    /// The bound of the history, in bytes.
    pub history: usize,
    /// What holds for each subscriber.
    pub subscribers: Settings,
    /// How long stopping may take.
    pub drain: Duration,
}

/// A usage error: what is wrong, and what to do.
type Usage<T> = Result<T, String>;

impl Config {
    /// Reads the process's flags and environment. Errors are usage errors and end the process with status 2; `--help`
    /// and `--version` end it with 0.
    pub fn from_process() -> Self {
        let mut command = without_empty_variables(Args::command());
        let matches = command.get_matches_mut();
        Self::from_matches(&matches).unwrap_or_else(|error| error.format(&mut command).exit())
    }

    fn from_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let args = Args::from_arg_matches(matches)?;
        let usage = |text: String| clap::Error::raw(ErrorKind::ValueValidation, text);
        let log = LogConfig {
            format: args.log_format,
            filter: args.log_level,
        };
        let role = match args.command {
            None => Role::Hop(hop(args.hop, matches).map_err(usage)?),
            Some(Command::Tail(tail)) => {
                no_hop_flags(matches).map_err(usage)?;
                let matches = matches
                    .subcommand_matches("tail")
                    .expect("this is the subcommand");
                let url = values::event_url(&tail.url).map_err(usage)?;
                let connect =
                    connect(&tail.connect, matches, std::slice::from_ref(&url)).map_err(usage)?;
                Role::Tail(Tail {
                    upstream: connect.upstream(&url),
                    count: tail.count,
                    timestamps: tail.timestamps,
                    exit_on_close: tail.exit_on_close,
                })
            }
        };
        Ok(Self { log, role })
    }
}

/// A variable that is set but empty counts as not set: `docker run -e` and compose files make such ones.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let is_empty = |arg: &clap::Arg| {
        let value = arg.get_env().and_then(std::env::var_os);
        value.is_some_and(|value| value.is_empty())
    };
    command
        .mut_args(|arg| {
            if is_empty(&arg) {
                arg.env(Resettable::Reset)
            } else {
                arg
            }
        })
        .mut_subcommands(without_empty_variables)
}

/// Where a flag's value comes from; a flag outranks the environment, which outranks the default.
fn given(matches: &ArgMatches, id: &str) -> u8 {
    match matches.value_source(id) {
        Some(ValueSource::CommandLine) => 2,
        Some(ValueSource::EnvVariable) => 1,
        _ => 0,
    }
}

/// Before a subcommand there is room for what counts in every role only.
fn no_hop_flags(matches: &ArgMatches) -> Usage<()> {
    let command = Args::command();
    let mut flags = command.get_arguments().filter(|flag| !flag.is_global_set());
    match flags.find(|flag| given(matches, flag.get_id().as_str()) == 2) {
        None => Ok(()),
        Some(flag) => Err(format!(
            "--{} before the subcommand is a flag of a hop: put it behind, if the subcommand has it",
            flag.get_long().unwrap_or_default()
        )),
    }
}

fn hop(args: HopArgs, matches: &ArgMatches) -> Usage<Hop> {
    let (address, path) = serve_at(&args, matches)?;
    let urls = consumed(&args, matches)?;
    let connect = connect(&args.connect, matches, &urls)?;
    let upstreams: Vec<_> = urls.iter().map(|url| connect.upstream(url)).collect();
    if upstreams.is_empty() {
        for flag in ["consume_ca", "consume_header", "consume_message"] {
            if given(matches, flag) == 2 {
                let flag = flag.replace('_', "-");
                return Err(format!(
                    "--{flag} says how to reach an upstream, but there is none: add --consume URL"
                ));
            }
        }
    }
    let produce = produces(&args, matches, upstreams.is_empty())?.then(|| Produce {
        address: address.clone(),
        rate: args.produce_rate,
        size: args.produce_size,
    });
    Ok(Hop {
        path,
        address,
        upstreams,
        produce,
        history: args.history,
        subscribers: Settings {
            ping_interval: args.connect.ping_interval,
            max_message_size: args.connect.max_message_size,
        },
        drain: args.drain,
    })
}

/// The address to listen on and the path to serve, from `--serve` or from the two flags that say the same.
fn serve_at(args: &HopArgs, matches: &ArgMatches) -> Usage<(String, String)> {
    let both = given(matches, "serve_address").max(given(matches, "serve_path"));
    let one = given(matches, "serve");
    // Two variables do not contradict each other so: an image may set the address, and its user all of it.
    if one == 2 && both == 2 {
        return Err(
            "--serve says address and path at once: leave out --serve-address and --serve-path"
                .into(),
        );
    }
    match &args.serve {
        Some(serve) if one > 0 && one >= both => values::address_and_path(serve),
        _ => {
            values::check_address(&args.serve_address)
                .map_err(|error| format!("--serve-address: {error}"))?;
            let path =
                values::path(&args.serve_path).map_err(|error| format!("--serve-path: {error}"))?;
            Ok((args.serve_address.clone(), path))
        }
    }
}

/// The event URLs to consume, from `--consume` and from the two flags that say the same for one.
fn consumed(args: &HopArgs, matches: &ArgMatches) -> Usage<Vec<Url>> {
    let mut urls: Vec<_> = match given(matches, "consume") {
        // URLs hold no white space, so that it can separate them in a variable.
        1 => args
            .consume
            .iter()
            .flat_map(|list| list.split_whitespace())
            .collect(),
        _ => args.consume.iter().map(String::as_str).collect(),
    };
    let parts = given(matches, "consume_address").max(given(matches, "consume_path"));
    let composed;
    if let Some(address) = &args.consume_address {
        values::check_address(address).map_err(|error| format!("--consume-address: {error}"))?;
        let path =
            values::path(&args.consume_path).map_err(|error| format!("--consume-path: {error}"))?;
        composed = format!("ws://{address}{path}");
        // A flag outranks a variable: `--consume` on the command line is not joined by an address from the environment.
        match parts.cmp(&given(matches, "consume")) {
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Equal => urls.push(&composed),
            std::cmp::Ordering::Greater => urls = vec![&composed],
        }
    } else if given(matches, "consume_path") == 2 {
        return Err(
            "--consume-path needs --consume-address HOST:PORT (or say both with --consume URL)"
                .into(),
        );
    }
    urls.into_iter().map(values::event_url).collect()
}

/// Whether to produce random events.
fn produces(args: &HopArgs, matches: &ArgMatches, no_upstream: bool) -> Usage<bool> {
    let wanted = if args.produce {
        given(matches, "produce")
    } else {
        0
    };
    let unwanted = if args.no_produce {
        given(matches, "no_produce")
    } else {
        0
    };
    if wanted > 0 && wanted == unwanted {
        return Err("--produce and --no-produce exclude each other".into());
    }
    let produces = if wanted == unwanted {
        no_upstream
    } else {
        wanted > unwanted
    };
    if !produces && no_upstream {
        return Err(
            "with --no-produce and no source nothing could bring events: add --consume URL".into(),
        );
    }
    if !produces {
        for flag in ["produce_rate", "produce_size"] {
            if given(matches, flag) == 2 {
                let flag = flag.replace('_', "-");
                return Err(format!(
                    "--{flag} has no effect without the generator: add --produce"
                ));
            }
        }
    }
    Ok(produces)
}

/// How to reach upstreams, all alike.
struct Connect {
    headers: HeaderMap,
    messages: Vec<String>,
    /// There when a URL asks for it.
    tls: Option<Arc<ClientConfig>>,
    max_message_size: usize,
    ping_interval: Duration,
}

/// `urls` are those it is for.
fn connect(args: &ConnectArgs, matches: &ArgMatches, urls: &[Url]) -> Usage<Connect> {
    // In a variable one line is one value; on the command line a message may well have several lines.
    let lines = |id, values: &[String]| -> Vec<String> {
        match given(matches, id) {
            1 => values
                .iter()
                .flat_map(|value| value.lines())
                .map(str::to_owned)
                .collect(),
            _ => values.to_vec(),
        }
    };
    let headers = lines("consume_header", &args.consume_header);
    let mut parsed = HeaderMap::new();
    for header in &headers {
        let (name, value) = values::header(header)?;
        parsed.append(name, value);
    }
    // Reading the system's roots takes a while, so only when they are needed.
    let wants_tls = args.consume_ca.is_some() || urls.iter().any(|url| url.scheme() == "wss");
    let tls = wants_tls
        .then(|| tls_config(args.consume_ca.as_deref()))
        .transpose();
    Ok(Connect {
        headers: parsed,
        messages: lines("consume_message", &args.consume_message),
        tls: tls.map_err(|error| format!("--consume-ca: {}", reason::of(&error)))?,
        max_message_size: args.max_message_size,
        ping_interval: args.ping_interval,
    })
}

impl Connect {
    fn upstream(&self, url: &Url) -> Upstream {
        Upstream {
            url: url.clone(),
            headers: self.headers.clone(),
            messages: self.messages.clone(),
            tls: self.tls.clone().filter(|_| url.scheme() == "wss"),
            max_message_size: self.max_message_size,
            ping_interval: self.ping_interval,
        }
    }
}
