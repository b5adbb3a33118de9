//! The pages of a relay, while what they depend on goes away and comes back.

use rustix::process::Signal;
use serde_json::json;

use super::driver::{Browser, Page};
use super::{page_of, publish, publish_texts};
use crate::harness::frame::TEXT;
use crate::harness::port::ReservedPort;
use crate::harness::wsevent::Hop;

/// A producer, and a relay behind it whose port stays its own while it is away.
struct Pair {
    producer: Hop,
    relay: Hop,
    port: ReservedPort,
}

impl Pair {
    async fn start() -> Self {
        let producer = Hop::start(&["--accept-publish"]).await;
        let port = ReservedPort::new();
        let relay = Self::relay(&producer, &port).await;
        Self {
            producer,
            relay,
            port,
        }
    }

    async fn relay(producer: &Hop, port: &ReservedPort) -> Hop {
        let address = port.address().to_string();
        let args = [
            "--accept-publish",
            "--consume",
            &producer.url,
            "--serve-address",
            &address,
        ];
        let relay = Hop::start(&args).await;
        relay.logged("upstream connected").await;
        relay
    }

    /// Kills the relay; it has no time to tell anyone.
    async fn kill_relay(&mut self) {
        self.relay.signal(Signal::KILL);
        self.relay.exit().await;
    }

    async fn restart_relay(&mut self) {
        self.relay = Self::relay(&self.producer, &self.port).await;
    }
}

