//! A subscriber's own task: reads what the client sends, tells the driver when a socket that was full has room again, and
//! writes when the connection ends.
//!
//! It sleeps until the socket is readable, or until [`Connection::task`] is woken. As it holds little more than two
//! pointers while it sleeps, ten thousand of them are cheap.

use std::future::Future;
use std::io;
use std::mem;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Sleep, sleep};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::connection::{Connection, Course, Mode, Progress};
use super::driver::Shard;
use super::publishing::Publishing;
use super::{EXPIRED, EXPIRED_REASON, Permit};
use crate::endpoint::websocket::input::{End, Input, Unheard};
use crate::stream::usage::User;

/// How long a client may take to get its Close frame and to answer it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// One read of what a client sends.
const READ: usize = 4 << 10;

/// A subscriber's task, as a future of its own rather than an `async fn`: so it is only as large as what it holds.
pub struct Subscriber {
    pub(super) connection: Arc<Connection>,
    pub(super) shard: Arc<Shard>,
    input: Input,
    /// What the client may publish, if it may.
    pub(super) publish: Result<Box<Publishing>, Unheard>,
    /// What the client sends is thrown away: it has sent what it must not, or its Close frame can no longer matter.
    deaf: bool,
    /// The client will send no more.
    pub(super) ended: bool,
    pub(super) closing: Closing,
    /// When what has opened the connection runs out, if it does.
    pub(super) expiry: Option<Pin<Box<Sleep>>>,
    /// Keeps the stream there.
    _user: User,
}

/// How far the end of the connection has come.
pub(super) enum Closing {
    NotYet,
    /// The Close frame waits to be written.
    Sending(Pin<Box<Sleep>>),
    /// It is out, and no more will be written. Reading goes on: closing a socket with unread input would reset the
    /// connection, and the client might lose what was sent to it last, the Close frame itself.
    Sent(Pin<Box<Sleep>>),
}

impl Closing {
    /// The Close frame is to be written.
    pub(super) fn begin(&mut self) {
        if matches!(self, Self::NotYet) {
            *self = Self::Sending(Box::pin(sleep(CLOSE_TIMEOUT)));
        }
    }

    /// The Close frame is out.
    pub(super) fn sent(&mut self) {
        *self = Self::Sent(match mem::replace(self, Self::NotYet) {
            Self::Sending(deadline) | Self::Sent(deadline) => deadline,
            // History had moved on when the task came to write, and the Close frame went out at once.
            Self::NotYet => Box::pin(sleep(CLOSE_TIMEOUT)),
        });
    }

    /// Ready when the client has had its time.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::NotYet => Poll::Pending,
            Self::Sending(deadline) | Self::Sent(deadline) => deadline.as_mut().poll(context),
        }
    }
}

/// Ready when there is nothing left to do for the connection.
impl Future for Subscriber {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        // Before looking at anything that whoever wakes this task may have changed.
        self.connection.task.register(context.waker());
        match self.connection.course() {
            Course::Own => {}
            Course::Held if !self.lets_go() => {}
            Course::Held => return Poll::Pending,
            Course::Given => return Poll::Ready(()),
        }
        self.poll_expiry(context);
        let read =
            self.poll_read(|connection, buffer| connection.socket().poll_read(context, buffer));
        // The end of a message may have come that this waited for.
        if self.connection.course() == Course::Held && read.is_continue() && self.lets_go() {
            return Poll::Pending;
        }
        if read.is_continue() && self.poll_write(context).is_continue() {
            return self.closing.poll(context);
        }
        Poll::Ready(())
    }
}

/// However the task ends, the driver lets go of the connection.
impl Drop for Subscriber {
    fn drop(&mut self) {
        self.shard.leave(self.connection.clone());
        let audience = self.shard.audience();
        audience.leave();
        self.connection.log_end(audience);
    }
}

impl Subscriber {
    /// The task for a connection that has joined `shard` and is counted in its audience. `early` is what the client has already sent.
    pub fn new(
        connection: Arc<Connection>,
        shard: Arc<Shard>,
        input: Input,
        Permit {
            publish,
            remaining,
            user,
        }: Permit,
        early: &[u8],
    ) -> Self {
        // Behind a request whose answer has no end, nothing can be asked.
        let deaf = shard.audience().format.is_body();
        let mut subscriber = Self {
            connection,
            shard,
            input,
            publish,
            deaf,
            ended: false,
            closing: Closing::NotYet,
            expiry: remaining.map(|remaining| Box::pin(sleep(remaining))),
            _user: user,
        };
        // Nothing has been sent yet that this could be the answer to, so it cannot be the end.
        let _ = subscriber.take(early);
        subscriber
    }

