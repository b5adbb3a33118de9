//! Baseline `broadcast`: the server everybody writes first. One `tokio::sync::broadcast` channel, one task per
//! subscriber, tokio-tungstenite.
//!
//! Tuned fairly: a read buffer of 4 KiB instead of tungstenite's 128 KiB (which alone makes it several times dearer and
//! heavier), `TCP_NODELAY`, room for 4,096 events before a reader lags, the same allocator as `wsevent`, one worker
//! thread for its one CPU, and its events from inside its own process instead of a socket.

use std::io::{self, BufRead};
use std::net::SocketAddr;

use anyhow::Result;
use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, mpsc};
use tokio_tungstenite::accept_async_with_config;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Message};

use crate::feed::{Feed, Form, Play};

/// Events a subscriber may be behind before it is let go.
const CAPACITY: usize = 4096;

/// Serves until standard input ends: a play per line in, `done <last seq>` out.
pub fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let (events, _) = broadcast::channel(CAPACITY);
    // tokio's timer counts in milliseconds; a thread keeps the schedule and hands each event to the runtime.
    let (due, mut arriving) = mpsc::unbounded_channel::<Bytes>();
    let publisher = events.clone();
    runtime.spawn(async move {
        while let Some(payload) = arriving.recv().await {
            let _ = publisher.send(payload);
        }
    });
    let listener = runtime.block_on(TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))))?;
    println!("listening {}", listener.local_addr()?);
    runtime.spawn(accept(listener, events));

    let mut feed = Feed::default();
    for line in io::stdin().lock().lines() {
        let Some(play) = Play::from_line(&line?) else {
            continue;
        };
        let last = feed.play(play, |batch| {
            for event in batch {
                let _ = due.send(Bytes::copy_from_slice(&event.payload(Form::Binary)));
            }
        });
        println!("done {last}");
    }
    Ok(())
}

async fn accept(listener: TcpListener, events: broadcast::Sender<Bytes>) {
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, events.clone()));
        }
    }
}

/// One subscriber: what is broadcast goes out, what comes in is read so that pings and Close are answered.
async fn serve(stream: TcpStream, events: broadcast::Sender<Bytes>) -> Result<()> {
    stream.set_nodelay(true)?;
    let config = WebSocketConfig::default().read_buffer_size(4096);
    let (mut sink, mut incoming) = accept_async_with_config(stream, Some(config))
        .await?
        .split();
    let mut events = events.subscribe();
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Ok(payload) => sink.send(Message::Binary(payload)).await?,
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    let reason = CloseFrame { code: CloseCode::Again, reason: "too slow".into() };
                    return Ok(sink.send(Message::Close(Some(reason))).await?);
                }
                Err(broadcast::error::RecvError::Closed) => return Ok(()),
            },
            message = incoming.next() => if message.is_none_or(|message| message.is_err()) {
                return Ok(());
            },
        }
    }
}
