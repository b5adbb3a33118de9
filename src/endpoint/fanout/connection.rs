//! One subscriber's connection: its socket, its place on the tape, and the one function that writes to it.

use std::borrow::Cow;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::{Buf, Bytes};
use futures_util::task::AtomicWaker;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tracing::info;

use super::moving::{Collector, Position};
use super::socket::Socket;
use super::{Audience, Farewell, Overload, PASSED_BY};
use crate::listen::streams::Counted;
use crate::stream::cursor::Cursor;
use crate::stream::tape::{Chunk, Pending, TapeReader};
use crate::stream::walk::Walk;
use crate::stream::{Amount, Subscription};
use crate::wire::Format;

/// A subscriber that has fallen out of history in the middle of a frame gets the rest of that frame and a Close, if
/// the rest is at most this long: a copy of it is all that is kept for it. Otherwise the connection just ends.
const MAX_KEPT_REST: usize = 16 << 10;

/// A subscriber that is behind is written at most so much, and the rest of a chunk, before others have their turn.
const LONGEST_TURN: u64 = 64 << 10;

/// So much of a walk is encoded at a time. What the socket does not take of it is encoded again when it does.
const PIECE: usize = 16 << 10;

/// A subscriber, as its driver and its own task share it. Idle, it is this and a sleeping task.
pub struct Connection {
    /// The client's socket, read by the subscriber's own task, written by [`Connection::write`]; none where that task has it for
    /// itself.
    socket: Option<Socket>,
    /// Counts it as long as there is the socket.
    _counted: Counted,
    /// Wakes the subscriber's own task.
    pub task: AtomicWaker,
    address: SocketAddr,
    tape: TapeReader,
    writer: Mutex<Writer>,
    /// When something was last read from the client, or it took something while it was behind; in ticks of the shard.
    heard: AtomicU32,
    /// When it is old enough, if it may become that, in ticks of the shard.
    last_tick: Option<NonZeroU32>,
    /// A [`Course`].
    course: AtomicU8,
    joined: Instant,
    /// The number of the first event it was to get.
    first: u64,
    /// The number of the first event that was not there yet when it joined: what was before it has asked for.
    live: u64,
}

/// The writing side. Who holds its lock is the one writer.
pub struct Writer {
    /// What comes before the tape.
    walk: Option<Box<Walk>>,
    /// What comes next from the tape.
    cursor: Cursor,
    /// The socket has taken less than there was, since it was last looked at how far behind it is.
    was_blocked: bool,
    /// So many events it was not given, because there were newer ones.
    merged: u64,
    /// How many events it was given by walks, less those that they passed.
    walked: i64,
    /// What has to go out before anything else: the rest of a frame that the socket took only a part of.
    rest: Bytes,
    /// Encoded control frames that go out at the next frame boundary.
    control: Vec<u8>,
    /// Who carries on: the driver with the next event, or the subscriber's own task when the socket has room.
    pub mode: Mode,
    /// Where the driver holds the connection; only the driver changes it.
    pub slot: Option<Slot>,
    /// Whether it waits in the driver's queue of those that are behind; only the driver changes it.
    pub queued: bool,
    /// When the last ping was sent, in ticks of the shard.
    pub pinged: u32,
    /// Set once nothing but the Close frame is to be sent any more.
    ending: Option<Box<Ending>>,
    /// History has passed by, and it will go on behind what it has missed.
    passed: bool,
    /// Nothing is written to it: another process is about to go on with it.
    pub is_settled: bool,
    /// Whom its own task is to tell that it has let go of it.
    pub collector: Option<Collector>,
    sent: u64,
}

/// Whose a subscriber is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Course {
    /// Its own task's.
    Own,
    /// Nobody's for now: its task is to let go of it, or has done so.
    Held,
    /// Another process's.
    Given,
}

/// Whose turn it is to write tape to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Caught up, or behind and in the driver's queue: the shard's driver writes.
    Driven,
    /// Blocked or closing: its own task writes when the socket can take more.
    Parked,
    /// Its own task always writes, and wants to be woken by events.
    Own,
}

/// What a subscriber has been given at a moment.
#[derive(Debug, Clone, Copy)]
pub struct Given {
    events: u64,
    bytes: u64,
}

