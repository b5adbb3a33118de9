//! Standard output, as far as more than one role has to do with it.

use std::future;
use std::io;
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use tokio::sync::oneshot;

/// Resolves when the other end of a pipe that standard output is has been closed, even if there is nothing to print.
pub async fn closed() {
    let (closed, is_closed) = oneshot::channel();
    // In a thread that nothing waits for: standard output may be a file, which the runtime cannot watch.
    thread::spawn(move || {
        let output = io::stdout();
        // Nothing is asked for: an error is told without asking.
        let mut watched = [PollFd::new(&output, PollFlags::empty())];
        if poll(&mut watched, None).is_ok() {
            let _ = closed.send(());
        }
    });
    if is_closed.await.is_err() {
        future::pending().await
    }
}
