//! What brings events into one stream: its sources, what stands by for them, and its peers.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Policy;
use super::served::Served;
use crate::pause::Pause;
use crate::source::peers::{self, Entry};
use crate::source::standby::{self, Standby};
use crate::source::upstream::Upstream;
use crate::source::{Destination, Source};
use crate::stream::EventLog;
use crate::stream::merge::Merge;
use crate::stream::via::Role;

/// The instances that serve the same as this one, of a route or of one stream.
#[derive(Clone, Default)]
pub struct Peers {
    /// One each.
    pub listed: Vec<Upstream>,
    /// The host of each stands for several.
    pub named: Vec<Upstream>,
    /// How often it is asked which ones these are.
    pub interval: Duration,
}

impl Peers {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.listed.is_empty() && self.named.is_empty()
    }

    /// Those of one stream, where these are templates.
    pub(super) fn map(&self, own: impl Fn(&Upstream) -> Upstream) -> Self {
        Self {
            listed: self.listed.iter().map(&own).collect(),
            named: self.named.iter().map(&own).collect(),
            interval: self.interval,
        }
    }
}

/// The links into a stream, as they are made.
pub(super) struct Links<'a> {
    stream: &'a Arc<Served>,
    /// Where each of those leads that there are going to be. Where several do, what they bring is held against each other.
    into: Vec<Arc<EventLog>>,
    pause: &'a Arc<Pause>,
    merges: Vec<Arc<Merge>>,
    /// The number of the next one.
    number: usize,
}

impl<'a> Links<'a> {
    /// `sources` are those of the stream, and where they lead.
    pub(super) fn new(
        stream: &'a Arc<Served>,
        pause: &'a Arc<Pause>,
        sources: &[(Source, Arc<EventLog>)],
    ) -> Self {
        let links = sources.iter().filter(|(source, _)| source.is_link());
        let mut into: Vec<_> = links.map(|(_, log)| log.clone()).collect();
        let Policy {
            standbys, peers, ..
        } = &*stream.policy;
        // What stands by for others brings events to where they do.
        let first = sources.first().map_or(&stream.log, |(_, log)| log);
        into.extend(standbys.iter().map(|_| first.clone()));
        // A name may stand for any number of them.
        let most = peers.listed.len() + 2 * peers.named.len();
        into.extend((0..most).map(|_| stream.log.clone()));
        Self {
            stream,
            into,
            pause,
            merges: Vec::new(),
            number: 0,
        }
    }

    fn merge(&mut self, log: Arc<EventLog>) -> Arc<Merge> {
        let known = self.merges.iter().find(|merge| merge.leads_to(&log));
        known.cloned().unwrap_or_else(|| {
            let links = self.into.iter().filter(|into| Arc::ptr_eq(into, &log));
            let merge = match links.count() {
                0 | 1 => Merge::new(log),
                _ => Merge::of_several(log, &self.stream.policy.merging),
            };
            // Where sources stand still, what is held does.
            if let Some(tending) = merge.tending(self.stream.ender.token().clone()) {
                self.stream.tasks.spawn(self.pause.within(tending));
            }
            self.merges.push(merge.clone());
            merge
        })
    }

    /// The way into `log` of the next source, and what ends it.
    pub(super) fn next(
        &mut self,
        log: Arc<EventLog>,
        source: &Source,
    ) -> (Destination, CancellationToken) {
        let mut to = self.destination(log);
        to.owes_past = source.announce(&to.inflow, &self.stream.via, to.number);
        (to, self.stream.ender.token().clone())
    }

    fn destination(&mut self, log: Arc<EventLog>) -> Destination {
        let number = self.number;
        self.number += 1;
        let inflow = self.merge(log.clone()).inflow(number, false);
        if let Some(figures) = inflow.figures() {
            self.stream.via.counts(number, figures.clone());
        }
        Destination {
            inflow,
            log,
            via: self.stream.via.clone(),
            number,
            on_demand: self.stream.policy.pattern.is_on_demand(),
            owes_past: false,
            pause: self.pause.clone(),
        }
    }

    /// Begins to watch whether `standbys` are needed, whose events would go into `log`.
    pub(super) fn begin_standbys(
        &mut self,
        standbys: Vec<Upstream>,
        log: Arc<EventLog>,
        tasks: &TaskTracker,
    ) {
        if standbys.is_empty() {
            return;
        }
        let standby = |upstream: Upstream| {
            let to = self.destination(log.clone());
            let name = upstream.to_string();
            to.via.expect_as(Role::Standby, to.number, &name);
            let reached = &self.stream.upstreams;
            reached.set(to.number, Arc::new(upstream.clone()));
            Standby { upstream, to }
        };
        let standbys: Vec<_> = standbys.into_iter().map(standby).collect();
        let stop = self.stream.ender.token().clone();
        tasks.spawn(standby::watch(standbys, stop));
    }

    /// Begins to read the peers; of a stream that comes and goes with its readers, for these.
    pub(super) fn begin_peers(&mut self, peers: Peers, tasks: &TaskTracker) {
        if peers.is_empty() {
            return;
        }
        let log = self.stream.log.clone();
        let entry = Entry {
            merge: self.merge(log.clone()),
            log,
            via: self.stream.via.clone(),
            reached: self.stream.upstreams.clone(),
            on_demand: self.stream.policy.pattern.is_on_demand(),
            first: self.number,
            pause: self.pause.clone(),
        };
        let stop = self.stream.ender.token().clone();
        match self.stream.readers.is_some() {
            true => drop(tasks.spawn(while_read(self.stream.clone(), peers, entry))),
            false => begin(&peers, &entry, &stop, tasks),
        }
    }
}

fn begin(peers: &Peers, entry: &Entry, stop: &CancellationToken, tasks: &TaskTracker) {
    for upstream in &peers.listed {
        entry.begin(Role::Peer, upstream.clone(), stop.clone(), tasks);
    }
    for upstream in &peers.named {
        // Whoever waits for the past waits for those, too, that are not known yet.
        entry.log.expect_past_of_peer();
        let upstream = Arc::new(upstream.clone());
        let (interval, entry) = (peers.interval, entry.clone());
        tasks.spawn(peers::follow(upstream, interval, entry, stop.clone()));
    }
}

/// Reads the peers of a stream for its readers, and as long after them as the stream may linger.
async fn while_read(stream: Arc<Served>, peers: Peers, entry: Entry) {
    let (Some(readers), stop) = (&stream.readers, stream.ender.token()) else {
        return;
    };
    while stop
        .run_until_cancelled(readers.becomes(false))
        .await
        .is_some()
    {
        let (links, end) = (TaskTracker::new(), stop.child_token());
        begin(&peers, &entry, &end, &links);
        loop {
            if stop
                .run_until_cancelled(readers.becomes(true))
                .await
                .is_none()
            {
                break;
            }
            let since = readers.unused_since();
            let lingers = stream.policy.linger.saturating_sub(since.elapsed());
            let back = stop.run_until_cancelled(timeout(lingers, readers.becomes(false)));
            if !matches!(back.await, Some(Ok(()))) && readers.unused_since() == since {
                break;
            }
        }
        end.cancel();
        links.close();
        links.wait().await;
        entry.via.remove_peers();
        entry.reached.remove_from(entry.first);
    }
}