impl Given {
    /// What it has been given from there to here.
    pub fn since(self, before: Self) -> Amount {
        Amount {
            events: self.events.saturating_sub(before.events),
            bytes: self.bytes - before.bytes,
        }
    }
}

/// A place in one of the driver's lists.
#[derive(Debug, Clone, Copy)]
pub struct Slot {
    /// Which list.
    pub mode: Mode,
    /// Where in it.
    pub index: usize,
}

/// How the connection ends.
#[derive(Debug, Clone)]
struct Ending {
    code: u16,
    reason: Cow<'static, str>,
    /// The client began to close: once its Close is answered, nothing has to be waited for.
    by_client: bool,
}

/// How far a call of [`Connection::write`] came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// All that is published has been written.
    CaughtUp,
    /// It has had its turn, and there is more for it.
    Behind,
    /// The socket takes no more for now.
    Blocked,
    /// The Close frame is out.
    Closed,
    /// The connection is broken, or in the middle of a frame whose rest is gone.
    Broken,
}

impl Connection {
    /// A connection to `address` that is to get `preface` and then its part of the stream, was last heard of at `tick`, and is old
    /// enough at `last_tick`. The driver writes to `socket`; without one, the subscriber's own task writes elsewhere.
    pub fn new(
        (socket, counted): (Option<Socket>, Counted),
        address: SocketAddr,
        preface: Bytes,
        subscription: Subscription,
        (tick, last_tick): (u32, Option<NonZeroU32>),
    ) -> Self {
        let Subscription {
            walk,
            cursor,
            live,
            tape,
            ..
        } = subscription;
        let mode = match socket {
            Some(_) => Mode::Driven,
            None => Mode::Own,
        };
        Self {
            socket,
            _counted: counted,
            address,
            task: AtomicWaker::new(),
            tape,
            writer: Mutex::new(Writer {
                walk,
                cursor,
                was_blocked: false,
                merged: 0,
                walked: 0,
                rest: preface,
                control: Vec::new(),
                mode,
                slot: None,
                queued: false,
                pinged: tick,
                ending: None,
                passed: false,
                is_settled: false,
                collector: None,
                sent: 0,
            }),
            heard: AtomicU32::new(tick),
            last_tick,
            course: AtomicU8::new(Course::Own as u8),
            joined: Instant::now(),
            first: cursor.index,
            live,
        }
    }

    /// The same, which has been elsewhere, since `joined` and up to `position`.
    pub fn having_had(mut self, position: &Position, joined: Option<Instant>) -> Self {
        let writer = self
            .writer
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        writer.control = position.control.to_vec();
        writer.walked = position.walked;
        writer.merged = position.merged;
        writer.sent = position.sent;
        self.first = position.first.min(writer.cursor.index);
        self.joined = joined.unwrap_or(self.joined);
        self
    }

    /// Where its client is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Since when it is there.
    pub fn joined(&self) -> Instant {
        self.joined
    }

    /// The number of the first event that it was to get.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Whose it is.
    pub fn course(&self) -> Course {
        match self.course.load(Ordering::Acquire) {
            0 => Course::Own,
            1 => Course::Held,
            _ => Course::Given,
        }
    }

    /// Whose it is from now on.
    pub fn set_course(&self, course: Course) {
        self.course.store(course as u8, Ordering::Release);
    }

    /// The socket, which is not another's.
    pub fn socket(&self) -> &Socket {
        let socket = self.socket.as_ref();
        socket.expect("whoever asks has not been given it")
    }

    /// Whether its own task does all of the writing.
    pub fn writes_itself(&self) -> bool {
        self.socket.is_none()
    }

    /// Whether it wants to be woken by events. Who is writing just now may miss what comes, so he does.
    pub fn wants_events(&self) -> bool {
        let writer = self.writer.try_lock();
        writer.map_or(true, |writer| writer.mode == Mode::Own)
    }

    /// The tape that this subscriber reads. All live connections of a stream read the same one.
    pub fn tape(&self) -> &TapeReader {
        &self.tape
    }

    /// Notes a sign of life.
    pub fn set_heard(&self, tick: u32) {
        self.heard.store(tick, Ordering::Relaxed);
    }

    /// When the last sign of life was.
    pub fn heard(&self) -> u32 {
        self.heard.load(Ordering::Relaxed)
    }

    /// When it is old enough, if it may become that.
    pub fn last_tick(&self) -> Option<NonZeroU32> {
        self.last_tick
    }

