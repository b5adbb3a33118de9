//! The beginning of a hop link: what the hop downstream wants.

use std::borrow::Cow;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::input::{End, Input};
use crate::event::{Payload, Snapshot};
use crate::stream::EventLog;
use crate::stream::join::{Joined, StateWish, Wish};
use crate::stream::via::Via;
use crate::wire::Format;
use crate::wire::hop::{self, Begin, Control, Hello, Message, Scope, Welcome};
use crate::wire::websocket;

/// How long a hop may take to say hello, and to take the answer to a wrong one.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Far more than origins a stream may have.
const MAX_HELLO: usize = 64 << 10;

/// Reads the hello of a hop that has just shaken hands, and is to be written to in `format`. What it has sent behind that is the second part of the answer.
pub async fn receive<S>(stream: &mut S, format: Format, early: Bytes) -> Result<(Hello, Bytes)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let input = Input::new(format, MAX_HELLO);
    let reading = read_hello(stream, input, early.into());
    let (code, reason) = match timeout(HELLO_TIMEOUT, reading).await {
        Ok(Ok(hello)) => return Ok(hello),
        Ok(Err(Failure::Lost(error))) => return Err(error),
        Ok(Err(Failure::Refused(code, reason))) => (code, reason),
        Err(_) => (CloseCode::Policy, "no !hello".into()),
    };
    // Whoever does not take it does without.
    let _ = timeout(HELLO_TIMEOUT, refuse(stream, code, &reason)).await;
    bail!("{reason}")
}

/// Why there is no hello.
enum Failure {
    /// The connection has ended.
    Lost(anyhow::Error),
    /// It is to be closed with this code and reason.
    Refused(CloseCode, Cow<'static, str>),
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Lost(error.into())
    }
}

async fn read_hello<S>(
    stream: &mut S,
    mut input: Input,
    mut bytes: BytesMut,
) -> Result<(Hello, Bytes), Failure>
where
    S: AsyncRead + Unpin,
{
    let lost = |reason| Err(Failure::Lost(anyhow!("{reason}")));
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
                Err(End::Violation { code, reason }) => {
                    return Err(Failure::Refused(code, reason));
                }
                Err(End::Closed { .. }) => return lost("closed before its hello"),
            }
            if let Some(message) = message {
                return match hop::decode(message) {
                    Ok(Message::Control(Control::Hello(hello))) => {
                        Ok((hello, bytes.split_off(taken).freeze()))
                    }
                    Ok(_) => Err(Failure::Refused(
                        CloseCode::Protocol,
                        "!hello is expected first".into(),
                    )),
                    Err(wrong) => Err(Failure::Refused(CloseCode::Protocol, wrong.0.into())),
                };
            }
        }
        if bytes.len() > 2 * MAX_HELLO {
            return lost("no hello within its bounds");
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return lost("gone before its hello");
        }
    }
}

/// Sends a Close frame, and lets the client read it: closing at once, with bytes of it unread, would reset the connection.
async fn refuse<S>(stream: &mut S, code: CloseCode, reason: &str) -> std::io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(&websocket::close(code, reason)).await?;
    stream.shutdown().await?;
    let mut rest = [0; 1024];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
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

/// The answer to a hello that asks for `scope`: what goes out before the first event.
pub fn welcome(joined: &Joined, via: &Via, scope: Scope) -> Bytes {
    let welcome = Welcome {
        path: match scope {
            Scope::All => via.path(),
            Scope::Local => via.local_path(),
        },
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

/// Joins a link in `format` to `log`, once it can be told how far it can go on; and what it wants.
///
/// Whoever is itself to tell the past of this stream is not kept waiting for that: it would wait for us to tell the same.
pub async fn join(
    log: &EventLog,
    format: Format,
    via: &Via,
    hello: &Hello,
) -> Result<(Joined, Wish)> {
    if hello.id == Some(log.origin()) {
        bail!("it is this instance itself");
    }
    let log = match hello.scope {
        Scope::All => log,
        Scope::Local => log.local(),
    };
    log.wait_for_past_but(|| hello.id.map_or(0, |id| via.untold_by(id)))
        .await;
    let wish = wish(hello);
    log.wait_for(&wish).await;
    let wants = match hello.state {
        hop::StateWish::No => StateWish::No,
        hop::StateWish::Yes => StateWish::Yes,
        hop::StateWish::Missed => StateWish::Missed,
    };
    let _past = log.compress_past(format, &wish).await;
    Ok((log.subscribe_with(format, &wish, wants), wish))
}
