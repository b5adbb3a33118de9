//! Reading what comes over a WebSocket.

use std::time::Duration;

use anyhow::Result;
use futures_util::{FutureExt, StreamExt};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message};
use tracing::debug;

use super::{End, Sink, tell_of_snapshot, warn_of};
use crate::event::{EventId, Gap, Payload, Snapshot};
use crate::source::websocket::login::{Login, Talk};
use crate::source::websocket::{Heartbeat, Link, close, complaint, payload};
use crate::wire::hop::{self, Control};
use crate::wire::recording::Taken;

impl Messages<'_> {
    /// Reads what comes over one connection, and closes it if the server does not. `tell` is called when the server has let
    /// in whom it wants to know.
    pub async fn read(
        mut self,
        sink: &mut impl Sink,
        mut link: Link,
        ping_interval: Duration,
        tell: impl FnOnce(),
    ) -> Result<End> {
        let mut heartbeat = Heartbeat::new(ping_interval);
        let end = match self.log_in(sink, &mut link, &mut heartbeat).await {
            Ok(None) => {
                tell();
                self.read_until_end(sink, &mut link, heartbeat).await
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

    /// Reads what comes while the server lets this client in; how it ended, if it has.
    async fn log_in(
        &mut self,
        sink: &mut impl Sink,
        link: &mut Link,
        heartbeat: &mut Heartbeat,
    ) -> Result<Option<End>> {
        let Meaning::Raw { talk } = self.meaning else {
            return Ok(None);
        };
        let mut login = Login::new(talk);
        loop {
            let payload = match login.next(link, heartbeat).await {
                Ok(Some(payload)) => payload,
                Ok(None) => return Ok(None),
                Err(error) => return Ok(Some(End::Lost(error))),
            };
            let heard = self.hear(payload)?;
            if let Some(end) = self.take(sink, heard)? {
                return Ok(Some(end));
            }
            if let Some(end) = sink.flush()? {
                return Ok(Some(end));
            }
        }
    }

    async fn read_until_end(
        &mut self,
        sink: &mut impl Sink,
        link: &mut Link,
        mut heartbeat: Heartbeat,
    ) -> Result<End> {
        loop {
            let mut arrived = match heartbeat.next(link).await {
                Ok(message) => Some(message),
                Err(error) => return Ok(End::Lost(error)),
            };
            // What has arrived together goes out together.
            while let Some(message) = arrived {
                let is_close = matches!(message, Some(Ok(Message::Close(_))));
                let heard = payload(message).and_then(|payload| match payload {
                    Some(payload) => self.hear(payload),
                    None => Ok(Heard::Nothing),
                });
                let heard = match heard {
                    Ok(heard) => heard,
                    Err(error) => {
                        let end = if is_close {
                            End::Closed(error)
                        } else {
                            End::Lost(error)
                        };
                        return Ok(sink.flush()?.unwrap_or(end));
                    }
                };
                if let Some(end) = self.take(sink, heard)? {
                    return Ok(end);
                }
                arrived = link.next().now_or_never();
            }
            if let Some(end) = sink.flush()? {
                return Ok(end);
            }
        }
    }

    fn take(&self, sink: &mut impl Sink, heard: Heard) -> Result<Option<End>> {
        match heard {
            Heard::Event(event) => sink.take(event),
            Heard::Gap(gap) => {
                warn_of(&gap, self.url);
                sink.gap(&gap).map(|()| None)
            }
            Heard::Nothing => Ok(None),
        }
    }
}

/// What a message says.
enum Heard {
    Event(Taken),
    Gap(Gap),
    /// Nothing that is for whoever reads.
    Nothing,
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
    Hop {
        have: &'a mut Vec<EventId>,
        /// What comes is the state that the hop keeps.
        is_state: bool,
    },
    /// Each is an event, unless it is to be ignored.
    Raw { talk: &'a Talk },
}

impl<'a> Messages<'a> {
    /// On a hop link each event's id is noted in `have`. `url` is for the log.
    pub fn of_hop(have: &'a mut Vec<EventId>, url: &'a str) -> Self {
        Self::new(
            Meaning::Hop {
                have,
                is_state: false,
            },
            url,
        )
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

    fn hear(&mut self, payload: Payload) -> Result<Heard> {
        let (have, is_state) = match &mut self.meaning {
            Meaning::Hop { have, is_state } => (have, is_state),
            Meaning::Raw { talk } => {
                if talk.ignores(&payload) {
                    self.ignored += 1;
                    debug!(url = self.url, ignored = self.ignored, "message ignored");
                    return Ok(Heard::Nothing);
                }
                return Ok(Heard::Event(payload.into()));
            }
        };
        Ok(match hop::decode(payload)? {
            hop::Message::Event(event) if is_new(have, event.id) => {
                let event = Taken::from(event);
                Heard::Event(if *is_state { event.kept() } else { event })
            }
            hop::Message::Control(Control::Gap(gap)) => Heard::Gap(gap),
            hop::Message::Control(Control::Snapshot(boundary)) => {
                tell_of_snapshot(&boundary, self.url);
                *is_state = matches!(boundary, Snapshot::Begin { .. });
                if let Snapshot::End { after: Some(id) } = boundary {
                    is_new(have, id);
                }
                Heard::Nothing
            }
            _ => Heard::Nothing,
        })
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
