//! Who may what: tokens, wherever a request carries them, and what they open.

use std::fs;

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::authority::Authority;
use crate::harness::client::body::Stream;
use crate::harness::client::{Client, HANDSHAKE, Head, request};
use crate::harness::frame::TEXT;
use crate::harness::tokens::{SECRET, jwt, line, now};
use crate::harness::wsevent::Hop;

const SSE: (&str, &str) = ("Accept", "text/event-stream");

/// A hop with topics, and the files that say who may what.
pub struct Guarded {
    pub hop: Hop,
    folder: TempDir,
}

fn tokens() -> String {
    [
        line("reader", "reads", "/topics/*,/", "subscribe"),
        line("feeder", "feeds", "/topics/*", "publish"),
        line("both", "does-both", "/topics/a", "subscribe,publish"),
        "anonymous:-:/topics/open:subscribe\n".to_owned(),
    ]
    .concat()
}

pub async fn guarded(args: &[&str]) -> Guarded {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, content).expect("the folder is ours");
        path.to_str().expect("it is text").to_owned()
    };
    let (tokens, keys) = (path("tokens", tokens().as_bytes()), path("key", SECRET));
    let route = ["--serve-path", "/topics/*", "--accept-publish"];
    let files = ["--auth-token-file", &tokens, "--jwt-keys", &keys];
    let hop = Hop::start(&[&route[..], &files, args].concat()).await;
    Guarded { hop, folder }
}

impl Guarded {
    async fn ask(&self, line: &str, headers: &[(&str, &str)]) -> (Client, Head) {
        let headers = [&[("Host", "localhost")], headers].concat();
        self.send(line, &headers).await
    }

    async fn send(&self, line: &str, headers: &[(&str, &str)]) -> (Client, Head) {
        let mut client = Client::connect(self.hop.address).await;
        client
            .send(request(&format!("{line} HTTP/1.1"), headers))
            .await;
        let head = client.head().await;
        (client, head)
    }

    async fn websocket(&self, path: &str, headers: &[(&str, &str)]) -> (Client, Head) {
        let headers = [&HANDSHAKE[..], headers].concat();
        self.send(&format!("GET {path}"), &headers).await
    }

    async fn status(&self, line: &str, token: &str) -> u16 {
        let bearer = format!("Bearer {token}");
        let headers = [("Authorization", &*bearer), SSE, ("Content-Length", "0")];
        let headers = match line.ends_with('/') {
            true => &headers[..1],
            false if line.starts_with("POST") => &headers,
            false => &headers[..2],
        };
        self.ask(line, headers).await.1.status
    }
}

#[tokio::test]
async fn rights_are_for_paths() {
    let guarded = guarded(&[]).await;
    for (line, token, status) in [
        ("GET /topics/a", "reads", 200),
        ("GET /topics/a", "does-both", 200),
        ("GET /topics/a", "feeds", 403),
        ("GET /topics/b", "does-both", 403),
        ("GET /topics/%61", "does-both", 200),
        ("GET /topics/a", "unknown", 401),
        ("GET /topics/open", "feeds", 200),
        ("POST /topics/a", "feeds", 202),
        ("POST /topics/a", "does-both", 202),
        ("POST /topics/a", "reads", 403),
        ("POST /topics/b", "does-both", 403),
        ("POST /topics/open", "unknown", 401),
        ("GET /topics/", "reads", 200),
        ("GET /", "reads", 200),
        ("GET /nowhere", "reads", 404),
        // A stranger does not even learn what is not there.
        ("GET /nowhere", "unknown", 401),
    ] {
        assert_eq!(guarded.status(line, token).await, status, "{line} {token}");
    }
    for (line, status) in [
        ("GET /topics/open", 200),
        ("GET /topics/a", 401),
        ("POST /topics/open", 401),
        ("OPTIONS /topics/a", 204),
    ] {
        let (_, head) = guarded.ask(line, &[SSE]).await;
        assert_eq!(head.status, status, "{line}");
        let challenge = head.header("www-authenticate");
        assert_eq!(challenge == "Bearer realm=\"wsevent\"", status == 401);
    }
    // Nobody without the right to has made a stream.
    guarded
        .hop
        .logged_where("stream opened", |line| {
            line.field("stream") == "/topics/open"
        })
        .await;
    let opened = guarded.hop.log.all("stream opened");
    assert!(
        opened
            .iter()
            .all(|line| line.field("stream") != "/topics/b")
    );
}

