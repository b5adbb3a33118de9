//! One request: to the upstream whose turn it is, and its answer back.

mod event_stream;
pub mod head;
mod interim;
mod own;
mod request;
mod told;
mod websocket;

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::http::response;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, Version};
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use super::Proxy;
use super::body::{Answer, Relayed, Setting};
use super::connect::{Sender, is_own_fault};
use super::exchange::Exchange;
use super::front::gate::Control;
use super::headers::{self, From, Refusal};
use super::tunnel::Side;
use super::upstreams::{NoneLeft, Place, Upstream};
use crate::listen::proxied::Proxied;
use crate::listen::stream::Stream;
use crate::listen::streams::Streams;
use crate::reason;
use event_stream::Reader;
use own::{refused, unavailable};

pub use event_stream::Streamed;

/// What a client is told whom this process itself has no means to connect.
const OUT_OF_FILES: NoneLeft = NoneLeft {
    retry_after: Duration::from_secs(1),
    are_up: true,
};

/// What a request becomes.
pub enum Outcome {
    /// An answer, and the next request may come.
    Answer(Response<Answer>),
    /// An answer after which bytes pass both ways.
    Tunnel(Response<Answer>, Box<Opened>),
    /// An answer that is not hyper's to send: nothing of it has gone out, and nothing comes behind it.
    Stream(Box<Streamed>),
}

/// The upstream's end of a tunnel.
pub struct Opened {
    /// The connection.
    pub upstream: Side,
    /// The place it has there.
    pub place: Place,
    /// What the log will say of it.
    pub exchange: Arc<Exchange>,
    /// The client's end, where that is one stream of several on a connection.
    pub client: Option<OnUpgrade>,
}

/// A client's connection.
pub struct Client {
    /// Where its requests go through.
    pub proxy: Arc<Proxy>,
    /// Who it is.
    pub from: From,
    /// When it is to connect again.
    pub until: Option<Instant>,
    /// What HTTP/1 needs beside hyper.
    pub control: Option<Arc<Control>>,
    /// Whether there has been a request.
    pub used: AtomicBool,
    /// Over HTTP/2, the requests on this connection.
    pub streams: Option<Arc<Streams>>,
}

/// A connection to an upstream, for one request.
enum Way {
    /// One that has served a request already.
    Kept(Sender),
    /// A fresh one, on which nothing has been said.
    Fresh(Stream),
}

/// What the request asks for, beside what its head says.
struct Asked {
    head: Parts,
    body: Incoming,
    /// By what its upstream is chosen.
    key: Option<u64>,
    exchange: Arc<Exchange>,
    /// Who may get the answer without hyper.
    reader: Option<Reader>,
}

impl Client {
    /// Decides what becomes of a request.
    pub async fn outcome(&self, request: Request<Incoming>) -> Outcome {
        let (mut head, body) = request.into_parts();
        let exchange = self.begin(&head);
        // hyper's own handle on the connection has no use at an upstream.
        let upgrade = head.extensions.remove::<OnUpgrade>();
        let websocket = headers::is_websocket(&head);
        // Of requests before it, not all answers might have gone out; and an HTTP/2 connection is not for one answer.
        let is_first = !self.used.swap(true, Ordering::Relaxed) && self.control.is_some();
        if let Err(refusal) = headers::check(&head).and_then(|()| self.enter(&exchange)) {
            self.stays_http(websocket);
            return refused(&exchange, &refusal);
        }
        if websocket {
            let outcome = self.websocket(head, upgrade, exchange).await;
            self.stays_http(matches!(outcome, Outcome::Answer(_)));
            return outcome;
        }
        if let Some(outcome) = self.told(&mut head, &exchange) {
            return outcome;
        }
        let asked = Asked {
            reader: Reader::of(&head).filter(|_| is_first),
            key: self.key(&head),
            head,
            body,
            exchange,
        };
        self.request(asked).await
    }

    /// Decides what becomes of a WebSocket handshake that hyper has not seen.
    pub async fn handshake(&self, head: Parts) -> Outcome {
        self.used.store(true, Ordering::Relaxed);
        let exchange = self.begin(&head);
        match headers::check(&head) {
            Ok(()) => self.websocket(head, None, exchange).await,
            Err(refusal) => refused(&exchange, &refusal),
        }
    }

