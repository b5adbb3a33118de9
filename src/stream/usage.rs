//! Who uses a stream: one that comes and goes by demand stays for as long as somebody does.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

/// Counts the users of a stream: subscribers, and requests on their way.
#[derive(Debug)]
pub struct Usage {
    users: AtomicUsize,
    /// When the last one left that was the only one; before that, when it began.
    unused_since: Mutex<Instant>,
    /// Woken when the first one comes and when the last one leaves.
    changed: Notify,
}

/// One user, until it is dropped.
#[derive(Debug)]
pub struct User(Arc<Usage>, Option<Box<User>>);

impl User {
    /// The same, who uses something else for as long.
    pub fn and(mut self, other: Self) -> Self {
        self.1 = Some(Box::new(other));
        self
    }
}

impl Default for Usage {
    fn default() -> Self {
        Self {
            users: AtomicUsize::new(0),
            unused_since: Mutex::new(Instant::now()),
            changed: Notify::new(),
        }
    }
}

impl Usage {
    /// Since when there is nobody, if there is nobody. A use may be too short for anybody to notice it otherwise.
    pub fn unused_since(&self) -> Instant {
        *self.since()
    }

    fn since(&self) -> MutexGuard<'_, Instant> {
        self.unused_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// One more.
    pub fn enter(self: &Arc<Self>) -> User {
        if self.users.fetch_add(1, Ordering::AcqRel) == 0 {
            self.changed.notify_waiters();
        }
        User(self.clone(), None)
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
        // Before it is counted: whoever then finds nobody finds the right time, too.
        *self.0.since() = Instant::now();
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
