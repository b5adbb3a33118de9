//! A WebSocket handshake, up to the point where both ends are handed over.
//!
//! The upstream's side of it is done without hyper: one request without a body, and the head of one answer, for which hyper's
//! client would make a channel and three buffers that are thrown away at once, a tenth of what a handshake costs. If the answer
//! is another than 101, hyper gets the connection after all, to read it.

#[cfg(test)]
mod tests;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use anyhow::{Result, bail};
use bytes::{Bytes, BytesMut};
use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;
use hyper::http::response;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode, Version};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::head;
use super::own::{Failure, failed};
use super::{Client, Opened, Outcome, Way};
use crate::listen::rewound::Rewound;
use crate::listen::stream::Stream;
use crate::proxy::body::{Answer, Upload};
use crate::proxy::connect::{MAX_HEAD, speak_http};
use crate::proxy::exchange::Exchange;
use crate::proxy::tunnel::Side;
use crate::proxy::upstreams::Place;
use crate::reason;

/// What is read of an answer at first: more than most heads have.
const FIRST_READ: usize = 1 << 10;

impl Client {
    /// A handshake, over a connection that nobody else uses.
    pub(super) async fn websocket(
        &self,
        mut asked: Parts,
        upgrade: Option<OnUpgrade>,
        exchange: Arc<Exchange>,
    ) -> Outcome {
        let is_http2 = asked.version == Version::HTTP_2;
        let key = self.key(&asked);
        let (place, way) = match self.reach(key, &exchange, false).await {
            Ok(reached) => reached,
            Err(outcome) => return outcome,
        };
        let Way::Fresh(mut stream) = way else {
            unreachable!("a kept connection was not asked for");
        };
        let authority = place.upstream().authority();
        let rules = &self.proxy.rules;
        rules.request(&mut asked, &self.from, authority, true);
        let answer = exchanged(&mut stream, &asked);
        let (mut head, rest) = match self.in_time(&exchange, answer).await {
            Some(Ok(Answered::Switched(head, rest))) => (head, rest),
            Some(Ok(Answered::Otherwise(early))) => {
                let request = Request::from_parts(asked, Upload::empty(exchange.clone()));
                return self
                    .otherwise(request, stream, early, place, exchange)
                    .await;
            }
            Some(Err(error)) => {
                place.no_answer();
                return failed(&exchange, Failure::bad_gateway(reason::of(&error)));
            }
            None => {
                place.no_answer();
                return failed(&exchange, Failure::timeout());
            }
        };
        place.answered(head.status);
        // A client that has chosen the key itself checks the answer itself.
        let key = asked.headers.get(header::SEC_WEBSOCKET_KEY);
        if let Err(why) = check_switch(&head, key.filter(|_| is_http2)) {
            return failed(&exchange, Failure::bad_gateway(why));
        }
        rules.response(&mut head, true);
        if is_http2 {
            // RFC 8441, section 5: what takes the place of 101, and of the key.
            head.status = StatusCode::OK;
            for name in [
                header::CONNECTION,
                header::UPGRADE,
                header::SEC_WEBSOCKET_ACCEPT,
            ] {
                head.headers.remove(name);
            }
        }
        exchange.answered(head.status);
        let opened = Opened {
            upstream: Side {
                stream,
                early: rest,
            },
            place,
            exchange,
            client: upgrade.filter(|_| is_http2),
        };
        let response = Response::from_parts(head, Answer::Own(Bytes::new()));
        Outcome::Tunnel(response, Box::new(opened))
    }

    /// The upstream has said something else than 101: hyper reads it.
    async fn otherwise(
        &self,
        request: Request<Upload>,
        stream: Stream,
        early: Bytes,
        place: Place,
        exchange: Arc<Exchange>,
    ) -> Outcome {
        let said = Said {
            stream: Rewound::new(stream, early),
            asked: false,
            reader: None,
        };
        let answer = async { speak_http(said).await?.send_request(request).await };
        match self.in_time(&exchange, answer).await {
            Some(Ok(response)) => {
                place.answered(response.status());
                let (head, body) = response.into_parts();
                self.relayed(head, body, place, None, exchange)
            }
            Some(Err(error)) => {
                place.no_answer();
                failed(&exchange, Failure::bad_gateway(reason::of(&error.into())))
            }
            None => {
                place.no_answer();
                failed(&exchange, Failure::timeout())
            }
        }
    }
}

/// What an upstream says to a handshake.
enum Answered {
    /// Yes; with what it has sent behind that.
    Switched(response::Parts, Bytes),
    /// Something else, of which this has been read.
    Otherwise(Bytes),
}

/// Sends a handshake, and reads the head of the answer.
async fn exchanged(stream: &mut Stream, request: &Parts) -> Result<Answered> {
    stream.write_all(&head::encode_request(request)).await?;
    stream.flush().await?;
    let mut read = BytesMut::with_capacity(FIRST_READ);
    loop {
        if read.len() >= MAX_HEAD {
            bail!("the head of the upstream's answer is too long");
        }
        if stream.read_buf(&mut read).await? == 0 {
            bail!("the upstream has closed the connection without an answer");
        }
        if let Some(answered) = answered(&mut read)? {
            return Ok(answered);
        }
    }
}

/// What has been said, once it is known.
fn answered(read: &mut BytesMut) -> Result<Option<Answered>> {
    loop {
        let Some((head, len)) = head::decode_answer(read)? else {
            return Ok(None);
        };
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            let rest = read.split_off(len).freeze();
            return Ok(Some(Answered::Switched(head, rest)));
        }
        if !head.status.is_informational() {
            return Ok(Some(Answered::Otherwise(read.split().freeze())));
        }
        // RFC 9110, section 15.2: there may be such before the answer, and nobody waits for them here.
        let _ = read.split_to(len);
    }
}

/// A connection on which the request has been said already: what hyper writes of it goes nowhere. Until it has written, there
/// is nothing to read: an answer before the question would be a mistake to it.
struct Said {
    stream: Rewound<Stream>,
    asked: bool,
    reader: Option<Waker>,
}

impl AsyncRead for Said {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.asked {
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Said {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.asked = true;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Whether an upstream has made a WebSocket of the connection, and of this handshake (RFC 6455, section 4.1), as far as it is
/// not for the client to see.
fn check_switch(head: &response::Parts, key: Option<&HeaderValue>) -> Result<(), &'static str> {
    let get = |name| {
        head.headers
            .get(name)
            .map_or(&b""[..], HeaderValue::as_bytes)
    };
    if !get(header::UPGRADE).eq_ignore_ascii_case(b"websocket") {
        return Err("the upstream has switched to another protocol than WebSocket");
    }
    let fits = |key: &HeaderValue| {
        get(header::SEC_WEBSOCKET_ACCEPT) == derive_accept_key(key.as_bytes()).as_bytes()
    };
    if !key.is_none_or(fits) {
        return Err("the upstream has answered another handshake than ours");
    }
    Ok(())
}
