//! A connection whose subscriber wants more than history holds, until it is one for the [fan-out](super::fanout): it is written what a bus
//! keeps, page by page, and holds no more than a page.

use std::io;
use std::time::Duration;

use anyhow::{Result, bail};
use bytes::Bytes;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tracing::debug;

use super::fanout::{Ender, Farewell};
use crate::bus::deep::{Deep, Step};
use crate::stream::Subscription;
use crate::wire::{Format, websocket};

/// How long a client that takes nothing is waited for, in intervals of its heartbeat.
const PATIENCE: u32 = 4;
/// How long one may take to be told that it is over.
const FAREWELL: Duration = Duration::from_secs(5);

/// What a client is told; why in detail is for the log.
const AWAY: &str = "the rest cannot be had from here now";

/// Writes what goes `before`, and what `deep` brings; where reading goes on then. An error if the connection is over, which the client has
/// been told where there is a way to.
pub async fn bring<S: AsyncWrite + Unpin>(
    stream: &mut S,
    before: Bytes,
    mut deep: Box<Deep>,
    (format, heartbeat, ender): (Format, Duration, &Ender),
) -> Result<Subscription> {
    let patience = heartbeat * PATIENCE;
    write(stream, &before, patience).await?;
    let farewell = loop {
        let step = tokio::select! {
            biased;
            () = ender.token().cancelled() => break ender.farewell(),
            step = deep.next() => step,
        };
        match step {
            Ok(Step::Frames(frames)) => write(stream, &frames, patience).await?,
            Ok(Step::Join(subscription)) => return Ok(subscription),
            // Who comes again goes on where this ends.
            Err(error) => {
                let reason = crate::reason::of(&error);
                debug!(reason, "what is kept cannot be read on");
                break Farewell {
                    code: CloseCode::Again,
                    reason: AWAY.into(),
                };
            }
        }
    };
    let ending = async {
        if !format.is_body() {
            let close = websocket::close(farewell.code, &farewell.reason);
            stream.write_all(&close).await?;
        }
        stream.shutdown().await
    };
    let _ = timeout(FAREWELL, ending).await;
    bail!("{}", farewell.reason)
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
