//! The list of streams for those who run the hop: how each is, in more detail than its readers are told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use serde::Serialize;
use url::form_urlencoded;

use crate::bus::figures::Figures;
use crate::endpoint::fanout::Overload;
use crate::endpoint::page::{Bus, Hop, Upstream};
use crate::event::{self, EventId};
use crate::route::Routes;
use crate::route::part::{self, Part, Streams};
use crate::route::served::Served;
use crate::stream::Amount;
use crate::stream::via;
use crate::wire::Format;

/// So many streams are looked at at once.
const AT_ONCE: usize = 64;

/// Which streams are asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Some of all: `?after=` and `?limit=`.
    Some(Part),
    /// The one at a path: `?path=`.
    One(String),
}

impl Wanted {
    /// What a query asks for; or what is wrong with that.
    pub fn of(query: &str) -> Result<Self, &'static str> {
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        match pairs.find(|(name, _)| name == "path") {
            Some((_, path)) => Ok(Self::One(path.into_owned())),
            None => Part::of(query).map(Self::Some),
        }
    }

    /// The list at `own` path, as JSON; none if the one that is asked for is not there.
    pub async fn list(&self, routes: &Routes, own: &str) -> Option<Vec<u8>> {
        let Streams { streams, next } = match self {
            Self::Some(part) => part.select(&routes.all(), |_| true),
            Self::One(path) => Streams {
                streams: vec![part::at(routes, None, path)?],
                next: None,
            },
        };
        let looks = streams.into_iter().map(Stream::of);
        let list = List {
            instance: routes.instance().to_string(),
            address: routes.address(),
            streams: stream::iter(looks).buffered(AT_ONCE).collect().await,
            next: next.map(|query| format!("{own}?{query}")),
        };
        let mut json = serde_json::to_vec(&list).expect("names and numbers are JSON");
        json.push(b'\n');
        Some(json)
    }
}

#[derive(Serialize)]
struct List<'a> {
    instance: String,
    address: &'a str,
    streams: Vec<Stream>,
    /// Where the list goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// How a stream is. Times are in microseconds since the Unix epoch, durations in seconds.
#[derive(Serialize)]
struct Stream {
    path: Arc<str>,
    /// The pattern of its route.
    route: String,
    /// The instance that its own events are named after.
    origin: String,
    began: u64,
    publish: bool,
    produces: bool,
    /// If it comes and goes with those who use it.
    #[serde(skip_serializing_if = "Option::is_none")]
    on_demand: Option<OnDemand>,
    /// Since it began, also in processes before this one.
    events: u64,
    /// Of their payloads.
    bytes: u64,
    /// Events a second, over the last few seconds.
    rate: f64,
    /// How often something was known to be missing before an event.
    gaps: u64,
    /// In this process, by what has carried it here.
    received: BTreeMap<&'static str, Given>,
    history: History,
    /// What is kept of its state, where that is wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    retained: Option<Retained>,
    subscribers: BTreeMap<&'static str, Subscribers>,
    overload: Overloaded,
    /// The instances that it comes through, the nearest first.
    via: Vec<Hop>,
    upstreams: Vec<Source>,
    buses: Vec<Bus>,
}

#[derive(Serialize)]
struct OnDemand {
    linger: f64,
    /// For how long nobody has used it; none if somebody does.
    unused: Option<f64>,
}

/// Some events.
#[derive(Serialize)]
struct Given {
    events: u64,
    bytes: u64,
}

impl From<Amount> for Given {
    fn from(Amount { events, bytes }: Amount) -> Self {
        Self { events, bytes }
    }
}

#[derive(Serialize)]
struct History {
    events: u64,
    /// With what is counted for each event.
    bytes: u64,
    oldest: Option<Place>,
    newest: Option<Place>,
    max_bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_events: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_age: Option<f64>,
}

/// An event, and how long ago it came.
#[derive(Serialize)]
struct Place {
    id: String,
    age: f64,
}

impl Place {
    fn of((id, since): (EventId, u64)) -> Self {
        Self {
            id: id.to_string(),
            age: age(since),
        }
    }
}

#[derive(Serialize)]
struct Retained {
    keys: u64,
    bytes: u64,
}

/// Those who read a stream in one format.
#[derive(Serialize)]
struct Subscribers {
    connected: usize,
    /// All that there have been.
    joined: u64,
    /// What they have been sent, in events and in bytes on the wire.
    sent: Given,
    /// How often one was told alone that it has missed something.
    gaps: u64,
    lag: Option<Behind>,
}

