//! What is known of all streams at a moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use futures_util::{StreamExt, stream};

use crate::bus::figures::Counts;
use crate::endpoint::fanout::Overload;
use crate::endpoint::lag::Lag;
use crate::route::Routes;
use crate::route::served::Served;
use crate::stream::via::Role;
use crate::stream::{Amount, Carrier};
use crate::wire::Format;

/// So many streams have figures of their own, as whoever keeps figures keeps them for each name: those that are always there, and of
/// the others those that have been there for longest, so that it is the same ones each time.
const MOST: usize = 1_000;
/// What the rest of them together is called. No path begins so.
const OTHERS: &str = "(others)";

/// All figures.
#[derive(Default)]
pub struct Snapshot {
    /// How many streams each route has.
    pub routes: Vec<(String, usize)>,
    /// By their names.
    pub streams: BTreeMap<Arc<str>, Stream>,
    /// Whether they are there: by stream, and as they may be shown to anyone.
    pub upstreams: BTreeMap<(Arc<str>, Box<str>), Upstream>,
    /// What those bring of which a stream has several.
    pub links: BTreeMap<(Arc<str>, Box<str>), Link>,
    /// By stream, bus and way.
    pub buses: BTreeMap<(Arc<str>, Box<str>, &'static str), Counts>,
}

/// Figures of an upstream.
pub struct Upstream {
    /// Whether it is there.
    pub connected: bool,
    /// Whether it refuses.
    pub refuses: bool,
    /// How often there has been a connection.
    pub connects: u64,
    /// How often there was none, or one has ended.
    pub failures: u64,
}

/// Figures of an upstream beside others.
#[derive(Default)]
pub struct Link {
    /// Events that it has brought first.
    pub wins: u64,
    /// Events that were here already.
    pub repeated: u64,
    /// How often it has skipped something.
    pub holes: u64,
    /// How often others have filled that.
    pub filled: u64,
    /// How much later than others it is, in microseconds, if it has ever been; of several the largest.
    pub lag: Option<u64>,
}

/// Figures of a stream.
#[derive(Default)]
pub struct Stream {
    /// Events that have come.
    pub events: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// How often something was known to be missing before an event.
    pub gaps: u64,
    /// What has carried events here, in this process.
    pub received: [Amount; Carrier::ALL.len()],
    /// Subscribers in each format.
    pub subscribers: [Readers; Format::PLAIN.len()],
    /// What was done about those that were too slow.
    pub overloads: [u64; Overload::ALL.len()],
}

/// Figures of those who read a stream in one format.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Readers {
    /// How many there are.
    pub connected: usize,
    /// How many there have been.
    pub joined: u64,
    /// What they have been sent.
    pub sent: Amount,
    /// How often one was told alone that it has missed something.
    pub gaps: u64,
    /// How many are behind.
    pub behind: usize,
    /// Events before the last of them.
    pub lag_events: u64,
    /// For how long the event is there that it waits for, in seconds.
    pub lag_seconds: f64,
}

impl Readers {
    fn add(&mut self, stream: &Served, format: Format, lag: Option<Lag>) {
        let counts = &stream.subscribers;
        self.connected += counts.of(format);
        self.joined += counts.joined(format);
        self.sent += stream.sent(format);
        self.gaps += counts.gaps(format);
        if let Some(lag) = lag {
            self.behind += lag.behind;
            self.lag_events = self.lag_events.max(lag.events);
            self.lag_seconds = self.lag_seconds.max(lag.seconds());
        }
    }
}

/// How far the subscribers of a stream are behind, in each format.
type Lags = [Option<Lag>; Format::PLAIN.len()];

/// So many streams are looked at at once.
const AT_ONCE: usize = 64;

impl Snapshot {
    /// Of all streams there are now.
    pub async fn of(routes: &Routes) -> Self {
        Self::of_at_most(MOST, routes).await
    }

    async fn of_at_most(most: usize, routes: &Routes) -> Self {
        let (mut snapshot, mut streams) = (Self::default(), Vec::new());
        for route in routes.all() {
            let pattern = &route.policy.pattern;
            let before = streams.len();
            streams.extend(route.streams(""));
            let count = streams.len() - before;
            snapshot.routes.push((pattern.to_string(), count));
        }
        streams.sort_by_cached_key(|stream| {
            let comes_and_goes = stream.policy.pattern.is_on_demand();
            (comes_and_goes, stream.log.began(), stream.name.clone())
        });
        let others: Arc<str> = OTHERS.into();
        let looks = streams.into_iter().map(|stream| async move {
            let lags = join_all(Format::PLAIN.map(|format| stream.lag(format))).await;
            (stream, lags)
        });
        let mut looks = stream::iter(looks).buffered(AT_ONCE).enumerate();
        while let Some((number, (stream, lags))) = looks.next().await {
            let lags = lags.try_into().unwrap_or_default();
            match number < most {
                true => snapshot.add(&stream.name, (&stream, lags), |url| url.into()),
                false => snapshot.add(&others, (&stream, lags), |_| OTHERS.into()),
            }
        }
        drop(looks);
        snapshot
    }

