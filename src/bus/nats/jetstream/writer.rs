//! Writing to a stream. It confirms each message with its number there, and drops what it has already.

use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use async_nats::Subject;
use async_nats::jetstream::context::{PublishAckFuture, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::{Error as ApiError, ErrorCode};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::task::unconstrained;
use tokio::time::Instant;

use super::super::super::{Bus, Sent};
use super::super::connection::{Connection, NOT_CONNECTED, PATIENCE, silent};
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
        let started = Instant::now();
        let mut is_late = false;
        let mut outcomes = Outcomes::new(sent);
        for (event, underway) in events.iter().zip(underway) {
            let is_own = own == Some(event.id.origin);
            let confirming = self.confirmed(underway, event.id, is_own);
            let outcome = match is_late {
                false => confirming.await,
                true => unconstrained(confirming)
                    .now_or_never()
                    .unwrap_or_else(|| Err(silent())),
            };
            // All that follows has had as long.
            is_late |= outcome.is_err() && started.elapsed() >= PATIENCE;
            outcomes.add(outcome);
        }
        outcomes.end()
    }
}

/// What has become of the events of a batch, in their order, as it becomes known.
///
/// What is sent again comes behind what is there, and whoever looks at ids would take it for a repetition. So only what nothing that was
/// taken has followed may be sent again.
struct Outcomes<'a> {
    sent: &'a mut Vec<Sent>,
    /// From the first error on behind the last event that was taken.
    open: Vec<Result<Sent>>,
}

impl<'a> Outcomes<'a> {
    fn new(sent: &'a mut Vec<Sent>) -> Self {
        let open = Vec::new();
        Self { sent, open }
    }

    fn add(&mut self, outcome: Result<Sent>) {
        if let Ok(Sent::Taken(_)) = outcome {
            let refused = |error: anyhow::Error| Sent::Refused(error.to_string());
            let open = self.open.drain(..);
            self.sent
                .extend(open.map(|outcome| outcome.unwrap_or_else(refused)));
        }
        match outcome {
            Ok(outcome) if self.open.is_empty() => self.sent.push(outcome),
            outcome => self.open.push(outcome),
        }
    }

    /// The first error of what has to be sent again, if anything has.
    fn end(self) -> Result<()> {
        self.open
            .into_iter()
            .try_for_each(|outcome| outcome.map(drop))
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
            let writing = self.writing.as_mut().context(NOT_CONNECTED)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn id(seq: u64) -> EventId {
        let origin = Origin::store(1);
        EventId { origin, seq }
    }

    /// What becomes of a batch of which the events were taken (`+`), refused (`x`) or could not be taken now (`!`), in the same letters;
    /// and whether the rest is to be sent again.
    fn become_of(outcomes: &str) -> (String, bool) {
        let mut sent = Vec::new();
        let mut all = Outcomes::new(&mut sent);
        for (outcome, seq) in outcomes.chars().zip(1..) {
            all.add(match outcome {
                '+' => Ok(Sent::Taken(id(seq))),
                'x' => Ok(Sent::Refused("too long".to_owned())),
                _ => Err(anyhow!("full {seq}")),
            });
        }
        let end = all.end();
        if let Err(error) = &end {
            assert_eq!(error.to_string(), format!("full {}", sent.len() + 1));
        }
        let shown = sent.iter().zip(1..).map(|(sent, seq)| match sent {
            Sent::Taken(taken) => {
                assert_eq!(*taken, id(seq));
                '+'
            }
            Sent::Refused(why) if why == "too long" => 'x',
            Sent::Refused(why) => {
                assert_eq!(*why, format!("full {seq}"));
                '!'
            }
        });
        let shown = shown.collect();
        (shown, end.is_err())
    }

    #[test]
    fn only_what_nothing_taken_has_followed_is_sent_again() {
        for (outcomes, sent, is_again) in [
            ("", "", false),
            ("+x+", "+x+", false),
            ("+!+", "+!+", false),
            ("+!x!+x", "+!x!+x", false),
            ("+!", "+", true),
            ("+!+!x!", "+!+", true),
            ("!!", "", true),
        ] {
            assert_eq!(
                become_of(outcomes),
                (sent.to_owned(), is_again),
                "{outcomes}"
            );
        }
    }
}
