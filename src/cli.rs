//! Flags, environment variables and a file, turned once into a typed [`Config`]. What does not fit together is a usage error.

mod admin;
mod args;
mod auth;
mod bench;
mod bus;
pub mod check;
pub mod config;
mod connect;
mod doctor;
pub mod explain;
#[cfg(feature = "zeromq")]
mod forwarder;
mod limits;
mod links;
mod pages;
mod proxy;
mod record;
mod replay;
mod retain;
mod route;
mod tls;
mod topology;
mod trace;
mod values;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process;
use std::sync::Arc;
use std::time::Duration;

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches};

pub use args::{Args, LogFormat};
use args::{Command, HopArgs, PublishArgs};
use connect::{connect, event_url, none_to_talk_to};

use crate::auth::Auth;
use crate::client::publish::{Data, Publish};
use crate::client::reading::Reading;
use crate::client::record::Record;
use crate::client::tail::Tail;
use crate::client::{self, publish, tail};
use crate::listen::handed;
use crate::listen::tls::Tls;
use crate::recording::inspect::Inspect;
use crate::route::Policy;
use crate::source::websocket::login::Talk;
use check::Check;
use config::{ConfigFile, Unusable};
use doctor::DoctorArgs;
use explain::Explain;
use pages::Pages;

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
    /// Writes a stream into a file.
    Record(Box<Record>),
    /// Says what is in such a file.
    Inspect(Inspect),
    /// Sends events.
    Publish(Publish),
    /// Loads a server.
    Bench(Box<client::bench::Bench>),
    /// Prints what hops come from.
    Topology(client::topology::Topology),
    /// Prints the way of an event.
    Trace(Box<client::trace::Trace>),
    /// Brings each client to an upstream.
    Proxy(Box<crate::proxy::Config>),
    /// Brings what ZeroMQ publishers send to ZeroMQ subscribers.
    #[cfg(feature = "zeromq")]
    Forwarder(crate::bus::zeromq::forwarder::Config),
    /// Looks at a configuration file.
    Check(Check),
    /// Says what a hop serves at a URL.
    Explain(Box<Explain>),
    /// Says whether a hop has what it needs.
    Doctor(Box<crate::doctor::Doctor>),
    /// Writes what shells and `man` need.
    Pages(Pages),
}

/// A hop.
pub struct Hop {
    /// `host:port` to listen on.
    pub address: String,
    /// `host:port` to tell at how it is, if it is to.
    pub admin: Option<String>,
    /// Where traces are brought to, if that is said.
    #[cfg(feature = "otel")]
    pub collector: Option<url::Url>,
    /// What it serves there.
    pub routes: Vec<Policy>,
    /// Says who may what; none if everyone may everything.
    pub auth: Option<Arc<Auth>>,
    /// What clients may cost.
    pub limits: crate::server::limits::Limits,
    /// How long stopping may take.
    pub drain: Duration,
    /// Where it takes over from whoever runs, and where others may take over from it.
    pub takeover: Option<PathBuf>,
    /// TLS for clients.
    pub tls: Option<Arc<Tls>>,
    /// The file that the routes come from, if they do.
    pub file: Option<ConfigFile>,
}

impl Config {
    /// Where a hop's traces are brought to, if that is said.
    #[cfg(feature = "otel")]
    pub fn collector(&self) -> Option<&url::Url> {
        match &self.role {
            Role::Hop(hop) => hop.collector.as_ref(),
            _ => None,
        }
    }
}

/// A usage error: what is wrong, and what to do.
type Usage<T> = Result<T, String>;

impl Config {
    /// Reads the process's flags, its environment, and its file if there is one. Errors are usage errors and end the process with
    /// status 2; `--help` and `--version` end it with 0.
    pub fn from_process() -> Self {
        let args: Vec<OsString> = std::env::args_os().collect();
        let named = ConfigFile::named(args.clone())
            .map_err(|text| usage(text).format(&mut Args::command()).into());
        let config = named.and_then(|file| match file {
            Some(file) => Self::from_file(&file),
            None => Self::from_args(&args),
        });
        config.unwrap_or_else(|error| match error {
            Unusable::File(..) => {
                eprint!("{error}");
                process::exit(2)
            }
            Unusable::Usage(error) => error.exit(),
        })
    }

