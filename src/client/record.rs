//! `wsevent record`: writes a stream into a file.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::sleep;
use tracing::{info, warn};

use super::reading::{End, Reading, Sink, Transport};
use crate::event::{self, EventId, Gap};
use crate::recording::writer::{Before, Writer, interruption};
use crate::shutdown::Signals;
use crate::wire::recording::{Recorded, Taken};

/// What to record, and where.
pub struct Record {
    /// What to read, as if there were no recording yet.
    pub reading: Reading,
    /// The file.
    pub path: PathBuf,
    /// End after so many events.
    pub count: Option<u64>,
    /// End after so long.
    pub duration: Option<Duration>,
    /// What has been recorded is on the disk so much later, at the latest.
    pub sync_after: Duration,
}

impl Record {
    /// Records until it is told to stop, or has what was asked for.
    pub async fn run(mut self) -> Result<()> {
        let mut signals = Signals::take().context("cannot listen for signals")?;
        let (writer, before) = Writer::open(&self.path, self.sync_after)?;
        let file = self.path.display().to_string();
        match &before {
            Before { events: 0, .. } => info!(file, "recording"),
            Before { events, .. } => info!(file, events, "recording, behind what is there"),
        }
        if let Some((damage, bytes)) = &before.cut {
            warn!(file, bytes, "cut away at its end what was {damage}");
        }
        self.go_on(&before);
        let mut recorder = Recorder {
            writer,
            count: self.count,
            taken: 0,
            told: None,
            last: before.have.last().copied(),
        };
        let over = async {
            match self.duration {
                Some(duration) => sleep(duration).await,
                None => std::future::pending().await,
            }
        };
        let result = tokio::select! {
            result = self.reading.run(&mut recorder) => result,
            _ = signals.next() => Ok(()),
            () = over => Ok(()),
        };
        let events = recorder.taken;
        // Whatever has gone wrong, what is here is kept.
        let finished = recorder.writer.finish();
        info!(file, events, "recorded");
        result.and(finished)
    }

    /// Begins right behind what the file has, unless it is said where to begin.
    fn go_on(&mut self, before: &Before) {
        let reading = &mut self.reading;
        let is_said = reading.history.is_some() || reading.last_event_id.is_some();
        reading.goes_on = before.events > 0;
        if is_said || before.have.is_empty() {
            return;
        }
        match reading.transport {
            Transport::Websocket => reading.have = before.have.clone(),
            Transport::Sse | Transport::Ndjson => {
                reading.last_event_id = before.have.last().map(EventId::to_string);
            }
        }
    }
}

struct Recorder {
    writer: Writer,
    /// How many events to record, if that is limited.
    count: Option<u64>,
    /// How many have been.
    taken: u64,
    /// The last of them that has an id.
    last: Option<EventId>,
    /// What is missing behind the last of them, as it was recorded.
    told: Option<Gap>,
}

impl Recorder {
    fn add_gap(&mut self, gap: Gap) -> Result<()> {
        // After a connection that has brought nothing else it is told again.
        if self.told.as_ref() == Some(&gap) {
            return Ok(());
        }
        self.told = Some(gap.clone());
        let arrived = event::now();
        self.writer.add(&Recorded::Gap { arrived, gap }).map(drop)
    }
}

impl Sink for Recorder {
    fn taken(&self) -> u64 {
        self.taken
    }

    fn take(&mut self, event: Taken) -> Result<Option<End>> {
        let id = event.id;
        let arrived = event::now();
        if !self.writer.add(&Recorded::Event { arrived, event })? {
            warn!(
                id = id.map(|id| id.to_string()),
                "an event is too large for a recording, and is a gap in it"
            );
            self.add_gap(Gap {
                lost: Some(1),
                ..interruption(self.last)
            })?;
            return Ok(None);
        }
        self.last = id.or(self.last);
        self.told = None;
        self.taken += 1;
        Ok((self.count == Some(self.taken)).then_some(End::Done))
    }

    fn flush(&mut self) -> Result<Option<End>> {
        self.writer.flush().map(|()| None)
    }

    fn gap(&mut self, gap: &Gap) -> Result<()> {
        self.add_gap(gap.clone())
    }

    fn interrupted(&mut self) -> Result<()> {
        self.add_gap(interruption(self.last))
    }
}
