//! The flags of buses. They are of a route.

use std::time::Duration;

use clap::ArgMatches;
use hyper::http::HeaderName;

use super::connect::{Connect, EventUrl, header};
use super::values::Words;
use super::{Usage, given, is_from_variable, lines, values};
use crate::bus::address::{Address, Kind, Use, is_bus};
use crate::bus::envelope::Envelope;
use crate::bus::forward::BATCH;
use crate::bus::{Bus, WebhookSettings};
use crate::route::buses::Buses;
use crate::route::pattern::Pattern;
use crate::source::secret::{self, Secret};

/// What a stream has to do with buses.
#[derive(Debug, clap::Args)]
pub struct BusArgs {
    /// Send every event on to this bus (redis://, redis+stream://, nats://, nats+jetstream://, zmq+tcp://), to a webhook (http://, https://), or to standard output (-); repeatable. What a bus does not have yet waits in the history
    #[arg(
        long,
        env = "WSEVENT_FORWARD",
        value_name = "URL",
        hide_env_values = true,
        help_heading = "Buses"
    )]
    pub forward: Vec<String>,

    /// Make this hop one of several replicas around a bus: what is published at one goes to the bus, and comes back from it to the subscribers of all, in its order
    #[arg(
        long,
        env = "WSEVENT_BUS",
        value_name = "URL",
        hide_env_values = true,
        help_heading = "Buses"
    )]
    pub bus: Option<String>,

    /// Whether what is sent to a bus has a line with the event's id, time, type and key: auto where the bus has a place for it beside the payload, and between replicas; always, also before the payload; or never
    #[arg(
        long,
        env = "WSEVENT_BUS_ENVELOPE",
        value_name = "WHEN",
        default_value = "auto",
        hide_possible_values = true,
        value_parser = Words::new(&["auto", "always", "never"], envelope),
        hide_possible_values = true,
        help_heading = "Buses"
    )]
    pub bus_envelope: Envelope,

    /// Post up to so many events at once to a webhook, as lines of NDJSON, if so many wait; with 1 each is a request of its own, with its payload as the body
    #[arg(long, env = "WSEVENT_FORWARD_BATCH", value_name = "N", default_value = "1", value_parser = batch, help_heading = "Buses")]
    pub forward_batch: usize,

    /// Send this header with every request to a webhook; repeatable. ${NAME} in the value is a variable of the environment, @FILE as the value is what the file holds then
    #[arg(
        long,
        env = "WSEVENT_FORWARD_HEADER",
        value_name = "NAME: VALUE",
        hide_env_values = true,
        help_heading = "Buses"
    )]
    pub forward_header: Vec<String>,

    /// How long an event is sent again to a webhook that is away, or answers 408, 425, 429 or 5xx; then it is given up, and told in the log (a dead letter)
    #[arg(long, env = "WSEVENT_FORWARD_RETRY_FOR", value_name = "DURATION", default_value = "1m", value_parser = values::duration, help_heading = "Buses")]
    pub forward_retry_for: Duration,

    /// How long a webhook may take to answer
    #[arg(long, env = "WSEVENT_FORWARD_TIMEOUT", value_name = "DURATION", default_value = "10s", value_parser = values::interval, help_heading = "Buses")]
    pub forward_timeout: Duration,
}

/// The flags that are about webhooks alone.
const OF_WEBHOOKS: [&str; 4] = [
    "forward_batch",
    "forward_header",
    "forward_retry_for",
    "forward_timeout",
];

/// As many as are sent at once anyway.
fn batch(text: &str) -> Usage<usize> {
    match text.parse() {
        Ok(count @ 1..=BATCH) => Ok(count),
        _ => Err(format!("a number from 1 to {BATCH} is expected")),
    }
}

fn envelope(text: &str) -> Usage<Envelope> {
    match text {
        "auto" => Ok(Envelope::Auto),
        "always" => Ok(Envelope::Always),
        "never" => Ok(Envelope::Never),
        _ => Err("auto, always or never is expected".to_owned()),
    }
}

/// The address of a bus, and what in it is secret.
#[derive(Clone)]
pub struct BusUrl {
    address: Address,
    variables: Vec<String>,
}

impl BusUrl {
    /// As what it is for those who reach it.
    fn event_url(&self) -> EventUrl {
        EventUrl {
            url: self.address.url.clone(),
            variables: self.variables.clone(),
        }
    }

    fn bus(&self, connect: &Connect, urls: &BusUrls) -> Bus {
        let mut upstream = connect.upstream(&self.event_url());
        if self.address.kind == Kind::Webhook {
            // What upstreams are told is not for others.
            upstream.headers = urls.headers.clone();
        }
        Bus {
            address: self.address.clone(),
            upstream,
            envelope: urls.envelope,
            webhook: urls.webhook.clone(),
        }
    }
}

/// Reads the address of a bus, in which `${NAME}` is a variable.
fn bus_url(flag: &str, text: &str, usage: Use) -> Usage<BusUrl> {
    let expanded = secret::expand_url(text).map_err(|error| format!("--{flag}: {error}"))?;
    let address = Address::parse(&expanded.text, usage).map_err(|error| {
        match expanded.variables.is_empty() {
            true => format!("--{flag}: {error}"),
            // What has gone wrong with it may show what it stands for.
            false => format!("--{flag}: with its variables replaced, this is not the URL of a bus"),
        }
    })?;
    Ok(BusUrl {
        address,
        variables: expanded.variables,
    })
}

/// The buses of a route, before it is known how to reach them.
pub struct BusUrls {
    consume: Vec<BusUrl>,
    forward: Vec<BusUrl>,
    both: Option<BusUrl>,
    envelope: Envelope,
    /// What webhooks are told, and how.
    headers: Vec<(HeaderName, Secret)>,
    webhook: WebhookSettings,
}

