//! The generator: random events, for demonstrations and for load.

use std::fmt::Write;
use std::time::Duration;

use rand::RngExt;
use tokio::time::{Instant, sleep_until};

use crate::event::Payload;
use crate::stream::{Carrier, EventLog, Way};

/// What is appended at a stretch before other tasks get their turn, in bytes.
const STRETCH: usize = 64 << 10;
/// What an event counts there beside its length.
const EVENT_COST: usize = 1 << 10;

/// How many random letters an event ends with, when no size is asked for.
const LETTERS: usize = 10;

/// What to produce.
#[derive(Debug, Clone)]
pub struct Produce {
    /// The serving address that each event names.
    pub address: String,
    /// How fast.
    pub rate: Rate,
    /// The exact payload size in bytes, if one is wanted.
    pub size: Option<usize>,
}

/// How fast events are produced.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rate {
    /// So many a second; a positive number.
    PerSecond(f64),
    /// As fast as it goes.
    Max,
}

impl Produce {
    /// Produces events without end.
    pub async fn run(&self, log: &EventLog) {
        let start = Instant::now();
        let mut stretch = 0;
        // A log that comes from another process has had some.
        let before = log.own_events();
        for number in 1 + before.. {
            if let Rate::PerSecond(rate) = self.rate {
                // By the clock, not by pauses: what a late wake-up has missed is made up for.
                let produced = number - 1 - before;
                let due = Duration::try_from_secs_f64(produced as f64 / rate).ok();
                match due.and_then(|due| start.checked_add(due)) {
                    Some(due) if due > Instant::now() => {
                        sleep_until(due).await;
                        stretch = 0;
                    }
                    Some(_) => {}
                    None => std::future::pending().await,
                }
            }
            if stretch >= STRETCH {
                tokio::task::yield_now().await;
                stretch = 0;
            }
            let line = self.line(number);
            stretch += EVENT_COST + line.len();
            log.append_by(
                Way::default().by(Carrier::Produce),
                Payload::text(line),
                None,
            );
        }
    }

    /// `<counter> <serving address> <random letters>`, as long as asked for: with more letters, or cut short.
    fn line(&self, number: u64) -> String {
        let digits = number.ilog10() as usize + 1;
        let words = digits + self.address.len() + 2;
        let letters = self.size.map_or(LETTERS, |size| size.saturating_sub(words));
        // As long as it will be: history keeps it as it is.
        let mut line = String::with_capacity(words + letters);
        let _ = write!(line, "{number} {} ", self.address);
        let mut random = rand::rng();
        line.extend((0..letters).map(|_| char::from(random.random_range(b'a'..=b'z'))));
        if let Some(size) = self.size {
            line.truncate(line.floor_char_boundary(size));
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn produce(size: Option<usize>) -> Produce {
        Produce {
            address: "localhost:8080".to_owned(),
            rate: Rate::Max,
            size,
        }
    }

    #[test]
    fn a_line_has_counter_address_and_ten_letters() {
        let line = produce(None).line(17);
        let fields: Vec<_> = line.split(' ').collect();
        assert_eq!(fields[..2], ["17", "localhost:8080"]);
        assert_eq!(fields[2].len(), LETTERS);
        assert!(fields[2].bytes().all(|letter| letter.is_ascii_lowercase()));
    }

    #[test]
    fn a_size_is_kept_exactly() {
        for size in [0, 1, 5, 18, 19, 128, 100_000] {
            assert_eq!(produce(Some(size)).line(17).len(), size);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_is_kept_by_the_clock() {
        for (rate, seconds, expected) in [
            (10.0, 2.0, 20..=21),
            (0.5, 3.9, 2..=2),
            (5_000.0, 1.0, 4_990..=5_010),
        ] {
            let log = EventLog::new(1 << 20);
            let produce = Produce {
                rate: Rate::PerSecond(rate),
                ..produce(None)
            };
            let _ = tokio::time::timeout(Duration::from_secs_f64(seconds), produce.run(&log)).await;
            let produced = log.append(Payload::text("counts")).seq - 1;
            assert!(
                expected.contains(&produced),
                "{produced} at {rate} a second for {seconds} s"
            );
        }
    }
}
