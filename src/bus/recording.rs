//! A recording as a source: its events come with the pauses that were between them, or as fast as they can be taken.
//!
//! The file is read a little ahead, by a thread that may wait for the disk. Time goes by the clock, not by pauses: what a late wake-up
//! has missed is made up for.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use futures_util::future::BoxFuture;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use super::address::{Kind, Recording, Speed};
use super::read::Ended;
use super::{Arrival, Bus};
use crate::event::Gap;
use crate::recording::reader::{self, Damage, Item};
use crate::wire::recording::{Recorded, Taken};

/// So many events are read at once.
const BATCH: usize = 256;
/// Or so many bytes of payloads.
const BATCH_BYTES: usize = 256 << 10;
/// The pause before a recording of one event begins again; with more it is as long as those between them are on average.
const PAUSE: u64 = 1_000_000;

const END: Ended = Ended("end of the recording");
const DAMAGED: Ended = Ended("the recording is damaged there");

/// Reads a recording.
pub struct Reader {
    recording: Recording,
    /// As it may be shown to anyone.
    name: String,
    most: usize,
    file: Option<Ahead>,
    /// What has been read and is not due.
    batch: std::vec::IntoIter<Item>,
    /// The next of it.
    next: Option<Item>,
    pace: Pace,
    place: Place,
    /// Something has come in this round that takes its time.
    has_events: bool,
    /// So many items are to be passed over: they have been replayed by another process.
    skips: u64,
    /// What is missing right before the next event.
    gap: Option<Gap>,
    /// It has been told that the file is damaged.
    is_told: bool,
    /// There is no more to come.
    ended: Option<Ended>,
}

/// How far it has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Place {
    round: u64,
    /// Events and gaps of this round.
    items: u64,
}

/// The file, and what is read of it.
struct Ahead(JoinHandle<(Box<reader::Reader<File>>, Vec<Item>)>);

impl Ahead {
    fn read(mut file: Box<reader::Reader<File>>) -> Self {
        Self(spawn_blocking(move || {
            let mut items = Vec::with_capacity(BATCH);
            let mut bytes = 0;
            while items.len() < BATCH && bytes < BATCH_BYTES {
                let item = file.read();
                let is_last = matches!(item, Item::End | Item::Damage(_));
                if let Item::Recorded(Recorded::Event { event, .. }) = &item {
                    bytes += event.payload.bytes.len();
                }
                items.push(item);
                if is_last {
                    break;
                }
            }
            (file, items)
        }))
    }
}

impl Reader {
    /// Nothing has been read yet.
    pub fn new(bus: Arc<Bus>) -> Self {
        let Kind::Recording(recording) = &bus.address.kind else {
            unreachable!("it is the address of a recording")
        };
        Self {
            name: recording.to_string(),
            pace: Pace::new(recording.speed),
            recording: recording.clone(),
            most: bus.upstream.max_message_size,
            file: None,
            batch: Vec::new().into_iter(),
            next: None,
            place: Place::default(),
            has_events: false,
            skips: 0,
            gap: None,
            is_told: false,
            ended: None,
        }
    }

    async fn open(&mut self) -> Result<()> {
        let (path, most) = (self.recording.path.clone(), self.most);
        let opened = spawn_blocking(move || {
            // Where the file is on this machine is nobody's business who sees why it cannot be read.
            let file = reader::Reader::open(&path, most);
            file.map_err(|error| anyhow!(reader::reason(&error)))
        });
        self.file = Some(Ahead::read(Box::new(opened.await??)));
        Ok(())
    }

    /// The next item of this round, whether or not it is due.
    async fn peek(&mut self) -> Result<&Item> {
        while self.next.is_none() {
            if let Some(item) = self.batch.next() {
                self.next = Some(item);
                continue;
            }
            let Ahead(reading) = self.file.take().context("it is not open")?;
            let (file, items) = reading.await?;
            if !matches!(items.last(), Some(Item::End | Item::Damage(_))) {
                self.file = Some(Ahead::read(file));
            }
            self.batch = items.into_iter();
        }
        Ok(self.next.as_ref().expect("it is there"))
    }

    /// Passes over what another process has replayed.
    async fn pass_over(&mut self) -> Result<()> {
        while self.skips > 0 {
            let at = match self.peek().await? {
                Item::Recorded(recorded) => moment(recorded),
                Item::Unusable(_) => 0,
                Item::End | Item::Damage(_) => break,
            };
            self.pace.pass(at);
            self.has_events = true;
            self.next = None;
            self.skips -= 1;
        }
        self.skips = 0;
        Ok(())
    }

    /// Takes what is due, if anything is; else when the next is.
    async fn take(&mut self, arrivals: &mut Vec<Arrival>) -> Result<Option<Instant>> {
        if let Item::Recorded(recorded) = self.peek().await? {
            let at = moment(recorded);
            if let Some(due) = self.pace.due(at, Instant::now()) {
                return Ok(Some(due));
            }
        }
        match self.next.take().expect("it was looked at") {
            Item::Recorded(Recorded::Event { event, .. }) => {
                self.has_events = true;
                arrivals.push(self.arrival(event));
            }
            Item::Recorded(Recorded::Gap { gap, .. }) => match self.recording.keeps_ids {
                true => self.gap = Some(gap),
                false => arrivals.push(Arrival::Lost(gap.lost)),
            },
            Item::Unusable(reason) => arrivals.push(Arrival::Unusable(reason)),
            Item::End => return self.end(END).await.map(|()| None),
            Item::Damage(damage) => {
                self.tell(&damage);
                return self.end(DAMAGED).await.map(|()| None);
            }
        }
        self.place.items += 1;
        Ok(None)
    }

