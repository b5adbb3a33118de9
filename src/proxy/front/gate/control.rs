//! What speaks to a gate while hyper has it.

use std::future::poll_fn;
use std::io;
use std::mem;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;

use super::Verdict;
use crate::listen::stream::Stream;

/// What speaks to a gate while hyper has it: the connection's task, and the requests that are served on it.
#[derive(Default)]
pub struct Control {
    /// Whether there is an interim response to write, so that this costs others nothing.
    has_interim: AtomicBool,
    shared: Mutex<Shared>,
}

#[derive(Default)]
struct Shared {
    verdict: Option<Verdict>,
    /// The request that asked to switch protocols was answered otherwise.
    stays_http: bool,
    /// hyper, which waits for what is behind that request.
    reader: Option<Waker>,
    /// What is not written yet of interim responses.
    interim: BytesMut,
    /// Whether some of it is.
    interim_begun: bool,
    /// Whoever waits until it is.
    waiter: Option<Waker>,
}

impl Control {
    /// What ended the reading, if the gate has ended it. To be asked when hyper's connection has ended, with an error or
    /// without: to hyper an idle connection whose reading fails has just ended.
    pub fn verdict(&self) -> Option<Verdict> {
        self.lock().verdict
    }

    /// The request that wanted to switch protocols was answered otherwise: what is behind it are requests again. Only for a
    /// request that is a WebSocket handshake, and before its answer is given to hyper.
    pub fn stays_http(&self) {
        let mut shared = self.lock();
        shared.stays_http = true;
        if let Some(reader) = shared.reader.take() {
            reader.wake();
        }
    }

    /// Writes an interim response (RFC 9110, section 15.2) before the final one; resolves when it has been given to the
    /// socket. Not for a client of HTTP/1.0, which does not know such. It must have resolved before the final response is
    /// given to hyper.
    pub async fn interim(&self, head: Bytes) {
        self.lock().interim.extend_from_slice(&head);
        self.has_interim.store(true, Ordering::Release);
        poll_fn(|cx| {
            let mut shared = self.lock();
            match shared.interim.is_empty() {
                true => Poll::Ready(()),
                false => {
                    shared.waiter = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await;
    }

    /// Whether this is the first time.
    pub(super) fn decide(&self, verdict: Verdict) -> bool {
        self.lock().verdict.replace(verdict).is_none()
    }

    /// A handshake has been let through, and has no answer yet.
    pub(super) fn ask(&self) {
        self.lock().stays_http = false;
    }

    pub(super) fn poll_stays_http(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut shared = self.lock();
        match mem::take(&mut shared.stays_http) {
            true => Poll::Ready(()),
            false => {
                shared.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Writes the rest of an interim response of which some is written.
    pub(super) fn poll_finish_interim(
        &self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
    ) -> Poll<io::Result<()>> {
        match self.has_interim.load(Ordering::Acquire) && self.lock().interim_begun {
            true => self.poll_interim(cx, stream),
            false => Poll::Ready(Ok(())),
        }
    }

    /// Writes an interim response if there is one.
    pub(super) fn poll_interim(
        &self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
    ) -> Poll<io::Result<()>> {
        if !self.has_interim.load(Ordering::Acquire) {
            return Poll::Ready(Ok(()));
        }
        let mut shared = self.lock();
        while !shared.interim.is_empty() {
            let written = ready!(Pin::new(&mut *stream).poll_write(cx, &shared.interim))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            shared.interim.advance(written);
            shared.interim_begun = true;
        }
        shared.interim = BytesMut::new();
        shared.interim_begun = false;
        self.has_interim.store(false, Ordering::Release);
        if let Some(waiter) = shared.waiter.take() {
            waiter.wake();
        }
        Poll::Ready(Ok(()))
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
