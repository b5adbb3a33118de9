//! The address for those who run a hop: does it live, is it ready, and its figures.

mod dashboard;
mod metrics;
mod streams;

use std::net::{SocketAddr, TcpListener};

use rustix::process::Signal;

use crate::config::File;
use crate::harness::client::{Client, request};
use crate::harness::frame::TEXT;
use crate::harness::port::ReservedPort;
use crate::harness::upstream::Upstream;
use crate::harness::within_guard;
use crate::harness::wsevent::{Hop, Process, output};

const ANY: [&str; 2] = ["--admin-address", "127.0.0.1:0"];

/// A hop with such an address, on a free port.
async fn hop(args: &[&str]) -> (Hop, SocketAddr) {
    let hop = Hop::start(&[&ANY, args].concat()).await;
    let admin = admin_of(&hop).await;
    (hop, admin)
}

/// Where it says that it is.
async fn admin_of(process: &Process) -> SocketAddr {
    let line = process.logged("listening for administration").await;
    line.field("address").parse().expect("an address")
}

/// Status and text of an answer.
async fn get(admin: SocketAddr, path: &str) -> (u16, String) {
    let (head, body) = Client::connect(admin).await.get(path, &[]).await;
    (head.status, body)
}

/// Asks again until a hop is as ready as this, or is not; what it says then.
async fn ready_is(admin: SocketAddr, status: u16) -> String {
    let asking = async {
        loop {
            let (now, text) = get(admin, "/-/ready").await;
            if now == status {
                return text;
            }
            tokio::task::yield_now().await;
        }
    };
    within_guard(&format!("/-/ready with {status}"), asking).await
}

#[tokio::test]
async fn it_says_what_it_is_and_that_it_lives() {
    let (hop, admin) = hop(&["--accept-publish"]).await;
    let mut client = Client::connect(admin).await;
    for (path, content_type, text) in [
        ("/-/live", "text/plain; charset=utf-8", "live\n"),
        ("/-/ready?x=1", "text/plain; charset=utf-8", "ready\n"),
    ] {
        let (head, body) = client.get(path, &[]).await;
        assert_eq!((head.status, &*body), (200, text), "{path}");
        assert_eq!(head.header("content-type"), content_type);
        assert_eq!(head.header("cache-control"), "no-store");
    }
    let (head, body) = client.get("/-/version", &[]).await;
    assert_eq!(head.header("content-type"), "application/json");
    let version: serde_json::Value = serde_json::from_str(&body).expect("it is JSON");
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(version["instance"], hop.index().await["instance"]);
    assert_eq!(version["address"], hop.address.to_string());
    let features = version["features"].as_array().expect("a list");
    assert!(features.contains(&"redis".into()), "{body}");
    // What is here is not there, and the other way round.
    let (head, _) = Client::connect(hop.address).await.get("/-/live", &[]).await;
    assert_eq!(head.status, 404);
    assert_eq!(get(admin, "/events").await.0, 404);
}

#[tokio::test]
async fn wrong_requests_are_answered() {
    let (_hop, admin) = hop(&[]).await;
    let mut client = Client::connect(admin).await;
    for path in ["/", "/-/", "/-/live/", "/-/nothing", "/metrics"] {
        let (head, body) = client.get(path, &[]).await;
        assert_eq!(head.status, 404, "{path}");
        let all = "there is nothing at this path; what there is: /-/live /-/ready /-/metrics /-/streams /-/topology /-/version\n";
        assert_eq!(body, all, "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        for path in [
            "/-/live",
            "/-/ready",
            "/-/metrics",
            "/-/streams",
            "/-/topology",
            "/-/version",
        ] {
            let line = format!("{method} {path} HTTP/1.1");
            client.send(request(&line, &[("Host", "localhost")])).await;
            let head = client.head().await;
            assert_eq!((head.status, head.header("allow")), (405, "GET, HEAD"));
            let body = client.body(&head).await;
            assert_eq!(body, "this method is not possible here\n", "{line}");
        }
    }
    client.send("GET /-/live HTTP/1.1\r\n\r\n").await;
    let head = client.head().await;
    assert_eq!(head.status, 400);
    assert_eq!(client.body(&head).await, "the header Host is missing\n");
    // The head of the answer, and what follows is the next one.
    client
        .send(request("HEAD /-/live HTTP/1.1", &[("Host", "localhost")]))
        .await;
    let head = client.head().await;
    assert_eq!((head.status, head.header("content-length")), (200, "5"));
    let (head, _) = client.get("/-/live", &[]).await;
    assert_eq!(head.status, 200);
    let mut hostile = Client::connect(admin).await;
    hostile.send("\u{16}\u{3}\u{1} what is this\r\n\r\n").await;
    assert_eq!(hostile.head().await.status, 400);
}

