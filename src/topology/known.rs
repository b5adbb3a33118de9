//! What upstreams have told of themselves, and of those behind them: kept for a moment, so that however many ask here, an upstream is
//! asked about once a second.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as Turn, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tracing::debug;

use super::Topology;
use super::ask::{Behind, MAX_ANSWER, PATIENCE, Question};
use crate::event::Origin;
use crate::source::presence::Named;
use crate::source::upstream::Upstream;

/// For so long nobody is asked again.
const FRESH: Duration = Duration::from_secs(1);
/// Who has less time than this gets what is known: nobody is asked for that.
const LEAST: Duration = Duration::from_millis(50);
/// For so long an answer is kept whole; then only who has given it.
const WHOLE: Duration = Duration::from_secs(10);
/// Whole answers that are kept have so many bytes in all, as they were sent.
const MAX_KEPT: usize = 32 * MAX_ANSWER;
/// When more upstreams than this are remembered, those of streams that have gone are forgotten.
const MANY: usize = 1_024;
/// So many events are traced at once.
const TRACES: usize = 64;

/// Why an upstream is not known, of one that has not answered in time.
const SLOW: &str = "no answer in time";
/// Of one that is just being asked by somebody else.
const BUSY: &str = "it is being asked already";

/// The memory of a process.
pub struct Known {
    slots: Mutex<HashMap<(Origin, usize), Arc<Slot>>>,
    /// Leave to ask about an event: what is found out of one is of no use to who asks about another.
    pub traces: Semaphore,
    /// For the bytes of answers.
    room: Arc<Semaphore>,
}

impl Default for Known {
    fn default() -> Self {
        Self {
            slots: Mutex::default(),
            traces: Semaphore::new(TRACES),
            room: Arc::new(Semaphore::new(MAX_KEPT)),
        }
    }
}

/// What is known of one upstream of one stream.
///
/// Who asks for a hop gets what is cut off where that hop is itself upstream; so that is not what clients are told.
pub struct Slot {
    for_clients: Once,
    for_hops: Once,
    /// The last answer there was to a question of clients.
    last: Mutex<Option<Arc<Held>>>,
    room: Arc<Semaphore>,
}

/// An answer, and its place among those that are kept.
struct Held {
    behind: Arc<Behind>,
    since: Instant,
    _room: Option<OwnedSemaphorePermit>,
}

/// One question at a time.
#[derive(Default)]
struct Once {
    /// Held as long as a question is on its way.
    turn: Arc<Turn<()>>,
    answer: Mutex<Option<Kept>>,
}

/// An answer, or why there was none.
#[derive(Clone)]
struct Kept {
    since: Instant,
    meant: Option<Origin>,
    /// For whom it was asked: what is cut for some is not for others.
    via: Vec<Origin>,
    held: Result<Arc<Held>, Arc<str>>,
}

impl Kept {
    fn behind(self) -> Result<Arc<Behind>, Arc<str>> {
        self.held.map(|held| held.behind.clone())
    }
}

/// A question that goes on whether or not who has asked it waits for it.
struct Asking {
    upstream: Upstream,
    via: Vec<Origin>,
    meant: Option<Origin>,
    _turn: OwnedMutexGuard<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Once {
    fn fresh(&self) -> Option<Kept> {
        let kept = lock(&self.answer).clone();
        kept.filter(|kept| kept.since.elapsed() < FRESH)
    }
}

impl Known {
    /// What is known of the upstream with this number of the stream with this origin.
    pub fn slot(&self, stream: Origin, number: usize) -> Arc<Slot> {
        let mut slots = lock(&self.slots);
        let slot = slots.entry((stream, number)).or_insert_with(|| {
            Arc::new(Slot {
                for_clients: Once::default(),
                for_hops: Once::default(),
                last: Mutex::default(),
                room: self.room.clone(),
            })
        });
        slot.clone()
    }

    /// Forgets upstreams of streams that have gone, once there are many.
    pub fn forget_but(&self, streams: impl FnOnce() -> Vec<Origin>) {
        let mut slots = lock(&self.slots);
        if slots.len() > MANY {
            let streams: HashSet<_> = streams().into_iter().collect();
            slots.retain(|(stream, _), _| streams.contains(stream));
        }
    }
}

impl Slot {
    /// The last answer there was to a question of clients; after a while, only who has given it.
    pub fn last(&self) -> Option<Arc<Behind>> {
        lock(&self.last).as_ref().map(|held| held.behind.clone())
    }

