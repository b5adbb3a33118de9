//! A stream that is served: its log, and what brings it to its subscribers.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::join_all;
use tokio_util::task::TaskTracker;

use super::Policy;
use super::buses::Connections;
use crate::bus::deep::Deep;
use crate::endpoint::fanout::moving::Collector;
use crate::endpoint::fanout::{Ender, Fanout};
use crate::endpoint::lag::Lag;
use crate::endpoint::subscribers::Subscribers;
use crate::listen::rate::OfAddresses;
use crate::source::publish::{Names, Publisher, Sink};
use crate::source::reached::Reached;
use crate::stream::join::{Joined, Wish};
use crate::stream::usage::{Usage, User};
use crate::stream::via::{Refusal, Via};
use crate::stream::{Amount, EventLog};
use crate::wire::Format;
use crate::wire::hop::{Instance, Scope};

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
    /// How its upstreams can be asked.
    pub upstreams: Arc<Reached>,
    /// Ends its subscribers, and what brings events for them.
    pub ender: Ender,
    /// How many subscribers there are.
    pub subscribers: Arc<Subscribers>,
    pub(super) usage: Arc<Usage>,
    /// Those who use it and are no peers, if they are why it has peers itself: two that read each other for each other's sake would never
    /// end.
    pub(super) readers: Option<Arc<Usage>>,
    /// For each format that is not compressed, once somebody reads it.
    fanouts: [OnceLock<Box<Fanout>>; Format::PLAIN.len()],
    /// The others, once there is one of them: most streams have none.
    rare: OnceLock<Box<Rare>>,
    /// Knows what still runs for it.
    pub tasks: TaskTracker,
}

/// Those who serve what few streams are read as.
#[derive(Default)]
struct Rare {
    /// For each format that is compressed.
    coded: [OnceLock<Box<Fanout>>; Format::ALL.len() - Format::PLAIN.len()],
    /// For peers, and for those that read it compressed.
    peers: [OnceLock<Box<Fanout>>; 2],
}

/// A stream, and the right to expect that it stays.
pub struct Lease {
    /// The stream.
    pub stream: Arc<Served>,
    /// Keeps it there.
    pub user: User,
}

impl Lease {
    /// The same, for a reader that is no peer.
    pub fn of_reader(self) -> Self {
        let readers = self.stream.readers.as_ref().map(|readers| readers.enter());
        let user = match readers {
            Some(reader) => self.user.and(reader),
            None => self.user,
        };
        Self {
            stream: self.stream,
            user,
        }
    }
}

impl Served {
    /// The stream in `log`. `address` is where this instance serves, in its own words; `publish_rate` is how often each address
    /// may publish to all streams of its route.
    pub(super) fn new(
        name: Arc<str>,
        policy: Arc<Policy>,
        (log, address): (Arc<EventLog>, &str),
        (connections, upstreams): (Connections, Reached),
        ender: Ender,
        (tasks, publish_rate): (&TaskTracker, Option<&Arc<OfAddresses>>),
        names: Option<Names>,
    ) -> Self {
        let settings = &policy.subscribers;
        let comes_for_readers = policy.pattern.is_on_demand() && !policy.peers.is_empty();
        let readers = comes_for_readers.then(Arc::default);
        Self {
            via: Arc::new(Via::new(Instance {
                id: log.origin(),
                address: address.into(),
                distance: 0,
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
            upstreams: Arc::new(upstreams),
            name,
            policy,
            log,
            subscribers: Arc::new(Subscribers::new(ender.stop().clone())),
            ender,
            usage: Arc::default(),
            readers,
            fanouts: Default::default(),
            rare: OnceLock::new(),
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
        let place = match Self::coded(format) {
            Some(at) => &self.rare().coded[at],
            None => &self.fanouts[format as usize],
        };
        place.get_or_init(|| self.new_fanout(self.log.clone(), format))
    }

    /// The place of a format among those that are compressed, if it is one.
    fn coded(format: Format) -> Option<usize> {
        (format as usize).checked_sub(Format::PLAIN.len())
    }

    fn rare(&self) -> &Rare {
        self.rare.get_or_init(Box::default)
    }

    /// What serves the stream in this format, if somebody has read that.
    fn made(&self, format: Format) -> Option<&Fanout> {
        let place = match Self::coded(format) {
            Some(at) => &self.rare.get()?.coded[at],
            None => &self.fanouts[format as usize],
        };
        place.get().map(Box::as_ref)
    }

    /// What serves a link to another hop in this format.
    pub fn links(&self, scope: Scope, format: Format) -> &Fanout {
        match (scope, self.log.own_local()) {
            (Scope::Local, Some(local)) => {
                let new = || self.new_fanout(local.clone(), format);
                self.rare().peers[usize::from(format.coding().is_some())].get_or_init(new)
            }
            _ => self.fanout(format),
        }
    }

    fn new_fanout(&self, log: Arc<EventLog>, format: Format) -> Box<Fanout> {
        Box::new(Fanout::new(
            log,
            format,
            self.name.clone(),
            &self.policy.subscribers,
            self.subscribers.clone(),
            (&self.tasks, &self.ender),
        ))
    }

    /// What serves it in this format, compressed or not, as far as somebody has read that.
    fn all_made(&self, plain: Format) -> impl Iterator<Item = &Fanout> {
        let rare = self.rare.get().filter(|_| plain == Format::Hop);
        let peers = rare.into_iter().flat_map(|rare| &rare.peers);
        let peers = peers.filter_map(|peers| peers.get().map(Box::as_ref));
        let formats = Format::ALL.into_iter();
        let formats = formats.filter(move |format| format.plain() == plain);
        let made = formats.filter_map(|format| self.made(format));
        made.chain(peers)
    }

    /// What its subscribers have been sent in this format: the bytes are those of the connections, before encryption.
    pub fn sent(&self, format: Format) -> Amount {
        let mut sent = self.subscribers.sent(format).amount();
        for fanout in self.all_made(format) {
            sent += fanout.sent();
        }
        sent
    }

    /// How far its subscribers are behind in this format; none if there are none.
    pub async fn lag(&self, format: Format) -> Option<Lag> {
        if self.subscribers.of(format) == 0 {
            return None;
        }
        let lags = join_all(self.all_made(format).map(Fanout::lag)).await;
        let others = self.subscribers.lag(format).in_log(&self.log);
        Some(lags.into_iter().chain([others]).sum())
    }

    /// For how long nobody has used it, if nobody does.
    pub fn unused_for(&self) -> Option<Duration> {
        let is_unused = self.usage.is_unused();
        is_unused.then(|| self.usage.unused_since().elapsed())
    }

    /// Lets its subscribers go one by one.
    pub(super) fn drain(&self) {
        let peers = self.rare.get().into_iter().flat_map(|rare| &rare.peers);
        let peers = peers.filter_map(|peers| peers.get().map(Box::as_ref));
        let formats = Format::ALL.into_iter();
        let all = formats.filter_map(|format| self.made(format));
        all.chain(peers).for_each(Fanout::drain);
    }

    /// Has those subscribers let go of that can go on in another process. Links to peers are not among them: where they stand is
    /// said in the numbers of a log that is made anew there. They come back by themselves, and say what they have.
    pub fn hold(&self, collector: &Collector) {
        let formats = Format::ALL.into_iter();
        let sockets = formats.filter(|format| !format.is_body());
        let made = sockets.filter_map(|format| self.made(format));
        made.for_each(|fanout| fanout.hold(collector));
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
