//! Streams as bodies of HTTP answers that share their connection with others: HTTP/2, and requests that are not the first
//! on their connection. hyper does the framing, and each such body is a task's work, so the [fan-out](super::fanout)
//! is for everybody else.
//!
//! hyper does not ask a body for more while the client has no room for it: over HTTP/2 for as long as a client likes (RFC 9113,
//! section 5.2). So whatever may end a body is not the body's to notice, but that of its task, which has all that the reader
//! uses, and fills a slot of one piece. The body is the other end of the slot, and no more.

use std::borrow::Cow;
use std::convert::Infallible;
use std::future::pending;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body as _, Frame, SizeHint};
use tokio::sync::mpsc::{self, Sender};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_util::task::TaskTracker;
use tracing::info;

use super::fanout::{
    BODY_COMPLAINT, BODY_PATIENCE, EXPIRED, EXPIRED_REASON, Ender, Farewell, Overload, PASSED_BY,
};
use super::lag::Place;
use super::subscribers::Subscribers;
use crate::bus::deep::{Deep, Step};
use crate::stream::cursor::Cursor;
use crate::stream::tape::Pending;
use crate::stream::usage::User;
use crate::stream::walk::Walk;
use crate::stream::{Amount, EventLog, Subscription};
use crate::wire::Format;

/// The body of an answer.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// So much is handed on at a time, in whole events: a copy, so that whoever does not read keeps no part of a tape alive.
const PIECE: usize = 16 << 10;

/// A reader that has been given so much since it had everything, and has as much before it, is slow.
const BEHIND: usize = 64 << 10;

/// A body that is all there.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}

/// A reader of a stream.
pub struct Follower {
    /// The stream.
    pub log: Arc<EventLog>,
    /// As what it is read.
    pub format: Format,
    /// Where it is served.
    pub path: Arc<str>,
    /// What happens when the reader falls out of history.
    pub overload: Overload,
    /// How often the reader gets a comment.
    pub heartbeat: Duration,
    /// How many readers there are.
    pub count: Arc<Subscribers>,
    /// Who reads.
    pub address: SocketAddr,
    /// Ends the body.
    pub ender: Ender,
    /// Keeps the stream there.
    pub user: User,
    /// After so long it ends: what the reader has shown to get in holds no longer.
    pub remaining: Option<Duration>,
    /// After so long it is old enough, and the reader is to come again.
    pub age: Option<Duration>,
    /// Notes that the connection takes what it is sent.
    pub activity: Arc<Activity>,
    /// What goes out before the first event.
    pub preface: Bytes,
    /// What goes out before what the subscription has, if the reader wants more than that.
    pub deep: Option<Box<Deep>>,
    /// Where to begin.
    pub subscription: Subscription,
}

/// How a connection gets on.
#[derive(Debug)]
pub struct Activity {
    start: Instant,
    /// In milliseconds since `start`.
    last: AtomicUsize,
    /// When the head began that is not yet whole, in milliseconds since `start`; or [`NO_HEAD`].
    head: AtomicUsize,
    /// How many requests there are whose answers are not all out.
    open: AtomicUsize,
}

/// No request has begun.
const NO_HEAD: usize = usize::MAX;

impl Activity {
    /// Of a connection that was accepted at `start`: from then on its first request is waited for.
    pub fn new(start: Instant) -> Self {
        Self {
            start,
            last: AtomicUsize::new(0),
            head: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
        }
    }

    /// It does now.
    pub fn note(&self) {
        self.last.store(self.millis(), Ordering::Relaxed);
    }

    /// When it last did.
    pub fn last(&self) -> Instant {
        self.at(self.last.load(Ordering::Relaxed))
    }

    /// The client has sent something. If there is no request that it can be a part of, the next one begins.
    pub fn note_input(&self) {
        self.note();
        if !self.is_busy() && self.head_since().is_none() {
            self.head.store(self.millis(), Ordering::Relaxed);
        }
    }

    /// A request's head is whole. It is answered when what this returns is dropped.
    pub fn request(self: &Arc<Self>) -> InProgress {
        self.note();
        self.open.fetch_add(1, Ordering::Relaxed);
        self.head.store(NO_HEAD, Ordering::Relaxed);
        InProgress(self.clone())
    }

    /// Whether a request is being answered.
    pub fn is_busy(&self) -> bool {
        self.open.load(Ordering::Relaxed) > 0
    }

