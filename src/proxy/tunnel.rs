//! Two connections joined after a 101: what one sends is written to the other, and nothing is looked at but where the
//! frames begin, so that a WebSocket can be told properly when it has to end.
//!
//! A tunnel is one future without memory of its own while it is idle: bytes are read into a buffer of the thread and
//! written from there, and only what the other side does not take is kept.

mod alarm;
mod direction;
pub mod event_stream;
pub(crate) mod frames;
mod relay;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::fmt;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::listen::stream::Stream;
use crate::reason;
use crate::shutdown::Stop;
use alarm::Alarm;
use direction::{Direction, Failure, Until};
use frames::Frames;
use relay::LARGEST_READ;

/// When one direction has ended, the other may be silent for so long.
const HALF_CLOSED: Duration = Duration::from_secs(30);
/// How long a client may take to answer a Close.
const CLOSE_ANSWER: Duration = Duration::from_secs(5);

thread_local! {
    /// What is read stays here until it is written, which is at once. Taken while it is in use.
    static SCRATCH: Cell<Box<[u8]>> = Cell::default();
}

/// Room for the largest read, to be set again.
fn take_scratch() -> Box<[u8]> {
    let scratch = SCRATCH.take();
    match scratch.is_empty() {
        true => vec![0; LARGEST_READ].into(),
        false => scratch,
    }
}

/// An instant that can be waited for, however long the user wants to wait.
fn in_at_most(time: Duration) -> Instant {
    const FOREVER: Duration = Duration::from_secs(1 << 32);
    Instant::now() + time.min(FOREVER)
}

/// One end of a tunnel.
pub struct Side {
    /// The connection.
    pub stream: Stream,
    /// Read from it already, not yet passed on.
    pub early: Bytes,
}

/// What ends a tunnel that its two sides do not end.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Nothing has come from the client for so long, or it has taken nothing.
    pub client_idle: Option<Duration>,
    /// Nothing has come from the upstream for so long, or it has taken nothing.
    pub upstream_idle: Option<Duration>,
    /// It is old enough then.
    pub age: Option<Instant>,
    /// How long it may still take when it has to end.
    pub drain: Duration,
}

/// Why a tunnel has ended.
#[derive(Debug)]
pub enum Why {
    /// The client has sent a Close first.
    Client,
    /// The upstream has sent a Close first.
    Upstream,
    /// The client's end has come without one.
    ClientEnded,
    /// The upstream's end has come without one.
    UpstreamEnded,
    /// The client was silent for too long.
    ClientIdle,
    /// The upstream was silent for too long.
    UpstreamIdle,
    /// It was old enough.
    Age,
    /// The process stops.
    Stopped,
    /// The client's connection has failed.
    ClientFailed(io::Error),
    /// The upstream's connection has failed.
    UpstreamFailed(io::Error),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client => f.write_str("client closed"),
            Self::Upstream => f.write_str("upstream closed"),
            Self::ClientEnded => f.write_str("client gone without a Close"),
            Self::UpstreamEnded => f.write_str("upstream gone without a Close"),
            Self::ClientIdle => f.write_str("client idle"),
            Self::UpstreamIdle => f.write_str("upstream idle"),
            Self::Age => f.write_str("maximum age"),
            Self::Stopped => f.write_str("stopped"),
            Self::ClientFailed(error) => write!(f, "client: {}", reason::io_text(error)),
            Self::UpstreamFailed(error) => write!(f, "upstream: {}", reason::io_text(error)),
        }
    }
}

/// What has become of a tunnel.
#[derive(Debug)]
pub struct Ended {
    /// How many bytes were written to the client.
    pub to_client: u64,
    /// How many bytes were written to the upstream.
    pub to_upstream: u64,
    /// Why it is over.
    pub why: Why,
}

/// Joins the two until both directions have ended. `stop`: the process stops; each has a
/// moment of its own then.
// Not an `async fn`: that would keep what it is given a second time.
pub fn run(
    client: Side,
    upstream: Side,
    limits: Limits,
    stop: &Stop,
) -> impl Future<Output = Ended> + Send + use<> {
    let mut tunnel = Tunnel::new(client, upstream, limits);
    let stopped = stop.departure();
    async move {
        let mut stopped = pin!(stopped);
        std::future::poll_fn(|cx| tunnel.poll(cx, stopped.as_mut())).await
    }
}

