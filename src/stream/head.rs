//! The end of something that grows: what wakes those who wait for more.
//!
//! As [`tokio::sync::watch`], of a number that nobody wants to know; that spreads its waiters over eight lists, and each change
//! looks into all of them. Here are few, and there may be as many streams as subscribers: this is an eighth of it.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Counts changes.
#[derive(Debug, Default)]
pub struct Head {
    changes: AtomicU64,
    changed: Notify,
}

impl Head {
    /// There is something new, and whoever looks from now on finds it.
    pub fn advance(&self) {
        self.changes.fetch_add(1, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// How many changes there have been.
    pub fn count(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Ready with the next change from here on.
    pub fn next(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Waits until there have been others than `seen`, and says how many then.
    pub async fn beyond(&self, seen: u64) -> u64 {
        loop {
            // Whoever makes a change from here on wakes this, though it does not wait yet.
            let changed = self.next();
            let count = self.count();
            if count != seen {
                return count;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_change_wakes_who_waits_and_is_found_by_who_comes() {
        let head = Head::default();
        assert!(head.beyond(0).now_or_never().is_none());
        let mut waiting = Box::pin(head.beyond(0));
        assert!(waiting.as_mut().now_or_never().is_none());
        head.advance();
        assert_eq!(waiting.now_or_never(), Some(1));
        assert_eq!(head.beyond(0).now_or_never(), Some(1));
        assert!(head.beyond(1).now_or_never().is_none());
        head.advance();
        head.advance();
        assert_eq!(head.beyond(1).now_or_never(), Some(3));
    }
}
