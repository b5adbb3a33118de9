//! The task of a subscriber whose bytes do not go to a socket as they are: TLS is between, or HTTP/2. It does all of the
//! writing itself, from the same tape and by the same rules.

use std::future::Future;
use std::io;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::{Connection, Mode, Progress};
use super::subscriber::{Closing, Subscriber};

/// A subscriber and what is read from and written to for it. The driver wakes it when there is something to write.
pub struct Solo<S> {
    subscriber: Subscriber,
    stream: S,
    /// The stream takes all that it is given, and holds it for a client that does not read: so it is given only so much at a
    /// time, in bytes.
    most: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Solo<S> {
    /// `most`: how much `stream` is given at a time, in bytes.
    pub fn new(subscriber: Subscriber, stream: S, most: usize) -> Self {
        Self {
            subscriber,
            stream,
            most,
        }
    }

    /// Writes what there is to write; breaks when the connection is over.
    fn poll_write(&mut self, context: &mut Context<'_>) -> ControlFlow<()> {
        let Self {
            subscriber,
            stream,
            most,
        } = self;
        let Subscriber {
            connection,
            shard,
            closing,
            ended,
            ..
        } = subscriber;
        if matches!(closing, Closing::Sent(_)) {
            return ControlFlow::Continue(());
        }
        let mut writer = connection.lock();
        // Neither asleep nor blocked does it keep a part of the tape alive.
        let mut chunk = None;
        loop {
            let mut is_full = false;
            let try_write = |bytes: &[u8]| {
                let bytes = &bytes[..bytes.len().min(*most)];
                match Pin::new(&mut *stream).poll_write(context, bytes) {
                    Poll::Ready(Ok(0)) => Err(io::ErrorKind::WriteZero.into()),
                    Poll::Ready(result) => result,
                    Poll::Pending => {
                        is_full = true;
                        Ok(0)
                    }
                }
            };
            // Of one that was not blocked, what goes out may be no more than a ping.
            let (was_blocked, before) = (writer.mode == Mode::Parked, writer.given());
            let progress =
                connection.write_with(&mut writer, &mut chunk, shard.audience(), try_write);
            let sent = writer.given().since(before);
            shard.sent().add(sent);
            if was_blocked && sent.bytes > 0 {
                // It takes what it is sent, so it lives, though a ping may be stuck behind what is on its way.
                connection.set_heard(shard.tick());
            }
            // A write may find that history has moved on.
            if writer.is_ending() {
                closing.begin();
            }
            match progress {
                // It has taken a part, and may well take more.
                Progress::Blocked if !is_full => {}
                Progress::Blocked => {
                    if writer.mode == Mode::Own {
                        shard.note_full(connection);
                    }
                    writer.mode = Mode::Parked;
                    return ControlFlow::Continue(());
                }
                Progress::Behind => {
                    // Others run first.
                    context.waker().wake_by_ref();
                    return ControlFlow::Continue(());
                }
                Progress::CaughtUp => {
                    match Pin::new(&mut *stream).poll_flush(context) {
                        Poll::Pending => writer.mode = Mode::Parked,
                        Poll::Ready(Err(_)) => return ControlFlow::Break(()),
                        Poll::Ready(Ok(())) if writer.mode == Mode::Parked => {
                            // It has taken what it was sent, so it lives, though a ping may be stuck behind what is on its way.
                            connection.set_heard(shard.tick());
                            writer.mode = Mode::Own;
                        }
                        Poll::Ready(Ok(())) => {}
                    }
                    return ControlFlow::Continue(());
                }
                Progress::Closed => match Pin::new(&mut *stream).poll_shutdown(context) {
                    Poll::Pending => return ControlFlow::Continue(()),
                    Poll::Ready(Ok(())) if !writer.is_ending_by_client() && !*ended => {
                        closing.sent();
                        return ControlFlow::Continue(());
                    }
                    Poll::Ready(_) => return ControlFlow::Break(()),
                },
                Progress::Broken => return ControlFlow::Break(()),
            }
        }
    }
}

/// Ready when there is nothing left to do for the connection.
impl<S: AsyncRead + AsyncWrite + Unpin> Future for Solo<S> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        // Before looking at anything that whoever wakes this task may have changed.
        this.subscriber.connection.task.register(context.waker());
        this.subscriber.poll_expiry(context);
        let stream = &mut this.stream;
        let read = this.subscriber.poll_read(|_: &Connection, buffer| {
            let mut buffer = ReadBuf::new(buffer);
            ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer))?;
            Poll::Ready(Ok(buffer.filled().len()))
        });
        if read.is_continue() && this.poll_write(context).is_continue() {
            return this.subscriber.closing.poll(context);
        }
        Poll::Ready(())
    }
}
