//! How many connections clients may have: in all, and each of them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyper::StatusCode;
use rustix::process::{Resource, getrlimit};

use super::network::Network;

/// Files that are not connections of clients: listeners, logs, connections to upstreams, and those of clients that are being
/// told that there is no room.
pub const OTHER_FILES: usize = 400;

/// A limit of each address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OfEach<T> {
    /// The limit.
    pub limit: T,
    /// Whether it holds for this machine's own addresses as well. Behind them is a proxy, that is everybody, or whoever owns
    /// the machine.
    pub on_loopback: bool,
}

impl<T> OfEach<T> {
    /// One that holds for all.
    pub fn address(limit: T) -> Self {
        Self {
            limit,
            on_loopback: true,
        }
    }

    /// The limit of this address, if it has one.
    pub fn of(&self, address: IpAddr) -> Option<&T> {
        (self.on_loopback || !address.to_canonical().is_loopback()).then_some(&self.limit)
    }
}

/// Why there is no room for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRoom {
    /// There are as many as there may be.
    InAll,
    /// Its address has as many as it may have.
    OfAddress,
    /// Its address has made many of late.
    Haste,
}

impl NoRoom {
    /// What to answer.
    pub fn status(self) -> StatusCode {
        match self {
            Self::InAll => StatusCode::SERVICE_UNAVAILABLE,
            Self::OfAddress | Self::Haste => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    /// The reason, in one line.
    pub fn reason(self) -> &'static str {
        match self {
            Self::InAll => "there are too many connections at the moment",
            Self::OfAddress => "there are too many connections from this address",
            Self::Haste => "too many connections a second come from this address",
        }
    }

    /// When to try again, in seconds (RFC 9110, section 10.2.3).
    pub fn retry_after(self) -> u64 {
        match self {
            Self::InAll | Self::OfAddress => 5,
            Self::Haste => 1,
        }
    }
}

/// Lets connections in, and counts them.
pub struct Admission {
    most: usize,
    open: AtomicUsize,
    most_of_each: Option<OfEach<usize>>,
    addresses: Mutex<HashMap<Network, usize>>,
}

impl Admission {
    /// At most so many in all, and so many of one address.
    pub fn new(most: usize, most_of_each: Option<OfEach<usize>>) -> Arc<Self> {
        Arc::new(Self {
            most,
            open: AtomicUsize::new(0),
            most_of_each,
            addresses: Mutex::default(),
        })
    }

    /// How many there are, and how many there may be.
    pub fn open_of_most(&self) -> (usize, usize) {
        (self.open.load(Ordering::Relaxed), self.most)
    }

    /// One more connection, if there is room.
    pub fn enter(self: &Arc<Self>) -> Option<Admitted> {
        let admitted = Admitted {
            to: self.clone(),
            network: None,
        };
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        // If not, dropping it takes it back.
        (before < self.most).then_some(admitted)
    }

    /// One more connection of `address`, if there is room.
    pub fn enter_from(self: &Arc<Self>, address: IpAddr) -> Result<Admitted, NoRoom> {
        let mut admitted = self.enter().ok_or(NoRoom::InAll)?;
        match admitted.is_of(address) {
            true => Ok(admitted),
            false => Err(NoRoom::OfAddress),
        }
    }

    /// One more connection of `address` that another process has let in: whether there is room is not asked again.
    pub fn keep(self: &Arc<Self>, address: IpAddr) -> Admitted {
        self.open.fetch_add(1, Ordering::Relaxed);
        let limit = self.most_of_each.as_ref();
        let network = limit
            .and_then(|limit| limit.of(address))
            .map(|_| Network::of(address));
        if let Some(network) = network {
            *self.addresses().entry(network).or_default() += 1;
        }
        Admitted {
            to: self.clone(),
            network,
        }
    }

    fn addresses(&self) -> MutexGuard<'_, HashMap<Network, usize>> {
        self.addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that has been let in, until it is dropped.
pub struct Admitted {
    to: Arc<Admission>,
    /// Where it is counted as well.
    network: Option<Network>,
}

impl Admitted {
    /// Counts the connection as one of `address`; false if that has enough.
    pub fn is_of(&mut self, address: IpAddr) -> bool {
        let limit = self.to.most_of_each.as_ref();
        let Some(&most) = limit.and_then(|limit| limit.of(address)) else {
            return true;
        };
        let network = Network::of(address);
        let mut addresses = self.to.addresses();
        let open = addresses.entry(network).or_default();
        if *open >= most {
            return false;
        }
        *open += 1;
        drop(addresses);
        self.network = Some(network);
        true
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.to.open.fetch_sub(1, Ordering::Relaxed);
        let Some(network) = self.network else {
            return;
        };
        let mut addresses = self.to.addresses();
        if let Some(open) = addresses.get_mut(&network) {
            *open -= 1;
            if *open == 0 {
                addresses.remove(&network);
            }
        }
    }
}

/// How many connections the limit of open files allows where each takes so many files.
pub fn most_connections(files_each: usize) -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let files = usize::try_from(files).unwrap_or(usize::MAX);
    let reserve = OTHER_FILES.min(files / 2);
    ((files - reserve) / files_each).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_leaves_makes_room() {
        let admission = Admission::new(2, Some(OfEach::address(1)));
        let first = admission.enter().expect("room");
        let second = admission.enter().expect("room");
        assert!(admission.enter().is_none());
        drop(first);
        let third = admission.enter().expect("room again");
        drop((second, third));
        assert_eq!(admission.open.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn an_address_counts_for_itself_and_ipv6_by_its_network() {
        let admission = Admission::new(9, Some(OfEach::address(1)));
        let enter = |address: &str| admission.enter_from(address.parse().expect("an address"));
        let first = enter("192.0.2.1").expect("the first");
        assert_eq!(enter("192.0.2.1").err(), Some(NoRoom::OfAddress));
        assert_eq!(enter("::ffff:192.0.2.1").err(), Some(NoRoom::OfAddress));
        let others = [enter("192.0.2.2"), enter("2001:db8::1")];
        assert!(others.iter().all(Result::is_ok));
        assert!(enter("2001:db8::2").is_err());
        drop(first);
        assert!(enter("192.0.2.1").is_ok());
        drop(others);
        assert!(admission.addresses().is_empty());
    }

    #[test]
    fn this_machine_may_be_spared() {
        let enter = |on_loopback, address: &str| {
            let limit = OfEach {
                limit: 1,
                on_loopback,
            };
            let admission = Admission::new(2, Some(limit));
            let address = address.parse().expect("an address");
            [admission.enter_from(address), admission.enter_from(address)].map(|it| it.is_ok())
        };
        for address in ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(enter(false, address), [true, true], "{address}");
            assert_eq!(enter(true, address), [true, false], "{address}");
        }
        assert_eq!(enter(false, "192.0.2.1"), [true, false]);
    }
}
