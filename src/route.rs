//! Routes: which URLs are served, from where, and to whom. A route with a star, or with parameters that count, has a
//! stream for each distinct URL: made by the first who asks for it, and dropped when it has been unused for a while.
//!
//! ```text
//!   Routes ──► Route ──► Served, Served, …      a stream each: log, fan-outs
//!     │          │          └── its sources
//!   which     pattern,
//!   route     policy
//! ```

pub mod path;
pub mod pattern;
pub mod served;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Result, bail};
use hyper::StatusCode;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::endpoint::fanout::{Ender, Farewell, Settings};
use crate::event::Origin;
use crate::source::produce::Produce;
use crate::source::upstream::Upstream;
use crate::source::{Destination, Source};
use crate::stream::history::Limits;
use crate::stream::retained::Retain;
use crate::stream::via::Refusal;
use pattern::{Key, Pattern};
use served::{Lease, Served};

/// The word of an upstream that there is no such stream is repeated for so long before it is asked again.
const REMEMBERED: Duration = Duration::from_secs(1);
/// An upstream that had a stream is asked again for so long before it is believed that there is none any more.
const DOUBTED: Duration = Duration::from_secs(10);
/// More streams than this that an upstream does not have are not remembered.
const MAX_REFUSED: usize = 10_000;

/// What holds for all streams of a route.
#[derive(Clone)]
pub struct Policy {
    /// The URLs.
    pub pattern: Pattern,
    /// What is consumed; of a pattern with a star, templates.
    pub upstreams: Vec<Upstream>,
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
        if let Some(own) = self.upstreams.iter().find(is_own) {
            bail!(
                "{own} is what this hop itself would serve, and events would go round for ever: serve at another address"
            );
        }
        if let Some(produce) = &mut self.produce {
            address.clone_into(&mut produce.address);
        }
        Ok(self)
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

/// What is at a path.
pub enum Place {
    /// A stream, or one that could be.
    Stream(Arc<Route>, Key),
    /// The list of a route's streams.
    List(Arc<Route>),
}

/// Why a request gets no stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoStream {
    /// The status to answer with.
    pub status: StatusCode,
    /// Why, in one line.
    pub reason: String,
}

/// A route: a pattern, a policy, and the streams there are.
pub struct Route {
    /// What holds for all of them.
    pub policy: Arc<Policy>,
    own: Own,
    /// Ends them when the route goes.
    gone: Ender,
    streams: Mutex<Streams>,
}

#[derive(Default)]
struct Streams {
    /// By their names, in order.
    served: BTreeMap<Arc<str>, Arc<Served>>,
    /// Those that upstreams do not have, and until when that is known.
    refused: BTreeMap<Arc<str>, (Refusal, Instant)>,
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
    /// are closed with 1012, and may come back at once. How many have come and gone.
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
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Table { routes });
        for route in &former {
            route.gone.end(Farewell {
                code: CloseCode::Restart,
                reason: "this route has changed: connect again".into(),
            });
        }
        let mut name = is_first.then_some(self.own.instance);
        for route in &added {
            if !route.policy.pattern.is_on_demand() {
                route.open_always(name.take().unwrap_or_else(Origin::random));
            }
        }
        (added.len(), former.len())
    }

    /// What is at a path, as a request has it, and a query. A path that is served as it is counts more than one with a star,
    /// and of these the longest counts.
    pub fn find(
        &self,
        path: &str,
        query: Option<&str>,
    ) -> std::result::Result<Option<Place>, NoStream> {
        let table = self.table();
        let normal = match path::normal(path) {
            Ok(normal) => normal,
            Err(wrong) => {
                let bases = table.routes.iter().map(|route| &route.policy.pattern);
                let mut below = bases.filter(|pattern| path.starts_with(pattern.base()));
                return match below.any(Pattern::is_wildcard) {
                    true => Err(NoStream {
                        status: StatusCode::BAD_REQUEST,
                        reason: wrong.to_string(),
                    }),
                    false => Ok(None),
                };
            }
        };
        let patterns = table
            .routes
            .iter()
            .map(|route| (route, &route.policy.pattern));
        let best = patterns
            .clone()
            .filter(|(_, pattern)| pattern.matches(&normal))
            .max_by_key(|(_, pattern)| (!pattern.is_wildcard(), pattern.base().len()));
        if let Some((route, pattern)) = best {
            let key = pattern.key(&normal, query).map_err(|reason| NoStream {
                status: StatusCode::BAD_REQUEST,
                reason,
            })?;
            return Ok(Some(Place::Stream(route.clone(), key)));
        }
        let mut lists = patterns.filter(|(_, pattern)| pattern.is_wildcard());
        let list = lists.find(|(_, pattern)| pattern.base() == normal && normal != "/");
        Ok(list.map(|(route, _)| Place::List(route.clone())))
    }
}

