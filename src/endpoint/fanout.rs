//! The fan-out: one stream in one format to all who read it over a connection of their own.
//!
//! ```text
//!   request ──► Connection ──► shard driver     writes to all caught-up subscribers of its share, one after another
//!                   │             │   ▲
//!                   │     blocked ▼   │ caught up
//!                   └────────► its own task     reads (ping, pong, close, publishes); writes while the socket is behind
//! ```
//!
//! A subscriber is a [`Connection`]: a socket, a cursor on the stream's tape, and little else. Its [driver] and its own
//! [task](subscriber) both may write to it; [`Connection::write_with`] is the only place that does, under the connection's
//! lock, so frames are never mixed. Over TLS and HTTP/2 only [its own task](solo) writes, and the driver wakes it.
//!
//! WebSockets come here after their handshake. So do the answers to HTTP/1 requests for SSE and NDJSON that come first on
//! their connection: such an answer ends with the connection, hence its body needs no framing and is the same bytes for
//! everyone. Those that share a connection with other requests go through [`super::body`].

mod connection;
mod driver;
#[cfg(test)]
mod model;
pub mod moving;
mod publishing;
#[cfg(test)]
pub mod simulated;
mod socket;
mod solo;
mod subscriber;

use std::borrow::Cow;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use socket2::{SockRef, TcpKeepalive};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use crate::endpoint::lag::Lag;
use crate::endpoint::subscribers::Subscribers;
use crate::endpoint::websocket::input::{Input, Unheard};
use crate::listen::rate::Rate;
use crate::listen::stream::Stream;
use crate::listen::streams::Counted;
use crate::shutdown::Stop;
use crate::stream::cursor::Cursor;
use crate::stream::usage::User;
use crate::stream::walk::Walk;
use crate::stream::{Amount, EventLog, Subscription};
use crate::wire::{Format, comeback};
use connection::Connection;
use driver::Shard;
pub use publishing::Publishing;
use socket::Socket;
use solo::Solo;
use subscriber::Subscriber;

/// How often, at least, the readers of a body get a comment, so that proxies do not take a quiet stream for a dead one.
const BODY_HEARTBEAT: Duration = Duration::from_secs(15);

/// So much is given to a stream of HTTP/2 at a time, in bytes: a frame of the size that all take (RFC 9113, section 4.2).
const HTTP2_PIECE: usize = 16 << 10;

/// How many heartbeats may pass of which the reader of a body has taken nothing. Who pages through one in a terminal takes his
/// time.
pub const BODY_PATIENCE: u32 = 4;
/// What is said of it then.
pub const BODY_COMPLAINT: &str = "has taken nothing for four heartbeats";

/// Ages at which connections end, as parts of the one that is configured.
const YOUNGEST: f64 = 0.9;
const OLDEST: f64 = 1.1;

/// After what pause, in milliseconds, a client is to come back to a hop that restarts: time enough for a balancer to notice, and not the
/// same for all, as many go within seconds.
const RESTART_PAUSE: RangeInclusive<u64> = 500..=2_000;
/// The same for one that is just old: ages have spread them already.
const AGE_PAUSE: RangeInclusive<u64> = 50..=500;

/// The same for one that another process serves now: that is ready, but all of them go in the same moment.
const REPLACED_PAUSE: RangeInclusive<u64> = 50..=2_000;

/// What is said of a subscriber that has fallen out of history.
pub const PASSED_BY: &str = "too slow: history has moved past this subscriber";

/// What happens to a subscriber that has fallen out of history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overload {
    /// It is closed with 1013 and may resume; SSE and NDJSON end.
    Disconnect,
    /// It goes on with the oldest event still held, after a gap notice.
    Skip,
    /// When it can take more, it is given the newest event of each key only; even before it falls out of history. For streams
    /// whose state is kept.
    Conflate,
}

impl Overload {
    /// All that may happen; its place here is its value as a number.
    pub const ALL: [Self; 3] = [Self::Disconnect, Self::Skip, Self::Conflate];

    /// As it is configured.
    pub fn name(self) -> &'static str {
        match self {
            Self::Disconnect => "disconnect",
            Self::Skip => "skip",
            Self::Conflate => "conflate",
        }
    }
}

