//! Routes: which URLs are served, from where, and to whom. A route with a star, or with parameters that count, has a
//! stream for each distinct URL: made by the first who asks for it, and dropped when it has been unused for a while.
//!
//! ```text
//!   Routes ──► Route ──► Served, Served, …      a stream each: log, fan-outs
//!     │          │          └── its sources
//!   which     pattern,
//!   route     policy
//! ```

pub mod buses;
pub mod find;
pub mod pattern;
pub mod served;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Result, bail};
use hyper::StatusCode;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use crate::bus::address::Kind;
use crate::endpoint::fanout::{Ender, Farewell, Settings};
use crate::event::Origin;
use crate::listen::rate::OfAddresses;
use crate::source::produce::Produce;
use crate::source::upstream::Upstream;
use crate::source::{Destination, Source};
use crate::stream::EventLog;
use crate::stream::history::Limits;
use crate::stream::merge::{Merge, Terms};
use crate::stream::retained::Retain;
use crate::stream::via::Refusal;
use buses::Buses;
use find::{NoStream, Place};
use pattern::{Key, Pattern};
use served::{Lease, Served};

/// The word of an upstream that there is no such stream is repeated for so long before it is asked again.
const REMEMBERED: Duration = Duration::from_secs(1);
/// An upstream that had a stream is asked again for so long before it is believed that there is none any more.
const DOUBTED: Duration = Duration::from_secs(10);
/// What a route has inherited is kept for so long at least: time enough to connect again.
const INHERITED: Duration = Duration::from_secs(10);
/// So many streams are looked at in one go.
const LOOK: usize = 256;
/// More streams than this that an upstream does not have are not remembered.
const MAX_REFUSED: usize = 10_000;

/// What holds for all streams of a route.
#[derive(Clone)]
pub struct Policy {
    /// The URLs.
    pub pattern: Pattern,
    /// What is consumed; of a pattern with a star, templates.
    pub upstreams: Vec<Upstream>,
    /// How what several links bring is merged.
    pub merging: Terms,
    /// The buses.
    pub buses: Buses,
    /// Random events, if wanted.
    pub produce: Option<Produce>,
    /// The bounds of each stream's history.
    pub history: Limits,
    /// What is kept beside it.
    pub retain: Option<Retain>,
    /// What holds for each subscriber.
    pub subscribers: Settings,
    /// The pages of other servers that are let in.
    pub origins: Origins,
    /// How long a stream on demand stays when nobody uses it.
    pub linger: Duration,
    /// At most so many streams on demand.
    pub max_streams: usize,
    /// Whether the process counts as ready only while its upstreams are there.
    pub ready_when_upstream: bool,
    /// As it was configured: a route whose words are the same is the same route.
    pub words: Vec<String>,
}

impl Policy {
    /// The same, for a process that serves at `address`, in its own words, which stands for `addresses`. An error if it would
    /// consume what it serves.
    pub fn at(mut self, address: &str, addresses: &[SocketAddr]) -> Result<Self> {
        let is_own = |upstream: &&Upstream| {
            let path = upstream.url.path();
            let below = path.strip_suffix('*').unwrap_or(path);
            upstream.is_at(addresses)
                && match self.pattern.is_wildcard() {
                    true => below.starts_with(self.pattern.base()),
                    false => path == self.pattern.base(),
                }
        };
        let webhooks = self.buses.forward.iter();
        let webhooks = webhooks.filter(|bus| bus.address.kind == Kind::Webhook);
        let mut others = self
            .upstreams
            .iter()
            .chain(webhooks.map(|bus| &bus.upstream));
        if let Some(own) = others.find(is_own) {
            bail!(
                "{own} is what this hop itself would serve, and events would go round for ever: serve at another address"
            );
        }
        if let Some(produce) = &mut self.produce {
            address.clone_into(&mut produce.address);
        }
        Ok(self)
    }

