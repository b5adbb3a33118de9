//! Upstreams that want TLS and a login, and what becomes of those that wait when they refuse.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;
use url::form_urlencoded;

use super::nchan::Nchan;
use super::{Feed, SSE, Subscriber, hop_with};
use crate::harness::authority::Authority;
use crate::harness::client::{HANDSHAKE, request};
use crate::harness::tokens::jwt;
use crate::harness::wsevent::Hop;

const USER: &str = "hop";
/// Much that means something in a URL.
const PASSWORD: &str = "over/and@%out";

/// How a route says who it is to the upstream.
#[derive(Clone, Copy)]
enum Login {
    Url,
    Header,
}

/// A route to channels of this kind, with this password.
fn route(
    (nchan, authority): (&Nchan, &Authority),
    (path, kind): (&str, &str),
    (login, password): (Login, &str),
) -> String {
    let scheme = if kind == "sse" { "https" } else { "wss" };
    let mut url = nchan.feeds(scheme, kind);
    let header = match login {
        Login::Url => {
            let password: String = form_urlencoded::byte_serialize(password.as_bytes()).collect();
            url = url.replace("://", &format!("://{USER}:{password}@"));
            String::new()
        }
        Login::Header => {
            let credentials = BASE64.encode(format!("{USER}:{password}"));
            format!("consume-header = \"Authorization: Basic {credentials}\"\n")
        }
    };
    let ca = authority.file("ca.pem");
    format!(
        "[[route]]\nserve-path = \"{path}/*\"\nconsume = {url:?}\nconsume-ca = {ca:?}\n{header}"
    )
}

async fn guarded(authority: &Authority) -> Nchan {
    Nchan::guarded(authority, &format!("{USER}:{{PLAIN}}{PASSWORD}\n")).await
}

#[tokio::test]
async fn who_logs_in_over_tls_is_served() {
    for logins in [[Login::Url, Login::Header], [Login::Header, Login::Url]] {
        let authority = Authority::new();
        let mut nchan = guarded(&authority).await;
        let routes = super::KINDS.iter().zip(logins).map(|(kind, login)| {
            let path = format!("/{kind}");
            route((&nchan, &authority), (&path, kind), (login, PASSWORD))
        });
        let hop = hop_with(&authority, &routes.collect::<String>()).await;
        let secure = authority.client(None, &[]);
        let mut staying = vec![];
        for (number, kind) in (1..).zip(super::KINDS) {
            let feed = Feed(kind, 7);
            let mut subscriber = Subscriber::alone(&secure, &hop, feed, 0).await;
            nchan.has_subscribers(number).await;
            nchan.publish(&feed.channel(), "let in").await;
            assert_eq!(subscriber.event().await, "let in");
            staying.push(subscriber);
        }
        let log = hop.log.to_string();
        assert!(!log.contains(PASSWORD) && !log.contains("Basic"), "{log}");
    }
}

/// What those who wait for a stream are told: over a WebSocket, and as a body.
async fn told(authority: &Authority, hop: &Hop, path: &str) -> [(u16, String); 2] {
    let token = jwt(&json!({"sub": "reader", "wsevent.subscribe": "*"}));
    let token = format!("Bearer {token}");
    let mut told = [(0, String::new()), (0, String::new())];
    let handshake = HANDSHAKE.to_vec();
    for (told, headers) in told
        .iter_mut()
        .zip([handshake, vec![("Host", "localhost"), SSE]])
    {
        let mut client = authority.client(None, &[]).connect(hop.address).await;
        let headers = [&headers[..], &[("Authorization", &token)]].concat();
        client
            .send(request(&format!("GET {path} HTTP/1.1"), &headers))
            .await;
        let head = client.head().await;
        *told = (head.status, client.body(&head).await);
    }
    told
}

#[tokio::test]
async fn what_an_upstream_refuses_is_told_to_those_who_wait() {
    let authority = Authority::new();
    let mut nchan = guarded(&authority).await;
    let both = (&nchan, &authority);
    let mut routes = String::new();
    for kind in super::KINDS {
        let other = match kind {
            "sse" => Login::Header,
            _ => Login::Url,
        };
        let path = |what: &str| format!("/{what}-{kind}");
        routes += &route(both, (&path("wrong"), kind), (other, "wr0ng-one"));
        routes += &route(both, (&path("right"), kind), (other, PASSWORD));
        let untrusted = route(both, (&path("untrusted"), kind), (other, PASSWORD));
        let trust = format!("consume-ca = {:?}\n", authority.file("ca.pem"));
        routes += &untrusted.replace(&trust, "");
    }
    let hop = hop_with(&authority, &routes).await;
    for kind in super::KINDS {
        for (path, status, why) in [
            (format!("/wrong-{kind}/room-1"), 401, "401"),
            (format!("/right-{kind}/elsewhere"), 404, "404"),
            (format!("/untrusted-{kind}/room-1"), 502, "certificate"),
        ] {
            for (told, reason) in told(&authority, &hop, &path).await {
                assert_eq!(told, status, "{path}: {reason}");
                assert!(
                    reason.contains(why) && reason.lines().count() == 1,
                    "{reason}"
                );
                assert!(!reason.contains("wr0ng-one"), "{reason}");
            }
        }
    }
    // They are not tried again.
    let tried_again = hop.count("cannot reach upstream, trying again");
    assert_eq!(tried_again, 0, "{}", hop.log);
    let log = hop.log.to_string();
    assert!(
        !log.contains("wr0ng-one") && !log.contains(PASSWORD),
        "{log}"
    );
    assert_eq!(nchan.subscribers().await, 0);
    assert_eq!(hop.count("upstream connected"), 0);
}
