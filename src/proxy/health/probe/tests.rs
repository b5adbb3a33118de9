use std::net::SocketAddr;
use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::*;
use crate::proxy::balance::Balance;
use crate::proxy::upstreams::Spec;

/// What an upstream does.
#[derive(Clone, Copy)]
struct Behaviour {
    /// What it says to a request that is no handshake, if anything.
    says: &'static str,
    then: Then,
    websocket: WebSocket,
}

#[derive(Clone, Copy, PartialEq)]
enum Then {
    Closes,
    /// The other side must.
    Waits,
}

#[derive(Clone, Copy)]
enum WebSocket {
    Right,
    /// It answers another handshake.
    Wrong,
    /// To it a handshake is a request like any other.
    Unknown,
}

const WELL: Behaviour =
    waits("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n");
const ILL: Behaviour = waits("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n");
const HANGS: Behaviour = waits("");

const fn waits(says: &'static str) -> Behaviour {
    Behaviour {
        says,
        then: Then::Waits,
        websocket: WebSocket::Unknown,
    }
}

/// An upstream that tells the test what it sees.
struct Server {
    address: SocketAddr,
    behaviour: Arc<Mutex<Behaviour>>,
    seen: mpsc::UnboundedReceiver<Seen>,
    _tasks: JoinSet<()>,
}

#[derive(Debug, PartialEq)]
enum Seen {
    /// The head of a request, or whatever came before the end.
    Head(String),
    /// What came behind it until the end.
    End(Vec<u8>),
}

impl Server {
    async fn new(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let behaviour = Arc::new(Mutex::new(behaviour));
        let (tell, seen) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        let current = behaviour.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("accepted");
                let behaviour = *current.lock().expect("not poisoned");
                connections.spawn(serve(stream, behaviour, tell.clone()));
            }
        });
        Self {
            address,
            behaviour,
            seen,
            _tasks: tasks,
        }
    }

    fn becomes(&self, behaviour: Behaviour) {
        *self.behaviour.lock().expect("not poisoned") = behaviour;
    }

    fn spec(&self) -> Spec {
        self.address.to_string().parse().expect("valid")
    }

    fn upstream(&self) -> Arc<Upstream> {
        let upstreams = Upstreams::new(vec![self.spec()], Balance::RoundRobin, None);
        upstreams
            .pick(None, &[])
            .expect("it is up")
            .upstream()
            .clone()
    }

    async fn head(&mut self) -> String {
        loop {
            if let Seen::Head(head) = self.seen.recv().await.expect("it serves") {
                return head;
            }
        }
    }

    async fn end(&mut self) -> Vec<u8> {
        loop {
            if let Seen::End(rest) = self.seen.recv().await.expect("it serves") {
                return rest;
            }
        }
    }
}

async fn serve(mut stream: TcpStream, behaviour: Behaviour, tell: mpsc::UnboundedSender<Seen>) {
    let mut head = vec![];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    let head = String::from_utf8(head).expect("text");
    let is_handshake = value(&head, "upgrade") == Some("websocket");
    // The test may be over.
    let _ = tell.send(Seen::Head(head.clone()));
    let accept = match behaviour.websocket {
        WebSocket::Right if is_handshake => Some(None),
        WebSocket::Wrong if is_handshake => Some(Some("dGhlIHNhbXBsZSBub25jZQ==")),
        _ => None,
    };
    let answer = match accept {
        Some(wrong) => format!(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
             sec-websocket-accept: {}\r\n\r\n",
            wrong.map_or_else(
                || derive_accept_key(
                    value(&head, "sec-websocket-key")
                        .unwrap_or_default()
                        .as_bytes()
                ),
                str::to_owned
            )
        ),
        None => behaviour.says.to_owned(),
    };
    let _ = stream.write_all(answer.as_bytes()).await;
    if behaviour.then == Then::Closes && accept.is_none() {
        return;
    }
    let mut rest = vec![];
    let _ = stream.read_to_end(&mut rest).await;
    let _ = tell.send(Seen::End(rest));
}

