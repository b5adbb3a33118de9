//! What a client publishes by messages on its WebSocket.

use std::sync::Arc;

use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::Audience;
use super::connection::Connection;
use crate::bus::outbox::{NotTaken, Outbox};
use crate::endpoint::websocket::input::End;
use crate::event::{Labels, Payload};
use crate::listen::memory::{Memory, Share};
use crate::listen::rate::Bucket;
use crate::stream::{Carrier, Way};

/// Why who could go on to send is sent away.
const NO_MEMORY: &str = "there is no memory for this message, as many others are being received";

/// A client that may publish.
pub struct Publishing {
    /// What its events have.
    labels: Labels,
    /// Where they go, if not into the log.
    outbox: Option<Arc<Outbox>>,
    /// What it may publish just now, where there is a limit.
    bucket: Bucket,
    /// What it has sent of a message.
    unfinished: Share,
}

impl Publishing {
    /// Events with these labels, which go into the stream's log, or to its `outbox`. What comes of one has a share of `memory` until it
    /// is whole.
    pub fn new(labels: Labels, outbox: Option<Arc<Outbox>>, memory: &Arc<Memory>) -> Self {
        Self {
            labels,
            outbox,
            bucket: Bucket::default(),
            unfinished: Share::new(memory),
        }
    }

    /// What its events have.
    pub(super) fn labels(&self) -> &Labels {
        &self.labels
    }

    /// Notes that so many bytes are kept of a message of its, if there is memory for that.
    pub(super) fn keep(&mut self, len: usize) -> Result<(), End> {
        match self.unfinished.set(len) {
            true => Ok(()),
            false => Err(End::Violation {
                code: CloseCode::Again,
                reason: NO_MEMORY.into(),
            }),
        }
    }

    /// What it may publish just now.
    pub(super) fn bucket(&mut self) -> &mut Bucket {
        &mut self.bucket
    }

    /// Takes what it has sent on `connection`.
    pub(super) fn append(
        &self,
        payload: Payload,
        connection: &Arc<Connection>,
        audience: &Audience,
    ) {
        let event = self.labels.event(payload);
        let format = audience.format;
        let Some(outbox) = &self.outbox else {
            let way = Way::default().by(Carrier::WebSocket);
            if audience.log.offer(way, vec![event]).is_err() {
                let reason = "this instance is being replaced: what was sent last is lost";
                connection.lock().end(format, CloseCode::Restart, reason);
                connection.task.wake();
            }
            return;
        };
        // There is no answer to a message but to go on listening. Who is not heard any more has to know it.
        let not_taken = move |connection: &Connection, why: &NotTaken| {
            let (code, reason) = match why {
                NotTaken::Away(_) => (
                    CloseCode::Again,
                    "the bus is away: what was sent last may be lost",
                ),
                NotTaken::Full => (CloseCode::Again, "the bus takes less than comes"),
                NotTaken::Refused(_) => (CloseCode::Policy, "the bus refuses this event"),
            };
            connection.lock().end(format, code, reason);
            connection.task.wake();
        };
        let connected = Arc::downgrade(connection);
        let offered = outbox.offer(vec![event], move |result| {
            if let (Err(why), Some(connection)) = (result, connected.upgrade()) {
                not_taken(&connection, &why);
            }
        });
        if let Err(why) = offered {
            not_taken(connection, &why);
        }
    }
}
