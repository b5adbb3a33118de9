//! A subject of NATS. Nothing is kept: who does not listen misses what is published.

mod queue;

use std::sync::Arc;

use anyhow::{Context, Result};
use async_nats::client::PublishErrorKind;
use futures_util::future::BoxFuture;
use tokio::time::timeout;

use super::super::address::Kind;
use super::super::{Arrival, Bus, Sent};
use super::connection::{Connection, Echo, NOT_CONNECTED, PATIENCE, Trouble, silent};
use super::header;
use crate::event::{Event, Origin};
use crate::source::refusal::Unfit;
use queue::{Item, Queue};

/// So many messages are handed on at once, at most.
const MOST: usize = 1_024;

fn subject(bus: &Bus) -> &str {
    match &bus.address.kind {
        Kind::Nats { subject } => subject,
        _ => unreachable!("a subject is read and written"),
    }
}

/// Reads it.
pub struct Reader {
    bus: Arc<Bus>,
    listening: Option<Listening>,
}

struct Listening {
    connection: Connection,
    messages: Queue,
}

impl Reader {
    /// Not connected yet.
    pub fn new(bus: Arc<Bus>) -> Self {
        Self {
            bus,
            listening: None,
        }
    }
}

impl super::super::Reader for Reader {
    fn connect(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            self.listening = None;
            let mut connection = Connection::open(&self.bus).await?;
            let subject = subject(&self.bus).to_owned();
            let messages = connection.client.subscribe(subject).await?;
            let messages = Queue::of(messages);
            // From here on nothing is missed, whether or not the user may publish.
            connection.settle(2).await?;
            self.listening = Some(Listening {
                connection,
                messages,
            });
            Ok(())
        })
    }

    fn next<'a>(&'a mut self, arrivals: &'a mut Vec<Arrival>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async {
            let bus = self.bus.clone();
            let listening = self.listening.as_mut().context(NOT_CONNECTED)?;
            listening.next(&bus, arrivals).await
        })
    }
}

impl Listening {
    async fn next(&mut self, bus: &Bus, arrivals: &mut Vec<Arrival>) -> Result<()> {
        let items = tokio::select! {
            // What has come before the end is good.
            biased;
            items = self.messages.take(MOST) => items,
            trouble = self.connection.trouble() => match trouble {
                // Somewhere behind what waits; nobody knows how many.
                Trouble::Dropped => {
                    arrivals.push(Arrival::Lost(None));
                    return Ok(());
                }
                Trouble::Over(error) => return Err(error),
            }
        };
        if items.is_empty() {
            return Err(self.connection.over().await);
        }
        arrivals.extend(items.into_iter().map(|item| match item {
            Item::Message(message) => {
                let headers = message.headers.as_ref();
                header::read(headers, message.payload, bus.envelope)
            }
            Item::Lost(count) => Arrival::Lost(Some(count)),
        }));
        Ok(())
    }
}

/// Writes to it.
pub struct Writer {
    bus: Arc<Bus>,
    connection: Option<Connection>,
    /// Whether the server has confirmed something before.
    has_settled: bool,
}

impl Writer {
    /// Not connected yet.
    pub fn new(bus: Arc<Bus>) -> Self {
        Self {
            bus,
            connection: None,
            has_settled: false,
        }
    }

    /// Publishes all that can be, and waits until the server has dealt with it.
    async fn publish(&mut self, events: &[Event]) -> Result<Vec<Sent>> {
        let connection = self.connection.as_mut().context(NOT_CONNECTED)?;
        let subject = async_nats::Subject::from(subject(&self.bus));
        let mut sent = Vec::with_capacity(events.len());
        for event in events {
            let headers = header::write(event, self.bus.envelope);
            let payload = event.payload.bytes.clone();
            let publishing = match headers.is_empty() {
                true => connection.client.publish(subject.clone(), payload).await,
                false => {
                    let subject = subject.clone();
                    let client = &connection.client;
                    client.publish_with_headers(subject, headers, payload).await
                }
            };
            sent.push(match publishing {
                Ok(()) => Sent::Taken(event.id),
                Err(error) => match error.kind() {
                    PublishErrorKind::MaxPayloadExceeded => Sent::Refused(connection.too_large()),
                    _ => return Err(connection.over().await),
                },
            });
        }
        // That something is not allowed shows with the first.
        let rounds = if self.has_settled { 1 } else { 2 };
        connection.settle(rounds).await?;
        self.has_settled = true;
        Ok(sent)
    }
}

impl super::super::Writer for Writer {
    fn connect(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            self.connection = None;
            self.has_settled = false;
            let mut connection = Connection::open(&self.bus).await?;
            if connection.settle(1).await? == Echo::None {
                return Err(Unfit(
                    "the server does not let this user publish and subscribe to _INBOX.>, by which it confirms what it has: allow that"
                        .to_owned(),
                )
                .into());
            }
            self.connection = Some(connection);
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
            let over = self
                .connection
                .as_ref()
                .context(NOT_CONNECTED)?
                .whether_over();
            let publishing = timeout(PATIENCE, self.publish(events));
            sent.extend(tokio::select! {
                published = publishing => published.map_err(|_| silent())??,
                // A server that takes nothing more holds up publishing as such.
                error = over => return Err(error),
            });
            Ok(())
        })
    }

    fn lost(&mut self) -> BoxFuture<'_, anyhow::Error> {
        Box::pin(async {
            match &self.connection {
                Some(connection) => connection.over().await,
                None => std::future::pending().await,
            }
        })
    }
}