    /// Whether streams of a route that was like `former` can go on under this policy, with their ids and their history: they have
    /// the same names and the same bounds, and nothing comes from an upstream. What an upstream sends while one connection ends and
    /// another begins would be missed or come twice.
    fn continues(&self, former: &Self) -> bool {
        let mut upstreams = self.upstreams.iter().chain(&former.upstreams);
        upstreams.next().is_none()
            && self.buses.is_empty()
            && former.buses.is_empty()
            && self.pattern == former.pattern
            && self.history == former.history
            && self.retain == former.retain
    }
}

/// The other origins (RFC 6454) whose pages are let in.
#[derive(Debug, Clone, Default)]
pub struct Origins(pub Vec<String>);

/// How an origin is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Listed {
    /// It is not.
    No,
    /// All are: so its pages may not bring a visitor's credentials along.
    AsOneOfAll,
    /// By its name.
    ByName,
}

impl Origins {
    /// Whether pages of this origin are let in.
    pub fn contain(&self, origin: &str) -> Listed {
        let is_listed = |wanted: &str| {
            let mut allowed = self.0.iter();
            allowed.any(|allowed| allowed.eq_ignore_ascii_case(wanted))
        };
        match (is_listed(origin), is_listed("*")) {
            (true, _) => Listed::ByName,
            (false, true) => Listed::AsOneOfAll,
            (false, false) => Listed::No,
        }
    }
}

/// All routes of a process. They may change while it runs.
pub struct Routes {
    table: RwLock<Arc<Table>>,
    own: Own,
}

/// What routes know of the process they are in.
#[derive(Clone)]
struct Own {
    /// Its name. The first stream there is has it, too.
    instance: Origin,
    /// Where it serves, in its own words.
    address: Arc<str>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

#[derive(Default)]
struct Table {
    /// As configured.
    routes: Vec<Arc<Route>>,
}

/// A route: a pattern, a policy, and the streams there are.
pub struct Route {
    /// What holds for all of them.
    pub policy: Arc<Policy>,
    /// How often each address may publish to them.
    publish_rate: Option<Arc<OfAddresses>>,
    own: Own,
    /// Ends them when the route goes.
    gone: Ender,
    streams: Mutex<Streams>,
}

/// Logs of streams, by their names.
type Logs = BTreeMap<Arc<str>, Arc<EventLog>>;

#[derive(Default)]
struct Streams {
    /// By their names, in order.
    served: BTreeMap<Arc<str>, Arc<Served>>,
    /// Those that upstreams do not have, and until when that is known.
    refused: BTreeMap<Arc<str>, (Refusal, Instant)>,
    /// The same, those first that are known for longest.
    refused_order: VecDeque<(Arc<str>, Instant)>,
    /// Those of a former route of this pattern, for the first who asks.
    inherited: Logs,
}

impl Routes {
    /// Serves `policies`. Streams that are always there begin now. `instance` names this process, and `address` is where it
    /// serves; `stop` ends everything, and `tasks` knows what still runs.
    pub fn start(
        policies: Vec<Policy>,
        (instance, address): (Origin, &str),
        (tasks, stop): (&TaskTracker, &CancellationToken),
    ) -> Self {
        let routes = Self {
            table: RwLock::default(),
            own: Own {
                instance,
                address: address.into(),
                tasks: tasks.clone(),
                stop: stop.clone(),
            },
        };
        routes.replace(policies);
        routes
    }

    /// The name of this process.
    pub fn instance(&self) -> Origin {
        self.own.instance
    }

    /// Where it serves, in its own words.
    pub fn address(&self) -> &str {
        &self.own.address
    }

    fn table(&self) -> Arc<Table> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.clone()
    }

    /// All routes, as configured.
    pub fn all(&self) -> Vec<Arc<Route>> {
        self.table().routes.clone()
    }