#[tokio::test]
async fn lists_show_what_one_may_see() {
    let guarded = guarded(&["--linger", "1h"]).await;
    for topic in ["a", "b", "open"] {
        assert_eq!(
            guarded
                .status(&format!("POST /topics/{topic}"), "feeds")
                .await,
            202
        );
    }
    for (token, expected, publishes) in [
        (
            Some("reads"),
            &["/topics/a", "/topics/b", "/topics/open"][..],
            "",
        ),
        (
            Some("does-both"),
            &["/topics/a", "/topics/open"],
            "/topics/a",
        ),
        (Some("feeds"), &["/topics/open"], "*"),
        (None, &["/topics/open"], ""),
    ] {
        for target in ["/", "/topics/"] {
            let bearer = format!("Bearer {}", token.unwrap_or_default());
            let mut headers = vec![("Accept", "application/json")];
            headers.extend(token.map(|_| ("Authorization", &*bearer)));
            let mut client = Client::connect(guarded.hop.address).await;
            let (head, body) = client.get(target, &headers).await;
            assert_eq!(head.status, 200, "{target} {token:?} {body}");
            let list: Value = serde_json::from_str(&body).expect("JSON");
            let paths = list["streams"].as_array().expect("a list");
            let paths: Vec<_> = paths.iter().map(|stream| &stream["path"]).collect();
            assert_eq!(paths, expected, "{target} {token:?}");
            let route = json!({"path": "/topics/*", "streams": expected.len(), "publish": !publishes.is_empty()});
            assert_eq!(list["routes"], json!([route]), "{target} {token:?}");
            for stream in list["streams"].as_array().expect("a list") {
                assert_eq!(
                    stream["publish"],
                    stream["path"] == publishes || publishes == "*"
                );
            }
        }
    }
}

/// Whoever may do nothing there does not get to know of a route.
#[tokio::test]
async fn routes_are_named_to_those_who_may_do_something_there() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = |name: &str| folder.path().join(name).to_str().expect("text").to_owned();
    let lines = [
        line("one", "of-one", "/one/a,/news", "subscribe"),
        line("two", "of-two", "/two/*", "publish"),
        line("none", "of-none", "/three/*,/one", "subscribe,publish"),
    ];
    fs::write(path("tokens"), lines.concat()).expect("the folder is ours");
    let routes = ["/one/*", "/two/*", "/news"]
        .map(|path| format!("[[route]]\nserve-path = \"{path}\"\naccept-publish = true\n"));
    let config = format!(
        "auth-token-file = {:?}\n{}",
        path("tokens"),
        routes.concat()
    );
    fs::write(path("config"), config).expect("the folder is ours");
    let hop = Hop::start(&["--config", &path("config")]).await;
    for (token, listed, named) in [
        ("of-one", &["/one/*"][..], "; what there is: /one/* /news"),
        ("of-two", &["/two/*"], "; what there is: /two/*"),
        ("of-none", &[], ""),
    ] {
        let bearer = format!("Bearer {token}");
        let mut client = Client::connect(hop.address).await;
        let (_, list) = client.get("/", &[("Authorization", &bearer)]).await;
        let list: Value = serde_json::from_str(&list).expect("JSON");
        let routes = list["routes"].as_array().expect("a list");
        let routes: Vec<_> = routes.iter().map(|route| &route["path"]).collect();
        assert_eq!(routes, listed, "{token}");
        let (head, said) = client.get("/x", &[("Authorization", &bearer)]).await;
        assert_eq!(
            (head.status, said),
            (404, format!("there is no stream at this path{named}\n"))
        );
    }
}

