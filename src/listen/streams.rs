//! The requests of one HTTP/2 connection. Each may be a subscriber, or have a connection at an upstream, so each counts as a
//! connection of the client's.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::sleep;

use super::admission::{Admission, Admitted, NoRoom};

/// Counts them.
pub struct Streams {
    admission: Arc<Admission>,
    address: IpAddr,
    open: AtomicUsize,
    /// How many there have been.
    seen: AtomicUsize,
}

impl Streams {
    /// Of a connection that `address` has.
    pub fn new(admission: Arc<Admission>, address: IpAddr) -> Arc<Self> {
        Arc::new(Self {
            admission,
            address,
            open: AtomicUsize::new(0),
            seen: AtomicUsize::new(0),
        })
    }

    /// One more, if there is room for it. One at a time is what the connection itself counts as.
    pub fn enter(self: &Arc<Self>) -> Result<Entered, NoRoom> {
        self.seen.fetch_add(1, Ordering::Relaxed);
        let is_only = self.open.fetch_add(1, Ordering::Relaxed) == 0;
        let mut entered = Entered {
            of: self.clone(),
            admitted: None,
        };
        if !is_only {
            entered.admitted = Some(self.admission.enter_from(self.address)?);
        }
        Ok(entered)
    }

    /// Comes when there has been no request for about `period`, and at most twice as long.
    pub async fn unused(&self, period: Duration) {
        let mut before = None;
        loop {
            let now = self.seen_and_none_open();
            if now.is_some() && now == before {
                return;
            }
            before = now;
            sleep(period).await;
        }
    }

    /// How many there have been, if there is none now.
    fn seen_and_none_open(&self) -> Option<usize> {
        let is_idle = self.open.load(Ordering::Relaxed) == 0;
        is_idle.then(|| self.seen.load(Ordering::Relaxed))
    }
}

/// What a subscriber counts as.
pub enum Counted {
    /// A connection of its own.
    Connection(Admitted),
    /// A request on an HTTP/2 connection.
    Request(Box<Entered>),
}

/// A request that has been let in, until it is over.
pub struct Entered {
    of: Arc<Streams>,
    admitted: Option<Admitted>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.of.open.fetch_sub(1, Ordering::Relaxed);
        self.admitted.take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listen::admission::OfEach;

    #[test]
    fn the_first_is_the_connection_itself_and_others_need_room() {
        let admission = Admission::new(2, None);
        let _connection = admission.enter().expect("room");
        let streams = Streams::new(admission.clone(), [192, 0, 2, 1].into());
        let first = streams.enter();
        let second = streams.enter();
        assert!(first.is_ok() && second.is_ok());
        assert_eq!(streams.enter().err(), Some(NoRoom::InAll));
        drop(second);
        assert!(streams.enter().is_ok());
        assert_eq!(streams.seen_and_none_open(), None);
        drop(first);
        assert_eq!(streams.seen_and_none_open(), Some(4));
        assert!(admission.enter().is_some());
    }

    #[test]
    fn an_address_has_its_limit_here_too() {
        let admission = Admission::new(9, Some(OfEach::address(1)));
        let address = [192, 0, 2, 1].into();
        let _connection = admission.enter_from(address).map_err(|_| "no room");
        let streams = Streams::new(admission, address);
        let _first = streams.enter().map_err(|_| "it is the connection");
        assert_eq!(streams.enter().err(), Some(NoRoom::OfAddress));
    }

    /// Each subscriber has one.
    #[test]
    fn what_is_kept_for_each_subscriber_is_small() {
        assert_eq!(size_of::<Counted>(), 16);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_unused_when_no_request_comes() {
        let period = Duration::from_secs(30);
        let streams = Streams::new(Admission::new(9, None), [192, 0, 2, 1].into());
        let begin = tokio::time::Instant::now();
        let busy = async {
            sleep(period / 2).await;
            let entered = streams.enter();
            sleep(period * 3).await;
            drop(entered);
        };
        tokio::join!(busy, streams.unused(period));
        assert_eq!(begin.elapsed(), period * 5);
    }
}
