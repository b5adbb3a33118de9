//! Reading a Redis stream: what it has kept, and then what is added.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::future::BoxFuture;
use redis::{Cmd, Pipeline, Value, cmd};
use tracing::debug;

use super::super::super::{Arrival, Begin, Begun, Bus};
use super::super::connection::{Connection, good, in_time};
use super::Settings;
use super::entry::{Entry, EntryId, Naming, Page, Reading, entries, entries_read};
use super::find::Finder;
use super::place::{Info, Missing, Place};
use crate::event::{self, Event};
use crate::stream::history::Limits;

/// At least so often a server that has nothing new is asked whether the stream is still the same.
const LOOK: Duration = Duration::from_secs(5);

/// Reads it.
pub struct Reader {
    bus: Arc<Bus>,
    naming: Naming,
    connection: Option<Connection>,
    /// None as long as the past has not been read.
    place: Option<Place>,
    /// The highest id of an entry that has been handed on under the name that is used now.
    highest: EntryId,
    page: Page,
    /// Whether entries are missing that nobody knows the number of, before the next one.
    is_interrupted: bool,
}

impl Reader {
    /// Not connected yet.
    pub fn new(bus: Arc<Bus>) -> Self {
        let naming = Naming::new(&bus.address.url, Settings::of(&bus).key);
        Self {
            bus,
            naming,
            connection: None,
            place: None,
            highest: EntryId::ZERO,
            page: Page::default(),
            is_interrupted: false,
        }
    }