    /// Adds a stream under a name. Whatever has the same name, and the same URL, becomes one: then it is there if all of it is.
    fn add(
        &mut self,
        name: &Arc<str>,
        (stream, lags): (&Served, Lags),
        shown: impl Fn(&str) -> Box<str>,
    ) {
        let figures = stream.log.figures();
        let sum = self.streams.entry(name.clone()).or_default();
        sum.events += figures.events;
        sum.bytes += figures.bytes;
        sum.gaps += figures.gaps;
        for (carrier, amount) in stream.log.received() {
            sum.received[carrier as usize] += amount;
        }
        let readers = sum.subscribers.iter_mut().zip(Format::PLAIN).zip(lags);
        for ((sum, format), lag) in readers {
            sum.add(stream, format, lag);
        }
        for (sum, action) in sum.overloads.iter_mut().zip(Overload::ALL) {
            *sum += stream.subscribers.overloads(action);
        }
        let upstreams = stream.via.upstreams().into_iter();
        // A standby that is not in use is not missing.
        for upstream in upstreams.filter(|it| it.connected || it.role != Role::Standby) {
            let key = (name.clone(), shown(&upstream.url));
            if let Some(counts) = upstream.counts() {
                let sum = self.links.entry(key.clone()).or_default();
                sum.wins += counts.wins;
                sum.repeated += counts.repeated;
                sum.holes += counts.holes;
                sum.filled += counts.filled;
                sum.lag = sum.lag.max(counts.lag);
            }
            let all = self.upstreams.entry(key).or_insert(Upstream {
                connected: true,
                refuses: false,
                connects: 0,
                failures: 0,
            });
            all.connected &= upstream.connected;
            all.refuses |= upstream.refusal().is_some();
            all.connects += upstream.connects;
            all.failures += upstream.failures;
        }
        for bus in &stream.connections.figures {
            let key = (name.clone(), shown(&bus.bus), bus.way.name());
            let counts = bus.counts();
            let sum = self.buses.entry(key).or_insert(Counts {
                connected: true,
                ..Counts::default()
            });
            sum.connected &= counts.connected;
            sum.connects += counts.connects;
            sum.events += counts.events;
            sum.bytes += counts.bytes;
            sum.refused += counts.refused;
            sum.lost += counts.lost;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::cli::config::ConfigFile;
    use crate::event::{Origin, Payload};
    use crate::route::find::Place;
    use crate::route::served::Lease;
    use crate::shutdown::Stop;

    fn routes(file: &str) -> Routes {
        let path = tempfile::NamedTempFile::new().expect("a file for the test");
        std::fs::write(path.path(), file).expect("the file is ours");
        let file = ConfigFile::at(path.path()).expect("there is nothing beside it");
        let Ok(loaded) = file.load() else {
            panic!("the file is good")
        };
        let (tasks, stop) = (TaskTracker::new(), Stop::new(Duration::from_secs(5)));
        let own = (Origin(7), "localhost:1");
        Routes::start(loaded.hop.routes, own, (&tasks, &stop))
    }

    fn open(routes: &Routes, path: &str) -> Lease {
        match routes.find(path, None) {
            Ok(Some(Place::Stream(route, key))) => route.open(&key).expect("there is room"),
            _ => panic!("there is a stream at {path}"),
        }
    }

    #[tokio::test]
    async fn the_rest_is_told_as_one() {
        let routes = routes(
            "\
[[route]]
serve-path = \"/z\"
accept-publish = true
[[route]]
serve-path = \"/t/*\"
accept-publish = true
forward = \"http://127.0.0.1:1/x/*\"
",
        );
        let leases: Vec<_> = (1..=4)
            .map(|number| {
                let lease = open(&routes, &format!("/t/{number}"));
                for _ in 0..number {
                    lease.stream.log.append(Payload::text("ab"));
                }
                lease
            })
            .collect();
        leases[3].stream.subscribers.join(Format::Sse);
        let all = Snapshot::of(&routes).await;
        let names = |snapshot: &Snapshot| -> Vec<_> {
            let names = snapshot.streams.keys();
            names.map(|name| name.to_string()).collect()
        };
        assert_eq!(names(&all), ["/t/1", "/t/2", "/t/3", "/t/4", "/z"]);
        let some = Snapshot::of_at_most(3, &routes).await;
        // In the order in which they came, unless that was the same moment; the one that is always there is among them.
        assert_eq!(names(&some), ["(others)", "/t/1", "/t/2", "/z"]);
        let others = &some.streams["(others)"];
        assert_eq!((others.events, others.bytes), (7, 14));
        assert_eq!(others.subscribers[Format::Sse as usize].connected, 1);
        let of_buses = |snapshot: &Snapshot| snapshot.buses.len();
        assert_eq!((of_buses(&all), of_buses(&some)), (4, 3));
        let counts = [("/z".to_owned(), 1), ("/t/*".to_owned(), 4)];
        assert_eq!(some.routes, counts);
        drop(leases);
    }
}
