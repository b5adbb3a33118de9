//! Events as messages on a WebSocket.

use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::error::Error;
use tokio_tungstenite::tungstenite::protocol::frame::Utf8Bytes;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message};

use crate::event::{Kind, Payload};
use crate::source::upstream::Upstream;
use crate::source::websocket::{Link, close, payload};

/// The server's reason may come behind a connection that it no longer reads.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// What others publish comes here as well, and is not looked at.
const MAX_RECEIVED: usize = 1 << 30;

/// Events go out as messages.
pub struct Sender {
    link: Link,
    /// How long an answer may take.
    patience: Duration,
    /// How many Pings have been sent.
    count: u64,
}

impl Sender {
    /// Connects.
    pub async fn connect(upstream: Upstream) -> Result<Self> {
        let patience = upstream.ping_interval * 2;
        let upstream = Upstream {
            max_message_size: MAX_RECEIVED,
            ..upstream
        };
        let link = upstream.connect_raw().await?.link;
        Ok(Self {
            link,
            patience,
            count: 0,
        })
    }

    /// Sends events; when this returns, the server has taken them.
    pub async fn send(&mut self, events: &[Payload]) -> Result<()> {
        self.count += 1;
        let ping = Bytes::copy_from_slice(&self.count.to_be_bytes());
        let sending = async {
            for event in events {
                self.link.feed(message(event)?).await?;
            }
            self.link.send(Message::Ping(ping.clone())).await
        };
        let patience = self.patience;
        let silent = || anyhow!("no answer within {patience:?}");
        let sent = timeout(patience, sending).await.map_err(|_| silent())?;
        if let Err(error) = sent {
            let last_words = timeout(LAST_WORDS, self.read(None)).await;
            let said = last_words.ok().and_then(|result| result.err());
            return Err(said.unwrap_or_else(|| error.into()));
        }
        let answered = timeout(self.patience, self.read(Some(&ping))).await;
        answered.map_err(|_| silent())?
    }

    /// Reads until this Pong, or until the end.
    async fn read(&mut self, pong: Option<&Bytes>) -> Result<()> {
        loop {
            match self.link.next().await {
                Some(Ok(Message::Pong(bytes))) if Some(&bytes) == pong => return Ok(()),
                Some(Ok(Message::Close(Some(frame)))) => {
                    let error = advice(&frame);
                    close(&mut self.link, None).await;
                    return Err(error.unwrap_or_else(|| closed(Some(frame))));
                }
                message => drop(payload(message)?),
            }
        }
    }

    /// Waits for `future`, and answers the server's pings meanwhile.
    pub async fn while_alive<T>(&mut self, future: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            result = future => result,
            result = self.read(None) => match result {
                Err(error) => Err(error),
                Ok(()) => bail!("connection lost"),
            },
        }
    }

    /// Ends the connection in due form.
    pub async fn close(mut self) {
        let done = CloseFrame {
            code: CloseCode::Normal,
            reason: "".into(),
        };
        close(&mut self.link, Some(done)).await;
    }
}

fn message(event: &Payload) -> Result<Message, Error> {
    Ok(match event.kind {
        Kind::Text => Message::Text(
            Utf8Bytes::try_from(event.bytes.clone()).map_err(|_| Error::AttackAttempt)?,
        ),
        Kind::Binary => Message::Binary(event.bytes.clone()),
    })
}

fn closed(frame: Option<CloseFrame>) -> anyhow::Error {
    match payload(Some(Ok(Message::Close(frame)))) {
        Err(error) => error,
        Ok(_) => anyhow!("closed by the server"),
    }
}

/// What to do about a Close of the server.
fn advice(frame: &CloseFrame) -> Option<anyhow::Error> {
    let advice = match frame.code {
        CloseCode::Unsupported => {
            "the server takes no events here: it must be started with --accept-publish"
        }
        CloseCode::Size => "send less, or start the server with a larger --max-message-size",
        _ => return None,
    };
    Some(anyhow!("{} ({advice})", closed(Some(frame.clone()))))
}
