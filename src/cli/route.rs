//! The flags of a route: what is served, from where, and to whom. A configuration file has the same names.

use std::time::Duration;

use clap::ArgMatches;
use clap::builder::BoolishValueParser;

use super::bus::{self, BusArgs};
use super::connect::{ConnectArgs, connect, event_url, none_to_reach};
use super::limits::{RouteLimitArgs, max_publish_rate};
use super::links::LinkArgs;
use super::retain::RetainArgs;
use super::{Usage, given, is_from_variable, lines, values};
use crate::endpoint::fanout::{Overload, Settings};
use crate::route::pattern::Pattern;
use crate::route::{Origins, Policy};
use crate::source::produce::{Produce, Rate};
use crate::stream::history::Limits;
use crate::stream::merge::Terms;
use crate::stream::merge::foreign::Dedup;

/// The flags of a route.
#[derive(Debug, clap::Args)]
pub struct RouteArgs {
    /// The URL path of the stream, with or without a leading slash; /live/* stands for all paths below, each a stream that comes and goes with its readers
    #[arg(
        long,
        env = "WSEVENT_SERVE_PATH",
        value_name = "PATH",
        default_value = "events",
        help_heading = "Serving"
    )]
    pub serve_path: String,

    /// These parameters of a URL's query are part of what names a stream, such as symbol,interval; all others are not
    #[arg(
        long,
        env = "WSEVENT_KEY_QUERY",
        value_name = "NAMES",
        value_delimiter = ',',
        help_heading = "Serving"
    )]
    pub key_query: Vec<String>,

    /// How long a stream that comes and goes stays after its last reader, with its history and its upstream connection
    #[arg(long, env = "WSEVENT_LINGER", value_name = "DURATION", default_value = "30s", value_parser = values::duration, help_heading = "Serving")]
    pub linger: Duration,

    /// At most so many streams that come and go
    #[arg(long, env = "WSEVENT_MAX_STREAMS", value_name = "N", default_value = "10000", value_parser = values::at_least_one, help_heading = "Serving")]
    pub max_streams: usize,

    /// Keep the last events, up to so many bytes (and once more as encoded for each format that is read), for those who come later, come back, or are slow
    #[arg(long, env = "WSEVENT_HISTORY", value_name = "BYTES", default_value = "16MiB", value_parser = values::size, help_heading = "Serving")]
    pub history: usize,

    /// Keep no event for longer
    #[arg(long, env = "WSEVENT_HISTORY_AGE", value_name = "DURATION", value_parser = values::duration, help_heading = "Serving")]
    pub history_age: Option<Duration>,

    /// Keep at most so many events
    #[arg(long, env = "WSEVENT_HISTORY_COUNT", value_name = "N", value_parser = values::count, help_heading = "Serving")]
    pub history_count: Option<usize>,

    /// Count the hop as ready, at /-/ready of --admin-address, only while all upstreams of this stream are there, as is so with buses anyway
    #[arg(long, env = "WSEVENT_READY_WHEN_UPSTREAM", value_parser = BoolishValueParser::new(), help_heading = "Serving")]
    pub ready_when_upstream: bool,

    /// What happens to a subscriber that falls out of history: it is closed with 1013 (SSE and NDJSON end) and may resume, or it skips to the oldest event still held, after a gap notice; or, even before that, events are merged for it (conflate): it is given the newest of each key, with --retain
    #[arg(
        long,
        env = "WSEVENT_OVERLOAD",
        value_name = "POLICY",
        default_value = "disconnect",
        hide_possible_values = true,
        value_parser = values::OVERLOAD,
        help_heading = "Serving"
    )]
    pub overload: Overload,

    /// Kept state
    #[command(flatten)]
    pub retain: RetainArgs,

    /// Let clients publish: by POST, and by messages on a WebSocket
    #[arg(long, env = "WSEVENT_ACCEPT_PUBLISH", value_parser = BoolishValueParser::new(), help_heading = "Serving")]
    pub accept_publish: bool,

    /// Compress the stream for clients that ask for it: WebSocket by permessage-deflate, SSE and NDJSON by zstd or gzip. Each event once for all of them
    #[arg(long, env = "WSEVENT_COMPRESS", value_parser = BoolishValueParser::new(), help_heading = "Serving")]
    pub compress: bool,

    /// The origins of pages that may read over HTTP and publish
    #[arg(
        long,
        env = "WSEVENT_ALLOW_ORIGIN",
        help = "Let pages of this origin read over HTTP and publish, such as https://app.example, or * for all; repeatable",
        value_name = "ORIGIN",
        help_heading = "Serving"
    )]
    pub allow_origin: Vec<String>,

    /// Consume this event URL (ws://, wss://, http:// or https://), a bus (redis://, redis+stream://, nats://, nats+jetstream://, zmq+tcp://), a recording (file:///PATH?speed=1x&loop&keep-ids), or standard input (-), an event a line; repeatable, merged in order of arrival. If the served path ends in /*, so does this one: the rest of the path is carried over
    #[arg(
        long,
        env = "WSEVENT_CONSUME",
        value_name = "URL",
        hide_env_values = true,
        help_heading = "Sources"
    )]
    pub consume: Vec<String>,

    /// The recording that `wsevent replay` is given
    #[arg(skip)]
    pub replay: Option<String>,

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

    /// Where several links bring the same events, leave a hole that one of them has open for so long, for another to fill it, before it is called a gap; 0 for not at all
    #[arg(long, env = "WSEVENT_GAP_WAIT", value_name = "DURATION", default_value = "250ms", value_parser = values::duration, help_heading = "Sources")]
    pub gap_wait: Duration,

    /// Recognise the same event where several foreign feeds bring it, whose events have no ids: by a number in its JSON payload, such as json:/seq, or by what it is (hash). The first copy is taken
    #[arg(
        long,
        env = "WSEVENT_DEDUP",
        value_name = "HOW",
        help_heading = "Sources"
    )]
    pub dedup: Option<Dedup>,

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

    /// Peers and standbys
    #[command(flatten)]
    pub links: LinkArgs,

    /// Buses
    #[command(flatten)]
    pub buses: BusArgs,

    /// How to reach upstreams
    #[command(flatten)]
    pub connect: ConnectArgs,

    /// What clients may cost each stream
    #[command(flatten)]
    pub limits: RouteLimitArgs,
}

