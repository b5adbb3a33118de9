//! Reading a stream, from a number on. Nothing is acknowledged: where a reader is, it knows itself.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use async_nats::jetstream;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use tokio::time::timeout;
use tracing::warn;

use super::super::super::{Arrival, Begin, Begun, Bus};
use super::super::connection::{Connection, NOT_CONNECTED, Trouble};
use super::super::header;
use super::store::{self, Store};
use crate::event::{self, Event, EventId, Origin};
use crate::stream::history::Limits;

/// How long the server keeps a question for more.
const EXPIRES: Duration = Duration::from_secs(30);
/// How often it says that it has nothing.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// After so long without any of the past it is asked how much of it is left.
const QUIET: Duration = Duration::from_secs(2);

/// Reads a stream.
pub struct Reader {
    bus: Arc<Bus>,
    /// Behind which message it is, once that is known.
    place: Option<Place>,
    reading: Option<Reading>,
    /// What has been found missing, and is not told yet.
    missing: Vec<Arrival>,
    /// So many of the next messages are before the place that was wanted.
    skip: u64,
    portion: Portion,
}

/// How much is asked for at once, at most.
#[derive(Debug, Clone, Copy)]
struct Portion {
    messages: usize,
    /// More only if one message may be longer.
    bytes: usize,
    /// How long the server keeps the place of a reader that asks for nothing: it is gone, or waits for somebody who is slow.
    idle: Duration,
}

/// For a log, which takes all that comes.
const LARGE: Portion = Portion {
    messages: 2_048,
    bytes: 8 << 20,
    idle: Duration::from_secs(30),
};
/// For one subscriber, who may take his time.
const SMALL: Portion = Portion {
    messages: 256,
    bytes: 1 << 20,
    idle: Duration::from_secs(120),
};

/// A place in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    origin: Origin,
    /// The number of the last message before it.
    last: u64,
}

struct Reading {
    connection: Connection,
    store: Store,
    consumer: Option<Consumer>,
}

/// What the server sends from a place on.
struct Consumer {
    messages: pull::Stream,
    /// So many are handed on at once, at most.
    most: usize,
    /// So many it has sent.
    sent: u64,
    /// Whether there was more behind the last of these.
    is_behind: bool,
}

/// A message of a stream.
struct Numbered {
    seq: u64,
    arrival: Arrival,
}

impl Reader {
    /// Not connected yet.
    pub fn new(bus: Arc<Bus>) -> Self {
        Self {
            bus,
            place: None,
            reading: None,
            missing: Vec::new(),
            skip: 0,
            portion: LARGE,
        }
    }

    /// Finds the place again, in what the stream is now.
    fn resume(&mut self, store: &Store) {
        let Some(mut place) = self.place else {
            return;
        };
        let (origin, first, last) = (store.origin(), store.first(), store.last());
        let url = self.bus.to_string();
        if place.origin != origin {
            warn!(
                url,
                "the stream has been made anew: reading from its beginning"
            );
            place = Place {
                origin,
                last: first - 1,
            };
            self.missing.push(Arrival::Lost(None));
        } else if last < place.last {
            warn!(
                url,
                was = place.last,
                is = last,
                "the stream has lost messages that were read from it"
            );
            place.last = last;
            self.missing.push(Arrival::Lost(None));
        } else if first > place.last + 1 {
            self.missing.push(self.lost_between(place.last, first));
            place.last = first - 1;
        }
        self.place = Some(place);
    }

    /// What it means that there is nothing any more between these two numbers.
    fn lost_between(&self, last: u64, first: u64) -> Arrival {
        let (_, subject) = store::names(&self.bus);
        // How many of them had this subject, nobody knows.
        Arrival::Lost(subject.is_none().then(|| first - last - 1))
    }

