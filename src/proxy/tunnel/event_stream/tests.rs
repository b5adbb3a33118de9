use std::net::Ipv4Addr;
use std::time::Duration;

use bytes::Bytes;
use hyper::Response;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::super::relay::LARGEST_READ;
use super::*;

const LONG: Duration = Duration::from_secs(600);
const NO_LIMITS: Limits = Limits {
    client_idle: None,
    upstream_idle: None,
    age: None,
    drain: LONG,
};
const HEAD: &[u8] = b"head\r\n\r\n";
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

fn content(media: &str, coding: Option<&str>) -> Option<Content> {
    let mut response = Response::builder().header("content-type", media);
    if let Some(coding) = coding {
        response = response.header("transfer-encoding", coding);
    }
    let response = response.body(()).expect("a response");
    Content::of(&response.into_parts().0)
}

fn in_chunks() -> Content {
    content("text/event-stream", Some("chunked")).expect("a stream")
}

fn plain() -> Content {
    content("text/event-stream", None).expect("a stream")
}

#[test]
fn only_what_can_pass_as_it_is() {
    assert!(content("Text/Event-Stream; charset=utf-8", Some("Chunked")).is_some());
    assert!(content("application/x-ndjson", None).is_some());
    assert!(content("text/html", Some("chunked")).is_none());
    assert!(content("text/event-stream", Some("gzip, chunked")).is_none());
    for (name, value) in [("content-length", "5"), ("transfer-encoding", "chunked")] {
        let response = Response::builder()
            .version(hyper::Version::HTTP_10)
            .header("content-type", "text/event-stream")
            .header(name, value)
            .body(())
            .expect("a response");
        assert!(Content::of(&response.into_parts().0).is_none(), "{name}");
    }
}

/// Two cuts, everywhere.
fn cut(bytes: &[u8]) -> impl Iterator<Item = [&[u8]; 3]> {
    (0..=bytes.len()).flat_map(move |first| {
        (first..=bytes.len())
            .map(move |second| [&bytes[..first], &bytes[first..second], &bytes[second..]])
    })
}

/// What passes of these, and what is behind it.
fn passed(content: &mut Content, pieces: &[&[u8]], ends_early: bool) -> (Vec<u8>, Option<End>) {
    let mut all = vec![];
    for piece in pieces {
        let (passing, end) = content.pass(piece, ends_early);
        all.extend_from_slice(&passing);
        if end.is_some() {
            return (all, end);
        }
    }
    (all, None)
}

#[test]
fn a_body_ends_where_its_last_chunk_does() {
    for end in ["0\r\n\r\n", "00;a=b\r\nx-sum: 1\r\ny: z\r\n\r\n"] {
        let body = format!("7\r\ndata: 1\r\n2;x\r\n\n\n\r\n{end}");
        let all = format!("{body}HTTP/1.1 200 OK\r\n\r\n");
        for pieces in cut(all.as_bytes()) {
            let mut content = in_chunks();
            let passed = passed(&mut content, &pieces, false);
            assert_eq!(
                passed,
                (body.clone().into(), Some(End::Whole)),
                "{pieces:?}"
            );
            assert_eq!(content.seen(), 9);
        }
    }
}

#[test]
fn what_is_not_a_chunk_does_not_pass() {
    let first = b"9\r\ndata: 1\n\n\r\n";
    for broken in ["x\r\n", "1\r\nab\r\n", "0\r\nhost: a\r\n\r\n"] {
        let all = [first, broken.as_bytes()].concat();
        for pieces in cut(&all) {
            let (passed, end) = passed(&mut in_chunks(), &pieces, false);
            assert!(passed.starts_with(first), "{pieces:?}");
            assert!(matches!(end, Some(End::Broken(_))), "{pieces:?}");
        }
    }
}

#[test]
fn a_stream_may_end_between_two_chunks_and_two_events() {
    // The first event ends within a chunk, the second one with the end of one.
    let until = "8\r\n: 1\n\n: 2\r\n1\r\n\n\r\n3\r\n\r\n\r\r\n1\r\n\r\r\n";
    let all = format!("{until}6\r\n: 3\n\n\n\r\n");
    for pieces in cut(all.as_bytes()) {
        let mut content = in_chunks();
        let begun = content.pass(pieces[0], false).0.into_owned();
        assert_eq!(begun, pieces[0]);
        if content.may_end() {
            assert!(begun.is_empty() || begun.len() == until.len() || begun == all.as_bytes());
            continue;
        }
        if begun.len() > until.len() {
            continue;
        }
        let (passed, end) = passed(&mut content, &pieces[1..], true);
        assert_eq!(end, Some(End::Between), "{pieces:?}");
        assert_eq!([begun, passed].concat(), until.as_bytes(), "{pieces:?}");
    }
}

