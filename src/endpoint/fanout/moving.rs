//! Subscribers on their way to another process, with their sockets and their places.
//!
//! First their own tasks [let go](Held) of them, between two messages: nothing is read any more, while the driver goes on writing. Once
//! no more events come, each is [settled](Held::settle): nothing is written any more either, and where it stands is final. Then it
//! has either gone for good, or goes on here as if nothing had happened.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedSender;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::connection::{Connection, Course};
use super::driver::Shard;
use super::publishing::Publishing;
use super::socket::Socket;
use super::subscriber::Subscriber;
use super::{Fanout, PASSED_BY, Permit};
use crate::endpoint::websocket::input::Unheard;
use crate::event::Labels;
use crate::listen::streams::Counted;
use crate::stream::tape::Pending;
use crate::stream::usage::User;
use crate::wire::Format;

/// At most so much is carried along for a subscriber of what is not in the history any more.
const MAX_CARRIED: usize = 1 << 20;

/// Where those are collected whose tasks have let go of them.
pub type Collector = UnboundedSender<Held>;

/// A subscriber whose own task has let go of it.
pub struct Held {
    connection: Arc<Connection>,
    shard: Arc<Shard>,
    /// What its messages are, if it may send some.
    pub publish: Result<Labels, Unheard>,
    /// How long it may go on to read, if there is an end to it.
    pub remaining: Option<Duration>,
    /// Whether it is to go on here when this is dropped.
    is_given: bool,
}

/// Where a subscriber stands.
#[derive(Debug, Clone, Default)]
pub struct Position {
    /// The number of the next event for it.
    pub index: u64,
    /// What has to go out before anything else.
    pub rest: Bytes,
    /// Control frames that follow that.
    pub control: Bytes,
    /// The number of the first event that it was to get.
    pub first: u64,
    /// So many events it has been given beside those, and so many it has not: see the log line about its end.
    pub walked: i64,
    /// See above.
    pub merged: u64,
    /// How many bytes it has been sent.
    pub sent: u64,
}

/// A subscriber that comes from another process.
pub struct Returning {
    /// Its socket.
    pub socket: TcpStream,
    /// Where it comes from.
    pub address: SocketAddr,
    /// Where it stands.
    pub position: Position,
    /// For how long it has been connected.
    pub connected_for: Duration,
    /// What it may publish.
    pub publish: Result<Box<Publishing>, Unheard>,
    /// How long it may go on to read, if there is an end to it.
    pub remaining: Option<Duration>,
    /// Keeps the stream there.
    pub user: User,
    /// What it counts as.
    pub counted: Counted,
}

impl Held {
    pub(super) fn new(
        connection: Arc<Connection>,
        shard: Arc<Shard>,
        publish: Result<Labels, Unheard>,
        remaining: Option<Duration>,
    ) -> Self {
        Self {
            connection,
            shard,
            publish,
            remaining,
            is_given: false,
        }
    }

    /// The path of its stream.
    pub fn path(&self) -> &Arc<str> {
        &self.shard.audience().path
    }

    /// What it is written in.
    pub fn format(&self) -> Format {
        self.shard.audience().format
    }

    /// Where it comes from.
    pub fn address(&self) -> SocketAddr {
        self.connection.address()
    }

    /// For how long it has been connected.
    pub fn connected_for(&self) -> Duration {
        self.connection.joined().elapsed()
    }

