//! The server: accepts, and brings each request to its endpoint.
//!
//! hyper parses HTTP, and answers what has an end. A WebSocket leaves it after the 101, and an endless body before hyper
//! has answered at all: as the bare socket, together with whatever the client has sent behind its request, and hyper's
//! buffers are gone.

mod asked;
mod list;
mod noted;
mod origin;
mod request;
mod who;

use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::auth::Auth;
use crate::endpoint::fanout::{Arrival, Permit};
use crate::endpoint::websocket::hello;
use crate::endpoint::websocket::input::Unheard;
use crate::listen::Listeners;
use crate::listen::refusal::LINGER;
use crate::listen::rewound::{HTTP2_PREFACE, Rewound};
use crate::listen::stream::Stream;
use crate::listen::tls::Tls;
use crate::reason;
use crate::route::Routes;
use crate::route::served::Lease;
use crate::shutdown::Tracked;
use crate::wire::Format;
use request::{Context, Handover, Kind, Outcome};

/// A request's head must be here by then, however slowly it arrives.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection on which nothing has gone either way for so long is given up: streams have a heartbeat that is shorter, and
/// other requests are answered at once.
const STUCK: Duration = Duration::from_secs(45);
/// The longest head of a request, in bytes; more is answered with 431.
const MAX_HEAD: usize = 16 << 10;
/// How often an HTTP/2 connection is pinged, and how long the answer may take.
const HTTP2_PING: Duration = Duration::from_secs(20);
/// At most so many requests at once on an HTTP/2 connection.
const MAX_STREAMS: u32 = 128;
/// So much of each answer hyper keeps for a client that does not read: it is not in history any more, and not bounded by it.
const MAX_UNREAD: usize = 32 << 10;

/// What connections are let in by, and what is behind.
#[derive(Clone)]
pub struct Door {
    /// TLS, if that is spoken.
    pub tls: Option<Arc<Tls>>,
    /// Says who may what; none if everyone may everything.
    pub auth: Option<Arc<Auth>>,
    /// What is served.
    pub routes: Arc<Routes>,
}

/// Serves what is behind `door` until `stop` is cancelled. The connections run on as `tasks`. So does accepting: on a worker
/// thread, where what is accepted is served, and not on one that must wake another for each.
pub async fn serve(
    mut listeners: Listeners,
    door: Door,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let accepting = tasks.clone().spawn(async move {
        while let Some((socket, address)) = stop.run_until_cancelled(listeners.accept()).await {
            let context = Context {
                routes: door.routes.clone(),
                auth: door.auth.clone(),
                address,
                stop: stop.clone(),
                activity: Arc::default(),
            };
            tasks.spawn(connection(socket, door.tls.clone(), context, tasks.clone()));
        }
    });
    accepting.await.expect("accepting does not panic");
}

/// One client's connection while it speaks HTTP. What it becomes after that gets a task of its own, which is smaller.
async fn connection(
    socket: TcpStream,
    tls: Option<Arc<Tls>>,
    context: Context,
    tasks: TaskTracker,
) {
    let address = context.address;
    let result = match tls {
        None => serve_stream(Stream::Plain(socket), None, context, tasks).await,
        // Boxed is what most connections need not: its state is large.
        Some(tls) => match Box::pin(context.stop.run_until_cancelled(tls.open(socket))).await {
            None => return,
            Some(Ok((stream, preface))) => serve_stream(stream, preface, context, tasks).await,
            Some(Err(error)) => Err(error.context("TLS handshake failed")),
        },
    };
    if let Err(error) = result {
        debug!(%address, error = %reason::of(&error), "connection failed");
    }
}

/// Serves what comes on a connection. `preface` is there if it is HTTP/2, and has been read.
async fn serve_stream(
    stream: Stream,
    preface: Option<Bytes>,
    context: Context,
    tasks: TaskTracker,
) -> Result<()> {
    let (stream, preface) = match preface {
        Some(preface) => (stream, preface),
        None => match http1(stream, &context).await? {
            Left::Ended(stream) => {
                leave(stream).await;
                return Ok(());
            }
            Left::HandedOver(stream, early, handover) => {
                return hand_over(&context, stream, early, handover).await;
            }
            Left::Http2(stream, early) => (stream, early),
        },
    };
    let stream = Rewound::new(stream, preface);
    Box::pin(http2(stream, Arc::new(context), tasks)).await?;
    Ok(())
}

/// Ends a connection that is over. Over TLS it is said: otherwise a client might take it for cut off (RFC 8446, section 6.1).
async fn leave(mut stream: Stream) {
    if matches!(stream, Stream::Tls(_)) {
        let _ = timeout(LINGER, stream.shutdown()).await;
    }
}

/// How a connection has left HTTP/1.
enum Left {
    /// It is over.
    Ended(Stream),
    /// To be something else. The bytes are what the client has sent behind its request.
    HandedOver(Stream, Bytes, Handover),
    /// It begins as HTTP/2 does (RFC 9113, section 3.4).
    Http2(Stream, Bytes),
}

