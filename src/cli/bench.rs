//! The flags of `wsevent bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::ArgMatches;
use clap::builder::BoolishValueParser;

use super::connect::{ConnectArgs, EventUrl, connect, event_url};
use super::{Usage, given, values};
use crate::client::bench::plan::{Load, Of, Ramp};
use crate::client::bench::subscriber::Transport;
use crate::client::bench::{Bench, Fault, Publishing, SMALLEST, is_local};
use crate::client::publish;
use crate::source::produce::Rate;
use crate::source::upstream::Upstream;
use crate::source::websocket::login::Talk;

const EXAMPLES: &str = "\
Examples:
  wsevent bench ws://localhost:8080/events
      a hundred subscribers, and how what the stream brings gets to them
  wsevent bench ws://localhost:8080/events --connections 1000 --rate 50
      publishes (the hop has --accept-publish): what is lost or repeated, and latencies, are exact, whoever's server it is
  wsevent bench ws://localhost:8080/events --rate 50 --ramp connections:100..2000/10 --plot load.svg
      ten loads one after the other, and a picture of latency over load
  wsevent bench http://localhost:8080/events --rate 100 --fail-on lost,repeated,refused,closed --json
      for a pipeline

Exit status: 0; 1 if nobody could connect, if publishing failed, or if --fail-on says so; 2 for wrong usage. The first Ctrl-C ends it
early, with the figures so far.";

/// So many connections or events a second are no load for anybody.
const SMALL: f64 = 100.0;

/// The flags of `bench`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct BenchArgs {
    /// The event URL (ws://, wss://, http:// or https://)
    pub url: String,

    /// So many subscribers
    #[arg(long, env = "WSEVENT_CONNECTIONS", value_name = "N", default_value = "100", value_parser = values::at_least_one)]
    pub connections: usize,

    /// Publish so many events a second into the stream (fractions too), or max for as many as possible; without it, what comes anyway is measured
    // The variable of this name without the prefix is publish's, and would make every bench one that publishes.
    #[arg(long, env = "WSEVENT_BENCH_RATE", value_name = "N", value_parser = values::rate)]
    pub rate: Option<Rate>,

    /// Publish to this URL, by POST (http://, https://) or by messages on a WebSocket (ws://, wss://); without it to the stream's own URL
    #[arg(long, env = "WSEVENT_PUBLISH_URL", value_name = "URL")]
    pub publish_url: Option<String>,

    /// The size of each event that is published
    #[arg(long, env = "WSEVENT_SIZE", value_name = "BYTES", default_value = "128", value_parser = size)]
    pub size: usize,

    /// Subscribe over ws, sse, ndjson or hop (a link as between hops), whatever the scheme of the URL; by default http:// and https:// mean sse
    #[arg(
        long,
        env = "WSEVENT_BENCH_TRANSPORT",
        value_name = "TRANSPORT",
        hide_possible_values = true
    )]
    pub transport: Option<Transport>,

    /// Load that grows in steps: connections:100..1000/10 (from, to, how many steps; 5 if not said), rate:100,1000,10000; a mere range is of connections. Each step lasts --duration
    #[arg(long, env = "WSEVENT_RAMP", value_name = "RAMP")]
    pub ramp: Option<Ramp>,

    /// How long to measure, under each load
    #[arg(long, env = "WSEVENT_BENCH_DURATION", value_name = "DURATION", default_value = "10s", value_parser = values::limit)]
    pub duration: Duration,

    /// Spread the connects of each step over so long; by default they are made as fast as the server takes them, 128 at a time
    #[arg(long, env = "WSEVENT_CONNECT_OVER", value_name = "DURATION", default_value = "0s", value_parser = values::duration)]
    pub connect_over: Duration,

    /// Threads that read; by default one for each 5000 connections, up to as many as there are CPUs
    #[arg(long, env = "WSEVENT_THREADS", value_name = "N", value_parser = threads)]
    pub threads: Option<usize>,

    /// Print all figures as one JSON object
    #[arg(long, env = "WSEVENT_JSON", value_parser = BoolishValueParser::new())]
    pub json: bool,

    /// Draw latency over load into this file (SVG)
    #[arg(long, env = "WSEVENT_PLOT", value_name = "FILE")]
    pub plot: Option<PathBuf>,

    /// Exit with 1 if there is any of this: lost, repeated (also if that cannot be known), refused, closed; several with commas between
    #[arg(
        long,
        env = "WSEVENT_FAIL_ON",
        value_name = "FAULTS",
        value_delimiter = ',',
        hide_possible_values = true
    )]
    pub fail_on: Vec<Fault>,

    /// It is agreed with those who run it that another machine is loaded: above 100 connections or events a second that must be said
    #[arg(long, env = "WSEVENT_ALLOW_REMOTE", value_parser = BoolishValueParser::new())]
    pub allow_remote: bool,

    /// How to reach the stream
    #[command(flatten)]
    pub connect: ConnectArgs,
}

