//! How far a connection is read ahead of whoever takes what comes over it. The library reads as fast as it can, and queues without
//! bound; what is not read waits at the server, which has a limit of its own and cuts off who stays behind
//! (`client-output-buffer-limit` of redis.conf).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// So many bytes are read while nobody takes any.
const FAR: usize = 4 << 20;

/// How many bytes may still be read.
#[derive(Debug, Default)]
pub struct Allowance {
    left: AtomicUsize,
    reader: AtomicWaker,
}

impl Allowance {
    /// All that has come is taken, and whoever takes it waits for more, however long that is.
    pub fn lift(&self) {
        self.set(usize::MAX);
    }

    /// Whoever takes what comes has something else to do for a while.
    pub fn limit(&self) {
        self.set(FAR);
    }

    fn set(&self, left: usize) {
        self.left.store(left, Ordering::Release);
        self.reader.wake();
    }

    /// So many bytes have been read.
    fn spend(&self, bytes: usize) {
        // If it is set meanwhile, that must not be undone: nobody would set it again.
        let spent = |left: usize| Some(left.saturating_sub(bytes));
        let _ = self
            .left
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, spent);
    }

    fn poll_any(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.left.load(Ordering::Acquire) > 0 {
            return Poll::Ready(());
        }
        self.reader.register(context.waker());
        match self.left.load(Ordering::Acquire) {
            0 => Poll::Pending,
            _ => Poll::Ready(()),
        }
    }
}

/// A connection that is read only as far as is allowed.
pub struct Bounded<S> {
    stream: S,
    allowance: Arc<Allowance>,
}

impl<S> Bounded<S> {
    /// `stream`, as far as `allowance` goes.
    pub fn new(stream: S, allowance: Arc<Allowance>) -> Self {
        Self { stream, allowance }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.allowance.poll_any(context));
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        self.allowance.spend(buffer.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn what_nobody_takes_is_not_read_on_and_on() {
        let allowance = Arc::<Allowance>::default();
        let mut stream = Bounded::new(tokio::io::repeat(1), allowance.clone());
        let mut buffer = vec![0; FAR / 2];
        let read = stream.read(&mut buffer).now_or_never();
        assert!(read.is_none(), "nothing is allowed yet");
        allowance.limit();
        stream
            .read_exact(&mut buffer)
            .await
            .expect("the first half");
        stream.read_exact(&mut buffer).await.expect("the other");
        assert!(stream.read(&mut buffer).now_or_never().is_none());
        allowance.lift();
        for _ in 0..4 {
            stream.read_exact(&mut buffer).await.expect("all there is");
        }
    }

    #[tokio::test]
    async fn who_waits_is_woken() {
        let allowance = Arc::<Allowance>::default();
        let mut stream = Bounded::new(tokio::io::repeat(1), allowance.clone());
        let reading = tokio::spawn(async move { stream.read_u8().await });
        tokio::task::yield_now().await;
        allowance.lift();
        assert_eq!(reading.await.expect("no panic").expect("a byte"), 1);
    }
}
