//! Baseline `bare`: the kernel's price. One thread writes the finished frame to one socket after the other, with one
//! non-blocking `write` each; nothing that sends these bytes with `write` can be cheaper.
//!
//! Connecting is not part of it: a second thread, asleep while events flow, shakes hands and hands the sockets over.

use std::io::{self, BufRead, ErrorKind, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::Result;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::feed::{Feed, Form, Play};

/// Serves until standard input ends: a play per line in, `done <last seq>` out.
pub fn main() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("listening {}", listener.local_addr()?);
    let sockets = Arc::new(Mutex::new(Vec::new()));
    let joined = Arc::clone(&sockets);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if let Ok(socket) = shake_hands(stream) {
                joined
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(socket);
            }
        }
    });

    let mut feed = Feed::default();
    for line in io::stdin().lock().lines() {
        let Some(play) = Play::from_line(&line?) else {
            continue;
        };
        let mut sockets = sockets.lock().unwrap_or_else(PoisonError::into_inner);
        let last = feed.play(play, |events| {
            for event in events {
                let frame = event.frame(Form::Binary);
                sockets.retain_mut(|socket| write_frame(socket, &frame));
            }
        });
        println!("done {last}");
    }
    Ok(())
}

fn shake_hands(stream: TcpStream) -> Result<TcpStream> {
    stream.set_nodelay(true)?;
    let config = WebSocketConfig::default().read_buffer_size(4096);
    let socket = tokio_tungstenite::tungstenite::accept_with_config(stream, Some(config))
        .map_err(|error| anyhow::anyhow!("{error}"))?
        .into_inner();
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Writes or drops one frame; says whether the socket can go on. A frame that fits only in part would cut the stream,
/// so its reader is let go.
fn write_frame(socket: &mut TcpStream, frame: &[u8]) -> bool {
    match socket.write(frame) {
        Ok(written) => written == frame.len(),
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}
