//! A stream that is served: its log, and what brings it to its subscribers.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio_util::task::TaskTracker;

use super::Policy;
use super::buses::Connections;
use crate::bus::deep::Deep;
use crate::endpoint::fanout::moving::Collector;
use crate::endpoint::fanout::{Ender, Fanout};
use crate::endpoint::subscribers::Subscribers;
use crate::listen::rate::OfAddresses;
use crate::source::publish::{Names, Publisher, Sink};
use crate::stream::EventLog;
use crate::stream::join::{Joined, Wish};
use crate::stream::usage::{Usage, User};
use crate::stream::via::{Refusal, Via};
use crate::wire::Format;
use crate::wire::hop::Instance;

/// How long an upstream may take to say whether there is such a stream; then it is taken for one that is merely away.
const PATIENCE: Duration = Duration::from_secs(4);

/// A stream that is served at a URL.
pub struct Served {
    /// The path, with those parameters that are part of its name.
    pub name: Arc<str>,
    /// What holds for all streams of its route.
    pub policy: Arc<Policy>,
    /// The stream.
    pub log: Arc<EventLog>,
    /// Where it comes through.
    pub via: Arc<Via>,
    /// Takes what clients publish, if they may.
    pub publisher: Option<Publisher>,
    /// What connects it to buses.
    pub connections: Connections,
    /// Ends its subscribers, and what brings events for them.
    pub ender: Ender,
    /// How many subscribers there are.
    pub subscribers: Arc<Subscribers>,
    pub(super) usage: Arc<Usage>,
    /// For each format, once somebody reads it.
    fanouts: [OnceLock<Box<Fanout>>; Format::ALL.len()],
    /// Knows what still runs for it.
    pub tasks: TaskTracker,
}

/// A stream, and the right to expect that it stays.
pub struct Lease {
    /// The stream.
    pub stream: Arc<Served>,
    /// Keeps it there.
    pub user: User,
}

impl Served {
    /// The stream in `log`. `address` is where this instance serves, in its own words; `publish_rate` is how often each address
    /// may publish to all streams of its route.
    pub(super) fn new(
        name: Arc<str>,
        policy: Arc<Policy>,
        (log, address): (Arc<EventLog>, &str),
        connections: Connections,
        ender: Ender,
        (tasks, publish_rate): (&TaskTracker, Option<&Arc<OfAddresses>>),
        names: Option<Names>,
    ) -> Self {
        let settings = &policy.subscribers;
        Self {
            via: Arc::new(Via::new(Instance {
                id: log.origin(),
                address: address.into(),
            })),
            publisher: settings.accept_publish.then(|| {
                let rate = publish_rate.cloned();
                let sink = match &connections.outbox {
                    Some(outbox) => Sink::Bus(outbox.clone()),
                    None => Sink::Log(log.clone()),
                };
                Publisher::new(sink, settings.max_message_size, rate).knowing(names)
            }),
            connections,
            name,
            policy,
            log,
            ender,
            subscribers: Arc::default(),
            usage: Arc::default(),
            fanouts: Default::default(),
            tasks: tasks.clone(),
        }
    }

    /// One more user.
    pub(super) fn lease(self: &Arc<Self>) -> Lease {
        Lease {
            user: self.usage.enter(),
            stream: self.clone(),
        }
    }

    /// What serves the stream in this format.
    pub fn fanout(&self, format: Format) -> &Fanout {
        self.fanouts[format as usize].get_or_init(|| {
            Box::new(Fanout::new(
                self.log.clone(),
                format,
                self.name.clone(),
                &self.policy.subscribers,
                self.subscribers.clone(),
                (&self.tasks, &self.ender),
            ))
        })
    }

    /// Has those subscribers let go of that can go on in another process.
    pub fn hold(&self, collector: &Collector) {
        for format in [Format::WebSocket, Format::Hop] {
            if let Some(fanout) = self.fanouts[format as usize].get() {
                fanout.hold(collector);
            }
        }
    }

    /// The way to where `wish` leads, if that is beyond what history holds, and a bus keeps more; `joined` then says how far it is met.
    pub async fn reach(
        &self,
        format: Format,
        wish: &Wish,
        joined: &mut Joined,
    ) -> Option<Box<Deep>> {
        let archive = self.connections.archive.as_ref()?;
        archive.reach(&self.log, format, wish, joined).await
    }

    /// Its path, without parameters.
    pub fn path(&self) -> &str {
        self.name.split('?').next().unwrap_or_default()
    }

    /// Waits until it is known whether the upstream has this stream, where that is a question.
    pub async fn is_there(&self) -> Result<(), Refusal> {
        match self.policy.pattern.is_on_demand() {
            true => self.via.verdict(PATIENCE).await,
            false => Ok(()),
        }
    }
}
