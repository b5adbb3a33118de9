//! Who has no token for a URL, and what that costs the server behind it: nothing.

use hyper::Request;
use hyper::ext::Protocol;
use serde_json::json;

use super::nchan::Nchan;
use super::{Feed, NDJSON, SSE, Subscriber, claims, hop_before};
use crate::harness::authority::Authority;
use crate::harness::client::{HANDSHAKE, Head, request};
use crate::harness::http2::Http2;
use crate::harness::tokens::{jwt, now};
use crate::harness::wsevent::Hop;

/// The answer to whoever asks with these headers, over a connection of its own.
async fn answer(authority: &Authority, hop: &Hop, path: &str, headers: &[(&str, &str)]) -> Head {
    let mut client = authority.client(None, &[]).connect(hop.address).await;
    client
        .send(request(&format!("GET {path} HTTP/1.1"), headers))
        .await;
    client.head().await
}

/// As every kind of reader asks.
async fn statuses(authority: &Authority, hop: &Hop, path: &str, token: Option<&str>) -> [u16; 5] {
    let bearer = token.map(|token| format!("Bearer {token}"));
    let token = bearer.as_deref().map(|bearer| ("authorization", bearer));
    let token: Vec<_> = token.into_iter().collect();
    let host = [("Host", "localhost")];
    let mut statuses = [0; 5];
    for (status, headers) in statuses.iter_mut().zip([
        [&token[..], &HANDSHAKE].concat(),
        [&token[..], &host, &[SSE]].concat(),
        [&token[..], &host, &[NDJSON]].concat(),
    ]) {
        let head = answer(authority, hop, path, &headers).await;
        assert!(
            head.header("www-authenticate").starts_with("Bearer "),
            "{head:?}"
        );
        *status = head.status;
    }
    let mut http2 = Http2::secure(authority, hop).await;
    let url = format!("https://localhost{path}");
    for (status, mut request) in statuses[3..].iter_mut().zip([
        Request::get(&url),
        Request::connect(&url)
            .extension(Protocol::from_static("websocket"))
            .header("sec-websocket-version", "13"),
    ]) {
        for (name, value) in &token {
            request = request.header(*name, *value);
        }
        *status = http2.ask(request).await.status().as_u16();
    }
    statuses
}

#[tokio::test]
async fn who_has_no_right_opens_nothing() {
    let mut nchan = Nchan::start().await;
    let authority = Authority::new();
    let hop = hop_before(&nchan, &authority).await;
    let feeds = [Feed("websocket", 0), Feed("sse", 0)];
    let mut expired = json!({"sub": "late", "exp": now() - 60});
    expired["wsevent.subscribe"] = json!("*");
    let expired = jwt(&expired);
    for feed in feeds {
        let path = feed.path();
        let another = Feed(feed.0, 1);
        for (token, status) in [
            (None, 401),
            (Some("no-token-of-anyone"), 401),
            (Some(&*expired), 401),
            (Some(&*another.token(false)), 403),
            (Some(&*another.token(true)), 403),
            (Some(&*claims([])), 403),
        ] {
            let statuses = statuses(&authority, &hop, &path, token).await;
            assert_eq!(statuses, [status; 5], "{path} {token:?}");
        }
    }
    assert_eq!(
        (nchan.connections().await, hop.count("stream opened")),
        (0, 0)
    );
    // Who has it does.
    for (number, feed) in (1..).zip(feeds) {
        let secure = authority.client(None, &[]);
        let mut subscriber = Subscriber::alone(&secure, &hop, feed, 0).await;
        nchan.has_subscribers(1).await;
        nchan.publish(&feed.channel(), "for you").await;
        assert_eq!(subscriber.event().await, "for you");
        assert_eq!(nchan.connections().await, number);
        subscriber.leave().await;
        nchan.has_subscribers(0).await;
    }
}
