//! The upstreams: the list that is shared by all clients, and the places they take in it.

mod addresses;
mod spec;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use hyper::StatusCode;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

pub use spec::{Spec, check, read_file};

use super::balance::{Balance, Candidate, Turn, hash};
use super::connect::Pool;
use super::health::{self, Health, Ticket};
use addresses::Addresses;

#[cfg(test)]
mod tests;

/// What a client that finds no place may be told at least to wait, and is told when only a place is missing.
const SHORTEST_RETRY: Duration = Duration::from_secs(1);

/// The list of upstreams, shared by all clients.
pub struct Upstreams {
    balance: Balance,
    max_per_upstream: Option<usize>,
    list: Mutex<List>,
    /// The same upstreams, for those who want to know when they change.
    current: watch::Sender<Arc<[Arc<Upstream>]>>,
}

#[derive(Default)]
struct List {
    listed: Vec<Listed>,
    /// Those that were removed and are still in use: listed again, they go on with what they have.
    removed: Vec<Weak<Upstream>>,
}

/// An upstream and what the list says of it.
struct Listed {
    upstream: Arc<Upstream>,
    identity: u64,
    weight: u32,
    max: Option<usize>,
    turn: Turn,
}

/// There is no place to be had.
#[derive(Debug, PartialEq, Eq)]
pub struct NoneLeft {
    /// When one may be tried again; at least a second.
    pub retry_after: Duration,
    /// Some are up: they are full, or have just been tried.
    pub are_up: bool,
}

/// What a reload has changed, by the names of the upstreams.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// They get clients from now on.
    pub added: Vec<String>,
    /// They get no more.
    pub removed: Vec<String>,
    /// They have another weight or limit.
    pub changed: Vec<String>,
}

impl Upstreams {
    /// The list. Of an upstream that is there twice, the first counts (see [`check`]).
    pub fn new(specs: Vec<Spec>, balance: Balance, max_per_upstream: Option<usize>) -> Self {
        let upstreams = Self {
            balance,
            max_per_upstream,
            list: Mutex::default(),
            current: watch::Sender::new(Arc::from([])),
        };
        upstreams.replace(specs);
        upstreams
    }

    /// How clients are spread.
    pub fn balance(&self) -> &Balance {
        &self.balance
    }

    /// All that are listed, and word of every change of the list.
    pub fn watch(&self) -> watch::Receiver<Arc<[Arc<Upstream>]>> {
        self.current.subscribe()
    }

    /// The names of the list.
    pub fn names(&self) -> Vec<String> {
        let list = self.watch().borrow().clone();
        list.iter().map(|one| one.name().to_owned()).collect()
    }

    /// The next one that is up, has room and is not in `tried`.
    pub fn pick(&self, key: Option<u64>, tried: &[Arc<Upstream>]) -> Result<Place, NoneLeft> {
        self.pick_at(Instant::now(), key, tried)
    }

    fn pick_at(
        &self,
        now: Instant,
        key: Option<u64>,
        tried: &[Arc<Upstream>],
    ) -> Result<Place, NoneLeft> {
        let mut list = self.list();
        // Where none is up, one that does answer, be it with failures.
        let mut anyway = false;
        loop {
            let mut candidates = vec![];
            let mut upstreams = vec![];
            for listed in &mut list.listed {
                let upstream = &listed.upstream;
                let active = upstream.active();
                let has_room = listed
                    .max
                    .or(self.max_per_upstream)
                    .is_none_or(|max| active < max);
                if has_room
                    && !tried.iter().any(|tried| Arc::ptr_eq(tried, upstream))
                    && upstream.health().may_be_tried(now, anyway)
                {
                    upstreams.push(upstream);
                    candidates.push(Candidate {
                        weight: listed.weight,
                        active,
                        identity: listed.identity,
                        turn: &mut listed.turn,
                    });
                }
            }
            let chosen = self.balance.choose(&mut candidates, key, &mut rand::rng());
            let Some(upstream) = chosen.map(|number| upstreams[number]) else {
                if std::mem::replace(&mut anyway, true) {
                    return Err(list.none_left(now));
                }
                continue;
            };
            // A verdict of someone else may have come in between; then there is one fewer to choose from.
            let ticket = match anyway {
                true => upstream.health().take_anyway(),
                false => upstream.health().take(now),
            };
            if let Some(ticket) = ticket {
                // Under the list's lock, so that of many who come at once each sees those before, and no limit is exceeded.
                upstream.active.fetch_add(1, Ordering::Relaxed);
                return Ok(Place {
                    upstream: upstream.clone(),
                    ticket,
                });
            }
        }
    }

