//! One client's connection: what stands before HTTP, HTTP/1 and HTTP/2 by hyper, and what it becomes when a WebSocket is made of it.

pub mod gate;
mod http2;

use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::{Bytes, BytesMut};
use hyper::Response;
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rand::RngExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info};

use super::Proxy;
use super::body::Answer;
use super::forward::head;
use super::forward::{Client, Opened, Outcome, Streamed};
use super::headers::From;
use super::tunnel::{self, Side, event_stream};
use crate::listen::admission::{Admitted, NoRoom};
use crate::listen::proxied;
use crate::listen::refusal::{LINGER, say_later, say_no};
use crate::listen::stream::Stream;
use crate::reason;
use gate::{Gate, Verdict};

/// What is read of a connection at first: more than most heads have.
const FIRST_READ: usize = 2 << 10;
/// A PROXY header must be here by then.
const OPENING: Duration = Duration::from_secs(10);
/// A connection waits for so long for its next request, which must be here as a whole by then.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// So much hyper keeps of what a client is slow to take, in bytes.
const MAX_UNREAD: usize = 64 << 10;

/// Serves one connection until it ends, or is a tunnel, which is a task of its own, and a smaller one.
pub async fn connection(
    mut socket: TcpStream,
    address: SocketAddr,
    admitted: Option<Admitted>,
    proxy: Arc<Proxy>,
) {
    let stop = proxy.stop.begun();
    let who = who(&mut socket, address, &proxy);
    let mut from = match stop.run_until_cancelled(who).await {
        None => return,
        Some(Ok(from)) => from,
        Some(Err(error)) => {
            let reason = reason::of(&error);
            const MESSAGE: &str = "no PROXY header, connection closed";
            // Balancers look now and then whether somebody listens, and say nothing.
            match is_a_look(&error) {
                true => debug!(client = %address, %reason, "{MESSAGE}"),
                false => info!(client = %address, %reason, "{MESSAGE}"),
            }
            return;
        }
    };
    let Some(mut admitted) = admitted else {
        return turn_away(socket, from, &proxy, NoRoom::InAll).await;
    };
    if !admitted.is_of(from.client.ip()) {
        return turn_away(socket, from, &proxy, NoRoom::OfAddress).await;
    }
    let Some(tls) = &proxy.tls else {
        return open(Stream::Plain(socket), from, admitted, proxy).await;
    };
    from.https = true;
    let opening = Box::pin(tls.open(socket, OPENING));
    let (stream, preface) = match proxy.stop.begun().run_until_cancelled(opening).await {
        Some(Ok(opened)) => opened,
        Some(Err(error)) => {
            let reason = reason::of(&error);
            debug!(client = %from.client, %reason, "TLS handshake failed");
            return;
        }
        None => return,
    };
    match preface {
        Some(preface) => {
            Box::pin(http2::serve(stream, preface, from, admitted, proxy)).await;
        }
        None => open(stream, from, admitted, proxy).await,
    }
}

/// Who the client is: whoever has connected, or whoever a PROXY header names.
async fn who(socket: &mut TcpStream, address: SocketAddr, proxy: &Proxy) -> Result<From> {
    let mut from = From {
        client: address,
        https: false,
        local: address,
    };
    if proxy.connector.proxied.is_some() {
        from.local = socket.local_addr()?;
    }
    if proxy.accept_proxied {
        let proxied = timeout(OPENING, proxied::read(socket)).await;
        let proxied = proxied.context("it does not come")??;
        (from.client, from.local) = (proxied.source, proxied.destination);
    }
    Ok(from)
}

/// Whether a connection has ended before anything was said.
fn is_a_look(error: &anyhow::Error) -> bool {
    let failure = error.downcast_ref();
    error.is::<std::io::Error>()
        || matches!(
            failure,
            Some(proxied::Failure::Ended | proxied::Failure::Io(_))
        )
}

/// When a connection that begins now is to end: at its age, give or take a tenth, so that those which came together do not
/// come back together.
fn until(proxy: &Proxy) -> Option<Instant> {
    let factor = rand::rng().random_range(0.9..1.1);
    proxy
        .max_age
        .map(|age| Instant::now() + age.mul_f64(factor))
}