/// What holds for each subscriber of a stream.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How often a WebSocket is pinged; one that is silent for two intervals is closed.
    pub ping_interval: Duration,
    /// The largest message or body a client may send, in bytes.
    pub max_message_size: usize,
    /// What happens to those who fall out of history.
    pub overload: Overload,
    /// Whether clients may publish.
    pub accept_publish: bool,
    /// Whether they may have the stream compressed.
    pub compress: bool,
    /// How fast each of them may, if there is a limit.
    pub max_publish_rate: Option<Rate>,
    /// About how old a connection may become, if there is a limit.
    pub max_connection_age: Option<Duration>,
}

impl Settings {
    /// How often the readers of a body get a comment.
    pub fn body_heartbeat(&self) -> Duration {
        self.ping_interval.min(BODY_HEARTBEAT)
    }

    /// How old one connection may become: each another age, as those who have come together are not to leave together.
    pub fn connection_age(&self) -> Option<Duration> {
        let age = self.max_connection_age?;
        Some(age.mul_f64(rand::random_range(YOUNGEST..=OLDEST)))
    }

    /// How old one may still become that has been there for `lasted` under another process. That may have had no limit: those who are
    /// too old are not to leave together, either.
    fn age_left(&self, lasted: Duration) -> Option<Duration> {
        let left = self.connection_age()?.saturating_sub(lasted);
        let spread = self.max_connection_age?;
        let spread = spread.mul_f64(rand::random_range(0.0..=OLDEST - YOUNGEST));
        Some(left.max(spread))
    }
}

/// Ends the subscribers of a stream, and says why.
#[derive(Debug, Clone)]
pub struct Ender {
    token: CancellationToken,
    stop: Stop,
    why: Arc<OnceLock<Why>>,
    /// What those are told that end with a larger whole.
    or_why: Arc<OnceLock<Why>>,
}

/// What those are told that are sent away.
#[derive(Debug)]
enum Why {
    /// All the same.
    Same(Farewell),
    /// Each something of its own.
    Each(fn() -> Farewell),
}

/// What a subscriber is told that the server sends away: code and reason of a Close frame (RFC 6455, section 7.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Farewell {
    /// The code.
    pub code: CloseCode,
    /// The reason, for the log as well.
    pub reason: Cow<'static, str>,
    /// After what pause it is to come back, where it is welcome again.
    pub come_back: Option<Duration>,
}

impl Farewell {
    /// One for good, as far as the server knows.
    pub fn new(code: CloseCode, reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            reason: reason.into(),
            come_back: None,
        }
    }

    /// The hop restarts, or another one takes its place.
    pub fn restarting() -> Self {
        Self::for_now("restarting", RESTART_PAUSE)
    }

    /// Another process has taken the place of this one, which could not give this subscriber away.
    pub fn replaced() -> Self {
        Self::for_now("another process has taken over", REPLACED_PAUSE)
    }

    /// The connection is old enough.
    pub fn aged() -> Self {
        Self::for_now("this connection has lasted long enough", AGE_PAUSE)
    }

    fn for_now(why: &str, pauses: RangeInclusive<u64>) -> Self {
        let pause = Duration::from_millis(rand::random_range(pauses));
        Self {
            come_back: Some(pause),
            ..Self::new(CloseCode::Restart, comeback::reason(why, pause))
        }
    }
}

impl Ender {
    /// Ends them with the process at the latest, whose end `stop` is.
    pub fn new(stop: &Stop) -> Self {
        Self {
            token: stop.over().child_token(),
            stop: stop.clone(),
            why: Arc::default(),
            or_why: Arc::default(),
        }
    }

    /// Ends a part of them, and with all of them at the latest.
    pub fn child(&self) -> Self {
        Self {
            token: self.token.child_token(),
            stop: self.stop.clone(),
            why: Arc::default(),
            or_why: self.why.clone(),
        }
    }

    /// Ends them now. The first reason stands.
    pub fn end(&self, farewell: Farewell) {
        self.end_because(Why::Same(farewell));
    }

    /// The same; each has a farewell of its own, as they are welcome again, and are not to come back together.
    pub fn end_each(&self, farewell: fn() -> Farewell) {
        self.end_because(Why::Each(farewell));
    }

