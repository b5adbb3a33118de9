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
pub mod links;
pub mod part;
pub mod pattern;
pub mod served;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Result, bail};
use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_util::task::TaskTracker;
use tracing::info;

use crate::bus::address::Kind;
use crate::endpoint::fanout::{Ender, Farewell, Settings};
use crate::event::Origin;
use crate::listen::rate::OfAddresses;
use crate::pause::Pause;
use crate::shutdown::Stop;
use crate::source::Source;
use crate::source::produce::Produce;
use crate::source::publish::Names;
use crate::source::upstream::Upstream;
use crate::stream::EventLog;
use crate::stream::history::Limits;
use crate::stream::merge::Terms;
use crate::stream::retained::Retain;
use crate::stream::via::{Met, Refusal};
use crate::topology::known::Known;
use buses::Buses;
use find::{NoStream, Place};
use links::{Links, Peers};
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
    /// Instances that serve the same; templates, too.
    pub peers: Peers,
    /// What is consumed while nothing else can be, the first first; templates, too.
    pub standbys: Vec<Upstream>,
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
            .chain(&self.standbys)
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
    /// another begins would be missed or come twice. What peers send has ids, so those may be others.
    fn continues(&self, former: &Self) -> bool {
        let upstreams = self.upstreams.iter().chain(&former.upstreams);
        let standbys = self.standbys.iter().chain(&former.standbys);
        upstreams.chain(standbys).next().is_none()
            && self.peers.is_empty() == former.peers.is_empty()
            && self.buses.is_empty()
            && former.buses.is_empty()
            && self.shape() == former.shape()
    }

    /// What must be the same of a policy in another process for its streams to go on under this one. Upstreams need not be: where a
    /// process takes over from another one, the sources stop before they begin.
    pub fn shape(&self) -> Shape {
        let Limits { bytes, count, age } = self.history;
        Shape {
            pattern: self.pattern.to_string(),
            parameters: self.pattern.key_query().to_vec(),
            bytes,
            count,
            age,
            retain: self
                .retain
                .as_ref()
                .map(|retain| (format!("{:?}", retain.key), retain.bytes)),
        }
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
    stop: Stop,
    /// What upstreams have told of theirs.
    known: Arc<Known>,
    /// Holds all sources still.
    pause: Arc<Pause>,
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

/// What is left of streams, by their names.
pub type Inheritance = BTreeMap<Arc<str>, Inherited>;

#[derive(Default)]
struct Streams {
    /// By their names, in order.
    served: BTreeMap<Arc<str>, Arc<Served>>,
    /// Those that upstreams do not have, and until when that is known.
    refused: BTreeMap<Arc<str>, (Refusal, Instant)>,
    /// The same, those first that are known for longest.
    refused_order: VecDeque<(Arc<str>, Instant)>,
    /// Those of a former route of this pattern, for the first who asks.
    inherited: Inheritance,
}

/// What is left of a former stream.
pub struct Inherited {
    /// Its log.
    pub log: Arc<EventLog>,
    /// What has been published lately under names.
    pub names: Option<Names>,
    /// What its sources have to know, by the names of their upstreams.
    pub sources: Vec<(Box<str>, Met)>,
}

impl From<Arc<EventLog>> for Inherited {
    fn from(log: Arc<EventLog>) -> Self {
        Self {
            log,
            names: None,
            sources: Vec::new(),
        }
    }
}

/// The streams of another process, by the patterns of their routes.
pub type Estate = BTreeMap<String, Inheritance>;

/// What must be the same of two policies for a log to go on under the second one: the names of its streams, and what they hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    pattern: String,
    parameters: Vec<String>,
    bytes: usize,
    count: Option<usize>,
    age: Option<Duration>,
    #[serde(default)]
    retain: Option<(String, usize)>,
}

impl Routes {
    /// Serves `policies`. Streams that are always there begin now. `instance` names this process, and `address` is where it
    /// serves; `stop` ends everything, and `tasks` knows what still runs.
    pub fn start(
        policies: Vec<Policy>,
        (instance, address): (Origin, &str),
        running: (&TaskTracker, &Stop),
    ) -> Self {
        Self::go_on(policies, (instance, address), running, None)
    }

    /// The same; if there is an estate, it is another process's that was called `instance` as well. Streams on demand wait there
    /// for the first who asks for them.
    pub fn go_on(
        policies: Vec<Policy>,
        (instance, address): (Origin, &str),
        (tasks, stop): (&TaskTracker, &Stop),
        estate: Option<Estate>,
    ) -> Self {
        let routes = Self {
            table: RwLock::default(),
            own: Own {
                instance,
                address: address.into(),
                tasks: tasks.clone(),
                stop: stop.clone(),
                known: Arc::default(),
                pause: Arc::default(),
            },
        };
        // What that process has numbered under its name is not to be numbered again.
        let name = estate.is_none().then_some(instance);
        routes.change(policies, name, estate.unwrap_or_default());
        routes
    }

