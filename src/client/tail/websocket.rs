//! Printing what comes over a WebSocket.

use std::time::Duration;

use anyhow::Result;
use futures_util::{FutureExt, StreamExt};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message};

use super::output::{Output, written};
use super::{End, tell_of_snapshot, warn_of};
use crate::event::{EventId, Payload, Snapshot};
use crate::source::websocket::{Heartbeat, Link, close, complaint, payload};
use crate::wire::hop::{self, Control};

impl Output {
    /// Prints what comes over one connection, and closes it if the server does not.
    pub async fn print_all(
        &mut self,
        mut link: Link,
        ping_interval: Duration,
        messages: &mut Messages<'_>,
    ) -> Result<End> {
        let heartbeat = Heartbeat::new(ping_interval);
        let end = self.print_until_end(&mut link, heartbeat, messages).await;
        let farewell = match &end {
            Ok(End::Lost(error)) => complaint(error),
            _ => None,
        };
        close(&mut link, farewell.or_else(|| Some(done()))).await;
        end
    }

    async fn print_until_end(
        &mut self,
        link: &mut Link,
        mut heartbeat: Heartbeat,
        messages: &mut Messages<'_>,
    ) -> Result<End> {
        loop {
            let mut arrived = match heartbeat.next(link).await {
                Ok(message) => Some(message),
                Err(error) => return Ok(End::Lost(error)),
            };
            // What has arrived together goes out together.
            while let Some(message) = arrived {
                let is_close = matches!(message, Some(Ok(Message::Close(_))));
                let event = payload(message).and_then(|payload| match payload {
                    Some(payload) => messages.event(payload),
                    None => Ok(None),
                });
                let ended = match event {
                    Ok(Some(payload)) => self.print_one(&payload),
                    Ok(None) => Ok(None),
                    Err(error) => {
                        let end = if is_close {
                            End::Closed(error)
                        } else {
                            End::Lost(error)
                        };
                        return Ok(written(self.flush())?.unwrap_or(end));
                    }
                };
                if let Some(end) = ended? {
                    return Ok(end);
                }
                arrived = link.next().now_or_never();
            }
            if let Some(end) = written(self.flush())? {
                return Ok(end);
            }
        }
    }
}

/// What messages mean on one connection.
pub struct Messages<'a> {
    is_hop: bool,
    have: &'a mut Vec<EventId>,
    url: &'a str,
}

impl<'a> Messages<'a> {
    /// On a hop link each event's id is noted in `have`. `url` is for the log.
    pub fn new(is_hop: bool, have: &'a mut Vec<EventId>, url: &'a str) -> Self {
        Self { is_hop, have, url }
    }

    /// The payload to print, if it is one.
    fn event(&mut self, payload: Payload) -> Result<Option<Payload>> {
        if !self.is_hop {
            return Ok(Some(payload));
        }
        match hop::decode(payload)? {
            hop::Message::Event(event) => Ok(self.is_new(event.id).then_some(event.payload)),
            hop::Message::Control(Control::Gap(gap)) => {
                warn_of(&gap, self.url);
                Ok(None)
            }
            hop::Message::Control(Control::Snapshot(boundary)) => {
                tell_of_snapshot(&boundary, self.url);
                if let Snapshot::End { after: Some(id) } = boundary {
                    self.is_new(id);
                }
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    /// Whether it has not come before; of several origins, some may come again with a new connection.
    fn is_new(&mut self, id: EventId) -> bool {
        match self.have.iter_mut().find(|have| have.origin == id.origin) {
            Some(have) if have.seq >= id.seq => false,
            Some(have) => {
                *have = id;
                true
            }
            None => {
                self.have.push(id);
                true
            }
        }
    }
}

fn done() -> CloseFrame {
    CloseFrame {
        code: CloseCode::Normal,
        reason: "".into(),
    }
}