#[tokio::test]
async fn a_token_may_be_in_four_places() {
    let guarded = guarded(&[]).await;
    let path = "/topics/a";
    for headers in [
        ("Authorization", "Bearer reads"),
        ("Authorization", "bearer reads"),
        ("Cookie", "theme=dark; access_token=reads"),
        ("Sec-WebSocket-Protocol", "bearer.reads"),
        ("X-Nothing", "reads"),
    ] {
        let (_, head) = guarded.websocket(path, &[headers]).await;
        let expected = if headers.0 == "X-Nothing" { 401 } else { 101 };
        assert_eq!(head.status, expected, "{headers:?}");
        // A browser goes away if none of what it has offered is taken.
        let taken = head.header("sec-websocket-protocol");
        let offered = headers.0 == "Sec-WebSocket-Protocol";
        assert_eq!(taken, if offered { headers.1 } else { "" });
    }
    let (_, head) = guarded.websocket("/topics/a?access_token=reads", &[]).await;
    assert_eq!(head.status, 101);
    let different = ("Authorization", "Bearer feeds");
    let (_, head) = guarded
        .websocket("/topics/a?access_token=reads", &[different])
        .await;
    assert_eq!(head.status, 400);
    let offers = ("Sec-WebSocket-Protocol", "wsevent.v1, bearer.reads");
    let (_, head) = guarded.websocket(path, &[offers]).await;
    assert_eq!(head.header("sec-websocket-protocol"), "wsevent.v1");
    let log = guarded.hop.log.to_string();
    assert!(!log.contains("reads"), "a token is in the log: {log}");
}

#[tokio::test]
async fn on_a_websocket_one_may_listen_and_not_speak() {
    let guarded = guarded(&[]).await;
    let bearer = |token: &'static str| [("Authorization", token)];
    let (mut both, _) = guarded
        .websocket("/topics/a", &bearer("Bearer does-both"))
        .await;
    let (mut reader, _) = guarded
        .websocket("/topics/a", &bearer("Bearer reads"))
        .await;
    both.send_frame(TEXT, b"spoken").await;
    assert_eq!(reader.message().await, Message::text("spoken"));
    reader.send_frame(TEXT, b"not heard").await;
    assert_eq!(reader.closed().await, 1008);
    let closed = guarded.hop.disconnected().await;
    assert_eq!(
        closed.field("reason"),
        "you have no right to publish at this path"
    );
    assert_eq!(both.message().await, Message::text("spoken"));
    both.send_frame(TEXT, b"next").await;
    assert_eq!(both.message().await, Message::text("next"));
}

#[tokio::test]
async fn a_cookie_is_not_for_all_pages() {
    let guarded = guarded(&[
        "--allow-origin",
        "*",
        "--allow-origin",
        "https://app.example",
    ])
    .await;
    let cookie = ("Cookie", "access_token=reads");
    let header = ("Authorization", "Bearer reads");
    for (origin, credential, status) in [
        ("http://localhost", cookie, 101),
        ("https://app.example", cookie, 101),
        ("https://any.example", cookie, 403),
        ("https://any.example", header, 101),
    ] {
        let (_, head) = guarded
            .websocket("/topics/a", &[("Origin", origin), credential])
            .await;
        assert_eq!(head.status, status, "{origin} {credential:?}");
    }
}

#[tokio::test]
async fn jwts_say_themselves_what_they_are_for() {
    let guarded = guarded(&[]).await;
    let claims = |extra: Value| {
        let mut claims = json!({"sub": "ann", "wsevent.subscribe": ["/topics/a"]});
        let claims_map = claims.as_object_mut().expect("an object");
        claims_map.extend(extra.as_object().expect("an object").clone());
        claims
    };
    let good = jwt(&claims(json!({"exp": now() + 3_600})));
    let mut forged = good.clone();
    forged.replace_range(
        good.len() - 1..,
        if good.ends_with('A') { "B" } else { "A" },
    );
    for (line, token, status) in [
        ("GET /topics/a", &good, 200),
        ("GET /topics/b", &good, 403),
        ("POST /topics/a", &good, 403),
        (
            "GET /topics/a",
            &jwt(&claims(json!({"exp": now() - 60}))),
            401,
        ),
        (
            "GET /topics/a",
            &jwt(&claims(json!({"nbf": now() + 60}))),
            401,
        ),
        ("GET /topics/a", &forged[..forged.len() - 2].to_owned(), 401),
        (
            "POST /topics/b",
            &jwt(&json!({"wsevent": {"publish": ["/topics/*"]}})),
            202,
        ),
    ] {
        assert_eq!(guarded.status(line, token).await, status, "{line} {token}");
    }
}