/// Names for events.
fn numbers(range: std::ops::RangeInclusive<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

#[tokio::test]
async fn the_page_goes_on_where_it_was_when_a_killed_relay_is_back() {
    let mut pair = Pair::start().await;
    let mut browser = Browser::start().await;
    let page = browser.open(&page_of(&pair.relay)).await;
    browser.in_state(page, "live").await;
    publish_texts(&pair.producer, numbers(1..=10)).await;
    browser.rows(page, 10).await;
    for round in 1..=2 {
        pair.kill_relay().await;
        browser.in_state(page, "retrying").await;
        publish_texts(&pair.producer, numbers(round * 10 + 1..=round * 10 + 10)).await;
        pair.restart_relay().await;
        browser.in_state(page, "live").await;
        let rows = browser.rows(page, round * 10 + 10).await;
        let payloads: Vec<_> = rows.into_iter().rev().map(|row| row.3).collect();
        assert_eq!(payloads, numbers(1..=round * 10 + 10));
    }
    let gaps = "document.querySelectorAll('[data-testid=gap]').length";
    assert_eq!(browser.value(page, gaps).await, 0);
    assert_eq!(browser.problems(page).await, [""; 0]);
    browser.close().await;
}

/// What the page has in its list, from top to bottom: rows and gaps.
async fn outline(browser: &mut Browser, page: Page) -> Vec<String> {
    let children = "Array.from(document.querySelector('[data-testid=rows]').children, \
                    child => child.querySelector('[data-testid=payload]')?.textContent ?? child.dataset.testid)";
    serde_json::from_value(browser.value(page, children).await).expect("text")
}

#[tokio::test]
async fn the_page_shows_the_gap_before_a_new_producer() {
    let port = ReservedPort::new();
    let address = port.address().to_string();
    let args = ["--accept-publish", "--serve-address", &address];
    let mut hop = Hop::start(&args).await;
    let mut browser = Browser::start().await;
    let page = browser.open(&page_of(&hop)).await;
    browser.in_state(page, "live").await;
    publish_texts(&hop, numbers(1..=3)).await;
    let (before, ..) = browser.rows(page, 3).await.remove(0);
    hop.signal(Signal::KILL);
    hop.exit().await;
    browser.in_state(page, "retrying").await;
    let hop = Hop::start(&args).await;
    // Whether the page is back before them or not, it shows them.
    publish_texts(&hop, numbers(4..=5)).await;
    let (after, ..) = browser.rows(page, 5).await.remove(0);
    assert_ne!(
        before.rsplit_once('-').map(|id| id.0),
        after.rsplit_once('-').map(|id| id.0)
    );
    assert_eq!(
        outline(&mut browser, page).await,
        ["5", "4", "gap", "3", "2", "1"]
    );
    assert_eq!(browser.problems(page).await, [""; 0]);
    browser.close().await;
}

#[tokio::test]
async fn the_page_shows_what_there_is_when_its_last_event_has_gone_with_the_relay() {
    let mut pair = Pair::start().await;
    let mut browser = Browser::start().await;
    let page = browser.open(&page_of(&pair.relay)).await;
    browser.in_state(page, "live").await;
    publish_texts(&pair.producer, numbers(1..=3)).await;
    browser.rows(page, 3).await;
    publish_texts(&pair.relay, numbers(4..=4)).await;
    browser.rows(page, 4).await;
    pair.kill_relay().await;
    browser.in_state(page, "retrying").await;
    publish_texts(&pair.producer, numbers(5..=6)).await;
    pair.restart_relay().await;
    // Nothing twice, though the relay shows all that it has.
    browser.rows(page, 6).await;
    assert_eq!(
        outline(&mut browser, page).await,
        ["6", "5", "gap", "4", "3", "2", "1"]
    );
    assert_eq!(browser.problems(page).await, [""; 0]);
    browser.close().await;
}

/// The path that a page shows for each event, from the newest on: nothing where it is the one in the header.
async fn routes(browser: &mut Browser, page: Page) -> Vec<String> {
    let routes = "Array.from(document.querySelectorAll('[data-testid=row] .route'), route => route.textContent)";
    serde_json::from_value(browser.value(page, routes).await).expect("text")
}

#[tokio::test]
async fn a_row_tells_only_an_unusual_path_and_keeps_it() {
    let mut pair = Pair::start().await;
    let mut browser = Browser::start().await;
    let page = browser.open(&page_of(&pair.relay)).await;
    browser.in_state(page, "live").await;
    browser.until(page, "via?.length === 2").await;
    publish_texts(&pair.producer, numbers(1..=1)).await;
    browser.rows(page, 1).await;
    publish_texts(&pair.relay, numbers(2..=2)).await;
    browser.rows(page, 2).await;
    let relay = pair.relay.address.to_string();
    assert_eq!(routes(&mut browser, page).await, [relay.as_str(), ""]);
    pair.kill_relay().await;
    browser.in_state(page, "retrying").await;
    pair.restart_relay().await;
    browser.in_state(page, "live").await;
    browser.until(page, "via?.length === 2").await;
    publish_texts(&pair.relay, numbers(3..=3)).await;
    browser.rows(page, 3).await;
    let expected = [relay.as_str(), relay.as_str(), ""];
    assert_eq!(routes(&mut browser, page).await, expected);
    assert_eq!(browser.problems(page).await, [""; 0]);
    browser.close().await;
}

#[tokio::test]
async fn the_pages_say_that_an_upstream_is_away() {
    let Pair {
        producer, relay, ..
    } = Pair::start().await;
    let upstream = json!({"url": producer.url, "connected": true});
    let upstreams = relay.index().await["streams"][0]["upstreams"].take();
    assert_eq!(upstreams, json!([upstream]));
    let mut browser = Browser::start().await;
    let page = browser.open(&page_of(&relay)).await;
    let index = browser.open(&format!("http://{}/", relay.address)).await;
    for page in [page, index] {
        browser.in_state(page, "live").await;
    }
    browser.until(page, "via").await;
    let away = "document.querySelector('[data-testid=away]').textContent";
    assert_eq!(browser.value(page, away).await, "");
    producer.signal(Signal::KILL);
    let expected = format!("upstream {} is away", producer.address);
    for page in [page, index] {
        browser
            .until(page, &format!("{away} === {expected:?}"))
            .await;
        browser.in_state(page, "live").await;
        assert_eq!(browser.problems(page).await, [""; 0]);
    }
    browser.close().await;
}

#[tokio::test]
async fn the_index_says_what_goes_to_a_bus_and_that_it_is_away() {
    let port = ReservedPort::new();
    let bus = format!("redis://{}?channel=x", port.address());
    let hop = Hop::start(&["--accept-publish", "--forward", &bus]).await;
    let mut browser = Browser::start().await;
    let index = browser.open(&format!("http://{}/", hop.address)).await;
    browser.in_state(index, "live").await;
    let is = |name: &str, text: &str| {
        format!("document.querySelector('[data-testid={name}]')?.textContent === {text:?}")
    };
    let buses = is("buses", &format!("to {bus}: 0 events"));
    browser.until(index, &buses).await;
    let away = is("away", &format!("bus {} is away", port.address()));
    browser.until(index, &away).await;
    assert_eq!(browser.problems(index).await, [""; 0]);
    browser.close().await;
}

#[tokio::test]
async fn event_source_and_websocket_of_a_page_get_the_same_events() {
    let mut pair = Pair::start().await;
    publish_texts(&pair.producer, numbers(1..=2)).await;
    let mut browser = Browser::start().await;
    let page = browser.open(&page_of(&pair.relay)).await;
    let start = "(async () => {
        window.sse = [], window.socket = [];
        const source = new EventSource('/events');
        source.onmessage = event => sse.push([event.lastEventId, event.data]);
        source.addEventListener('named', event => sse.push([event.lastEventId, event.data]));
        source.addEventListener('wsevent.gap', event => sse.push(event.data));
        const websocket = new WebSocket('/events?history=all');
        websocket.onmessage = event => socket.push(event.data);
        await new Promise(open => source.onopen = open);
    })()";
    browser.value(page, start).await;
    publish_texts(&pair.producer, numbers(3..=10)).await;
    publish(
        &pair.producer,
        "?type=named",
        TEXT,
        &[b"11", "é\n\n✓".as_bytes()],
    )
    .await;
    // What had been before came to the one that asked for it.
    let socket = browser.until(page, "socket.length === 12 && socket").await;
    let sse = browser.until(page, "sse.length === 10 && sse").await;
    let socket: Vec<String> = serde_json::from_value(socket).expect("text");
    let sse: Vec<(String, String)> = serde_json::from_value(sse).expect("ids and text");
    let (_, data): (Vec<_>, Vec<_>) = sse.iter().cloned().unzip();
    let mut expected = numbers(1..=11);
    expected.push("é\n\n✓".to_owned());
    assert_eq!(socket, expected);
    assert_eq!(data, expected[2..]);

    // Only an EventSource comes back by itself.
    pair.kill_relay().await;
    publish_texts(&pair.producer, numbers(13..=20)).await;
    pair.restart_relay().await;
    let sse = browser.until(page, "sse.length === 18 && sse").await;
    let sse: Vec<(String, String)> = serde_json::from_value(sse).expect("no gap");
    let (ids, data): (Vec<_>, Vec<_>) = sse.into_iter().unzip();
    expected.extend(numbers(13..=20));
    assert_eq!(data, expected[2..]);
    let (origin, _) = ids[0].rsplit_once('-').expect("an id");
    let all: Vec<_> = (3..=20).map(|seq| format!("{origin}-{seq}")).collect();
    assert_eq!(ids, all);
    // A WebSocket can say where it was in its URL.
    let resume = format!(
        "(() => {{ window.again = [];
            new WebSocket('/events?last_event_id={origin}-12').onmessage = event => again.push(event.data);
        }})()"
    );
    browser.value(page, &resume).await;
    let again = browser.until(page, "again.length === 8 && again").await;
    assert_eq!(again, json!(numbers(13..=20)));
    assert_eq!(browser.problems(page).await, [""; 0]);
    browser.close().await;
}
