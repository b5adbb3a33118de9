//! The beginning of a hop link: what the hop downstream wants.

use std::time::Duration;

use anyhow::{Result, bail};
use bytes::{Bytes, BytesMut};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::input::{End, Input};
use crate::event::{Payload, Snapshot};
use crate::stream::EventLog;
use crate::stream::join::{Joined, StateWish, Wish};
use crate::stream::via::Via;
use crate::wire::Format;
use crate::wire::hop::{self, Begin, Control, Hello, Message, Welcome};
use crate::wire::websocket;

/// How long a hop may take to say hello, and to take the answer to a wrong one.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Far more than origins a stream may have.
const MAX_HELLO: usize = 64 << 10;

/// Reads the hello of a hop that has just shaken hands. What it has sent behind that is the second part of the answer.
pub async fn receive(socket: &TcpStream, early: Bytes) -> Result<(Hello, Bytes)> {
    let reading = read_hello(socket, early.into());
    match timeout(HELLO_TIMEOUT, reading).await {
        Ok(hello) => hello,
        Err(_) => refuse(socket, CloseCode::Policy, "no !hello").await,
    }
}

async fn read_hello(socket: &TcpStream, mut bytes: BytesMut) -> Result<(Hello, Bytes)> {
    let mut input = Input::new(MAX_HELLO);
    let mut taken = 0;
    loop {
        // One byte more at a time, so that nothing behind the hello is taken for part of it.
        while taken < bytes.len() {
            let (mut message, mut replies) = (None, vec![]);
            let take = |payload: Payload| message = Some(payload);
            let result = input.take(&bytes[taken..=taken], &mut replies, Ok(take));
            taken += 1;
            match result {
                Ok(()) => {}
                Err(End::Violation { code, reason }) => return refuse(socket, code, &reason).await,
                Err(End::Closed { .. }) => bail!("closed before its hello"),
            }
            if let Some(message) = message {
                return match hop::decode(message) {
                    Ok(Message::Control(Control::Hello(hello))) => {
                        Ok((hello, bytes.split_off(taken).freeze()))
                    }
                    Ok(_) => refuse(socket, CloseCode::Protocol, "!hello is expected first").await,
                    Err(wrong) => refuse(socket, CloseCode::Protocol, wrong.0).await,
                };
            }
        }
        if bytes.len() > 2 * MAX_HELLO {
            bail!("no hello within {} bytes", 2 * MAX_HELLO);
        }
        socket.readable().await?;
        match socket.try_read_buf(&mut bytes) {
            Ok(0) => bail!("gone before its hello"),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
}

async fn refuse<T>(socket: &TcpStream, code: CloseCode, reason: &str) -> Result<T> {
    // It fits any socket's buffer; if not, the connection just ends.
    let _ = socket.try_write(&websocket::close(code, reason));
    let _ = SockRef::from(socket).shutdown(std::net::Shutdown::Write);
    let mut rest = [0; 1024];
    let drained = async {
        while socket.readable().await.is_ok() {
            match socket.try_read(&mut rest) {
                Ok(0) => break,
                Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => break,
                _ => {}
            }
        }
    };
    let _ = timeout(HELLO_TIMEOUT, drained).await;
    bail!("{reason}")
}

/// Where the stream begins for who says this hello.
pub fn wish(hello: &Hello) -> Wish {
    match hello.from {
        Begin::Live if hello.have.is_empty() => Wish::Live,
        Begin::Last(count) if hello.have.is_empty() => Wish::Last(count),
        Begin::All if hello.have.is_empty() => Wish::All,
        Begin::After(id) if hello.have.is_empty() => Wish::After(id.to_string().into()),
        from => Wish::Beyond {
            have: hello.have.clone(),
            from_first: from == Begin::First,
        },
    }
}

/// The answer to a hello: what goes out before the first event.
pub fn welcome(joined: &Joined, via: &Via) -> Bytes {
    let welcome = Welcome {
        path: via.path(),
        backlog: joined.backlog,
        resumed: Some(joined.resumed.as_str().into()),
    };
    let mut preface = Vec::new();
    hop::encode_control(&Control::Welcome(welcome), &mut preface);
    for gap in &joined.gaps {
        hop::encode_control(&Control::Gap(gap.clone()), &mut preface);
    }
    if let Some(count) = joined.state {
        hop::encode_control(&Control::Snapshot(Snapshot::Begin { count }), &mut preface);
    }
    preface.into()
}

/// Joins a link to `log`, once it can be told how far it can go on.
pub async fn join(log: &EventLog, hello: &Hello) -> Result<Joined> {
    if hello.id == Some(log.origin()) {
        bail!("it is this instance itself");
    }
    log.wait_for_past().await;
    let wish = wish(hello);
    log.wait_for(&wish).await;
    let wants = match hello.state {
        hop::StateWish::No => StateWish::No,
        hop::StateWish::Yes => StateWish::Yes,
        hop::StateWish::Missed => StateWish::Missed,
    };
    Ok(log.subscribe_with(Format::Hop, &wish, wants))
}
