//! A client's connection that speaks HTTP/2, on which each request may be a WebSocket of its own (RFC 8441).

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::Bytes;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tracing::debug;

use super::{HEAD_TIMEOUT, MAX_UNREAD, leaving, tunneled, until};
use crate::listen::admission::Admitted;
use crate::listen::rewound::Rewound;
use crate::listen::stream::Stream;
use crate::listen::streams::Streams;
use crate::proxy::Proxy;
use crate::proxy::forward::{Client, Outcome};
use crate::proxy::headers::From;
use crate::proxy::tunnel::Side;
use crate::reason;
use crate::shutdown::Tracked;

/// How often an HTTP/2 connection is pinged, and how long the answer may take.
const HTTP2_PING: Duration = Duration::from_secs(20);
/// At most so many requests at once on an HTTP/2 connection.
const MAX_STREAMS: u32 = 128;
/// The longest head of a request over HTTP/2, in bytes.
const MAX_HEAD: u32 = 16 << 10;

/// Serves HTTP/2 until the connection ends. `early` has been read of it.
pub async fn serve(
    stream: Stream,
    early: Bytes,
    from: From,
    admitted: Admitted,
    proxy: Arc<Proxy>,
) {
    let until = until(&proxy);
    let streams = Streams::new(proxy.admission.clone(), from.client.ip());
    let client = Arc::new(Client {
        proxy: proxy.clone(),
        from,
        until,
        control: None,
        used: AtomicBool::new(false),
        streams: Some(streams.clone()),
    });
    let admitted = Arc::new(admitted);
    let service = service_fn(|request| {
        let (client, admitted) = (client.clone(), admitted.clone());
        async move {
            let proxy = client.proxy.clone();
            Ok::<_, Infallible>(match client.outcome(request).await {
                Outcome::Answer(response) => response,
                Outcome::Tunnel(response, mut opened) => {
                    let upgrade = opened.client.take();
                    proxy.tasks.clone().spawn(async move {
                        let Some(Ok(upgraded)) =
                            futures_util::future::OptionFuture::from(upgrade).await
                        else {
                            return;
                        };
                        let side = Side {
                            stream: Stream::Http2(Box::new(TokioIo::new(upgraded))),
                            early: Bytes::new(),
                        };
                        tunneled(side, *opened, until, admitted, proxy).await;
                    });
                    response
                }
                Outcome::Stream(_) => unreachable!("only where nothing else is on the connection"),
            })
        }
    });
    let connection = http2::Builder::new(Tracked(proxy.tasks.clone()))
        .timer(TokioTimer::new())
        .keep_alive_interval(HTTP2_PING)
        .keep_alive_timeout(HTTP2_PING)
        .max_header_list_size(MAX_HEAD)
        .max_concurrent_streams(MAX_STREAMS)
        .max_send_buf_size(MAX_UNREAD)
        .enable_connect_protocol()
        .serve_connection(TokioIo::new(Rewound::new(stream, early)), service);
    let mut connection = pin!(connection);
    let result = tokio::select! {
        result = &mut connection => result,
        () = async { tokio::select! {
            () = leaving(&proxy, until) => {}
            () = streams.unused(HEAD_TIMEOUT) => {}
        } } => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        let reason = reason::of(&error.into());
        debug!(client = %from.client, %reason, "connection failed");
    }
}
