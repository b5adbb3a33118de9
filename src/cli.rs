//! Flags and environment variables, turned once into a typed [`Config`]. What does not fit together is a usage error.

mod args;
mod limits;
mod proxy;
mod values;

use std::sync::Arc;
use std::time::Duration;

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches};
use hyper::http::HeaderMap;
use tokio_rustls::rustls::ClientConfig;
use url::Url;

pub use args::{Args, LogFormat};
use args::{Command, ConnectArgs, HopArgs, PublishArgs};

use crate::client::publish::{Data, Publish};
use crate::client::tail::Tail;
use crate::client::{publish, tail};
use crate::endpoint::fanout::Settings;
use crate::reason;
use crate::route::Origins;
use crate::source::produce::Produce;
use crate::source::upstream::Upstream;
use crate::stream::history::Limits;
use crate::tls::client_config;

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
    /// Sends events.
    Publish(Publish),
    /// Brings each client to an upstream.
    Proxy(Box<crate::proxy::Config>),
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
    /// The bounds of the history.
    pub history: Limits,
    /// What holds for each subscriber.
    pub subscribers: Settings,
    /// The pages of other servers that are let in.
    pub origins: Origins,
    /// What clients may cost.
    pub limits: crate::server::limits::Limits,
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
        let matches = match command.try_get_matches_from_mut(std::env::args_os()) {
            Ok(matches) => matches,
            Err(error) if names_a_url(&error) => {
                clap::Error::raw(ErrorKind::InvalidSubcommand, BARE_URL)
                    .format(&mut command)
                    .exit()
            }
            Err(error) => error.exit(),
        };
        Self::from_matches(&matches).unwrap_or_else(|error| {
            let subcommand = matches.subcommand_name();
            let command = match subcommand {
                // It has a usage of its own.
                Some(name) => command.find_subcommand_mut(name).expect("it was found"),
                None => &mut command,
            };
            error.format(command).exit()
        })
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
                let transport = tail.transport.unwrap_or_else(|| tail::Transport::of(&url));
                let url = transport.mapped(url);
                let connect =
                    connect(&tail.connect, matches, std::slice::from_ref(&url)).map_err(usage)?;
                Role::Tail(Tail {
                    upstream: connect.upstream(&url),
                    transport,
                    history: tail.history,
                    last_event_id: tail.last_event_id,
                    count: tail.count,
                    timestamps: tail.timestamps,
                    exit_on_close: tail.exit_on_close,
                })
            }
            Some(Command::Publish(publish)) => {
                no_hop_flags(matches).map_err(usage)?;
                let matches = matches
                    .subcommand_matches("publish")
                    .expect("this is the subcommand");
                Role::Publish(self::publish(publish, matches).map_err(usage)?)
            }
            Some(Command::Proxy(proxy)) => {
                no_hop_flags(matches).map_err(usage)?;
                let matches = matches
                    .subcommand_matches("proxy")
                    .expect("this is the subcommand");
                let config = proxy::config(*proxy, matches).map_err(usage)?;
                Role::Proxy(Box::new(config))
            }
        };
        Ok(Self { log, role })
    }
}

/// What to say to whoever gives a URL and nothing that says what to do with it.
const BARE_URL: &str = "a URL alone does not say what to do; to print it: wsevent tail URL; to serve it again: wsevent --consume URL";

/// Whether a URL stands where a subcommand should.
fn names_a_url(error: &clap::Error) -> bool {
    matches!(
        error.get(ContextKind::InvalidSubcommand),
        Some(ContextValue::String(name)) if name.contains("://")
    )
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
    // Who publishes is a source as well.
    let has_source = !upstreams.is_empty() || args.accept_publish;
    let produce = produces(&args, matches, has_source)?.then(|| Produce {
        address: address.clone(),
        rate: args.produce_rate,
        size: args.produce_size,
    });
    let mut origins = lines(matches, "allow_origin", &args.allow_origin);
    for origin in &mut origins {
        // As it stands in an address bar; a browser says it without.
        if let Some(bare) = origin.strip_suffix('/') {
            *origin = bare.to_owned();
        }
    }
    if let Some(wrong) = origins.iter().find(|origin| !values::is_origin(origin)) {
        return Err(format!(
            "--allow-origin: '{wrong}' is no origin, such as https://app.example, and not *"
        ));
    }
    Ok(Hop {
        path,
        address,
        upstreams,
        produce,
        history: Limits {
            bytes: args.history,
            count: args.history_count,
            age: args.history_age,
        },
        subscribers: Settings {
            ping_interval: args.connect.ping_interval,
            max_message_size: args.connect.max_message_size,
            overload: args.overload,
            accept_publish: args.accept_publish,
            max_publish_rate: limits::max_publish_rate(
                &args.route_limits,
                args.accept_publish,
                matches,
            )?,
        },
        limits: args.limits.limits(args.connect.max_message_size)?,
        origins: Origins(origins),
        drain: args.drain,
    })
}

