//! The events to publish, as they come.

use std::io::{self, BufRead, Read};
use std::thread;

use anyhow::{Context, Result};
use tokio::sync::mpsc;

use super::Data;

/// A request has at most so many events, and about so many bytes: no more than is on its way at once.
const MAX_EVENTS: usize = 1_000;
const BATCH_BYTES: usize = 256 << 10;
/// So many events are read ahead.
const AHEAD: usize = 2_000;

/// What a thread of its own reads: standard input may be a file, which the runtime cannot watch.
pub(super) struct Input {
    events: mpsc::Receiver<io::Result<Vec<u8>>>,
}

impl Input {
    pub fn open(data: Data) -> Self {
        let (sender, events) = mpsc::channel(AHEAD);
        thread::spawn(move || {
            if let Err(error) = read(data, &sender) {
                let _ = sender.blocking_send(Err(error));
            }
        });
        Self { events }
    }

    /// What is there, as soon as there is something; nothing at the end. At most `count` events.
    pub async fn next(&mut self, count: usize) -> Result<Vec<Vec<u8>>> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        let mut next = self.events.recv().await;
        while let Some(event) = next {
            let event = event.context("cannot read standard input")?;
            bytes += event.len();
            batch.push(event);
            if batch.len() >= count.min(MAX_EVENTS) || bytes >= BATCH_BYTES {
                break;
            }
            next = self.events.try_recv().ok();
        }
        Ok(batch)
    }
}

/// Sends on what is read, until nobody takes it.
fn read(data: Data, events: &mpsc::Sender<io::Result<Vec<u8>>>) -> io::Result<()> {
    let mut input = io::stdin().lock();
    let mut event = Vec::new();
    match data {
        Data::Given(data) => {
            let _ = events.blocking_send(Ok(data.into_bytes()));
        }
        Data::Whole => {
            input.read_to_end(&mut event)?;
            let _ = events.blocking_send(Ok(event));
        }
        Data::Lines => {
            while input.read_until(b'\n', &mut event)? > 0 {
                if event.pop_if(|last| *last == b'\n').is_some() {
                    event.pop_if(|last| *last == b'\r');
                }
                if events
                    .blocking_send(Ok(std::mem::take(&mut event)))
                    .is_err()
                {
                    break;
                }
            }
        }
    }
    Ok(())
}
