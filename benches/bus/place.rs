//! Where on a bus events go. Each measurement has a place of its own, so that none finds what another one left.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, anyhow};

use crate::client::Publisher;
use crate::server::Servers;

/// The kinds of buses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A channel of Redis Pub/Sub.
    RedisChannel,
    /// A Redis stream.
    RedisStream,
    /// A subject of NATS.
    Nats,
    /// A stream of NATS JetStream.
    JetStream,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::RedisChannel,
        Self::RedisStream,
        Self::Nats,
        Self::JetStream,
    ];

    /// For tables.
    pub fn title(self) -> &'static str {
        match self {
            Self::RedisChannel => "Redis Pub/Sub",
            Self::RedisStream => "Redis stream",
            Self::Nats => "NATS",
            Self::JetStream => "JetStream",
        }
    }
}

/// The field of a stream's entry that a plain client writes.
pub const FIELD: &str = "data";

/// A place on a bus.
pub struct Place {
    /// Which bus.
    pub kind: Kind,
    /// The channel, stream or subject.
    pub name: String,
    /// Where the library of its makers connects.
    pub server: String,
    /// Where the hop does.
    pub url: String,
}

impl Place {
    /// A new one. What must be there before somebody reads it, is.
    pub async fn new(kind: Kind, servers: &Servers) -> Result<Self> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("bench-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let (redis, nats) = (servers.redis, servers.nats);
        let (server, url) = match kind {
            Kind::RedisChannel => (
                format!("redis://{redis}/"),
                format!("redis://{redis}/0?channel={name}"),
            ),
            Kind::RedisStream => (
                format!("redis://{redis}/"),
                format!("redis+stream://{redis}/0?stream={name}"),
            ),
            Kind::Nats => (format!("nats://{nats}"), format!("nats://{nats}/{name}")),
            Kind::JetStream => (
                format!("nats://{nats}"),
                format!("nats+jetstream://{nats}/{name}?subject={name}"),
            ),
        };
        let place = Self {
            kind,
            name,
            server,
            url,
        };
        place.prepare().await?;
        Ok(place)
    }

    async fn prepare(&self) -> Result<()> {
        match Publisher::connect(self).await? {
            Publisher::RedisChannel(..) | Publisher::Nats(..) => Ok(()),
            Publisher::RedisStream(mut connection, name) => {
                let mut both = redis::pipe();
                both.cmd("XADD").arg(&name).arg("*").arg(FIELD).arg("");
                both.cmd("XTRIM").arg(&name).arg("MAXLEN").arg(0);
                Ok(both.exec_async(&mut connection).await?)
            }
            Publisher::JetStream(context, name) => {
                let config = async_nats::jetstream::stream::Config {
                    subjects: vec![name.clone()],
                    name,
                    ..Default::default()
                };
                let made = context.create_stream(config).await;
                made.map(drop).map_err(|error| anyhow!(error))
            }
        }
    }

    /// Has the bus forget what it keeps there, which is as much as all that went through.
    pub async fn clear(self) -> Result<()> {
        match Publisher::connect(&self).await? {
            Publisher::RedisChannel(..) | Publisher::Nats(..) => Ok(()),
            Publisher::RedisStream(mut connection, name) => {
                let mut pipe = redis::pipe();
                pipe.cmd("DEL").arg(name);
                Ok(pipe.exec_async(&mut connection).await?)
            }
            Publisher::JetStream(context, name) => {
                let deleted = context.delete_stream(name).await;
                deleted.map(drop).map_err(|error| anyhow!(error))
            }
        }
    }

    /// What a hop consumes that somebody else writes to.
    pub fn foreign_url(&self) -> String {
        match self.kind {
            Kind::RedisStream => format!("{}&field={FIELD}", self.url),
            _ => self.url.clone(),
        }
    }
}