    fn settings(&self) -> Settings<'_> {
        Settings::of(&self.bus)
    }

    fn connection(&mut self) -> Result<&mut Connection> {
        self.connection.as_mut().context("it is not connected")
    }

    fn xinfo(&self) -> Cmd {
        let mut xinfo = cmd("XINFO");
        xinfo.arg("STREAM").arg(self.settings().key);
        xinfo
    }

    async fn info(&mut self) -> Result<Option<Info>> {
        let xinfo = self.xinfo();
        Info::of(self.connection()?.ask(&xinfo).await?)
    }

    async fn open(&mut self) -> Result<()> {
        self.connection = Some(Connection::open(&self.bus).await?);
        let info = self.info().await?;
        self.compare(info.as_ref());
        Ok(())
    }

    /// Goes elsewhere if the stream is not what it was.
    fn compare(&mut self, info: Option<&Info>) {
        let Some(place) = &mut self.place else { return };
        if let Some(elsewhere) = place.elsewhere(info) {
            let url = self.bus.to_string();
            debug!(url, last = %place.last, "the stream is not what it was");
            *place = elsewhere;
            self.is_interrupted = true;
        }
    }

    /// What an entry is. Its id may have been there before, in the stream that there was under this key.
    fn arrival(&mut self, entry: &Entry) -> Arrival {
        if entry.id <= self.highest {
            self.naming.begin_anew(entry.id);
        }
        self.highest = entry.id;
        let reading = Reading {
            envelope: self.bus.envelope,
            field: self.settings().field,
        };
        reading.open(entry, &self.naming)
    }

    /// The newest entries, oldest first, as many as are in the history's limits.
    async fn kept(&mut self, limits: Limits) -> Result<(Option<Info>, Vec<Entry>)> {
        let mut first = Pipeline::new();
        let wanted = self.page.count();
        first.add_command(self.xinfo());
        first.add_command(self.xrevrange(None, wanted));
        let mut answers = self.connection()?.ask_all(&first).await?.into_iter();
        let info = Info::of(answers.next().unwrap_or(Value::Nil))?;
        let mut page = entries(good(answers.next().unwrap_or(Value::Nil))?)?;
        let mut kept = Kept::new(limits);
        let mut wanted = wanted;
        loop {
            self.page.learn(&page);
            let is_last = page.len() < wanted;
            let oldest = page.last().map(|entry| entry.id);
            let has_room = kept.take(page);
            let Some(oldest) = oldest.filter(|_| has_room && !is_last) else {
                break;
            };
            wanted = self.page.count();
            let older = self.xrevrange(Some(oldest.previous()), wanted);
            page = entries(good(self.connection()?.ask(&older).await?)?)?;
        }
        kept.entries.reverse();
        Ok((info, kept.entries))
    }

    async fn begin_at(&mut self, begin: Begin) -> Result<Option<Begun>> {
        let finder = Finder {
            connection: self.connection.as_mut().context("it is not connected")?,
            naming: &self.naming,
            key: Settings::of(&self.bus).key,
            page: &mut self.page,
        };
        let Some(found) = finder.find(begin).await? else {
            return Ok(None);
        };
        self.place = Some(Place {
            last: found.behind,
            added: None,
            eldest: EntryId::ZERO,
        });
        self.highest = found.behind;
        Ok(Some(Begun {
            count: found.count,
            lost: found.is_interrupted.then_some(None),
        }))
    }

    fn xrevrange(&self, from: Option<EntryId>, count: usize) -> Cmd {
        let mut xrevrange = cmd("XREVRANGE");
        let from = from.map_or("+".to_owned(), |from| from.to_string());
        xrevrange.arg(self.settings().key).arg(from).arg("-");
        xrevrange.arg("COUNT").arg(count);
        xrevrange
    }

    async fn read_past(&mut self, limits: Limits) -> Result<Vec<Event>> {
        let (info, kept) = self.kept(limits).await?;
        let newest = kept.last().map(|entry| entry.id);
        let mut place = Place::BEGINNING;
        if let Some(info) = info {
            // What has been added between the two answers is not counted.
            let is_counted = newest.is_none_or(|newest| newest <= info.newest);
            place.last = newest.unwrap_or_default().max(info.newest);
            place.added = info.added.filter(|_| is_counted);
            place.eldest = info.first.unwrap_or(place.last);
        } else if let Some(newest) = newest {
            place.last = newest;
            place.added = None;
        }
        let events = kept.iter().filter_map(|entry| match self.arrival(entry) {
            Arrival::Known(event) => Some(event),
            other => {
                let (url, id) = (self.bus.to_string(), entry.id);
                debug!(url, %id, ?other, "an entry of the past is no event");
                None
            }
        });
        let events = events.collect();
        self.highest = place.last;
        self.place = Some(place);
        Ok(events)
    }

    /// Waits for entries, for a while, and tells how many there are in the stream then.
    async fn read(&mut self, place: Place) -> Result<(Vec<Entry>, usize, u64)> {
        let wait = self.bus.upstream.ping_interval.min(LOOK);
        let (key, wanted) = (self.settings().key, self.page.count());
        let mut commands = Pipeline::new();
        commands.cmd("XREAD").arg("COUNT").arg(wanted);
        commands.arg("BLOCK").arg(wait.as_millis().max(1) as u64);
        commands.arg("STREAMS").arg(key).arg(place.last.to_string());
        commands.cmd("XLEN").arg(key);
        let mut answers = self.connection()?.ask_all(&commands).await?.into_iter();
        let read = entries_read(good(answers.next().unwrap_or(Value::Nil))?)?;
        let length = match good(answers.next().unwrap_or(Value::Nil))? {
            Value::Int(length) => u64::try_from(length)?,
            other => anyhow::bail!("the answer to XLEN is none: {other:?}"),
        };
        Ok((read, wanted, length))
    }

    async fn read_on(&mut self, arrivals: &mut Vec<Arrival>) -> Result<()> {
        while arrivals.is_empty() {
            let place = self.place.context("the past comes first")?;
            let (read, wanted, length) = self.read(place).await?;
            self.page.learn(&read);
            let ids: Vec<_> = read.iter().map(|entry| entry.id).collect();
            // Where there are others than these, they are from before: so the server has let go of nothing up to the place.
            let goes_on = !ids.is_empty() && ids.len() < wanted && length > ids.len() as u64;
            let info = match goes_on {
                true => None,
                false => self.look().await?,
            };
            let place = self.place.as_mut().context("it is known")?;
            let missing = place.advance(&ids, info.as_ref());
            if place.eldest == EntryId::ZERO {
                place.eldest = ids.first().copied().unwrap_or_default();
            }
            match (std::mem::take(&mut self.is_interrupted), missing) {
                (true, _) => arrivals.push(Arrival::Lost(None)),
                (false, Missing::Entries(count)) => arrivals.push(Arrival::Lost(count)),
                (false, Missing::Nothing) => {}
            }
            arrivals.extend(read.iter().map(|entry| self.arrival(entry)));
        }
        Ok(())
    }

    /// What the server says of the stream, if it is there; another place, if it is not what it was.
    async fn look(&mut self) -> Result<Option<Info>> {
        let info = self.info().await?;
        self.compare(info.as_ref());
        Ok(info)
    }
}

