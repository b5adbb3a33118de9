//! The real binary under test, with the settings a user gets.

use std::ffi::OsStr;
use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::process::{Cpus, Process};

/// The binary that is built here.
pub const OURS: &str = env!("CARGO_BIN_EXE_wsevent");

/// How long it may take to listen.
const STARTING: Duration = Duration::from_secs(10);

/// Starts it with these arguments and on a port of its choice; returns when it listens there.
pub fn start(arguments: &[&str], cpus: &Cpus) -> Result<(Process, SocketAddr)> {
    start_at("127.0.0.1:0", arguments, cpus)
}

/// The same at an address that is given.
pub fn start_at(at: &str, arguments: &[&str], cpus: &Cpus) -> Result<(Process, SocketAddr)> {
    start_program(OURS.as_ref(), at, arguments, cpus)
}

/// The same of another binary than the one that is built here.
pub fn start_program(
    program: &OsStr,
    at: &str,
    arguments: &[&str],
    cpus: &Cpus,
) -> Result<(Process, SocketAddr)> {
    let mut command = command(program);
    command.args(arguments);
    command.args(["--serve-address", at]);
    // A file, as with `2> log`: a pipe would charge the server for waking us at every line.
    let log = tempfile::tempfile()?;
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log.try_clone()?);
    let mut process = Process::start(&mut command, cpus)?;
    let deadline = Instant::now() + STARTING;
    loop {
        let lines = read_all(&log)?;
        if let Some(address) = lines.lines().find_map(listening) {
            return Ok((process, address));
        }
        let ended = process.child().try_wait()?.is_some();
        ensure!(
            !ended && Instant::now() < deadline,
            "wsevent does not listen: {lines}"
        );
        thread::sleep(Duration::from_millis(5));
    }
}

/// Runs it with nothing but what it is given.
pub fn command(program: &OsStr) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("WSEVENT_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command
}

fn read_all(file: &File) -> Result<String> {
    // The child writes at the same position, so this must not move it.
    let mut bytes = vec![0; usize::try_from(file.metadata()?.len())?];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The address in a "listening" line of the log.
fn listening(line: &str) -> Option<SocketAddr> {
    let (_, fields) = line.split_once(" listening address=")?;
    fields.split(' ').next()?.parse().ok()
}
