//! How a connection begins: nothing is made for it before its client has said something.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::failures::Failure;
use super::limits::Keeper;
use super::{Serving, http};
use crate::listen::admission::Admitted;
use crate::listen::opening::{self, Opening};
use crate::listen::refusal::say_no;
use crate::listen::stream::Stream;
use crate::listen::tls::Tls;
use crate::reason;

/// One client's connection. Until the first request is here, it is nothing but that, as many may never send one: what comes
/// later is larger, and in a box.
pub(super) async fn plain(
    socket: TcpStream,
    address: SocketAddr,
    admitted: Admitted,
    serving: Arc<Serving>,
) {
    let accepted = Instant::now();
    let mut stream = Stream::Plain(socket);
    if let Some(early) = first_bytes(&mut stream, accepted, address, &serving).await {
        Box::pin(http(stream, early, (address, accepted), admitted, serving)).await;
    }
}

/// The same with TLS. Until the handshake begins, it is no more than the other.
pub(super) async fn tls(
    socket: TcpStream,
    address: SocketAddr,
    admitted: Admitted,
    tls: Arc<Tls>,
    serving: Arc<Serving>,
) {
    let accepted = Instant::now();
    if begins(&socket, accepted, address, &serving).await {
        Box::pin(shaking_hands(
            socket,
            (address, accepted),
            admitted,
            tls,
            serving,
        ))
        .await;
    }
}

/// A connection whose TLS handshake has begun.
async fn shaking_hands(
    socket: TcpStream,
    (address, accepted): (SocketAddr, Instant),
    admitted: Admitted,
    tls: Arc<Tls>,
    serving: Arc<Serving>,
) {
    let opened = opened(socket, &tls, accepted, address, &serving).await;
    let Some((mut stream, preface)) = opened else {
        return;
    };
    let early = match preface {
        Some(preface) => Some(preface),
        None => first_bytes(&mut stream, accepted, address, &serving).await,
    };
    if let Some(early) = early {
        Box::pin(http(stream, early, (address, accepted), admitted, serving)).await;
    }
}

/// Waits until a TLS handshake begins: before that nothing is needed for it. Whether it does.
async fn begins(
    socket: &TcpStream,
    accepted: Instant,
    address: SocketAddr,
    Serving { keeper, stop, .. }: &Serving,
) -> bool {
    let mut first = [0];
    let beginning = timeout_at(accepted + keeper.handshake_timeout, socket.peek(&mut first));
    match stop.run_until_cancelled(beginning).await {
        Some(Ok(Ok(len))) => len > 0,
        Some(Err(_)) => {
            keeper.log_late(address, false);
            false
        }
        Some(Ok(Err(_))) | None => false,
    }
}

/// The connection after its TLS handshake; with the preface of HTTP/2, if the two have agreed on that.
async fn opened(
    socket: TcpStream,
    tls: &Tls,
    accepted: Instant,
    address: SocketAddr,
    Serving { keeper, stop, .. }: &Serving,
) -> Option<(Stream, Option<Bytes>)> {
    let within = keeper.handshake_timeout.saturating_sub(accepted.elapsed());
    let opening = tls.open(socket, within);
    match stop.run_until_cancelled(opening).await? {
        Ok(opened) => return Some(opened),
        Err(error) if error.is::<Elapsed>() => keeper.log_late(address, false),
        Err(error) => {
            keeper.handshakes.count(Failure::Tls);
            let error = reason::of(&error.context("TLS handshake failed"));
            debug!(%address, %error, "connection failed");
        }
    }
    None
}

/// What a connection begins with, once that is enough for hyper.
async fn first_bytes(
    stream: &mut Stream,
    accepted: Instant,
    address: SocketAddr,
    Serving { keeper, stop, .. }: &Serving,
) -> Option<Bytes> {
    let opening = tokio::select! {
        opening = opening::read(stream, accepted + keeper.handshake_timeout) => opening,
        () = stop.cancelled() => return None,
    };
    match opening {
        Ok(Opening::Begun(early)) => return Some(early),
        Ok(Opening::Silent) => keeper.log_late(address, false),
        Ok(Opening::Late) => Box::pin(late(stream, address, keeper)).await,
        Ok(Opening::Closed) | Err(_) => {}
    }
    None
}

/// Lets a client go whose request has not come in time.
pub(super) async fn late(stream: &mut Stream, address: SocketAddr, keeper: &Keeper) {
    keeper.log_late(address, true);
    let (status, reason) = Keeper::LATE;
    say_no(stream, status, reason).await;
}
