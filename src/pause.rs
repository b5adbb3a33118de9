//! Holding tasks still for a moment: while a process hands its streams over, nobody is to bring events into them. What is held is just not
//! polled, so it goes on as if nothing had happened if it comes to nothing.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::task::{Context, Poll, Waker};

use pin_project_lite::pin_project;

/// Holds still whatever is [within](Self::within).
#[derive(Debug, Default)]
pub struct Pause {
    /// Whoever is polled holds this for reading.
    is_on: RwLock<bool>,
    /// Who wanted to get on meanwhile.
    waiting: Mutex<Vec<Waker>>,
}

pin_project! {
    /// Work that may have to pause.
    pub struct Pausable<F> {
        pause: Arc<Pause>,
        #[pin]
        work: F,
    }
}

impl Pause {
    /// `work`, which stands still while this is on.
    pub fn within<F: Future>(self: &Arc<Self>, work: F) -> Pausable<F> {
        Pausable {
            pause: self.clone(),
            work,
        }
    }

    /// From the moment in which this returns everything stands still. It waits for what is just being polled.
    pub fn begin(&self) {
        *self.is_on.write().unwrap_or_else(PoisonError::into_inner) = true;
    }

    /// Everything goes on.
    pub fn end(&self) {
        *self.is_on.write().unwrap_or_else(PoisonError::into_inner) = false;
        let waiting =
            std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl<F: Future> Future for Pausable<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let is_on = this
            .pause
            .is_on
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        if *is_on {
            // Under that lock: whoever ends the pause finds it.
            let mut waiting = this
                .pause
                .waiting
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            waiting.push(cx.waker().clone());
            return Poll::Pending;
        }
        this.work.poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_within_stands_still_until_the_end() {
        let pause = Arc::new(Pause::default());
        let (tell, told) = tokio::sync::oneshot::channel();
        pause.begin();
        let mut work = tokio::spawn(pause.within(told));
        tell.send(7).expect("it waits");
        tokio::task::yield_now().await;
        assert!(futures_util::poll!(&mut work).is_pending());
        pause.end();
        assert_eq!(work.await.expect("it ends"), Ok(7));
    }
}
