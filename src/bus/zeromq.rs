//! ZeroMQ: SUB for what is consumed, PUB for what is forwarded, XSUB and XPUB for [`forwarder`].
//!
//! `zmq+tcp://HOST:PORT?topic=T` connects, with `&bind` others connect here; `*` as the host is all addresses of this machine then.
//!
//! **Consumed** is what begins with the topic, as ZeroMQ filters: all without one. A message of one frame is an event with that frame as
//! its payload, a topic in it included. Of two frames the first is the topic, which becomes the event's key, and the second the payload. Of
//! more, the payload is a JSON array of those behind the topic: strings, or `{"data_base64":…}` where one is not UTF-8.
//!
//! **Forwarded** is a message of topic and payload, or of the payload alone without a topic; with `--bus-envelope always` the line of the
//! [`envelope`] is before the payload, and who consumes it knows the event again.
//!
//! ZeroMQ confirms nothing. What is forwarded counts as taken when it is on its way to those who subscribe at that moment; what nobody
//! has subscribed to is dropped, and that a subscriber has gone is noticed by nobody. Where this side binds, a subscriber that
//! does not get on is waited for for [a moment](publisher::PATIENCE); then [so much](publisher::HIGH_WATER) waits for it, and the rest is lost to it,
//! and told in the log. Where this side connects, what the one other side does not take yet waits in the history. After a
//! lost connection nobody knows what was missed: that is a gap.
//!
//! The protocol is [spoken here](crate::wire::zmtp), on connections of this program. The crate `zeromq` (0.7) makes room for a frame as soon as it
//! has read its length, so nine bytes of a stranger end the process; its XPUB waits for its slowest subscriber, its PUB keeps
//! 100,000 messages of any size for each and does not connect again, and a libzmq with heartbeats is turned away.

pub mod forwarder;
mod intake;
mod link;
mod publisher;
mod topics;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tracing::info;
use url::Url;

use super::address::Kind;
use super::envelope::{self, Envelope};
use super::{Arrival, Bus, Sent};
use crate::event::{Event, Origin};
use crate::listen::Listeners;
use crate::listen::admission::most_connections;
use crate::listen::sampled::Sampled;
use crate::reason;
use crate::source::refusal::Unfit;
use crate::source::upstream::{Stream, open_stream};
use crate::wire::zmtp::{Item, Message, Socket, subscription};
use intake::{Batch, Intake};
use link::{Incoming, Outgoing, Outlet, Terms, open};
use publisher::{PATIENCE, Publisher};

/// What a message may have beside the payload, in bytes: topic, header line, the heads of frames.
const BESIDE: usize = 16 << 10;
/// A peer says what it subscribes to right behind the handshake. For so long that is waited for: what is sent before is for nobody.
const SETTLING: Duration = Duration::from_secs(1);
/// The longest topic that becomes a key, in bytes.
const MAX_KEY: usize = 1 << 10;

/// What a URL says about the socket.
struct Place {
    topic: Bytes,
    is_bound: bool,
}

impl Place {
    fn of(bus: &Bus) -> Self {
        match &bus.address.kind {
            Kind::ZeroMq { topic, is_bound } => Self {
                topic: topic.clone().into(),
                is_bound: *is_bound,
            },
            _ => unreachable!("it is a ZeroMQ socket"),
        }
    }
}

/// Listens where a URL says, and gives each connection to `serve`. `peer` is what connects.
async fn bind<F>(
    bus: &Bus,
    peer: &'static str,
    serve: impl Fn(TcpStream, SocketAddr) -> F + Send + 'static,
) -> Result<AbortOnDropHandle<()>>
where
    F: Future<Output = anyhow::Error> + Send + 'static,
{
    let listeners = Listeners::bind(&listen_address(&bus.address.url)?).await?;
    for address in listeners.addresses()? {
        info!(%address, url = %bus, "listening for a {peer}");
    }
    let accepting = tokio::spawn(accept(listeners, peer, serve));
    Ok(AbortOnDropHandle::new(accepting))
}

/// `host:port` to listen on.
fn listen_address(url: &Url) -> Result<String> {
    let host = url.host_str().context("the URL has no host")?;
    let host = if host == "*" { "0.0.0.0" } else { host };
    let port = url.port().context("the URL has no port")?;
    Ok(format!("{host}:{port}"))
}