    async fn past(&mut self, limits: Limits) -> Result<Vec<Event>> {
        let bus = self.bus.clone();
        let reading = self.reading.as_mut().context(NOT_CONNECTED)?;
        // What has come since the connection was made is a part of it.
        reading.store.update(&reading.connection).await?;
        let origin = reading.store.origin();
        let last = reading.store.last();
        let from = reading.start(&bus, &limits).await?;
        let mut past = Past::new(limits);
        let mut at = from.saturating_sub(1);
        let mut pending = reading.consume(&bus, self.portion, from).await?;
        while pending > 0 && at < last {
            let mut messages = Vec::new();
            let coming = reading.next(&bus, &mut messages);
            match timeout(QUIET, coming).await {
                Ok(result) => result?,
                // What was pending may have been deleted before it was sent; nobody tells that.
                Err(_) => pending = reading.count(&bus, at + 1).await?,
            }
            for Numbered { seq, arrival } in messages {
                at = seq;
                past.push(arrival);
            }
            if !reading.is_behind() {
                pending = 0;
            }
        }
        self.place = Some(Place {
            origin,
            last: at.max(last),
        });
        Ok(past.events.into())
    }

    async fn begin(&mut self, begin: Begin) -> Result<Option<Begun>> {
        let bus = self.bus.clone();
        self.portion = SMALL;
        let reading = self.reading.as_mut().context(NOT_CONNECTED)?;
        reading.store.update(&reading.connection).await?;
        let origin = reading.store.origin();
        let (first, last) = (reading.store.first(), reading.store.last());
        let wanted = match begin {
            Begin::First => first,
            Begin::Last(count) => reading.before_end(&bus, count).await?,
            Begin::After(id) if id.origin == origin && id.seq < last => id.seq + 1,
            Begin::After(_) => return Ok(None),
        };
        let from = wanted.max(first);
        let count = reading.consume(&bus, self.portion, from).await?;
        self.place = Some(Place {
            origin,
            last: from - 1,
        });
        if let Begin::Last(wanted) = begin {
            self.skip = count.saturating_sub(wanted);
        }
        let (_, subject) = store::names(&bus);
        let lost = (from > wanted).then(|| subject.is_none().then_some(from - wanted));
        let count = count - self.skip;
        Ok((count > 0).then_some(Begun { count, lost }))
    }

    async fn next(&mut self, arrivals: &mut Vec<Arrival>) -> Result<()> {
        if !self.missing.is_empty() {
            arrivals.append(&mut self.missing);
            return Ok(());
        }
        let bus = self.bus.clone();
        let reading = self.reading.as_mut().context(NOT_CONNECTED)?;
        let mut place = *self.place.get_or_insert_with(|| Place {
            origin: reading.store.origin(),
            last: reading.store.last(),
        });
        if reading.consumer.is_none() {
            reading.consume(&bus, self.portion, place.last + 1).await?;
        }
        let was_behind = reading.is_behind();
        let mut messages = Vec::new();
        reading.next(&bus, &mut messages).await?;
        let is_before = |message: &Numbered| message.seq <= place.last;
        messages.retain(|message| !is_before(message));
        let skipped = messages
            .len()
            .min(usize::try_from(self.skip).unwrap_or(usize::MAX));
        self.skip -= skipped as u64;
        if let Some(last) = messages.drain(..skipped).last() {
            place.last = last.seq;
        }
        // Who is behind may have been overtaken by what the stream lets go of.
        let mut before = place.last;
        let has_hole = messages.iter().any(|message| {
            let is_hole = message.seq > before + 1;
            before = message.seq;
            is_hole
        });
        let first = match has_hole && was_behind {
            true => {
                reading.store.update(&reading.connection).await?;
                reading.store.first()
            }
            false => 0,
        };
        for Numbered { seq, arrival } in messages {
            if seq > place.last + 1 && first > place.last + 1 {
                arrivals.push(self.lost_between(place.last, seq));
            }
            place.last = seq;
            arrivals.push(arrival);
        }
        self.place = Some(place);
        Ok(())
    }
}

