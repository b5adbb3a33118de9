//! Active health: every upstream is probed at intervals, by a task of its own, so one that hangs delays no other.

use std::error::Error as _;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::header::{self, HeaderValue};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_util::sync::CancellationToken;

use crate::proxy::connect::{Connector, is_own_fault};
use crate::proxy::upstreams::{Upstream, Upstreams};
use crate::reason;

#[cfg(test)]
mod tests;

const USER_AGENT: HeaderValue = HeaderValue::from_static("wsevent");

/// How upstreams are probed.
#[derive(Clone, Debug)]
pub struct Probe {
    /// What is asked for; none: a connection that comes about is enough.
    pub path: Option<String>,
    /// From one probe to the next.
    pub interval: Duration,
    /// How long a probe may take; the interval is a limit as well.
    pub timeout: Duration,
}

/// Probes all listed upstreams until `stop` is cancelled; those that a reload adds from then on, those that it removes no
/// more.
pub async fn watch(
    upstreams: Arc<Upstreams>,
    probe: Probe,
    connect: Arc<Connector>,
    stop: CancellationToken,
) {
    let mut list = upstreams.watch();
    let mut probed: Vec<(Arc<Upstream>, AbortHandle)> = vec![];
    // Dropped in the end, it takes all of its tasks along.
    let mut tasks = JoinSet::new();
    loop {
        let current = list.borrow_and_update().clone();
        let is_in = |upstream: &Arc<Upstream>| current.iter().any(|one| Arc::ptr_eq(one, upstream));
        for (_, task) in probed.extract_if(.., |(upstream, _)| !is_in(upstream)) {
            task.abort();
        }
        while tasks.try_join_next().is_some() {}
        let is_probed = |upstream: &&Arc<Upstream>| {
            probed
                .iter()
                .any(|(probed, _)| Arc::ptr_eq(probed, upstream))
        };
        let new: Vec<_> = current
            .iter()
            .filter(|upstream| !is_probed(upstream))
            .cloned()
            .collect();
        for (number, upstream) in new.iter().enumerate() {
            let start = Instant::now() + phase(number, new.len(), probe.interval);
            let repeated = repeat(upstream.clone(), probe.clone(), connect.clone(), start);
            probed.push((upstream.clone(), tasks.spawn(repeated)));
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = list.changed() => if changed.is_err() { return },
        }
    }
}

/// When the first probe of the upstream of this number is due: spread over the interval, so that they do not come in one
/// burst.
fn phase(number: usize, of: usize, interval: Duration) -> Duration {
    interval.mul_f64(number as f64 / of as f64)
}

async fn repeat(upstream: Arc<Upstream>, probe: Probe, connect: Arc<Connector>, start: Instant) {
    let mut turns = interval_at(start, probe.interval);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let limit = probe.timeout.min(probe.interval);
    let mut way = Way::Http;
    loop {
        let next = turns.tick().await + probe.interval;
        let once = once(&upstream, probe.path.as_deref(), &connect, &mut way);
        let result = match timeout(limit, once).await {
            Ok(Err(error)) if is_own_fault(&error) => continue,
            Ok(result) => result.map_err(|error| format!("probe: {}", reason::of(&error))),
            Err(_) => Err(format!("probe: no answer within {limit:?}")),
        };
        upstream.probed(result, next);
    }
}

/// How a path is probed: what has worked is tried first the next time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Http,
    WebSocket,
}

/// One probe; an error says why the upstream is not well.
async fn once(
    upstream: &Upstream,
    path: Option<&str>,
    connect: &Connector,
    way: &mut Way,
) -> Result<()> {
    let Some(path) = path else {
        return connect.open(upstream, None).await.map(drop);
    };
    if *way == Way::WebSocket {
        return match shake_hands(upstream, path, connect).await {
            Err(error) if is_answer(&error) => {
                // It may have become something else.
                *way = Way::Http;
                Err(error)
            }
            result => result,
        };
    }
    let first = match get(upstream, path, connect).await? {
        Answer::Well => return Ok(()),
        Answer::Ill(status) => bail!("answers {status}"),
        Answer::MaybeStream(what) => what,
    };
    shake_hands(upstream, path, connect)
        .await
        .with_context(|| format!("{first}, and as a WebSocket"))?;
    *way = Way::WebSocket;
    Ok(())
}

/// What came of a GET.
enum Answer {
    Well,
    Ill(StatusCode),
    /// A WebSocket server may do this to a request that is no handshake.
    MaybeStream(String),
}

async fn get(upstream: &Upstream, path: &str, connect: &Connector) -> Result<Answer> {
    let stream = connect.open(upstream, None).await?;
    let request = Request::get(path)
        .header(header::HOST, upstream.authority())
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut exchange = pin!(sender.send_request(request));
    // The head suffices: an event stream never ends.
    let result = tokio::select! {
        result = &mut exchange => result,
        // The upstream has closed, perhaps behind an answer.
        _ = connection => exchange.await,
    };
    match result {
        Ok(response) => Ok(judge(&response)),
        Err(error) if is_close(&error) => {
            Ok(Answer::MaybeStream("closes without an answer".to_owned()))
        }
        Err(error) => Err(error.into()),
    }
}

fn judge<B>(response: &Response<B>) -> Answer {
    let status = response.status();
    let names_websocket = || {
        let mut names = response.headers().keys();
        names.any(|name| name == header::UPGRADE || name.as_str().starts_with("sec-websocket-"))
    };
    let may_be_stream = match status {
        StatusCode::UPGRADE_REQUIRED
        | StatusCode::METHOD_NOT_ALLOWED
        | StatusCode::NOT_IMPLEMENTED => true,
        StatusCode::BAD_REQUEST => names_websocket(),
        _ => false,
    };
    match may_be_stream {
        true => Answer::MaybeStream(format!("answers {status}")),
        false if status.is_success() || status.is_redirection() => Answer::Well,
        false => Answer::Ill(status),
    }
}

/// Whether the connection has ended before an answer did.
fn is_close(error: &hyper::Error) -> bool {
    let is_reset = || {
        let source = error
            .source()
            .and_then(|source| source.downcast_ref::<io::Error>());
        source.is_some_and(|source| {
            matches!(
                source.kind(),
                io::ErrorKind::ConnectionReset
                    | io::ErrorKind::BrokenPipe
                    | io::ErrorKind::UnexpectedEof
            )
        })
    };
    error.is_incomplete_message() || error.is_canceled() || error.is_closed() || is_reset()
}

/// The opening handshake (RFC 6455, section 4.1), and a Close at once.
async fn shake_hands(upstream: &Upstream, path: &str, connect: &Connector) -> Result<()> {
    let stream = connect.open(upstream, None).await?;
    let mut request = format!("ws://{}{path}", upstream.authority()).into_client_request()?;
    request.headers_mut().insert(header::USER_AGENT, USER_AGENT);
    let (mut socket, _) = client_async(request, stream).await?;
    let close = CloseFrame {
        code: CloseCode::Normal,
        reason: "".into(),
    };
    // It is well, whether or not it hears the goodbye.
    let _ = socket.close(Some(close)).await;
    Ok(())
}

/// Whether an answer to a handshake was another than 101.
fn is_answer(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(tungstenite::Error::Http(_)))
}