    /// What is behind this upstream: from memory if that is fresh, else by this question, or why that is not known; `meant` is the instance there. If whoever asks
    /// is itself `upstream`, a question that has been asked already is not waited for: it may be waiting for us.
    ///
    /// The upstream is asked with full patience, and the outcome is kept whether or not there is still somebody who waits for it: so it is
    /// asked about once a second, however little time they have who ask. For others than who has asked only that is kept which was
    /// asked for nobody but the stream here.
    pub async fn told(
        self: Arc<Self>,
        question: Question<'_>,
        meant: Option<Origin>,
        is_upstream: bool,
    ) -> Result<Arc<Behind>, Arc<str>> {
        // The last is the stream here.
        let is_client = question.via.len() < 2;
        let fresh = || {
            let for_all = self.for_clients.fresh();
            let for_all = for_all.filter(|kept| kept.meant == meant);
            let for_hop = || {
                self.for_hops
                    .fresh()
                    .filter(|kept| kept.via == question.via)
            };
            for_all.or_else(|| for_hop().filter(|kept| kept.meant == meant))
        };
        if let Some(kept) = fresh() {
            return kept.behind();
        }
        let or_last = |reason: &str| self.last().ok_or(reason.into());
        if question.deadline < Instant::now() + LEAST {
            return or_last(SLOW);
        }
        let once = match is_client {
            true => &self.for_clients,
            false => &self.for_hops,
        };
        let turn = once.turn.clone();
        let turn = match is_upstream {
            true => turn.try_lock_owned().ok(),
            false => timeout_at(question.deadline, turn.lock_owned()).await.ok(),
        };
        let Some(turn) = turn else {
            return or_last(BUSY);
        };
        if let Some(kept) = fresh() {
            return kept.behind();
        }
        // What was asked for another hop is of no use here, but the upstream is not asked more often for that.
        if let Some(other) = once.fresh().filter(|_| !is_client) {
            let next = other.since + FRESH;
            if is_upstream || next + LEAST > question.deadline {
                return or_last(BUSY);
            }
            sleep_until(next).await;
        }
        let asking = Asking {
            upstream: question.upstream.clone(),
            via: question.via.to_vec(),
            meant,
            _turn: turn,
        };
        let asked = tokio::spawn(self.clone().ask(asking));
        match timeout_at(question.deadline, asked).await {
            Ok(Ok(behind)) => behind,
            Ok(Err(_)) => Err("it is not asked any more".into()),
            Err(_) => or_last(SLOW),
        }
    }

    async fn ask(self: Arc<Self>, asking: Asking) -> Result<Arc<Behind>, Arc<str>> {
        let question = Question {
            upstream: &asking.upstream,
            what: ("topology", ""),
            of_stream: true,
            via: &asking.via,
            at: None,
            deadline: Instant::now() + PATIENCE,
        };
        let behind = match question.topology(asking.meant).await {
            Ok(behind) => Ok(Arc::new(behind)),
            Err(error) => {
                let url = asking.upstream.to_string();
                let reason = asking.upstream.reason(&error);
                debug!(url, %reason, "the upstream does not tell its topology");
                Err(reason.into())
            }
        };
        let held = behind.clone().map(|behind| Arc::new(self.hold(behind)));
        let is_client = asking.via.len() < 2;
        let once = match is_client {
            true => &self.for_clients,
            false => &self.for_hops,
        };
        *lock(&once.answer) = Some(Kept {
            since: Instant::now(),
            meant: asking.meant,
            via: asking.via,
            held: held.clone(),
        });
        if let (true, Ok(held)) = (is_client, held) {
            *lock(&self.last) = Some(held);
        }
        tokio::spawn(async move {
            sleep(WHOLE).await;
            self.age();
        });
        behind
    }

    /// As it is kept: whole, as long as there is room.
    fn hold(&self, behind: Arc<Behind>) -> Held {
        let size = u32::try_from(behind.size).unwrap_or(u32::MAX);
        let room = self.room.clone().try_acquire_many_owned(size).ok();
        Held {
            behind: match room {
                Some(_) => behind,
                None => Arc::new(short(&behind)),
            },
            since: Instant::now(),
            _room: room,
        }
    }

    /// Drops what is old.
    fn age(&self) {
        for once in [&self.for_clients, &self.for_hops] {
            lock(&once.answer).take_if(|kept| kept.since.elapsed() >= FRESH);
        }
        let mut last = lock(&self.last);
        if let Some(held) = last.as_mut().filter(|held| held.since.elapsed() >= WHOLE) {
            *held = Arc::new(Held {
                behind: Arc::new(short(&held.behind)),
                since: held.since,
                _room: None,
            });
        }
    }
}

/// Only who has answered, without streams.
fn short(behind: &Behind) -> Behind {
    let end = behind.proxy.as_ref().unwrap_or(&behind.node);
    let mut nodes = behind.topology.nodes.iter();
    let node = nodes.find(|node| node.id == *end).cloned();
    let nodes = node.map(|mut node| {
        node.streams = vec![];
        node
    });
    Behind {
        topology: Arc::new(Topology {
            nodes: nodes.into_iter().collect(),
            links: vec![],
        }),
        size: 0,
        node: behind.node.clone(),
        address: behind.address.clone(),
        path: behind.path.clone(),
        proxy: behind.proxy.clone(),
    }
}