    /// Since when a head is waited for as a whole, if one is.
    pub fn head_since(&self) -> Option<Instant> {
        let head = self.head.load(Ordering::Relaxed);
        (head != NO_HEAD).then(|| self.at(head))
    }

    fn millis(&self) -> usize {
        self.start.elapsed().as_millis() as usize
    }

    fn at(&self, millis: usize) -> Instant {
        self.start + Duration::from_millis(millis as u64)
    }
}

/// A request, from its whole head to the end of its answer.
pub struct InProgress(Arc<Activity>);

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.note();
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// `body`, and with it, for as long as it is not all sent, `with`.
pub fn held(body: Body, with: impl Send + 'static) -> Body {
    match body.is_end_stream() {
        true => body,
        false => BodyExt::boxed_unsync(Held { body, _with: with }),
    }
}

struct Held<T> {
    body: Body,
    _with: T,
}

// Only the body is polled, and that is pinned in a box of its own.
impl<T> Unpin for Held<T> {}

impl<T> hyper::body::Body for Held<T> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What is needed while a body is read. Its task has it, so that it goes whether the reader takes anything or not.
struct Following {
    follower: Follower,
    heartbeat: Interval,
    joined: Instant,
    first: u64,
    sent: u64,
    /// Bytes it has been given from the tape since it had everything.
    given: usize,
    /// So many events it was not given, because there were newer ones.
    merged: u64,
    /// How many events it was given by walks, less those that they passed.
    walked: i64,
    /// How many of them are among those that all readers have been sent.
    counted: u64,
    /// Where it stands, for others to know.
    place: Place,
    reason: Cow<'static, str>,
}

/// The stream as a body, without end until its reader, what has let it in, the stream or the process goes. One of `tasks` feeds it.
pub fn follow(follower: Follower, tasks: &TaskTracker) -> Body {
    info!(address = %follower.address, path = %follower.path, transport = follower.format.name(), "subscriber connected");
    follower.count.join(follower.format);
    let mut heartbeat = interval(follower.heartbeat);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    heartbeat.reset();
    let activity = follower.activity.clone();
    let following = Following {
        heartbeat,
        joined: Instant::now(),
        first: follower.subscription.cursor.index,
        sent: 0,
        given: 0,
        merged: 0,
        walked: 0,
        counted: 0,
        place: follower
            .count
            .follow(&follower.subscription, follower.format),
        reason: GONE.into(),
        follower,
    };
    let (slot, taken) = mpsc::channel(1);
    tasks.spawn(following.run(slot));
    let pieces = stream::unfold((taken, activity), |(mut taken, activity)| async move {
        loop {
            activity.note();
            let piece: Bytes = taken.recv().await?;
            if !piece.is_empty() {
                return Some((Ok(Frame::data(piece)), (taken, activity)));
            }
        }
    });
    BodyExt::boxed_unsync(StreamBody::new(pieces))
}

/// How long a reader may take to make room for the last that is said.
const FAREWELL: Duration = Duration::from_secs(5);

/// Why a reader is not there any more, unless something else is known.
const GONE: &str = "closed by the subscriber";

/// Waits until what a body is read by has to end, and says why.
async fn ended(ender: Ender, remaining: Option<Duration>, age: Option<Duration>) -> Farewell {
    let instant =
        |after: Option<Duration>| after.and_then(|after| Instant::now().checked_add(after));
    let (expires, aged) = (instant(remaining), instant(age));
    let first = expires.into_iter().chain(aged).min();
    let time = async {
        match first {
            Some(first) => sleep_until(first).await,
            None => pending().await,
        }
    };
    tokio::select! {
        biased;
        () = ender.token().cancelled() => ender.farewell(),
        () = ender.stop().departure() => ender.farewell(),
        () = time => match first == expires {
            true => Farewell::new(CloseCode::from(EXPIRED), EXPIRED_REASON),
            false => Farewell::aged(),
        },
    }
}