/// Serves HTTP/1 requests until the connection ends or becomes something else.
async fn http1(stream: Stream, context: &Context) -> hyper::Result<Left> {
    let handover = Mutex::new(None);
    let lock = || handover.lock().unwrap_or_else(PoisonError::into_inner);
    let used = AtomicBool::new(false);
    let service = service_fn(|request| {
        let alone = !used.swap(true, Ordering::Relaxed);
        context.activity.note();
        Box::pin(async move {
            match context.outcome(request, alone).await {
                Outcome::Answer(response) => Ok::<_, Infallible>(response),
                Outcome::Upgrade(response, to) => {
                    *lock() = Some(to);
                    Ok(response)
                }
                Outcome::TakeOver(to) => {
                    *lock() = Some(to);
                    pending().await
                }
            }
        })
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(Rewound::opening(stream)), service);
    let mut stopping = false;
    let result = loop {
        let step = poll_fn(|cx| match connection.poll_without_shutdown(cx) {
            Poll::Pending
                if matches!(
                    *lock(),
                    Some(Handover {
                        kind: Kind::Body(..),
                        ..
                    })
                ) =>
            {
                Poll::Ready(Ok(()))
            }
            poll => poll,
        });
        tokio::select! {
            result = step => break result,
            () = context.stop.cancelled(), if !stopping => {
                stopping = true;
                std::pin::Pin::new(&mut connection).graceful_shutdown();
            }
            () = sleep_until(context.activity.last() + STUCK) => {
                if context.activity.last().elapsed() >= STUCK {
                    break Ok(());
                }
            }
        }
    };
    let parts = connection.into_parts();
    let stream = parts.io.into_inner().into_socket();
    match lock().take() {
        Some(to) if result.is_ok() => Ok(Left::HandedOver(stream, parts.read_buf, to)),
        // hyper has noticed, and has not answered.
        _ if parts.read_buf.starts_with(HTTP2_PREFACE) => Ok(Left::Http2(stream, parts.read_buf)),
        _ => result.map(|()| Left::Ended(stream)),
    }
}

/// Gives a connection to the endpoint that it has asked for.
async fn hand_over(
    context: &Context,
    mut connection: Stream,
    early: Bytes,
    handover: Handover,
) -> Result<()> {
    let Handover {
        lease: Lease { stream, user },
        remaining,
        kind,
    } = handover;
    let (format, early, preface, subscription, publish) = match kind {
        Kind::WebSocket(subscription, publish) => {
            let format = Format::WebSocket;
            (format, early, Bytes::new(), subscription, publish)
        }
        Kind::Body(format, preface, subscription) => {
            (format, early, preface, subscription, Err(Unheard::Nobody))
        }
        Kind::Hop => {
            let joining = async {
                let (hello, early) = hello::receive(&mut connection, early).await?;
                let joined = hello::join(&stream.log, &hello).await?;
                anyhow::Ok((joined, early))
            };
            let Some(joined) = context.stop.run_until_cancelled(joining).await else {
                return Ok(());
            };
            let (joined, early) = joined?;
            let welcome = hello::welcome(&joined, &stream.via);
            let publish = Err(Unheard::Nobody);
            (Format::Hop, early, welcome, joined.subscription, publish)
        }
    };
    stream.fanout(format).serve(Arrival {
        stream: connection,
        address: context.address,
        early,
        preface,
        subscription,
        permit: Permit {
            publish,
            remaining,
            user,
        },
    });
    Ok(())
}

/// Makes a WebSocket of its own of one stream of an HTTP/2 connection (RFC 8441).
async fn upgraded(upgrade: OnUpgrade, handover: Handover, context: Arc<Context>) {
    let address = context.address;
    let result = async {
        let stream = Stream::Http2(Box::new(TokioIo::new(upgrade.await?)));
        hand_over(&context, stream, Bytes::new(), handover).await
    };
    if let Err(error) = result.await {
        debug!(%address, error = %reason::of(&error), "connection failed");
    }
}

/// Serves HTTP/2 requests until the connection ends.
async fn http2(
    stream: Rewound<Stream>,
    context: Arc<Context>,
    tasks: TaskTracker,
) -> hyper::Result<()> {
    let service = {
        let (context, tasks) = (context.clone(), tasks.clone());
        service_fn(move |mut request| {
            let (context, tasks) = (context.clone(), tasks.clone());
            async move {
                let upgrade = hyper::upgrade::on(&mut request);
                match context.outcome(request, false).await {
                    Outcome::Answer(response) => Ok::<_, Infallible>(response),
                    Outcome::Upgrade(response, to) => {
                        tasks.spawn(upgraded(upgrade, to, context));
                        Ok(response)
                    }
                    // Only where nothing else is on the connection.
                    Outcome::TakeOver(_) => pending().await,
                }
            }
        })
    };
    let connection = http2::Builder::new(Tracked(tasks))
        .timer(TokioTimer::new())
        .keep_alive_interval(HTTP2_PING)
        .keep_alive_timeout(HTTP2_PING)
        .max_header_list_size(MAX_HEAD as u32)
        .max_concurrent_streams(MAX_STREAMS)
        .max_send_buf_size(MAX_UNREAD)
        .enable_connect_protocol()
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        result = &mut connection => return result,
        () = context.stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}
