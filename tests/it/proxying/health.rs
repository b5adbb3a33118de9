//! Who is well: by probes, and by how clients are answered.

use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};

use crate::harness::client::handshake;
use crate::harness::http::Request;
use crate::harness::proxy::{Backend, Proxy};
use crate::harness::upstream::Upstream;
use crate::harness::within_guard;
use crate::peers::{Language, Peer};

/// Often enough for a test, and time enough for an answer.
const PROBES: [&str; 4] = ["--health-path", "/healthz", "--health-interval", "1s"];

/// Answers with whatever status is set; none: it accepts connections, and says nothing.
struct Moody {
    upstream: Arc<Upstream>,
    status: Arc<AtomicU16>,
    /// The requests there were.
    asked: Arc<Mutex<Vec<String>>>,
    _serving: JoinHandle<()>,
}

impl Moody {
    fn new(status: u16) -> Self {
        let upstream = Arc::new(Upstream::new());
        let status = Arc::new(AtomicU16::new(status));
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let (of, now, seen) = (upstream.clone(), status.clone(), asked.clone());
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let socket = of.next_socket().await;
                connections.spawn(serve(socket, now.clone(), seen.clone()));
            }
        });
        Self {
            upstream,
            status,
            asked,
            _serving: serving,
        }
    }

    fn silent() -> Self {
        Self::new(0)
    }

    fn becomes(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    fn name(&self) -> String {
        self.upstream.address().to_string()
    }

    /// How many of the requests were those of clients.
    fn clients(&self) -> usize {
        let asked = self.asked.lock().expect("nobody has panicked");
        asked
            .iter()
            .filter(|line| !line.contains("/healthz"))
            .count()
    }
}

async fn serve(socket: TcpStream, status: Arc<AtomicU16>, asked: Arc<Mutex<Vec<String>>>) {
    let mut next = Request::try_read(socket).await;
    while let Some(mut request) = next {
        let line = request.line().to_owned();
        asked.lock().expect("nobody has panicked").push(line);
        let status = status.load(Ordering::SeqCst);
        if status == 0 {
            std::future::pending::<()>().await;
        }
        let body = format!("moody {status}");
        let length = body.len();
        let answer = format!("HTTP/1.1 {status} So\r\ncontent-length: {length}\r\n\r\n{body}");
        request.send(answer).await;
        next = Request::try_read(request.into_socket()).await;
    }
}

async fn is_out(proxy: &Proxy, upstream: &str) -> String {
    let line = proxy.logged_where("upstream is out", |line| line.field("upstream") == upstream);
    line.await.field("reason")
}

async fn is_back(proxy: &Proxy, upstream: &str) {
    let line = proxy.logged_where("upstream is back", |line| {
        line.field("upstream") == upstream
    });
    line.await;
}

/// So many answers, each on a connection of its own.
async fn answers(proxy: &Proxy, count: usize) -> Vec<(u16, String)> {
    let mut answers = vec![];
    for _ in 0..count {
        let (head, body) = proxy.get("/").await;
        answers.push((head.status, body));
    }
    answers
}

#[tokio::test]
async fn one_whose_probe_is_answered_with_an_error_is_out_until_it_is_not() {
    let (moody, there) = (Moody::new(200), Backend::start("there"));
    let addresses = [moody.upstream.address(), there.address];
    let proxy = Proxy::over(&addresses, &PROBES).await;
    let both = answers(&proxy, 4).await;
    assert!(both.contains(&(200, "moody 200".into())), "{both:?}");
    moody.becomes(500);
    let reason = is_out(&proxy, &moody.name()).await;
    assert!(
        reason.contains("probe") && reason.contains("500"),
        "{reason}"
    );
    let before = moody.clients();
    for (status, body) in answers(&proxy, 10).await {
        assert_eq!((status, &*body), (200, "there"));
    }
    assert_eq!(moody.clients(), before);
    moody.becomes(204);
    is_back(&proxy, &moody.name()).await;
    moody.becomes(200);
    let both = answers(&proxy, 4).await;
    let well = both.iter().filter(|(_, body)| body == "moody 200");
    assert_eq!(well.count(), 2, "{both:?}");
}

/// It answers a plain request with 426 (RFC 9110, section 15.5.22), and is well.
#[tokio::test]
async fn a_server_that_speaks_only_websocket_is_probed_with_a_handshake() {
    for language in [Language::Python, Language::Node] {
        let mut server = Peer::start(language, "echo_server", &[]);
        let port = server.says().await["port"].to_string();
        let upstream = format!("127.0.0.1:{port}");
        let args = [&["--upstream", &upstream], &PROBES[..]].concat();
        let proxy = Proxy::start(&args).await;
        // Two failed probes would take it out.
        for _ in 0..4 {
            let said = server.says().await;
            assert_eq!(said["path"], "/healthz", "{said}");
            assert_eq!(server.says().await["closed"], 1000);
        }
        assert_eq!(proxy.count("upstream is out"), 0, "{}", proxy.log);
        proxy.client().await.upgraded("/feed").await;
    }
}

#[tokio::test]
async fn one_that_accepts_and_says_nothing_is_out_before_a_client_waits() {
    let (hole, there) = (Moody::silent(), Backend::start("there"));
    let addresses = [hole.upstream.address(), there.address];
    let proxy = Proxy::over(&addresses, &PROBES).await;
    let reason = is_out(&proxy, &hole.name()).await;
    assert!(reason.contains("no answer within"), "{reason}");
    for (status, body) in answers(&proxy, 10).await {
        assert_eq!((status, &*body), (200, "there"));
    }
    let mut client = proxy.client().await.upgraded("/feed").await;
    assert_eq!(client.message().await.to_string(), "there");
    assert_eq!(hole.clients(), 0);
    // It wakes up.
    hole.becomes(200);
    is_back(&proxy, &hole.name()).await;
    let both = answers(&proxy, 4).await;
    assert_eq!(hole.clients(), 2, "{both:?}");
}