/// What the flags say, if it fits together. `path` is the path to serve, and `key` what else names a stream.
pub fn policy(args: RouteArgs, path: &str, matches: &ArgMatches) -> Usage<Policy> {
    let names = args.key_query.iter();
    let names = names.map(|name| name.trim().to_owned()).collect();
    let pattern = Pattern::new(path, names).map_err(|error| format!("--serve-path: {error}"))?;
    let composed = composed(&args, matches)?;
    let (buses, urls) = bus::part(consumed(&args, composed.as_deref(), matches)?);
    let buses = bus::urls(&args.buses, &buses, &pattern, matches)?;
    let urls: Vec<_> = urls.into_iter().map(event_url).collect::<Usage<_>>()?;
    for url in &urls {
        let fits = pattern.check_upstream(&url.url);
        fits.map_err(|why| format!("--consume with --serve-path {pattern}: {why}"))?;
    }
    if !pattern.is_on_demand() {
        for flag in ["linger", "max_streams"] {
            if given(matches, flag) == 2 {
                let flag = flag.replace('_', "-");
                return Err(format!(
                    "--{flag} is for streams that come and go: it needs a --serve-path that ends in /*, or --key-query"
                ));
            }
        }
    }
    let links = args.links.urls(&pattern, matches)?;
    let others = urls.iter().chain(links.all()).cloned();
    let others: Vec<_> = others.chain(buses.event_urls()).collect();
    let connect = connect(&args.connect, matches, &others)?;
    let upstreams: Vec<_> = urls.iter().map(|url| connect.upstream(url)).collect();
    if others.is_empty() {
        none_to_reach(matches)?;
    }
    let has_peers = links.has_peers();
    let is_consuming = !upstreams.is_empty() || buses.bring_events();
    let (peers, standbys) = links.upstreams(&connect, is_consuming)?;
    if upstreams.len() + standbys.len() < 2 && given(matches, "dedup") == 2 {
        return Err(
            "--dedup recognises what several feeds bring, and there are not two of them: add --consume URL".into(),
        );
    }
    if args.ready_when_upstream && given(matches, "ready_when_upstream") == 2 {
        check_readiness(&pattern, !upstreams.is_empty() || !peers.listed.is_empty())?;
    }
    // Who publishes is a source as well, and so is a peer.
    let has_source = is_consuming || args.accept_publish || has_peers;
    let produce = produces(&args, matches, has_source)?.then(|| Produce {
        address: String::new(),
        rate: args.produce_rate,
        size: args.produce_size,
    });
    let origins = origins(&args, matches)?;
    let is_max_given = given(matches, "retain_max") == 2;
    let retain = args.retain.checked(args.overload, is_max_given)?;
    Ok(Policy {
        pattern,
        merging: Terms {
            gap_wait: args.gap_wait,
            dedup: args.dedup,
        },
        upstreams,
        peers,
        standbys,
        buses: buses.buses(&connect),
        produce,
        retain,
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
            compress: args.compress,
            max_publish_rate: max_publish_rate(&args.limits, args.accept_publish, matches)?,
            max_connection_age: args.limits.max_connection_age,
        },
        origins,
        linger: args.linger,
        max_streams: args.max_streams,
        ready_when_upstream: args.ready_when_upstream,
        words: Vec::new(),
    })
}

