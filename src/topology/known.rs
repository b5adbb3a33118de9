//! What upstreams have told of themselves, and of those behind them: kept for a moment, so that however many ask here, an upstream is
//! asked about once a second.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as Turn, Semaphore};
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::ask::{Behind, PATIENCE, Question};
use crate::event::Origin;
use crate::source::presence::Named;

/// For so long nobody is asked again.
const FRESH: Duration = Duration::from_secs(1);
/// When more upstreams than this are remembered, those of streams that have gone are forgotten.
const MANY: usize = 1_024;
/// So many events are traced at once.
const TRACES: usize = 64;

/// The memory of a process.
pub struct Known {
    slots: Mutex<HashMap<(Origin, usize), Arc<Slot>>>,
    /// Leave to ask about an event: what is found out of one is of no use to who asks about another.
    pub traces: Semaphore,
}

impl Default for Known {
    fn default() -> Self {
        Self {
            slots: Mutex::default(),
            traces: Semaphore::new(TRACES),
        }
    }
}

/// What is known of one upstream of one stream.
///
/// Who asks for a hop gets what is cut off where that hop is itself upstream; so that is not what clients are told.
#[derive(Default)]
pub struct Slot {
    for_clients: Once,
    for_hops: Once,
    /// The last answer there was.
    last: Mutex<Option<Arc<Behind>>>,
}

/// One question at a time.
#[derive(Default)]
struct Once {
    turn: Turn<()>,
    answer: Mutex<Option<Kept>>,
}

/// An answer, or why there was none.
#[derive(Clone)]
struct Kept {
    since: Instant,
    meant: Option<Origin>,
    behind: Result<Arc<Behind>, Arc<str>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Once {
    /// What is fresh, of the instance that is meant.
    fn fresh(&self, meant: Option<Origin>) -> Option<Kept> {
        let kept = lock(&self.answer).clone();
        kept.filter(|kept| kept.since.elapsed() < FRESH && kept.meant == meant)
    }
}

impl Known {
    /// What is known of the upstream with this number of the stream with this origin.
    pub fn slot(&self, stream: Origin, number: usize) -> Arc<Slot> {
        let mut slots = lock(&self.slots);
        slots.entry((stream, number)).or_default().clone()
    }

    /// Forgets upstreams of streams that have gone, once there are many.
    pub fn forget_but(&self, streams: impl FnOnce() -> Vec<Origin>) {
        let mut slots = lock(&self.slots);
        if slots.len() > MANY {
            let streams: std::collections::HashSet<_> = streams().into_iter().collect();
            slots.retain(|(stream, _), _| streams.contains(stream));
        }
    }
}

impl Slot {
    /// The last answer there was.
    pub fn last(&self) -> Option<Arc<Behind>> {
        lock(&self.last).clone()
    }

    /// What is behind this upstream: from memory if that is fresh, else by this question, or why that is not known; `meant` is the instance there. If whoever asks
    /// is itself `upstream`, a question that has been asked already is not waited for: it may be waiting for us.
    pub async fn told(
        &self,
        question: Question<'_>,
        meant: Option<Origin>,
        is_upstream: bool,
    ) -> Result<Arc<Behind>, Arc<str>> {
        // The last is the stream here.
        let is_client = question.via.len() < 2;
        let fresh = || {
            let for_hops = || self.for_hops.fresh(meant).filter(|_| !is_client);
            self.for_clients.fresh(meant).or_else(for_hops)
        };
        if let Some(kept) = fresh() {
            return kept.behind;
        }
        let once = match is_client {
            true => &self.for_clients,
            false => &self.for_hops,
        };
        let turn = match is_upstream {
            true => once.turn.try_lock().ok(),
            false => timeout_at(question.deadline, once.turn.lock()).await.ok(),
        };
        let Some(_turn) = turn else {
            return self.last().ok_or("it is being asked already".into());
        };
        if let Some(kept) = fresh() {
            return kept.behind;
        }
        let had = question.deadline.saturating_duration_since(Instant::now());
        let behind = match question.topology(meant).await {
            Ok(behind) => Ok(Arc::new(behind)),
            Err(error) => {
                let url = question.upstream.to_string();
                let reason = question.upstream.reason(&error);
                debug!(url, %reason, "the upstream does not tell its topology");
                Err(reason.into())
            }
        };
        if let Ok(behind) = &behind {
            *lock(&self.last) = Some(behind.clone());
        }
        // One that was given little time may well answer to who has more.
        if behind.is_ok() || had * 2 > PATIENCE {
            *lock(&once.answer) = Some(Kept {
                since: Instant::now(),
                meant,
                behind: behind.clone(),
            });
        }
        behind
    }
}