impl super::super::super::Reader for Reader {
    fn connect(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            self.reading = None;
            let connection = Connection::open(&self.bus).await?;
            let (name, _) = store::names(&self.bus);
            let store = Store::find(&connection, name).await?;
            self.resume(&store);
            let mut reading = Reading {
                connection,
                store,
                consumer: None,
            };
            // Whether it may be read shows here, and not only behind what was promised.
            if let Some(place) = self.place {
                reading
                    .consume(&self.bus, self.portion, place.last + 1)
                    .await?;
            }
            self.reading = Some(reading);
            Ok(())
        })
    }

    fn past(&mut self, limits: Limits) -> BoxFuture<'_, Result<Vec<Event>>> {
        Box::pin(self.past(limits))
    }

    fn begin(&mut self, begin: Begin) -> BoxFuture<'_, Result<Option<Begun>>> {
        Box::pin(self.begin(begin))
    }

    fn next<'a>(&'a mut self, arrivals: &'a mut Vec<Arrival>) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.next(arrivals))
    }
}

impl Reading {
    /// The number of the first message of which a history within `limits` may hold all that follow.
    async fn start(&self, bus: &Bus, limits: &Limits) -> Result<u64> {
        let state = &self.store.info.state;
        let (first, last) = (self.store.first(), self.store.last());
        // Of the bytes that the stream counts some are headers and the like: so there are more rather than fewer.
        let size = (state.bytes / state.messages.max(1)).max(1);
        let by_bytes = (limits.bytes as u64 / size).saturating_add(1);
        let count = limits
            .count
            .map_or(by_bytes, |most| by_bytes.min(most as u64));
        let (_, subject) = store::names(bus);
        let span = match subject {
            None => count,
            Some(_) => {
                // Those with this subject are spread over the others, evenly as far as anybody knows.
                let matching = self.count(bus, first).await?;
                let all = last.saturating_sub(first).saturating_add(1);
                let each = all as f64 / matching.max(1) as f64;
                (count as f64 * each).ceil() as u64
            }
        };
        Ok((last + 1).saturating_sub(span).max(first))
    }

    /// The number of a message of which at least `count` of those that are read follow, itself included; of the first, if there are fewer.
    async fn before_end(&self, bus: &Bus, count: u64) -> Result<u64> {
        let (first, end) = (self.store.first(), self.store.last() + 1);
        // As many as numbers, if none is missing or of another subject; else a multiple.
        let mut span = count;
        loop {
            let from = end.saturating_sub(span).max(first);
            if from == first || self.count(bus, from).await? >= count {
                return Ok(from);
            }
            span = span.saturating_mul(4);
        }
    }

    /// How many messages there are to read from this one on.
    async fn count(&self, bus: &Bus, from: u64) -> Result<u64> {
        let (counter, count) = self.consumer(bus, LARGE.idle, from).await?;
        let name = &counter.cached_info().name;
        let stream = &self.store.info.config.name;
        let context = &self.store.context;
        // It is of no further use; if it stays, then not for long.
        let _ = context.delete_consumer_from_stream(name, stream).await;
        Ok(count)
    }

    /// Has the server send what is there from the message `from` on. How many these are.
    async fn consume(&mut self, bus: &Bus, portion: Portion, from: u64) -> Result<u64> {
        let (consumer, pending) = self.consumer(bus, portion.idle, from).await?;
        let longest = self.connection.client.max_payload();
        let messages = consumer
            .stream()
            .max_messages_per_batch(portion.messages)
            .max_bytes_per_batch(portion.bytes.max(longest * 2))
            .expires(EXPIRES)
            .heartbeat(HEARTBEAT)
            .messages();
        let messages = messages.await.map_err(|error| anyhow!("{error}"))?;
        self.consumer = Some(Consumer {
            messages,
            most: portion.messages,
            sent: 0,
            is_behind: pending > 0,
        });
        Ok(pending)
    }