/// Accepts connections for ever, as many as there are files for, and gives each to `serve`. They end with it.
async fn accept<F>(
    mut listeners: Listeners,
    peer: &'static str,
    serve: impl Fn(TcpStream, SocketAddr) -> F + Send + 'static,
) where
    F: Future<Output = anyhow::Error> + Send + 'static,
{
    let most = most_connections(1);
    let refused = Sampled::new("connection refused");
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            (socket, address) = listeners.accept() => {
                if connections.len() >= most {
                    let reason = format!("there are {most} already, as many as there are files for");
                    refused.note(address, 503, reason);
                    continue;
                }
                let serving = serve(socket, address);
                connections.spawn(async move {
                    info!(%address, "{peer} connected");
                    let error = serving.await;
                    let reason = reason::of(&error);
                    info!(%address, %reason, "{peer} disconnected");
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Connects where a URL says.
async fn dial(bus: &Bus) -> Result<Stream> {
    if bus.address.url.host_str() == Some("*") {
        return Err(Unfit("* is where to listen: add &bind, or name a host".to_owned()).into());
    }
    let stream = open_stream(&bus.address.url, None).await?;
    Ok(stream)
}

/// Reads messages.
pub struct Reader {
    bus: Arc<Bus>,
    place: Place,
    link: Option<Link>,
}

/// Where messages come from.
enum Link {
    /// One publisher, whose end is the connection's.
    Dialled(Box<(Incoming<Stream>, Outlet<Stream>)>),
    /// All who connect.
    Bound {
        batches: mpsc::Receiver<Batch>,
        _accepting: AbortOnDropHandle<()>,
    },
}

impl Reader {
    /// Not connected yet.
    pub fn new(bus: Arc<Bus>) -> Self {
        Self {
            place: Place::of(&bus),
            bus,
            link: None,
        }
    }

    async fn link(&self) -> Result<Link> {
        let upstream = &self.bus.upstream;
        let most = upstream.max_message_size.saturating_add(BESIDE);
        let patience = upstream.ping_interval;
        if self.place.is_bound {
            let (intake, batches) = Intake::new(Socket::Sub, most, patience);
            intake.subscribe(&self.place.topic);
            let serve = move |socket, _| intake.clone().serve(socket);
            let accepting = bind(&self.bus, "publisher", serve).await?;
            return Ok(Link::Bound {
                batches,
                _accepting: accepting,
            });
        }
        let outgoing = Outgoing::new(BESIDE);
        let terms = Terms {
            own: Socket::Sub,
            most,
            patience,
            outgoing: outgoing.clone(),
        };
        let (incoming, outlet) = open(dial(&self.bus).await?, terms).await?;
        outgoing.put(subscription(
            &self.place.topic,
            true,
            incoming.knows_commands,
        ));
        Ok(Link::Dialled(Box::new((incoming, outlet))))
    }
}

impl super::Reader for Reader {
    fn connect(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            // The port is to be free again.
            self.link = None;
            self.link = Some(self.link().await?);
            Ok(())
        })
    }

    fn next<'a>(&'a mut self, arrivals: &'a mut Vec<Arrival>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async {
            let mut items = Vec::new();
            match self.link.as_mut().context("it is not connected")? {
                Link::Dialled(link) => {
                    let (incoming, outlet) = &mut **link;
                    tokio::select! {
                        result = incoming.next(&mut items) => result?,
                        error = outlet.run() => return Err(error),
                    }
                }
                Link::Bound { batches, .. } => {
                    items = batches
                        .recv()
                        .await
                        .context("it does not listen any more")?;
                }
            }
            let arrived = items.into_iter();
            arrivals.extend(
                arrived.filter_map(|item| arrival(&self.place.topic, self.bus.envelope, item)),
            );
            Ok(())
        })
    }
}

/// What has come, as an event. Nothing if it is not for us: not all publishers filter.
fn arrival(topic: &[u8], envelope: Envelope, item: Item) -> Option<Arrival> {
    let message = match item {
        Item::Message(message) => message,
        Item::TooLong(len) => {
            let reason = format!(
                "a message of {len} bytes is longer than an event may be (--max-message-size)"
            );
            return Some(Arrival::Unusable(reason));
        }
        Item::Command(_) => return None,
    };
    let frames: Vec<_> = message.frames().collect();
    if !frames[0].starts_with(topic) {
        return None;
    }
    let mut arrival = match frames[..] {
        [payload] | [_, payload] => envelope.open(Bytes::copy_from_slice(payload)),
        [_, ref parts @ ..] => Arrival::New(envelope::payload(array(parts)).into()),
        [] => return None,
    };
    if let Arrival::New(event) = &mut arrival
        && frames.len() > 1
    {
        event.key = key(frames[0]).map(Into::into);
    }
    Some(arrival)
}

/// A topic, if it can be what an event is about.
fn key(topic: &[u8]) -> Option<&str> {
    let topic = std::str::from_utf8(topic).ok()?;
    let is_key =
        !topic.is_empty() && topic.len() <= MAX_KEY && !topic.chars().any(char::is_control);
    is_key.then_some(topic)
}

/// Several frames as one text.
fn array(frames: &[&[u8]]) -> Bytes {
    let part = |frame: &&[u8]| match std::str::from_utf8(frame) {
        Ok(text) => json!(text),
        Err(_) => json!({ "data_base64": BASE64.encode(frame) }),
    };
    let parts: Vec<_> = frames.iter().map(part).collect();
    serde_json::Value::from(parts).to_string().into()
}

/// Writes messages.
pub struct Writer {
    bus: Arc<Bus>,
    place: Place,
    link: Option<Outward>,
}