#[test]
fn without_chunks_it_may_end_behind_any_event() {
    for end in ["\n\n", "\n\r\n", "\r\r"] {
        let until = format!("data: 1\ndata: 2{end}");
        let all = format!("{until}data: 3\n\ndata: 4");
        for pieces in cut(all.as_bytes()) {
            if pieces[0].is_empty() || pieces[0].len() >= until.len() {
                continue;
            }
            let mut content = plain();
            content.pass(pieces[0], false);
            let (passed, end) = passed(&mut content, &pieces[1..], true);
            assert_eq!(end, Some(End::Between));
            assert_eq!([pieces[0], &passed].concat(), until.as_bytes());
            assert_eq!(content.seen(), until.len() as u64);
        }
    }
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a socket");
    let address = listener.local_addr().expect("its address");
    let (one, other) = tokio::join!(TcpStream::connect(address), listener.accept());
    (one.expect("connected"), other.expect("accepted").0)
}

/// A stream that runs, and what it joins.
struct Joined {
    client: TcpStream,
    upstream: TcpStream,
    stop: Stop,
    stream: JoinHandle<Ended>,
}

impl Joined {
    async fn new(content: Content, early: &[u8], limits: Limits) -> Self {
        let (client, client_side) = pair().await;
        let (upstream, upstream_side) = pair().await;
        let stop = Stop::new(Duration::from_secs(5));
        let side = Side {
            stream: Stream::Plain(upstream_side),
            early: Bytes::copy_from_slice(early),
        };
        let client_side = Stream::Plain(client_side);
        let stream = run(client_side, side, HEAD.into(), content, limits, &stop);
        let size = size_of_val(&stream);
        assert!(size <= 600, "{size} bytes");
        Self {
            client,
            upstream,
            stop,
            stream: tokio::spawn(stream),
        }
    }

    /// Sees that the client gets this and no more, and that both connections end.
    async fn ends(mut self, expected: &[u8], why: &str) -> Ended {
        let mut received = vec![];
        self.client
            .read_to_end(&mut received)
            .await
            .expect("an end");
        assert_eq!(
            received,
            [HEAD, expected].concat(),
            "{}",
            received.escape_ascii()
        );
        // The upstream's end does not wait for the client's.
        assert_eq!(self.upstream.read(&mut [0]).await.unwrap_or(0), 0);
        drop(self.client);
        let ended = self.stream.await.expect("ended");
        assert_eq!(ended.why, why);
        ended
    }
}

#[tokio::test]
async fn an_upstream_that_stays_does_not_hold_the_client() {
    let body = b"8\r\ndata: 1\n\r\n1\r\n\n\r\n0\r\n\r\n";
    for split in 0..=body.len() {
        let (early, rest) = body.split_at(split);
        let mut joined = Joined::new(in_chunks(), early, NO_LIMITS).await;
        joined.upstream.write_all(rest).await.expect("written");
        let ended = joined.ends(body, "complete").await;
        assert_eq!(ended.to_client, 9);
    }
}

#[tokio::test]
async fn a_close_is_the_end_of_what_has_no_chunks_alone() {
    let mut joined = Joined::new(plain(), b"data: ", NO_LIMITS).await;
    joined.upstream.write_all(b"1\n\n").await.expect("written");
    joined.upstream.shutdown().await.expect("shut down");
    joined.ends(b"data: 1\n\n", "complete").await;
    let mut joined = Joined::new(in_chunks(), b"5\r\ndata", NO_LIMITS).await;
    joined.upstream.shutdown().await.expect("shut down");
    let why = "the upstream has broken off: the connection was closed before the end";
    joined.ends(b"5\r\ndata", why).await;
    let joined = Joined::new(in_chunks(), b"1\r\na\r\nx\r\n", NO_LIMITS).await;
    let why = "the upstream has broken off: a chunk has no size";
    joined.ends(b"1\r\na\r\n", why).await;
}

