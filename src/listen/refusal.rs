//! An answer of no, without hyper, to what may not even be a request.

use std::io;
use std::time::Duration;

use hyper::StatusCode;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::admission::NoRoom;

/// So many clients at a time are told that there is no room.
const AT_A_TIME: usize = 64;
/// How long a client that is turned away has time to read why.
pub const LINGER: Duration = Duration::from_secs(1);

/// How long a client that is turned away has time to begin its request.
const LISTEN: Duration = Duration::from_millis(500);

/// Bounds how many clients are told.
#[derive(Debug)]
pub struct TurningAway(Semaphore);

impl Default for TurningAway {
    fn default() -> Self {
        Self(Semaphore::new(AT_A_TIME))
    }
}

impl TurningAway {
    /// Whether one more may be told just now.
    pub fn has_room(&self) -> bool {
        self.0.available_permits() > 0
    }

    /// The right to tell one; without it its connection is just to be closed.
    pub fn permit(&self) -> Option<SemaphorePermit<'_>> {
        self.0.try_acquire().ok()
    }
}

/// Tells a client that there is no room for it, and when there may be (RFC 9110, section 10.2.3), as soon as it has begun to ask or has not for
/// [`LISTEN`].
pub async fn say_later<S>(stream: &mut S, no_room: NoRoom)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // An answer before its request is none to some clients, such as those that hyper makes.
    let _ = timeout(LISTEN, stream.read(&mut [0; 1024])).await;
    let retry_after = format!("Retry-After: {}\r\n", no_room.retry_after());
    say(stream, no_room.status(), &retry_after, no_room.reason()).await;
}

/// Answers with `status` and the reason as a line of plain text, and lets the client read it: closing at once, with bytes of
/// it unread, would reset the connection (RFC 9112, section 9.6). It takes [`LINGER`] at most.
pub async fn say_no<S>(stream: &mut S, status: StatusCode, reason: &str)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    say(stream, status, "", reason).await;
}

async fn say<S>(stream: &mut S, status: StatusCode, header: &str, reason: &str)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n{header}\r\n{reason}\n",
        reason.len() + 1,
    );
    // Whoever does not take it has been told all the same.
    let _ = timeout(LINGER, answered(stream, &answer)).await;
}

async fn answered<S>(stream: &mut S, answer: &str) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    let mut rest = [0; 1024];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}
