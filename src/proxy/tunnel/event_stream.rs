//! An answer that is an event stream, after its head: what the upstream sends is written to the client as it comes, and
//! nothing is looked at but where it ends, and where it may be ended so that the client gets whole events.
//!
//! As a tunnel, it has no memory of its own while it is idle.

mod content;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::alarm::Alarm;
use super::relay::{Relay, SMALLEST_READ, TURN};
use super::{Limits, SCRATCH, Side, in_at_most, take_scratch};
use crate::listen::stream::Stream;
use crate::proxy::exchange::{AGED, COMPLETE, GONE, SILENT, STOPPED};
use crate::reason;
use crate::shutdown::Stop;

pub use content::Content;
use content::End;

/// So much a client may send behind its request that nobody reads, in bytes.
const MOST_UNHEARD: usize = 64 << 10;
/// How long a client has time to read the end of an answer: closing at once, with bytes of the client unread, would reset the
/// connection (RFC 9112, section 9.6).
const LINGER: Duration = Duration::from_secs(1);

/// Why it has ended, in a few words for the log.
type Why = Cow<'static, str>;

/// What has become of it.
#[derive(Debug)]
pub struct Ended {
    /// How many bytes of content have come for the client.
    pub to_client: u64,
    /// Why it is over.
    pub why: Why,
}

/// Sends `head` to the client, and what the upstream sends behind it. `stop`: the process stops; each has a
/// moment of its own then.
// Not an `async fn`: that would keep what it is given a second time.
pub fn run(
    client: Stream,
    upstream: Side,
    head: BytesMut,
    content: Content,
    limits: Limits,
    stop: &Stop,
) -> impl Future<Output = Ended> + Send + use<> {
    let mut stream = EventStream::new(client, upstream, head, content, limits);
    let stopped = stop.departure();
    async move {
        let mut stopped = pin!(stopped);
        std::future::poll_fn(|cx| stream.poll(cx, stopped.as_mut())).await
    }
}

struct EventStream {
    client: Stream,
    /// There until nothing more is wanted of it.
    upstream: Option<Stream>,
    relay: Relay,
    /// Of what has been read.
    content: Content,
    limits: Limits,
    /// Once it has to end: by then whatever happens.
    by: Option<Instant>,
    /// The client has been told that nothing more comes.
    is_shut: bool,
    /// The first reason there was to end.
    why: Option<Why>,
    alarm: Alarm,
    /// When something moved last, if there is an idle limit.
    active: Instant,
    /// How much the client has sent.
    unheard: usize,
}

impl EventStream {
    fn new(
        client: Stream,
        upstream: Side,
        mut head: BytesMut,
        mut content: Content,
        limits: Limits,
    ) -> Self {
        let (early, end) = content.pass(&upstream.early, false);
        head.extend_from_slice(&early);
        let mut stream = Self {
            client,
            upstream: Some(upstream.stream),
            relay: Relay::new(head.freeze()),
            content,
            limits,
            by: None,
            is_shut: false,
            why: None,
            alarm: Alarm::default(),
            active: Instant::now(),
            unheard: 0,
        };
        stream.passed_to(end);
        stream
    }

    fn poll(&mut self, cx: &mut Context<'_>, stopped: Pin<&mut impl Future>) -> Poll<Ended> {
        if self.by.is_none() && stopped.poll(cx).is_ready() {
            self.has_to_end_for(STOPPED);
        }
        loop {
            let mut scratch = take_scratch();
            let told = self.relay(cx, &mut scratch);
            let heard = self.hear(cx, &mut scratch);
            SCRATCH.set(scratch);
            if self.may_be_idle() && self.relay.take_moved() {
                self.active = Instant::now();
            }
            match told {
                Poll::Ready(Err(_)) => return Poll::Ready(self.ended(GONE.into())),
                Poll::Ready(Ok(())) if !self.is_shut => {
                    self.is_shut = true;
                    let by = in_at_most(LINGER);
                    self.by = Some(self.by.map_or(by, |drain| by.min(drain)));
                }
                _ => {}
            }
            if let Poll::Ready(why) = heard {
                return Poll::Ready(self.ended(why));
            }
            let due = self.due();
            ready!(self.alarm.poll(cx, due));
            if let Some(why) = self.time_is_up() {
                return Poll::Ready(self.ended(why));
            }
        }
    }

