//! The server: accepts, and brings each request to its endpoint.
//!
//! hyper parses HTTP, and answers what has an end. A WebSocket leaves it after the 101, and an endless body before hyper
//! has answered at all: as the bare socket, together with whatever the client has sent behind its request, and hyper's
//! buffers are gone.

mod asked;
pub mod limits;
mod list;
mod noted;
mod origin;
mod request;
mod watched;

use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::endpoint::body::{Activity, held};
use crate::endpoint::fanout::Arrival;
use crate::endpoint::websocket::hello;
use crate::endpoint::websocket::input::Unheard;
use crate::listen::Listeners;
use crate::listen::admission::Admitted;
use crate::listen::opening::{self, Opening};
use crate::listen::refusal::say_no;
use crate::listen::rewound::{HTTP2_PREFACE, Rewound};
use crate::listen::streams::Streams;
use crate::reason;
use crate::route::Routes;
use crate::route::served::Lease;
use crate::shutdown::Tracked;
use crate::wire::Format;
use limits::{Keeper, Limits};
use request::{Context, Handover, Kind, Outcome};
use watched::Watched;

/// How often an HTTP/2 connection is pinged, and how long the answer may take.
const HTTP2_PING: Duration = Duration::from_secs(20);
/// At most so many requests at once on an HTTP/2 connection.
const MAX_STREAMS: u32 = 128;
/// So much of each answer hyper keeps for a client that does not read: it is not in history any more, and not bounded by it.
const MAX_UNREAD: usize = 32 << 10;
/// So much of the bodies of an HTTP/2 connection's requests may come before it is read, of one of them as of all together
/// (RFC 9113, section 5.2).
const HTTP2_WINDOW: u32 = 256 << 10;

/// Serves `routes` until `stop` is cancelled. The connections run on as `tasks`. So does accepting: on a worker thread, where
/// what is accepted is served, and not on one that must wake another for each.
pub async fn serve(
    mut listeners: Listeners,
    routes: Arc<Routes>,
    limits: Limits,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let serving = Arc::new(Serving {
        routes,
        keeper: Keeper::new(limits),
        tasks: tasks.clone(),
        stop: stop.clone(),
    });
    let accepting = tasks.clone().spawn(async move {
        while let Some((socket, address)) = stop.run_until_cancelled(listeners.accept()).await {
            let door = &serving.keeper.door;
            match door.enter(address) {
                Ok(admitted) => {
                    tasks.spawn(connection(socket, address, admitted, serving.clone()));
                }
                Err(no_room) => {
                    if let Some(telling) = door.turn_away(socket, no_room) {
                        tasks.spawn(telling);
                    }
                }
            }
        }
    });
    accepting.await.expect("accepting does not panic");
}

/// What is served, within which limits, by which tasks, and what ends them.
struct Serving {
    routes: Arc<Routes>,
    keeper: Arc<Keeper>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// One client's connection. Until the first request is here, it is nothing but that, as many may never send one: what comes
/// later is larger, and in boxes.
async fn connection(
    mut socket: TcpStream,
    address: SocketAddr,
    admitted: Admitted,
    serving: Arc<Serving>,
) {
    let accepted = Instant::now();
    let Serving { keeper, stop, .. } = &*serving;
    let opening = tokio::select! {
        opening = opening::read(&mut socket, accepted + keeper.handshake_timeout) => opening,
        () = stop.cancelled() => return,
    };
    let early = match opening {
        Ok(Opening::Begun(early)) => early,
        Ok(Opening::Silent) => return keeper.log_late(address, false),
        Ok(Opening::Late) => return Box::pin(late(&mut socket, address, keeper)).await,
        Ok(Opening::Closed) | Err(_) => return,
    };
    let context = Context {
        routes: serving.routes.clone(),
        address,
        stop: stop.clone(),
        activity: Arc::new(Activity::new(accepted)),
        keeper: keeper.clone(),
    };
    Box::pin(http(
        socket,
        early,
        admitted,
        context,
        serving.tasks.clone(),
    ))
    .await;
}

/// One client's connection while it speaks HTTP. What it becomes after that gets a task of its own, which is smaller.
async fn http(
    socket: TcpStream,
    early: Bytes,
    admitted: Admitted,
    context: Context,
    tasks: TaskTracker,
) {
    let (address, keeper) = (context.address, context.keeper.clone());
    let result = match http1(Rewound::new(socket, early), &context).await {
        Ok(Left::Ended) => Ok(()),
        Ok(Left::Idle) => return keeper.log_idle(address),
        Ok(Left::Stuck) => return keeper.log_stuck(address),
        Ok(Left::Late(mut socket)) => return Box::pin(late(&mut socket, address, &keeper)).await,
        Ok(Left::HandedOver(socket, early, handover)) => {
            hand_over(&context, (socket, admitted), early, handover).await
        }
        Ok(Left::Http2(socket, early)) => {
            let socket = Rewound::new(socket, early);
            let streams = keeper.door.streams(address);
            Box::pin(http2(socket, Arc::new(context), streams, tasks))
                .await
                .map_err(Into::into)
        }
        Err(error) => {
            if error.is_parse_too_large() {
                keeper.log_large(address);
            }
            Err(error.into())
        }
    };
    if let Err(error) = result {
        debug!(%address, error = %reason::of(&error), "connection failed");
    }
}

/// Lets a client go whose request has not come in time.
async fn late<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    address: SocketAddr,
    keeper: &Keeper,
) {
    keeper.log_late(address, true);
    let (status, reason) = Keeper::LATE;
    say_no(stream, status, reason).await;
}

