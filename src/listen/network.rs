//! Whom an address counts for.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU64;

/// Where IPv4 addresses have their place among the first halves of IPv6 addresses: in `00ff:ffff::/32`, which is a part of
/// the block that no network is ever given (RFC 4291, section 2.4, and the registry of IANA).
const IPV4: u64 = 0x00ff_ffff << 32;

/// An IPv4 address, or a /64 network of IPv6: whoever has one IPv6 address has 2^64 of them (RFC 6177), and they count as one.
/// It is as small as can be, as each connection keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network(NonZeroU64);

impl Network {
    /// What `address` belongs to. IPv4 within IPv6 (RFC 4291, section 2.5.5.2) is IPv4.
    pub fn of(address: IpAddr) -> Self {
        let number = match address.to_canonical() {
            IpAddr::V4(address) => IPV4 | u64::from(address.to_bits()),
            IpAddr::V6(address) => first_half(address),
        };
        // Only the loopback address and others that no client has begin with 64 zeros.
        Self(NonZeroU64::new(number).unwrap_or(NonZeroU64::MIN))
    }
}

fn first_half(address: Ipv6Addr) -> u64 {
    (address.to_bits() >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(address: &str) -> Network {
        Network::of(address.parse().expect("an address"))
    }

    #[test]
    fn ipv4_counts_for_itself_and_ipv6_by_its_network() {
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:0:0:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_ne!(of("::1"), of("127.0.0.1"));
        assert_ne!(of("::1"), of("0.0.0.0"));
    }
}
