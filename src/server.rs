//! The server: accepts, and brings each request to its endpoint.
//!
//! hyper parses HTTP, and answers what has an end. A WebSocket leaves it after the 101, and an endless body before hyper
//! has answered at all: as the bare socket, together with whatever the client has sent behind its request, and hyper's
//! buffers are gone.

mod asked;
mod beginning;
pub mod failures;
pub mod limits;
mod list;
mod noted;
mod origin;
mod request;
mod watched;
mod who;

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
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::auth::Auth;
use crate::endpoint::body::{Activity, held};
use crate::endpoint::catching_up;
use crate::endpoint::fanout::{Arrival, Permit};
use crate::endpoint::websocket::hello;
use crate::endpoint::websocket::input::Unheard;
use crate::listen::Listeners;
use crate::listen::admission::Admitted;
use crate::listen::refusal::LINGER;
use crate::listen::rewound::{HTTP2_PREFACE, Rewound};
use crate::listen::stream::Stream;
use crate::listen::streams::{Counted, Entered, Streams};
use crate::listen::tls::Tls;
use crate::pause::Pause;
use crate::reason;
use crate::route::Routes;
use crate::route::served::Lease;
use crate::shutdown::{Tracked, until_stopped};
use crate::wire::Format;
use crate::wire::hop::Scope;
use failures::Failure;
use limits::Keeper;
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

/// Serves what is behind `door` within the limits that `keeper` sees to, until `stop` is cancelled, which lets nobody in any more, and go who asks for nothing; nobody is let in while `pause` is on. The connections run on as `tasks`. So does accepting:
/// on a worker thread, where what is accepted is served, and not on one that must wake another for each.
pub async fn serve(
    mut listeners: Listeners,
    door: Door,
    keeper: Arc<Keeper>,
    tasks: TaskTracker,
    stop: CancellationToken,
    pause: &Arc<Pause>,
) {
    let serving = Arc::new(Serving {
        keeper,
        door,
        tasks: tasks.clone(),
        stop: stop.clone(),
    });
    let accepting = tasks.clone().spawn(pause.within(async move {
        // The stop counts first: whoever comes in the same moment is for the process that has taken over, if there is one.
        while let Some((socket, address)) = until_stopped(&stop, pin!(listeners.accept())).await {
            let entrance = &serving.keeper.entrance;
            match entrance.enter(address) {
                Ok(admitted) => {
                    let serving = serving.clone();
                    match serving.door.tls.clone() {
                        None => tasks.spawn(beginning::plain(socket, address, admitted, serving)),
                        Some(tls) => {
                            tasks.spawn(beginning::tls(socket, address, admitted, tls, serving))
                        }
                    };
                }
                Err(no_room) => {
                    serving.keeper.handshakes.count(no_room);
                    if let Some(telling) = entrance.turn_away(socket, no_room) {
                        tasks.spawn(telling);
                    }
                }
            }
        }
    }));
    accepting.await.expect("accepting does not panic");
}

