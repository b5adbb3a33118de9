//! The socket that publishes: who subscribes to what, and what waits for each of them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use super::intake::Intake;
use super::link::{Incoming, Outgoing, Outlet, Terms, open};
use super::topics::Topics;
use crate::wire::zmtp::{Command, Item, Message, Socket};

/// So many bytes wait for one subscriber at most (ZeroMQ's high-water mark, which counts messages). What comes then is not for it.
pub const HIGH_WATER: usize = 16 << 20;
/// How long all wait for those who do not get on. Whoever takes longer is not waited for until it has caught up.
pub const PATIENCE: Duration = Duration::from_millis(100);
/// The most that one subscriber may subscribe to.
const MAX_TOPICS: usize = 10_000;
/// The most bytes that the topics of one subscriber may have together.
const MAX_TOPICS_BYTES: usize = 1 << 20;
/// The longest message that a subscriber may send, in bytes: one that says a topic, or what is left alone.
const MAX_SUBSCRIPTION: usize = 8 << 10;

/// Publishes to all who subscribe.
pub struct Publisher {
    socket: Socket,
    subscribers: Mutex<Vec<Arc<Subscriber>>>,
    subscribed: Notify,
    /// Those from whom the messages come, if they are not made here.
    upstream: Option<Arc<Intake>>,
    patience: Duration,
}

struct Subscriber {
    name: String,
    topics: Mutex<Topics>,
    outgoing: Arc<Outgoing>,
    /// Whether it is not waited for.
    is_slow: AtomicBool,
    /// Whether something was not for it since it has got slow.
    is_losing: AtomicBool,
}

impl Subscriber {
    fn topics(&self) -> MutexGuard<'_, Topics> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, message: &Message) {
        if self.outgoing.put(message.wire().clone()) {
            return;
        }
        let subscriber = &self.name;
        if !self.is_losing.swap(true, Ordering::Relaxed) {
            warn!(
                subscriber,
                "subscriber is too slow, messages are lost to it"
            );
        }
    }
}

impl Publisher {
    /// Without subscribers. It asks those who are silent for `patience` whether they are there.
    pub fn new(socket: Socket, upstream: Option<Arc<Intake>>, patience: Duration) -> Arc<Self> {
        Arc::new(Self {
            socket,
            subscribers: Mutex::default(),
            subscribed: Notify::new(),
            upstream,
            patience,
        })
    }

    fn subscribers(&self) -> MutexGuard<'_, Vec<Arc<Subscriber>>> {
        self.subscribers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a message where it waits for those who want it.
    pub fn publish(&self, message: &Message) {
        let topic = message.topic();
        for subscriber in self.subscribers().iter() {
            if subscriber.topics().match_beginning(topic) {
                subscriber.send(message);
            }
        }
    }

    /// Waits until what waits has been written, but for `patience` at most, if that is limited. For those who have let others wait
    /// in vain, nobody waits until they have caught up.
    pub async fn settle(&self, patience: Option<Duration>) {
        let deadline = patience.map(|patience| Instant::now() + patience);
        let busy: Vec<_> = {
            let subscribers = self.subscribers();
            let busy = subscribers.iter().filter(|subscriber| subscriber.is_busy());
            busy.cloned().collect()
        };
        for subscriber in busy {
            let emptied = subscriber.outgoing.empty();
            match deadline {
                None => emptied.await,
                Some(deadline) => {
                    if timeout_at(deadline, emptied).await.is_err() {
                        subscriber.is_slow.store(true, Ordering::Relaxed);
                    }
                }
            }
        }
    }

    /// Waits until somebody subscribes.
    pub async fn subscribed(&self) {
        self.subscribed.notified().await;
    }

