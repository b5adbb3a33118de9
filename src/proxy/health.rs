//! Which upstreams are well: by how they answer clients (passive), and by probes (active).

mod probe;

use std::time::Duration;

use hyper::StatusCode;
use tokio::time::Instant;

pub use probe::{Probe, watch};

#[cfg(test)]
mod tests;

/// How long an upstream is out at first; twice as long each time it fails its trial.
const FIRST_WHILE: Duration = Duration::from_secs(1);
/// The longest that it is out at a time.
const LONGEST_WHILE: Duration = Duration::from_secs(60);
/// How much longer or shorter a while may turn out, so that many proxies do not come back to an upstream at once.
const JITTER: f64 = 0.1;
/// So many answers in a row must be failures.
const ERRORS: u32 = 3;
/// So many probes in a row must fail.
const FAILED_PROBES: u32 = 2;

/// What is known of an upstream's health. Time and chance come from outside.
pub(super) struct Health {
    state: State,
    /// Grows whenever the state changes, so that a verdict on what was before is told from one on what is: of a hundred
    /// connects that fail at once, one counts.
    epoch: u64,
    /// Failures among the answers, in a row.
    errors: u32,
    /// How often it has been taken out since it was last up.
    outs: u32,
    failed_probes: u32,
}

enum State {
    Up,
    /// Out until then, and from then on it may be tried. `answers`: it can be reached, and may still answer others.
    Out {
        until: Instant,
        answers: bool,
    },
    /// One tries it.
    OnTrial {
        since: Instant,
        answers: bool,
    },
    /// Taken out by probes, the next of which is then.
    Unreachable {
        next_probe: Instant,
    },
}

/// Goes with a place: what was known when it was taken.
#[derive(Clone, Copy)]
pub(super) struct Ticket {
    epoch: u64,
    on_trial: bool,
}

/// A change that is worth a line in the log.
#[derive(Debug, PartialEq)]
pub(super) enum Transition {
    /// It was up and is out, for so long if that is known.
    Out(Option<Duration>),
    /// It was out and is up.
    Back,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            state: State::Up,
            epoch: 0,
            errors: 0,
            outs: 0,
            failed_probes: 0,
        }
    }
}

