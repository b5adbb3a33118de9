//! Clients of other people, in other languages, each at its URL with its token.

use serde_json::{Value, json};

use super::nchan::Nchan;
use super::{Feed, claims, hop_before};
use crate::harness::authority::Authority;
use crate::harness::tokens::{jwt, now};
use crate::harness::wsevent::Hop;
use crate::peers::{Language, Peer};

/// What they know of TLS is in the environment.
fn trusting(authority: &Authority, language: Language, role: &str, args: &[&str]) -> Peer {
    let variable = match language {
        Language::Python => "SSL_CERT_FILE",
        Language::Node => "NODE_EXTRA_CA_CERTS",
    };
    let ca = authority.file("ca.pem");
    Peer::start_with(language, role, args, &[(variable, &ca)])
}

fn url(hop: &Hop, scheme: &str, feed: Feed) -> String {
    format!("{scheme}://localhost:{}{}", hop.address.port(), feed.path())
}

#[tokio::test]
async fn websockets_with_a_token_in_a_header_or_as_a_subprotocol_are_served() {
    let mut nchan = Nchan::start().await;
    let authority = Authority::new();
    let mut hop = hop_before(&nchan, &authority).await;
    let mut clients = vec![];
    for (room, language) in [Language::Python, Language::Node].into_iter().enumerate() {
        for (kind, signed) in super::KINDS.into_iter().zip([true, false]) {
            let feed = Feed(kind, room);
            let token = feed.token(signed);
            let (header, subprotocol) = match signed {
                true => (format!("Authorization: Bearer {token}"), Value::Null),
                false => {
                    let subprotocol = format!("bearer.{token}");
                    (
                        format!("Sec-WebSocket-Protocol: {subprotocol}"),
                        json!(subprotocol),
                    )
                }
            };
            let args = [&*url(&hop, "wss", feed), &header];
            let mut client = trusting(&authority, language, "client", &args);
            let said = client.says().await;
            assert_eq!(said["subprotocol"], subprotocol, "{said}");
            assert_eq!(client.says().await, json!({"pong": true}));
            clients.push((feed, client));
        }
    }
    nchan.has_subscribers(clients.len()).await;
    for (feed, client) in &mut clients {
        for number in 0..10 {
            nchan.publish(&feed.channel(), &feed.event(number)).await;
        }
        for number in 0..10 {
            let event = client.event().await;
            assert_eq!(event.to_text().expect("a text"), feed.event(number));
        }
    }
    hop.signal(rustix::process::Signal::INT);
    for (_, client) in &mut clients {
        assert_eq!(client.says().await, json!({"closed": 1001}));
    }
    hop.stops_well().await;
}

#[tokio::test]
async fn an_event_source_with_a_token_in_a_header_is_served() {
    let mut nchan = Nchan::start().await;
    let authority = Authority::new();
    let hop = hop_before(&nchan, &authority).await;
    let mut sources = vec![];
    for feed in super::KINDS.map(|kind| Feed(kind, 3)) {
        let header = format!("Authorization: Bearer {}", feed.token(true));
        let args = [&*url(&hop, "https", feed), &header];
        let mut source = trusting(&authority, Language::Node, "eventsource", &args);
        assert_eq!(source.says().await, json!({"resumed": "no", "sent": null}));
        assert_eq!(source.says().await, json!({"open": true}));
        sources.push((feed, source));
    }
    nchan.has_subscribers(sources.len()).await;
    for (feed, source) in &mut sources {
        for number in 0..10 {
            nchan.publish(&feed.channel(), &feed.event(number)).await;
        }
        for number in 0..10 {
            assert_eq!(source.says().await["data"], feed.event(number));
        }
    }
}

#[tokio::test]
async fn clients_understand_that_they_are_not_let_in_and_when_their_time_is_up() {
    let nchan = Nchan::start().await;
    let authority = Authority::new();
    let hop = hop_before(&nchan, &authority).await;
    let feed = Feed("websocket", 5);
    let url = url(&hop, "wss", feed);
    let start = |language, token: &str| {
        let header = format!("Authorization: Bearer {token}");
        trusting(&authority, language, "client", &[&url, &header])
    };
    let languages = [Language::Python, Language::Node];
    // Within the leeway of ten seconds, and for as long as it takes to start them.
    let late = jwt(&json!({"exp": now() - 4, "wsevent.subscribe": [feed.path()]}));
    let mut late = languages.map(|language| start(language, &late));
    for client in &mut late {
        assert_eq!(client.says().await["subprotocol"], json!(null));
        assert_eq!(client.says().await, json!({"pong": true}));
    }
    for language in languages {
        for (token, status) in [("nobodys", 401), (&*claims([Feed("websocket", 6)]), 403)] {
            let mut client = start(language, token);
            assert_eq!(client.says().await, json!({"refused": status}));
        }
    }
    for client in &mut late {
        assert_eq!(client.says().await, json!({"closed": 4401}));
    }
}