    /// From now on these are the routes. Those that have not changed go on as if nothing had happened; the subscribers of others
    /// are closed with 1012, and may come back at once, and where no upstream is involved and names and history stay, they may resume.
    /// How many have come and gone.
    pub fn replace(&self, policies: Vec<Policy>) -> (usize, usize) {
        let mut former = self.all();
        let is_first = former.is_empty();
        let (mut routes, mut added) = (Vec::new(), Vec::new());
        for policy in policies {
            let same = former.iter().position(|route| {
                route.policy.words == policy.words && route.policy.pattern == policy.pattern
            });
            routes.push(match same {
                Some(at) => former.swap_remove(at),
                None => {
                    let route = Route::new(policy, self.own.clone());
                    added.push(route.clone());
                    route
                }
            });
        }
        // Who asks in between waits for this lock, rather than finding a route that has gone.
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        for route in &former {
            let logs = route.retire();
            let mut heirs = added.iter();
            if let Some(heir) = heirs.find(|heir| heir.policy.continues(&route.policy)) {
                heir.lock().inherited = logs;
                self.own.tasks.spawn(heir.clone().disown());
            }
        }
        // Before anybody can ask for them: a stream that is always there is made once, and as such.
        let mut name = is_first.then_some(self.own.instance);
        for route in &added {
            if !route.policy.pattern.is_on_demand() {
                route.open_always(name.take().unwrap_or_else(Origin::random));
            }
        }
        *table = Arc::new(Table { routes });
        (added.len(), former.len())
    }

    /// What is at a path, as a request has it, and a query.
    pub fn find(
        &self,
        path: &str,
        query: Option<&str>,
    ) -> std::result::Result<Option<Place<Arc<Route>>>, NoStream> {
        let table = self.table();
        let found = find::find(&table.routes, |route| &route.policy.pattern, path, query)?;
        Ok(found.map(|place| match place {
            Place::Stream(route, key) => Place::Stream(route.clone(), key),
            Place::List(route) => Place::List(route.clone()),
        }))
    }
}