#[tokio::test]
async fn a_stop_waits_for_the_end_of_the_event() {
    let joined = Joined::new(in_chunks(), b"3\r\n:\n\n\r\n", NO_LIMITS).await;
    joined.stop.now();
    let expected = [b"3\r\n:\n\n\r\n", LAST_CHUNK].concat();
    joined.ends(&expected, STOPPED).await;

    let (first, second): (&[u8], &[u8]) = (b"6\r\n:\n\n", b":\n\n\r\n");
    let mut joined = Joined::new(in_chunks(), first, NO_LIMITS).await;
    let mut received = vec![0; HEAD.len() + first.len()];
    joined.client.read_exact(&mut received).await.expect("all");
    joined.stop.now();
    joined
        .upstream
        .write_all(&[second, b"3\r\n:\n\n\r\n"].concat())
        .await
        .expect("written");
    let mut rest = vec![];
    joined.client.read_to_end(&mut rest).await.expect("an end");
    assert_eq!(rest, [second, LAST_CHUNK].concat());
    drop(joined.client);
    assert_eq!(joined.stream.await.expect("ended").why, STOPPED);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_end_in_time_is_cut() {
    let limits = Limits {
        drain: Duration::from_secs(1),
        ..NO_LIMITS
    };
    let joined = Joined::new(in_chunks(), b"6\r\n:", limits).await;
    joined.stop.now();
    joined.ends(b"6\r\n:", STOPPED).await;
    let limits = Limits {
        upstream_idle: Some(LONG),
        ..NO_LIMITS
    };
    let joined = Joined::new(in_chunks(), b"3\r\n:\n\n\r\n", limits).await;
    joined.ends(b"3\r\n:\n\n\r\n", SILENT).await;
    let limits = Limits {
        age: Some(Instant::now() + LONG),
        ..NO_LIMITS
    };
    let joined = Joined::new(plain(), b":\n\n", limits).await;
    joined.ends(b":\n\n", AGED).await;
}

#[tokio::test]
async fn a_client_that_goes_takes_the_upstream_along() {
    for reset in [false, true] {
        let mut joined = Joined::new(in_chunks(), b"3\r\n:\n\n\r\n", NO_LIMITS).await;
        joined
            .client
            .write_all(b"not heard")
            .await
            .expect("written");
        let mut received = vec![0; HEAD.len()];
        joined.client.read_exact(&mut received).await.expect("all");
        if reset {
            joined.client.set_zero_linger().expect("set");
        }
        drop(joined.client);
        assert_eq!(joined.upstream.read(&mut [0]).await.unwrap_or(0), 0);
        let ended = joined.stream.await.expect("ended");
        assert_eq!(ended.why, GONE);
    }
}

#[tokio::test]
async fn a_client_that_sends_for_ever_is_cut_off() {
    let mut joined = Joined::new(in_chunks(), b"", NO_LIMITS).await;
    while joined.client.write_all(&[7; 10_000]).await.is_ok() {}
    let ended = joined.stream.await.expect("ended");
    assert_eq!(ended.why, "the client sends what nobody reads");
}

/// As long as it takes something, its silence before does not count.
#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_for_long_is_cut_off() {
    let limits = Limits {
        client_idle: Some(LONG),
        ..NO_LIMITS
    };
    let mut joined = Joined::new(plain(), b"", limits).await;
    tokio::time::advance(LONG * 2).await;
    let began = Instant::now();
    while joined.upstream.write_all(&[b'\n'; 100_000]).await.is_ok() {}
    // The clock of the test stands still but for timers.
    assert!(began.elapsed() >= LONG);
    let ended = joined.stream.await.expect("ended");
    assert_eq!(ended.why, "the client takes nothing any more");
}

/// The stream is polled by hand, so that what it holds can be seen.
#[tokio::test]
async fn a_client_that_does_not_read_costs_one_read() {
    let (client, client_side) = pair().await;
    let (upstream, upstream_side) = pair().await;
    SockRef::from(&client)
        .set_recv_buffer_size(64 << 10)
        .expect("set");
    SockRef::from(&client_side)
        .set_send_buffer_size(64 << 10)
        .expect("set");
    let side = Side {
        stream: Stream::Plain(upstream_side),
        early: Bytes::new(),
    };
    let client_side = Stream::Plain(client_side);
    let mut stream = EventStream::new(client_side, side, HEAD.into(), plain(), NO_LIMITS);
    let stop = Stop::new(Duration::from_secs(5));
    let mut stopped = pin!(stop.departure());
    let mut blocked = 0;
    while blocked < 100 {
        let _ = upstream.try_write(&[b'\n'; 100_000]);
        let polled = std::future::poll_fn(|cx| Poll::Ready(stream.poll(cx, stopped.as_mut())));
        assert!(polled.await.is_pending());
        tokio::task::yield_now().await;
        blocked = match stream.relay.pending.len() {
            0 => 0,
            held => {
                assert!(held <= LARGEST_READ);
                blocked + 1
            }
        };
    }
    drop(client);
}
