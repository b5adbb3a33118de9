//! Peers: instances that serve the same stream, each of which takes from every other what has entered there. A name may stand for
//! several, which come and go.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::reached::Reached;
use super::upstream::{Upstream, port};
use super::{Destination, websocket};
use crate::pause::Pause;
use crate::reason;
use crate::stream::EventLog;
use crate::stream::merge::Merge;
use crate::stream::via::{Role, Via};

/// A link that works is kept for so long after its address has vanished from the name: an answer may be short of some.
const KEPT: Duration = Duration::from_secs(5 * 60);

/// The way of peers into a stream.
#[derive(Clone)]
pub struct Entry {
    /// The stream.
    pub log: Arc<EventLog>,
    /// Where all links into it meet.
    pub merge: Arc<Merge>,
    /// Gets to know the peers.
    pub via: Arc<Via>,
    /// How each of them can be asked.
    pub reached: Arc<Reached>,
    /// Whether the stream comes and goes.
    pub on_demand: bool,
    /// Holds the links still for a moment.
    pub pause: Arc<Pause>,
    /// The numbers of sources that are taken end before this one.
    pub first: usize,
}

impl Entry {
    /// Begins to read one peer. Its number.
    pub fn begin(
        &self,
        role: Role,
        upstream: Upstream,
        stop: CancellationToken,
        tasks: &TaskTracker,
    ) -> usize {
        let number = self
            .via
            .expect_another(role, self.first, &upstream.to_string());
        let upstream = Arc::new(upstream);
        self.reached.set(number, upstream.clone());
        let inflow = self.merge.inflow(number, true);
        inflow.expect_past();
        if let Some(figures) = inflow.figures() {
            self.via.counts(number, figures.clone());
        }
        let to = Destination {
            log: self.log.clone(),
            inflow,
            via: self.via.clone(),
            number,
            on_demand: self.on_demand,
            owes_past: true,
            pause: self.pause.clone(),
        };
        let consuming = websocket::consume(upstream, to, stop);
        tasks.spawn(self.pause.within(consuming));
        number
    }
}

/// A peer at one address.
struct Link {
    number: usize,
    stop: CancellationToken,
    tasks: TaskTracker,
    /// Since when the name does not stand for it any more.
    vanished: Option<Instant>,
}

/// Reads the peers that the host of `named` stands for, which is looked up every `interval`, until `stop` is cancelled. Whoever begins
/// this has let the log [expect](EventLog::expect_past_of_peer) what they tell of the past.
pub async fn follow(
    named: Arc<Upstream>,
    interval: Duration,
    entry: Entry,
    stop: CancellationToken,
) {
    let mut following = Following {
        name: named.to_string(),
        named,
        links: BTreeMap::new(),
        is_lost: false,
    };
    let mut owes_past = true;
    loop {
        let Some(addresses) = stop.run_until_cancelled(following.look_up()).await else {
            break;
        };
        match addresses {
            Ok(addresses) => following.adjust(&addresses, &entry, &stop).await,
            Err(error) => following.keep(&error),
        }
        if std::mem::take(&mut owes_past) {
            entry.log.past_of_peer_is_settled();
        }
        // Instances that have begun together do not ask together.
        let pause = interval.mul_f64(rand::random_range(0.8..1.2));
        if stop.run_until_cancelled(sleep(pause)).await.is_none() {
            break;
        }
    }
    if owes_past {
        entry.log.past_of_peer_is_settled();
    }
    for link in following.links.values() {
        link.tasks.close();
        link.tasks.wait().await;
    }
}

struct Following {
    named: Arc<Upstream>,
    /// For the log.
    name: String,
    links: BTreeMap<SocketAddr, Link>,
    /// Whether the name could not be looked up.
    is_lost: bool,
}

impl Following {
    async fn look_up(&self) -> io::Result<Vec<SocketAddr>> {
        let host = self.named.url.host_str().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = port(&self.named.url).unwrap_or_default();
        Ok(lookup_host((host, port)).await?.collect())
    }

    fn keep(&mut self, error: &io::Error) {
        let (name, links) = (&self.name, self.links.len());
        let reason = reason::io_text(error);
        match std::mem::replace(&mut self.is_lost, true) {
            false => warn!(
                name,
                reason, links, "cannot look up peers, keeping those there are"
            ),
            true => debug!(name, reason, links, "peers still cannot be looked up"),
        }
    }

    /// These are the addresses that there are now.
    async fn adjust(&mut self, addresses: &[SocketAddr], entry: &Entry, stop: &CancellationToken) {
        let name = &self.name;
        if std::mem::take(&mut self.is_lost) {
            info!(name, "peers can be looked up again");
        }
        for address in addresses {
            if let Some(link) = self.links.get_mut(address) {
                link.vanished = None;
                continue;
            }
            info!(name, %address, "peer found");
            let upstream = Upstream {
                address: Some(*address),
                ..(*self.named).clone()
            };
            let (stop, tasks) = (stop.child_token(), TaskTracker::new());
            let number = entry.begin(Role::NamedPeer, upstream, stop.clone(), &tasks);
            let link = Link {
                number,
                stop,
                tasks,
                vanished: None,
            };
            self.links.insert(*address, link);
        }
        let gone: Vec<_> = self
            .links
            .iter_mut()
            .filter(|(address, _)| !addresses.contains(address))
            .filter_map(|(address, link)| {
                let since = *link.vanished.get_or_insert_with(Instant::now);
                let is_used = entry.via.is_connected(link.number) && since.elapsed() < KEPT;
                (!is_used).then_some(*address)
            })
            .collect();
        for address in gone {
            let Some(link) = self.links.remove(&address) else {
                continue;
            };
            link.stop.cancel();
            link.tasks.close();
            // Until then its number is not free.
            link.tasks.wait().await;
            entry.via.remove(link.number);
            entry.reached.remove(link.number);
            info!(name = self.name, %address, "peer gone");
        }
    }
}