    /// Reload: those that stay keep their connections, counts and health; new ones begin; removed ones take no more.
    pub fn replace(&self, specs: Vec<Spec>) -> Changes {
        let mut list = self.list();
        let mut changes = Changes::default();
        let mut before = std::mem::take(&mut list.listed);
        for spec in specs {
            let name = spec.name();
            if list
                .listed
                .iter()
                .any(|listed| listed.upstream.name == name)
            {
                continue;
            }
            let stays = before
                .iter()
                .position(|listed| listed.upstream.name == name);
            let listed = match stays.map(|number| before.swap_remove(number)) {
                Some(listed) => {
                    if (listed.weight, listed.max) != (spec.weight, spec.max) {
                        changes.changed.push(name);
                    }
                    listed
                }
                None => {
                    let again = list.take_removed(&name);
                    changes.added.push(name);
                    Listed::new(again.unwrap_or_else(|| Arc::new(Upstream::new(&spec))))
                }
            };
            list.listed.push(Listed {
                weight: spec.weight,
                max: spec.max,
                ..listed
            });
        }
        for Listed { upstream, .. } in before {
            upstream.removed.store(true, Ordering::Relaxed);
            upstream.pool.clear();
            changes.removed.push(upstream.name.clone());
            list.removed.push(Arc::downgrade(&upstream));
        }
        if changes != Changes::default() {
            // What some have gained and others owe is in proportion to weights that are no more.
            for listed in &mut list.listed {
                listed.turn = Turn::default();
            }
        }
        // Within the lock: two reloads at once must not leave the older list behind.
        let upstreams = list.listed.iter().map(|listed| listed.upstream.clone());
        self.current.send_replace(upstreams.collect());
        // That may have been the last to hold those that nobody uses.
        list.removed.retain(|upstream| upstream.strong_count() > 0);
        changes
    }

    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl List {
    fn none_left(&self, now: Instant) -> NoneLeft {
        let waits = self
            .listed
            .iter()
            .filter_map(|listed| listed.upstream.health().wait(now));
        let are_up = self
            .listed
            .iter()
            .any(|listed| listed.upstream.health().wait(now) == Some(Duration::ZERO));
        NoneLeft {
            retry_after: waits.min().unwrap_or_default().max(SHORTEST_RETRY),
            are_up,
        }
    }

    fn take_removed(&mut self, name: &str) -> Option<Arc<Upstream>> {
        let mut known = self.removed.iter().filter_map(Weak::upgrade);
        let upstream = known.find(|upstream| upstream.name == name)?;
        drop(known);
        self.removed
            .retain(|removed| removed.as_ptr() != Arc::as_ptr(&upstream));
        upstream.removed.store(false, Ordering::Relaxed);
        Some(upstream)
    }
}

impl Listed {
    fn new(upstream: Arc<Upstream>) -> Self {
        Self {
            identity: hash(upstream.name.as_bytes()),
            weight: 1,
            max: None,
            turn: Turn::default(),
            upstream,
        }
    }
}

/// What an upstream is, whatever its weight: its origin (RFC 9110, section 4.3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Whether it is reached over TLS.
    pub https: bool,
    /// A name in lower case, or an IP address, without brackets.
    pub host: String,
    /// Never 0.
    pub port: u16,
}

/// Where clients are brought to.
pub struct Upstream {
    /// What it is. Weight and limit are the list's: a reload may change them.
    pub spec: Origin,
    /// Its idle connections.
    pub pool: Pool,
    name: String,
    authority: String,
    active: AtomicUsize,
    removed: AtomicBool,
    health: Mutex<Health>,
    addresses: Arc<Addresses>,
}

impl Upstream {
    fn new(spec: &Spec) -> Self {
        Self {
            name: spec.name(),
            authority: spec.authority(),
            addresses: Arc::new(Addresses::new(&spec.host, spec.port)),
            spec: Origin {
                https: spec.https,
                host: spec.host.clone(),
                port: spec.port,
            },
            pool: Pool::default(),
            active: AtomicUsize::new(0),
            removed: AtomicBool::new(false),
            health: Mutex::default(),
        }
    }

    /// `host:port`, with `https://` before it if it has TLS.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its Host (RFC 9110, section 7.2).
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// How many places are taken.
    pub fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    /// Whether a reload has taken it from the list.
    pub fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Relaxed)
    }

    /// Whether clients are brought there, as far as its health goes.
    pub fn is_up(&self) -> bool {
        self.health().is_up()
    }

    /// Its addresses, the one that worked last first. They are looked up again when they are old, while the old ones are
    /// used.
    pub async fn addresses(&self) -> io::Result<Arc<[SocketAddr]>> {
        self.addresses.get().await
    }

    /// This address worked: it is the first to try from now on.
    pub fn prefer(&self, address: SocketAddr) {
        self.addresses.prefer(address);
    }

    /// A probe has ended, with a reason if it failed; the next one is at `next_probe`.
    pub(super) fn probed(&self, result: Result<(), String>, next_probe: Instant) {
        let transition = self.health().probed(result.is_ok(), next_probe);
        self.log(transition, || result.err().unwrap_or_default());
    }

    fn log(&self, transition: Option<health::Transition>, reason: impl FnOnce() -> String) {
        let upstream = &self.name;
        match transition {
            Some(health::Transition::Out(Some(long))) => {
                warn!(%upstream, reason = reason(), pause = ?long, "upstream is out");
            }
            Some(health::Transition::Out(None)) => {
                warn!(%upstream, reason = reason(), pause = "until a probe succeeds", "upstream is out");
            }
            Some(health::Transition::Back) => info!(%upstream, "upstream is back"),
            None => {}
        }
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place taken at an upstream; given back when dropped.
pub struct Place {
    upstream: Arc<Upstream>,
    ticket: Ticket,
}

impl Place {
    /// Where it is.
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// No connection came about.
    pub fn connect_failed(&self, why: &str) {
        self.upstream.addresses.doubt();
        let mut health = self.upstream.health();
        let transition = health.failed(self.ticket, Instant::now(), rand::random());
        drop(health);
        self.upstream.log(transition, || why.to_owned());
    }

    /// The upstream has answered.
    pub fn answered(&self, status: StatusCode) {
        let chance = rand::random();
        let mut health = self.upstream.health();
        let transition = health.answered(self.ticket, status, Instant::now(), chance);
        drop(health);
        self.upstream
            .log(transition, || format!("answers {status}"));
    }

    /// The upstream has not answered in time.
    pub fn no_answer(&self) {
        let mut health = self.upstream.health();
        let transition = health.unanswered(self.ticket, Instant::now(), rand::random());
        drop(health);
        self.upstream
            .log(transition, || "does not answer".to_owned());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.upstream.active.fetch_sub(1, Ordering::Relaxed);
        if self.ticket.is_on_trial() {
            self.upstream.health().left(self.ticket);
        }
    }
}
