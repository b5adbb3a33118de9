//! What there is to say about a recording: `wsevent replay FILE --check`.

use std::fmt::{self, Display};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Result, anyhow};

use super::reader::{Damage, Item, Reader, cannot_open};
use crate::event::EventId;
use crate::stdout;
use crate::wire::ndjson::MAX_TIME;
use crate::wire::recording::{LARGEST, Recorded};

/// Which file.
pub struct Inspect {
    /// Where it is.
    pub path: PathBuf,
}

/// One end of what is in a file.
struct End {
    id: Option<EventId>,
    time: u64,
}

#[derive(Default)]
struct Report {
    events: u64,
    bytes: u64,
    gaps: u64,
    unusable: u64,
    first: Option<End>,
    last: Option<End>,
    damage: Option<Damage>,
}

impl Inspect {
    /// Reads all of it and prints what there is to say; the status is 1 if it is damaged.
    pub fn run(&self) -> Result<ExitCode> {
        let reader = Reader::open(&self.path, LARGEST);
        let mut reader = reader.map_err(|error| anyhow!(cannot_open(&self.path, &error)))?;
        let mut report = Report::default();
        while report.take(reader.read()) {}
        stdout::print(report.to_string().as_bytes())?;
        Ok(match report.damage.is_some() || report.unusable > 0 {
            true => ExitCode::FAILURE,
            false => ExitCode::SUCCESS,
        })
    }
}

impl Report {
    /// Whether there may be more.
    fn take(&mut self, item: Item) -> bool {
        match item {
            Item::Recorded(Recorded::Event { arrived, event }) => {
                self.events += 1;
                self.bytes += event.payload.bytes.len() as u64;
                let (id, time) = (event.id, event.time.unwrap_or(arrived));
                self.first.get_or_insert(End { id, time });
                self.last = Some(End { id, time });
            }
            Item::Recorded(Recorded::Gap { .. }) => self.gaps += 1,
            Item::Unusable(_) => self.unusable += 1,
            Item::End => return false,
            Item::Damage(damage) => {
                self.damage = Some(damage);
                return false;
            }
        }
        true
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "events: {}", self.events)?;
        writeln!(f, "payload bytes: {}", self.bytes)?;
        writeln!(f, "gaps: {}", self.gaps)?;
        if self.unusable > 0 {
            writeln!(f, "unusable: {}", self.unusable)?;
        }
        for (name, end) in [("first", &self.first), ("last", &self.last)] {
            let Some(End { id, time }) = end else {
                continue;
            };
            let id = id.map_or("without an id".to_owned(), |id| id.to_string());
            let time = UNIX_EPOCH + Duration::from_micros((*time).min(MAX_TIME));
            let time = humantime::format_rfc3339_micros(time);
            writeln!(f, "{name}: {id}, {time}")?;
        }
        if let (Some(first), Some(last)) = (&self.first, &self.last) {
            let duration = Duration::from_micros(last.time.saturating_sub(first.time));
            writeln!(f, "duration: {}", humantime::format_duration(duration))?;
        }
        match &self.damage {
            None => writeln!(f, "damage: none"),
            Some(damage) => writeln!(f, "damage: {damage}"),
        }
    }
}
