//! From a bus into a log: reads for as long as the stream lives, and comes back whenever the connection is lost.

use std::pin::pin;
use std::sync::Arc;

use anyhow::Result;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::figures::Figures;
use super::{Arrival, Bus, Reader};
use crate::event::{Event, EventId, Gap};
use crate::shutdown::until_stopped;
use crate::source::presence::Presence;
use crate::source::{Backoff, Destination};
use crate::stream::via::Via;
use crate::stream::{Carrier, EventLog, Way};

/// Reads `bus` until `stop` is cancelled, or until it says that there is no more to come.
pub async fn consume(
    bus: Arc<Bus>,
    figures: Arc<Figures>,
    to: Destination,
    stop: CancellationToken,
) {
    let presence = Presence::of(&bus, &to);
    let met = (to.via.clone(), to.number);
    let entry = Entry {
        name: bus.to_string(),
        log: to.log,
        link: to.number,
        figures,
        most: bus.upstream.max_message_size,
        resumes: bus.waits(),
        last: None,
        missing: None,
        unusable: 0,
    };
    let mut reading = Reading::new(bus.reader(), presence, entry);
    reading.owes_past = bus.is_durable();
    let before = met.0.met(met.1);
    reading.has_met = before.is_met;
    if let Some(place) = before.last_event_id {
        reading.reader.go_on_at(&place);
    }
    reading.met = Some(met);
    until_stopped(&stop, pin!(reading.run())).await;
    // It may have ended by itself before, or just now.
    reading.entry.figures.ended();
}

/// There is no more to come, by this.
#[derive(Debug)]
pub(super) struct Ended(pub &'static str);

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Ended {}

struct Reading {
    reader: Box<dyn Reader>,
    presence: Presence,
    backoff: Backoff,
    entry: Entry,
    /// Whether there has been a connection before.
    has_met: bool,
    /// Where that is noted, and under which number.
    met: Option<(Arc<Via>, usize)>,
    /// Whether the past is still to be asked for.
    owes_past: bool,
}

impl Reading {
    fn new(reader: Box<dyn Reader>, presence: Presence, entry: Entry) -> Self {
        Self {
            reader,
            presence,
            backoff: Backoff::new(),
            has_met: false,
            met: None,
            owes_past: entry.resumes,
            entry,
        }
    }

    async fn run(&mut self) {
        loop {
            let since = Instant::now();
            let before = self.entry.figures.counts().events;
            let Err(error) = self.connection().await;
            if let Some(ended) = error.downcast_ref::<Ended>() {
                self.presence.has_given_all(ended.0);
                return;
            }
            let reason = self.presence.lost(&error);
            self.entry.figures.away(&reason);
            let brought_events = self.entry.figures.counts().events > before;
            self.backoff.connection_ended(since, brought_events);
            let pause = self.backoff.pause();
            debug!(url = self.entry.name, ?pause, "trying again after a pause");
            sleep(pause).await;
        }
    }

    /// One connection, from its beginning to its end.
    async fn connection(&mut self) -> Result<std::convert::Infallible> {
        self.reader.connect().await?;
        if std::mem::replace(&mut self.has_met, true) {
            self.entry.was_interrupted();
        }
        if let Some((via, number)) = &self.met {
            via.note_met(*number, |met| met.is_met = true);
        }
        if self.owes_past {
            self.past().await?;
        }
        // With its past: who waits for it wants to have that.
        self.entry.figures.connected();
        self.presence.connected();
        let mut arrivals = Vec::new();
        loop {
            self.reader.next(&mut arrivals).await?;
            for arrival in arrivals.drain(..) {
                self.entry.take(arrival);
            }
            self.note_place();
        }
    }

    /// Whoever goes on with this, in whatever process, goes on here.
    fn note_place(&self) {
        if let (Some((via, number)), Some(place)) = (&self.met, self.reader.place()) {
            via.note_met(*number, |met| met.last_event_id = Some(place));
        }
    }

    /// What the bus has kept goes before what is here, as far as it is older than this log; the rest is news.
    async fn past(&mut self) -> Result<()> {
        let log = &self.entry.log;
        let past = self.reader.past(log.limits()).await?;
        let (old, news): (Vec<_>, Vec<_>) =
            past.into_iter().partition(|event| event.time < log.began());
        if let Some(local) = log.own_local() {
            local.backfill(old.iter().cloned());
        }
        log.backfill_by(Way::of(self.entry.link).by(Carrier::Bus), old);
        for event in news {
            self.entry.take(Arrival::Known(event));
        }
        self.entry.log.past_is_settled();
        self.owes_past = false;
        Ok(())
    }
}

/// The way into the log, and what is missing on it.
struct Entry {
    name: String,
    log: Arc<EventLog>,
    /// The number of this source there.
    link: usize,
    figures: Arc<Figures>,
    /// The largest payload that is taken, in bytes.
    most: usize,
    /// Whether reading goes on where it was; what has been lost nevertheless, the bus says.
    resumes: bool,
    /// The last event that came this way.
    last: Option<EventId>,
    /// What is missing right before the next event.
    missing: Option<Missing>,
    unusable: u64,
}

/// What is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    /// So many, if that is known.
    Count(Option<u64>),
    /// Perhaps some, as nobody listened for a while. Numbers that follow say it better.
    Perhaps,
}

