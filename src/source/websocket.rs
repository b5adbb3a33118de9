//! The WebSocket source: reads anybody's WebSocket, each message one event, and comes back whenever it is cut off. What
//! another wsevent serves is read as a hop link, so that events keep their ids and nothing is lost or repeated.

mod ahead;
mod handshake;
pub mod intake;
pub mod login;
pub mod pattern;
mod reader;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ahead::Ahead;
use anyhow::{Result, bail};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
pub use handshake::{Agreed, Offered, check, request};
use reader::Reader;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{Error, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::frame::Utf8Bytes;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};
use tokio_util::sync::CancellationToken;

use super::presence::Presence;
use super::refusal::Unfit;
use super::upstream::{CONNECT_TIMEOUT, Stream, Upstream, open_stream_at};
use super::{Backoff, Destination};
use crate::event::{Kind, Origin, Payload};
use crate::shutdown::until_stopped;
use crate::stream::Carrier;
use crate::stream::join::PATIENCE;
use crate::wire::comeback;
use crate::wire::websocket::{Inflater, MAX_CONTROL_PAYLOAD};

/// How long a farewell to an upstream may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// The largest message that is read from another hop.
const MAX_HOP_MESSAGE: usize = 64 << 20;
/// What is not a peer has been told what it could be.
const NO_PEER: &str =
    "it is no wsevent, as a peer must be: what others serve is read with --consume";
/// An address that leads back here is tried again so much later, and up to twice as much: it may be another's by then.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// What tungstenite has in hand at a time. There may be many upstreams on which nothing happens; where much does, large reads
/// are made [below](ahead).
const READ_BUFFER: usize = 128;

/// An open connection to an upstream.
pub type Link = WebSocketStream<Ahead<Stream>>;

/// What a handshake has led to.
pub struct Connected {
    /// The connection.
    pub link: Link,
    /// Whether the other end is a hop, too.
    pub is_hop: bool,
    /// Which instance that is, if it is a wsevent.
    pub instance: Option<Origin>,
    /// Whether the other end, which is a wsevent then, has not all that the URL asks for of the stream's past; nor has who
    /// was not asked.
    pub falls_short: bool,
}

impl Upstream {
    /// Connects once, to be read raw.
    pub async fn connect_raw(&self) -> Result<Connected> {
        self.connect(false).await
    }

    /// Connects once. `offer` says whether to propose being a hop link.
    async fn connect(&self, offer: bool) -> Result<Connected> {
        let attempt = timeout(CONNECT_TIMEOUT, self.try_connect(offer)).await;
        attempt.unwrap_or_else(|_| bail!("no answer within {CONNECT_TIMEOUT:?}"))
    }

    async fn try_connect(&self, offer: bool) -> Result<Connected> {
        // What cannot be sent needs no connection.
        let request = handshake::request(self, offer).await?;
        let stream = open_stream_at(self.address, &self.url, self.tls.as_ref()).await?;
        let (stream, early, agreed) = handshake::shake_hands(self, stream, request).await?;
        // A hop sends what it has until it gets through, so what is too large is for the reader to pass over.
        let most = match agreed.is_hop {
            true => self.max_message_size.max(MAX_HOP_MESSAGE),
            false => self.max_message_size,
        };
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .max_message_size(Some(most))
            .max_frame_size(Some(most.max(MAX_CONTROL_PAYLOAD)));
        let mut socket = Ahead::new(stream, early);
        if agreed.is_deflated {
            socket = socket.inflating(Inflater::new(most));
        }
        let link = Link::from_raw_socket(socket, Role::Client, Some(config)).await;
        Ok(Connected {
            link,
            is_hop: agreed.is_hop,
            instance: agreed.instance,
            falls_short: agreed.falls_short,
        })
    }
}

