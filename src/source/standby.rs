//! Upstreams that are used only while no other is there.
//!
//! ```text
//!   others away for a moment ──► the first is tried; as long as none is there, the next one, too
//!   one of them is there     ──► the rest is given up
//!   others back, caught up   ──► all are given up
//! ```

use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use super::upstream::Upstream;
use super::{Destination, Source};
use crate::stream::via::{self, Role, Via};

/// The others may be away for so long before one takes over: a connection that is made again at once is not missed.
const PATIENCE: Duration = Duration::from_secs(1);
/// Who is there again may take so long to catch up, as far as can be seen; then it is on its own.
const CATCHING_UP: Duration = Duration::from_secs(30);

/// An upstream that stands by.
pub struct Standby {
    /// How to reach it.
    pub upstream: Upstream,
    /// Where its events go.
    pub to: Destination,
}

/// Has each of `standbys`, the first first, take over while it is needed, until `stop` is cancelled.
pub async fn watch(standbys: Vec<Standby>, stop: CancellationToken) {
    let running = standbys.iter().map(|_| None).collect();
    let mut watch = Watch { standbys, running };
    while let Some(()) = stop.run_until_cancelled(watch.until_away()).await {
        if let Some(()) = stop.run_until_cancelled(watch.take_over(&stop)).await {
            info!("giving back: an upstream is there again");
        }
        for number in 0..watch.standbys.len() {
            watch.end(number).await;
        }
    }
}

/// What is to be done next.
enum Step {
    /// Begin to read this one.
    Begin(usize),
    /// Read nothing but this one.
    Only(usize),
    /// One of the others is there, but not with all that has been meanwhile.
    Wait,
    /// It is not there any more.
    WaitNoMore,
    /// One of the others is there with all.
    GiveBack,
}

/// A standby that is read, or is to be.
struct Running {
    stop: CancellationToken,
    tasks: TaskTracker,
}

struct Watch {
    standbys: Vec<Standby>,
    running: Vec<Option<Running>>,
}

type Known = [(usize, via::Upstream)];

/// Those that it stands by for: what is consumed, or peers if nothing is.
fn others(known: &Known) -> impl Iterator<Item = &via::Upstream> {
    let known = || known.iter().map(|(_, upstream)| upstream);
    let consumes = known().any(|upstream| upstream.role == Role::Consumed);
    known().filter(move |upstream| match consumes {
        true => upstream.role == Role::Consumed,
        false => upstream.role.is_peer(),
    })
}

fn is_any_there(known: &Known) -> bool {
    others(known).any(|other| other.connected)
}

impl Watch {
    fn via(&self) -> &Via {
        &self.standbys[0].to.via
    }

    /// Waits until all others have been away for a while.
    async fn until_away(&self) {
        let via = self.via();
        loop {
            via.until(|known| (!is_any_there(known)).then_some(()))
                .await;
            let back = via.until(|known| is_any_there(known).then_some(()));
            if timeout(PATIENCE, back).await.is_err() {
                return;
            }
        }
    }

    /// Reads what can be read until one of the others is there with all that has been meanwhile.
    async fn take_over(&mut self, stop: &CancellationToken) {
        let mut until = None;
        loop {
            let next = self.via().until(|known| self.step(known, until.is_some()));
            let step = match until {
                Some(until) => timeout_at(until, next).await.unwrap_or(Step::GiveBack),
                None => next.await,
            };
            match step {
                Step::Begin(number) => self.begin(number, stop),
                Step::Only(number) => {
                    for other in (0..self.standbys.len()).filter(|other| *other != number) {
                        self.end(other).await;
                    }
                }
                Step::Wait => until = Some(Instant::now() + CATCHING_UP),
                Step::WaitNoMore => until = None,
                Step::GiveBack => return,
            }
        }
    }

    fn step(&self, known: &Known, waits: bool) -> Option<Step> {
        let mut there = others(known).filter(|other| other.connected);
        if there.any(|other| !other.is_behind) {
            return Some(Step::GiveBack);
        }
        if is_any_there(known) != waits {
            return Some(match waits {
                true => Step::WaitNoMore,
                false => Step::Wait,
            });
        }
        let of = |standby: &Standby| known.iter().find(|(it, _)| *it == standby.to.number);
        let states = self.standbys.iter().map(of);
        let states: Vec<_> = states
            .map(|state| state.map(|(_, state)| (state.connected, state.has_failed())))
            .map(Option::unwrap_or_default)
            .collect();
        let is_running = |number: &usize| self.running[*number].is_some();
        let mut numbers = (0..states.len()).filter(is_running);
        if let Some(used) = numbers.clone().find(|number| states[*number].0) {
            return (numbers.count() > 1).then_some(Step::Only(used));
        }
        let all_have_failed = numbers.all(|number| states[number].1);
        let next = (0..states.len()).find(|number| !is_running(number));
        next.filter(|_| all_have_failed).map(Step::Begin)
    }

    fn begin(&mut self, number: usize, stop: &CancellationToken) {
        let Standby { upstream, to } = &self.standbys[number];
        info!(standby = %upstream, "taking over: no other upstream is there");
        let running = Running {
            stop: stop.child_token(),
            tasks: TaskTracker::new(),
        };
        let source = Source::from(upstream.clone());
        source.start(to.clone(), running.stop.clone(), &running.tasks);
        self.running[number] = Some(running);
    }

    async fn end(&mut self, number: usize) {
        if let Some(running) = self.running[number].take() {
            running.stop.cancel();
            running.tasks.close();
            running.tasks.wait().await;
            self.via().rests(self.standbys[number].to.number);
        }
    }
}