/// Where messages go.
struct Outward {
    publisher: Arc<Publisher>,
    way: Way,
}

enum Way {
    /// One subscriber, whose end is the connection's.
    Dialled(AbortOnDropHandle<anyhow::Error>),
    /// All who connect.
    Bound(AbortOnDropHandle<()>),
}

impl Writer {
    /// Not connected yet.
    pub fn new(bus: Arc<Bus>) -> Self {
        Self {
            place: Place::of(&bus),
            bus,
            link: None,
        }
    }

    async fn link(&self) -> Result<Outward> {
        let publisher = Publisher::new(Socket::Pub, None, self.bus.upstream.ping_interval);
        if self.place.is_bound {
            let serving = publisher.clone();
            let serve = move |socket, address: SocketAddr| {
                serving.clone().serve(socket, address.to_string())
            };
            let accepting = bind(&self.bus, "subscriber", serve).await?;
            return Ok(Outward {
                publisher,
                way: Way::Bound(accepting),
            });
        }
        let stream = dial(&self.bus).await?;
        let served = publisher.open(stream, self.bus.to_string()).await?;
        let serving = AbortOnDropHandle::new(tokio::spawn(served.run()));
        // Whether or not there is anything it wants.
        let _ = timeout(SETTLING, publisher.subscribed()).await;
        Ok(Outward {
            publisher,
            way: Way::Dialled(serving),
        })
    }

    fn message(&self, event: &Event) -> Message {
        let payload = &envelope::message(event, self.bus.envelope);
        match self.place.topic.is_empty() {
            true => Message::new(&[payload]),
            false => Message::new(&[&self.place.topic, payload]),
        }
    }
}

impl super::Writer for Writer {
    fn connect(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            self.link = None;
            self.link = Some(self.link().await?);
            Ok(())
        })
    }

    fn send<'a>(
        &'a mut self,
        events: &'a [Event],
        _: Option<Origin>,
        sent: &'a mut Vec<Sent>,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let messages: Vec<_> = events.iter().map(|event| self.message(event)).collect();
            let link = self.link.as_mut().context("it is not connected")?;
            for message in &messages {
                link.publisher.publish(message);
            }
            match &mut link.way {
                Way::Bound(_) => link.publisher.settle(Some(PATIENCE)).await,
                Way::Dialled(serving) => tokio::select! {
                    () = link.publisher.settle(None) => {}
                    error = serving => return Err(error?),
                },
            }
            sent.extend(events.iter().map(|event| Sent::Taken(event.id)));
            Ok(())
        })
    }

    fn lost(&mut self) -> BoxFuture<'_, anyhow::Error> {
        Box::pin(async {
            match self.link.as_mut().map(|link| &mut link.way) {
                Some(Way::Dialled(serving)) => match serving.await {
                    Ok(error) => error,
                    Err(error) => error.into(),
                },
                Some(Way::Bound(accepting)) => {
                    let _ = accepting.await;
                    anyhow::anyhow!("it does not listen any more")
                }
                None => anyhow::anyhow!("it is not connected"),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{NewEvent, Payload};

    fn new(key: Option<&str>, payload: Payload) -> Option<Arrival> {
        Some(Arrival::New(NewEvent {
            event_type: None,
            key: key.map(Into::into),
            payload,
        }))
    }

    fn arrived(topic: &str, frames: &[&[u8]]) -> Option<Arrival> {
        let item = Item::Message(Message::new(frames));
        arrival(topic.as_bytes(), Envelope::Auto, item)
    }

    #[test]
    fn frames_become_topic_and_payload() {
        for (frames, key, payload) in [
            (&[&b"t payload"[..]][..], None, Payload::text("t payload")),
            (&[b"t", b"payload"], Some("t"), Payload::text("payload")),
            (
                &[b"t.x", b"\xff"],
                Some("t.x"),
                Payload::binary(&b"\xff"[..]),
            ),
            (&[b"t\n", b""], None, Payload::text("")),
            (
                &[b"t", b"a\"", b"\xff"],
                Some("t"),
                Payload::text(r#"["a\"",{"data_base64":"/w=="}]"#),
            ),
        ] {
            assert_eq!(arrived("t", frames), new(key, payload), "{frames:?}");
        }
        assert_eq!(arrived("t", &[b"other", b"payload"]), None);
        assert_eq!(arrived("", &[b"", b"x"]), new(None, Payload::text("x")));
    }

    #[test]
    fn what_is_too_long_or_ours_is_known() {
        let too_long = arrival(b"", Envelope::Auto, Item::TooLong(7));
        assert!(matches!(too_long, Some(Arrival::Unusable(why)) if why.contains("7 bytes")));
        let event = Event {
            id: "0H3B6Q2ZK7M9T-42".parse().expect("an id"),
            time: 1_763_711_000_123_456,
            event_type: None,
            key: None,
            payload: Payload::text("x"),
        };
        let sealed = envelope::seal(&event);
        assert_eq!(arrived("t", &[b"t", &sealed]), Some(Arrival::Known(event)));
    }
}
