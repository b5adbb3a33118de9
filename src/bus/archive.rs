//! What a bus has kept, for those who want more of the past than a log holds.

use std::sync::Arc;

use anyhow::Result;
use futures_util::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::event::Event;
use crate::stream::join::Past;

/// So many read the past of one stream at once.
const MAX_READERS: usize = 64;

/// What a durable bus has kept. Events are the same as those that its [`Reader`](super::Reader) brings.
pub(crate) trait Archive: Send + Sync {
    /// The place of the first event that is wanted; none if the bus cannot know it, or there is nothing.
    fn find<'a>(&'a self, past: &'a Past) -> BoxFuture<'a, Result<Option<u64>>>;

    /// Events from a place on, in the order of the bus: at most so many, and about so many bytes of payload, but one at least. None are the
    /// end, for now.
    fn page(
        &self,
        place: u64,
        most_events: usize,
        most_bytes: usize,
    ) -> BoxFuture<'_, Result<Page>>;
}

/// Some of what a bus has kept.
pub(crate) struct Page {
    /// In the order of the bus.
    pub events: Vec<Event>,
    /// The place behind them.
    pub next: u64,
}

/// An archive, and how many read in it.
pub struct Shelf {
    archive: Box<dyn Archive>,
    readers: Arc<Semaphore>,
}

impl Shelf {
    pub(crate) fn new(archive: Box<dyn Archive>) -> Self {
        Self {
            archive,
            readers: Arc::new(Semaphore::new(MAX_READERS)),
        }
    }

    /// One more reader, if there is room for it.
    pub(crate) fn enter(&self) -> Option<OwnedSemaphorePermit> {
        self.readers.clone().try_acquire_owned().ok()
    }

    /// As [`Archive::find`].
    pub(crate) async fn find(&self, past: &Past) -> Result<Option<u64>> {
        self.archive.find(past).await
    }

    /// As [`Archive::page`].
    pub(crate) async fn page(
        &self,
        place: u64,
        most_events: usize,
        most_bytes: usize,
    ) -> Result<Page> {
        self.archive.page(place, most_events, most_bytes).await
    }
}