    fn from_args(args: &[OsString]) -> Result<Self, Unusable> {
        let mut command = without_empty_variables(Args::command());
        let matches = match command.try_get_matches_from_mut(args) {
            Err(error) if names_a_url(&error) => {
                let error = clap::Error::raw(ErrorKind::InvalidSubcommand, BARE_URL);
                return Err(error.format(&mut command).into());
            }
            #[cfg(not(feature = "otel"))]
            Err(error) if wants_traces(&error) => {
                let error = clap::Error::raw(ErrorKind::UnknownArgument, NO_TRACES);
                return Err(error.format(&mut command).into());
            }
            matches => matches?,
        };
        Self::from_matches(&matches)
            .map_err(|error| formatted(error, &mut command, &matches).into())
    }

    fn from_file(file: &ConfigFile) -> Result<Self, Unusable> {
        let loaded = file.load()?;
        let matches = &loaded.matches;
        let args = Args::from_arg_matches(matches)?;
        let role = match args.command {
            Some(Command::Explain(explain)) => Self::explain(&explain.target, loaded.hop, matches)?,
            Some(Command::Doctor(doctor)) => Self::doctor(*doctor, Some(loaded.hop), matches)?,
            _ => Role::Hop(loaded.hop),
        };
        let log = LogConfig {
            format: args.log_format,
            filter: args.log_level,
        };
        Ok(Self { log, role })
    }

    fn explain(target: &str, hop: Hop, matches: &ArgMatches) -> Result<Role, clap::Error> {
        no_hop_flags(matches).map_err(usage)?;
        let matches = matches
            .subcommand_matches("explain")
            .expect("this is the subcommand");
        let explain = Explain::new(target, hop, matches).map_err(usage)?;
        Ok(Role::Explain(Box::new(explain)))
    }

    fn doctor(
        args: DoctorArgs,
        of_file: Option<Hop>,
        matches: &ArgMatches,
    ) -> Result<Role, clap::Error> {
        no_hop_flags(matches).map_err(usage)?;
        let matches = matches
            .subcommand_matches("doctor")
            .expect("this is the subcommand");
        let doctor = doctor::doctor(args, of_file, matches).map_err(usage)?;
        Ok(Role::Doctor(Box::new(doctor)))
    }

