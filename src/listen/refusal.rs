//! An answer of no, without hyper, to what may not even be a request.

use std::io;
use std::time::Duration;

use hyper::StatusCode;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// How long a client that is turned away has time to read why.
pub const LINGER: Duration = Duration::from_secs(1);

/// Answers with `status` and the reason as a line of plain text, and lets the client read it: closing at once, with bytes of
/// it unread, would reset the connection (RFC 9112, section 9.6). Takes at most [`LINGER`].
pub async fn say_no(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    status: StatusCode,
    reason: &str,
) {
    // Who does not read it does without.
    let _ = timeout(LINGER, answer(stream, status, reason)).await;
}

async fn answer(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    status: StatusCode,
    reason: &str,
) -> io::Result<()> {
    let comes_back = matches!(
        status,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
    );
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n{}\r\n{reason}\n",
        reason.len() + 1,
        if comes_back { "Retry-After: 5\r\n" } else { "" },
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    let mut rest = [0; 1024];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}
