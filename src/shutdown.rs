//! Stopping: from a signal to the end of the last task.

mod stop;

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::process::ExitCode;
use std::task::{Poll, Waker};

use anyhow::Result;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

pub use stop::Stop;

/// The signals that ask the process to stop.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Takes SIGINT and SIGTERM over from the system, which would end the process at once.
    pub fn take() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// The next one.
    pub async fn next(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
        }
    }
}

/// Runs `work` until it is done, asks it to stop with the first signal, and abandons it with the second. The exit status
/// is then the one that a shell reports for that signal. SIGTERM, by which others end a process, gives subscribers time; SIGINT, from whoever
/// sits before it, does not.
pub async fn until_signalled<T>(
    mut signals: Signals,
    stop: Stop,
    work: impl Future<Output = Result<T>>,
) -> Result<ExitCode> {
    let mut work = pin!(work);
    let first = tokio::select! {
        result = &mut work => return result.map(|_| ExitCode::SUCCESS),
        signal = signals.next() => signal,
    };
    info!(signal = name(first), "stopping");
    match first == SignalKind::terminate() {
        true => stop.drain(),
        false => stop.now(),
    }
    let second = tokio::select! {
        result = work => return result.map(|_| ExitCode::SUCCESS),
        signal = signals.next() => signal,
    };
    warn!(
        signal = name(second),
        "second signal: not waiting any longer"
    );
    Ok(ExitCode::from(128 + second.as_raw_value() as u8))
}

/// What comes of `work`; nothing if `stop` is cancelled before.
///
/// As [`CancellationToken::run_until_cancelled`], but as small as it can be, and in the way of `work` that is woken often: it
/// waits for `stop` in one place, and does not leave that and come back with each step.
pub async fn until_stopped<T>(
    stop: &CancellationToken,
    mut work: Pin<&mut impl Future<Output = T>>,
) -> Option<T> {
    let mut stopped = pin!(stop.cancelled());
    let mut told: Option<Waker> = None;
    poll_fn(|cx| {
        let is_told = told.as_ref().is_some_and(|told| told.will_wake(cx.waker()));
        if !is_told || stop.is_cancelled() {
            if stopped.as_mut().poll(cx).is_ready() {
                return Poll::Ready(None);
            }
            told = Some(cx.waker().clone());
        }
        work.as_mut().poll(cx).map(Some)
    })
    .await
}

fn name(signal: SignalKind) -> &'static str {
    if signal == SignalKind::interrupt() {
        "SIGINT"
    } else {
        "SIGTERM"
    }
}

/// Lets subscribers go one by one, if that is how it stops. Then everything ends.
pub async fn let_go(stop: &Stop) {
    let subscribers = stop.subscribers();
    if stop.is_drain() && subscribers > 0 {
        info!(subscribers, over = ?stop.spread(), "draining");
        stop.drained().await;
    }
    stop.now();
}

/// Waits until all tasks have ended, as long as a stop may take, and says how it went.
pub async fn drain(tasks: &TaskTracker, stop: &Stop) {
    tasks.close();
    match timeout(stop.left(), tasks.wait()).await {
        Ok(()) => info!("stopped"),
        Err(_) => warn!(
            open = tasks.len(),
            drain = ?stop.within(),
            "stopped before all connections had closed"
        ),
    }
}

/// Runs hyper's tasks where they are waited for.
#[derive(Clone)]
pub struct Tracked(pub TaskTracker);

impl<F> hyper::rt::Executor<F> for Tracked
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}