    fn from_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let args = Args::from_arg_matches(matches)?;
        let log = LogConfig {
            format: args.log_format,
            filter: args.log_level,
        };
        let role = match args.command {
            None => Role::Hop(hop(args.hop, matches, None, Files::Read).map_err(usage)?),
            Some(Command::Check(check)) => {
                no_hop_flags(matches).map_err(usage)?;
                Role::Check(Check {
                    file: ConfigFile::at(&check.file).map_err(usage)?,
                })
            }
            Some(Command::Explain(explain)) => {
                let own = matches
                    .subcommand_matches("explain")
                    .expect("this is the subcommand");
                let hop = hop(explain.hop, own, None, Files::Read).map_err(usage)?;
                Self::explain(&explain.target, hop, matches)?
            }
            Some(Command::Doctor(args)) => Self::doctor(*args, None, matches)?,
            Some(Command::Tail(tail)) => {
                no_hop_flags(matches).map_err(usage)?;
                let matches = matches
                    .subcommand_matches("tail")
                    .expect("this is the subcommand");
                let urls = tail.url.iter().map(|url| event_url(url));
                let mut urls = urls.collect::<Usage<Vec<_>>>().map_err(usage)?;
                let transport = {
                    let mut each = urls.iter().map(|url| tail::Transport::of(&url.url));
                    let first = each.next().expect("one URL at least is required");
                    if tail.transport.is_none() && each.any(|other| other != first) {
                        return Err(usage(
                            "all URLs are read in the same way: say which with --transport".into(),
                        ));
                    }
                    tail.transport.unwrap_or(first)
                };
                for url in &mut urls {
                    url.url = transport.mapped(url.url.clone());
                }
                let connect = connect(&tail.connect, matches, &urls).map_err(usage)?;
                Role::Tail(Tail {
                    reading: Reading {
                        upstreams: urls.iter().map(|url| connect.upstream(url)).collect(),
                        transport,
                        or_sse: false,
                        history: tail.history,
                        last_event_id: tail.last_event_id,
                        have: Vec::new(),
                        goes_on: false,
                        exit_on_close: tail.exit_on_close,
                    },
                    count: tail.count,
                    timestamps: tail.timestamps,
                })
            }
            Some(Command::Record(record)) => {
                no_hop_flags(matches).map_err(usage)?;
                let matches = matches
                    .subcommand_matches("record")
                    .expect("this is the subcommand");
                let record = self::record::record(record, matches).map_err(usage)?;
                Role::Record(Box::new(record))
            }
            Some(Command::Replay(replay)) => {
                no_hop_flags(matches).map_err(usage)?;
                let matches = matches
                    .subcommand_matches("replay")
                    .expect("this is the subcommand");
                replay::role(*replay, matches).map_err(usage)?
            }
            Some(Command::Completions(completions)) => {
                no_hop_flags(matches).map_err(usage)?;
                Role::Pages(completions.into())
            }
            Some(Command::Man(man)) => {
                no_hop_flags(matches).map_err(usage)?;
                Role::Pages(pages::man(man).map_err(usage)?)
            }
            Some(Command::Publish(publish)) => {
                no_hop_flags(matches).map_err(usage)?;
                let matches = matches
                    .subcommand_matches("publish")
                    .expect("this is the subcommand");
                Role::Publish(self::publish(publish, matches).map_err(usage)?)
            }
            Some(Command::Bench(args)) => {
                no_hop_flags(matches).map_err(usage)?;
                let matches = matches
                    .subcommand_matches("bench")
                    .expect("this is the subcommand");
                let bench = bench::bench(*args, matches).map_err(usage)?;
                Role::Bench(Box::new(bench))
            }
            Some(Command::Topology(args)) => {
                no_hop_flags(matches).map_err(usage)?;
                let matches = matches
                    .subcommand_matches("topology")
                    .expect("this is the subcommand");
                Role::Topology(topology::topology(&args, matches).map_err(usage)?)
            }
            Some(Command::Trace(args)) => {
                no_hop_flags(matches).map_err(usage)?;
                let matches = matches
                    .subcommand_matches("trace")
                    .expect("this is the subcommand");
                let trace = trace::trace(&args, matches).map_err(usage)?;
                Role::Trace(Box::new(trace))
            }
            Some(Command::Proxy(proxy)) => {
                no_hop_flags(matches).map_err(usage)?;
                let matches = matches
                    .subcommand_matches("proxy")
                    .expect("this is the subcommand");
                let config = proxy::config(*proxy, matches).map_err(usage)?;
                Role::Proxy(Box::new(config))
            }
            #[cfg(feature = "zeromq")]
            Some(Command::Forwarder(forwarder)) => {
                no_hop_flags(matches).map_err(usage)?;
                Role::Forwarder(forwarder::config(forwarder).map_err(usage)?)
            }
        };
        Ok(Self { log, role })
    }
}

fn usage(text: String) -> clap::Error {
    clap::Error::raw(ErrorKind::ValueValidation, text)
}

