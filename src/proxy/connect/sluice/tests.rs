use std::net::Ipv4Addr;

use httparse::{EMPTY_HEADER, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
const HEADS: [&[u8]; 9] = [
    HEAD,
    b"HTTP/1.1 200 OK\r\n\r\n",
    b"HTTP/1.0 200\r\na: b\r\n\r\n",
    // What hyper takes for the ends of lines.
    b"HTTP/1.1 200 OK\na: b\n\n",
    b"HTTP/1.1 200 OK\r\na: b\n\r\n",
    b"\r\n\r\n\nHTTP/1.1 404 Not Found\r\na:\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 102 x\n\n\r\nHTTP/1.1 500 x\r\na: b\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
];

/// Where `httparse` sees the end of the final head.
fn parsed(bytes: &[u8]) -> usize {
    let mut at = 0;
    loop {
        let mut fields = [EMPTY_HEADER; 8];
        let mut response = Response::new(&mut fields);
        let status = response.parse(&bytes[at..]).expect("a head");
        at += status.unwrap();
        if response.code == Some(101) || response.code >= Some(200) {
            return at;
        }
    }
}

#[test]
fn the_end_is_where_the_parser_sees_it_whatever_the_pieces() {
    for head in HEADS {
        let whole = [head, b"\r\n\r\nbehind\n\n"].concat();
        assert_eq!(parsed(&whole), head.len());
        for first in 0..=whole.len() {
            for second in first..=whole.len() {
                let mut search = Search::default();
                let mut at = 0;
                let pieces = [&whole[..first], &whole[first..second], &whole[second..]];
                let end = pieces.into_iter().find_map(|piece| {
                    let end = search.pass(piece).map(|end| at + end);
                    at += piece.len();
                    end
                });
                let text = head.escape_ascii();
                assert_eq!(end, Some(head.len()), "{first} {second} {text}");
            }
        }
        let mut search = Search::default();
        let end = whole
            .iter()
            .position(|byte| search.pass(&[*byte]).is_some());
        assert_eq!(end, Some(head.len() - 1), "{}", head.escape_ascii());
    }
}

/// A sluice, and the other end of its connection.
async fn connected() -> (Sluice, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a socket");
    let address = listener.local_addr().expect("its address");
    let (one, other) = tokio::join!(TcpStream::connect(address), listener.accept());
    let stream = Stream::Plain(one.expect("connected"));
    (Sluice::new(stream), other.expect("accepted").0)
}

async fn read(sluice: &mut Sluice) -> Vec<u8> {
    let mut bytes = vec![0; 1_000];
    let len = sluice.read(&mut bytes).await.expect("read");
    bytes.truncate(len);
    bytes
}

/// Whether a read has to wait.
fn waits(sluice: &mut Sluice) -> bool {
    let mut bytes = [0; 100];
    let mut read = ReadBuf::new(&mut bytes);
    let mut cx = Context::from_waker(std::task::Waker::noop());
    Pin::new(sluice).poll_read(&mut cx, &mut read).is_pending()
}

#[tokio::test]
async fn what_is_behind_a_head_waits_for_the_decision() {
    let (mut sluice, mut upstream) = connected().await;
    let control = sluice.control();
    for _ in 0..3 {
        let armed = control.arm();
        upstream
            .write_all(&[HEAD, b"behind"].concat())
            .await
            .expect("written");
        assert_eq!(read(&mut sluice).await, HEAD);
        assert!(waits(&mut sluice));
        drop(armed);
        assert_eq!(read(&mut sluice).await, b"behind");
        // Not armed.
        upstream.write_all(HEAD).await.expect("written");
        assert_eq!(read(&mut sluice).await, HEAD);
        upstream.write_all(b"more").await.expect("written");
        assert_eq!(read(&mut sluice).await, b"more");
    }
    let armed = control.arm();
    assert!(!armed.take(), "before the head");
    upstream
        .write_all(&[HEAD, b"behind"].concat())
        .await
        .expect("written");
    assert_eq!(read(&mut sluice).await, HEAD);
    assert!(armed.take() && control.is_taken());
    drop(armed);
    assert!(control.is_taken() && waits(&mut sluice));
    let (_, withheld) = sluice.into_parts();
    assert_eq!(withheld, b"behind"[..]);
}

/// A reader that waits hears of the decision.
#[tokio::test]
async fn a_decision_wakes() {
    let (mut sluice, mut upstream) = connected().await;
    let armed = sluice.control().arm();
    upstream
        .write_all(&[HEAD, b"behind"].concat())
        .await
        .expect("written");
    assert_eq!(read(&mut sluice).await, HEAD);
    let (behind, ()) = tokio::join!(read(&mut sluice), async {
        tokio::task::yield_now().await;
        drop(armed);
    });
    assert_eq!(behind, b"behind");
}

/// Nobody is interested in the answer any more when its head comes, or it never comes as a whole.
#[tokio::test]
async fn nothing_is_withheld_for_nobody() {
    let (mut sluice, mut upstream) = connected().await;
    let armed = sluice.control().arm();
    upstream.write_all(&HEAD[..20]).await.expect("written");
    assert_eq!(read(&mut sluice).await, HEAD[..20]);
    drop(armed);
    let rest = [&HEAD[20..], b"behind"].concat();
    upstream.write_all(&rest).await.expect("written");
    assert_eq!(read(&mut sluice).await, rest);
    let armed = sluice.control().arm();
    upstream.write_all(&HEAD[..20]).await.expect("written");
    assert_eq!(read(&mut sluice).await, HEAD[..20]);
    drop(upstream);
    assert_eq!(read(&mut sluice).await, b"");
    assert!(!armed.take());
}