/// Whether there is an upstream that the process could wait for.
fn check_readiness(pattern: &Pattern, has_upstream: bool) -> Usage<()> {
    if pattern.is_on_demand() {
        return Err(
            "--ready-when-upstream is for streams that are always there: those of this route come and go with their readers"
                .into(),
        );
    }
    match has_upstream {
        true => Ok(()),
        false => Err("--ready-when-upstream waits for upstreams other than buses, for which a hop waits anyway, and there is none: add --consume URL".into()),
    }
}

/// The origins of other servers' pages.
fn origins(args: &RouteArgs, matches: &ArgMatches) -> Usage<Origins> {
    let mut origins = lines(matches, "allow_origin", &args.allow_origin);
    for origin in &mut origins {
        // As it stands in an address bar; a browser says it without.
        if let Some(bare) = origin.strip_suffix('/') {
            *origin = bare.to_owned();
        }
    }
    match origins.iter().find(|origin| !values::is_origin(origin)) {
        Some(wrong) => Err(format!(
            "--allow-origin: '{wrong}' is no origin, such as https://app.example, and not *"
        )),
        None => Ok(Origins(origins)),
    }
}

/// What two flags say that together are one URL.
fn composed(args: &RouteArgs, matches: &ArgMatches) -> Usage<Option<String>> {
    let Some(address) = &args.consume_address else {
        return match given(matches, "consume_path") {
            2 => Err(
                "--consume-path needs --consume-address HOST:PORT (or say both with --consume URL)"
                    .into(),
            ),
            _ => Ok(None),
        };
    };
    values::check_address(address).map_err(|error| format!("--consume-address: {error}"))?;
    let path =
        values::path(&args.consume_path).map_err(|error| format!("--consume-path: {error}"))?;
    Ok(Some(format!("ws://{address}{path}")))
}

/// The URLs to consume, from `--consume` and from the two flags that say the same for one.
fn consumed<'a>(
    args: &'a RouteArgs,
    composed: Option<&'a str>,
    matches: &ArgMatches,
) -> Usage<Vec<&'a str>> {
    let mut urls: Vec<_> = match is_from_variable(matches, "consume") {
        // URLs hold no white space, so that it can separate them in a variable.
        true => args
            .consume
            .iter()
            .flat_map(|list| list.split_whitespace())
            .collect(),
        false => args.consume.iter().map(String::as_str).collect(),
    };
    let parts = given(matches, "consume_address").max(given(matches, "consume_path"));
    if let Some(composed) = composed {
        // A flag outranks a variable: `--consume` on the command line is not joined by an address from the environment.
        match parts.cmp(&given(matches, "consume")) {
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Equal => urls.push(composed),
            std::cmp::Ordering::Greater => urls = vec![composed],
        }
    }
    urls.extend(args.replay.as_deref());
    Ok(urls)
}

/// Whether to produce random events.
fn produces(args: &RouteArgs, matches: &ArgMatches, has_source: bool) -> Usage<bool> {
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
