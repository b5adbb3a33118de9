//! The moment in which neither process goes on.

use std::sync::Arc;

use crate::pause::Pause;
use crate::route::Routes;
use crate::route::served::Served;

/// Nobody is let in, and once it has [frozen](Self::freeze) them, nothing moves in the streams that go. When it is dropped everything
/// goes on.
pub struct Standstill<'a> {
    routes: &'a Routes,
    doors: &'a Pause,
    frozen: Vec<Arc<Served>>,
}

impl<'a> Standstill<'a> {
    /// Of a process that has these, which lets nobody in from now on.
    pub fn begin(routes: &'a Routes, doors: &'a Pause) -> Self {
        doors.begin();
        Self {
            routes,
            doors,
            frozen: Vec::new(),
        }
    }

    /// From now on nothing moves in these.
    pub fn freeze(&mut self, streams: Vec<Arc<Served>>) {
        self.routes.pause().begin();
        streams.iter().for_each(|stream| stream.log.seal());
        self.frozen = streams;
    }

    /// Another process goes on: the logs take nothing more, and sources that move again find that they have to end. Nobody is let in
    /// as long as there is this.
    pub fn keep(&mut self) {
        self.frozen.clear();
        self.routes.pause().end();
    }
}

impl Drop for Standstill<'_> {
    fn drop(&mut self) {
        self.frozen.iter().for_each(|stream| stream.log.unseal());
        self.routes.pause().end();
        self.doors.end();
    }
}