/// Entries, newest first, as far as a history within these limits has room.
struct Kept {
    entries: Vec<Entry>,
    bytes: usize,
    limits: Limits,
    /// In milliseconds since the Unix epoch.
    oldest: u64,
}

impl Kept {
    fn new(limits: Limits) -> Self {
        let age = limits.age.map(|age| age.as_micros() as u64);
        let oldest = age.map_or(0, |age| event::now().saturating_sub(age) / 1_000);
        Self {
            entries: Vec::new(),
            bytes: 0,
            limits,
            oldest,
        }
    }

    /// Adds what has room, and the newest in any case: so it is known that it has been here. Whether there is more of it.
    fn take(&mut self, page: Vec<Entry>) -> bool {
        for entry in page {
            self.bytes += entry.len() + size_of::<Event>();
            let is_over = self.bytes > self.limits.bytes
                || (self.limits.count).is_some_and(|count| self.entries.len() >= count)
                || entry.id.ms < self.oldest;
            if is_over && !self.entries.is_empty() {
                return false;
            }
            self.entries.push(entry);
            if is_over {
                return false;
            }
        }
        true
    }
}

impl super::super::super::Reader for Reader {
    fn connect(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            self.connection = None;
            in_time(self.open()).await
        })
    }

    fn past(&mut self, limits: Limits) -> BoxFuture<'_, Result<Vec<Event>>> {
        Box::pin(self.read_past(limits))
    }

    fn begin(&mut self, begin: Begin) -> BoxFuture<'_, Result<Option<Begun>>> {
        Box::pin(self.begin_at(begin))
    }

    fn next<'a>(&'a mut self, arrivals: &'a mut Vec<Arrival>) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.read_on(arrivals))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn page(count: u64) -> Vec<Entry> {
        let entry = |ms| Entry {
            id: EntryId { ms, n: 0 },
            fields: vec![("data".into(), Bytes::from(vec![0; 996]))],
        };
        (1..=count).rev().map(entry).collect()
    }

    #[test]
    fn what_is_kept_is_what_a_history_has_room_for() {
        let unlimited = Limits::from(1 << 30);
        let mut kept = Kept::new(unlimited);
        assert!(kept.take(page(10)), "there may be more");
        assert_eq!(kept.entries.len(), 10);
        let limits = [
            Limits::from(3_000 + 3 * size_of::<Event>()),
            Limits {
                count: Some(3),
                ..unlimited
            },
        ];
        for limits in limits {
            let mut kept = Kept::new(limits);
            assert!(!kept.take(page(10)));
            assert_eq!(kept.entries, page(10)[..3], "the newest");
        }
        let mut kept = Kept::new(Limits {
            age: Some(Duration::from_secs(60)),
            ..unlimited
        });
        assert!(!kept.take(page(10)), "they are from 1970");
        assert_eq!(kept.entries, page(10)[..1], "but for the newest");
    }
}