impl Route {
    fn new(policy: Policy, own: Own) -> Arc<Self> {
        let publish_rate = policy.subscribers.max_publish_rate;
        Arc::new(Self {
            publish_rate: publish_rate.map(|rate| Arc::new(OfAddresses::new(rate))),
            policy: Arc::new(policy),
            gone: Ender::new(&own.stop),
            own,
            streams: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends all its streams. What is in them, which is still published to until the last one has noticed.
    fn retire(&self) -> Logs {
        let mut streams = self.lock();
        self.gone.end(Farewell {
            code: CloseCode::Restart,
            reason: "this route has changed: connect again".into(),
        });
        let mut logs = std::mem::take(&mut streams.inherited);
        let served = streams.served.iter();
        logs.extend(served.map(|(name, stream)| (name.clone(), stream.log.clone())));
        logs
    }

    /// Forgets what nobody has come back to.
    async fn disown(self: Arc<Self>) {
        let pause = sleep(self.policy.linger.max(INHERITED));
        self.gone.token().run_until_cancelled(pause).await;
        if !self.gone.token().is_cancelled() {
            self.lock().inherited.clear();
        }
    }

    /// How many streams there are.
    pub fn count(&self) -> usize {
        self.lock().served.len()
    }

    /// The streams whose names come behind `after`, in order. Nobody waits meanwhile who wants to open one, however many there are.
    pub fn streams(&self, after: &str) -> impl Iterator<Item = Arc<Served>> {
        let mut after = Some(Arc::from(after));
        std::iter::from_fn(move || {
            let page = self.page(&after.take()?);
            if page.len() == LOOK {
                after = page.last().map(|last| last.name.clone());
            }
            Some(page)
        })
        .flatten()
    }

    fn page(&self, after: &str) -> Vec<Arc<Served>> {
        let streams = self.lock();
        let behind = (Bound::Excluded(after), Bound::Unbounded);
        let behind = streams.served.range::<str, _>(behind);
        let behind = behind.map(|(_, stream)| stream.clone());
        behind.take(LOOK).collect()
    }

    /// The stream with this name, if it is there.
    pub fn get(&self, key: &Key) -> Option<Arc<Served>> {
        self.lock().served.get(&key.name).cloned()
    }

    /// The stream with this name, for one more user. If there is none, it is made: however many ask for it at once, one does.
    pub fn open(self: &Arc<Self>, key: &Key) -> std::result::Result<Lease, NoStream> {
        let mut streams = self.lock();
        if let Some(stream) = streams.served.get(&key.name) {
            return Ok(stream.lease());
        }
        if let Some((refusal, until)) = streams.refused.get(&key.name) {
            if Instant::now() < *until {
                return Err(refusal.into());
            }
            streams.refused.remove(&key.name);
        }
        if self.gone.token().is_cancelled() {
            return Err(NoStream {
                status: StatusCode::SERVICE_UNAVAILABLE,
                reason: "this route has just changed: try again".to_owned(),
            });
        }
        if streams.served.len() >= self.policy.max_streams && !streams.make_room() {
            let most = self.policy.max_streams;
            let reason = format!("there are {most} streams here already, the most that may be");
            return Err(NoStream {
                status: StatusCode::SERVICE_UNAVAILABLE,
                reason,
            });
        }
        let inherited = streams.inherited.remove(&key.name);
        let log = inherited.unwrap_or_else(|| self.new_log(Origin::random()));
        // Before anything else that the log says of it.
        info!(stream = %key.name, "stream opened");
        let stream = self.begin(key, log);
        streams.served.insert(key.name.clone(), stream.clone());
        let lease = stream.lease();
        drop(streams);
        self.own.tasks.spawn(self.clone().while_used(stream));
        Ok(lease)
    }

    /// The one stream of a route that always has it.
    fn open_always(self: &Arc<Self>, origin: Origin) {
        let key = self.policy.pattern.key(self.policy.pattern.base(), None);
        let key = key.expect("there are no parameters that count");
        let mut streams = self.lock();
        let inherited = streams.inherited.remove(&key.name);
        let log = inherited.unwrap_or_else(|| self.new_log(origin));
        let stream = self.begin(&key, log);
        streams.served.insert(key.name, stream);
    }

    fn new_log(&self, origin: Origin) -> Arc<EventLog> {
        let Policy {
            history, retain, ..
        } = &*self.policy;
        Arc::new(EventLog::named(origin, *history, retain.clone()))
    }

    /// A new stream in `log`, and its sources.
    fn begin(&self, key: &Key, log: Arc<EventLog>) -> Arc<Served> {
        let policy = &self.policy;
        let ender = self.gone.child();
        let upstreams = policy.upstreams.iter().map(|template| Upstream {
            within: policy.pattern.upstreams(&template.url),
            url: policy.pattern.upstream(&template.url, key),
            ..template.clone()
        });
        let produce = policy.produce.clone().map(Source::Produce);
        let sources = produce.into_iter().chain(upstreams.map(Source::from));
        let publishes = policy.subscribers.accept_publish;
        let buses = policy.buses.of_stream(&policy.pattern, key);
        let (connections, sources) = buses.connect(
            &log,
            (sources.collect(), publishes),
            policy.history,
            (&self.own.tasks, ender.token()),
        );
        let stream = Arc::new(Served::new(
            key.name.clone(),
            policy.clone(),
            (log, &self.own.address),
            connections,
            ender,
            (&self.own.tasks, self.publish_rate.as_ref()),
        ));
        let links = sources.iter().filter(|(source, _)| source.is_link());
        let links: Vec<_> = links.map(|(_, log)| log.clone()).collect();
        let new_merge = |log: &Arc<EventLog>| {
            let links = links.iter().filter(|into| Arc::ptr_eq(into, log));
            match links.count() {
                0 | 1 => Merge::new(log.clone()),
                _ => Merge::of_several(log.clone(), &policy.merging),
            }
        };
        let mut merges: Vec<Arc<Merge>> = Vec::new();
        for (number, (source, log)) in sources.into_iter().enumerate() {
            source.announce(&log, &stream.via, number);
            let merge = merges.iter().find(|merge| merge.leads_to(&log)).cloned();
            let merge = merge.unwrap_or_else(|| {
                merges.push(new_merge(&log));
                merges[merges.len() - 1].clone()
            });
            merge.tend(stream.ender.token().clone(), &self.own.tasks);
            let inflow = merge.inflow(number, false);
            if let Some(figures) = inflow.figures() {
                stream.via.counts(number, figures.clone());
            }
            let to = Destination {
                inflow,
                log,
                via: stream.via.clone(),
                number,
                on_demand: policy.pattern.is_on_demand(),
            };
            let stop = stream.ender.token().clone();
            source.start(to, stop, &self.own.tasks);
        }
        stream
    }

    /// The life of a stream on demand.
    #[expect(
        clippy::manual_async_fn,
        reason = "that would hold its arguments twice"
    )]
    fn while_used(self: Arc<Self>, stream: Arc<Served>) -> impl Future<Output = ()> {
        async move {
            let reason = tokio::select! {
                () = self.unused_for_long(&stream) => "unused".into(),
                refusal = stream.via.refused(DOUBTED) => {
                    self.refuse(&stream, &refusal);
                    refusal.reason
                }
                () = stream.ender.token().cancelled() => {
                    self.lock().remove(&stream);
                    stream.ender.farewell().reason.as_ref().into()
                }
            };
            stream.ender.token().cancel();
            info!(stream = %stream.name, %reason, "stream closed");
        }
    }

    /// Waits until nobody has used a stream for as long as it may linger, and takes it out.
    #[expect(
        clippy::manual_async_fn,
        reason = "that would hold its arguments twice"
    )]
    fn unused_for_long(&self, stream: &Arc<Served>) -> impl Future<Output = ()> {
        async move {
            loop {
                stream.usage.becomes(true).await;
                let since = stream.usage.unused_since();
                let used = stream.usage.becomes(false);
                let lingers = self.policy.linger.saturating_sub(since.elapsed());
                // In a box that is there meanwhile: there may be many streams, and most of them are used.
                if Box::pin(timeout(lingers, used)).await.is_ok() {
                    continue;
                }
                // Under the lock: nobody comes to a stream that is not in the list.
                let mut streams = self.lock();
                if stream.usage.is_unused() && stream.usage.unused_since() == since {
                    streams.remove(stream);
                    return;
                }
            }
        }
    }

    /// There is no such stream upstream: those who wait for it are told, and those who ask in the next moment.
    fn refuse(&self, stream: &Arc<Served>, refusal: &Refusal) {
        let mut streams = self.lock();
        streams.remove(stream);
        streams.refuse(&stream.name, refusal);
        drop(streams);
        // The private codes of RFC 6455, section 7.4.2, with the status in them.
        let code = CloseCode::from(4_000 + refusal.status % 1_000);
        stream.ender.end(Farewell {
            code,
            reason: refusal.reason.to_string().into(),
        });
    }
}