    fn end_because(&self, why: Why) {
        let _ = self.why.set(why);
        self.token.cancel();
    }

    /// The stop of the process, in which each may have a moment of its own to go.
    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Cancelled when they are to end.
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// What one of them is told. If it may come back, its pause is its own.
    pub fn farewell(&self) -> Farewell {
        match self.why.get().or(self.or_why.get()) {
            Some(Why::Same(farewell)) => farewell.clone(),
            Some(Why::Each(farewell)) => farewell(),
            None if self.stop.is_drain() => Farewell::restarting(),
            None => Farewell::new(CloseCode::Away, "the server is stopping"),
        }
    }
}

/// What all subscribers of one stream in one format have in common.
pub struct Audience {
    /// The stream.
    pub log: Arc<EventLog>,
    /// What is written to them.
    pub format: Format,
    /// Where the stream is served.
    pub path: Arc<str>,
    heartbeat_interval: Duration,
    max_connection_age: Option<Duration>,
    overload: Overload,
    /// How fast each subscriber may publish, if there is a limit.
    max_publish_rate: Option<Rate>,
    count: Arc<Subscribers>,
}

impl Audience {
    /// What happens to those who fall out of history. A link to another hop can say exactly what it has, so it comes again.
    fn overload(&self) -> Overload {
        match self.format.plain() {
            Format::Hop => Overload::Disconnect,
            _ => self.overload,
        }
    }

    /// For a subscriber that stands at `at` and is behind: where it reads on and what it gets before that, if events are to be
    /// merged for it.
    fn catch_up(&self, at: Cursor, is_passed: bool) -> Option<(Cursor, Walk)> {
        match self.overload() {
            Overload::Conflate => self.log.catch_up(self.format, at.index, is_passed),
            Overload::Disconnect | Overload::Skip => None,
        }
    }

    /// How many heartbeats may pass without a sign of life.
    fn patience(&self) -> u32 {
        match self.format.is_body() {
            true => BODY_PATIENCE,
            false => 2,
        }
    }

    fn complaint(&self) -> &'static str {
        match self.format.is_body() {
            true => BODY_COMPLAINT,
            false => "silent for two ping intervals",
        }
    }

    /// This is done about a subscriber that is too slow.
    fn overloaded(&self, action: Overload) {
        self.count.overloaded(action);
    }

    /// It was told that it has missed something.
    fn told_gap(&self) {
        self.count.told_gaps(self.format, 1);
    }

    fn join(&self) {
        self.count.join(self.format);
    }

    fn leave(&self) {
        self.count.leave(self.format);
    }
}

/// Serves one stream in one format.
pub struct Fanout {
    audience: Arc<Audience>,
    settings: Settings,
    shards: Mutex<Shards>,
    tasks: TaskTracker,
    ender: Ender,
}

/// The shares of an audience: one for each worker thread, once there are subscribers enough.
struct Shards {
    made: Vec<Arc<Shard>>,
    most: usize,
    /// Round robin over all that there may be.
    next: usize,
}

/// A connection that is to become a subscriber.
pub struct Arrival {
    /// Its connection, or the part of one that is its own.
    pub stream: Stream,
    /// Where it comes from.
    pub address: SocketAddr,
    /// What it sent right behind its request.
    pub early: Bytes,
    /// What goes out before the first event.
    pub preface: Bytes,
    /// Where it begins to read.
    pub subscription: Subscription,
    /// What the client may.
    pub permit: Permit,
    /// What it counts as, until its socket is closed.
    pub counted: Counted,
}

/// What a subscriber may besides reading, and for how long it may read.
pub struct Permit {
    /// How it may publish, if it may.
    pub publish: Result<Box<Publishing>, Unheard>,
    /// After so long it is closed with 4401: what it has shown to get in holds no longer.
    pub remaining: Option<Duration>,
    /// Keeps the stream there.
    pub user: User,
}

/// The code of the Close frame for those whose token has run out: a private one (RFC 6455, section 7.4.2), after the status
/// that a new request would get.
pub const EXPIRED: u16 = 4401;
/// What they are told.
pub const EXPIRED_REASON: &str = "the token has expired";

