//! A connection whose subscriber wants more than history holds, until it is one for the [fan-out](super::fanout): it is written what a bus
//! keeps, page by page, and holds no more than a page.

use std::io;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Result, bail};
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tracing::debug;

use super::fanout::{Ender, Farewell};
use crate::bus::deep::{Deep, Step};
use crate::stream::Subscription;
use crate::wire::Format;

/// How long a client that takes nothing is waited for, in intervals of its heartbeat.
const PATIENCE: u32 = 4;
/// So many bytes of what a client sends meanwhile are kept.
const MAX_EARLY: usize = 16 << 10;
/// How long one may take to be told that it is over.
const FAREWELL: Duration = Duration::from_secs(5);

/// What a client is told; why in detail is for the log.
const AWAY: &str = "the rest cannot be had from here now";

/// Writes what goes `before`, and what `deep` brings; where reading goes on then, and what the client has sent behind `early`. An error if the
/// connection is over, which the client has been told where there is a way to.
pub async fn bring<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    (before, early): (Bytes, Bytes),
    mut deep: Box<Deep>,
    (format, heartbeat, ender): (Format, Duration, &Ender),
) -> Result<(Subscription, Bytes)> {
    let patience = heartbeat * PATIENCE;
    let mut early = BytesMut::from(early);
    // In the middle of a frame there is no farewell.
    let mut frames = before;
    let mut end = pin!(ending(ender));
    let farewell = loop {
        tokio::select! {
            written = write(stream, &frames, patience) => written?,
            () = ender.token().cancelled() => bail!("{}", ender.farewell().reason),
        }
        let step = tokio::select! {
            biased;
            () = &mut end => break ender.farewell(),
            step = deep.next() => step,
            () = gone(stream, &mut early) => bail!("the client has gone"),
        };
        match step {
            Ok(Step::Frames(next)) => frames = next,
            Ok(Step::Join(subscription)) => return Ok((subscription, early.freeze())),
            // Who comes again goes on where this ends.
            Err(error) => {
                let reason = deep.reason(&error);
                debug!(reason, "what is kept cannot be read on");
                break Farewell::new(CloseCode::Again, AWAY);
            }
        }
    };
    let ending = async {
        let last = format.encode_end(farewell.code, &farewell.reason, farewell.come_back);
        stream.write_all(&last).await?;
        stream.shutdown().await
    };
    let _ = timeout(FAREWELL, ending).await;
    bail!("{}", farewell.reason)
}

/// Waits until readers are to end, or this one as one of many.
async fn ending(ender: &Ender) {
    tokio::select! {
        () = ender.token().cancelled() => {}
        () = ender.stop().departure() => {}
    }
}

/// Keeps what the client sends, up to its end.
async fn gone<S: AsyncRead + Unpin>(stream: &mut S, early: &mut BytesMut) {
    while early.len() < MAX_EARLY {
        if !matches!(stream.read_buf(early).await, Ok(len) if len > 0) {
            return;
        }
    }
    std::future::pending().await
}

async fn write<S: AsyncWrite + Unpin>(
    stream: &mut S,
    bytes: &[u8],
    patience: Duration,
) -> io::Result<()> {
    let mut left = bytes;
    // As long as it takes some, it may take its time.
    while !left.is_empty() {
        let written = timeout(patience, stream.write(left)).await??;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        left = &left[written..];
    }
    timeout(patience, stream.flush()).await?
}