/// How far they are behind.
#[derive(Serialize)]
struct Behind {
    /// How many of them are.
    subscribers: usize,
    /// Events before the one that is furthest behind.
    events: u64,
    /// Likewise.
    bytes: u64,
    /// How long ago the event came that it waits for.
    seconds: f64,
}

#[derive(Serialize)]
struct Overloaded {
    /// What happens to those who fall out of history.
    policy: &'static str,
    /// What was done so far, and how often.
    actions: BTreeMap<&'static str, u64>,
}

#[derive(Serialize)]
struct Source {
    #[serde(flatten)]
    shown: Upstream,
    /// How events come from there, since the last handshake.
    transport: Option<&'static str>,
    /// The instance behind it, if it is a wsevent.
    instance: Option<String>,
    connects: u64,
    /// Attempts that have failed, and connections that have ended.
    failures: u64,
    /// Whether it is there, and refuses.
    refuses: bool,
    /// Why there is no connection.
    reason: Option<Box<str>>,
}

impl From<via::Upstream> for Source {
    fn from(upstream: via::Upstream) -> Self {
        Self {
            transport: upstream.transport,
            instance: upstream.instance().map(|instance| instance.to_string()),
            connects: upstream.connects,
            failures: upstream.failures,
            refuses: upstream.refusal().is_some(),
            reason: upstream.reason.clone(),
            shown: upstream.into(),
        }
    }
}

impl Stream {
    async fn of(served: Arc<Served>) -> Self {
        let Served { log, policy, .. } = &*served;
        let figures = log.figures();
        let held = log.held();
        let readers = Format::PLAIN.map(|format| Subscribers::of(&served, format));
        let counts = &served.subscribers;
        Self {
            path: served.name.clone(),
            route: policy.pattern.to_string(),
            origin: log.origin().to_string(),
            began: log.began(),
            publish: served.publisher.is_some(),
            produces: policy.produce.is_some(),
            on_demand: policy.pattern.is_on_demand().then(|| OnDemand {
                linger: policy.linger.as_secs_f64(),
                unused: served.unused_for().as_ref().map(Duration::as_secs_f64),
            }),
            events: figures.events,
            bytes: figures.bytes,
            rate: figures.rate,
            gaps: figures.gaps,
            received: log
                .received()
                .into_iter()
                .map(|(carrier, amount)| (carrier.name(), amount.into()))
                .collect(),
            history: History {
                events: held.history.events,
                bytes: held.history.bytes,
                oldest: held.oldest.map(Place::of),
                newest: held.newest.map(Place::of),
                max_bytes: policy.history.bytes,
                max_events: policy.history.count,
                max_age: policy.history.age.as_ref().map(Duration::as_secs_f64),
            },
            retained: held.kept.map(|kept| Retained {
                keys: kept.events,
                bytes: kept.bytes,
            }),
            subscribers: join_all(readers).await.into_iter().collect(),
            overload: Overloaded {
                policy: policy.subscribers.overload.name(),
                actions: Overload::ALL
                    .map(|action| (action.name(), counts.overloads(action)))
                    .into_iter()
                    .collect(),
            },
            via: served.via.path().into_iter().map(Hop::from).collect(),
            upstreams: of_all(served.via.upstreams()),
            buses: of_buses(&served.connections.figures),
        }
    }
}

fn of_all(upstreams: Vec<via::Upstream>) -> Vec<Source> {
    upstreams.into_iter().map(Source::from).collect()
}

fn of_buses(buses: &[Arc<Figures>]) -> Vec<Bus> {
    buses.iter().map(|bus| Bus::from(&**bus)).collect()
}

impl Subscribers {
    async fn of(served: &Served, format: Format) -> (&'static str, Self) {
        let counts = &served.subscribers;
        let lag = served.lag(format).await;
        let readers = Self {
            connected: counts.of(format),
            joined: counts.joined(format),
            sent: served.sent(format).into(),
            gaps: counts.gaps(format),
            lag: lag.map(|lag| Behind {
                subscribers: lag.behind,
                events: lag.events,
                bytes: lag.bytes,
                seconds: lag.seconds(),
            }),
        };
        (format.name(), readers)
    }
}

fn age(since: u64) -> f64 {
    event::now().saturating_sub(since) as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_asks_for_one_or_some() {
        assert_eq!(
            Wanted::of("path=%2Fa%3Fb&limit=0"),
            Ok(Wanted::One("/a?b".to_owned()))
        );
        assert_eq!(Wanted::of("x=1"), Part::of("").map(Wanted::Some));
        assert_ne!(Wanted::of("after=x"), Part::of("").map(Wanted::Some));
        for wrong in ["limit=", "limit=0", "limit=-1", "limit=all"] {
            assert!(Wanted::of(wrong).is_err(), "{wrong}");
        }
    }
}
