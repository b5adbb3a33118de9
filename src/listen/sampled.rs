//! Log lines about clients that go beyond a limit: however many these are, the log does not grow fast.

use std::borrow::Cow;
use std::mem;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::info;

/// At most one line in this time.
const INTERVAL: Duration = Duration::from_secs(1);

/// One client that has been refused something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Whose connection it is.
    pub address: SocketAddr,
    /// The status it was answered with, if it was told.
    pub status: Option<u16>,
    /// Why, in one line.
    pub reason: Cow<'static, str>,
}

/// The lines about one limit. The first refusal is a line at once; of those that come within the next second the last one is,
/// with the count of the others, when the second is over.
#[derive(Debug)]
pub struct Sampled {
    message: &'static str,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// No line is written before.
    quiet_until: Option<Instant>,
    /// The last that has had no line, and how many there were before it.
    waiting: Option<(Refused, u64)>,
}

/// What is to be done about a refusal.
#[derive(Debug, PartialEq, Eq)]
enum Note {
    /// It is a line now.
    Now(Refused),
    /// It is the first that waits; look at this time.
    Later(Instant),
    /// It is counted.
    Counted,
}

impl Sampled {
    /// Lines with this message.
    pub fn new(message: &'static str) -> Arc<Self> {
        Arc::new(Self {
            message,
            state: Mutex::default(),
        })
    }

    /// One more.
    pub fn note(
        self: &Arc<Self>,
        address: SocketAddr,
        status: impl Into<Option<u16>>,
        reason: impl Into<Cow<'static, str>>,
    ) {
        let refused = Refused {
            address,
            status: status.into(),
            reason: reason.into(),
        };
        match self.take(refused) {
            Note::Now(refused) => self.write(&refused, 0),
            Note::Counted => {}
            Note::Later(then) => {
                let sampled = self.clone();
                tokio::spawn(async move {
                    sleep_until(then).await;
                    if let Some((refused, others)) = sampled.due() {
                        sampled.write(&refused, others);
                    }
                });
            }
        }
    }

    fn take(&self, refused: Refused) -> Note {
        let now = Instant::now();
        let mut state = self.lock();
        match (state.quiet_until, &mut state.waiting) {
            (Some(_), Some((last, others))) => {
                *last = refused;
                *others += 1;
                Note::Counted
            }
            (Some(then), waiting) if now < then => {
                *waiting = Some((refused, 0));
                Note::Later(then)
            }
            _ => {
                state.quiet_until = Some(now + INTERVAL);
                Note::Now(refused)
            }
        }
    }

    /// What has been waiting for its line, and begins the next second.
    fn due(&self) -> Option<(Refused, u64)> {
        let mut state = self.lock();
        state.quiet_until = Some(Instant::now() + INTERVAL);
        mem::take(&mut state.waiting)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `others` is how many more there have been.
    fn write(&self, refused: &Refused, others: u64) {
        let Refused {
            address,
            status,
            reason,
        } = refused;
        let others = (others > 0).then_some(others);
        info!(%address, status, reason = &**reason, others, "{}", self.message);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn refused(port: u16) -> Refused {
        Refused {
            address: ([192, 0, 2, 1], port).into(),
            status: Some(429),
            reason: "too many".into(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_a_line_a_second_and_all_are_counted() {
        let sampled = Sampled::new("refused");
        let start = Instant::now();
        assert_eq!(sampled.take(refused(1)), Note::Now(refused(1)));
        advance(INTERVAL / 2).await;
        assert_eq!(sampled.take(refused(2)), Note::Later(start + INTERVAL));
        for port in 3..=100 {
            assert_eq!(sampled.take(refused(port)), Note::Counted);
        }
        advance(INTERVAL / 2).await;
        // The line is due, and whoever is to write it has not yet come to it.
        assert_eq!(sampled.take(refused(101)), Note::Counted);
        assert_eq!(sampled.due(), Some((refused(101), 99)));
        assert_eq!(
            sampled.take(refused(102)),
            Note::Later(start + INTERVAL * 2)
        );
        advance(INTERVAL).await;
        assert_eq!(sampled.due(), Some((refused(102), 0)));
        advance(INTERVAL).await;
        assert_eq!(sampled.take(refused(103)), Note::Now(refused(103)));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let sampled = Sampled::new("refused");
        for port in 1..=10 {
            let Refused {
                address,
                status,
                reason,
            } = refused(port);
            sampled.note(address, status, reason);
        }
        assert!(sampled.lock().waiting.is_some());
        tokio::time::sleep(INTERVAL * 2).await;
        assert_eq!(sampled.lock().waiting, None);
    }
}