impl Following {
    /// Fills `slot` until there is an end to it.
    async fn run(mut self, slot: Sender<Bytes>) {
        let Follower {
            ender,
            remaining,
            age,
            format,
            ..
        } = &self.follower;
        let (format, ended) = (*format, ended(ender.clone(), *remaining, *age));
        let count = self.follower.count.clone();
        let mut last = Vec::new();
        self.reason = tokio::select! {
            // Before the events: of these there may always be more.
            biased;
            farewell = ended => {
                let Farewell { code, reason, come_back } = farewell;
                last = format.encode_end(code, &reason, come_back);
                reason
            }
            () = slot.closed() => GONE.into(),
            reason = self.feed(&slot) => reason,
        };
        if self.reason == PASSED_BY {
            count.overloaded(Overload::Disconnect);
        }
        if !last.is_empty() {
            self.sent += last.len() as u64;
            // For who takes nothing it can mean nothing.
            let _ = timeout(FAREWELL, slot.send(last.into())).await;
        }
        // Whoever sees the end of the body is not counted any more.
        drop(self);
        drop(slot);
    }

    /// Puts one piece after another into `slot`; why there are no more.
    async fn feed(&mut self, slot: &Sender<Bytes>) -> Cow<'static, str> {
        if let Some(deep) = self.follower.deep.take()
            && let Err(reason) = self.catch_up(*deep, slot).await
        {
            return reason;
        }
        loop {
            match self.room(slot).await {
                Ok(room) => match self.next().await {
                    Ok(piece) => {
                        self.note(piece.len());
                        room.send(piece);
                    }
                    Err(reason) => return reason.into(),
                },
                Err(reason) => return reason.into(),
            }
        }
    }

    /// A piece of so many bytes goes out.
    fn note(&mut self, len: usize) {
        self.sent += len as u64;
        self.place.set(self.follower.subscription.cursor);
        let events = self.events();
        let amount = Amount {
            events: events.saturating_sub(self.counted),
            bytes: len as u64,
        };
        self.counted = events;
        let Follower { count, format, .. } = &self.follower;
        count.sent(*format).add(amount);
    }

    /// How many events it has been given.
    fn events(&self) -> u64 {
        let passed = self.follower.subscription.cursor.index - self.first;
        passed.saturating_add_signed(self.walked)
    }

    /// Puts what `deep` brings into `slot`, up to where the stream's log goes on.
    async fn catch_up(
        &mut self,
        mut deep: Deep,
        slot: &Sender<Bytes>,
    ) -> Result<(), Cow<'static, str>> {
        let mut piece = std::mem::take(&mut self.follower.preface);
        loop {
            if !piece.is_empty() {
                let patience = self.follower.heartbeat * BODY_PATIENCE;
                let room = timeout(patience, slot.reserve()).await;
                let room = room.map_err(|_| BODY_COMPLAINT)?.map_err(|_| GONE)?;
                self.note(piece.len());
                room.send(piece);
            }
            let step = tokio::select! {
                step = deep.next() => step,
                () = slot.closed() => return Err(GONE.into()),
            };
            piece = match step {
                Ok(Step::Frames(frames)) => frames,
                Ok(Step::Join(subscription)) => {
                    self.first = subscription.cursor.index;
                    self.follower.subscription = subscription;
                    return Ok(());
                }
                Err(error) => return Err(deep.reason(&error).into()),
            };
        }
    }

    /// Waits until `slot` is empty, but not for ever, nor once that is of no use any more.
    async fn room<'a>(
        &mut self,
        slot: &'a Sender<Bytes>,
    ) -> Result<mpsc::Permit<'a, Bytes>, &'static str> {
        let mut patience = pin!(sleep(self.follower.heartbeat * BODY_PATIENCE));
        let mut room = pin!(slot.reserve());
        loop {
            let Subscription {
                head,
                cursor,
                tape,
                walk,
                ..
            } = &mut self.follower.subscription;
            // Before looking: what comes from here on wakes.
            head.mark_seen();
            let is_passed = cursor.position < tape.oldest().position;
            // What a walk has for it is still there.
            if is_passed && walk.is_none() && self.follower.overload == Overload::Disconnect {
                return Err(PASSED_BY);
            }
            tokio::select! {
                biased;
                room = &mut room => return room.map_err(|_| GONE),
                () = &mut patience => return Err(BODY_COMPLAINT),
                _ = head.changed() => {}
            }
        }
    }

    /// The next piece of the body, or why there is none. One that is empty says nothing, but has to be taken like any other.
    async fn next(&mut self) -> Result<Bytes, &'static str> {
        if !self.follower.preface.is_empty() {
            return Ok(std::mem::take(&mut self.follower.preface));
        }
        loop {
            if self.follower.subscription.walk.is_some() {
                match self.next_of_walk() {
                    Some(piece) => return Ok(piece),
                    None => continue,
                }
            }
            // Before looking: what comes from here on wakes.
            self.follower.subscription.head.mark_seen();
            match self.next_of_tape() {
                Next::Piece(piece) => return Ok(piece),
                Next::Walk(behind, walk) => {
                    self.follower.count.overloaded(Overload::Conflate);
                    self.walked -= walk.span() as i64;
                    self.given = 0;
                    self.follower.subscription.cursor = behind;
                    self.follower.subscription.walk = Some(Box::new(walk));
                }
                Next::Over => return Err(PASSED_BY),
                Next::CaughtUp => {
                    self.given = 0;
                    tokio::select! {
                        _ = self.follower.subscription.head.changed() => {}
                        _ = self.heartbeat.tick() => {
                            return Ok(Bytes::from_static(self.follower.format.heartbeat()));
                        }
                    }
                }
            }
        }
    }

    /// What comes before the tape; none when that is over and there is nothing more to say about it.
    fn next_of_walk(&mut self) -> Option<Bytes> {
        let Follower {
            log,
            format,
            subscription,
            count,
            ..
        } = &mut self.follower;
        let walk = subscription.walk.as_mut()?;
        if let Some(piece) = walk.next(log, *format, PIECE) {
            let (_, frames) = walk.advance(&piece, piece.bytes.len());
            self.walked += frames as i64;
            return Some(piece.bytes.into());
        }
        let ended = subscription.walk.take()?.end(log, *format);
        self.merged += ended.merged;
        if ended.has_lost {
            count.told_gaps(*format, 1);
        }
        Some(ended.notice.into()).filter(|notice: &Bytes| !notice.is_empty())
    }

    fn next_of_tape(&mut self) -> Next {
        let Follower {
            log,
            format,
            overload,
            count,
            subscription: Subscription {
                cursor, live, tape, ..
            },
            ..
        } = &mut self.follower;
        let left = tape.newest().position.saturating_sub(cursor.position);
        let is_slow = self.given >= BEHIND && left > BEHIND as u64 && cursor.index >= *live;
        if is_slow
            && *overload == Overload::Conflate
            && let Some((behind, walk)) = log.catch_up(*format, cursor.index, false)
        {
            return Next::Walk(behind, walk);
        }
        // Neither asleep nor while the connection takes no more does a reader keep a part of the tape alive.
        let mut chunk = None;
        match tape.pending(*cursor, &mut chunk) {
            Pending::Frames { slice, end, .. } => {
                let (len, to) = match slice.len() <= PIECE {
                    true => (slice.len(), end),
                    false => {
                        let (len, frames) = format.boundary_at_or_after(&slice, PIECE);
                        let to = Cursor {
                            position: cursor.position + len as u64,
                            index: cursor.index + frames,
                        };
                        (len, to)
                    }
                };
                *cursor = to;
                self.given += len;
                Next::Piece(Bytes::copy_from_slice(&slice[..len]))
            }
            Pending::Evicted if *overload == Overload::Skip => {
                let (oldest, gap) = log.skip(*format, cursor.index);
                // What it has not been given.
                self.walked -= oldest.index.saturating_sub(cursor.index) as i64;
                *cursor = oldest;
                count.overloaded(Overload::Skip);
                count.told_gaps(*format, 1);
                let mut notice = Vec::new();
                format.encode_gap(&gap, &mut notice);
                Next::Piece(notice.into())
            }
            Pending::Evicted => {
                if *overload == Overload::Conflate
                    && let Some((behind, walk)) = log.catch_up(*format, cursor.index, true)
                {
                    return Next::Walk(behind, walk);
                }
                Next::Over
            }
            Pending::CaughtUp => Next::CaughtUp,
        }
    }
}

/// What there is on a tape for a reader.
enum Next {
    Piece(Bytes),
    /// It reads on here, behind this walk.
    Walk(Cursor, Walk),
    CaughtUp,
    Over,
}

/// However it ends.
impl Drop for Following {
    fn drop(&mut self) {
        let follower = &self.follower;
        follower.count.leave(follower.format);
        follower.count.unfollow(&self.place);
        info!(
            address = %follower.address,
            path = %follower.path,
            transport = follower.format.name(),
            reason = &*self.reason,
            duration = ?self.joined.elapsed(),
            events = self.events(),
            merged = (self.merged > 0).then_some(self.merged),
            bytes = self.sent,
            "subscriber disconnected"
        );
    }
}
