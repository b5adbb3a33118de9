//! How the upstreams of a stream are reached, by those who want to ask them something.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::upstream::Upstream;

/// The upstreams of a stream, by the numbers of their sources. Peers that are found by a name come and go.
#[derive(Default)]
pub struct Reached(Mutex<BTreeMap<usize, Arc<Upstream>>>);

impl Reached {
    /// This is the upstream of the source with this number now.
    pub fn set(&self, source: usize, upstream: Arc<Upstream>) {
        self.lock().insert(source, upstream);
    }

    /// The upstream of the source with this number.
    pub fn get(&self, source: usize) -> Option<Arc<Upstream>> {
        self.lock().get(&source).cloned()
    }

    /// There is none with this number any more.
    pub fn remove(&self, source: usize) {
        self.lock().remove(&source);
    }

    /// Nor with this one, or a higher one.
    pub fn remove_from(&self, first: usize) {
        self.lock().retain(|source, _| *source < first);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, Arc<Upstream>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FromIterator<(usize, Arc<Upstream>)> for Reached {
    fn from_iter<I: IntoIterator<Item = (usize, Arc<Upstream>)>>(upstreams: I) -> Self {
        Self(Mutex::new(upstreams.into_iter().collect()))
    }
}