/// Comes when a connection is to take no further requests.
async fn leaving(proxy: &Proxy, until: Option<Instant>) {
    let aged = async {
        match until {
            Some(until) => sleep_until(until).await,
            None => pending().await,
        }
    };
    tokio::select! {
        () = proxy.stop.begun().cancelled() => {}
        () = aged => {}
    }
}

/// What leaves hyper.
enum Handover {
    /// A connection after its 101.
    Tunnel(Box<Opened>),
    /// One whose request is to be answered with a stream.
    Stream(Box<Streamed>),
}

/// Serves what has not said yet that it is HTTP/2; boxed are those whose state is large, and which most connections never come to. A connection that begins with a WebSocket handshake never comes to hyper,
/// unless it is to be answered with something else than 101.
async fn open(mut stream: Stream, from: From, admitted: Admitted, proxy: Arc<Proxy>) {
    let mut read = BytesMut::with_capacity(FIRST_READ);
    let until = until(&proxy);
    let first = tokio::select! {
        first = timeout(HEAD_TIMEOUT, stream.read_buf(&mut read)) => first,
        () = leaving(&proxy, until) => return,
    };
    let Ok(Ok(1..)) = first else {
        return;
    };
    let gate = Gate::new(stream, read);
    let client = Client {
        control: Some(gate.control()),
        proxy,
        from,
        until,
        used: AtomicBool::new(false),
        streams: None,
    };
    match gate.handshake().map(head::decode_request) {
        Some(Ok(head)) => handshake(head, gate, client, admitted).await,
        _ => Box::pin(http1(gate, client, None, admitted)).await,
    }
}

/// The handshake that a connection begins with.
async fn handshake(head: Parts, mut gate: Gate, client: Client, admitted: Admitted) {
    let outcome = tokio::select! {
        outcome = client.handshake(head) => outcome,
        () = gate.gone() => return,
    };
    match outcome {
        Outcome::Answer(response) => {
            Box::pin(http1(gate, client, Some(response), admitted)).await;
        }
        Outcome::Tunnel(response, opened) => {
            let (mut stream, early) = gate.into_tunnel();
            let head = head::encode_answer(
                response.status(),
                b"Switching Protocols",
                response.headers(),
            );
            let written = async {
                stream.write_all(&head).await?;
                stream.flush().await
            };
            if written.await.is_ok() {
                let side = Side { stream, early };
                let tunnel = tunneled(side, *opened, client.until, admitted, client.proxy.clone());
                client.proxy.tasks.spawn(tunnel);
            }
        }
        Outcome::Stream(_) => unreachable!("a handshake does not ask for a stream"),
    }
}

