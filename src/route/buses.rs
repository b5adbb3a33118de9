//! The buses of a route, and how each of its streams is connected to them.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::pattern::{Key, Pattern};
use crate::bus::deep::Archive;
use crate::bus::figures::{Figures, Way};
use crate::bus::outbox::Outbox;
use crate::bus::{Bus, forward};
use crate::source::Source;
use crate::stream::EventLog;
use crate::stream::follow::Follower;
use crate::stream::history::Limits;

/// The buses of a route; where its streams come and go, with a star in their names.
#[derive(Clone, Default)]
pub struct Buses {
    /// Events come from these.
    pub consume: Vec<Bus>,
    /// And go to these.
    pub forward: Vec<Bus>,
    /// What is published goes to this one first, and all that is served comes from it.
    pub both: Option<Bus>,
}

/// What connects one stream to its buses.
#[derive(Default)]
pub struct Connections {
    /// Where what is published goes, if not into the log.
    pub outbox: Option<Arc<Outbox>>,
    /// What goes over each of them.
    pub figures: Vec<Arc<Figures>>,
    /// Where more of the stream is kept than its history holds.
    pub archive: Option<Arc<Archive>>,
}

impl Connections {
    fn add(&mut self, bus: Bus, way: Way) -> (Arc<Bus>, Arc<Figures>) {
        let figures = Arc::new(Figures::new(bus.to_string(), way));
        self.figures.push(figures.clone());
        (Arc::new(bus), figures)
    }

    /// `only` is the bus that the log is from, and the one that is read.
    fn keep_archive(&mut self, only: Option<Bus>) {
        let figures = self.figures.iter().find(|it| it.way == Way::In);
        let archive = only.zip(figures.cloned());
        self.archive = archive.map(|(bus, figures)| Arc::new(Archive::new(bus, figures)));
    }

    fn source(&mut self, bus: Bus) -> Source {
        let (bus, figures) = self.add(bus, Way::In);
        Source::Bus(bus, figures)
    }
}

/// What brings events into a stream, and where each source brings them.
pub(super) type Sources = Vec<(Source, Arc<EventLog>)>;

impl Buses {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.consume.is_empty() && self.forward.is_empty() && self.both.is_none()
    }

    /// Those of one stream.
    pub fn of_stream(&self, pattern: &Pattern, key: &Key) -> Self {
        let own = |bus: &Bus| {
            let address = bus.address.of_stream(pattern, key);
            let mut own = bus.clone();
            own.upstream.url = address.url.clone();
            own.address = address;
            own
        };
        Self {
            consume: self.consume.iter().map(own).collect(),
            forward: self.forward.iter().map(own).collect(),
            both: self.both.as_ref().map(own),
        }
    }

    /// The bus that all that is in the log comes from, in the order of the log, if it keeps that. `alone`: there is nothing but what is
    /// consumed from buses.
    fn only(&self, alone: bool) -> Option<Bus> {
        let bus = match (&self.both, &self.consume[..]) {
            (Some(both), []) => both,
            (None, [only]) if alone => only,
            _ => return None,
        };
        bus.is_durable().then(|| bus.clone())
    }

    /// Connects the stream in `log` to them: it has `sources` besides, and clients may publish if that is what `publishes` says.
    pub(super) fn connect(
        self,
        log: &Arc<EventLog>,
        (mut sources, publishes): (Vec<Source>, bool),
        history: Limits,
        (tasks, stop): (&TaskTracker, &CancellationToken),
    ) -> (Connections, Sources) {
        let only = self.only(sources.is_empty() && !publishes);
        let mut connections = Connections::default();
        let forward = |(bus, figures), log: &Arc<EventLog>, own| {
            let follower = Follower::new(log.clone());
            tasks.spawn(forward::run(bus, follower, own, figures, stop.clone()));
        };
        for bus in self.consume {
            sources.push(connections.source(bus));
        }
        for bus in self.forward {
            forward(connections.add(bus, Way::Out), log, None);
        }
        let Some(both) = self.both else {
            connections.keep_archive(only);
            let sources = sources.into_iter().map(|source| (source, log.clone()));
            return (connections, sources.collect());
        };
        if publishes {
            let (bus, figures) = connections.add(both.clone(), Way::Out);
            let outbox = Arc::new(Outbox::new(figures));
            tasks.spawn(outbox.clone().run(bus, stop.clone()));
            connections.outbox = Some(outbox);
        }
        // What sources bring goes round by the bus as well: into a log that nobody reads, and from there.
        let mut into = Sources::new();
        if !sources.is_empty() {
            let inlet = Arc::new(EventLog::new(history));
            let own = Some(inlet.origin());
            forward(connections.add(both.clone(), Way::Out), &inlet, own);
            into.extend(sources.into_iter().map(|source| (source, inlet.clone())));
        }
        into.push((connections.source(both), log.clone()));
        connections.keep_archive(only);
        (connections, into)
    }
}