/// How a connection has left HTTP/1.
enum Left {
    /// It is over.
    Ended,
    /// There has been no request for too long.
    Idle,
    /// The client has taken nothing of an answer for too long.
    Stuck,
    /// A request has not come as a whole in time.
    Late(TcpStream),
    /// To be something else. The bytes are what the client has sent behind its request.
    HandedOver(TcpStream, Bytes, Handover),
    /// It begins as HTTP/2 does (RFC 9113, section 3.4).
    Http2(TcpStream, Bytes),
}

/// Serves HTTP/1 requests until the connection ends or becomes something else.
async fn http1(socket: Rewound<TcpStream>, context: &Context) -> hyper::Result<Left> {
    let handover = Mutex::new(None);
    let lock = || handover.lock().unwrap_or_else(PoisonError::into_inner);
    let used = AtomicBool::new(false);
    let service = service_fn(|request| {
        let alone = !used.swap(true, Ordering::Relaxed);
        let in_progress = context.activity.request();
        Box::pin(async move {
            match context.outcome(request, alone).await {
                Outcome::Answer(response) => {
                    Ok::<_, Infallible>(response.map(|body| held(body, in_progress)))
                }
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
    let activity = &context.activity;
    let deadline = || context.keeper.deadline(activity);
    let socket = Watched::new(socket, activity.clone());
    let mut connection = http1::Builder::new()
        // Its time would run while nothing of a head has come, too.
        .header_read_timeout(None)
        .max_buf_size(context.keeper.max_header_size)
        .serve_connection(TokioIo::new(socket), service);
    let mut stopping = false;
    let mut patience = pin!(sleep_until(deadline()));
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
                Poll::Ready(Some(Ok(())))
            }
            Poll::Pending => {
                // It may be over sooner than before: a head has begun. That it is over later is seen when it is over.
                if deadline() < patience.deadline() {
                    patience.as_mut().reset(deadline());
                }
                patience.as_mut().poll(cx).map(|()| None)
            }
            poll => poll.map(Some),
        });
        tokio::select! {
            result = step => match result {
                Some(result) => break result,
                None if Instant::now() < deadline() => patience.as_mut().reset(deadline()),
                None if activity.is_busy() => return Ok(Left::Stuck),
                None if activity.head_since().is_none() => return Ok(Left::Idle),
                None => {
                    let stream = connection.into_parts().io.into_inner();
                    return Ok(match stream.is_blocked() {
                        // Not all of an earlier answer has gone out.
                        true => Left::Stuck,
                        false => Left::Late(stream.into_inner().into_socket()),
                    });
                }
            },
            () = context.stop.cancelled(), if !stopping => {
                stopping = true;
                std::pin::Pin::new(&mut connection).graceful_shutdown();
            }
        }
    };
    let parts = connection.into_parts();
    let socket = parts.io.into_inner().into_inner().into_socket();
    match lock().take() {
        Some(to) if result.is_ok() => Ok(Left::HandedOver(socket, parts.read_buf, to)),
        // hyper has noticed, and has not answered.
        _ if parts.read_buf.starts_with(HTTP2_PREFACE) => Ok(Left::Http2(socket, parts.read_buf)),
        _ => result.map(|()| Left::Ended),
    }
}

/// Gives a connection to the endpoint that it has asked for.
async fn hand_over(
    context: &Context,
    (socket, admitted): (TcpStream, Admitted),
    early: Bytes,
    handover: Handover,
) -> Result<()> {
    let Handover {
        lease: Lease { stream, user },
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
                let (hello, early) = hello::receive(&socket, early).await?;
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
        socket,
        address: context.address,
        early,
        preface,
        subscription,
        publish,
        admitted: Some(admitted),
        user,
    });
    Ok(())
}

/// Serves HTTP/2 requests until the connection ends.
async fn http2(
    socket: Rewound<TcpStream>,
    context: Arc<Context>,
    streams: Arc<Streams>,
    tasks: TaskTracker,
) -> hyper::Result<()> {
    let service = {
        let (context, streams) = (context.clone(), streams.clone());
        service_fn(move |request| {
            let (context, entered) = (context.clone(), streams.enter());
            async move {
                let entered = match entered {
                    Ok(entered) => entered,
                    Err(no_room) => return Ok(context.no_room(no_room)),
                };
                match context.outcome(request, false).await {
                    Outcome::Answer(response) => {
                        Ok::<_, Infallible>(response.map(|body| held(body, entered)))
                    }
                    Outcome::Upgrade(response, _) => Ok(response),
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
        .max_header_list_size(context.keeper.max_header_size as u32)
        .initial_stream_window_size(HTTP2_WINDOW)
        .initial_connection_window_size(HTTP2_WINDOW)
        .max_concurrent_streams(MAX_STREAMS)
        .max_send_buf_size(MAX_UNREAD)
        .serve_connection(TokioIo::new(socket), service);
    let mut connection = pin!(connection);
    tokio::select! {
        result = &mut connection => return result,
        () = context.stop.cancelled() => {}
        () = streams.unused(context.keeper.idle_timeout) => context.keeper.log_idle(context.address),
    }
    connection.as_mut().graceful_shutdown();
    connection.await
}