#[tokio::test]
async fn connections_have_a_bound() {
    let (_hop, admin) = hop(&[]).await;
    let mut open = vec![];
    for _ in 0..64 {
        open.push(Client::connect(admin).await);
    }
    let mut one_more = Client::connect(admin).await;
    let head = one_more.head().await;
    assert_eq!(head.status, 503);
    assert_eq!(head.header("retry-after"), "5");
    let mut first = open.swap_remove(0);
    assert_eq!(first.get("/-/live", &[]).await.0.status, 200);
    drop(first);
    // It is noticed in a moment.
    let room = async {
        loop {
            let mut client = Client::connect(admin).await;
            let line = request("GET /-/live HTTP/1.1", &[("Host", "localhost")]);
            let _ = client.try_send(line).await;
            let head = client.try_head().await;
            if head.is_some_and(|head| head.status == 200) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    within_guard("room for another one", room).await;
}

#[tokio::test]
async fn a_bus_that_is_away_is_in_the_way() {
    let port = ReservedPort::new();
    let url = format!("redis://{}?channel=x", port.address());
    let secret = url.replace("redis://", "redis://me:s3cret@");
    let (hop, admin) = hop(&["--accept-publish", "--forward", &secret]).await;
    hop.logged("cannot reach downstream, trying again").await;
    let text = ready_is(admin, 503).await;
    let begins = format!("bus {url}, written to by /events, is away for ");
    assert!(text.starts_with(&begins), "{text}");
    assert!(
        !text.contains("s3cret") && !text.contains("not been reached"),
        "{text}"
    );
    assert_eq!(text.lines().count(), 1, "{text}");
    // It lives all the same.
    assert_eq!(get(admin, "/-/live").await.0, 200);
    let buses = hop.index().await["streams"][0]["buses"].take();
    let bus = &buses[0];
    assert_eq!(buses.as_array().map(Vec::len), Some(1), "{buses}");
    assert_eq!((&bus["url"], &bus["way"]), (&url.into(), &"out".into()));
    assert_eq!(bus["connected"], false);
    for figure in ["events", "refused", "lost"] {
        assert_eq!(bus[figure], 0, "{bus}");
    }
}

#[tokio::test]
async fn each_bus_that_is_away_has_a_line() {
    let port = ReservedPort::new();
    let both = format!("redis://{}?channel=x", port.address());
    let forward = format!("redis://{}?channel=y", port.address());
    let (_hop, admin) = hop(&["--accept-publish", "--bus", &both, "--forward", &forward]).await;
    let text = ready_is(admin, 503).await;
    let mut lines: Vec<_> = text
        .lines()
        .filter_map(|line| line.split(" is away").next())
        .collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            format!("bus {both}, read for /events,"),
            format!("bus {both}, written to by /events,"),
            format!("bus {forward}, written to by /events,"),
        ]
    );
}

#[tokio::test]
async fn an_upstream_counts_where_the_route_says_so() {
    let mut upstream = Upstream::away();
    let url = upstream.url();
    let args = ["--consume", &url, "--ready-when-upstream"];
    let (hop, admin) = hop(&args).await;
    hop.logged("cannot reach upstream, trying again").await;
    let expected = format!("upstream {url} of /events: it is away\n");
    assert_eq!(ready_is(admin, 503).await, expected);
    upstream.come_back();
    let link = upstream.accept().await;
    assert_eq!(ready_is(admin, 200).await, "ready\n");
    upstream.go_away();
    drop(link);
    assert_eq!(ready_is(admin, 503).await, expected);
    // Without a word of it, the hop serves what it has.
    let (_hop, admin) = self::hop(&["--consume", &url]).await;
    assert_eq!(get(admin, "/-/ready").await.0, 200);
}

#[tokio::test]
async fn streams_that_come_and_go_are_not_waited_for() {
    let port = ReservedPort::new();
    let forward = format!("redis://{}?channel=x*", port.address());
    let file = File::new(&format!(
        "\
admin-address = \"127.0.0.1:0\"
ready-when-upstream = true
[[route]]
serve-path = \"/t/*\"
accept-publish = true
forward = \"{forward}\"
[[route]]
serve-path = \"/produced\"
"
    ));
    let hop = file.hop(&[]).await;
    let admin = admin_of(&hop).await;
    let mut used = Client::connect(hop.address).await.upgraded("/t/a").await;
    hop.logged("cannot reach downstream, trying again").await;
    assert_eq!(get(admin, "/-/ready").await.0, 200);
    used.send_frame(TEXT, b"taken").await;
    used.message().await;
}