fn size(text: &str) -> Usage<usize> {
    match values::message_size(text)? {
        size if size < SMALLEST => Err(format!("an event has a marker of {SMALLEST} bytes")),
        size => Ok(size),
    }
}

fn threads(text: &str) -> Usage<usize> {
    match values::at_least_one(text)? {
        count if count > 256 => Err("at most 256 threads are possible".into()),
        count => Ok(count),
    }
}

/// What the flags say.
pub fn bench(args: BenchArgs, matches: &ArgMatches) -> Usage<Bench> {
    let mut url = event_url(&args.url)?;
    let transport = args.transport.unwrap_or(Transport::of(&url.url));
    let publish_url = args.publish_url.as_deref().map(event_url).transpose()?;
    let is_rate_ramped = args.ramp.as_ref().is_some_and(|ramp| ramp.of == Of::Rate);
    let publishes = args.rate.is_some() || is_rate_ramped;
    if !publishes {
        for flag in ["publish_url", "size"] {
            if given(matches, flag) == 2 {
                let flag = flag.replace('_', "-");
                return Err(format!("--{flag} is about what is published: add --rate"));
            }
        }
    }
    let of_bench = publish_url.clone().unwrap_or_else(|| EventUrl {
        url: transport.mapped(url.url.clone()),
        ..url.clone()
    });
    url.url = transport.mapped(url.url);
    let connect = connect(&args.connect, matches, &[url.clone(), of_bench.clone()])?;
    let upstream = connect.upstream(&url);
    if upstream.compress {
        return Err("--consume-compress has no place here: a bench expands nothing. cargo bench --bench compress shows what compression saves and costs".into());
    }
    if !upstream.talk.ignore.is_empty() {
        return Err("--consume-ignore has no place here: a bench looks into no message but for its own marker".into());
    }
    let base = Load {
        connections: args.connections,
        rate: args.rate,
    };
    let loads = args
        .ramp
        .as_ref()
        .map_or(vec![base], |ramp| ramp.loads(base));
    let target = Upstream {
        talk: Talk::default(),
        ..connect.upstream(&of_bench)
    };
    check_consent(&args, &[&upstream, &target], &loads)?;
    let publishing = publishes.then(|| Publishing {
        transport: publish::Transport::of(&target.url),
        upstream: target,
        size: args.size,
    });
    Ok(Bench {
        upstream,
        transport,
        publishing,
        loads,
        duration: args.duration,
        connect_over: args.connect_over,
        threads: args.threads,
        json: args.json,
        plot: args.plot,
        fail_on: args.fail_on,
    })
}

/// Other people's servers are not loaded by mistake.
fn check_consent(args: &BenchArgs, upstreams: &[&Upstream], loads: &[Load]) -> Usage<()> {
    let is_much = |load: &Load| {
        let is_fast = match load.rate {
            None => false,
            Some(Rate::Max) => true,
            Some(Rate::PerSecond(rate)) => rate > SMALL,
        };
        is_fast || load.connections as f64 > SMALL
    };
    let far = upstreams.iter().find(|upstream| !is_local(upstream));
    match far {
        Some(far) if !args.allow_remote && loads.iter().any(is_much) => Err(format!(
            "{} is another machine: if those who run it agree to more than {SMALL} connections or events a second, add --allow-remote",
            far.url.host_str().unwrap_or_default()
        )),
        _ => Ok(()),
    }
}
