//! The HTTP source: reads anybody's server-sent events (WHATWG HTML, section 9.2), or NDJSON where a server answers with
//! that, and comes back whenever it is cut off.

pub mod client;
pub mod decode;

use std::pin::pin;
use std::sync::Arc;

use anyhow::Result;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::presence::Presence;
use super::upstream::Upstream;
use super::{Backoff, Destination};
use crate::event::{EventId, Gap};
use crate::shutdown::until_stopped;
use crate::stream::Carrier;
use crate::stream::merge::Inflow;
use client::{Answer, Client, EVENT_STREAM_OR_NDJSON, NDJSON_OR_EVENT_STREAM};
use decode::Item;

/// Reads `upstream` until `stop` is cancelled, or until the server says that there is no more to come. However
/// often the upstream goes away, it is tried again, and told the last id that it gave.
pub async fn consume(upstream: Arc<Upstream>, to: Destination, stop: CancellationToken) {
    // Only that says the keys of events, and the ids of those that are state.
    let accept = match to.log.retains() {
        true => NDJSON_OR_EVENT_STREAM,
        false => EVENT_STREAM_OR_NDJSON,
    };
    let met = to.via.met(to.number);
    let mut reading = Reading {
        presence: Presence::of(&upstream, &to),
        name: upstream.to_string(),
        has_met: met.is_met,
        client: Client::new(upstream, accept),
        to: &to,
        backoff: Backoff::new(),
        appender: Appender {
            inflow: &to.inflow,
            last: None,
            missing: None,
        },
    };
    reading.client.resume_after(met.last_event_id.as_deref());
    until_stopped(&stop, pin!(reading.run())).await;
    to.inflow.down();
}

/// What is known across connections.
struct Reading<'a> {
    name: String,
    /// Whether there has been a connection before.
    has_met: bool,
    client: Client,
    backoff: Backoff,
    presence: Presence,
    appender: Appender<'a>,
    to: &'a Destination,
}

impl Reading<'_> {
    async fn run(&mut self) {
        loop {
            self.presence.tries();
            // In a box that is there meanwhile: connecting takes more room than being connected.
            let error = match Box::pin(self.client.open()).await {
                Ok(Answer::NoContent) => {
                    self.presence.ended("it answered 204");
                    return;
                }
                Ok(Answer::Stream(answer)) => {
                    self.presence.leads_to(answer.transport, answer.instance);
                    let carrier = Carrier::of_transport(answer.transport);
                    self.appender.inflow.comes_by(carrier);
                    self.presence.connected();
                    self.appender.inflow.up();
                    self.begin(answer.instance.is_some());
                    self.read(*answer).await
                }
                Err(error) => error,
            };
            self.presence.lost(&error);
            let pause = self.backoff.pause();
            debug!(url = self.name, ?pause, "trying again after a pause");
            sleep(pause).await;
        }
    }

    /// There is a connection. What has been sent since the last one, nobody knows, unless the server can go on behind an id.
    fn begin(&mut self, is_wsevent: bool) {
        let has_met = std::mem::replace(&mut self.has_met, true);
        let (inflow, resumes) = (self.appender.inflow, self.client.can_resume());
        let misses = has_met && !resumes;
        // What a wsevent sends has ids.
        let is_to_be_told = match is_wsevent {
            true => misses,
            false => inflow.feed_begins(misses),
        };
        if is_to_be_told {
            self.appender.lost(None);
        }
        if !is_wsevent {
            inflow.feed_is_up(has_met && resumes);
        }
    }

    /// Reads one answer to its end, and says how it ended.
    async fn read(&mut self, mut answer: client::Stream) -> anyhow::Error {
        let (since, mut events) = (Instant::now(), 0);
        let result = self.follow(&mut answer, &mut events).await;
        self.appender.inflow.down();
        self.client.resume_after(answer.last_event_id());
        self.backoff.connection_ended(since, events > 0);
        match result {
            Ok(()) => anyhow::anyhow!("the stream has ended"),
            Err(error) => error,
        }
    }

    /// Whoever goes on with this, in whatever process, goes on behind this event.
    fn note_last(&self, id: Option<&str>) {
        let Destination { via, number, .. } = self.to;
        via.note_met(*number, |met| {
            met.is_met = true;
            if met.last_event_id.as_deref() != id {
                met.last_event_id = id.map(Into::into);
            }
        });
    }

    async fn follow(&mut self, answer: &mut client::Stream, events: &mut u64) -> Result<()> {
        let mut unusable: u64 = 0;
        while answer.wait().await? {
            while let Some(item) = answer.item() {
                match item {
                    Item::Retry(delay) => self.backoff.ask_for(delay),
                    Item::Unusable(reason) => {
                        unusable += 1;
                        let url = &self.name;
                        // Whoever sends such events may send many.
                        match unusable {
                            1 => warn!(url, reason, "event not taken"),
                            _ => debug!(url, reason, unusable, "event not taken"),
                        }
                        self.appender.lost(Some(1));
                    }
                    item => *events += u64::from(self.appender.take(item)),
                }
            }
            self.note_last(answer.last_event_id());
        }
        Ok(())
    }
}

/// The way into the log, and what is missing on it.
struct Appender<'a> {
    inflow: &'a Inflow,
    /// The last event that came this way.
    last: Option<EventId>,
    /// What is missing right before the next event.
    missing: Option<Gap>,
}

impl Appender<'_> {
    /// Whether it was an event.
    fn take(&mut self, item: Item) -> bool {
        match item {
            Item::Known(event) => {
                self.last = Some(event.id);
                self.inflow.relay(event, self.missing.take());
                true
            }
            Item::New(event) => {
                let gap = self.missing.take();
                self.last = self.inflow.append(event, gap).or(self.last);
                true
            }
            Item::Gap(gap) => {
                // After a connection that brought nothing else it is told again.
                if self.missing.as_ref() != Some(&gap) {
                    self.miss(gap);
                }
                false
            }
            Item::Kept(event) => {
                if self.inflow.log().retains() {
                    self.inflow.adopt(event);
                }
                true
            }
            // Without an id it cannot be told from what is here. A hop that keeps the state asks for NDJSON first.
            Item::KeptUnnamed(_) => false,
            // What was merged is told by the ids.
            Item::Snapshot(_) | Item::Merged(_) | Item::Unusable(_) | Item::Retry(_) => false,
        }
    }

    /// So many events are missing behind the last one, as far as that is known.
    fn lost(&mut self, count: Option<u64>) {
        self.miss(Gap {
            after: self.last.map(|last| last.to_string().into()),
            next: None,
            lost: count,
        });
    }

    /// What is missing twice in a row is one gap.
    fn miss(&mut self, gap: Gap) {
        self.missing = Some(match self.missing.take() {
            Some(before) => Gap {
                after: before.after,
                next: gap.next,
                lost: before.lost.zip(gap.lost).map(|(a, b)| a.saturating_add(b)),
            },
            None => gap,
        });
    }
}
