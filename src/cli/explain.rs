//! `wsevent explain URL`: what a hop would serve there, and how. Nothing is connected.

use std::fmt;
use std::process::ExitCode;

use anyhow::Result;
use clap::ArgMatches;
use url::Url;

use super::args::HopArgs;
use super::config::flags::{Flag, Flags};
use super::limits::implicit;
use super::{Hop, Usage, config, values};
use crate::route::Policy;
use crate::route::find::{NoStream, Place, find};
use crate::route::pattern::Key;
use crate::source::upstream::Upstream;
use crate::stdout;

/// The flags of `explain`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Each line is name: value; what the flags say has their names. Values that may be secrets are not shown. Exit status: 0 if something is served there, 1 if not."
)]
pub struct ExplainArgs {
    /// The path of a URL, perhaps with a query, or a whole URL
    #[arg(value_name = "URL-PATH")]
    pub target: String,

    /// What the hop is told
    #[command(flatten)]
    pub hop: HopArgs,
}

/// A question about a hop.
pub struct Explain {
    path: String,
    query: Option<String>,
    hop: Hop,
    /// What is said about the process, and, without a file, about its route.
    matches: ArgMatches,
}

impl Explain {
    /// About what is at `target`.
    pub fn new(target: &str, hop: Hop, matches: &ArgMatches) -> Usage<Self> {
        let (path, query) = split(target)?;
        Ok(Self {
            path,
            query,
            hop,
            matches: matches.clone(),
        })
    }

    /// Prints the answer.
    pub fn run(&self) -> Result<ExitCode> {
        let mut lines = Lines::default();
        let is_served = self.answer(&mut lines);
        stdout::print(lines.to_string().as_bytes())?;
        Ok(match is_served {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        })
    }

    /// Whether something is served there.
    fn answer(&self, lines: &mut Lines) -> bool {
        let routes = &self.hop.routes;
        let place = find(
            routes,
            |route| &route.pattern,
            &self.path,
            self.query.as_deref(),
        );
        match place {
            Ok(Some(Place::Stream(route, key))) => {
                lines.push("route", &route.pattern);
                lines.push("stream", &key.name);
                self.sources(route, &key, lines);
                self.settings(route, lines);
                true
            }
            Ok(Some(Place::List(route))) => {
                lines.push("route", &route.pattern);
                lines.push("list", "the streams there are of this route");
                true
            }
            Ok(None) if self.path == "/" => {
                lines.push("list", "all streams there are");
                true
            }
            Ok(None) => {
                let patterns = routes.iter().map(|route| &route.pattern);
                refuse(&NoStream::at_all(patterns), lines)
            }
            Err(none) => refuse(&none, lines),
        }
    }

    fn sources(&self, route: &Policy, key: &Key, lines: &mut Lines) {
        let upstreams = route.upstreams.iter().map(|it| ("upstream", it));
        let others = route.peers.listed.iter().map(|it| ("peer", it));
        let others = others.chain(route.peers.named.iter().map(|it| ("peer-dns", it)));
        let others = others.chain(route.standbys.iter().map(|it| ("standby", it)));
        for (name, upstream) in upstreams.chain(others) {
            let url = route.pattern.upstream(&upstream.url, key);
            lines.push(name, upstream.shown(&url));
            for name in names_of_headers(upstream) {
                lines.push("upstream-header", name);
            }
        }
        let buses = route.buses.of_stream(&route.pattern, key);
        let (consumed, forwarded) = (buses.consume.iter(), buses.forward.iter());
        let named = consumed.map(|bus| ("upstream", bus));
        let named = named.chain(buses.both.iter().map(|bus| ("bus", bus)));
        for (name, bus) in named.chain(forwarded.map(|bus| ("forward", bus))) {
            lines.push(name, bus);
        }
        if route.produce.is_some() {
            lines.push("produce", "random events");
        }
        let publish = match route.subscribers.accept_publish {
            true => "by POST, and by messages on a WebSocket",
            false => "no",
        };
        lines.push("publish", publish);
    }