/// What is served, within which limits, by which tasks, and what ends them.
struct Serving {
    door: Door,
    keeper: Arc<Keeper>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// One client's connection while it speaks HTTP. What it becomes after that gets a task of its own, which is smaller.
async fn http(
    stream: Stream,
    early: Bytes,
    (address, accepted): (SocketAddr, Instant),
    admitted: Admitted,
    serving: Arc<Serving>,
) {
    let context = Context {
        routes: serving.door.routes.clone(),
        auth: serving.door.auth.clone(),
        address,
        is_tls: matches!(stream, Stream::Tls(_)),
        is_local: is_local(&stream),
        stop: serving.stop.clone(),
        activity: Arc::new(Activity::new(accepted)),
        keeper: serving.keeper.clone(),
    };
    let tasks = serving.tasks.clone();
    drop(serving);
    if let Err(error) = served(stream, early, admitted, context, tasks).await {
        debug!(%address, error = %reason::of(&error), "connection failed");
    }
}

/// Whether a connection leads to an address that only this machine has.
fn is_local(stream: &Stream) -> bool {
    let address = stream.socket().and_then(|socket| socket.local_addr().ok());
    address.is_some_and(|address| address.ip().to_canonical().is_loopback())
}

async fn served(
    stream: Stream,
    early: Bytes,
    admitted: Admitted,
    context: Context,
    tasks: TaskTracker,
) -> Result<()> {
    let (address, keeper) = (context.address, context.keeper.clone());
    if early.starts_with(HTTP2_PREFACE) {
        let stream = Rewound::new(stream, early);
        let streams = keeper.entrance.streams(address);
        return Ok(Box::pin(http2(stream, Arc::new(context), streams, tasks)).await?);
    }
    let left = http1(Rewound::new(stream, early), &context).await;
    match &left {
        Err(error) if error.is_parse_too_large() => keeper.log_large(address),
        Err(error) if error.is_parse() => keeper.handshakes.count(Failure::Malformed),
        Ok(_) | Err(_) => {}
    }
    match left? {
        Left::Ended(stream) => leave(stream).await,
        Left::Idle(stream) => {
            keeper.log_idle(address);
            leave(stream).await;
        }
        Left::Stuck => keeper.log_stuck(address),
        Left::Late(mut stream) => Box::pin(beginning::late(&mut stream, address, &keeper)).await,
        Left::HandedOver(stream, early, handover) => {
            let counted = Counted::Connection(admitted);
            return hand_over(&context, (stream, counted), early, handover).await;
        }
    }
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
    /// There has been no request for too long.
    Idle(Stream),
    /// The client has taken nothing of an answer for too long.
    Stuck,
    /// A request has not come as a whole in time.
    Late(Stream),
    /// To be something else. The bytes are what the client has sent behind its request.
    HandedOver(Stream, Bytes, Handover),
}

/// Serves HTTP/1 requests until the connection ends or becomes something else.
async fn http1(stream: Rewound<Stream>, context: &Context) -> hyper::Result<Left> {
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
    let stream = Watched::new(stream, activity.clone());
    let mut connection = http1::Builder::new()
        // Its time would run while nothing of a head has come, too.
        .header_read_timeout(None)
        .max_buf_size(context.keeper.max_header_size)
        .serve_connection(TokioIo::new(stream), service);
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
                None => {
                    let stream = connection.into_parts().io.into_inner();
                    let is_blocked = stream.is_blocked();
                    let stream = stream.into_inner().into_socket();
                    return Ok(match activity.head_since() {
                        None => Left::Idle(stream),
                        // Not all of an earlier answer has gone out.
                        Some(_) if is_blocked => Left::Stuck,
                        Some(_) => Left::Late(stream),
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
    let stream = parts.io.into_inner().into_inner().into_socket();
    match lock().take() {
        Some(to) if result.is_ok() => Ok(Left::HandedOver(stream, parts.read_buf, to)),
        _ => result.map(|()| Left::Ended(stream)),
    }
}

/// Gives a connection to the endpoint that it has asked for.
async fn hand_over(
    context: &Context,
    (mut connection, counted): (Stream, Counted),
    early: Bytes,
    handover: Handover,
) -> Result<()> {
    let Handover {
        lease: Lease { stream, user },
        remaining,
        kind,
        mut deep,
    } = handover;
    let mut scope = Scope::All;
    let (format, early, preface, subscription, publish) = match kind {
        Kind::WebSocket(format, subscription, publish) => {
            (format, early, Bytes::new(), subscription, publish)
        }
        Kind::Body(format, preface, subscription) => {
            (format, early, preface, subscription, Err(Unheard::Nobody))
        }
        Kind::Hop(format) => {
            let joining = async {
                let (hello, early) = hello::receive(&mut connection, format, early).await?;
                let joined = hello::join(&stream.log, format, &stream.via, &hello).await?;
                anyhow::Ok((joined, hello.scope, early))
            };
            let over = stream.ender.token();
            let Some(joined) = over.run_until_cancelled(joining).await else {
                return Ok(());
            };
            if joined.is_err() {
                context.keeper.handshakes.count(Failure::Hello);
            }
            let ((mut joined, wish), asked, early) = joined?;
            scope = asked;
            if scope == Scope::All {
                deep = stream.reach(format, &wish, &mut joined).await;
            }
            stream.subscribers.told_gaps(Format::Hop, joined.gaps.len());
            let welcome = hello::welcome(&joined, &stream.via, scope);
            let publish = Err(Unheard::Nobody);
            (format, early, welcome, joined.subscription, publish)
        }
    };
    let begun = Instant::now();
    let (preface, early, subscription) = match deep {
        None => (preface, early, subscription),
        Some(deep) => {
            let interval = stream.policy.subscribers.body_heartbeat();
            let how = (format, interval, &stream.ender);
            let bringing = catching_up::bring(&mut connection, (preface, early), deep, how);
            let until = expired(remaining);
            let (subscription, early) = tokio::select! {
                brought = Box::pin(bringing) => brought?,
                // Who comes again is asked again.
                () = until => return Ok(()),
            };
            (Bytes::new(), early, subscription)
        }
    };
    let remaining = remaining.map(|remaining| remaining.saturating_sub(begun.elapsed()));
    let fanout = match format.plain() {
        Format::Hop => stream.links(scope, format),
        _ => stream.fanout(format),
    };
    fanout.serve(Arrival {
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
        counted,
    });
    Ok(())
}

/// Ready when what has opened a connection has run out.
async fn expired(remaining: Option<Duration>) {
    match remaining {
        Some(remaining) => sleep(remaining).await,
        None => pending().await,
    }
}

/// Makes a WebSocket of its own of one stream of an HTTP/2 connection (RFC 8441).
async fn upgraded(upgrade: OnUpgrade, handover: Handover, context: Arc<Context>, entered: Entered) {
    let address = context.address;
    let result = async {
        let stream = Stream::Http2(Box::new(TokioIo::new(upgrade.await?)));
        let counted = Counted::Request(Box::new(entered));
        hand_over(&context, (stream, counted), Bytes::new(), handover).await
    };
    if let Err(error) = result.await {
        debug!(%address, error = %reason::of(&error), "connection failed");
    }
}

/// Serves HTTP/2 requests until the connection ends.
async fn http2(
    stream: Rewound<Stream>,
    context: Arc<Context>,
    streams: Arc<Streams>,
    tasks: TaskTracker,
) -> hyper::Result<()> {
    let service = {
        let (context, tasks, streams) = (context.clone(), tasks.clone(), streams.clone());
        service_fn(move |mut request| {
            let (context, tasks, entered) = (context.clone(), tasks.clone(), streams.enter());
            async move {
                let entered = match entered {
                    Ok(entered) => entered,
                    Err(no_room) => return Ok(context.no_room(no_room)),
                };
                let upgrade = hyper::upgrade::on(&mut request);
                match context.outcome(request, false).await {
                    Outcome::Answer(response) => {
                        Ok::<_, Infallible>(response.map(|body| held(body, entered)))
                    }
                    Outcome::Upgrade(response, to) => {
                        tasks.spawn(upgraded(upgrade, to, context, entered));
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
        .max_header_list_size(context.keeper.max_header_size as u32)
        .initial_stream_window_size(HTTP2_WINDOW)
        .initial_connection_window_size(HTTP2_WINDOW)
        .max_concurrent_streams(MAX_STREAMS)
        .max_send_buf_size(MAX_UNREAD)
        .enable_connect_protocol()
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        result = &mut connection => return result,
        () = context.stop.cancelled() => {}
        () = streams.unused(context.keeper.idle_timeout) => context.keeper.log_idle(context.address),
    }
    connection.as_mut().graceful_shutdown();
    connection.await
}