#[tokio::test]
async fn routes_that_have_changed_count() {
    let port = ReservedPort::new();
    let routes = "[[route]]\nserve-path = \"/a\"\naccept-publish = true\n";
    let top = "admin-address = \"127.0.0.1:0\"\n";
    let file = File::new(&format!("{top}{routes}"));
    let hop = file.hop(&[]).await;
    let admin = admin_of(&hop).await;
    let mut client = Client::connect(admin).await;
    assert_eq!(client.get("/-/ready", &[]).await.0.status, 200);
    let forward = format!("forward = \"redis://{}?channel=x\"", port.address());
    file.becomes(&format!(
        "{top}{routes}[[route]]\nserve-path = \"/b\"\naccept-publish = true\n{forward}\n"
    ));
    hop.signal(Signal::HUP);
    hop.logged("routes loaded again").await;
    let text = ready_is(admin, 503).await;
    assert!(text.contains(", written to by /b, is away"), "{text}");
    // The connection from before is as good.
    let (head, text) = client.get("/-/metrics", &[]).await;
    assert_eq!(head.status, 200);
    assert!(text.contains("wsevent_streams{route=\"/b\"} 1\n"), "{text}");
    file.becomes(&format!("admin-address = \"127.0.0.1:1\"\n{routes}"));
    hop.signal(Signal::HUP);
    let line = hop.logged("this takes effect after a restart").await;
    assert_eq!(line.field("flags"), "admin-address");
    assert_eq!(ready_is(admin, 200).await, "ready\n");
}

#[tokio::test]
async fn a_hop_that_stops_is_not_ready_and_says_so_to_the_end() {
    let (mut hop, admin) = hop(&["--drain", "1h"]).await;
    let mut idle = Client::connect(admin).await;
    assert_eq!(idle.get("/-/ready", &[]).await.0.status, 200);
    // Whoever does not answer the Close is waited for.
    let mut subscriber = hop.subscribe().await;
    hop.signal(Signal::INT);
    assert_eq!(subscriber.until_close().await.1, 1001);
    let (head, text) = idle.get("/-/ready", &[]).await;
    assert_eq!(
        (head.status, &*text),
        (503, "this hop is stopping\n"),
        "on the connection from before"
    );
    assert_eq!(get(admin, "/-/ready").await.0, 503, "on a new one");
    assert_eq!(get(admin, "/-/live").await.0, 200);
    assert!(get(admin, "/-/metrics").await.1.contains("wsevent_streams"));
    assert_eq!(hop.count("stopped"), 0);
    subscriber.answer_close(1001).await;
    hop.stops_well().await;
    assert_eq!(hop.count("stopped"), 1);
    idle.ended().await;
}

#[tokio::test]
async fn a_port_alone_is_one_of_this_machine() {
    for (args, env) in [
        (&["--admin-address", "0"][..], &[][..]),
        (&["--admin-address=:0"], &[]),
        (&[], &[("WSEVENT_ADMIN_ADDRESS", "0")]),
    ] {
        let hop = Hop::start_with(args, env).await;
        let admin = admin_of(&hop).await;
        assert!(admin.ip().is_loopback() && admin.port() != 0, "{admin}");
        assert_eq!(get(admin, "/-/live").await.0, 200);
    }
    let hop = Hop::start(&[]).await;
    assert_eq!(hop.count("listening for administration"), 0);
}

/// The first line of what it says as it ends.
async fn ends_with(code: i32, args: &[&str]) -> String {
    let output = output(args, &[]).await;
    let text = String::from_utf8(output.stderr).expect("it is text");
    assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
    text.lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn what_is_wrong_with_the_flags_is_said_in_a_line() {
    for address in ["localhost", "70000", ":x", "::1:80", "a:1/x", ""] {
        let expected = format!(
            "error: invalid value '{address}' for '--admin-address <HOST:PORT>': HOST:PORT or a port is expected, such as localhost:9464"
        );
        let flag = format!("--admin-address={address}");
        assert_eq!(ends_with(2, &[&flag]).await, expected);
    }
    let wait = ["--ready-when-upstream"];
    let none = "error: --ready-when-upstream waits for upstreams other than buses, for which a hop waits anyway, and there is none: add --consume URL";
    assert_eq!(ends_with(2, &wait).await, none);
    let on_demand = [
        "--ready-when-upstream",
        "--serve-path=/a/*",
        "--consume=ws://a/*",
    ];
    assert_eq!(
        ends_with(2, &on_demand).await,
        "error: --ready-when-upstream is for streams that are always there: those of this route come and go with their readers"
    );
}

#[tokio::test]
async fn a_port_that_is_taken_is_said_in_a_line() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it is bound").to_string();
    let args = ["--serve-address=127.0.0.1:0", "--admin-address", &address];
    let expected =
        format!("wsevent: --admin-address: cannot listen on {address}: address already in use");
    let said = ends_with(1, &args).await;
    assert!(said.starts_with(&expected), "{said}");
}