/// Serves HTTP/1 requests until the connection ends or becomes something else. `answer`: the first one has been answered with
/// that.
async fn http1(gate: Gate, client: Client, answer: Option<Response<Answer>>, admitted: Admitted) {
    let (proxy, from, until) = (client.proxy.clone(), client.from, client.until);
    let control = gate.control();
    let answer = Mutex::new(answer);
    let handover = Mutex::new(None);
    let lock = || handover.lock().unwrap_or_else(PoisonError::into_inner);
    let service = service_fn(|request| {
        let (client, lock) = (&client, &lock);
        let answer = answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        Box::pin(async move {
            if let Some(answer) = answer {
                client.stays_http(true);
                return Ok(answer);
            }
            match client.outcome(request).await {
                Outcome::Answer(response) => Ok::<_, Infallible>(response),
                Outcome::Tunnel(response, to) => {
                    *lock() = Some(Handover::Tunnel(to));
                    Ok(response)
                }
                Outcome::Stream(to) => {
                    *lock() = Some(Handover::Stream(to));
                    pending().await
                }
            }
        })
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_UNREAD)
        .preserve_header_case(true)
        .serve_connection(TokioIo::new(gate), service);
    let mut is_leaving = false;
    let result = loop {
        // A stream leaves hyper unanswered.
        let step = poll_fn(|cx| match connection.poll_without_shutdown(cx) {
            Poll::Pending if matches!(*lock(), Some(Handover::Stream(_))) => Poll::Ready(Ok(())),
            poll => poll,
        });
        tokio::select! {
            result = step => break result,
            () = leaving(&proxy, until), if !is_leaving => {
                is_leaving = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
        }
    };
    let parts = connection.into_parts();
    let (mut stream, unread) = parts.io.into_inner().into_parts();
    let early = joined(parts.read_buf, unread);
    let handover = lock().take();
    match (handover, control.verdict(), result) {
        (Some(Handover::Tunnel(opened)), _, Ok(())) => {
            let side = Side { stream, early };
            let tunnel = tunneled(side, *opened, until, admitted, proxy.clone());
            proxy.tasks.spawn(tunnel);
        }
        (Some(Handover::Stream(streamed)), _, Ok(())) => {
            // What the client has sent behind its request gets no answer, as the head of this one says.
            let stream = event_streamed(stream, *streamed, until, admitted, proxy.clone());
            proxy.tasks.spawn(stream);
        }
        (_, Some(Verdict::Http2), _) => {
            Box::pin(http2::serve(stream, early, from, admitted, proxy)).await;
        }
        (_, Some(Verdict::Refused(status, reason)), Err(_)) => {
            info!(client = %from.client, status = status.as_u16(), reason, "request refused");
            say_no(&mut stream, status, reason).await;
        }
        (_, _, Err(error)) => {
            let reason = reason::of(&error.into());
            debug!(client = %from.client, %reason, "connection failed");
        }
        (_, _, Ok(())) => {
            let _ = timeout(LINGER, stream.shutdown()).await;
        }
    }
}

fn joined(first: Bytes, second: Bytes) -> Bytes {
    if second.is_empty() {
        return first;
    }
    let mut all = BytesMut::from(first);
    all.extend_from_slice(&second);
    all.freeze()
}

/// What a connection is from its switch of protocols to its end.
async fn tunneled<A>(
    client: Side,
    opened: Opened,
    until: Option<Instant>,
    admitted: A,
    proxy: Arc<Proxy>,
) {
    let (limits, stop) = (limits(&proxy, until), proxy.stop.clone());
    drop(proxy);
    let ended = tunnel::run(client, opened.upstream, limits, &stop).await;
    opened.exchange.to_client(ended.to_client);
    opened.exchange.to_upstream(ended.to_upstream);
    opened.exchange.ended(ended.why.to_string());
    drop((opened.place, admitted));
}

/// What a connection is from an answer that it ends with.
async fn event_streamed(
    client: Stream,
    streamed: Streamed,
    until: Option<Instant>,
    admitted: Admitted,
    proxy: Arc<Proxy>,
) {
    let (limits, stop) = (limits(&proxy, until), proxy.stop.clone());
    drop(proxy);
    let Streamed {
        opened,
        head,
        content,
    } = streamed;
    let Opened {
        upstream,
        place,
        exchange,
        ..
    } = opened;
    let ended = event_stream::run(client, upstream, head, content, limits, &stop).await;
    exchange.to_client(ended.to_client);
    exchange.ended(ended.why);
    drop((place, admitted));
}

fn limits(proxy: &Proxy, until: Option<Instant>) -> tunnel::Limits {
    tunnel::Limits {
        client_idle: proxy.client_idle,
        upstream_idle: proxy.upstream_idle,
        age: until,
        drain: proxy.drain,
    }
}

/// Tells a client that there is no room for it, if that can be said, and to a few at a time only.
async fn turn_away(mut socket: TcpStream, from: From, proxy: &Proxy, no_room: NoRoom) {
    let (status, reason) = (no_room.status(), no_room.reason());
    info!(client = %from.client, status = status.as_u16(), reason, "connection refused");
    let Some(_permit) = proxy.turning_away.permit() else {
        return;
    };
    if proxy.tls.is_none() {
        say_later(&mut socket, no_room).await;
    }
}