impl Entry {
    fn was_interrupted(&mut self) {
        if self.missing.is_none() && !self.resumes {
            self.missing = Some(Missing::Perhaps);
        }
    }

    fn take(&mut self, arrival: Arrival) {
        let size = match &arrival {
            Arrival::Known(event) | Arrival::Told(event, _) | Arrival::Kept(event) => {
                event.payload.bytes.len()
            }
            Arrival::New(event) => event.payload.bytes.len(),
            Arrival::Lost(count) => return self.lose(*count),
            Arrival::Unusable(reason) => {
                let reason = reason.clone();
                return self.refuse(&reason);
            }
        };
        if size > self.most {
            let most = self.most;
            return self.refuse(&format!(
                "it is longer than {most} bytes (--max-message-size)"
            ));
        }
        self.figures.passed(1, size as u64);
        match arrival {
            Arrival::Known(event) => self.relay(event, None),
            Arrival::Told(event, gap) => self.relay(event, Some(gap)),
            Arrival::Kept(event) => {
                if self.log.retains() {
                    self.log.adopt(event);
                }
            }
            Arrival::New(event) => {
                let gap = self.missing.take().map(|missing| self.gap(missing));
                self.last = Some(self.log.append_by(
                    Way::of(self.link).by(Carrier::Bus),
                    event,
                    gap,
                ));
            }
            Arrival::Lost(_) | Arrival::Unusable(_) => unreachable!("they are dealt with"),
        }
    }

    /// `told` is what the bus says is missing right before it.
    fn relay(&mut self, event: Event, told: Option<Gap>) {
        let id = event.id;
        let gap = match self.missing {
            None => told,
            // Of an origin that has been here its numbers tell; of one that has begun meanwhile, it is its first.
            Some(Missing::Perhaps) if self.log.knows(id.origin) || id.seq == 1 => None,
            missing => missing.map(|missing| self.gap(missing)),
        };
        if self
            .log
            .relay_by(Way::of(self.link).by(Carrier::Bus), event, gap)
        {
            self.last = Some(id);
            self.missing = None;
        }
    }

    /// One that cannot be taken is missing.
    fn refuse(&mut self, reason: &str) {
        self.unusable += 1;
        self.figures.refused();
        let (url, unusable) = (&self.name, self.unusable);
        // Whoever sends such events may send many.
        match unusable {
            1 => warn!(url, reason, "event not taken"),
            _ => debug!(url, reason, unusable, "event not taken"),
        }
        self.lose(Some(1));
    }

    fn lose(&mut self, count: Option<u64>) {
        self.figures.lost(count.unwrap_or(0));
        self.missing = Some(Missing::Count(match self.missing {
            None => count,
            Some(Missing::Count(before)) => before.zip(count).map(|(a, b)| a.saturating_add(b)),
            Some(Missing::Perhaps) => None,
        }));
    }

    fn gap(&self, missing: Missing) -> Gap {
        Gap {
            after: self.last.map(|last| last.to_string().into()),
            next: None,
            lost: match missing {
                Missing::Count(count) => count,
                Missing::Perhaps => None,
            },
        }
    }
}

#[cfg(test)]
mod tests;
