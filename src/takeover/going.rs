//! What is on its way from the old process to the new one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use super::PATIENCE;
use super::link::{Link, MAX_FILES};
use super::protocol::{self, Moved};
use crate::endpoint::fanout::moving::{Held, Position};
use crate::endpoint::websocket::input::Unheard;
use crate::route::served::Served;
use crate::stream::export::Page;
use crate::wire::Format;

/// Events go out in frames of about so many bytes.
const FRAME: usize = 1 << 20;
/// So long a subscriber may take to come to the end of a message, while events flow as ever and its own wait.
const LETTING_GO: Duration = Duration::from_secs(1);
/// The same for a request that has a name and is on its way to a bus.
const NAMING: Duration = Duration::from_millis(250);
/// Where subscribers stand is said for so many at a time.
const POSITIONS: usize = 2_000;

/// What is on its way.
pub struct Going {
    /// All streams there are.
    streams: Vec<Arc<Served>>,
    /// Those that go, by their numbers, and up to where their events have gone out.
    wanted: Vec<(usize, u64)>,
    /// The subscribers, in the order of their sockets, and whether they go: where others could go on with them has been said.
    held: Vec<(Held, bool)>,
}

impl Going {
    /// Of these streams those with these numbers.
    pub fn new(streams: Vec<Arc<Served>>, wanted: impl Iterator<Item = usize>) -> Self {
        Self {
            streams,
            wanted: wanted.map(|number| (number, 0)).collect(),
            held: Vec::new(),
        }
    }

    /// How many subscribers go.
    pub fn subscribers(&self) -> usize {
        self.held.iter().filter(|(_, goes)| *goes).count()
    }

    /// It is another process's now. Those who stay go on here.
    pub fn give(self) {
        for (held, goes) in self.held {
            if goes {
                held.give();
            }
        }
    }

    /// The streams that go.
    pub fn streams(&self) -> Vec<Arc<Served>> {
        let wanted = self.wanted.iter();
        wanted
            .map(|(number, _)| self.streams[*number].clone())
            .collect()
    }

    /// Sends the events that have not gone out yet.
    pub async fn send_events(&mut self, link: &mut Link) -> Result<()> {
        for (number, next) in &mut self.wanted {
            let stream = &self.streams[*number];
            loop {
                let Page {
                    entries,
                    next: behind,
                    is_last,
                } = stream.log.page(*next, FRAME);
                *next = behind;
                if !entries.is_empty() {
                    let mut body = Vec::new();
                    let events = entries.into_iter();
                    let events = protocol::Events {
                        stream: *number,
                        events: events.map(|entry| Moved::new(entry, &mut body)).collect(),
                    };
                    let sending = link.send(protocol::EVENTS, &events, &body, &[]);
                    patiently(sending).await?;
                }
                if is_last {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Has subscribers let go of, and sends their sockets.
    pub async fn send_subscribers(&mut self, link: &mut Link) -> Result<()> {
        let (collector, mut collected) = mpsc::unbounded_channel();
        let mut numbers = HashMap::new();
        for (number, _) in &self.wanted {
            let stream = &self.streams[*number];
            stream.hold(&collector);
            numbers.insert(stream.name.clone(), *number);
        }
        // Once all that are to have said so have, there is none left.
        drop(collector);
        let mut batch = Vec::new();
        // All of them together: nobody is let in meanwhile.
        let patience = Instant::now() + LETTING_GO;
        loop {
            batch.clear();
            let some = collected.recv_many(&mut batch, MAX_FILES);
            if timeout_at(patience, some).await.unwrap_or(0) == 0 {
                return Ok(());
            }
            let subscribers = batch.iter().map(|held: &Held| protocol::Subscriber {
                stream: numbers.get(held.path()).copied().unwrap_or(usize::MAX),
                hop: held.format().plain() == Format::Hop,
                deflate: held.format().coding().is_some(),
                address: held.address(),
                connected_for: micros(held.connected_for()),
                remaining: held.remaining.map(micros),
                publish: held.publish.clone().ok().map(Into::into),
                without_right: held.publish == Err(Unheard::WithoutRight),
            });
            let subscribers = protocol::Subscribers {
                subscribers: subscribers.collect(),
            };
            let sockets: Vec<_> = batch.iter().map(Held::socket).collect();
            patiently(link.send(protocol::SUBSCRIBERS, &subscribers, &[], &sockets)).await?;
            self.held.extend(batch.drain(..).map(|held| (held, false)));
        }
    }

    /// Sends what is left once nothing moves.
    pub async fn finish(&mut self, link: &mut Link) -> Result<()> {
        self.send_events(link).await?;
        let mut firsts = HashMap::new();
        for (number, _) in &self.wanted {
            let stream = &self.streams[*number];
            let summary = stream.log.summary();
            firsts.insert(stream.name.clone(), summary.first);
            let names = match &stream.publisher {
                Some(publisher) => timeout(NAMING, publisher.names())
                    .await
                    .context("a bus takes too long")?,
                None => None,
            };
            let upstreams = stream.via.upstreams().into_iter();
            let rest = protocol::Rest {
                stream: *number,
                summary,
                names,
                sources: upstreams
                    .map(|upstream| (upstream.url.clone(), upstream.met().clone()))
                    .collect(),
            };
            link.send(protocol::REST, &rest, &[], &[]).await?;
        }
        for some in self.held.chunks_mut(POSITIONS) {
            let (mut positions, mut body) = (Vec::new(), Vec::new());
            for (held, goes) in some {
                let first = firsts.get(held.path());
                let position = first.and_then(|first| held.settle(*first));
                *goes = position.is_some();
                positions.push(position.map(|position| said(&position, &mut body)));
            }
            let positions = protocol::Positions { positions };
            link.send(protocol::POSITIONS, &positions, &body, &[])
                .await?;
        }
        let done = protocol::Done {
            subscribers: self.held.len(),
        };
        link.send(protocol::END, &done, &[], &[]).await
    }
}

fn said(position: &Position, body: &mut Vec<u8>) -> protocol::Position {
    body.extend_from_slice(&position.rest);
    body.extend_from_slice(&position.control);
    protocol::Position {
        index: position.index,
        rest: position.rest.len(),
        control: position.control.len(),
        first: position.first,
        walked: position.walked,
        merged: position.merged,
        sent: position.sent,
    }
}

async fn patiently(work: impl Future<Output = Result<()>>) -> Result<()> {
    timeout(PATIENCE, work)
        .await
        .context("the new process does not get on")?
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