/// An error, with the usage of the command that it is about.
fn formatted(error: clap::Error, command: &mut clap::Command, matches: &ArgMatches) -> clap::Error {
    let command = match matches.subcommand_name() {
        // It has a usage of its own.
        Some(name) => command.find_subcommand_mut(name).expect("it was found"),
        None => command,
    };
    error.format(command)
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

/// What to say to whoever has read of traces, and has a program without them.
#[cfg(not(feature = "otel"))]
const NO_TRACES: &str = "this wsevent was built without --otlp-endpoint: cargo build --release --features otel makes one that has it";

#[cfg(not(feature = "otel"))]
fn wants_traces(error: &clap::Error) -> bool {
    matches!(
        error.get(ContextKind::InvalidArg),
        Some(ContextValue::String(flag)) if flag == "--otlp-endpoint"
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

/// Where a flag's value comes from: a flag (2) outranks the environment (1), which outranks the default (0). In a file a route's
/// own flags outrank those for all of them in the same way.
fn given(matches: &ArgMatches, id: &str) -> u8 {
    match matches.value_source(id) {
        Some(ValueSource::CommandLine) if config::is_default(matches, id) => 1,
        Some(ValueSource::CommandLine) => 2,
        Some(ValueSource::EnvVariable) => 1,
        _ => 0,
    }
}

/// Whether a flag's value comes from a variable, where one text holds several values.
fn is_from_variable(matches: &ArgMatches, id: &str) -> bool {
    matches.value_source(id) == Some(ValueSource::EnvVariable)
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

/// What to do about the files that say who may what, and those of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Files {
    /// Read them.
    Read,
    /// A process has read them, and sees to them itself.
    LeaveAlone,
}

/// `routes` are those of a file, if there is one; else flags describe the one there is.
fn hop(
    args: HopArgs,
    matches: &ArgMatches,
    routes: Option<Vec<Policy>>,
    files: Files,
) -> Usage<Hop> {
    let (address, path) = serve_at(&args, matches)?;
    let drain = args.drain;
    let routes = match routes {
        Some(routes) => routes,
        None => vec![route::policy(args.route, &path, matches)?],
    };
    let sizes = routes
        .iter()
        .map(|route| route.subscribers.max_message_size);
    let largest = sizes.max().unwrap_or_default();
    let settings = auth::settings(&args.auth, matches)?;
    let is_guarded = settings.is_some() || args.tls.tls_client_ca.is_some();
    let handed = handed::addresses()?;
    let handed: Vec<_> = handed.iter().map(ToString::to_string).collect();
    let listens = match handed.is_empty() {
        true => std::slice::from_ref(&address),
        false => &handed,
    };
    for address in listens {
        args.auth.check_exposure(address, &routes, is_guarded)?;
    }
    let (auth, tls) = match files {
        Files::Read => (settings.map(auth::load).transpose()?, args.tls.load()?),
        Files::LeaveAlone => (None, None),
    };
    Ok(Hop {
        auth,
        limits: args.limits.limits(largest)?,
        routes,
        address,
        admin: args.admin.admin_address,
        #[cfg(feature = "otel")]
        collector: args.admin.otlp_endpoint,
        drain,
        takeover: args.takeover,
        tls: tls.map(Arc::new),
        file: None,
    })
}

fn publish(args: PublishArgs, matches: &ArgMatches) -> Usage<Publish> {
    let mut url = event_url(&args.url)?;
    let of_url = publish::Transport::of(&url.url);
    let transport = args.transport.unwrap_or(of_url);
    url.url = transport.mapped(url.url);
    for (name, label) in [("type", &args.r#type), ("key", &args.key)] {
        if let Some(label) = label {
            url.url.query_pairs_mut().append_pair(name, label);
        }
    }
    none_to_talk_to(matches)?;
    if given(matches, "ids") == 2 && transport == publish::Transport::Websocket {
        return Err("--ids needs http://: over a WebSocket nobody says what they are".into());
    }
    let connect = connect(&args.connect, matches, std::slice::from_ref(&url))?;
    let mut upstream = connect.upstream(&url);
    upstream.talk = Talk::default();
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
            Ok((args.serve_address.clone(), args.route.serve_path.clone()))
        }
    }
}

/// The values of a repeatable flag. In a variable one line is one value; on the command line a value may well have several
/// lines.
fn lines(matches: &ArgMatches, id: &str, values: &[String]) -> Vec<String> {
    match is_from_variable(matches, id) {
        true => {
            let lines = values.iter().flat_map(|value| value.lines());
            lines.map(str::to_owned).collect()
        }
        false => values.to_vec(),
    }
}
