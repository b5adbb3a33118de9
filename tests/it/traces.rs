//! Traces, as somebody else's collector gets them: cargo feature `otel`.

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::client::{Client, HANDSHAKE, request};
use crate::harness::port::ReservedPort;
use crate::harness::upstream::Upstream;
use crate::harness::within_guard;
use crate::harness::wsevent::{Hop, output};
use crate::peers::{Language, Peer};

/// A collector, and its URL.
async fn collector() -> (Peer, String) {
    let mut collector = Peer::start(Language::Python, "otlp", &[]);
    let port = collector.says().await["port"].as_u64();
    let port = port.expect("a port");
    (collector, format!("http://127.0.0.1:{port}"))
}

/// The next spans up to the one that is wanted.
async fn spans_until(collector: &mut Peer, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
    let mut spans = vec![];
    let asking = async {
        loop {
            spans.push(collector.says().await);
            if spans.last().is_some_and(&wanted) {
                return;
            }
        }
    };
    within_guard("a span", asking).await;
    spans
}

fn named(name: &str) -> impl Fn(&Value) -> bool {
    move |span| span["name"] == name
}

#[tokio::test]
async fn a_reconnect_is_a_trace_with_its_attempts() {
    let (mut collector, url) = collector().await;
    let mut upstream = Upstream::new();
    let from = format!("{}?token=s3cret", upstream.url());
    let args = ["--consume", &from, "--otlp-endpoint", &url];
    let env = [
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20x"),
    ];
    let hop = Hop::start_with(&args, &env).await;
    let link = upstream.accept().await;
    let spans = spans_until(&mut collector, named("connect")).await;
    let [attempt, connect] = &spans[..] else {
        panic!("{spans:?}");
    };
    assert_eq!(attempt["name"], "attempt");
    assert_eq!(
        (&attempt["parent"], &attempt["trace"]),
        (&connect["span"], &connect["trace"])
    );
    assert_eq!(
        (&attempt["kind"], &attempt["status"]),
        (&"SPAN_KIND_CLIENT".into(), &"STATUS_CODE_UNSET".into())
    );
    assert_eq!(attempt["attributes"]["wsevent.transport"], "websocket");
    let shown = format!("{}?...", upstream.url());
    assert_eq!(connect["attributes"]["url.full"], shown);
    assert_eq!(connect["attributes"]["wsevent.attempts"], 1);
    assert_eq!(connect["resource"]["service.name"], "wsevent");
    assert_eq!(
        connect["resource"]["service.version"],
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(connect["authorization"], "Bearer x");
    assert_eq!(
        (&connect["parent"], &connect["lasts"]),
        (&"".into(), &true.into())
    );
    upstream.go_away();
    drop(link);
    hop.logged("upstream lost").await;
    let failed = spans_until(&mut collector, named("attempt")).await;
    let failed = &failed[0];
    assert_eq!(failed["status"], "STATUS_CODE_ERROR");
    assert!(
        failed["reason"]
            .as_str()
            .is_some_and(|it| it.contains("refused")),
        "{failed}"
    );
    upstream.come_back();
    let _link = upstream.accept().await;
    let spans = spans_until(&mut collector, named("reconnect")).await;
    let reconnect = spans.last().expect("there is one");
    assert_eq!(reconnect["attributes"]["wsevent.lost"], "connection lost");
    let attempts = spans.len();
    assert_eq!(reconnect["attributes"]["wsevent.attempts"], attempts);
    for span in [failed].into_iter().chain(&spans[..attempts - 1]) {
        assert_eq!(
            (&span["name"], &span["parent"]),
            (&"attempt".into(), &reconnect["span"])
        );
    }
    // The log has lines of its own, and no spans around them.
    let lines = hop.log.lines();
    assert!(lines.iter().all(|line| !line.text.contains("reconnect{")));
}

#[tokio::test]
async fn who_is_let_in_and_who_is_not_is_traced_and_sent_at_the_end_at_the_latest() {
    let (mut collector, url) = collector().await;
    let env = [
        ("OTEL_BSP_SCHEDULE_DELAY", "3600000"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*url),
        ("OTEL_SERVICE_NAME", "prices"),
    ];
    let mut hop = Hop::start_with(
        &["--max-streams=1", "--serve-path=/t/*", "--accept-publish"],
        &env,
    )
    .await;
    let subscriber = Client::connect(hop.address)
        .await
        .upgraded("/t/a?x=s3cret")
        .await;
    let mut refused = Client::connect(hop.address).await;
    refused.send(request("GET /t/b HTTP/1.1", &HANDSHAKE)).await;
    assert_eq!(refused.head().await.status, 503);
    drop(subscriber);
    hop.signal(Signal::INT);
    hop.stops_well().await;
    let spans = spans_until(&mut collector, |span| {
        span["attributes"]["http.response.status_code"] == 503
    })
    .await;
    let [let_in, full] = &spans[..] else {
        panic!("{spans:?}");
    };
    assert_eq!(
        (&let_in["name"], &let_in["kind"]),
        (&"subscribe".into(), &"SPAN_KIND_SERVER".into())
    );
    assert_eq!(let_in["attributes"]["url.path"], "/t/a");
    assert_eq!(let_in["attributes"]["http.response.status_code"], 101);
    assert_eq!(let_in["attributes"]["wsevent.transport"], "websocket");
    assert_eq!(let_in["status"], "STATUS_CODE_UNSET");
    assert_eq!(let_in["resource"]["service.name"], "prices");
    assert_eq!(full["status"], "STATUS_CODE_ERROR");
    assert!(
        full["reason"]
            .as_str()
            .is_some_and(|it| it.contains("1 streams")),
        "{full}"
    );
    assert!(!let_in.to_string().contains("s3cret"));
}

#[tokio::test]
async fn a_collector_that_is_away_is_in_nobodys_way() {
    let port = ReservedPort::new();
    let url = format!("http://{}", port.address());
    let args = ["--produce", "--otlp-endpoint", &url];
    let mut hop = Hop::start_with(&args, &[("OTEL_BSP_SCHEDULE_DELAY", "50")]).await;
    let mut subscriber = hop.subscribe().await;
    subscriber.message().await;
    let line = hop.logged("cannot bring traces to the collector").await;
    assert_eq!(line.field("url"), format!("{url}/v1/traces"));
    drop(subscriber);
    hop.signal(Signal::INT);
    hop.stops_well().await;
    let wrong = output(&["--otlp-endpoint", "localhost:4318"], &[]).await;
    assert_eq!(wrong.status.code(), Some(2));
    let said = String::from_utf8(wrong.stderr).expect("it is text");
    let expected = "an http:// or https:// URL is expected, such as http://localhost:4318";
    assert!(said.contains(expected), "{said}");
}