    async fn consumer(
        &self,
        bus: &Bus,
        idle: Duration,
        from: u64,
    ) -> Result<(jetstream::consumer::Consumer<pull::Config>, u64)> {
        let (name, subject) = store::names(bus);
        let config = pull::Config {
            description: Some("wsevent".to_owned()),
            deliver_policy: DeliverPolicy::ByStartSequence {
                start_sequence: from.max(1),
            },
            ack_policy: AckPolicy::None,
            filter_subject: subject.unwrap_or_default().to_owned(),
            memory_storage: true,
            num_replicas: 1,
            inactive_threshold: idle,
            ..pull::Config::default()
        };
        let creating = self.store.context.create_consumer_on_stream(config, name);
        let consumer = tokio::select! {
            biased;
            error = self.connection.over() => return Err(error),
            consumer = creating => consumer.map_err(|error| store::no_consumer(name, &error))?,
        };
        let pending = consumer.cached_info().num_pending;
        Ok((consumer, pending))
    }

    fn is_behind(&self) -> bool {
        self.consumer.as_ref().is_some_and(|it| it.is_behind)
    }

    /// Waits until there is something, and adds all that is there.
    async fn next(&mut self, bus: &Bus, messages: &mut Vec<Numbered>) -> Result<()> {
        let Self {
            connection,
            store,
            consumer,
        } = self;
        let consumer = consumer.as_mut().context(NOT_CONNECTED)?;
        let origin = store.origin();
        let first = loop {
            tokio::select! {
                biased;
                message = consumer.messages.next() => break message,
                trouble = connection.trouble() => match trouble {
                    Trouble::Over(error) => return Err(error),
                    // The numbers tell.
                    Trouble::Dropped => {}
                }
            }
        };
        let Some(first) = first else {
            return Err(connection.over().await);
        };
        messages.push(consumer.take(first, bus, origin)?);
        while messages.len() < consumer.most {
            match consumer.messages.next().now_or_never().flatten() {
                // What has come before an error is good.
                Some(Err(_)) | None => break,
                Some(message) => messages.push(consumer.take(message, bus, origin)?),
            }
        }
        Ok(())
    }
}

impl Consumer {
    fn take(
        &mut self,
        message: Result<jetstream::Message, pull::MessagesError>,
        bus: &Bus,
        origin: Origin,
    ) -> Result<Numbered> {
        let message = message?;
        let info = message.info().map_err(|error| anyhow!("{error}"))?;
        self.sent += 1;
        if info.consumer_sequence != self.sent {
            bail!("messages were lost on the way");
        }
        self.is_behind = info.pending > 0;
        let seq = info.stream_sequence;
        let micros = info.published.unix_timestamp_nanos() / 1_000;
        let time = u64::try_from(micros).unwrap_or_default();
        let numbered = (EventId { origin, seq }, time);
        let message = message.message;
        let headers = message.headers.as_ref();
        let arrival = header::read_numbered(headers, message.payload, bus.envelope, numbered);
        Ok(Numbered { seq, arrival })
    }
}

/// The newest of what has been read, as far as a history would hold it.
struct Past {
    events: VecDeque<Event>,
    bytes: usize,
    limits: Limits,
    since: u64,
}

impl Past {
    fn new(limits: Limits) -> Self {
        let age = limits.age.map_or(u64::MAX, |age| age.as_micros() as u64);
        Self {
            events: VecDeque::new(),
            bytes: 0,
            limits,
            since: event::now().saturating_sub(age),
        }
    }

    fn push(&mut self, arrival: Arrival) {
        let Arrival::Known(event) = arrival else {
            return;
        };
        if event.time < self.since {
            return;
        }
        self.bytes += event.payload.bytes.len();
        self.events.push_back(event);
        let most = self.limits.count.unwrap_or(usize::MAX);
        while self.bytes > self.limits.bytes || self.events.len() > most {
            let Some(oldest) = self.events.pop_front() else {
                return;
            };
            self.bytes -= oldest.payload.bytes.len();
        }
    }
}
