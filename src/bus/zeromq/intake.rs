//! The socket that subscribes, where others connect to it: what it wants from all of them, and what they send.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::link::{Incoming, Outgoing, Terms, open};
use super::topics::Topics;
use crate::wire::zmtp::{Item, Socket, subscription};

/// So many bytes of subscriptions wait for one publisher at most.
const MAX_WAITING: usize = 4 << 20;
/// So many reads of publishers wait to be dealt with.
const AHEAD: usize = 16;

/// What has come from one publisher at once.
pub type Batch = Vec<Item>;

/// Subscribes to the same at all publishers that connect.
pub struct Intake {
    socket: Socket,
    /// The longest message that is taken, in bytes.
    most: usize,
    patience: Duration,
    batches: mpsc::Sender<Batch>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    topics: Topics,
    publishers: Vec<Arc<Peer>>,
}

/// A publisher.
struct Peer {
    outgoing: Arc<Outgoing>,
    knows_commands: bool,
    /// Cancelled when it is given up because it does not read.
    overrun: CancellationToken,
}

impl Peer {
    fn ask(&self, topic: &[u8], is_wanted: bool) {
        let asked = subscription(topic, is_wanted, self.knows_commands);
        if !self.outgoing.put(asked) {
            self.overrun.cancel();
        }
    }
}

impl Intake {
    /// Without publishers and subscriptions; and where what comes is to be taken from. Messages have at most `most` bytes; whoever is
    /// silent for `patience` is asked whether it is there.
    pub fn new(
        socket: Socket,
        most: usize,
        patience: Duration,
    ) -> (Arc<Self>, mpsc::Receiver<Batch>) {
        let (batches, receiver) = mpsc::channel(AHEAD);
        let intake = Self {
            socket,
            most,
            patience,
            batches,
            state: Mutex::default(),
        };
        (Arc::new(intake), receiver)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more wants what begins with `topic`.
    pub fn subscribe(&self, topic: &Bytes) {
        let mut state = self.state();
        if state.topics.add(topic.clone()) {
            state
                .publishers
                .iter()
                .for_each(|peer| peer.ask(topic, true));
        }
    }

    /// One less does.
    pub fn cancel(&self, topic: &Bytes) {
        let mut state = self.state();
        if state.topics.remove(topic) {
            state
                .publishers
                .iter()
                .for_each(|peer| peer.ask(topic, false));
        }
    }

    /// Takes what the publisher at the other end of `stream` sends, until it has gone: why.
    pub async fn serve<S>(self: Arc<Self>, stream: S) -> anyhow::Error
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let outgoing = Outgoing::new(MAX_WAITING);
        let terms = Terms {
            own: self.socket,
            most: self.most,
            patience: self.patience,
            outgoing: outgoing.clone(),
        };
        let (mut incoming, mut outlet) = match open(stream, terms).await {
            Ok(opened) => opened,
            Err(error) => return error,
        };
        let peer = Arc::new(Peer {
            outgoing,
            knows_commands: incoming.knows_commands,
            overrun: CancellationToken::new(),
        });
        let overrun = peer.overrun.clone();
        let _here = self.enter(peer);
        tokio::select! {
            Err(error) = self.listen(&mut incoming) => error,
            error = outlet.run() => error,
            () = overrun.cancelled() => anyhow!("it does not read"),
        }
    }

    /// What is wanted is asked for under the same lock under which it changes, so that each publisher is asked for all of it.
    fn enter(self: &Arc<Self>, peer: Arc<Peer>) -> Here {
        let mut state = self.state();
        state.topics.all().for_each(|topic| peer.ask(topic, true));
        state.publishers.push(peer.clone());
        Here {
            intake: self.clone(),
            peer,
        }
    }

    async fn listen<S>(&self, incoming: &mut Incoming<S>) -> Result<std::convert::Infallible>
    where
        S: AsyncRead + AsyncWrite,
    {
        loop {
            let mut batch = Batch::new();
            incoming.next(&mut batch).await?;
            if self.batches.send(batch).await.is_err() {
                bail!("nobody takes what comes any more");
            }
        }
    }
}

/// A publisher that is there; dropped, it has gone.
struct Here {
    intake: Arc<Intake>,
    peer: Arc<Peer>,
}

impl Drop for Here {
    fn drop(&mut self) {
        let is_other = |other: &Arc<Peer>| !Arc::ptr_eq(other, &self.peer);
        self.intake.state().publishers.retain(is_other);
    }
}