/// Reads `upstream` until `stop` is cancelled. However often the upstream goes away, it is tried again; the log tells when
/// it is lost and when it is back, not each attempt.
pub async fn consume(upstream: Arc<Upstream>, to: Destination, stop: CancellationToken) {
    let begun = Instant::now();
    let mut backoff = Backoff::new();
    let mut presence = Presence::of(&upstream, &to);
    let is_peer = upstream.is_peer;
    let mut offer = Offer::default();
    let mut reader = Reader::new(&to, upstream.max_message_size);
    loop {
        presence.tries();
        // In a box that is there meanwhile: connecting takes more room than being connected.
        let mut connecting = Box::pin(offer.connect(&upstream));
        let connected = until_stopped(&stop, connecting.as_mut()).await;
        let Some(connected) = connected.map(|connected| connected.map(Box::new)) else {
            return;
        };
        drop(connecting);
        let error = match connected {
            Ok(connected) if is_peer && connected.instance == Some(to.log.origin()) => {
                presence.is_itself();
                reader.give_up_past();
                drop(connected);
                let pause = rand::random_range(LOOK_AGAIN..LOOK_AGAIN * 2);
                let mut pause = Box::pin(sleep(pause));
                if until_stopped(&stop, pause.as_mut()).await.is_none() {
                    return;
                }
                continue;
            }
            Ok(connected) if is_peer && !connected.is_hop => Unfit(NO_PEER.to_owned()).into(),
            Ok(mut connected) => {
                let transport = if connected.is_hop { "hop" } else { "websocket" };
                presence.leads_to(transport, connected.instance);
                to.inflow.comes_by(Carrier::of_transport(transport));
                to.log.look_again();
                let mut since = None;
                let tell = || {
                    presence.connected();
                    since = Some(Instant::now());
                };
                let result = reader.read(&mut connected, &upstream, tell, &stop).await;
                let brought_events = reader.take_count() > 0;
                // One that does not let in is none, however long it took, and whatever came meanwhile.
                if let Some(since) = since {
                    backoff.connection_ended(since, brought_events);
                }
                match result {
                    Ok(()) => return,
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        presence.lost(&error);
        backoff.come_back_in(come_back(&error));
        // Of peers the others are there, and may be all there are. Of an upstream that has been away since this began, nobody who comes
        // now is to wait for what it may tell once it is there.
        if is_peer || begun.elapsed() > PATIENCE {
            reader.give_up_past();
        }
        let mut pause = Box::pin(sleep(backoff.pause()));
        if until_stopped(&stop, pause.as_mut()).await.is_none() {
            return;
        }
    }
}

/// The offer to an upstream to be a hop link. Some servers refuse a handshake with it; then it is not made again.
#[derive(Debug, Default)]
pub struct Offer {
    is_useless: bool,
}

impl Offer {
    /// Connects once, with the offer as long as it may be of use.
    pub async fn connect(&mut self, upstream: &Upstream) -> Result<Connected> {
        match upstream.connect(!self.is_useless).await {
            // What does not take it is no peer.
            Err(error)
                if !self.is_useless
                    && !upstream.is_peer
                    && handshake::may_be_for_the_offer(&error) =>
            {
                let connected = upstream.connect(false).await?;
                self.is_useless = true;
                Ok(connected)
            }
            result => result,
        }
    }
}

/// Says farewell with a Close frame, or with the answer to the server's: that waits to be flushed, and no other can be
/// sent then. Whether it gets through makes no difference any more.
pub async fn close(link: &mut Link, frame: Option<CloseFrame>) {
    let farewell = async {
        if link.close(frame).await.is_err() {
            let _ = link.flush().await;
        }
    };
    let _ = Box::pin(timeout(CLOSE_TIMEOUT, farewell)).await;
}

/// Pings the other end of a link, and notices when it is silent. A foreign one is sent messages besides, if it wants that.
pub struct Heartbeat {
    pings: Interval,
    unanswered: u32,
    keepalive: Option<Box<(Utf8Bytes, Interval)>>,
}

impl Heartbeat {
    /// The first ping comes after one interval.
    pub fn new(ping_interval: Duration) -> Self {
        Self {
            pings: every(ping_interval),
            unanswered: 0,
            keepalive: None,
        }
    }

    /// From here on this text is sent so often, too.
    pub fn keep_alive(&mut self, text: String, interval: Duration) {
        self.keepalive = Some(Box::new((text.into(), every(interval))));
    }

    /// The next message, as the link yields it; an error when two pings had no answer of any kind.
    pub async fn next(&mut self, link: &mut Link) -> Result<Option<Result<Message, Error>>> {
        loop {
            tokio::select! {
                message = link.next() => {
                    self.unanswered = 0;
                    return Ok(message);
                }
                _ = self.pings.tick() => {
                    if self.unanswered == 2 {
                        bail!("silent for two ping intervals");
                    }
                    self.unanswered += 1;
                    // A broken connection shows at the next read.
                    send_soon(link, Message::Ping(Bytes::new())).await;
                }
                text = due(self.keepalive.as_deref_mut()) => {
                    send_soon(link, Message::Text(text)).await;
                }
            }
        }
    }
}

/// Sends a message, or gives up: now and then, so what it takes is in a box meanwhile.
async fn send_soon(link: &mut Link, message: Message) {
    let _ = Box::pin(timeout(CLOSE_TIMEOUT, link.send(message))).await;
}

/// Waits until the text is to be sent once more.
async fn due(keepalive: Option<&mut (Utf8Bytes, Interval)>) -> Utf8Bytes {
    match keepalive {
        Some((text, interval)) => {
            interval.tick().await;
            text.clone()
        }
        None => std::future::pending().await,
    }
}

/// Something to do so often, and not the more often when some have been missed.
fn every(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.reset();
    ticks
}

/// What to tell an upstream that has sent what cannot be taken (RFC 6455, section 7.4.1).
pub fn complaint(error: &anyhow::Error) -> Option<CloseFrame> {
    let error = match error.downcast_ref::<login::Failed>() {
        Some(failed) => &failed.cause,
        None => error,
    };
    let code = match error.downcast_ref::<Error>()? {
        Error::Capacity(_) => CloseCode::Size,
        Error::Utf8(_) => CloseCode::Invalid,
        Error::Protocol(_) => CloseCode::Protocol,
        _ => return None,
    };
    Some(CloseFrame {
        code,
        reason: "".into(),
    })
}

/// The event that a message is, if it is one; how the connection has ended, if it has.
pub fn payload(message: Option<Result<Message, Error>>) -> Result<Option<Payload>> {
    match message {
        Some(Ok(Message::Text(text))) => Ok(Some(Payload {
            kind: Kind::Text,
            bytes: text.into(),
        })),
        Some(Ok(Message::Binary(bytes))) => Ok(Some(Payload {
            kind: Kind::Binary,
            bytes,
        })),
        Some(Ok(Message::Close(frame))) => Err(Closed(frame).into()),
        Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Ok(None),
        Some(Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake))) | None => {
            bail!("connection lost")
        }
        Some(Err(error)) => Err(error.into()),
    }
}

/// A connection that the server has closed.
#[derive(Debug)]
struct Closed(Option<CloseFrame>);

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("closed by the server")?;
        if let Some(CloseFrame { code, reason }) = &self.0 {
            write!(f, " with {code}")?;
            if !reason.is_empty() {
                // It goes into the log, so it must not look like lines of its own.
                write!(f, ": {}", reason.escape_debug())?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Closed {}

/// After what pause to come back, if a server has said that when it closed the connection.
pub fn come_back(error: &anyhow::Error) -> Option<Duration> {
    let error = match error.downcast_ref::<login::Failed>() {
        Some(failed) => &failed.cause,
        None => error,
    };
    match &error.downcast_ref::<Closed>()?.0 {
        Some(frame) if frame.code == CloseCode::Restart => comeback::pause(&frame.reason),
        _ => None,
    }
}
