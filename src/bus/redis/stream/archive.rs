//! What a Redis stream has kept, for those who want more of the past than a log holds.
//!
//! A place is the number that an entry's id makes, as in the ids of events that others have added; a stream whose ids have no room
//! in that is not read here.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Result;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use redis::{Cmd, Value, cmd};
use tokio::sync::Mutex;

use super::super::super::archive::{self, Page as Found};
use super::super::super::{Arrival, Bus};
use super::super::connection::{Connection, good, in_time};
use super::Settings;
use super::entry::{Entry, EntryId, Naming, Page, Reading, entries};
use crate::event::{Event, EventId};
use crate::stream::join::Past;

/// An event of ours is looked for among so many entries, from the newest on.
const LOOKED_THROUGH: usize = 100_000;

/// Reads what was long ago.
pub struct Archive {
    bus: Arc<Bus>,
    naming: Naming,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Made when it is first needed.
    connection: Option<Connection>,
    page: Page,
}

/// Which way a stream is walked through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Towards {
    Newest,
    Oldest,
}

impl Archive {
    /// Not connected yet.
    pub fn new(bus: Arc<Bus>) -> Self {
        Self {
            naming: Naming::new(&bus.address.url, Settings::of(&bus).key),
            bus,
            state: Mutex::default(),
        }
    }

    fn key(&self) -> &str {
        Settings::of(&self.bus).key
    }

    async fn ask(&self, state: &mut State, command: &Cmd) -> Result<Value> {
        if let Some(connection) = &mut state.connection {
            match connection.ask(command).await {
                Ok(answer) => return good(answer),
                // It may have been lost long ago, as nobody looks after it.
                Err(_) => state.connection = None,
            }
        }
        let mut connection = in_time(Connection::open(&self.bus)).await?;
        let answer = connection.ask(command).await?;
        state.connection = Some(connection);
        good(answer)
    }

    /// Entries from this one on: at most so many, and about so many bytes.
    async fn walk(
        &self,
        from: EntryId,
        towards: Towards,
        (most, bytes): (usize, usize),
    ) -> Result<Vec<Entry>> {
        let mut state = self.state.lock().await;
        let count = state.page.count_for(bytes).min(most);
        let (name, end) = match towards {
            Towards::Newest => ("XRANGE", "+"),
            Towards::Oldest => ("XREVRANGE", "-"),
        };
        let mut range = cmd(name);
        range.arg(self.key()).arg(from.to_string()).arg(end);
        range.arg("COUNT").arg(count);
        let entries = entries(self.ask(&mut state, &range).await?)?;
        state.page.learn(&entries);
        Ok(entries)
    }

    async fn length(&self) -> Result<u64> {
        let mut xlen = cmd("XLEN");
        xlen.arg(self.key());
        match self.ask(&mut *self.state.lock().await, &xlen).await? {
            Value::Int(length) => Ok(length.try_into()?),
            other => anyhow::bail!("the answer to XLEN is none: {other:?}"),
        }
    }

    async fn find(&self, past: &Past) -> Result<Option<u64>> {
        match *past {
            Past::All => Ok(Some(0)),
            Past::Last(count) => match self.length().await?.checked_sub(count) {
                None | Some(0) => Ok(Some(0)),
                // From the nearer end.
                Some(before) if before < count => self.after(before).await,
                Some(_) => self.before_end(count).await,
            },
            Past::After(id) if id.origin == self.naming.origin() => {
                let entry = Naming::entry_id(id.seq);
                let found = self.walk(entry, Towards::Newest, (1, 1)).await?;
                let is_there = found.first().is_some_and(|found| found.id == entry);
                Ok(is_there.then_some(id.seq + 1))
            }
            Past::After(id) => self.behind(id).await,
        }
    }

    /// The place behind so many entries.
    async fn after(&self, count: u64) -> Result<Option<u64>> {
        self.walk_over(EntryId::ZERO, Towards::Newest, count).await
    }

    /// The place of the first of so many entries at the end.
    async fn before_end(&self, count: u64) -> Result<Option<u64>> {
        self.walk_over(EntryId::MAX, Towards::Oldest, count).await
    }

    /// Where so many entries end.
    async fn walk_over(
        &self,
        mut from: EntryId,
        towards: Towards,
        mut count: u64,
    ) -> Result<Option<u64>> {
        loop {
            let most = usize::try_from(count).unwrap_or(usize::MAX);
            let entries = self.walk(from, towards, (most, Page::BYTES)).await?;
            count -= entries.len() as u64;
            let Some(last) = entries.last().map(|entry| entry.id) else {
                return Ok(None);
            };
            match (count, towards) {
                (0, Towards::Oldest) => return Ok(Naming::number(last)),
                (0, Towards::Newest) => return Ok(Naming::number(last).map(|number| number + 1)),
                (_, Towards::Oldest) => from = last.previous(),
                (_, Towards::Newest) => from = last.next(),
            }
        }
    }

    /// The place behind an event of ours. Where that is, only the entries know.
    async fn behind(&self, id: EventId) -> Result<Option<u64>> {
        let (mut from, mut seen) = (EntryId::MAX, 0);
        while seen < LOOKED_THROUGH {
            let most = (LOOKED_THROUGH - seen, Page::BYTES);
            let entries = self.walk(from, Towards::Oldest, most).await?;
            for entry in &entries {
                match entry.event_id() {
                    Some(found) if found == id => {
                        return Ok(Naming::number(entry.id).map(|number| number + 1));
                    }
                    // Those of one origin are in their order.
                    Some(found) if found.origin == id.origin && found.seq < id.seq => {
                        return Ok(None);
                    }
                    _ => {}
                }
            }
            let Some(last) = entries.last() else { break };
            from = last.id.previous();
            seen += entries.len();
        }
        Ok(None)
    }

    async fn page(&self, place: u64, most: (usize, usize)) -> Result<Found> {
        let mut from = Naming::entry_id(place);
        let mut next = place;
        let mut events = Vec::new();
        // Some entries may be no events; the end is where there are no entries.
        while events.is_empty() {
            let entries = self.walk(from, Towards::Newest, most).await?;
            let Some(last) = entries.last().map(|entry| entry.id) else {
                break;
            };
            events = self.events(&entries);
            let Some(number) = Naming::number(last) else {
                break;
            };
            (from, next) = (last.next(), number + 1);
        }
        Ok(Found { events, next })
    }

    /// What entries are, each event once.
    fn events(&self, entries: &[Entry]) -> Vec<Event> {
        let reading = Reading {
            envelope: self.bus.envelope,
            field: Settings::of(&self.bus).field,
        };
        let mut last = HashMap::new();
        let events = entries.iter().filter_map(|entry| {
            let Arrival::Known(event) = reading.open(entry, &self.naming) else {
                return None;
            };
            let before = last.insert(event.id.origin, event.id.seq);
            let is_new = before.is_none_or(|before| before < event.id.seq);
            is_new.then_some(event)
        });
        events.collect()
    }
}

impl archive::Archive for Archive {
    fn find<'a>(&'a self, past: &'a Past) -> BoxFuture<'a, Result<Option<u64>>> {
        self.find(past).boxed()
    }

    fn page(
        &self,
        place: u64,
        most_events: usize,
        most_bytes: usize,
    ) -> BoxFuture<'_, Result<Found>> {
        self.page(place, (most_events, most_bytes)).boxed()
    }
}
