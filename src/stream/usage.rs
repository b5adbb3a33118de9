//! Who uses a stream: one that comes and goes by demand stays for as long as somebody does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Counts the users of a stream: subscribers, and requests on their way.
#[derive(Debug, Default)]
pub struct Usage {
    users: AtomicUsize,
    /// Woken when the first one comes and when the last one leaves.
    changed: Notify,
}

/// One user, until it is dropped.
#[derive(Debug)]
pub struct User(Arc<Usage>);

impl Usage {
    /// One more.
    pub fn enter(self: &Arc<Self>) -> User {
        if self.users.fetch_add(1, Ordering::AcqRel) == 0 {
            self.changed.notify_waiters();
        }
        User(self.clone())
    }

    /// Whether there is nobody.
    pub fn is_unused(&self) -> bool {
        self.users.load(Ordering::Acquire) == 0
    }

    /// Waits until there is nobody, or is again somebody.
    pub async fn becomes(&self, unused: bool) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Register, then check, then sleep.
            changed.as_mut().enable();
            if self.is_unused() == unused {
                return;
            }
            changed.await;
        }
    }
}

impl Drop for User {
    fn drop(&mut self) {
        if self.0.users.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn the_last_one_to_leave_is_noticed() {
        let usage = Arc::new(Usage::default());
        assert!(usage.becomes(true).now_or_never().is_some());
        assert!(usage.becomes(false).now_or_never().is_none());
        let users = [usage.enter(), usage.enter()];
        assert!(usage.becomes(false).now_or_never().is_some());
        let mut unused = Box::pin(usage.becomes(true));
        let [first, second] = users;
        drop(first);
        assert!(unused.as_mut().now_or_never().is_none());
        drop(second);
        assert!(unused.now_or_never().is_some());
        assert!(usage.is_unused());
    }
}
