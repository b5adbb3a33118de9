//! Buses: the same stream, with somebody else's system behind it.
//!
//! ```text
//!   --consume bus      bus ──► read ──► log
//!   --forward bus                       log ──► forward ──► bus
//!   --bus bus          bus ──► read ──► log
//!                      clients ──► outbox ──► bus          what is published comes back from the bus, to all of its hops
//!                      sources ──► a log of their own ──► forward ──► bus
//! ```
//!
//! - [`address`]: what a URL says: which bus, and what on it.
//! - [`envelope`]: how an event's id, time, type and key travel with its payload.
//! - [`read`], [`forward`], [`outbox`]: the three ways, the same for every bus. They reconnect, and keep the promises.
//! - [`deep`]: subscribers that want more than is in memory, where a bus keeps more.
//! - Standard input and recordings are read as buses are.
//! - The other modules each know one kind of bus: a [`Reader`], a [`Writer`], or both.
//!
//! What a bus keeps is the bus's. What it has not confirmed is sent again, with the same id, so that whoever reads the envelope
//! takes it once.

pub mod address;
pub mod deep;
pub mod envelope;
#[cfg(test)]
mod fake;
pub mod figures;
pub mod forward;
#[cfg(feature = "nats")]
mod nats;
pub mod outbox;
pub mod read;
mod recording;
#[cfg(feature = "redis")]
mod redis;
mod stdio;
mod webhook;
#[cfg(feature = "zeromq")]
pub mod zeromq;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use futures_util::future::BoxFuture;

use crate::event::{Event, EventId, Gap, NewEvent, Origin};
use crate::reason;
use crate::source::presence::Named;
use crate::source::secret::conceal;
use crate::source::upstream::Upstream;
use crate::stream::history::Limits;
use address::{Address, Kind};
use envelope::Envelope;

/// A bus, and what on it.
#[derive(Clone)]
pub struct Bus {
    /// Which, and what on it.
    pub address: Address,
    /// How to reach it: what holds for every upstream holds for buses, as far as they know it.
    pub upstream: Upstream,
    /// Whether what is sent to it has an envelope.
    pub envelope: Envelope,
    /// How events are sent to a webhook.
    pub webhook: webhook::Settings,
}

pub use webhook::Settings as WebhookSettings;

/// As it may be shown to anyone.
impl fmt::Display for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.address.to_string();
        f.write_str(&conceal(&self.upstream.variables, &shown))
    }
}

impl Named for Bus {
    fn reason(&self, error: &anyhow::Error) -> String {
        let mut told = self.upstream.clone();
        // What the query of a bus names is shown to anyone; see [`Address`].
        if self.address.kind != Kind::Webhook {
            told.url.set_query(None);
        }
        if told.url.password().is_some() {
            // Then the user's name is none, and words that it may be a part of are not to be torn.
            let _ = told.url.set_username("");
        }
        conceal(&told.secrets(), &reason::of(error))
    }
}

impl Bus {
    /// Whether it keeps what it gets, so that reading can go on where it was, and begin before.
    pub fn is_durable(&self) -> bool {
        matches!(
            self.address.kind,
            Kind::RedisStream { .. } | Kind::JetStream { .. }
        )
    }

    /// How long events are tried on it in vain before they are given up; none: as long as history keeps them.
    fn patience(&self) -> Option<Patience> {
        (self.address.kind == Kind::Webhook).then_some(Patience {
            time: self.webhook.retry_for,
            together: self.webhook.batch,
        })
    }

    /// Whether it may know where an event of this origin is.
    fn finds(&self, origin: Origin) -> bool {
        match self.address.kind {
            // Ours are there under numbers that the id does not tell.
            Kind::JetStream { .. } => !origin.counts(),
            Kind::RedisStream { .. } => true,
            _ => false,
        }
    }
}

/// How long a bus is given.
struct Patience {
    /// For so long.
    time: Duration,
    /// So many events at most are sent, and given up, together.
    together: usize,
}

/// What a bus brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arrival {
    /// An event with its id: from its envelope, or from the bus, if that numbers what it keeps.
    Known(Event),
    /// The same, and what is known to be missing right before it.
    Told(Event, Gap),
    /// An event of the state that some stream keeps.
    Kept(Event),
    /// One that gets its id here.
    New(NewEvent),
    /// So many events are missing here, if it is known how many.
    Lost(Option<u64>),
    /// What is no event, and why.
    Unusable(String),
}

/// What has become of an event that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// The bus has it, and there it bears this id.
    Taken(EventId),
    /// The bus will not have it, however often it is sent: why, in one line.
    Refused(String),
}

/// What brings events from a bus. It lives as long as the stream, and connects as often as it must.
pub(crate) trait Reader: Send {
    /// Connects, once more if need be; what comes then follows on what came before, as far as the bus knows that.
    fn connect(&mut self) -> BoxFuture<'_, Result<()>>;

