//! Plain clients of the buses, with the libraries that the hop has as well: what anybody would write.

use anyhow::{Context as _, Result};
use async_nats::jetstream;
use async_nats::jetstream::consumer::pull;
use bytes::Bytes;
use futures_util::StreamExt;
use redis::aio::{MultiplexedConnection, PubSub};
use redis::streams::StreamReadReply;

use crate::place::{FIELD, Kind, Place};

/// Publishes at a place.
pub enum Publisher {
    /// `PUBLISH`.
    RedisChannel(MultiplexedConnection, String),
    /// `XADD`.
    RedisStream(MultiplexedConnection, String),
    /// To a subject.
    Nats(async_nats::Client, String),
    /// To a subject of a stream.
    JetStream(jetstream::Context, String),
}

impl Publisher {
    /// Connects.
    pub async fn connect(place: &Place) -> Result<Self> {
        let name = place.name.clone();
        Ok(match place.kind {
            Kind::RedisChannel => Self::RedisChannel(redis(place).await?, name),
            Kind::RedisStream => Self::RedisStream(redis(place).await?, name),
            Kind::Nats => Self::Nats(nats(place).await?, name),
            Kind::JetStream => Self::JetStream(jetstream::new(nats(place).await?), name),
        })
    }

    /// Sends all of them without waiting in between, and then waits until the bus has them all.
    pub async fn send(&mut self, payloads: Vec<Bytes>) -> Result<()> {
        match self {
            Self::RedisChannel(connection, name) => {
                let mut pipe = redis::pipe();
                for payload in &payloads {
                    let command = pipe.cmd("PUBLISH").arg(&*name);
                    command.arg(&payload[..]).ignore();
                }
                pipe.exec_async(connection).await?;
            }
            Self::RedisStream(connection, name) => {
                let mut pipe = redis::pipe();
                for payload in &payloads {
                    let command = pipe.cmd("XADD").arg(&*name).arg("*");
                    command.arg(FIELD).arg(&payload[..]).ignore();
                }
                pipe.exec_async(connection).await?;
            }
            Self::Nats(client, name) => {
                for payload in payloads {
                    client.publish(name.clone(), payload).await?;
                }
                client.flush().await?;
            }
            Self::JetStream(context, name) => {
                let mut sent = Vec::with_capacity(payloads.len());
                for payload in payloads {
                    sent.push(context.publish(name.clone(), payload).await?);
                }
                for sent in sent {
                    sent.await?;
                }
            }
        }
        Ok(())
    }
}

/// Reads what comes at a place from now on.
pub enum Subscriber {
    /// `SUBSCRIBE`.
    RedisChannel(Box<PubSub>),
    /// `XREAD`: of which stream, and behind which entry.
    RedisStream(MultiplexedConnection, String, String),
    /// Of a subject.
    Nats(async_nats::Subscriber),
    /// An ordered consumer.
    JetStream(Box<pull::Ordered>),
}

impl Subscriber {
    /// Connects; what is published from now on comes.
    pub async fn connect(place: &Place) -> Result<Self> {
        let name = place.name.clone();
        Ok(match place.kind {
            Kind::RedisChannel => {
                let client = redis::Client::open(&*place.server)?;
                let mut pubsub = client.get_async_pubsub().await?;
                pubsub.subscribe(name).await?;
                Self::RedisChannel(Box::new(pubsub))
            }
            Kind::RedisStream => {
                let client = redis::Client::open(&*place.server)?;
                // It waits for as long as nothing comes.
                let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
                let connection = client
                    .get_multiplexed_async_connection_with_config(&config)
                    .await?;
                Self::RedisStream(connection, name, "0".to_owned())
            }
            Kind::Nats => {
                let client = nats(place).await?;
                let subscriber = client.subscribe(name).await?;
                client.flush().await?;
                Self::Nats(subscriber)
            }
            Kind::JetStream => {
                let context = jetstream::new(nats(place).await?);
                let stream = context.get_stream(name).await?;
                let consumer = stream.create_consumer(pull::OrderedConfig::default());
                Self::JetStream(Box::new(consumer.await?.messages().await?))
            }
        })
    }

    /// Waits until there is something, and adds what has come.
    pub async fn next(&mut self, payloads: &mut Vec<Bytes>) -> Result<()> {
        const ENDED: &str = "the bus has ended the subscription";
        match self {
            Self::RedisChannel(pubsub) => {
                let message = pubsub.on_message().next().await.context(ENDED)?;
                payloads.push(Bytes::copy_from_slice(message.get_payload_bytes()));
            }
            Self::RedisStream(connection, name, last) => {
                let mut command = redis::cmd("XREAD");
                command.arg("COUNT").arg(1_000).arg("BLOCK").arg(0);
                command.arg("STREAMS").arg(&*name).arg(&*last);
                let reply: StreamReadReply = command.query_async(connection).await?;
                for entry in reply.keys.into_iter().flat_map(|key| key.ids) {
                    let payload: Vec<u8> = entry.get(FIELD).context("an entry's field")?;
                    payloads.push(payload.into());
                    *last = entry.id;
                }
            }
            Self::Nats(subscriber) => {
                let message = subscriber.next().await.context(ENDED)?;
                payloads.push(message.payload);
            }
            Self::JetStream(messages) => {
                let message = messages.next().await.context(ENDED)??;
                payloads.push(message.payload.clone());
            }
        }
        Ok(())
    }
}

async fn redis(place: &Place) -> Result<MultiplexedConnection> {
    let client = redis::Client::open(&*place.server)?;
    Ok(client.get_multiplexed_async_connection().await?)
}

async fn nats(place: &Place) -> Result<async_nats::Client> {
    Ok(async_nats::connect(&place.server).await?)
}
