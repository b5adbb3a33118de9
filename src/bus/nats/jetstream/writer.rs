//! Writing to a stream. It confirms each message with its number there, and drops what it has already.

use std::sync::Arc;

use anyhow::{Result, anyhow, bail};
use async_nats::Subject;
use async_nats::jetstream::context::{PublishAckFuture, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::{Error as ApiError, ErrorCode};
use futures_util::future::BoxFuture;

use super::super::super::{Bus, Sent};
use super::super::connection::{Connection, silent};
use super::super::header;
use super::store::{self, Store};
use crate::event::{Event, EventId, Origin};
use crate::source::refusal::Unfit;

/// Writes to a stream.
pub struct Writer {
    bus: Arc<Bus>,
    writing: Option<Writing>,
}

struct Writing {
    connection: Connection,
    store: Store,
    origin: Origin,
    subject: Subject,
    /// The number of the last message that was confirmed.
    last: u64,
}

/// A message on its way.
enum Underway {
    Sent(PublishAckFuture),
    Refused(String),
}

impl Writer {
    /// Not connected yet.
    pub fn new(bus: Arc<Bus>) -> Self {
        Self { bus, writing: None }
    }
}

/// What messages get as their subject.
fn subject(bus: &Bus, store: &Store) -> Result<Subject> {
    let (name, said) = store::names(bus);
    let all = &store.info.config.subjects;
    let unfit = |why: String| Err(Unfit(why).into());
    match (said, &all[..]) {
        (Some(said), all) if all.iter().any(|pattern| store::has(pattern, said)) => Ok(said.into()),
        (Some(said), all) => unfit(format!(
            "'{said}' is no subject of the stream '{name}', which has: {}",
            all.join(", ")
        )),
        (None, []) => unfit(format!(
            "the stream '{name}' has no subject to publish to: it is a copy of others"
        )),
        (None, [only]) if !store::is_wild(only) => Ok(only.as_str().into()),
        (None, all) => unfit(format!(
            "the stream '{name}' has more than one subject ({}): say which with ?subject=",
            all.join(", ")
        )),
    }
}

impl Writing {
    async fn send(&self, event: &Event, bus: &Bus, own: Option<Origin>) -> Result<Underway> {
        let mut headers = match own == Some(event.id.origin) {
            true => header::write_without_id(event),
            false => header::write(event, bus.envelope),
        };
        header::add_id(&mut headers, event.id);
        let message = PublishMessage::build()
            .payload(event.payload.bytes.clone())
            .headers(headers)
            // Of a stream that has been made anew with other subjects nobody would read here.
            .expected_stream(&self.store.info.config.name);
        match self
            .store
            .context
            .send_publish(self.subject.clone(), message)
            .await
        {
            Ok(underway) => Ok(Underway::Sent(underway)),
            Err(error) => match error.kind() {
                PublishErrorKind::MaxPayloadExceeded => {
                    Ok(Underway::Refused(self.connection.too_large()))
                }
                PublishErrorKind::TimedOut => Err(silent()),
                _ => Err(anyhow!("{error}")),
            },
        }
    }

    async fn confirmed(&mut self, underway: Underway, id: EventId, is_own: bool) -> Result<Sent> {
        let underway = match underway {
            Underway::Sent(underway) => underway,
            Underway::Refused(why) => return Ok(Sent::Refused(why)),
        };
        match underway.await {
            Ok(ack) => {
                if !ack.duplicate && ack.sequence <= self.last {
                    bail!("the stream has been made anew");
                }
                self.last = self.last.max(ack.sequence);
                let in_store = EventId {
                    origin: self.origin,
                    seq: ack.sequence,
                };
                Ok(Sent::Taken(if is_own { in_store } else { id }))
            }
            Err(error) => {
                let source = std::error::Error::source(&error);
                let said = source.and_then(|source| source.downcast_ref::<ApiError>());
                match (error.kind(), said) {
                    (PublishErrorKind::TimedOut, _) => Err(silent()),
                    (PublishErrorKind::StreamNotFound, _) => Err(anyhow!(
                        "there is no stream with the subject '{}' any more",
                        self.subject
                    )),
                    (_, Some(said)) => self.said_no(said),
                    _ => Err(anyhow!("{error}")),
                }
            }
        }
    }

    fn said_no(&self, said: &ApiError) -> Result<Sent> {
        match said.error_code() {
            ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM => Ok(Sent::Refused(
                "it is longer than the stream takes (max_msg_size)".to_owned(),
            )),
            ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM => Ok(Sent::Refused(
                "its type and key are longer than the stream takes".to_owned(),
            )),
            // A stream that is full, for one, may have room again.
            _ => Err(store::said_no(&self.store.info.config.name, said)),
        }
    }

    async fn all(
        &mut self,
        events: &[Event],
        bus: &Bus,
        own: Option<Origin>,
        sent: &mut Vec<Sent>,
    ) -> Result<()> {
        let mut underway = Vec::with_capacity(events.len());
        for event in events {
            underway.push(self.send(event, bus, own).await?);
        }
        for (event, underway) in events.iter().zip(underway) {
            let is_own = own == Some(event.id.origin);
            sent.push(self.confirmed(underway, event.id, is_own).await?);
        }
        Ok(())
    }
}

impl super::super::super::Writer for Writer {
    fn connect(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            self.writing = None;
            let connection = Connection::open(&self.bus).await?;
            let (name, _) = store::names(&self.bus);
            let store = Store::find(&connection, name).await?;
            self.writing = Some(Writing {
                origin: store.origin(),
                last: 0,
                subject: subject(&self.bus, &store)?,
                connection,
                store,
            });
            Ok(())
        })
    }

    fn send<'a>(
        &'a mut self,
        events: &'a [Event],
        own: Option<Origin>,
        sent: &'a mut Vec<Sent>,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let writing = self.writing.as_mut().expect("it is connected");
            let over = writing.connection.whether_over();
            tokio::select! {
                result = writing.all(events, &self.bus, own, sent) => result,
                error = over => Err(error),
            }
        })
    }

    fn lost(&mut self) -> BoxFuture<'_, anyhow::Error> {
        Box::pin(async {
            match &self.writing {
                Some(writing) => writing.connection.over().await,
                None => std::future::pending().await,
            }
        })
    }
}