/// The value of a header.
fn value<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut headers = head.lines().filter_map(|line| line.split_once(": "));
    headers
        .find(|(header, _)| header.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

/// One probe; how it ends, and how the next one would be.
async fn probe(upstream: &Upstream, path: Option<&str>, way: &mut Way) -> Result<(), String> {
    let result = once(upstream, path, &plain_connector(), way).await;
    result.map_err(|error| reason::of(&error))
}

/// One probe of an upstream that behaves like this.
async fn judged(behaviour: Behaviour) -> (Result<(), String>, Way) {
    let mut way = Way::Http;
    let server = Server::new(behaviour).await;
    let result = probe(&server.upstream(), Some("/events"), &mut way).await;
    (result, way)
}

#[tokio::test]
async fn an_answer_is_judged_by_its_head() {
    for says in [
        "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 302 Found\r\nlocation: /login\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.0 200 OK\r\n\r\n",
    ] {
        assert_eq!(judged(waits(says)).await, (Ok(()), Way::Http), "{says}");
    }
    for (says, why) in [
        ("HTTP/1.1 404 Not Found\r\n\r\n", "answers 404 Not Found"),
        (
            "HTTP/1.1 503 Service Unavailable\r\n\r\n",
            "answers 503 Service Unavailable",
        ),
        (
            "HTTP/1.1 400 Bad Request\r\n\r\n",
            "answers 400 Bad Request",
        ),
    ] {
        assert_eq!(
            judged(waits(says)).await,
            (Err(why.to_owned()), Way::Http),
            "{says}"
        );
    }
    let (result, way) = judged(waits("SSH-2.0-OpenSSH_9.6\r\n\r\n")).await;
    assert!(result.is_err() && way == Way::Http);
}

#[tokio::test]
async fn a_stream_is_probed_by_a_handshake() {
    for (says, then) in [
        (
            "HTTP/1.1 426 Upgrade Required\r\nupgrade: websocket\r\n\r\n",
            Then::Waits,
        ),
        (
            "HTTP/1.1 400 Bad Request\r\nsec-websocket-version: 13\r\n\r\n",
            Then::Waits,
        ),
        (
            "HTTP/1.1 400 Bad Request\r\nupgrade: websocket\r\n\r\n",
            Then::Closes,
        ),
        ("HTTP/1.1 405 Method Not Allowed\r\n\r\n", Then::Closes),
        ("HTTP/1.1 501 Not Implemented\r\n\r\n", Then::Waits),
        ("", Then::Closes),
    ] {
        let right = Behaviour {
            says,
            then,
            websocket: WebSocket::Right,
        };
        assert_eq!(judged(right).await, (Ok(()), Way::WebSocket), "{says}");
        for websocket in [WebSocket::Wrong, WebSocket::Unknown] {
            let (result, way) = judged(Behaviour { websocket, ..right }).await;
            let why = result.expect_err(says);
            assert!(why.contains(", and as a WebSocket: "), "{says}: {why}");
            assert_eq!(way, Way::Http);
        }
    }
}

#[tokio::test]
async fn requests_say_who_asks() {
    let mut server = Server::new(WELL).await;
    let upstream = server.upstream();
    probe(&upstream, Some("/healthz?deep=1"), &mut Way::Http)
        .await
        .expect("it is well");
    let head = server.head().await;
    assert!(
        head.starts_with("GET /healthz?deep=1 HTTP/1.1\r\n"),
        "{head}"
    );
    assert_eq!(value(&head, "host"), Some(upstream.name()));
    assert_eq!(value(&head, "user-agent"), Some("wsevent"));
    assert_eq!(value(&head, "connection"), Some("close"));
    assert_eq!(
        server.end().await,
        b"",
        "the connection is dropped, though the answer has no end"
    );
}

#[tokio::test]
async fn a_handshake_is_remembered_and_ended_with_a_close() {
    let stream = Behaviour {
        says: "HTTP/1.1 426 Upgrade Required\r\ncontent-length: 0\r\n\r\n",
        then: Then::Waits,
        websocket: WebSocket::Right,
    };
    let mut server = Server::new(stream).await;
    let upstream = server.upstream();
    let mut way = Way::Http;
    for _ in 0..2 {
        probe(&upstream, Some("/events"), &mut way)
            .await
            .expect("it is well");
    }
    let heads = [
        server.head().await,
        server.head().await,
        server.head().await,
    ];
    let upgrades = heads.each_ref().map(|head| value(head, "upgrade"));
    assert_eq!(upgrades, [None, Some("websocket"), Some("websocket")]);
    let handshake = &heads[1];
    assert!(
        handshake.starts_with("GET /events HTTP/1.1\r\n"),
        "{handshake}"
    );
    assert_eq!(value(handshake, "host"), Some(upstream.name()));
    assert_eq!(value(handshake, "user-agent"), Some("wsevent"));
    let close = server.end().await;
    // A masked Close of two bytes (RFC 6455, sections 5.2 and 5.5.1).
    assert_eq!(close[..2], [0x88, 0x82], "{close:?}");
    let code = [close[6] ^ close[2], close[7] ^ close[3]];
    assert_eq!(u16::from_be_bytes(code), 1000);
    // It has become something else.
    server.becomes(WELL);
    probe(&upstream, Some("/events"), &mut way)
        .await
        .expect_err("it answers 200 to a handshake");
    probe(&upstream, Some("/events"), &mut way)
        .await
        .expect("it is well");
    assert_eq!(way, Way::Http);
}

#[tokio::test]
async fn without_a_path_a_connection_is_enough() {
    let mut server = Server::new(HANGS).await;
    let upstream = server.upstream();
    probe(&upstream, None, &mut Way::Http)
        .await
        .expect("it is well");
    assert_eq!(server.head().await, "");
    drop(server);
    // Nobody listens any more once the task has ended.
    while TcpStream::connect(upstream.name()).await.is_ok() {
        tokio::task::yield_now().await;
    }
    probe(&upstream, None, &mut Way::Http)
        .await
        .expect_err("it is gone");
}

#[test]
fn first_probes_are_spread_over_the_interval() {
    let at = |number| phase(number, 4, Duration::from_secs(8)).as_secs();
    assert_eq!([at(0), at(1), at(2), at(3)], [0, 2, 4, 6]);
}

/// Watches these servers until it is dropped.
struct Watched {
    upstreams: Arc<Upstreams>,
    stop: CancellationToken,
    task: JoinSet<()>,
}

impl Watched {
    fn new(servers: &[&Server]) -> Self {
        let specs = servers.iter().map(|server| server.spec()).collect();
        let upstreams = Arc::new(Upstreams::new(specs, Balance::RoundRobin, None));
        let stop = CancellationToken::new();
        let probe = Probe {
            path: Some("/healthz".to_owned()),
            interval: Duration::from_millis(100),
            timeout: Duration::from_secs(60),
        };
        let mut task = JoinSet::new();
        let connect = Arc::new(plain_connector());
        task.spawn(watch(upstreams.clone(), probe, connect, stop.clone()));
        Self {
            upstreams,
            stop,
            task,
        }
    }
}

/// Lets `probes` of them begin; all before the last have had their verdict then.
async fn after(probes: usize, server: &mut Server) {
    for _ in 0..probes {
        server.head().await;
    }
}

#[tokio::test]
async fn probes_take_an_upstream_out_and_bring_it_back() {
    let mut server = Server::new(ILL).await;
    let watched = Watched::new(&[&server]);
    after(3, &mut server).await;
    let none = watched.upstreams.pick(None, &[]).err().expect("it is out");
    assert_eq!(none.retry_after, Duration::from_secs(1));
    server.becomes(WELL);
    // Slow as this machine may be, one of them comes in time.
    while watched.upstreams.pick(None, &[]).is_err() {
        after(1, &mut server).await;
    }
}

#[tokio::test]
async fn one_that_hangs_delays_no_other() {
    let mut hanging = Server::new(HANGS).await;
    let mut refusing = Server::new(ILL).await;
    let watched = Watched::new(&[&hanging, &refusing]);
    hanging.head().await;
    after(3, &mut refusing).await;
    // It is out as well in the end: its probes are given up.
    after(3, &mut hanging).await;
    assert!(watched.upstreams.pick(None, &[]).is_err());
}

#[tokio::test]
async fn a_reload_changes_who_is_probed() {
    let mut before = Server::new(WELL).await;
    let mut added = Server::new(WELL).await;
    let mut watched = Watched::new(&[&before]);
    before.head().await;
    let place = watched.upstreams.pick(None, &[]).expect("it is well");
    let removed = Arc::downgrade(place.upstream());
    drop(place);
    watched.upstreams.replace(vec![added.spec()]);
    // It is probed no more once its task has let go of it.
    while removed.strong_count() > 0 {
        after(1, &mut added).await;
    }
    after(2, &mut added).await;
    watched.stop.cancel();
    watched
        .task
        .join_next()
        .await
        .expect("it was there")
        .expect("it ends");
}

fn plain_connector() -> Connector {
    Connector {
        timeout: Duration::from_secs(5),
        tls: None,
        proxied: None,
    }
}