struct Tunnel {
    client: Stream,
    upstream: Stream,
    to_client: Direction,
    to_upstream: Direction,
    limits: Limits,
    phase: Phase,
    /// The first reason there was to end.
    why: Option<Why>,
    /// Whether the first Close was the client's.
    client_closed_first: Option<bool>,
    /// Only where there is something to wait for.
    alarm: Alarm,
    /// When the timer was last seen to be needed and something came from the client, or went to the upstream.
    client_active: Instant,
    /// Likewise, the other way.
    upstream_active: Instant,
}

/// How far a tunnel is with its end. The instants are those at which it goes on whatever happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nobody has said that it has to end.
    Open,
    /// One direction has ended.
    HalfClosed,
    /// It has to end, but the client is in the middle of a frame.
    Boundary(Instant),
    /// The client has got a Close, from the upstream or from here, and has not answered it.
    Answer(Instant),
    /// The last bytes are on their way, and both sides know that there are no more.
    Last(Instant),
}

impl Tunnel {
    fn new(client: Side, upstream: Side, limits: Limits) -> Self {
        let now = Instant::now();
        Self {
            client: client.stream,
            upstream: upstream.stream,
            to_client: Direction::new(upstream.early, Frames::of_server()),
            to_upstream: Direction::new(client.early, Frames::of_client()),
            limits,
            phase: Phase::Open,
            why: None,
            client_closed_first: None,
            alarm: Alarm::default(),
            client_active: now,
            upstream_active: now,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, stopped: Pin<&mut impl Future>) -> Poll<Ended> {
        if !self.has_to_end() && stopped.poll(cx).is_ready() {
            self.has_to_end_for(Why::Stopped);
        }
        loop {
            let failed = self.relay(cx);
            if self.to_client.has_ended() && self.to_upstream.has_ended() {
                return Poll::Ready(self.ended());
            }
            if self.go_on() || failed {
                continue;
            }
            let due = self.due();
            ready!(self.alarm.poll(cx, due));
            if self.time_is_up() {
                // What can still be said is said without waiting.
                self.relay(cx);
                return Poll::Ready(self.ended());
            }
        }
    }

    /// Moves what can be moved, first to the client: what an upstream has sent before it failed is still good. Whether
    /// there may be more to move because a side has failed.
    fn relay(&mut self, cx: &mut Context<'_>) -> bool {
        let mut scratch = take_scratch();
        let (client, upstream) = (&mut self.client, &mut self.upstream);
        let closes = self.to_upstream.has_ended();
        let to_client = self
            .to_client
            .poll(cx, upstream, client, &mut scratch, closes);
        let closes = self.to_client.has_ended();
        let to_upstream = self
            .to_upstream
            .poll(cx, client, upstream, &mut scratch, closes);
        SCRATCH.set(scratch);

        if self.alarm.is_set() {
            self.note_activity();
        }
        if self.client_closed_first.is_none()
            && (self.to_upstream.closed() || self.to_client.closed())
        {
            self.client_closed_first = Some(self.to_upstream.closed());
        }
        let mut failed = false;
        match to_client {
            Poll::Ready(Ok(())) => self.ends_for(self.ended_by(Why::UpstreamEnded)),
            Poll::Ready(Err(Failure::Read(error))) => {
                failed = true;
                self.to_upstream.give_up();
                self.ends_for(Why::UpstreamFailed(error));
            }
            Poll::Ready(Err(Failure::Write(error))) => self.ends_for(Why::ClientFailed(error)),
            Poll::Pending => {}
        }
        match to_upstream {
            Poll::Ready(Ok(())) => self.ends_for(self.ended_by(Why::ClientEnded)),
            Poll::Ready(Err(Failure::Read(error))) => {
                failed = true;
                self.to_client.give_up();
                self.ends_for(Why::ClientFailed(error));
            }
            Poll::Ready(Err(Failure::Write(error))) => self.ends_for(Why::UpstreamFailed(error)),
            Poll::Pending => {}
        }
        failed
    }

    fn note_activity(&mut self) {
        let from_client = self.to_upstream.take_moved();
        let from_upstream = self.to_client.take_moved();
        if from_client || from_upstream {
            let now = Instant::now();
            if from_client {
                self.client_active = now;
            }
            if from_upstream {
                self.upstream_active = now;
            }
        }
    }

    fn has_to_end(&self) -> bool {
        !matches!(self.phase, Phase::Open | Phase::HalfClosed)
    }

    /// Whose end it is: of who has said Close first, or of who has just ended.
    fn ended_by(&self, without_close: Why) -> Why {
        match self.client_closed_first {
            Some(true) => Why::Client,
            Some(false) => Why::Upstream,
            None => without_close,
        }
    }

    fn ends_for(&mut self, why: Why) {
        self.why.get_or_insert(why);
    }

    fn has_to_end_for(&mut self, why: Why) {
        self.ends_for(why);
        let by = in_at_most(self.limits.drain);
        self.to_upstream.go_until(Until::Close);
        self.phase = if self.to_client.closed() || self.to_client.has_ended() {
            Phase::Answer(by)
        } else {
            self.to_client.go_until(Until::Boundary);
            Phase::Boundary(by)
        };
    }

    /// Goes on to the next phase if this one is over; whether there may be more to move now.
    fn go_on(&mut self) -> bool {
        match self.phase {
            Phase::Open if self.to_client.has_ended() || self.to_upstream.has_ended() => {
                // Without a timer nobody has noted what moved before: that is no activity from here on.
                self.note_activity();
                self.client_active = Instant::now();
                self.upstream_active = self.client_active;
                self.phase = Phase::HalfClosed;
                false
            }
            Phase::Boundary(by) if self.to_client.is_done() => {
                let answer = self.limits.drain.min(CLOSE_ANSWER);
                self.phase = Phase::Answer(by.min(in_at_most(answer)));
                true
            }
            Phase::Answer(by) if self.to_upstream.is_done() => {
                self.to_client.go_until(Until::Shut);
                self.to_upstream.go_until(Until::Shut);
                self.phase = Phase::Last(by);
                true
            }
            _ => false,
        }
    }

    /// When this phase has lasted as long as it may, as things are.
    fn due(&self) -> Option<Instant> {
        let limits = &self.limits;
        let after = |since: Instant, limit: Option<Duration>| since.checked_add(limit?);
        match self.phase {
            Phase::Open => {
                let client = after(self.client_active, limits.client_idle);
                let upstream = after(self.upstream_active, limits.upstream_idle);
                [limits.age, client, upstream].into_iter().flatten().min()
            }
            Phase::HalfClosed => {
                let silent = self.client_active.max(self.upstream_active) + HALF_CLOSED;
                Some(limits.age.map_or(silent, |age| age.min(silent)))
            }
            Phase::Boundary(by) | Phase::Answer(by) | Phase::Last(by) => Some(by),
        }
    }

    /// The phase has lasted as long as it may. Whether that was the last one.
    fn time_is_up(&mut self) -> bool {
        let now = Instant::now();
        let is_past = |since: Instant, limit: Option<Duration>| {
            limit.is_some_and(|limit| now.saturating_duration_since(since) >= limit)
        };
        match self.phase {
            Phase::Open | Phase::HalfClosed if self.limits.age.is_some_and(|age| age <= now) => {
                self.has_to_end_for(Why::Age);
                false
            }
            Phase::Open if is_past(self.client_active, self.limits.client_idle) => {
                // It was the upstream that did not take what the client had sent.
                let why = match self.to_upstream.is_empty() {
                    true => Why::ClientIdle,
                    false => Why::UpstreamIdle,
                };
                self.has_to_end_for(why);
                false
            }
            Phase::Open => {
                let why = match self.to_client.is_empty() {
                    true => Why::UpstreamIdle,
                    false => Why::ClientIdle,
                };
                self.has_to_end_for(why);
                false
            }
            Phase::Answer(_) => {
                if self.to_upstream.until() == Until::Close {
                    self.to_upstream.go_until(Until::Boundary);
                }
                self.to_client.go_until(Until::Shut);
                self.to_upstream.go_until(Until::Shut);
                true
            }
            Phase::HalfClosed | Phase::Boundary(_) | Phase::Last(_) => true,
        }
    }

    fn ended(&mut self) -> Ended {
        Ended {
            to_client: self.to_client.written(),
            to_upstream: self.to_upstream.written(),
            why: self.why.take().unwrap_or(Why::Stopped),
        }
    }
}
