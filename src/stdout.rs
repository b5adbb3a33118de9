//! Standard output, as far as more than one role has to do with it.

use std::future;
use std::io::{self, ErrorKind, Write};
use std::thread;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, poll};
use tokio::sync::oneshot;

/// Prints what a command has to say. Whoever has closed the other end of a pipe does not want to know more; that a file cannot be written, as on
/// a full disk, is an error.
pub fn print(text: &[u8]) -> Result<()> {
    let mut output = io::stdout().lock();
    match output.write_all(text).and_then(|()| output.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}

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
