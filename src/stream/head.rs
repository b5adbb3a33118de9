//! The end of a log that grows: what wakes those who wait for more.
//!
//! As [`tokio::sync::watch`], of a number that nobody wants to know; that spreads its waiters over eight lists, and each change
//! looks into all of them. Here are few, and there may be as many logs as subscribers: this is an eighth of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// Counts the changes to a log.
#[derive(Debug, Default)]
pub struct Head {
    changes: AtomicU64,
    changed: Notify,
}

/// What somebody has not seen yet of the changes to a log.
#[derive(Debug, Clone)]
pub struct Changes {
    head: Arc<Head>,
    seen: u64,
}

impl Head {
    /// There is something new, and whoever looks from now on finds it.
    pub fn advance(&self) {
        self.changes.fetch_add(1, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// The changes from here on.
    pub fn changes(self: &Arc<Self>) -> Changes {
        let mut changes = Changes {
            head: self.clone(),
            seen: 0,
        };
        changes.mark_seen();
        changes
    }
}

impl Changes {
    fn count(&self) -> u64 {
        self.head.changes.load(Ordering::Acquire)
    }

    /// Whether there is something new.
    pub fn has_changed(&self) -> bool {
        self.count() != self.seen
    }

    /// All that is there is seen.
    pub fn mark_seen(&mut self) {
        self.seen = self.count();
    }

    /// Waits until there is something new, and sees it.
    pub async fn changed(&mut self) {
        loop {
            // Whoever makes a change from here on wakes this, though it does not wait yet.
            let changed = self.head.changed.notified();
            if self.has_changed() {
                break;
            }
            changed.await;
        }
        self.mark_seen();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_change_is_seen_once_by_each() {
        let head = Arc::<Head>::default();
        let (mut one, mut other) = (head.changes(), head.changes());
        assert!(one.changed().now_or_never().is_none());
        head.advance();
        assert!(head.changes().changed().now_or_never().is_none());
        assert!(one.has_changed());
        assert!(one.changed().now_or_never().is_some());
        assert!(one.changed().now_or_never().is_none());
        head.advance();
        head.advance();
        assert!(other.changed().now_or_never().is_some());
        assert!(other.changed().now_or_never().is_none());
        one.mark_seen();
        assert!(one.changed().now_or_never().is_none());
        let mut waiting = Box::pin(one.changed());
        assert!(waiting.as_mut().now_or_never().is_none());
        head.advance();
        assert!(waiting.now_or_never().is_some());
    }
}