#[tokio::test]
async fn without_a_path_it_is_enough_that_it_accepts() {
    let mut away = Upstream::away();
    let silent = Moody::silent();
    let addresses = [away.address(), silent.upstream.address()];
    let proxy = Proxy::over(&addresses, &["--health-interval", "1s"]).await;
    let name = away.address().to_string();
    let reason = is_out(&proxy, &name).await;
    assert!(reason.contains("refused"), "{reason}");
    away.come_back();
    is_back(&proxy, &name).await;
    let mut lines = proxy.log.all("upstream is out");
    lines.retain(|line| line.field("upstream") != name);
    assert!(lines.is_empty(), "{lines:?}");
}

#[tokio::test]
async fn with_all_out_by_probes_it_is_503_until_one_is_back() {
    let moody = Moody::new(503);
    let proxy = Proxy::over(&[moody.upstream.address()], &PROBES).await;
    is_out(&proxy, &moody.name()).await;
    let mut client = proxy.client().await;
    client.send(handshake("/feed")).await;
    let head = client.head().await;
    assert_eq!(head.status, 503, "{head:?}");
    assert!(!head.header("retry-after").is_empty(), "{head:?}");
    assert_eq!(moody.clients(), 0);
    moody.becomes(200);
    is_back(&proxy, &moody.name()).await;
    assert_eq!(answers(&proxy, 1).await, [(200, "moody 200".into())]);
}

#[tokio::test]
async fn one_that_refuses_is_out_and_back_when_it_accepts() {
    let mut away = Upstream::away();
    let there = Backend::start("there");
    let proxy = Proxy::over(&[away.address(), there.address], &[]).await;
    for (status, body) in answers(&proxy, 6).await {
        assert_eq!((status, &*body), (200, "there"));
    }
    let name = away.address().to_string();
    let reason = is_out(&proxy, &name).await;
    assert!(reason.contains("refused"), "{reason}");
    away.come_back();
    // Somebody must try it.
    within_guard("a client at the one that is back", async {
        let serving = async {
            loop {
                let request = Request::read(away.next_socket().await).await;
                request
                    .answer("HTTP/1.1 204 Back\r\nconnection: close\r\n\r\n")
                    .await;
            }
        };
        let asking = async {
            let mut status = 0;
            while status != 204 {
                let mut client = proxy.client().await;
                client
                    .send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    .await;
                status = client.head().await.status;
            }
        };
        tokio::select! {
            () = serving => {}
            () = asking => {}
        }
    })
    .await;
    is_back(&proxy, &name).await;
}

#[tokio::test]
async fn one_that_answers_with_errors_again_and_again_is_out() {
    let (moody, there) = (Moody::new(500), Backend::start("there"));
    let addresses = [moody.upstream.address(), there.address];
    let proxy = Proxy::over(&addresses, &[]).await;
    // Three errors in a row, in turn with the other.
    let first = answers(&proxy, 6).await;
    let errors = first.iter().filter(|(status, _)| *status == 500).count();
    assert_eq!(errors, 3, "{first:?}");
    let reason = is_out(&proxy, &moody.name()).await;
    assert!(reason.contains("500"), "{reason}");
    // A trial now and then may fail, but it is not asked in turn any more.
    let then = answers(&proxy, 40).await;
    let errors = then.iter().filter(|(status, _)| *status == 500).count();
    assert!(errors < 10, "{then:?}");
    moody.becomes(200);
    within_guard("an answer of the one that is well", async {
        while proxy.get("/").await.1 != "moody 200" {}
    })
    .await;
    is_back(&proxy, &moody.name()).await;
}

#[tokio::test]
async fn errors_between_good_answers_take_nobody_out() {
    let moody = Moody::new(200);
    let proxy = Proxy::over(&[moody.upstream.address()], &[]).await;
    for status in [500, 503, 200, 502, 500, 404, 500, 500, 200] {
        moody.becomes(status);
        let expected = (status, format!("moody {status}"));
        assert_eq!(answers(&proxy, 1).await, [expected]);
    }
    // What says something of the request says nothing of the upstream (RFC 9110, sections 15.6.2 and 15.6.6).
    for status in [501, 501, 501, 505, 505, 505] {
        moody.becomes(status);
        assert_eq!(answers(&proxy, 1).await[0].0, status);
    }
    proxy.logged_times("proxied", 15).await;
    assert_eq!(proxy.count("upstream is out"), 0);
}

/// Their failures are better than none, and may be due to what is asked for.
#[tokio::test]
async fn if_all_answer_with_errors_they_are_still_asked() {
    let all = [500, 502, 503].map(Moody::new);
    let addresses = all.each_ref().map(|moody| moody.upstream.address());
    let proxy = Proxy::over(&addresses, &[]).await;
    for (status, body) in answers(&proxy, 30).await {
        assert!([500, 502, 503].contains(&status), "{status}");
        assert_eq!(body, format!("moody {status}"));
    }
    proxy.logged_times("upstream is out", 3).await;
    // Each of them, not only one.
    for moody in &all {
        assert!(moody.clients() >= 4, "{}", moody.clients());
    }
    all[1].becomes(200);
    within_guard("an answer of the one that is well", async {
        while proxy.get("/").await.0.status != 200 {}
    })
    .await;
    is_back(&proxy, &all[1].name()).await;
    assert_eq!(answers(&proxy, 1).await, [(200, "moody 200".into())]);
}
