//! How many connections clients may have: in all, and each of them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Lets connections in, and counts them.
pub struct Admission {
    most: usize,
    open: AtomicUsize,
    most_per_address: Option<usize>,
    addresses: Mutex<HashMap<IpAddr, usize>>,
}

impl Admission {
    /// At most so many in all, and so many of one address.
    pub fn new(most: usize, most_per_address: Option<usize>) -> Arc<Self> {
        Arc::new(Self {
            most,
            open: AtomicUsize::new(0),
            most_per_address,
            addresses: Mutex::default(),
        })
    }

    /// One more connection, if there is room.
    pub fn enter(self: &Arc<Self>) -> Option<Admitted> {
        let admitted = Admitted {
            to: self.clone(),
            address: None,
        };
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        // If not, dropping it takes it back.
        (before < self.most).then_some(admitted)
    }

    fn addresses(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that has been let in, until it is dropped.
pub struct Admitted {
    to: Arc<Admission>,
    /// Where it is counted as well.
    address: Option<IpAddr>,
}

impl Admitted {
    /// Counts the connection as one of `address`; false if that has enough.
    pub fn is_of(&mut self, address: IpAddr) -> bool {
        let Some(most) = self.to.most_per_address else {
            return true;
        };
        let address = counted_as(address);
        let mut addresses = self.to.addresses();
        let open = addresses.entry(address).or_default();
        if *open >= most {
            return false;
        }
        *open += 1;
        drop(addresses);
        self.address = Some(address);
        true
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.to.open.fetch_sub(1, Ordering::Relaxed);
        let Some(address) = self.address else {
            return;
        };
        let mut addresses = self.to.addresses();
        if let Some(open) = addresses.get_mut(&address) {
            *open -= 1;
            if *open == 0 {
                addresses.remove(&address);
            }
        }
    }
}

/// Whoever has an IPv6 address has 2^64 of them (RFC 6177): they count as one.
fn counted_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_leaves_makes_room() {
        let admission = Admission::new(2, Some(1));
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
        let admission = Admission::new(9, Some(1));
        let enter = |address: &str| {
            let mut admitted = admission.enter().expect("room");
            admitted
                .is_of(address.parse().expect("an address"))
                .then_some(admitted)
        };
        let first = enter("192.0.2.1").expect("the first");
        assert!(enter("192.0.2.1").is_none());
        assert!(enter("::ffff:192.0.2.1").is_none());
        let others = [enter("192.0.2.2"), enter("2001:db8::1")];
        assert!(others.iter().all(Option::is_some));
        assert!(enter("2001:db8::2").is_none());
        drop(first);
        assert!(enter("192.0.2.1").is_some());
        drop(others);
        assert!(admission.addresses().is_empty());
    }
}
