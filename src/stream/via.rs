//! The hops that a stream comes through.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::wire::hop::Instance;

/// What this instance knows of the way to where events come from: itself, and what its upstreams say of theirs.
#[derive(Debug)]
pub struct Via {
    own: Instance,
    /// By the number of the source.
    upstreams: Mutex<BTreeMap<usize, Upstream>>,
}

/// What is known of one upstream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Upstream {
    /// As it may be shown to anyone.
    pub url: Box<str>,
    /// Whether there is a connection to it now.
    pub connected: bool,
    /// The hops that it leads through, the nearest first, as it told when it was last there.
    path: Vec<Instance>,
}

/// More than this many hops are not told of: it would be a circle.
const LONGEST: usize = 64;

impl Via {
    /// Nothing but this instance.
    pub fn new(own: Instance) -> Self {
        Self {
            own,
            upstreams: Mutex::default(),
        }
    }

    /// This instance.
    pub fn own(&self) -> &Instance {
        &self.own
    }

    /// The source with this number leads through `path`, the nearest first. Whether that is new.
    pub fn set(&self, source: usize, path: Vec<Instance>) -> bool {
        let mut upstreams = self.lock();
        let known = &mut upstreams.entry(source).or_default().path;
        let is_new = *known != path;
        *known = path;
        is_new
    }

    /// The upstream of the source with this number is there, or is not.
    pub fn set_connected(&self, source: usize, url: &str, connected: bool) {
        let mut upstreams = self.lock();
        let upstream = upstreams.entry(source).or_default();
        upstream.url = url.into();
        upstream.connected = connected;
    }

    /// All upstreams, in the order of their sources.
    pub fn upstreams(&self) -> Vec<Upstream> {
        self.lock().values().cloned().collect()
    }

    /// All hops, this one first, each once.
    pub fn path(&self) -> Vec<Instance> {
        let mut path = vec![self.own.clone()];
        for hop in self.lock().values().flat_map(|upstream| &upstream.path) {
            if path.len() < LONGEST && path.iter().all(|known| known.id != hop.id) {
                path.push(hop.clone());
            }
        }
        path
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, Upstream>> {
        self.upstreams
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Origin;

    fn hop(id: u64) -> Instance {
        Instance {
            id: Origin(id),
            address: format!("host:{id}").into(),
        }
    }

    #[test]
    fn each_hop_is_there_once() {
        let via = Via::new(hop(1));
        via.set(0, vec![hop(2), hop(3)]);
        via.set(1, vec![hop(4), hop(3), hop(1)]);
        assert_eq!(via.path(), [1, 2, 3, 4].map(hop));
        assert!(via.set(0, vec![hop(5)]));
        assert!(!via.set(0, vec![hop(5)]));
        assert_eq!(via.path(), [1, 5, 4, 3].map(hop));
    }

    #[test]
    fn an_upstream_that_is_away_keeps_its_path() {
        let via = Via::new(hop(1));
        let states = || -> Vec<_> {
            let upstreams = via.upstreams().into_iter();
            upstreams.map(|up| (up.url, up.connected)).collect()
        };
        assert_eq!(states(), []);
        via.set_connected(1, "ws://b/", false);
        via.set_connected(0, "ws://a/", true);
        via.set(0, vec![hop(2)]);
        assert_eq!(
            states(),
            [("ws://a/".into(), true), ("ws://b/".into(), false)]
        );
        via.set_connected(0, "ws://a/", false);
        via.set_connected(1, "ws://b/", true);
        assert_eq!(
            states(),
            [("ws://a/".into(), false), ("ws://b/".into(), true)]
        );
        assert_eq!(via.path(), [1, 2].map(hop));
    }
}