    /// Shakes hands with the subscriber at the other end of `stream`.
    pub async fn open<S>(self: &Arc<Self>, stream: S, name: String) -> Result<Served<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let outgoing = Outgoing::new(HIGH_WATER);
        let terms = Terms {
            own: self.socket,
            most: MAX_SUBSCRIPTION,
            patience: self.patience,
            outgoing: outgoing.clone(),
        };
        let (incoming, outlet) = open(stream, terms).await?;
        let subscriber = Arc::new(Subscriber {
            name,
            topics: Mutex::default(),
            outgoing,
            is_slow: AtomicBool::new(false),
            is_losing: AtomicBool::new(false),
        });
        self.subscribers().push(subscriber.clone());
        let here = Here {
            publisher: self.clone(),
            subscriber,
        };
        Ok(Served {
            here,
            incoming,
            outlet,
        })
    }

    /// Serves the subscriber at the other end of `stream` until it has gone: why.
    pub async fn serve<S>(self: Arc<Self>, stream: S, name: String) -> anyhow::Error
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        match self.open(stream, name).await {
            Ok(served) => served.run().await,
            Err(error) => error,
        }
    }
}

/// A subscriber's connection.
pub struct Served<S> {
    here: Here,
    incoming: Incoming<S>,
    outlet: Outlet<S>,
}

impl<S: AsyncRead + AsyncWrite> Served<S> {
    /// Serves it until it has gone: why.
    pub async fn run(mut self) -> anyhow::Error {
        tokio::select! {
            Err(error) = self.here.listen(&mut self.incoming) => error,
            error = self.outlet.run() => error,
        }
    }
}

impl Subscriber {
    /// Whether it is to be waited for.
    fn is_busy(&self) -> bool {
        let is_empty = self.outgoing.is_empty();
        if is_empty {
            self.is_slow.store(false, Ordering::Relaxed);
            self.is_losing.store(false, Ordering::Relaxed);
        }
        !is_empty && !self.is_slow.load(Ordering::Relaxed)
    }
}

/// A subscriber that is there; dropped, it has gone.
struct Here {
    publisher: Arc<Publisher>,
    subscriber: Arc<Subscriber>,
}

impl Here {
    async fn listen<S>(&self, incoming: &mut Incoming<S>) -> Result<std::convert::Infallible>
    where
        S: AsyncRead + AsyncWrite,
    {
        let mut items = Vec::new();
        loop {
            incoming.next(&mut items).await?;
            for item in items.drain(..) {
                match item {
                    Item::Command(Command::Subscribe(topic)) => self.subscribe(topic)?,
                    Item::Command(Command::Cancel(topic)) => self.cancel(&topic),
                    Item::TooLong(_) => bail!("it subscribes to what is too long"),
                    Item::Command(_) | Item::Message(_) => {}
                }
            }
        }
    }

    fn subscribe(&self, topic: Bytes) -> Result<()> {
        {
            let mut topics = self.subscriber.topics();
            let is_new = topics.add(topic.clone());
            if topics.len() > MAX_TOPICS {
                topics.remove(&topic);
                bail!("it subscribes to more than {MAX_TOPICS} topics");
            }
            if topics.bytes() > MAX_TOPICS_BYTES {
                topics.remove(&topic);
                bail!("it subscribes to topics of more than {MAX_TOPICS_BYTES} bytes together");
            }
            if is_new && let Some(upstream) = &self.publisher.upstream {
                upstream.subscribe(&topic);
            }
        }
        self.publisher.subscribed.notify_one();
        Ok(())
    }

    fn cancel(&self, topic: &Bytes) {
        let is_last = self.subscriber.topics().remove(topic);
        if is_last && let Some(upstream) = &self.publisher.upstream {
            upstream.cancel(topic);
        }
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        let is_other = |other: &Arc<Subscriber>| !Arc::ptr_eq(other, &self.subscriber);
        self.publisher.subscribers().retain(is_other);
        self.subscriber.outgoing.give_up();
        if let Some(upstream) = &self.publisher.upstream {
            self.subscriber
                .topics()
                .all()
                .for_each(|topic| upstream.cancel(topic));
        }
    }
}