/// What the flags say, if it fits together. `consumed` are those that stand among what is consumed.
pub fn urls(
    args: &BusArgs,
    consumed: &[&str],
    pattern: &Pattern,
    matches: &ArgMatches,
) -> Usage<BusUrls> {
    let consume = consumed.iter();
    let consume = consume.map(|text| bus_url("consume", text, Use::Consume));
    let forward = match is_from_variable(matches, "forward") {
        // URLs hold no white space, so that it can separate them in a variable.
        true => args
            .forward
            .iter()
            .flat_map(|list| list.split_whitespace())
            .map(str::to_owned)
            .collect(),
        false => lines(matches, "forward", &args.forward),
    };
    let forward = forward.iter();
    let forward = forward.map(|text| bus_url("forward", text, Use::Forward));
    let both = args.bus.as_ref();
    let both = both.map(|text| bus_url("bus", text, Use::Both));
    let headers = lines(matches, "forward_header", &args.forward_header);
    let headers = headers.iter();
    let headers = headers.map(|text| header("forward-header", text));
    let urls = BusUrls {
        consume: consume.collect::<Usage<_>>()?,
        forward: forward.collect::<Usage<_>>()?,
        both: both.transpose()?,
        envelope: args.bus_envelope,
        headers: headers.collect::<Usage<_>>()?,
        webhook: WebhookSettings {
            batch: args.forward_batch,
            retry_for: args.forward_retry_for,
            timeout: args.forward_timeout,
        },
    };
    urls.check(pattern, matches)?;
    Ok(urls)
}

impl BusUrls {
    fn check(&self, pattern: &Pattern, matches: &ArgMatches) -> Usage<()> {
        let flags = [
            ("consume", &self.consume[..]),
            ("forward", &self.forward),
            ("bus", self.both.as_slice()),
        ];
        let lines = |urls: &[BusUrl]| {
            let lines = urls.iter().filter(|url| url.address.kind == Kind::Lines);
            lines.count()
        };
        let is_bound =
            |url: &BusUrl| matches!(url.address.kind, Kind::ZeroMq { is_bound: true, .. });
        for (flag, urls) in flags {
            if pattern.is_on_demand() && urls.iter().any(is_bound) {
                return Err(format!(
                    "--{flag} with &bind is for one stream: others cannot listen at the same port (let them connect, such as to wsevent forwarder)"
                ));
            }
            if lines(urls) > 1 || lines(urls) == 1 && pattern.is_on_demand() {
                return Err(format!("--{flag} - is for one stream, and once"));
            }
        }
        for (flag, urls) in flags {
            for url in urls {
                let fits = url.address.check_pattern(pattern);
                fits.map_err(|why| format!("--{flag} with --serve-path {pattern}: {why}"))?;
                if flag != "consume" && url.address.is_many(pattern) {
                    return Err(format!(
                        "--{flag}: events go to one subject, and one with wildcards may be many"
                    ));
                }
            }
        }
        // The same events would come back without end.
        let incoming = self.consume.iter().chain(&self.both);
        for (forward, other) in
            incoming.flat_map(|other| self.forward.iter().map(move |it| (it, other)))
        {
            if forward.address.is_same_place(&other.address) {
                return Err(format!(
                    "{} is forwarded to, and events come from there: they would go round for ever (for replicas around a bus there is --bus)",
                    forward.address
                ));
            }
        }
        if self.both.is_some() && self.envelope == Envelope::Never {
            return Err(
                "--bus needs an envelope: without ids its hops could not tell the same event from another (leave --bus-envelope out)"
                    .to_owned(),
            );
        }
        self.check_webhooks(matches)?;
        if self.is_empty() && given(matches, "bus_envelope") == 2 {
            return Err("--bus-envelope is about buses: it needs --forward, --bus or the URL of a bus to --consume".to_owned());
        }
        Ok(())
    }

    fn check_webhooks(&self, matches: &ArgMatches) -> Usage<()> {
        let is_webhook = |url: &BusUrl| url.address.kind == Kind::Webhook;
        let mut said = OF_WEBHOOKS.iter().filter(|flag| given(matches, flag) == 2);
        match said.next() {
            Some(flag) if !self.forward.iter().any(is_webhook) => Err(format!(
                "--{} is about webhooks: it needs --forward with http:// or https://",
                flag.replace('_', "-")
            )),
            _ => Ok(()),
        }
    }

    fn is_empty(&self) -> bool {
        self.consume.is_empty() && self.forward.is_empty() && self.both.is_none()
    }

    /// Whether they bring events.
    pub fn bring_events(&self) -> bool {
        !self.consume.is_empty() || self.both.is_some()
    }

    /// All of them, for whoever finds out how to reach them.
    pub fn event_urls(&self) -> impl Iterator<Item = EventUrl> {
        let urls = self.consume.iter().chain(&self.forward).chain(&self.both);
        urls.map(BusUrl::event_url)
    }

    /// The buses, once it is known how to reach them.
    pub fn buses(&self, connect: &Connect) -> Buses {
        let all = |urls: &[BusUrl]| {
            let urls = urls.iter();
            urls.map(|url| url.bus(connect, self)).collect()
        };
        let both = self.both.as_ref();
        Buses {
            consume: all(&self.consume),
            forward: all(&self.forward),
            both: both.map(|url| Bus {
                envelope: Envelope::Always,
                ..url.bus(connect, self)
            }),
        }
    }
}

/// Parts what is consumed: buses, and all else.
pub fn part<'a>(urls: impl IntoIterator<Item = &'a str>) -> (Vec<&'a str>, Vec<&'a str>) {
    urls.into_iter().partition(|text| is_bus(text))
}