    /// Takes the right to write. Never hold it across an await, nor two of them at once.
    pub fn lock(&self) -> MutexGuard<'_, Writer> {
        #[cfg(test)]
        super::model::step();
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what is pending to the socket; see [`Connection::write_with`].
    pub fn write(
        &self,
        writer: &mut Writer,
        chunk: &mut Option<Arc<Chunk>>,
        audience: &Audience,
    ) -> Progress {
        self.write_with(writer, chunk, audience, |bytes| {
            self.socket().try_write(bytes)
        })
    }

    /// Writes what is pending, in as few system calls as the chunks of the tape allow. The only place that writes to a
    /// subscriber. `try_write` takes some of what it is given, and nothing when there is no room.
    ///
    /// Whatever the progress, what went out is whole frames plus, if there is a rest, the beginning of one more.
    pub fn write_with(
        &self,
        writer: &mut Writer,
        chunk: &mut Option<Arc<Chunk>>,
        audience: &Audience,
        try_write: impl FnMut(&[u8]) -> io::Result<usize>,
    ) -> Progress {
        if writer.is_settled {
            return Progress::Blocked;
        }
        let progress = self.write_turn(writer, chunk, audience, try_write);
        writer.was_blocked |= progress == Progress::Blocked;
        progress
    }

    fn write_turn(
        &self,
        writer: &mut Writer,
        chunk: &mut Option<Arc<Chunk>>,
        audience: &Audience,
        mut try_write: impl FnMut(&[u8]) -> io::Result<usize>,
    ) -> Progress {
        let before = writer.sent;
        loop {
            while !writer.rest.is_empty() {
                match try_write(&writer.rest) {
                    Ok(0) => return Progress::Blocked,
                    Ok(taken) => {
                        writer.sent += taken as u64;
                        writer.rest.advance(taken);
                    }
                    Err(_) => return Progress::Broken,
                }
            }
            // Lets go of a chunk that the rest may have been a part of.
            writer.rest = Bytes::new();
            if !writer.control.is_empty() {
                writer.rest = std::mem::take(&mut writer.control).into();
                continue;
            }
            if let Some(ending) = &writer.ending {
                return match ending.code {
                    NO_CLOSE => Progress::Broken,
                    _ => Progress::Closed,
                };
            }
            if writer.walk.is_none() && std::mem::take(&mut writer.was_blocked) {
                self.catch_up(writer, audience);
            }
            if writer.walk.is_some() {
                match write_walk(writer, audience, &mut try_write) {
                    Some(progress) => return progress,
                    None if writer.sent - before >= LONGEST_TURN => return Progress::Behind,
                    None => continue,
                }
            }
            match self.tape.pending(writer.cursor, chunk) {
                Pending::CaughtUp => return Progress::CaughtUp,
                Pending::Evicted => match audience.overload() {
                    Overload::Conflate => {
                        let Some((cursor, walk)) = audience.catch_up(writer.cursor, true) else {
                            writer.end_passed(audience);
                            continue;
                        };
                        audience.overloaded(Overload::Conflate);
                        writer.go(cursor, walk);
                    }
                    Overload::Disconnect => writer.end_passed(audience),
                    Overload::Skip => {
                        let from = writer.cursor.index;
                        let (cursor, gap) = audience.log.skip(audience.format, from);
                        let mut notice = Vec::new();
                        audience.format.encode_gap(&gap, &mut notice);
                        audience.overloaded(Overload::Skip);
                        audience.told_gap();
                        // What it has not been given.
                        writer.walked -= cursor.index.saturating_sub(from) as i64;
                        writer.cursor = cursor;
                        writer.passed = false;
                        writer.rest = notice.into();
                    }
                },
                Pending::Frames { slice, end, last } => match try_write(&slice) {
                    Ok(0) => return Progress::Blocked,
                    Ok(taken) if taken == slice.len() => {
                        writer.sent += taken as u64;
                        writer.cursor = end;
                        // What has come since wakes whoever writes next; going on here could go on for ever.
                        if last {
                            return Progress::CaughtUp;
                        }
                        if writer.sent - before >= LONGEST_TURN {
                            return Progress::Behind;
                        }
                    }
                    Ok(taken) => {
                        let (boundary, frames) =
                            audience.format.boundary_at_or_after(&slice, taken);
                        writer.sent += taken as u64;
                        writer.cursor.position += boundary as u64;
                        writer.cursor.index += frames;
                        if boundary > taken {
                            writer.rest = Bytes::from_owner(slice.to_owned(taken, boundary));
                        }
                        return Progress::Blocked;
                    }
                    Err(_) => return Progress::Broken,
                },
            }
        }
    }