    /// Whether it is not about to end, as far as this task knows.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.closing, Closing::NotYet) && !self.ended && !self.deaf
    }

    /// Whether nothing of a message has come that is not whole yet.
    pub(super) fn is_between_messages(&self) -> bool {
        self.input.is_between_messages()
    }

    /// Ends the connection when what has opened it has run out.
    pub(super) fn poll_expiry(&mut self, context: &mut Context<'_>) {
        let has_run_out = self
            .expiry
            .as_mut()
            .is_some_and(|expiry| expiry.as_mut().poll(context).is_ready());
        if has_run_out {
            self.expiry = None;
            let format = self.shard.audience().format;
            let code = CloseCode::from(EXPIRED);
            self.connection.lock().end(format, code, EXPIRED_REASON);
        }
    }

    /// Acts on all that there is to `read`; breaks when nothing more is to be done for the connection.
    pub(super) fn poll_read(
        &mut self,
        mut read: impl FnMut(&Connection, &mut [u8]) -> Poll<io::Result<usize>>,
    ) -> ControlFlow<()> {
        if self.ended {
            return ControlFlow::Continue(());
        }
        let mut buffer = [0; READ];
        while let Poll::Ready(result) = read(&self.connection, &mut buffer) {
            match result {
                Ok(0) if matches!(self.closing, Closing::Sent(_)) => return ControlFlow::Break(()),
                Ok(0) if self.connection.lock().is_ending() => {
                    // It may well read on, until it has its Close frame.
                    self.ended = true;
                    return ControlFlow::Continue(());
                }
                Ok(0) | Err(_) => return ControlFlow::Break(()),
                Ok(len) => {
                    self.connection.set_heard(self.shard.tick());
                    self.take(&buffer[..len])?;
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// Acts on what the client has sent; breaks when it has answered our Close.
    fn take(&mut self, bytes: &[u8]) -> ControlFlow<()> {
        if bytes.is_empty() || self.deaf {
            return ControlFlow::Continue(());
        }
        let mut replies = Vec::new();
        let audience = self.shard.audience();
        let (rate, connection) = (audience.max_publish_rate, &self.connection);
        let mut too_fast = None;
        let mut result = match &mut self.publish {
            Ok(publishing) => {
                let append = |payload| {
                    let taken = rate.map_or(Ok(()), |rate| publishing.bucket().take(1, rate));
                    match taken {
                        Ok(()) if too_fast.is_none() => {
                            publishing.append(payload, connection, audience);
                        }
                        _ => too_fast = rate,
                    }
                };
                let taken = self.input.take(bytes, &mut replies, Ok(append));
                taken.and_then(|()| publishing.keep(self.input.unfinished()))
            }
            Err(unheard) => self
                .input
                .take(bytes, &mut replies, Err::<fn(_), _>(*unheard)),
        };
        if let Some(rate) = too_fast {
            result = Err(End::Violation {
                code: CloseCode::Policy,
                reason: rate.exceeded().into(),
            });
        }
        let mut writer = self.connection.lock();
        match result {
            Ok(()) if replies.is_empty() => {}
            Ok(()) => writer.set_control(&replies),
            Err(End::Closed { .. }) if matches!(self.closing, Closing::Sent(_)) => {
                return ControlFlow::Break(());
            }
            // It has crossed ours, which is still to go out.
            Err(End::Closed { .. }) if writer.is_ending() => {
                self.deaf = true;
                writer.end_has_answer();
            }
            Err(End::Closed { code }) => {
                // What comes behind a Close frame means nothing (RFC 6455, section 5.5.1).
                self.deaf = true;
                writer.end_by_client(code, replies);
            }
            Err(End::Violation { code, reason }) => {
                self.deaf = true;
                writer.end(self.shard.audience().format, code, reason);
            }
        }
        ControlFlow::Continue(())
    }

    /// Writes what is this task's to write; breaks when the connection is over.
    fn poll_write(&mut self, context: &mut Context<'_>) -> ControlFlow<()> {
        if matches!(self.closing, Closing::Sent(_)) {
            return ControlFlow::Continue(());
        }
        let connection = &self.connection;
        let mut writer = connection.lock();
        let mut chunk = None;
        while writer.mode == Mode::Parked || writer.has_control() {
            // Here and not before the loop: a write may find that history has moved on.
            if writer.is_ending() {
                self.closing.begin();
            }
            if writer.mode == Mode::Parked {
                match connection.socket().poll_write_ready(context) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => return ControlFlow::Break(()),
                    Poll::Pending => break,
                }
            }
            if writer.mode == Mode::Parked && !writer.is_ending() {
                // It has taken what it was sent, so it lives, though a ping may be stuck behind what is on its way. How much
                // more it gets, and when, is for the driver to say: that knows who else is waiting.
                connection.set_heard(self.shard.tick());
                writer.mode = Mode::Driven;
                drop(writer);
                self.shard.unpark(connection.clone());
                break;
            }
            let before = writer.given();
            let progress = connection.write(&mut writer, &mut chunk, self.shard.audience());
            self.shard.sent().add(writer.given().since(before));
            match progress {
                Progress::CaughtUp | Progress::Behind => break,
                Progress::Blocked => writer.mode = Mode::Parked,
                Progress::Closed if writer.is_ending_by_client() => return ControlFlow::Break(()),
                Progress::Closed => {
                    drop(writer);
                    return self.sent_close();
                }
                Progress::Broken => return ControlFlow::Break(()),
            }
        }
        ControlFlow::Continue(())
    }

    /// The Close frame is out: what is left is to wait until the client has closed too.
    fn sent_close(&mut self) -> ControlFlow<()> {
        if self.connection.socket().shut_down().is_err() {
            return ControlFlow::Break(());
        }
        if self.ended {
            return ControlFlow::Break(());
        }
        self.closing.sent();
        ControlFlow::Continue(())
    }
}