    /// Holds all sources still.
    pub fn pause(&self) -> &Arc<Pause> {
        &self.own.pause
    }

    /// Another process goes on: whoever is still here is told to come again, there.
    pub fn retire(&self) {
        for route in self.all() {
            route.gone.end_each(Farewell::replaced);
        }
    }

    /// The name of this process.
    pub fn instance(&self) -> Origin {
        self.own.instance
    }

    /// Where it serves, in its own words.
    pub fn address(&self) -> &str {
        &self.own.address
    }

    /// What it does, in a few words.
    pub fn status(&self) -> String {
        let (address, routes) = (self.address(), self.all().len());
        format!("{address}: {routes} routes")
    }

    /// What upstreams have told of theirs.
    pub fn known(&self) -> &Known {
        &self.own.known
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
        self.change(policies, None, Estate::new())
    }

    /// The first stream that is made gets `name`.
    fn change(
        &self,
        policies: Vec<Policy>,
        mut name: Option<Origin>,
        mut estate: Estate,
    ) -> (usize, usize) {
        let mut former = self.all();
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
        for heir in &added {
            if let Some(streams) = estate.remove(&heir.policy.pattern.to_string()) {
                heir.lock().inherited = streams;
                self.own.tasks.spawn(heir.clone().disown());
            }
        }
        // Before anybody can ask for them: a stream that is always there is made once, and as such.
        for route in &added {
            if !route.policy.pattern.is_on_demand() {
                route.open_always(name.take().unwrap_or_else(Origin::random));
            }
        }
        *table = Arc::new(Table { routes });
        (added.len(), former.len())
    }

    /// Lets all subscribers go one by one, as the process is about to stop.
    pub fn drain(&self) {
        for route in self.all() {
            route.streams("").for_each(|stream| stream.drain());
        }
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
    fn retire(&self) -> Inheritance {
        let mut streams = self.lock();
        let reason = "this route has changed: connect again";
        self.gone.end(Farewell::new(CloseCode::Restart, reason));
        let mut logs = std::mem::take(&mut streams.inherited);
        let served = streams.served.iter();
        logs.extend(served.map(|(name, stream)| (name.clone(), stream.log.clone().into())));
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
        let former = inherited.unwrap_or_else(|| self.new_log(Origin::random()).into());
        // Before anything else that the log says of it.
        info!(stream = %key.name, "stream opened");
        let stream = self.begin(key, former);
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
        let former = inherited.unwrap_or_else(|| self.new_log(origin).into());
        let stream = self.begin(&key, former);
        streams.served.insert(key.name, stream);
    }

    fn new_log(&self, origin: Origin) -> Arc<EventLog> {
        let Policy {
            history, retain, ..
        } = &*self.policy;
        let log = EventLog::named(origin, *history, retain.clone());
        Arc::new(match self.policy.peers.is_empty() {
            true => log,
            false => log.with_peers(),
        })
    }

    /// A new stream that goes on with what is left of a former one, and its sources.
    fn begin(&self, key: &Key, former: Inherited) -> Arc<Served> {
        let Inherited {
            log,
            names,
            sources: mut met,
        } = former;
        let policy = &self.policy;
        let ender = self.gone.child();
        let own = |template: &Upstream| template.of_stream(&policy.pattern, key);
        let upstreams = policy.upstreams.iter().map(own);
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
        let upstreams = sources.iter().enumerate();
        let upstreams = upstreams.filter_map(|(number, (source, _))| {
            source.upstream().map(|upstream| (number, upstream.clone()))
        });
        let upstreams = upstreams.collect();
        let stream = Arc::new(Served::new(
            key.name.clone(),
            policy.clone(),
            (log, &self.own.address),
            (connections, upstreams),
            ender,
            (&self.own.tasks, self.publish_rate.as_ref()),
            names,
        ));
        let mut links = Links::new(&stream, &self.own.pause, &sources);
        // What stands by for others brings events to where they do.
        let first = sources.first().map(|(_, log)| log.clone());
        for (source, log) in sources {
            let (to, stop) = links.next(log, &source);
            let name = source.name();
            let before = met
                .iter()
                .position(|(known, _)| Some(&**known) == name.as_deref());
            if let Some(at) = before {
                let (_, before) = met.swap_remove(at);
                stream.via.note_met(to.number, |met| *met = before);
            }
            source.start(to, stop, &self.own.tasks);
        }
        links.begin_standbys(
            policy.standbys.iter().map(own).collect(),
            first.unwrap_or_else(|| stream.log.clone()),
            &self.own.tasks,
        );
        links.begin_peers(policy.peers.map(own), &self.own.tasks);
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
        let reason = refusal.reason.to_string();
        stream.ender.end(Farewell::new(code, reason));
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
        let reason = "unused, and another one needs its place";
        stream.ender.end(Farewell::new(CloseCode::Away, reason));
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
