//! Redis Pub/Sub: whoever listens gets what is published meanwhile. Nothing is kept.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use redis::aio::{PubSub, PubSubSink, PubSubStream};
use redis::{Cmd, Msg, cmd};
use tokio::time::timeout;

use super::super::address::Kind;
use super::super::envelope;
use super::super::{Arrival, Bus, Sent};
use super::ahead::{Allowance, Bounded};
use super::connection::{Connection, failure, in_time, introduced, log_in};
use super::sending::{Sending, Together, try_out};
use crate::event::{Event, Origin};
use crate::source::publish::MAX_LABEL;

/// So many messages are handed on at once, at most: others get their turn.
const MOST: usize = 4_096;

/// A channel that has been checked, and whether it is a pattern.
fn channel(bus: &Bus) -> (&str, bool) {
    match &bus.address.kind {
        Kind::RedisChannel { name, is_pattern } => (name, *is_pattern),
        other => unreachable!("{other:?} is no channel"),
    }
}

/// Reads it.
pub struct Reader {
    bus: Arc<Bus>,
    subscription: Option<Subscription>,
}

struct Subscription {
    commands: PubSubSink,
    messages: PubSubStream,
    allowance: Arc<Allowance>,
    ping_interval: Duration,
}

impl Reader {
    /// Not connected yet.
    pub fn new(bus: Arc<Bus>) -> Self {
        let subscription = None;
        Self { bus, subscription }
    }

    async fn subscribe(&self) -> Result<Subscription> {
        let allowance = Arc::<Allowance>::default();
        allowance.lift();
        let stream = Bounded::new(log_in(&self.bus).await?, allowance.clone());
        let connecting = PubSub::new(&introduced(), stream).await;
        let (mut commands, messages) = connecting.map_err(failure)?.split();
        let (name, is_pattern) = channel(&self.bus);
        let subscribed = match is_pattern {
            true => commands.psubscribe(name).await,
            false => commands.subscribe(name).await,
        };
        subscribed.map_err(failure)?;
        Ok(Subscription {
            commands,
            messages,
            allowance,
            ping_interval: self.bus.upstream.ping_interval,
        })
    }
}

impl Subscription {
    /// The next message, and all that have come with it.
    async fn next(&mut self, mut take: impl FnMut(Msg)) -> Result<()> {
        self.allowance.lift();
        let first = loop {
            match timeout(self.ping_interval, self.messages.next()).await {
                Ok(Some(message)) => break message,
                Ok(None) => bail!("the server has closed the connection"),
                Err(_) => self.ping().await?,
            }
        };
        self.allowance.limit();
        take(first);
        for _ in 1..MOST {
            match self.messages.next().now_or_never().flatten() {
                Some(message) => take(message),
                None => break,
            }
        }
        Ok(())
    }

    /// Whether the server is there, though it has nothing to say.
    async fn ping(&mut self) -> Result<()> {
        let pong = self.commands.ping::<redis::Value>();
        match timeout(self.ping_interval, pong).await {
            // An error is an answer as well; of a connection that is lost the messages tell.
            Ok(_) => Ok(()),
            Err(_) => bail!("the server does not answer"),
        }
    }
}

/// What a message is. Of those that match a pattern, the channel is what they are about.
fn arrival(bus: &Bus, message: &Msg) -> Arrival {
    let payload = Bytes::copy_from_slice(message.get_payload_bytes());
    let mut arrival = bus.envelope.open(payload);
    if let (Arrival::New(event), true) = (&mut arrival, message.from_pattern()) {
        let channel = message.get_channel::<String>().ok();
        event.key = channel
            .filter(|name| name.len() <= MAX_LABEL)
            .map(Into::into);
    }
    arrival
}

impl super::super::Reader for Reader {
    fn connect(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            self.subscription = None;
            self.subscription = Some(in_time(self.subscribe()).await?);
            Ok(())
        })
    }

    fn next<'a>(&'a mut self, arrivals: &'a mut Vec<Arrival>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async {
            let bus = &self.bus;
            let subscription = self.subscription.as_mut().context("it is not connected")?;
            let take = |message| arrivals.push(arrival(bus, &message));
            subscription.next(take).await
        })
    }
}

/// Writes to it.
pub struct Writer {
    bus: Arc<Bus>,
    connection: Option<Connection>,
    sending: Sending,
}

impl Writer {
    /// Not connected yet.
    pub fn new(bus: Arc<Bus>) -> Self {
        Self {
            bus,
            connection: None,
            sending: Sending::default(),
        }
    }

    fn command(bus: &Bus, message: &[u8]) -> Cmd {
        let mut publish = cmd("PUBLISH");
        publish.arg(channel(bus).0).arg(message);
        publish
    }

    async fn open(bus: &Bus) -> Result<Connection> {
        let mut connection = Connection::open(bus).await?;
        try_out(&mut connection, Self::command(bus, b"")).await?;
        Ok(connection)
    }
}

impl super::super::Writer for Writer {
    fn connect(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            self.connection = None;
            self.connection = Some(in_time(Self::open(&self.bus)).await?);
            Ok(())
        })
    }

    fn send<'a>(
        &'a mut self,
        events: &'a [Event],
        _: Option<Origin>,
        sent: &'a mut Vec<Sent>,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async {
            let connection = self.connection.as_mut().context("it is not connected")?;
            let commands = events.iter().map(|event| {
                let message = envelope::message(event, self.bus.envelope);
                (event, Self::command(&self.bus, &message))
            });
            let sending = self
                .sending
                .send(connection, commands.collect(), Together::No, sent);
            sending.await.map(drop)
        })
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
