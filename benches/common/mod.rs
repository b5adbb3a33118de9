//! What every bench here needs: the machine made ready, server processes, latencies, tables.

pub mod histogram;
pub mod process;
pub mod table;
pub mod wsevent;

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use tokio::signal::unix::{SignalKind, signal};

use process::{Cpus, adopt_workers, busy, kill_all};

/// Makes this process the load generator, on its CPU and with all the files it may open, and says what will spoil the
/// figures. From now on the run ends after `time_limit`, on Ctrl-C and on SIGTERM, with no server left behind.
pub fn prepare(time_limit: Duration) -> Result<Cpus> {
    thread::spawn(move || {
        thread::sleep(time_limit);
        give_up(&format!("after {} minutes", time_limit.as_secs() / 60));
    });
    stop_on_signals()?;
    adopt_workers()?;
    let files = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: files.maximum,
            maximum: files.maximum,
        },
    )?;
    let cpus = Cpus::choose()?;
    if !cpus.pinned {
        eprintln!(
            "one CPU only: servers and load generator share it, the figures are worth little"
        );
    }
    cpus.join_load()?;
    let busy = busy(Duration::from_millis(500))?;
    if busy > 0.05 {
        eprintln!(
            "the machine is {:.0} % busy with something else: the figures will be off",
            busy * 100.0
        );
    }
    Ok(cpus)
}

/// `CLOCK_MONOTONIC` in nanoseconds: the one clock all processes of a run share.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

fn stop_on_signals() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let entered = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    drop(entered);
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        give_up("as told by a signal");
    });
    Ok(())
}

fn give_up(why: &str) -> ! {
    eprintln!("giving up {why}");
    kill_all();
    std::process::exit(1);
}