fn publish(args: PublishArgs, matches: &ArgMatches) -> Usage<Publish> {
    let url = values::event_url(&args.url)?;
    let transport = args
        .transport
        .unwrap_or_else(|| publish::Transport::of(&url));
    let mut url = transport.mapped(url);
    for (name, label) in [("type", &args.r#type), ("key", &args.key)] {
        if let Some(label) = label {
            url.query_pairs_mut().append_pair(name, label);
        }
    }
    if given(matches, "consume_message") == 2 {
        return Err("--consume-message would be published: give DATA instead".into());
    }
    if given(matches, "ids") == 2 && transport == publish::Transport::Websocket {
        return Err("--ids needs http://: over a WebSocket nobody says what they are".into());
    }
    let connect = connect(&args.connect, matches, std::slice::from_ref(&url))?;
    let mut upstream = connect.upstream(&url);
    upstream.messages.clear();
    let data = match (args.data, args.whole) {
        (Some(_), true) if given(matches, "whole") == 2 => {
            return Err("DATA and --whole exclude each other".into());
        }
        (Some(data), _) => Data::Given(data),
        (None, true) => Data::Whole,
        (None, false) => Data::Lines,
    };
    Ok(Publish {
        upstream,
        transport,
        data,
        binary: args.binary,
        rate: args.rate,
        ids: args.ids,
        retry: args.retry,
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
fn produces(args: &HopArgs, matches: &ArgMatches, has_source: bool) -> Usage<bool> {
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
        !has_source
    } else {
        wanted > unwanted
    };
    if !produces && !has_source {
        return Err(
            "with --no-produce and no source nothing could bring events: add --consume URL or --accept-publish".into(),
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

/// The values of a repeatable flag. In a variable one line is one value; on the command line a value may well have several
/// lines.
fn lines(matches: &ArgMatches, id: &str, values: &[String]) -> Vec<String> {
    match given(matches, id) {
        1 => {
            let lines = values.iter().flat_map(|value| value.lines());
            lines.map(str::to_owned).collect()
        }
        _ => values.to_vec(),
    }
}

/// `urls` are those it is for.
fn connect(args: &ConnectArgs, matches: &ArgMatches, urls: &[Url]) -> Usage<Connect> {
    let headers = lines(matches, "consume_header", &args.consume_header);
    let mut parsed = HeaderMap::new();
    for header in &headers {
        let (name, value) = values::header(header)?;
        parsed.append(name, value);
    }
    let is_http = |url: &Url| matches!(url.scheme(), "http" | "https");
    if given(matches, "consume_message") == 2 && !urls.is_empty() && urls.iter().all(is_http) {
        return Err(
            "--consume-message goes over a WebSocket: http:// and https:// have no room for it"
                .into(),
        );
    }
    // Reading the system's roots takes a while, so only when they are needed.
    let is_secure = |url: &Url| matches!(url.scheme(), "wss" | "https");
    let wants_tls = args.consume_ca.is_some() || urls.iter().any(is_secure);
    let tls = wants_tls
        .then(|| client_config(args.consume_ca.as_deref()))
        .transpose();
    Ok(Connect {
        headers: parsed,
        messages: lines(matches, "consume_message", &args.consume_message),
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
            // A redirect may lead from http:// to https://.
            tls: self.tls.clone().filter(|_| url.scheme() != "ws"),
            max_message_size: self.max_message_size,
            ping_interval: self.ping_interval,
        }
    }
}