impl Streams {
    /// Takes a stream out, if it is still the one with its name.
    fn remove(&mut self, stream: &Arc<Served>) {
        let served = self.served.get(&stream.name);
        if served.is_some_and(|served| Arc::ptr_eq(served, stream)) {
            self.served.remove(&stream.name);
        }
    }

    /// Lets go of the stream that nobody has used for longest. Whether there was one.
    fn make_room(&mut self) -> bool {
        let unused = self
            .served
            .values()
            .filter(|stream| stream.usage.is_unused());
        let longest = unused.min_by_key(|stream| stream.usage.unused_since());
        let Some(stream) = longest.cloned() else {
            return false;
        };
        self.remove(&stream);
        stream.ender.end(Farewell {
            code: CloseCode::Away,
            reason: "unused, and another one needs its place".into(),
        });
        true
    }

    /// Remembers for a moment that an upstream does not have a stream.
    fn refuse(&mut self, name: &Arc<str>, refusal: &Refusal) {
        let now = Instant::now();
        while let Some((oldest, until)) = self.refused_order.front()
            && (*until <= now || self.refused_order.len() >= MAX_REFUSED)
        {
            // Unless it has been refused again since.
            if self
                .refused
                .get(oldest)
                .is_some_and(|(_, latest)| latest == until)
            {
                self.refused.remove(oldest);
            }
            self.refused_order.pop_front();
        }
        let until = now + REMEMBERED;
        self.refused.insert(name.clone(), (refusal.clone(), until));
        self.refused_order.push_back((name.clone(), until));
    }
}

impl From<&Refusal> for NoStream {
    fn from(refusal: &Refusal) -> Self {
        Self {
            status: StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_GATEWAY),
            reason: refusal.reason.to_string(),
        }
    }
}

#[cfg(test)]
mod tests;
