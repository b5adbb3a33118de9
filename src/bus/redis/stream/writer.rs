//! Writing to a Redis stream. What has not been confirmed when a connection was lost is looked for in the stream before it is sent
//! again, so that it is there once for those, too, who know nothing of its id.

use std::collections::HashSet;
use std::sync::Arc;

use anyhow::{Context, Result};
use futures_util::future::BoxFuture;
use redis::{Cmd, Value, cmd};
use tracing::debug;

use super::super::super::envelope;
use super::super::super::{Bus, Sent};
use super::super::connection::{Connection, good, in_time};
use super::super::sending::{Sending, Together, try_out};
use super::entry::{EntryId, Page, entries};
use super::{DATA, LINE, Settings};
use crate::event::{Event, EventId, Origin};

/// What was sent is looked for among so many entries that have been added since, at most.
const LOOKED_THROUGH: usize = 100_000;

/// Writes to it.
pub struct Writer {
    bus: Arc<Bus>,
    connection: Option<Connection>,
    sending: Sending,
    together: Together,
    /// The newest entry that was there before anything of what is not confirmed.
    mark: EntryId,
    /// What was sent last and is not confirmed.
    unconfirmed: HashSet<EventId>,
    /// Those of them that are in the stream nevertheless.
    found: HashSet<EventId>,
}

impl Writer {
    /// Not connected yet.
    pub fn new(bus: Arc<Bus>) -> Self {
        Self {
            bus,
            connection: None,
            sending: Sending::default(),
            together: Together::Yes,
            mark: EntryId::ZERO,
            unconfirmed: HashSet::new(),
            found: HashSet::new(),
        }
    }

    fn xadd(bus: &Bus, payload: &[u8], line: Option<&str>) -> Cmd {
        let settings = Settings::of(bus);
        let mut xadd = cmd("XADD");
        xadd.arg(settings.key);
        if let Some(most) = settings.max_len {
            xadd.arg("MAXLEN").arg("~").arg(most);
        }
        xadd.arg("*")
            .arg(settings.field.unwrap_or(DATA))
            .arg(payload);
        if let Some(line) = line {
            xadd.arg(LINE).arg(line);
        }
        xadd
    }

    fn add(bus: &Bus, event: &Event) -> Cmd {
        let line = bus.envelope.is_beside().then(|| envelope::line(event));
        Self::xadd(bus, &event.payload.bytes, line.as_deref())
    }

    async fn open(&mut self) -> Result<()> {
        let mut connection = Connection::open(&self.bus).await?;
        let attempt = Self::xadd(&self.bus, b"", None);
        self.together = try_out(&mut connection, attempt).await?;
        let has_sent = !self.unconfirmed.is_empty();
        match has_sent && self.bus.envelope.is_beside() {
            true => self.look_for_sent(&mut connection).await?,
            false => self.look_for_end(&mut connection).await?,
        }
        self.connection = Some(connection);
        Ok(())
    }

    /// Where the stream ends; and whether it is one.
    async fn look_for_end(&mut self, connection: &mut Connection) -> Result<()> {
        let mut last = cmd("XREVRANGE");
        let key = Settings::of(&self.bus).key;
        last.arg(key).arg("+").arg("-").arg("COUNT").arg(1);
        let Some(answer) = allowed(connection.ask(&last).await?)? else {
            return Ok(());
        };
        let last = entries(answer)?;
        self.mark = last.last().map_or(EntryId::ZERO, |entry| entry.id);
        Ok(())
    }

    /// Which of the events that are not confirmed are in the stream.
    async fn look_for_sent(&mut self, connection: &mut Connection) -> Result<()> {
        let (mut page, mut from, mut seen) = (Page::default(), self.mark.next(), 0);
        self.found.clear();
        while seen < LOOKED_THROUGH && self.found.len() < self.unconfirmed.len() {
            let (mut range, count) = (cmd("XRANGE"), page.count());
            let key = Settings::of(&self.bus).key;
            range.arg(key).arg(from.to_string()).arg("+");
            range.arg("COUNT").arg(count);
            let Some(answer) = allowed(connection.ask(&range).await?)? else {
                return Ok(());
            };
            let entries = entries(answer)?;
            page.learn(&entries);
            seen += entries.len();
            let ids = entries.iter().filter_map(|entry| entry.event_id());
            let sent = ids.filter(|id| self.unconfirmed.contains(id));
            self.found.extend(sent);
            match entries.last() {
                Some(last) if entries.len() == count => from = last.id.next(),
                _ => break,
            }
        }
        let (url, found) = (self.bus.to_string(), self.found.len());
        debug!(
            url,
            found,
            of = self.unconfirmed.len(),
            "looked for what was sent"
        );
        Ok(())
    }

    async fn add_all(&mut self, events: &[Event], sent: &mut Vec<Sent>) -> Result<()> {
        let connection = self.connection.as_mut().context("it is not connected")?;
        // What has arrived of a batch are the first of its events: they were sent one behind the other.
        let arrived = events
            .iter()
            .take_while(|event| self.found.contains(&event.id));
        sent.extend(arrived.map(|event| Sent::Taken(event.id)));
        let arrived = events
            .iter()
            .take_while(|event| self.found.contains(&event.id));
        let rest = &events[arrived.count()..];
        self.unconfirmed = rest.iter().map(|event| event.id).collect();
        let commands = rest
            .iter()
            .map(|event| (event, Self::add(&self.bus, event)));
        let sending = self
            .sending
            .send(connection, commands.collect(), self.together, sent);
        let last = sending.await?;
        if let Some(id) = last.as_ref().and_then(EntryId::of) {
            self.mark = id;
        }
        self.unconfirmed.clear();
        self.found.clear();
        Ok(())
    }
}

/// An answer, if the user may know it: one that may only write has to do without.
fn allowed(answer: Value) -> Result<Option<Value>> {
    match answer {
        Value::ServerError(error) if error.code() == "NOPERM" => Ok(None),
        answer => good(answer).map(Some),
    }
}

impl super::super::super::Writer for Writer {
    fn connect(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            self.connection = None;
            in_time(self.open()).await
        })
    }

    fn send<'a>(
        &'a mut self,
        events: &'a [Event],
        _: Option<Origin>,
        sent: &'a mut Vec<Sent>,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.add_all(events, sent))
    }

    fn lost(&mut self) -> BoxFuture<'_, anyhow::Error> {
        Box::pin(async {
            match &mut self.connection {
                Some(connection) => connection.lost().await,
                None => std::future::pending().await,
            }
        })
    }
}
