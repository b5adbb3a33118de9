//! Servers of the distribution, as child processes of a test.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::within_guard;

/// A server of the distribution.
pub fn installed(name: &str) -> PathBuf {
    // Debian has them where only root looks.
    let path = Path::new("/usr/sbin").join(name);
    if path.exists() { path } else { name.into() }
}

/// Starts such a server, and waits until a line on standard error says that it has begun.
pub async fn running(mut command: Command, begun: impl Fn(&str) -> bool) -> Child {
    let mut child = command
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("nginx and haproxy are installed (scripts/test does that)");
    let mut lines = BufReader::new(child.stderr.take().expect("it is a pipe")).lines();
    within_guard("a line that says that it has begun", async {
        let mut said = vec![];
        loop {
            let line = lines.next_line().await.expect("it is text");
            let line = line.unwrap_or_else(|| panic!("it has ended: {said:?}"));
            if begun(&line) {
                return;
            }
            said.push(line);
        }
    })
    .await;
    // What it says later must not fill the pipe.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    child
}