#[tokio::test]
async fn what_a_token_has_opened_ends_with_it() {
    let guarded = guarded(&["--ping-interval", "1h"]).await;
    // Within the leeway of ten seconds, and not for long.
    let token = jwt(&json!({"exp": now() - 8, "wsevent": {"subscribe": "/topics/*"}}));
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", &*bearer)];
    let (websocket, head) = guarded.websocket("/topics/a", &headers).await;
    assert_eq!(head.status, 101);
    let offers = [headers[0], ("Sec-WebSocket-Protocol", "wsevent.v1")];
    let (mut hop, _) = guarded.websocket("/topics/a", &offers).await;
    hop.send_frame(TEXT, b"!hello from=live").await;
    let mut first = Stream::open(guarded.hop.address, "/topics/a", &[SSE, headers[0]]).await;
    let mut second =
        Stream::open_second(guarded.hop.address, "/topics/a", &[SSE, headers[0]]).await;
    let mut others = Stream::open(guarded.hop.address, "/topics/open", &[SSE]).await;
    let ended = guarded.hop.logged_times("subscriber disconnected", 4);
    let (code, ..) = tokio::join!(websocket.closed(), first.drain(), second.drain(), ended);
    assert_eq!(code, 4401);
    let reasons = guarded.hop.log.all("subscriber disconnected");
    assert!(
        reasons
            .iter()
            .all(|line| line.field("reason") == "the token has expired")
    );
    // Who has no such end is still there.
    assert_eq!(guarded.status("POST /topics/open", "feeds").await, 202);
    assert_eq!(others.event().await.data, "");
}

#[tokio::test]
async fn the_files_are_read_again_on_sighup() {
    let guarded = guarded(&[]).await;
    let mut listening = Stream::open(
        guarded.hop.address,
        "/topics/a",
        &[SSE, ("Authorization", "Bearer reads")],
    )
    .await;
    let tokens = guarded.folder.path().join("tokens");
    fs::write(&tokens, "broken").expect("the folder is ours");
    guarded.hop.signal(Signal::HUP);
    guarded
        .hop
        .logged("cannot load the access files again, the old rules stay")
        .await;
    assert_eq!(guarded.status("GET /topics/a", "reads").await, 200);
    fs::write(&tokens, line("other", "is-new", "*", "subscribe,publish")).expect("it is ours");
    guarded.hop.signal(Signal::HUP);
    guarded.hop.logged("access files loaded again").await;
    assert_eq!(guarded.status("GET /topics/a", "reads").await, 401);
    assert_eq!(guarded.status("POST /topics/a", "is-new").await, 202);
    // Who was there before stays.
    assert_eq!(listening.event().await.data, "");
}

#[tokio::test]
async fn everyone_publishes_on_this_machine_only() {
    use crate::harness::wsevent::output;
    let exposed = ["--accept-publish", "--serve-address", "0.0.0.0:0"];
    let refused = output(&exposed, &[]).await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("--insecure-publish"), "{said}");
    for args in [
        &[&exposed[..], &["--insecure-publish"]].concat()[..],
        &["--accept-publish", "--serve-address", "[::1]:0"],
        &["--produce", "--serve-address", "0.0.0.0:0"],
    ] {
        // It listens.
        drop(Hop::start(args).await);
    }
}

#[tokio::test]
async fn certificates_say_who_may_publish_too() {
    let authority = Authority::new();
    let [cert, key, ca] =
        ["server.pem", "server-key.pem", "ca.pem"].map(|name| authority.file(name));
    let tls = ["--tls-cert", &*cert, "--tls-key", &*key];
    let exposed = [
        &["--accept-publish", "--serve-address", "0.0.0.0:0"],
        &tls[..],
    ]
    .concat();
    let refused = crate::harness::wsevent::output(&exposed, &[]).await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("--tls-client-ca"), "{said}");
    drop(Hop::start(&[&exposed[..], &["--tls-client-ca", &ca]].concat()).await);
}