    fn arrival(&mut self, event: Taken) -> Arrival {
        let known = self.recording.keeps_ids.then(|| event.known()).flatten();
        match known {
            Some(kept) if event.is_kept => Arrival::Kept(kept),
            Some(known) => {
                let is_before = |gap: &mut Gap| gap.next.is_none_or(|next| next == known.id);
                match self.gap.take_if(is_before) {
                    Some(gap) => Arrival::Told(known, gap),
                    None => Arrival::Known(known),
                }
            }
            None => Arrival::New(event.into_new()),
        }
    }

    /// Begins again, if it is to.
    async fn end(&mut self, ended: Ended) -> Result<()> {
        // What has nothing in it would begin again without end, and without a pause.
        let has_events = std::mem::take(&mut self.has_events);
        if !self.recording.repeats || !has_events {
            self.ended = Some(ended);
            return Ok(());
        }
        self.pace.begin_again();
        self.place = Place {
            round: self.place.round + 1,
            items: 0,
        };
        let round = self.place.round + 1;
        debug!(url = self.name, round, "the recording begins again");
        self.open().await
    }

    fn tell(&mut self, damage: &Damage) {
        if !std::mem::replace(&mut self.is_told, true) {
            let url = &self.name;
            warn!(
                url,
                byte = damage.at,
                events = damage.events,
                "the recording is {damage}"
            );
        }
    }
}

impl super::Reader for Reader {
    fn connect(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            if self.file.is_none() {
                self.open().await?;
                self.pass_over().await?;
            }
            Ok(())
        })
    }

    fn place(&self) -> Option<Box<str>> {
        let Place { round, items } = self.place;
        Some(format!("{round}/{items}").into())
    }

    fn go_on_at(&mut self, place: &str) {
        let numbers = place.split_once('/');
        let numbers =
            numbers.and_then(|(round, items)| Some((round.parse().ok()?, items.parse().ok()?)));
        if let Some((round, items)) = numbers {
            self.place = Place { round, items };
            self.skips = items;
        }
    }

    fn next<'a>(&'a mut self, arrivals: &'a mut Vec<Arrival>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async {
            while arrivals.len() < BATCH {
                match self.ended.take() {
                    Some(ended) if arrivals.is_empty() => return Err(ended.into()),
                    // What has come is taken first.
                    Some(ended) => {
                        self.ended = Some(ended);
                        break;
                    }
                    None => {}
                }
                let Some(due) = self.take(arrivals).await? else {
                    continue;
                };
                if !arrivals.is_empty() {
                    break;
                }
                sleep_until(due).await;
            }
            Ok(())
        })
    }
}

/// When something happened, in microseconds: at its origin, but not later than it came, as clocks differ. What came as history came
/// later than it happened.
fn moment(recorded: &Recorded) -> u64 {
    match recorded {
        Recorded::Event { arrived, event } => {
            event.time.map_or(*arrived, |time| time.min(*arrived))
        }
        Recorded::Gap { .. } => 0,
    }
}

/// When what has been recorded is due.
struct Pace {
    speed: Speed,
    /// When this round began, and what was the moment of its first event.
    begun: Option<(Instant, u64)>,
    /// The latest moment of this round: what happened before it is due with it.
    latest: u64,
    /// How many events had a moment of their own.
    count: u64,
    /// When the next round begins.
    next: Option<Instant>,
}

impl Pace {
    fn new(speed: Speed) -> Self {
        Self {
            speed,
            begun: None,
            latest: 0,
            count: 0,
            next: None,
        }
    }

    /// When what happened at that moment is due, if it is not.
    fn due(&mut self, moment: u64, now: Instant) -> Option<Instant> {
        if self.speed == Speed::Max {
            return None;
        }
        // What has no moment comes with what is there.
        if moment == 0 && self.begun.is_none() {
            return None;
        }
        let latest = self.latest.max(moment);
        let next = self.next;
        let (begun, first) = *self
            .begun
            .get_or_insert_with(|| (next.unwrap_or(now), moment));
        let due = begun.checked_add(self.speed.of(latest.saturating_sub(first)));
        match due {
            Some(due) if due <= now => {
                self.latest = latest;
                self.count += 1;
                None
            }
            // As good as never.
            due => Some(due.unwrap_or(now + Duration::from_secs(60 * 60))),
        }
    }

    /// Something has been replayed by another process, just now.
    fn pass(&mut self, moment: u64) {
        if moment == 0 {
            return;
        }
        self.latest = self.latest.max(moment);
        self.count += 1;
        self.begun = Some((Instant::now(), self.latest));
    }

    /// The next round begins behind a pause.
    fn begin_again(&mut self) {
        let first = self.begun.map_or(self.latest, |(_, first)| first);
        let all = self.latest.saturating_sub(first);
        let pause = match self.count {
            0 | 1 => PAUSE,
            count => (all / (count - 1)).max(1),
        };
        let begun = self.begun.map_or_else(Instant::now, |(begun, _)| begun);
        let whole = self.speed.of(all.saturating_add(pause));
        *self = Self {
            next: begun.checked_add(whole),
            ..Self::new(self.speed)
        };
    }
}

#[cfg(test)]
mod tests;
