//! Reads one connection after another of the same upstream into the log.

use std::pin::pin;
use std::time::Duration;

use anyhow::{Result, bail};
use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message};
use tokio_util::sync::CancellationToken;

use super::super::Destination;
use super::intake::Intake;
use super::login::{Login, Talk};
use super::{Connected, Heartbeat, Link, close, complaint, payload};
use crate::shutdown::until_stopped;
use crate::source::upstream::Upstream;
use crate::wire::hop::{self, Control};

/// How long a hop may take to answer a hello. One that waits for its own upstream takes a few seconds.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads the connections to an upstream.
pub struct Reader<'a> {
    intake: Intake<'a>,
}

impl<'a> Reader<'a> {
    /// Nothing has been read yet, by this process.
    pub fn new(to: &'a Destination, max_message_size: usize) -> Self {
        Self {
            intake: Intake::new(to, max_message_size),
        }
    }

    /// Nobody is to wait any more for what the upstream tells of the past.
    pub fn give_up_past(&mut self) {
        self.intake.owe_nothing();
    }

    /// How many events have come since this was last asked.
    pub fn take_count(&mut self) -> u64 {
        self.intake.take_count()
    }

    /// Reads one connection to its end, which is an error, or until `stop` is cancelled. `tell` is called once the server has
    /// shown what it is.
    pub async fn read(
        &mut self,
        connected: &mut Connected,
        upstream: &Upstream,
        tell: impl FnOnce(),
        stop: &CancellationToken,
    ) -> Result<()> {
        let Connected { link, is_hop, .. } = connected;
        let result = {
            let following = pin!(self.follow(link, upstream, *is_hop, tell));
            match until_stopped(stop, following).await {
                Some(error) => Err(error),
                None => Ok(()),
            }
        };
        self.intake.ended();
        let farewell = match &result {
            Ok(()) => Some(CloseFrame {
                code: CloseCode::Away,
                reason: "stopping".into(),
            }),
            Err(error) => complaint(error),
        };
        close(link, farewell).await;
        result
    }

    /// Takes what comes until the connection ends, and says how it did.
    async fn follow(
        &mut self,
        link: &mut Link,
        upstream: &Upstream,
        is_hop: bool,
        tell: impl FnOnce(),
    ) -> anyhow::Error {
        let mut heartbeat = Heartbeat::new(upstream.ping_interval);
        let begun = match is_hop {
            true => Box::pin(self.begin_hop(link, &mut heartbeat)).await,
            false => Box::pin(self.begin_raw(link, &mut heartbeat, &upstream.talk)).await,
        };
        if let Err(error) = begun {
            return error;
        }
        tell();
        loop {
            let message = match heartbeat.next(link).await {
                Ok(message) => message,
                Err(error) => return error,
            };
            // Whatever else has already arrived is taken at once.
            let mut arrived = Some(message);
            while let Some(message) = arrived {
                let taken = match payload(message) {
                    Ok(Some(payload)) if is_hop => self.intake.take(payload),
                    Ok(Some(payload)) => {
                        self.intake.take_raw(payload, &upstream.talk);
                        Ok(())
                    }
                    Ok(None) => Ok(()),
                    Err(error) => Err(error),
                };
                if let Err(error) = taken {
                    return error;
                }
                arrived = link.next().now_or_never();
            }
        }
    }

    async fn begin_raw(
        &mut self,
        link: &mut Link,
        heartbeat: &mut Heartbeat,
        talk: &Talk,
    ) -> Result<()> {
        self.intake.begin_raw();
        let mut login = Login::new(talk);
        while let Some(payload) = login.next(link, heartbeat).await? {
            self.intake.note_met();
            self.intake.take_raw(payload, talk);
        }
        self.intake.follow_raw();
        Ok(())
    }

    async fn begin_hop(&mut self, link: &mut Link, heartbeat: &mut Heartbeat) -> Result<()> {
        let hello = Control::Hello(self.intake.hello());
        link.send(Message::text(hello.to_string())).await?;
        let welcome = async {
            loop {
                if let Some(payload) = payload(heartbeat.next(link).await?)? {
                    return match hop::decode(payload) {
                        Ok(hop::Message::Control(Control::Welcome(welcome))) => Ok(welcome),
                        _ => bail!("the upstream does not answer as a hop does"),
                    };
                }
            }
        };
        match timeout(WELCOME_TIMEOUT, welcome).await {
            Ok(welcome) => self.intake.welcomed(welcome?),
            Err(_) => bail!("the upstream does not welcome this hop"),
        }
        Ok(())
    }
}
