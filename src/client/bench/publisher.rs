//! What publishes the events that are measured: one connection, on a thread of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::marker::{Mark, Run, now_ns};
use super::thread;
use crate::client::publish::{Sender, Transport};
use crate::event::Payload;
use crate::source::presence::Named;
use crate::source::produce::Rate;
use crate::source::upstream::Upstream;

/// So many events go out at once, at most.
const BATCH: u64 = 256;
/// How long a server may be away, which would spoil the figures.
const RETRY: Duration = Duration::from_secs(1);
/// How long what has been sent may take to be accepted when it is to end.
const LAST: Duration = Duration::from_secs(5);

/// What to publish, and where.
#[derive(Clone)]
pub struct Publishing {
    /// The stream.
    pub upstream: Upstream,
    /// How events get there.
    pub transport: Transport,
    /// The size of each, in bytes.
    pub size: usize,
}

/// Publishes as long as it is told to.
pub struct Publisher {
    what: Arc<Publishing>,
    run: Run,
    padding: Arc<[u8]>,
    /// The number of the last event that has been accepted; what has been sent has a larger one at times.
    published: Arc<AtomicU64>,
    handle: Handle,
}

/// Events on their way.
pub struct Running {
    stop: CancellationToken,
    task: JoinHandle<Result<()>>,
}

impl Publisher {
    /// Nothing is sent yet.
    pub fn start(what: Publishing, run: Run, published: Arc<AtomicU64>) -> Result<Self> {
        let handle = thread("publisher")?;
        let letters = (0..what.size).map(|_| rand::random_range(b'a'..=b'z'));
        Ok(Self {
            padding: letters.collect(),
            what: Arc::new(what),
            run,
            published,
            handle,
        })
    }

    /// The number of the last event that has been published.
    pub fn published(&self) -> u64 {
        self.published.load(Ordering::Acquire)
    }

    /// Connects, and publishes at this rate from then on.
    pub async fn begin(&self, rate: Rate) -> Result<Running> {
        let what = self.what.clone();
        let stop = CancellationToken::new();
        let connecting = async move {
            let sender = Sender::connect(what.transport, what.upstream.clone(), true, RETRY).await;
            sender.map_err(|error| publishing_error(&what, &error))
        };
        let sender = self.handle.spawn(connecting).await??;
        let sending = send(
            sender,
            rate,
            (self.what.clone(), self.run, self.padding.clone()),
            self.published.clone(),
            stop.clone(),
        );
        let what = self.what.clone();
        let task = self.handle.spawn(async move {
            let sent = sending.await;
            sent.map_err(|error| publishing_error(&what, &error))
        });
        Ok(Running { stop, task })
    }
}

fn publishing_error(what: &Publishing, error: &anyhow::Error) -> anyhow::Error {
    let reason = what.upstream.reason(error);
    anyhow::anyhow!("cannot publish to {}: {reason}", what.upstream)
}

impl Running {
    /// Whether it has ended before it was told to, which it does with an error only.
    pub fn is_over(&self) -> bool {
        self.task.is_finished()
    }

    /// Ends it, when what has been sent is accepted.
    pub async fn end(self) -> Result<()> {
        self.stop.cancel();
        match timeout(LAST, self.task).await {
            Ok(result) => result?,
            Err(_) => bail!("the server has not accepted the last events within {LAST:?}"),
        }
    }
}

/// How many are due now, at most a batch, when so many have been sent; the first was due at once.
fn due(rate: f64, elapsed: Duration, sent: u64) -> u64 {
    let due = (elapsed.as_secs_f64() * rate) as u64;
    due.saturating_add(1).saturating_sub(sent).clamp(1, BATCH)
}

/// Events go out when they are due: late ones at once, so that on the whole it is the rate that was asked for.
async fn send(
    mut sender: Sender,
    rate: Rate,
    (what, run, padding): (Arc<Publishing>, Run, Arc<[u8]>),
    published: Arc<AtomicU64>,
    stop: CancellationToken,
) -> Result<()> {
    let start = Instant::now();
    let mut sent = 0;
    // When the server had taken what was sent before.
    let mut free = start;
    while !stop.is_cancelled() {
        let due = match rate {
            Rate::Max => BATCH,
            Rate::PerSecond(rate) => {
                let next = Duration::try_from_secs_f64(sent as f64 / rate);
                let next = next.ok().and_then(|next| start.checked_add(next));
                let next = next.context("the rate is too low")?;
                let waiting = async {
                    // Whichever comes first.
                    stop.run_until_cancelled(sleep_until(next)).await;
                    Ok(())
                };
                sender.while_alive(waiting).await?;
                if stop.is_cancelled() {
                    break;
                }
                due(rate, start.elapsed(), sent)
            }
        };
        let first = published.load(Ordering::Acquire) + 1;
        let events: Vec<_> = (0..due)
            .map(|at| {
                let kept = match rate {
                    Rate::Max => Duration::ZERO,
                    Rate::PerSecond(rate) => {
                        let due = Duration::from_secs_f64((sent + at) as f64 / rate);
                        kept_waiting(start + due, free, Instant::now())
                    }
                };
                let kept = u64::try_from(kept.as_nanos()).unwrap_or(u64::MAX);
                let mark = Mark {
                    seq: first + at,
                    sent_ns: now_ns().saturating_sub(kept),
                };
                let payload = run.payload(mark, what.size, &padding);
                Payload::text(String::from_utf8(payload).expect("a marker and letters"))
            })
            .collect();
        sender.send(&events).await?;
        free = Instant::now();
        sent += due;
        published.fetch_add(due, Ordering::AcqRel);
    }
    sender.close().await;
    Ok(())
}

/// How long an event has been kept waiting that is sent `now` by what the server had not taken yet when it was due: nothing if that was taken
/// before, at `free`. (What is late because this thread was woken late is not the server's.) A server that stands still for a second shows that
/// in all events of the second, not only in the one that it was given last.
fn kept_waiting(due: Instant, free: Instant, now: Instant) -> Duration {
    match due < free {
        true => now.saturating_duration_since(due),
        false => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_late_is_due_and_no_more_than_a_batch_at_once() {
        let second = Duration::from_secs(1);
        assert_eq!(due(10.0, second, 0), 11);
        assert_eq!(due(10.0, second, 11), 1);
        for rate in [1e30, f64::MAX] {
            assert_eq!(due(rate, second, 5), BATCH);
        }
    }

    #[test]
    fn what_was_due_while_the_server_took_nothing_counts_from_then() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        // The server has taken the first event after a second; those that were due meanwhile are sent together.
        assert_eq!(
            kept_waiting(at(20), at(1_000), at(1_001)),
            at(1_001) - at(20)
        );
        assert_eq!(kept_waiting(at(980), at(1_000), at(1_001)), at(21) - at(0));
        // It was free: only this thread is late.
        assert_eq!(
            kept_waiting(at(1_000), at(1_000), at(1_001)),
            Duration::ZERO
        );
        assert_eq!(
            kept_waiting(at(1_020), at(1_000), at(1_021)),
            Duration::ZERO
        );
    }
}