    /// Moves what can be moved. Ready when the client knows that there is nothing more, or when its connection has failed.
    fn relay(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<io::Result<()>> {
        let mut turn = 0;
        loop {
            ready!(self.relay.poll_pending(cx, &mut self.client, |_| {}))?;
            let Some(upstream) = &mut self.upstream else {
                if !self.is_shut {
                    // One that is gone already need not be told.
                    let _ = ready!(Pin::new(&mut self.client).poll_shutdown(cx));
                }
                return Poll::Ready(Ok(()));
            };
            if turn >= TURN {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match ready!(self.relay.poll_read(cx, upstream, scratch)) {
                Err(error) => self.is_over(broken(&reason::io_text(&error))),
                Ok([]) if self.content.is_chunked() => {
                    self.is_over(broken("the connection was closed before the end"));
                }
                Ok([]) => self.is_over(COMPLETE.into()),
                Ok(bytes) => {
                    turn += bytes.len();
                    let (passing, end) = self.content.pass(bytes, self.by.is_some());
                    self.relay.pass_on(cx, &mut self.client, &passing, |_| {})?;
                    self.passed_to(end);
                }
            }
        }
    }

    /// Reads what the client sends, which is nothing that is wanted, to notice when it goes.
    fn hear(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<Why> {
        let scratch = &mut scratch[..SMALLEST_READ];
        loop {
            let mut read = ReadBuf::new(scratch);
            let result = ready!(Pin::new(&mut self.client).poll_read(cx, &mut read));
            self.unheard += read.filled().len();
            match result {
                Err(_) => return Poll::Ready(GONE.into()),
                Ok(()) if read.filled().is_empty() => return Poll::Ready(GONE.into()),
                Ok(()) if self.unheard > MOST_UNHEARD => {
                    return Poll::Ready("the client sends what nobody reads".into());
                }
                Ok(()) => {}
            }
        }
    }

    /// What has been read so far passes, up to there.
    fn passed_to(&mut self, end: Option<End>) {
        match end {
            None => {}
            Some(End::Whole) => self.is_over(COMPLETE.into()),
            Some(End::Between) => self.ends_here(),
            Some(End::Broken(reason)) => self.is_over(broken(reason)),
        }
    }

    fn has_to_end_for(&mut self, why: &'static str) {
        self.why.get_or_insert(why.into());
        self.by = Some(in_at_most(self.limits.drain));
        if self.upstream.is_some() && self.content.may_end() {
            self.ends_here();
        }
    }

    /// It ends where it may.
    fn ends_here(&mut self) {
        let mut pending = BytesMut::from(&self.relay.pending[..]);
        pending.extend_from_slice(self.content.end());
        self.relay.pending = pending.freeze();
        self.upstream = None;
    }

    /// Nothing more is wanted of the upstream.
    fn is_over(&mut self, why: Why) {
        self.why.get_or_insert(why);
        self.upstream = None;
    }

    /// When it has lasted as long as it may, as things are.
    fn due(&self) -> Option<Instant> {
        self.by.or_else(|| {
            let limit = self.idle_limit();
            let idle = limit.and_then(|limit| self.active.checked_add(limit));
            [self.limits.age, idle].into_iter().flatten().min()
        })
    }

    /// Whether it matters when something moves.
    fn may_be_idle(&self) -> bool {
        self.limits.client_idle.is_some() || self.limits.upstream_idle.is_some()
    }

    /// How long nothing may move, as things are.
    fn idle_limit(&self) -> Option<Duration> {
        match self.relay.is_empty() {
            true => self.limits.upstream_idle,
            false => self.limits.client_idle,
        }
    }

    /// It has lasted as long as it may; why, if that is the end.
    fn time_is_up(&mut self) -> Option<Why> {
        let now = Instant::now();
        if self.by.is_some() {
            return Some(STOPPED.into());
        }
        if self.limits.age.is_some_and(|age| age <= now) {
            self.has_to_end_for(AGED);
            return None;
        }
        let idle = now.saturating_duration_since(self.active);
        let is_idle = self.idle_limit().is_some_and(|limit| idle >= limit);
        is_idle.then(|| match self.relay.is_empty() {
            true => SILENT.into(),
            false => "the client takes nothing any more".into(),
        })
    }

    fn ended(&mut self, why: Why) -> Ended {
        Ended {
            to_client: self.content.seen(),
            why: self.why.take().unwrap_or(why),
        }
    }
}

fn broken(why: &str) -> Why {
    format!("the upstream has broken off: {why}").into()
}