impl Health {
    /// How long until a place may be taken; zero: now; none: that is not known.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        match self.state {
            State::Up => Some(Duration::ZERO),
            State::Out { until, .. } => Some(until.saturating_duration_since(now)),
            // The trial may end at any moment, but that is not known.
            State::OnTrial { .. } => None,
            State::Unreachable { next_probe } => {
                Some(next_probe.saturating_duration_since(now)).filter(|wait| !wait.is_zero())
            }
        }
    }

    /// Takes a place, if one may be taken now.
    pub(super) fn take(&mut self, now: Instant) -> Option<Ticket> {
        let on_trial = match self.state {
            State::Up => false,
            State::Out { until, answers } if until <= now => {
                let since = until;
                self.change(State::OnTrial { since, answers });
                true
            }
            _ => return None,
        };
        Some(Ticket {
            epoch: self.epoch,
            on_trial,
        })
    }

    /// Takes a place although it is out, if it does answer: where there is no other, its failures are better than none, and
    /// they may be due to what is asked for.
    pub(super) fn take_anyway(&self) -> Option<Ticket> {
        self.answers().then_some(Ticket {
            epoch: self.epoch,
            on_trial: false,
        })
    }

    /// Whether a place may be taken now; `anyway`: although it is out.
    pub(super) fn may_be_tried(&self, now: Instant, anyway: bool) -> bool {
        match anyway {
            true => self.answers(),
            false => self.wait(now) == Some(Duration::ZERO),
        }
    }

    /// Whether nothing is known against it.
    pub(super) fn is_up(&self) -> bool {
        matches!(self.state, State::Up)
    }

    /// Whether it is out only for its answers.
    fn answers(&self) -> bool {
        matches!(
            self.state,
            State::Out { answers: true, .. } | State::OnTrial { answers: true, .. }
        )
    }

    /// The place is given back: a trial without a verdict is free for another.
    pub(super) fn left(&mut self, ticket: Ticket) {
        if let State::OnTrial { since, answers } = self.state
            && ticket.epoch == self.epoch
        {
            let until = since;
            self.change(State::Out { until, answers });
        }
    }

    /// It was not to be reached. `chance`, from 0 to 1, decides how long it is out.
    pub(super) fn failed(
        &mut self,
        ticket: Ticket,
        now: Instant,
        chance: f64,
    ) -> Option<Transition> {
        (ticket.epoch == self.epoch).then(|| self.take_out(now, chance, false))?
    }

    /// It has taken the connection, and not answered. That may be due to what was asked for: if it were out for everyone, a
    /// single client could take all of them out, one request each.
    pub(super) fn unanswered(
        &mut self,
        ticket: Ticket,
        now: Instant,
        chance: f64,
    ) -> Option<Transition> {
        (ticket.epoch == self.epoch).then(|| self.take_out(now, chance, true))?
    }

    /// It has answered.
    pub(super) fn answered(
        &mut self,
        ticket: Ticket,
        status: StatusCode,
        now: Instant,
        chance: f64,
    ) -> Option<Transition> {
        if ticket.epoch != self.epoch {
            return None;
        }
        match (is_failure(status), ticket.on_trial) {
            (true, true) => self.take_out(now, chance, true),
            (true, false) => {
                self.errors += 1;
                (self.errors >= ERRORS).then(|| self.take_out(now, chance, true))?
            }
            (false, _) => {
                self.errors = 0;
                self.bring_back()
            }
        }
    }

    /// A probe has ended; the next one is at `next_probe`.
    pub(super) fn probed(&mut self, is_well: bool, next_probe: Instant) -> Option<Transition> {
        if is_well {
            self.failed_probes = 0;
            return self.bring_back();
        }
        self.failed_probes = self.failed_probes.saturating_add(1);
        if self.failed_probes < FAILED_PROBES {
            return None;
        }
        let was_up = matches!(self.state, State::Up);
        self.change(State::Unreachable { next_probe });
        was_up.then_some(Transition::Out(None))
    }

    fn take_out(&mut self, now: Instant, chance: f64, answers: bool) -> Option<Transition> {
        let was_up = matches!(self.state, State::Up);
        let doubled = FIRST_WHILE.saturating_mul(1 << self.outs.min(16));
        let factor = 1.0 + JITTER * (2.0 * chance - 1.0);
        // Whole milliseconds: people read it in the log.
        let long = doubled.min(LONGEST_WHILE).as_millis() as f64 * factor;
        let long = Duration::from_millis(long.round() as u64);
        self.outs += 1;
        let until = now + long;
        self.change(State::Out { until, answers });
        was_up.then_some(Transition::Out(Some(long)))
    }

    fn bring_back(&mut self) -> Option<Transition> {
        if matches!(self.state, State::Up) {
            return None;
        }
        self.errors = 0;
        self.outs = 0;
        self.change(State::Up);
        Some(Transition::Back)
    }

    fn change(&mut self, state: State) {
        self.epoch += 1;
        self.state = state;
    }
}

impl Ticket {
    /// Whether health wants to know when the place is given back.
    pub(super) fn is_on_trial(self) -> bool {
        self.on_trial
    }
}

/// Whether an answer says that the upstream is ill. 501 and 505 say something of the request (RFC 9110, sections 15.6.2
/// and 15.6.6).
fn is_failure(status: StatusCode) -> bool {
    let of_request = [
        StatusCode::NOT_IMPLEMENTED,
        StatusCode::HTTP_VERSION_NOT_SUPPORTED,
    ];
    status.is_server_error() && !of_request.contains(&status)
}
