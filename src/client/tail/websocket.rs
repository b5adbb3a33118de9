//! Printing what comes over a WebSocket.

use std::time::Duration;

use anyhow::Result;
use futures_util::{FutureExt, StreamExt};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message};
use tracing::debug;

use super::output::{Output, written};
use super::{End, tell_of_snapshot, warn_of};
use crate::event::{EventId, Payload, Snapshot};
use crate::source::websocket::login::{Login, Talk};
use crate::source::websocket::{Heartbeat, Link, close, complaint, payload};
use crate::wire::hop::{self, Control};

impl Output {
    /// Prints what comes over one connection, and closes it if the server does not. `tell` is called when the server has let
    /// in whom it wants to know.
    pub async fn print_all(
        &mut self,
        mut link: Link,
        ping_interval: Duration,
        mut messages: Messages<'_>,
        tell: impl FnOnce(),
    ) -> Result<End> {
        let mut heartbeat = Heartbeat::new(ping_interval);
        let end = match self.log_in(&mut link, &mut heartbeat, &mut messages).await {
            Ok(None) => {
                tell();
                self.print_until_end(&mut link, heartbeat, &mut messages)
                    .await
            }
            Ok(Some(end)) => Ok(end),
            Err(error) => Err(error),
        };
        let farewell = match &end {
            Ok(End::Lost(error)) => complaint(error),
            _ => None,
        };
        close(&mut link, farewell.or_else(|| Some(done()))).await;
        end
    }

    /// Prints what comes while the server lets this client in; how it ended, if it has.
    async fn log_in(
        &mut self,
        link: &mut Link,
        heartbeat: &mut Heartbeat,
        messages: &mut Messages<'_>,
    ) -> Result<Option<End>> {
        let Meaning::Raw { talk } = messages.meaning else {
            return Ok(None);
        };
        let mut login = Login::new(talk);
        loop {
            let payload = match login.next(link, heartbeat).await {
                Ok(Some(payload)) => payload,
                Ok(None) => return Ok(None),
                Err(error) => return Ok(Some(End::Lost(error))),
            };
            if let Some(payload) = messages.event(payload)? {
                if let Some(end) = self.print_one(&payload)? {
                    return Ok(Some(end));
                }
                if let Some(end) = written(self.flush())? {
                    return Ok(Some(end));
                }
            }
        }
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
    meaning: Meaning<'a>,
    url: &'a str,
    /// Messages that were to be ignored.
    ignored: u64,
}

enum Meaning<'a> {
    /// A link to another wsevent. Each event's id is noted.
    Hop { have: &'a mut Vec<EventId> },
    /// Each is an event, unless it is to be ignored.
    Raw { talk: &'a Talk },
}

impl<'a> Messages<'a> {
    /// On a hop link each event's id is noted in `have`. `url` is for the log.
    pub fn of_hop(have: &'a mut Vec<EventId>, url: &'a str) -> Self {
        Self::new(Meaning::Hop { have }, url)
    }

    /// On anybody's WebSocket.
    pub fn of_others(talk: &'a Talk, url: &'a str) -> Self {
        Self::new(Meaning::Raw { talk }, url)
    }

    fn new(meaning: Meaning<'a>, url: &'a str) -> Self {
        Self {
            meaning,
            url,
            ignored: 0,
        }
    }

    /// The payload to print, if it is one.
    fn event(&mut self, payload: Payload) -> Result<Option<Payload>> {
        let have = match &mut self.meaning {
            Meaning::Hop { have } => have,
            Meaning::Raw { talk } => {
                let is_event = !talk.ignores(&payload);
                if !is_event {
                    self.ignored += 1;
                    debug!(url = self.url, ignored = self.ignored, "message ignored");
                }
                return Ok(is_event.then_some(payload));
            }
        };
        match hop::decode(payload)? {
            hop::Message::Event(event) => Ok(is_new(have, event.id).then_some(event.payload)),
            hop::Message::Control(Control::Gap(gap)) => {
                warn_of(&gap, self.url);
                Ok(None)
            }
            hop::Message::Control(Control::Snapshot(boundary)) => {
                tell_of_snapshot(&boundary, self.url);
                if let Snapshot::End { after: Some(id) } = boundary {
                    is_new(have, id);
                }
                Ok(None)
            }
            _ => Ok(None),
        }
    }
}

/// Whether it has not come before; of several origins, some may come again with a new connection.
fn is_new(have: &mut Vec<EventId>, id: EventId) -> bool {
    match have.iter_mut().find(|have| have.origin == id.origin) {
        Some(have) if have.seq >= id.seq => false,
        Some(have) => {
            *have = id;
            true
        }
        None => {
            have.push(id);
            true
        }
    }
}

fn done() -> CloseFrame {
    CloseFrame {
        code: CloseCode::Normal,
        reason: "".into(),
    }
}
