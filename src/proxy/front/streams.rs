//! The requests of one HTTP/2 connection. Each may have a connection at an upstream, so each counts as a connection of the
//! client's.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyper::StatusCode;

use crate::proxy::admission::{Admission, Admitted};
use crate::proxy::headers::Refusal;

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
    pub fn enter(self: &Arc<Self>) -> Result<Entered, Refusal> {
        self.seen.fetch_add(1, Ordering::Relaxed);
        let is_only = self.open.fetch_add(1, Ordering::Relaxed) == 0;
        let mut entered = Entered {
            of: self.clone(),
            admitted: None,
        };
        if is_only {
            return Ok(entered);
        }
        let mut admitted = self.admission.enter().ok_or(Refusal {
            status: StatusCode::SERVICE_UNAVAILABLE,
            reason: "there are too many connections at the moment",
        })?;
        if !admitted.is_of(self.address) {
            return Err(Refusal {
                status: StatusCode::TOO_MANY_REQUESTS,
                reason: "there are too many connections from this address",
            });
        }
        entered.admitted = Some(admitted);
        Ok(entered)
    }

    /// How many there have been, if there is none now.
    pub fn seen_and_none_open(&self) -> Option<usize> {
        let is_idle = self.open.load(Ordering::Relaxed) == 0;
        is_idle.then(|| self.seen.load(Ordering::Relaxed))
    }
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

    #[test]
    fn the_first_is_the_connection_itself_and_others_need_room() {
        let admission = Admission::new(2, None);
        let _connection = admission.enter().expect("room");
        let streams = Streams::new(admission.clone(), [192, 0, 2, 1].into());
        let first = streams.enter().map_err(|refusal| refusal.status);
        let second = streams.enter().map_err(|refusal| refusal.status);
        assert!(first.is_ok() && second.is_ok());
        let third = streams
            .enter()
            .map(|_| ())
            .map_err(|refusal| refusal.status);
        assert_eq!(third, Err(StatusCode::SERVICE_UNAVAILABLE));
        drop(second);
        assert!(streams.enter().is_ok());
        assert_eq!(streams.seen_and_none_open(), None);
        drop(first);
        assert_eq!(streams.seen_and_none_open(), Some(4));
        assert!(admission.enter().is_some());
    }

    #[test]
    fn an_address_has_its_limit_here_too() {
        let admission = Admission::new(9, Some(1));
        let address = [192, 0, 2, 1].into();
        let mut connection = admission.enter().expect("room");
        assert!(connection.is_of(address));
        let streams = Streams::new(admission, address);
        let _first = streams.enter().expect("it is the connection");
        let second = streams
            .enter()
            .map(|_| ())
            .map_err(|refusal| refusal.status);
        assert_eq!(second, Err(StatusCode::TOO_MANY_REQUESTS));
    }
}
