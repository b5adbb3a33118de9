//! What is known of all streams at a moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::bus::figures::Counts;
use crate::route::Routes;
use crate::route::served::Served;
use crate::stream::via::Role;
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
    pub upstreams: BTreeMap<(Arc<str>, Box<str>), bool>,
    /// What those bring of which a stream has several.
    pub links: BTreeMap<(Arc<str>, Box<str>), Link>,
    /// By stream, bus and way.
    pub buses: BTreeMap<(Arc<str>, Box<str>, &'static str), Counts>,
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
    /// Subscribers in each format.
    pub subscribers: [usize; Format::PLAIN.len()],
}

impl Snapshot {
    /// Of all streams there are now.
    pub fn of(routes: &Routes) -> Self {
        Self::of_at_most(MOST, routes)
    }

    fn of_at_most(most: usize, routes: &Routes) -> Self {
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
        for (number, stream) in streams.iter().enumerate() {
            match number < most {
                true => snapshot.add(&stream.name, stream, |url| url.into()),
                false => snapshot.add(&others, stream, |_| OTHERS.into()),
            }
        }
        snapshot
    }

    /// Adds a stream under a name. Whatever has the same name, and the same URL, becomes one: then it is there if all of it is.
    fn add(&mut self, name: &Arc<str>, stream: &Served, shown: impl Fn(&str) -> Box<str>) {
        let figures = stream.log.figures();
        let sum = self.streams.entry(name.clone()).or_default();
        sum.events += figures.events;
        sum.bytes += figures.bytes;
        for (sum, format) in sum.subscribers.iter_mut().zip(Format::PLAIN) {
            *sum += stream.subscribers.of(format);
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
            let all = self.upstreams.entry(key).or_insert(true);
            *all &= upstream.connected;
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
        let all = Snapshot::of(&routes);
        let names = |snapshot: &Snapshot| -> Vec<_> {
            let names = snapshot.streams.keys();
            names.map(|name| name.to_string()).collect()
        };
        assert_eq!(names(&all), ["/t/1", "/t/2", "/t/3", "/t/4", "/z"]);
        let some = Snapshot::of_at_most(3, &routes);
        // In the order in which they came, unless that was the same moment; the one that is always there is among them.
        assert_eq!(names(&some), ["(others)", "/t/1", "/t/2", "/z"]);
        let others = &some.streams["(others)"];
        assert_eq!((others.events, others.bytes), (7, 14));
        assert_eq!(others.subscribers[Format::Sse as usize], 1);
        let of_buses = |snapshot: &Snapshot| snapshot.buses.len();
        assert_eq!((of_buses(&all), of_buses(&some)), (4, 3));
        let counts = [("/z".to_owned(), 1), ("/t/*".to_owned(), 4)];
        assert_eq!(some.routes, counts);
        drop(leases);
    }
}