    /// What flags say about the route, and about the process.
    fn settings(&self, route: &Policy, lines: &mut Lines) {
        /// Said already, in other words.
        const SAID: [&str; 13] = [
            "serve-path",
            "forward",
            "bus",
            "accept-publish",
            "consume",
            "consume-address",
            "consume-path",
            "consume-standby",
            "peer",
            "peer-dns",
            "consume-header",
            "no-produce",
            "produce",
        ];
        let is_of_file = self.hop.file.is_some();
        let own = config::route_matches(route).ok().filter(|_| is_of_file);
        let flags = Flags::of_a_file();
        for flag in flags.all() {
            let is_off = match &*flag.name {
                "linger" | "max-streams" => !route.pattern.is_on_demand(),
                "ready-when-upstream" => {
                    route.pattern.is_on_demand()
                        || route.upstreams.is_empty() && route.peers.listed.is_empty()
                }
                "peer-dns-interval" => route.peers.named.is_empty(),
                "produce-rate" | "produce-size" => route.produce.is_none(),
                name if name.starts_with("consume-") => {
                    route.upstreams.is_empty() && route.buses.is_empty() && route.peers.is_empty()
                }
                "bus-envelope" => route.buses.is_empty(),
                name => name.starts_with("log-"),
            };
            if is_off || SAID.contains(&&*flag.name) {
                continue;
            }
            let matches = match &own {
                Some(own) if flag.is_of_route => own,
                _ => &self.matches,
            };
            lines.push(&flag.name, value(flag, matches));
        }
    }
}

/// What is said to who asks for what is not there.
fn refuse(none: &NoStream, lines: &mut Lines) -> bool {
    lines.push("stream", "none");
    lines.push("status", none.status.as_u16());
    lines.push("reason", &none.reason);
    false
}

/// The names of the headers that are sent to an upstream.
fn names_of_headers(upstream: &Upstream) -> Vec<String> {
    let by_url = !upstream.url.username().is_empty() || upstream.url.password().is_some();
    let said = upstream.headers.iter().map(|(name, _)| name.to_string());
    let mut names: Vec<_> = by_url
        .then(|| "authorization".to_owned())
        .into_iter()
        .chain(said)
        .collect();
    names.sort();
    names.dedup();
    names
}

/// A flag's value as it was said, or by default.
fn value(flag: &Flag, matches: &ArgMatches) -> String {
    if flag.is_switch {
        let is_on = matches.get_flag(&flag.id);
        return if is_on { "yes" } else { "no" }.to_owned();
    }
    let values: Vec<_> = matches.get_raw(&flag.id).into_iter().flatten().collect();
    match (values.len(), flag.is_secret) {
        (0, _) => implicit(&flag.id).unwrap_or("not set").to_owned(),
        (1, true) => "set, not shown".to_owned(),
        (count, true) => format!("{count} of them, not shown"),
        (_, false) => {
            let values = values.iter().map(|value| value.to_string_lossy());
            // In a variable each stands on a line.
            let values: Vec<_> = values.map(|value| value.replace('\n', " ")).collect();
            values.join(" ")
        }
    }
}

/// The path and the query that a client would send.
fn split(target: &str) -> Usage<(String, Option<String>)> {
    let target = match target.contains("://") {
        true => {
            let url = Url::parse(target).map_err(|error| format!("this is no URL ({error})"))?;
            let query = url.query().map(str::to_owned);
            return Ok((url.path().to_owned(), query));
        }
        // What is behind it stays in the client.
        false => target.split('#').next().unwrap_or_default(),
    };
    let target = values::path_and_query(target)?;
    Ok(match target.split_once('?') {
        Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
        None => (target, None),
    })
}

/// Lines of the form `name: value`.
#[derive(Default)]
struct Lines(Vec<(String, String)>);

impl Lines {
    fn push(&mut self, name: &str, value: impl ToString) {
        self.0.push((name.to_owned(), value.to_string()));
    }
}

impl fmt::Display for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = self.0.iter();
        lines.try_for_each(|(name, value)| writeln!(f, "{name}: {value}"))
    }
}