impl Route {
    fn new(policy: Policy, own: Own) -> Arc<Self> {
        Arc::new(Self {
            policy: Arc::new(policy),
            gone: Ender::new(&own.stop),
            own,
            streams: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many streams there are.
    pub fn count(&self) -> usize {
        self.lock().served.len()
    }

    /// The streams whose names come behind `after` and that are `wanted`, in order, and at most so many.
    pub fn list(
        &self,
        after: &str,
        most: usize,
        wanted: impl Fn(&Served) -> bool,
    ) -> Vec<Arc<Served>> {
        let streams = self.lock();
        let behind = (Bound::Excluded(after), Bound::Unbounded);
        let behind = streams.served.range::<str, _>(behind);
        let wanted = behind.filter(|(_, stream)| wanted(stream));
        wanted
            .map(|(_, stream)| stream.clone())
            .take(most)
            .collect()
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
        if streams.served.len() >= self.policy.max_streams {
            let most = self.policy.max_streams;
            let reason = format!("there are {most} streams here already, the most that may be");
            warn!(route = %self.policy.pattern, stream = %key.name, reason, "stream refused");
            return Err(NoStream {
                status: StatusCode::SERVICE_UNAVAILABLE,
                reason,
            });
        }
        let stream = self.begin(key, Origin::random());
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
        let stream = self.begin(&key, origin);
        self.lock().served.insert(key.name, stream);
    }

    /// A new stream, and its sources.
    fn begin(&self, key: &Key, origin: Origin) -> Arc<Served> {
        let policy = &self.policy;
        let stream = Arc::new(Served::new(
            key.name.clone(),
            policy.clone(),
            (origin, &self.own.address),
            self.gone.child(),
            &self.own.tasks,
        ));
        let upstreams = policy.upstreams.iter().map(|template| Upstream {
            url: policy.pattern.upstream(&template.url, key),
            ..template.clone()
        });
        let produce = policy.produce.clone().map(Source::Produce);
        let sources = produce.into_iter().chain(upstreams.map(Source::from));
        for (number, source) in sources.enumerate() {
            source.announce(&stream.log, &stream.via, number);
            let to = Destination {
                log: stream.log.clone(),
                via: stream.via.clone(),
                number,
            };
            let stop = stream.ender.token().clone();
            source.start(to, stop, &self.own.tasks);
        }
        stream
    }

    /// The life of a stream on demand.
    async fn while_used(self: Arc<Self>, stream: Arc<Served>) {
        info!(stream = %stream.name, "stream opened");
        let reason = tokio::select! {
            () = self.unused_for_long(&stream) => "unused".into(),
            refusal = stream.via.refused(DOUBTED) => {
                self.refuse(&stream, &refusal);
                refusal.reason
            }
            () = stream.ender.token().cancelled() => {
                self.lock().served.remove(&stream.name);
                stream.ender.farewell().reason.as_ref().into()
            }
        };
        stream.ender.token().cancel();
        info!(stream = %stream.name, %reason, "stream closed");
    }

    /// Waits until nobody has used a stream for as long as it may linger, and takes it out.
    async fn unused_for_long(&self, stream: &Served) {
        loop {
            stream.usage.becomes(true).await;
            let used = stream.usage.becomes(false);
            // In a box that is there meanwhile: there may be many streams, and most of them are used.
            if Box::pin(timeout(self.policy.linger, used)).await.is_ok() {
                continue;
            }
            // Under the lock: nobody comes to a stream that is not in the list.
            let mut streams = self.lock();
            if stream.usage.is_unused() {
                streams.served.remove(&stream.name);
                return;
            }
        }
    }

    /// There is no such stream upstream: those who wait for it are told, and those who ask in the next moment.
    fn refuse(&self, stream: &Served, refusal: &Refusal) {
        let mut streams = self.lock();
        streams.served.remove(&stream.name);
        if streams.refused.len() >= MAX_REFUSED {
            let now = Instant::now();
            streams.refused.retain(|_, (_, until)| now < *until);
        }
        if streams.refused.len() < MAX_REFUSED {
            let until = Instant::now() + REMEMBERED;
            let refused = (refusal.clone(), until);
            streams.refused.insert(stream.name.clone(), refused);
        }
        drop(streams);
        // The private codes of RFC 6455, section 7.4.2, with the status in them.
        let code = CloseCode::from(4_000 + refusal.status % 1_000);
        stream.ender.end(Farewell {
            code,
            reason: refusal.reason.to_string().into(),
        });
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