    fn begin(&self, head: &Parts) -> Arc<Exchange> {
        let stop = self.proxy.stop.clone();
        Exchange::begin(self.from.client, self.asker(head), head, stop)
    }

    /// Who has asked, where the client is a proxy that is believed.
    fn asker(&self, head: &Parts) -> Option<IpAddr> {
        let client = self.from.client.ip();
        self.proxy.rules.asker(&head.headers, client)
    }

    /// Over HTTP/2 each request counts as a connection.
    fn enter(&self, exchange: &Exchange) -> Result<(), Refusal> {
        if let Some(streams) = &self.streams {
            exchange.counts(streams.enter()?);
        }
        Ok(())
    }

    /// By what a request's upstream is chosen.
    fn key(&self, head: &Parts) -> Option<u64> {
        let asker = self.asker(head).unwrap_or(self.from.client.ip());
        self.proxy.upstreams.balance().key(asker, &head.headers)
    }

    /// What is behind a handshake that was answered otherwise are requests.
    pub(super) fn stays_http(&self, was_handshake: bool) {
        if let Some(control) = self.control.as_ref().filter(|_| was_handshake) {
            control.stays_http();
        }
    }

    /// Takes a place at the next upstream that can be reached.
    async fn reach(
        &self,
        key: Option<u64>,
        exchange: &Exchange,
        kept: bool,
    ) -> Result<(Place, Way), Outcome> {
        let mut tried: Vec<Arc<Upstream>> = Vec::new();
        loop {
            let place = match self.proxy.upstreams.pick(key, &tried) {
                Ok(place) => place,
                Err(none) => {
                    return Err(unavailable(exchange, none));
                }
            };
            let upstream = place.upstream().clone();
            if kept && let Some(sender) = upstream.pool.take() {
                exchange.at(&upstream);
                return Ok((place, Way::Kept(sender)));
            }
            match self.fresh(&upstream).await {
                Ok(stream) => {
                    exchange.at(&upstream);
                    return Ok((place, Way::Fresh(stream)));
                }
                Err(error) if is_own_fault(&error) => {
                    let why = reason::of(&error);
                    warn!(%why, "no connection to any upstream can be made for now");
                    return Err(unavailable(exchange, OUT_OF_FILES));
                }
                Err(error) => {
                    let why = reason::of(&error);
                    debug!(upstream = upstream.name(), %why, "cannot connect, trying the next one");
                    place.connect_failed(&why);
                    tried.push(upstream);
                }
            }
        }
    }

    /// Waits for an answer, for so long after the last that went to the upstream.
    async fn in_time<T>(&self, exchange: &Exchange, answer: impl Future<Output = T>) -> Option<T> {
        let mut answer = pin!(answer);
        loop {
            let before = exchange.bytes_to_upstream();
            match timeout(self.proxy.answer_timeout, &mut answer).await {
                Ok(answer) => return Some(answer),
                Err(_) if exchange.bytes_to_upstream() == before => return None,
                Err(_) => {}
            }
        }
    }

    /// Whether connections to upstreams may serve others afterwards.
    fn keeps(&self) -> bool {
        // What a PROXY header has said holds for all of a connection.
        self.proxy.connector.proxied.is_none()
    }

    /// A connection of this client's own.
    async fn fresh(&self, upstream: &Upstream) -> Result<Stream> {
        let client = Proxied {
            source: self.from.client,
            destination: self.from.local,
        };
        self.proxy.connector.open(upstream, Some(client)).await
    }

    /// The upstream's answer, its body to follow.
    fn relayed(
        &self,
        mut head: response::Parts,
        body: Incoming,
        place: Place,
        sender: Option<Sender>,
        exchange: Arc<Exchange>,
    ) -> Outcome {
        exchange.answered(head.status);
        head.extensions.remove::<OnUpgrade>();
        self.proxy.rules.response(&mut head, false);
        head.version = Version::HTTP_11;
        let setting = Setting {
            exchange,
            place,
            sender: sender.filter(|_| self.keeps()),
            idle: self.proxy.upstream_idle,
            until: self.until,
            stop: self.proxy.stop.clone(),
        };
        let body = Relayed::new(body, &head.headers, setting);
        Outcome::Answer(Response::from_parts(head, Answer::Relayed(Box::new(body))))
    }
}