impl Fanout {
    /// Serves `log` at `path`, with as many shards as the current runtime has worker threads.
    ///
    /// `ender` closes all subscribers; `tasks` knows what still runs; `count` is how many subscribers there are.
    pub fn new(
        log: Arc<EventLog>,
        format: Format,
        path: Arc<str>,
        settings: &Settings,
        count: Arc<Subscribers>,
        (tasks, ender): (&TaskTracker, &Ender),
    ) -> Self {
        let workers = tokio::runtime::Handle::current().metrics().num_workers();
        let audience = Arc::new(Audience {
            log,
            format,
            path,
            heartbeat_interval: match format.is_body() {
                true => settings.body_heartbeat(),
                false => settings.ping_interval,
            },
            max_connection_age: settings.max_connection_age,
            overload: settings.overload,
            max_publish_rate: settings.max_publish_rate,
            count,
        });
        Self {
            shards: Mutex::new(Shards {
                made: Vec::new(),
                most: workers,
                next: 0,
            }),
            audience,
            settings: settings.clone(),
            tasks: tasks.clone(),
            ender: ender.clone(),
        }
    }

    fn shards(&self) -> Vec<Arc<Shard>> {
        let shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        shards.made.clone()
    }

    /// Whose turn it is to get a subscriber.
    fn next_shard(&self) -> Arc<Shard> {
        let mut shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        let Shards { made, most, next } = &mut *shards;
        let at = *next;
        *next = (at + 1) % *most;
        if at == made.len() {
            made.reserve_exact(1);
            made.push(Shard::new(
                self.audience.clone(),
                self.tasks.clone(),
                self.ender.clone(),
            ));
        }
        made[at].clone()
    }

    /// What subscribers have been sent.
    pub fn sent(&self) -> Amount {
        let mut sent = Amount::default();
        for shard in self.shards() {
            sent += shard.sent().amount();
        }
        sent
    }

    /// How far subscribers are behind.
    pub async fn lag(&self) -> Lag {
        let shards = self.shards();
        let lags = join_all(shards.iter().map(|shard| shard.lag())).await;
        lags.into_iter().sum::<Lag>().in_log(&self.audience.log)
    }

    /// Reads what one of its subscribers sends.
    fn input(&self) -> Input {
        Input::new(self.audience.format, self.settings.max_message_size)
    }

    /// Lets subscribers go one by one, as the process is about to stop.
    pub fn drain(&self) {
        let shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        for shard in &shards.made {
            shard.drain();
        }
    }

    /// Serves one subscriber, in a task of its own.
    pub fn serve(&self, arrival: Arrival) {
        let Audience { path, format, .. } = &*self.audience;
        let address = arrival.address;
        info!(%address, path = %path, transport = format.name(), "subscriber connected");
        if format.heartbeat().is_empty() {
            // Nothing is written while the stream is quiet, so it is for the system to notice that a client has vanished.
            let keepalive = TcpKeepalive::new().with_time(BODY_HEARTBEAT);
            if let Some(socket) = arrival.stream.socket() {
                let _ = SockRef::from(socket).set_tcp_keepalive(&keepalive);
            }
        }
        let shard = self.next_shard();
        let input = self.input();
        let head = arrival.subscription.head.clone();
        // hyper holds a copy of whatever a stream of HTTP/2 is given; TLS bounds itself.
        let most = match arrival.stream {
            Stream::Http2(_) => HTTP2_PIECE,
            _ => usize::MAX,
        };
        let (socket, stream) = match arrival.stream {
            Stream::Plain(socket) => (Some(Socket::Tcp(socket)), None),
            stream => (None, Some(stream)),
        };
        let connection = Arc::new(Connection::new(
            (socket, arrival.counted),
            address,
            arrival.preface,
            arrival.subscription,
            (
                shard.tick(),
                shard.last_tick(self.settings.connection_age()),
            ),
        ));
        // Before anything is written: who has an answer is counted.
        self.audience.join();
        shard.join(connection.clone(), head);
        let subscriber = Subscriber::new(
            connection,
            shard.clone(),
            input,
            arrival.permit,
            &arrival.early,
        );
        match stream {
            None => self.tasks.spawn(subscriber),
            Some(stream) => self.tasks.spawn(Solo::new(subscriber, stream, most)),
        };
    }
}

#[cfg(test)]
mod tests;
