//! Where in a Redis stream somebody begins who wants more of the past than a log holds.

use anyhow::Result;
use redis::{Value, cmd};

use super::super::connection::{Connection, good};
use super::entry::{Entry, EntryId, Naming, Page, entries};
use crate::bus::Begin;
use crate::event::EventId;

/// An event of ours is looked for among so many entries, from the newest on.
const LOOKED_THROUGH: usize = 100_000;

/// Looks for a place.
pub struct Finder<'a> {
    pub connection: &'a mut Connection,
    pub naming: &'a Naming,
    pub key: &'a str,
    pub page: &'a mut Page,
}

/// A place, and what is known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Reading goes on right behind this entry, if it is one.
    pub behind: EntryId,
    /// So many entries follow at least.
    pub count: u64,
    /// Whether entries are missing before those.
    pub is_interrupted: bool,
}

/// Which way a stream is walked through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Towards {
    Newest,
    Oldest,
}

impl Finder<'_> {
    /// Where that is; none if there is nothing, or if it cannot be known.
    pub async fn find(mut self, begin: Begin) -> Result<Option<Found>> {
        let length = self.length().await?;
        let whole = |count| {
            (count > 0).then_some(Found {
                behind: EntryId::ZERO,
                count,
                is_interrupted: false,
            })
        };
        let behind = match begin {
            Begin::First => return Ok(whole(length)),
            Begin::Last(count) if count >= length => return Ok(whole(length)),
            Begin::Last(count) => {
                let before = length - count;
                // From the nearer end.
                let behind = match before < count {
                    true => {
                        self.walk_over(EntryId::ZERO, Towards::Newest, before)
                            .await?
                    }
                    false => {
                        self.walk_over(EntryId::MAX, Towards::Oldest, count + 1)
                            .await?
                    }
                };
                return Ok(behind.map(|behind| Found {
                    behind,
                    count,
                    is_interrupted: false,
                }));
            }
            Begin::After(id) if id.origin == self.naming.origin() => {
                let entry = Naming::entry_id(id.seq);
                let found = self.walk(entry, Towards::Newest, 1).await?;
                match found.first().map(|found| found.id) {
                    None => return Ok(None),
                    Some(found) if found == entry => Some(entry),
                    // It has gone, and nobody knows what else.
                    Some(found) => {
                        let first = self.walk(EntryId::ZERO, Towards::Newest, 1).await?;
                        let is_first = first.first().is_some_and(|first| first.id == found);
                        return Ok(Some(Found {
                            behind: if is_first { EntryId::ZERO } else { entry },
                            count: 1,
                            is_interrupted: true,
                        }));
                    }
                }
            }
            Begin::After(id) => self.ours(id).await?,
        };
        Ok(behind.map(|behind| Found {
            behind,
            count: 1,
            is_interrupted: false,
        }))
    }

    async fn walk(&mut self, from: EntryId, towards: Towards, most: usize) -> Result<Vec<Entry>> {
        let (name, end) = match towards {
            Towards::Newest => ("XRANGE", "+"),
            Towards::Oldest => ("XREVRANGE", "-"),
        };
        let mut range = cmd(name);
        range.arg(self.key).arg(from.to_string()).arg(end);
        range.arg("COUNT").arg(self.page.count().min(most));
        let entries = entries(good(self.connection.ask(&range).await?)?)?;
        self.page.learn(&entries);
        Ok(entries)
    }

    async fn length(&mut self) -> Result<u64> {
        let answer = self.connection.ask(cmd("XLEN").arg(self.key)).await?;
        match good(answer)? {
            Value::Int(length) => Ok(length.try_into()?),
            other => anyhow::bail!("the answer to XLEN is none: {other:?}"),
        }
    }

    /// The last of so many entries.
    async fn walk_over(
        &mut self,
        mut from: EntryId,
        towards: Towards,
        mut count: u64,
    ) -> Result<Option<EntryId>> {
        loop {
            let most = usize::try_from(count).unwrap_or(usize::MAX);
            let entries = self.walk(from, towards, most).await?;
            let Some(last) = entries.last().map(|entry| entry.id) else {
                return Ok(None);
            };
            count -= entries.len() as u64;
            match (count, towards) {
                (0, _) => return Ok(Some(last)),
                (_, Towards::Oldest) => from = last.previous(),
                (_, Towards::Newest) => from = last.next(),
            }
        }
    }

    /// The entry that is an event of ours. Where that is, only the entries know.
    async fn ours(&mut self, id: EventId) -> Result<Option<EntryId>> {
        let (mut from, mut seen) = (EntryId::MAX, 0);
        while seen < LOOKED_THROUGH {
            let entries = self
                .walk(from, Towards::Oldest, LOOKED_THROUGH - seen)
                .await?;
            for entry in &entries {
                match entry.event_id() {
                    Some(found) if found == id => return Ok(Some(entry.id)),
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
}
