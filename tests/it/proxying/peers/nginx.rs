//! nginx as the upstream, and as a proxy in front: what most people have there already.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{server, talk};
use crate::harness::client::{Client, request};
use crate::harness::http::Ndjson;
use crate::harness::nginx::Nginx;
use crate::harness::proxy::Proxy;
use crate::harness::wsevent::Hop;
use crate::peers::Language;

/// One that hands everything on, as its documentation tells people to do for WebSockets.
async fn before(upstream: SocketAddr) -> Nginx {
    Nginx::start(&format!(
        "location / {{
             proxy_pass http://{upstream};
             proxy_http_version 1.1;
             proxy_set_header Upgrade $http_upgrade;
             proxy_set_header Connection \"upgrade\";
             proxy_set_header Host $host;
             proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
             proxy_buffering off;
         }}"
    ))
    .await
}

#[tokio::test]
async fn nginx_is_a_good_upstream() {
    let nginx = Nginx::start(
        "root files;
         location /moved { return 302 /large; }
         location /says { return 200 \"$request_method $host $http_x_forwarded_for $http_via\\n\"; }
         location /broken { return 500 broken; }",
    )
    .await;
    let files = nginx.folder.path().join("files");
    std::fs::create_dir(&files).expect("the folder is ours");
    let large: String = (0..200_000).map(|number| format!("{number}\n")).collect();
    std::fs::write(files.join("large"), &large).expect("the folder is ours");
    let proxy = Proxy::over(&[nginx.address], &["--health-path", "/large"]).await;
    let mut client = proxy.client().await;
    for _ in 0..3 {
        let (head, body) = client.get("/large", &[]).await;
        assert_eq!(head.status, 200, "{head:?}");
        assert!(body == large, "{} bytes", body.len());
        let etag = head.header("etag").to_owned();
        let (head, part) = client.get("/large", &[("Range", "bytes=10-19")]).await;
        assert_eq!((head.status, &*part), (206, &large[10..20]), "{head:?}");
        // An answer that has a length and no content (RFC 9110, section 15.4.5).
        let headers = [("Host", "localhost"), ("If-None-Match", &*etag)];
        client.send(request("GET /large HTTP/1.1", &headers)).await;
        assert_eq!(client.head().await.status, 304);
        client
            .send(request("HEAD /large HTTP/1.1", &headers[..1]))
            .await;
        let head = client.head().await;
        let length = large.len().to_string();
        assert_eq!(
            (head.status, head.header("content-length")),
            (200, &*length)
        );
        let (head, _) = client.get("/moved", &[]).await;
        assert_eq!(head.status, 302);
        let (_, said) = client.get("/says", &[]).await;
        assert_eq!(said, "GET localhost 127.0.0.1 1.1 wsevent\n");
        let (head, said) = client.get("/broken", &[]).await;
        assert_eq!((head.status, &*said), (500, "broken"));
    }
    assert_eq!(proxy.count("upstream is out"), 0, "{}", proxy.log);
}

/// nginx sends `Connection: upgrade` with everything here.
#[tokio::test]
async fn nginx_in_front_hands_websockets_on() {
    for language in [Language::Python, Language::Node] {
        let (mut echo, upstream) = server(language, "echo_server", &["chat.v1"]).await;
        let proxy = Proxy::start(&["--upstream", &upstream]).await;
        let nginx = before(proxy.address).await;
        let url = format!("ws://{}/echo?key=value&key=%2f", nginx.address);
        talk(&url, language, &mut echo).await;
    }
}

#[tokio::test]
async fn a_proxy_between_a_client_and_nginx_hands_websockets_on() {
    let (mut echo, upstream) = server(Language::Node, "echo_server", &["chat.v1"]).await;
    let upstream = upstream.parse().expect("an address");
    let nginx = before(upstream).await;
    let proxy = Proxy::over(&[nginx.address], &[]).await;
    let url = format!("ws://{}/echo?key=value&key=%2f", proxy.address);
    talk(&url, Language::Python, &mut echo).await;
}

/// nginx, the proxy, and a hop behind both.
#[tokio::test]
async fn nginx_in_front_hands_streams_of_a_hop_on() {
    let producer = Hop::start(&["--accept-publish"]).await;
    let trust = ["--trust-forwarded", "127.0.0.0/8"];
    let proxy = Proxy::over(&[producer.address], &trust).await;
    let nginx = before(proxy.address).await;

    let consumer = Hop::consuming(&format!("ws://{}/events", nginx.address)).await;
    let mut subscriber = consumer.subscribe().await;
    let mut lines = Ndjson::of(&consumer).await;
    let mut reader = Client::connect(nginx.address).await;
    let headers = [("Host", "localhost"), ("Accept", "text/event-stream")];
    reader.send(request("GET /events HTTP/1.1", &headers)).await;
    let head = reader.head().await;
    assert_eq!(head.header("content-type"), "text/event-stream", "{head:?}");

    // A request with a body goes the same way.
    let mut publisher = Client::connect(nginx.address).await;
    for number in 0..20 {
        let text = format!("event {number}");
        let length = text.len().to_string();
        let headers = [
            ("Host", "localhost"),
            ("Content-Type", "text/plain"),
            ("Content-Length", &*length),
        ];
        publisher
            .send(request("POST /events HTTP/1.1", &headers) + &text)
            .await;
        let head = publisher.head().await;
        assert!((200..300).contains(&head.status), "{head:?}");
        if head.status != 204 {
            publisher.body(&head).await;
        }
        assert_eq!(subscriber.message().await.to_string(), text);
        assert_eq!(lines.next().await["data"], text);
        reader.line_with(&format!("data: {text}")).await;
    }
    let instance: Value = producer.index().await["instance"].take();
    assert_ne!(instance, json!(null));
}
