//! What a foreign WebSocket wants to be told: messages on each connect, each perhaps with an answer that is waited for, and
//! messages that keep the connection alive. A hop link has no use for them.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use anyhow::{Result, anyhow};
use futures_util::SinkExt;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::tungstenite::protocol::Message;

use super::pattern::Pattern;
use super::{Heartbeat, Link, payload};
use crate::event::Payload;
use crate::reason;
use crate::source::secret::Secret;

/// What is said over a foreign WebSocket, and what of its messages is no event.
#[derive(Debug, Clone, Default)]
pub struct Talk {
    /// Taken in order on each connect.
    pub steps: Vec<Step>,
    /// How long each step may take.
    pub patience: Duration,
    /// Said while connected.
    pub keepalive: Option<Keepalive>,
    /// Messages that match one of these are dropped.
    pub ignore: Vec<Pattern>,
}

/// A step of a login.
#[derive(Debug, Clone)]
pub enum Step {
    /// Send this as a text message.
    Say(Secret),
    /// Wait for a message like this.
    Expect(Pattern),
}

/// A message that is sent again and again.
#[derive(Debug, Clone)]
pub struct Keepalive {
    /// The text message.
    pub text: Secret,
    /// The time between two, and before the first.
    pub every: Duration,
}

impl Talk {
    /// Whether this message is to be dropped.
    pub fn ignores(&self, message: &Payload) -> bool {
        self.ignore.iter().any(|pattern| pattern.matches(message))
    }

    /// What must not be repeated before others.
    pub fn secrets(&self, words: &mut Vec<String>) {
        for step in &self.steps {
            if let Step::Say(text) = step {
                text.words(words);
            }
        }
        if let Some(keepalive) = &self.keepalive {
            keepalive.text.words(words);
        }
    }
}

/// The login on one connection, step by step.
pub struct Login<'a> {
    steps: std::slice::Iter<'a, Step>,
    patience: Duration,
    keepalive: Option<&'a Keepalive>,
    /// What is waited for, until when.
    awaited: Option<(&'a Pattern, Instant)>,
    place: Place,
}

/// How far a login has come.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    /// So many messages have been sent.
    said: usize,
    /// So many answers to the last one have been waited for, the current one included.
    answers: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.said, self.answers) {
            (0, 1) => f.write_str("a greeting"),
            (0, number) => write!(f, "greeting {number}"),
            (said, 1) => write!(f, "an answer to message {said}"),
            (said, number) => write!(f, "answer {number} to message {said}"),
        }
    }
}

/// A login that has come to nothing.
#[derive(Debug)]
pub struct Failed {
    /// What has happened.
    pub cause: anyhow::Error,
    waiting_for: Place,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cause = reason::of(&self.cause);
        write!(f, "{cause}, while waiting for {}", self.waiting_for)
    }
}

impl Error for Failed {}

impl<'a> Login<'a> {
    /// Nothing has been said yet.
    pub fn new(talk: &'a Talk) -> Self {
        Self {
            steps: talk.steps.iter(),
            patience: talk.patience,
            keepalive: talk.keepalive.as_ref(),
            awaited: None,
            place: Place::default(),
        }
    }

    /// Goes on until a message has come that is no answer: that is an event, and this is to be called again. With none the
    /// login is over, and the connection is kept alive from here on.
    pub async fn next(
        &mut self,
        link: &mut Link,
        heartbeat: &mut Heartbeat,
    ) -> Result<Option<Payload>> {
        loop {
            if let Some((pattern, until)) = self.awaited {
                let message = self.message(link, heartbeat, until).await?;
                if !pattern.matches(&message) {
                    return Ok(Some(message));
                }
                self.awaited = None;
            }
            match self.steps.next() {
                Some(Step::Say(text)) => self.say(link, text).await?,
                Some(Step::Expect(pattern)) => {
                    self.place.answers += 1;
                    self.awaited = Some((pattern, Instant::now() + self.patience));
                }
                None => break,
            }
        }
        if let Some(keepalive) = self.keepalive.take() {
            heartbeat.keep_alive(keepalive.text.read().await?, keepalive.every);
        }
        Ok(None)
    }

    async fn say(&mut self, link: &mut Link, text: &Secret) -> Result<()> {
        let message = Message::text(text.read().await?);
        self.place = Place {
            said: self.place.said + 1,
            answers: 0,
        };
        let number = self.place.said;
        match timeout(self.patience, link.send(message)).await {
            Ok(sent) => Ok(sent?),
            Err(_) => Err(anyhow!(
                "message {number} cannot be sent within {:?}",
                self.patience
            )),
        }
    }

    /// The next message that may be an answer.
    async fn message(
        &self,
        link: &mut Link,
        heartbeat: &mut Heartbeat,
        until: Instant,
    ) -> Result<Payload> {
        let failed = |cause| Failed {
            cause,
            waiting_for: self.place,
        };
        loop {
            // Of a timeout alone nothing would be noticed while there is always a message.
            let next = match Instant::now() < until {
                true => timeout_at(until, heartbeat.next(link)).await.ok(),
                false => None,
            };
            let Some(next) = next else {
                let cause = anyhow!("nothing that matches came within {:?}", self.patience);
                return Err(failed(cause).into());
            };
            if let Some(message) = next.and_then(payload).map_err(failed)? {
                return Ok(message);
            }
        }
    }
}