    /// What the bus has kept, oldest first, as much as a history within these limits holds. Asked for once, behind the first
    /// [`connect`](Self::connect); [`next`](Self::next) goes on right behind it.
    fn past(&mut self, _: Limits) -> BoxFuture<'_, Result<Vec<Event>>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    /// Goes to a place in what the bus keeps, instead of asking for the [`past`](Self::past); [`next`](Self::next) goes on from there, in
    /// smaller portions. None if there is nothing there, or no such place.
    fn begin(&mut self, _: Begin) -> BoxFuture<'_, Result<Option<Begun>>> {
        Box::pin(async { Ok(None) })
    }

    /// Where reading stands, for whoever goes on in another process; none if the bus knows, or nobody does.
    fn place(&self) -> Option<Box<str>> {
        None
    }

    /// Goes on there. Said before the first [`connect`](Self::connect).
    fn go_on_at(&mut self, _: &str) {}

    /// Waits until there is something, and adds all that is there. Not to be given up in the middle, except with the reader.
    fn next<'a>(&'a mut self, arrivals: &'a mut Vec<Arrival>) -> BoxFuture<'a, Result<()>>;
}

/// Where in what a bus keeps somebody begins to read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begin {
    /// With its first event.
    First,
    /// So many events before its end.
    Last(u64),
    /// Right behind this event.
    After(EventId),
}

/// What there is from there on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Begun {
    /// So many events, as of now.
    pub count: u64,
    /// Events that are missing before these, and how many if that is known.
    pub lost: Option<Option<u64>>,
}

/// What takes events to a bus. It lives as long as the stream, and connects as often as it must.
pub(crate) trait Writer: Send {
    /// Connects, once more if need be.
    fn connect(&mut self) -> BoxFuture<'_, Result<()>>;

    /// Sends events, in this order, and waits until the bus has confirmed them all; adds for each what has become of it. One that is
    /// never a `--bus` may leave the last of them for another time. Those whose ids are from `own` may get others from the bus. After
    /// an error some of the first may be there, or not: they are sent again with the same ids. It may be given up, and then
    /// [`connect`](Self::connect) comes next.
    fn send<'a>(
        &'a mut self,
        events: &'a [Event],
        own: Option<Origin>,
        sent: &'a mut Vec<Sent>,
    ) -> BoxFuture<'a, Result<()>>;

    /// Waits, while there is nothing to send, until the connection is lost. May be given up at any time.
    fn lost(&mut self) -> BoxFuture<'_, anyhow::Error>;
}

impl Bus {
    /// Whether nothing is missed while nobody reads it.
    fn waits(&self) -> bool {
        self.is_durable() || matches!(self.address.kind, Kind::Recording(_))
    }

    /// What reads it.
    pub(crate) fn reader(self: &Arc<Self>) -> Box<dyn Reader> {
        let bus = self.clone();
        match &self.address.kind {
            #[cfg(feature = "redis")]
            Kind::RedisChannel { .. } => Box::new(redis::channel::Reader::new(bus)),
            #[cfg(feature = "redis")]
            Kind::RedisStream { .. } => Box::new(redis::stream::Reader::new(bus)),
            #[cfg(feature = "nats")]
            Kind::Nats { .. } => Box::new(nats::core::Reader::new(bus)),
            #[cfg(feature = "nats")]
            Kind::JetStream { .. } => Box::new(nats::jetstream::Reader::new(bus)),
            #[cfg(feature = "zeromq")]
            Kind::ZeroMq { .. } => Box::new(zeromq::Reader::new(bus)),
            Kind::Lines => Box::new(stdio::Reader::new(bus)),
            Kind::Recording(_) => Box::new(recording::Reader::new(bus)),
            _ => unreachable!("its URL was checked"),
        }
    }

    /// What writes to it.
    pub(crate) fn writer(self: &Arc<Self>) -> Box<dyn Writer> {
        let bus = self.clone();
        match &self.address.kind {
            #[cfg(feature = "redis")]
            Kind::RedisChannel { .. } => Box::new(redis::channel::Writer::new(bus)),
            #[cfg(feature = "redis")]
            Kind::RedisStream { .. } => Box::new(redis::stream::Writer::new(bus)),
            #[cfg(feature = "nats")]
            Kind::Nats { .. } => Box::new(nats::core::Writer::new(bus)),
            #[cfg(feature = "nats")]
            Kind::JetStream { .. } => Box::new(nats::jetstream::Writer::new(bus)),
            #[cfg(feature = "zeromq")]
            Kind::ZeroMq { .. } => Box::new(zeromq::Writer::new(bus)),
            Kind::Webhook => Box::new(webhook::Writer::new(bus)),
            Kind::Lines => Box::new(stdio::Writer::new(bus)),
            Kind::Recording(_) => unreachable!("it is read only"),
            #[cfg(not(all(feature = "redis", feature = "nats", feature = "zeromq")))]
            _ => unreachable!("its URL was checked"),
        }
    }
}