    /// Has events merged for a subscriber that has fallen behind by more than a turn since it joined.
    fn catch_up(&self, writer: &mut Writer, audience: &Audience) {
        if audience.overload() != Overload::Conflate || writer.cursor.index < self.live {
            return;
        }
        let newest = self.tape.newest().position;
        if newest.saturating_sub(writer.cursor.position) > LONGEST_TURN
            && let Some((cursor, walk)) = audience.catch_up(writer.cursor, false)
        {
            audience.overloaded(Overload::Conflate);
            writer.go(cursor, walk);
        }
    }

    /// Logs that the connection has ended: how, and what it was sent after the handshake.
    pub fn log_end(&self, audience: &Audience) {
        if self.course() == Course::Given {
            return;
        }
        let writer = self.lock();
        let (code, reason) = match &writer.ending {
            Some(ending) => (ending.code, &*ending.reason),
            None if audience.format.is_body() => (NO_CLOSE, "closed by the subscriber"),
            None => (NO_CLOSE, "connection lost"),
        };
        info!(
            address = %self.address,
            path = %audience.path,
            transport = audience.format.name(),
            code,
            reason,
            duration = ?self.joined.elapsed(),
            events = writer.events(self.first),
            merged = (writer.merged > 0).then_some(writer.merged),
            bytes = writer.sent,
            "subscriber disconnected"
        );
    }
}

/// Writes the next piece of a walk, or what is to be said at its end. None when there may be more to write.
fn write_walk(
    writer: &mut Writer,
    audience: &Audience,
    try_write: &mut impl FnMut(&[u8]) -> io::Result<usize>,
) -> Option<Progress> {
    let walk = writer.walk.as_mut()?;
    let Some(piece) = walk.next(&audience.log, audience.format, PIECE) else {
        let ended = writer.walk.take()?.end(&audience.log, audience.format);
        writer.merged += ended.merged;
        if ended.has_lost {
            audience.told_gap();
        }
        writer.rest = ended.notice.into();
        return None;
    };
    let taken = match try_write(&piece.bytes) {
        Ok(taken) => taken,
        Err(_) => return Some(Progress::Broken),
    };
    let (end, frames) = walk.advance(&piece, taken);
    writer.sent += taken as u64;
    writer.walked += frames as i64;
    if taken == piece.bytes.len() {
        return None;
    }
    if end > taken {
        // Of many small frames nothing is kept but the rest of one.
        writer.rest = match end - taken <= MAX_KEPT_REST {
            true => Bytes::copy_from_slice(&piece.bytes[taken..end]),
            false => Bytes::from(piece.bytes).slice(taken..end),
        };
    }
    Some(Progress::Blocked)
}

/// Stands for "no Close frame" where a code is expected (RFC 6455, section 7.1.5). Never sent.
const NO_CLOSE: u16 = 1006;

impl Writer {
    /// From here on it gets what `walk` leads to, and then what lies behind `cursor`.
    fn go(&mut self, cursor: Cursor, walk: Walk) {
        self.walked -= walk.span() as i64;
        self.walk = Some(Box::new(walk));
        self.cursor = cursor;
        self.passed = false;
    }

    /// How many events it has been given, if its tape began with the one numbered `first`.
    fn events(&self, first: u64) -> u64 {
        (self.cursor.index - first).saturating_add_signed(self.walked)
    }

    /// It has fallen out of history, and that is how this is dealt with.
    fn end_passed(&mut self, audience: &Audience) {
        if self.ending.is_none() {
            audience.overloaded(Overload::Disconnect);
        }
        self.end(audience.format, CloseCode::Again, PASSED_BY);
    }

    /// What it has been given, and more by what was before it came: differences are what counts.
    pub fn given(&self) -> Given {
        Given {
            events: self.events(0),
            bytes: self.sent,
        }
    }

    /// What comes next from the tape.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// What has to go out before anything else.
    pub fn rest(&self) -> &Bytes {
        &self.rest
    }

