//! How a connection begins: what a client sends first is waited for at little cost, as many may never send it.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::ready;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Instant, timeout_at};

use super::rewound::is_part_of_preface;

/// So much is kept of a head that is not whole, in bytes; whoever has sent more of it gets hyper, whose buffers begin with as
/// much.
const MAX_KEPT: usize = 8 << 10;
/// One read: most heads are shorter.
const READ: usize = 2 << 10;
/// Heads with more headers are for hyper to judge.
const HEADERS: usize = 32;

/// How far a connection has come.
#[derive(Debug, PartialEq, Eq)]
pub enum Opening {
    /// These bytes have been read: a whole head, or the beginning of a long one, or something else that hyper is to judge.
    Begun(Bytes),
    /// It was closed before anything was said.
    Closed,
    /// Nothing came in time.
    Silent,
    /// Not all of a head came in time.
    Late,
}

/// Reads until hyper can make something of it, but not beyond `deadline`. Meanwhile a connection is no more than what it has
/// sent so far.
pub async fn read<S: AsyncRead + Unpin>(stream: &mut S, deadline: Instant) -> io::Result<Opening> {
    let mut early = BytesMut::new();
    loop {
        let len = match timeout_at(deadline, read_more(stream, &mut early)).await {
            Ok(len) => len?,
            Err(_) if early.is_empty() => return Ok(Opening::Silent),
            Err(_) => return Ok(Opening::Late),
        };
        if early.is_empty() {
            return Ok(Opening::Closed);
        }
        if len == 0 || is_for_hyper(&early, len) {
            return Ok(Opening::Begun(early.freeze()));
        }
    }
}

/// Nothing is made room for before something has come.
async fn read_more<S: AsyncRead + Unpin>(
    stream: &mut S,
    early: &mut BytesMut,
) -> io::Result<usize> {
    poll_fn(|cx| {
        let mut buffer = [const { MaybeUninit::uninit() }; READ];
        let mut buffer = ReadBuf::uninit(&mut buffer);
        ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer))?;
        early.extend_from_slice(buffer.filled());
        Ok(buffer.filled().len()).into()
    })
    .await
}

/// Whether there is nothing to wait for any more, now that the last `len` bytes have come.
fn is_for_hyper(early: &[u8], len: usize) -> bool {
    if is_part_of_preface(early) {
        return false;
    }
    // A long head that comes byte by byte is not read again for each of them: it is not whole before a line is.
    let is_long = early.len() > READ && early.len() < MAX_KEPT;
    if is_long && !early[early.len() - len..].contains(&b'\n') {
        return false;
    }
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let parsed = httparse::Request::new(&mut headers).parse(early);
    early.len() >= MAX_KEPT || parsed != Ok(httparse::Status::Partial)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncWriteExt, duplex};
    use tokio::time::sleep;

    use super::*;
    use crate::listen::rewound::HTTP2_PREFACE;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// Sends `bytes`, one each `pause`, and then nothing more. No read gets more than one.
    async fn opening(bytes: &[u8], pause: Duration) -> Opening {
        let (mut client, mut server) = duplex(1);
        let sending = async {
            for byte in bytes {
                client.write_all(&[*byte]).await.expect("it is read");
                sleep(pause).await;
            }
            std::future::pending().await
        };
        let reading = read(&mut server, Instant::now() + PATIENCE);
        tokio::select! {
            opening = reading => opening.expect("a pipe does not break"),
            () = sending => unreachable!(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_is_waited_for_as_a_whole_and_what_is_none_is_not() {
        let head = b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let long = [b"GET / HTTP/1.1\r\nX: ", &[b'x'; MAX_KEPT][..]].concat();
        let full = [&long[..MAX_KEPT - 100], b"\r\n\r\n"].concat();
        for (sent, read) in [
            (&head[..], &head[..]),
            (HTTP2_PREFACE, HTTP2_PREFACE),
            (b"PRI * HTTP/1.1\r\n\r\n", b"PRI * HTTP/1.1\r\n\r\n"),
            (b"\x16\x03\x01", b"\x16"),
            (b"GET  ", b"GET  "),
            (&long, &long[..MAX_KEPT]),
            (&full, &full),
        ] {
            let begun = Opening::Begun(Bytes::copy_from_slice(read));
            assert_eq!(opening(sent, Duration::ZERO).await, begun, "{sent:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_too_slow_is_told_from_who_says_nothing() {
        let start = Instant::now();
        assert_eq!(opening(b"", Duration::ZERO).await, Opening::Silent);
        assert_eq!(start.elapsed(), PATIENCE);
        let byte_a_second = opening(&[b'G'; 100], Duration::from_secs(1)).await;
        assert_eq!(byte_a_second, Opening::Late);
        assert_eq!(start.elapsed(), PATIENCE * 2);
        assert_eq!(opening(b"PRI *", Duration::ZERO).await, Opening::Late);
    }

    #[tokio::test]
    async fn an_end_is_noticed() {
        for (sent, expected) in [
            (&b""[..], Opening::Closed),
            (b"GET /", Opening::Begun(Bytes::from_static(b"GET /"))),
        ] {
            let (mut client, mut server) = duplex(64);
            client.write_all(sent).await.expect("there is room");
            drop(client);
            let opening = read(&mut server, Instant::now() + PATIENCE).await;
            assert_eq!(opening.expect("a pipe does not break"), expected);
        }
    }
}