    /// Its socket.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.connection.socket().as_fd()
    }

    /// From now on nothing is written to it: where it stands, in a log whose history begins with the event numbered `first`. None if
    /// that cannot be said so that others could go on: it is about to end, or it gets what is not in the history.
    pub fn settle(&self, first: u64) -> Option<Position> {
        let mut writer = self.connection.lock();
        if writer.is_ending() || writer.is_walking() {
            return None;
        }
        writer.is_settled = true;
        let mut position = Position {
            index: writer.cursor().index,
            rest: writer.rest().clone(),
            control: Bytes::copy_from_slice(writer.control()),
            first: self.connection.first(),
            walked: writer.walked(),
            merged: writer.merged(),
            sent: writer.sent(),
        };
        if position.index < first {
            // What history has let go of may still be on the tape.
            let mut rest = [&position.rest[..], &position.control[..]].concat();
            let (mut cursor, mut chunk) = (writer.cursor(), None);
            loop {
                match self.connection.tape().pending(cursor, &mut chunk) {
                    Pending::Frames { slice, end, .. } => {
                        rest.extend_from_slice(&slice);
                        cursor = end;
                    }
                    Pending::CaughtUp => break,
                    Pending::Evicted => return None,
                }
                if rest.len() > MAX_CARRIED {
                    return None;
                }
            }
            position.index = cursor.index;
            position.rest = rest.into();
            position.control = Bytes::new();
        }
        Some(position)
    }

    /// Another process has it now. Here nothing is left of it but open ends, and its socket is closed without a word.
    pub fn give(mut self) {
        self.is_given = true;
    }
}

/// Unless it has been given away, it goes on here.
impl Drop for Held {
    fn drop(&mut self) {
        let course = match self.is_given {
            true => Course::Given,
            false => Course::Own,
        };
        if course == Course::Own {
            self.connection.lock().is_settled = false;
        }
        self.connection.set_course(course);
        self.connection.task.wake();
    }
}

impl Connection {
    /// Its own task is to let go of it, and to say so to `collector`.
    pub(super) fn hold(&self, collector: Collector) {
        self.lock().collector = Some(collector);
        self.set_course(Course::Held);
        self.task.wake();
    }
}

impl Subscriber {
    /// Whether there is nothing to do for this task, as the subscriber is not its own any more; true when it has just let go.
    pub(super) fn lets_go(&mut self) -> bool {
        let Some(collector) = self.connection.lock().collector.take() else {
            return true;
        };
        if !self.is_open() {
            // Its end is near, and that is for this process to see.
            self.connection.set_course(Course::Own);
            return false;
        }
        if !self.is_between_messages() {
            self.connection.lock().collector = Some(collector);
            return false;
        }
        let publish = match &self.publish {
            Ok(publishing) => Ok(publishing.labels().clone()),
            Err(unheard) => Err(*unheard),
        };
        let remaining = self.expiry.as_ref().map(|expiry| {
            let now = tokio::time::Instant::now();
            expiry.deadline().saturating_duration_since(now)
        });
        let (connection, shard) = (self.connection.clone(), self.shard.clone());
        // If nobody collects any more, it comes back at once.
        let _ = collector.send(Held::new(connection, shard, publish, remaining));
        true
    }
}

impl Fanout {
    /// Has all subscribers that have a socket for themselves let go of by their tasks. Those that cannot be are not said to
    /// `collector`; it is dropped everywhere when nobody is to come any more.
    pub fn hold(&self, collector: &Collector) {
        for shard in self.shards() {
            shard.hold(collector.clone());
        }
    }

    /// Goes on with a subscriber that comes from another process.
    pub fn resume(&self, returning: Returning) {
        let Returning {
            socket,
            address,
            mut position,
            ..
        } = returning;
        let (log, format) = (&self.audience.log, self.audience.format);
        let subscription = log.subscribe_at(format, position.index);
        let is_passed = subscription.is_none();
        let subscription = subscription.unwrap_or_else(|| log.follow(format));
        let rest = std::mem::take(&mut position.rest);
        let shard = self.next_shard();
        let head = subscription.head.clone();
        let connection = Connection::new(
            (Some(Socket::Tcp(socket)), returning.counted),
            address,
            rest,
            subscription,
            (
                shard.tick(),
                shard.last_tick(self.settings.age_left(returning.connected_for)),
            ),
        );
        let joined = Instant::now().checked_sub(returning.connected_for);
        let connection = Arc::new(connection.having_had(&position, joined));
        if is_passed {
            // Between here and there history has moved on.
            connection.lock().end(format, CloseCode::Again, PASSED_BY);
        }
        self.audience.join();
        shard.join(connection.clone(), head);
        let permit = Permit {
            publish: returning.publish,
            remaining: returning.remaining,
            user: returning.user,
        };
        let subscriber = Subscriber::new(connection, shard, self.input(), permit, &[]);
        self.tasks.spawn(subscriber);
    }
}