    /// The control frames that wait.
    pub fn control(&self) -> &[u8] {
        &self.control
    }

    /// How many events it was given by walks, less those that they passed.
    pub fn walked(&self) -> i64 {
        self.walked
    }

    /// So many events it was not given, because there were newer ones.
    pub fn merged(&self) -> u64 {
        self.merged
    }

    /// Where on the tape it stands.
    #[cfg(test)]
    pub fn stands_at(&self) -> Cursor {
        self.cursor
    }

    /// Whether history has passed by, and it will go on behind what it has missed.
    #[cfg(test)]
    pub fn is_passed(&self) -> bool {
        self.passed
    }

    /// Whether there is something to come before the tape.
    pub fn is_walking(&self) -> bool {
        self.walk.is_some()
    }

    /// Asks for a Close frame with this code, after what is already on its way; nothing else follows it. The first
    /// ending stands.
    ///
    /// The body of an HTTP answer has no such frame, and just ends.
    pub fn end(&mut self, format: Format, code: CloseCode, reason: impl Into<Cow<'static, str>>) {
        self.send_away(format, Farewell::new(code, reason));
    }

    /// The same, with what the server has to say about coming back.
    pub fn send_away(&mut self, format: Format, farewell: Farewell) {
        if self.ending.is_some() {
            return;
        }
        let Farewell {
            code,
            reason,
            come_back,
        } = farewell;
        self.control = format.encode_end(code, &reason, come_back);
        self.ending = Some(Box::new(Ending {
            code: code.into(),
            reason,
            by_client: false,
        }));
        self.mode = Mode::Parked;
    }

    /// The client has sent a Close frame with this code; `reply` answers it.
    pub fn end_by_client(&mut self, code: u16, reply: Vec<u8>) {
        if self.ending.is_some() {
            return;
        }
        self.control = reply;
        self.ending = Some(Box::new(Ending {
            code,
            reason: Cow::Borrowed("closed by the subscriber"),
            by_client: true,
        }));
        self.mode = Mode::Parked;
    }

    /// The client has closed, too, before our Close frame is out: once it is, nothing has to be waited for.
    pub fn end_has_answer(&mut self) {
        if let Some(ending) = &mut self.ending {
            ending.by_client = true;
        }
    }

    /// History has moved on to position `oldest`: a subscriber that stood before it keeps no chunk alive, and is closed if
    /// that is what overload leads to. Whether there is something to do for its task.
    pub fn pass(&mut self, oldest: u64, audience: &Audience) -> bool {
        if self.ending.is_some() || self.passed || self.cursor.position >= oldest {
            return false;
        }
        if self.rest.len() <= MAX_KEPT_REST {
            self.rest = Bytes::copy_from_slice(&self.rest);
            match audience.overload() {
                Overload::Disconnect => self.end_passed(audience),
                Overload::Skip | Overload::Conflate => {
                    self.passed = true;
                    return false;
                }
            }
        } else {
            // In the middle of a large frame there is no way to say why.
            audience.overloaded(Overload::Disconnect);
            self.rest = Bytes::new();
            self.ending = Some(Box::new(Ending {
                code: NO_CLOSE,
                reason: Cow::Borrowed(PASSED_BY),
                by_client: false,
            }));
            self.mode = Mode::Parked;
        }
        true
    }

    /// Adds encoded control frames. While earlier ones have not got out, the new ones take their place: a client that
    /// pings without reading must not make them pile up (RFC 6455, section 5.5.3 allows answering the last one only).
    pub fn set_control(&mut self, frames: &[u8]) {
        if self.ending.is_none() {
            self.control.clear();
            self.control.extend_from_slice(frames);
        }
    }

    /// Whether all that was to be written by now has been.
    pub fn is_clear(&self) -> bool {
        self.rest.is_empty() && self.control.is_empty() && self.mode != Mode::Parked
    }

    /// How many bytes it has been sent.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Whether control frames wait to be written.
    pub fn has_control(&self) -> bool {
        !self.control.is_empty()
    }

    /// Whether nothing but a Close frame is to be sent any more.
    pub fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    /// Whether it was the client that began to close.
    pub fn is_ending_by_client(&self) -> bool {
        self.ending.as_ref().is_some_and(|ending| ending.by_client)
    }
}
