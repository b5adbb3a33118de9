//! The picture on the index page: what runs, drawn as it changes.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::HOSTILE;
use super::driver::{Browser, Page};
use crate::harness::wsevent::Hop;

/// What the picture has of one kind, as texts of these of its attributes; sorted.
async fn drawn(browser: &mut Browser, page: Page, what: &str, attributes: &[&str]) -> Value {
    let names = json!(attributes);
    let expression = format!(
        "Array.from(document.querySelectorAll('[data-testid={what}]'), part => {names}.map(name => part.dataset[name]).join(' ')).sort()"
    );
    browser.value(page, &expression).await
}

/// The colour of the lines that are in a state.
fn colour(state: &str) -> String {
    format!(
        "(line => line && getComputedStyle(line).stroke)(document.querySelector('[data-testid=link][data-state={state}] .line'))"
    )
}

#[tokio::test]
async fn the_index_draws_what_runs_and_a_dead_link_in_red() {
    let producer = Hop::start(&["--produce", "--produce-rate", "20"]).await;
    let relay = Hop::start(&["--consume", &producer.url]).await;
    let mut browser = Browser::start().await;
    let page = browser.open(&format!("http://{}/", relay.address)).await;
    browser
        .until(
            page,
            "document.querySelectorAll('[data-testid=node]').length === 2",
        )
        .await;
    browser.until(page, &colour("live")).await;
    let kinds = drawn(&mut browser, page, "node", &["kind"]).await;
    assert_eq!(kinds, json!(["hop", "producer"]));
    let texts = "Array.from(document.querySelectorAll('[data-testid=node] .address'), text => text.textContent).sort()";
    let mut addresses = [producer.address.to_string(), relay.address.to_string()];
    addresses.sort();
    assert_eq!(browser.value(page, texts).await, json!(addresses));
    // The one that is looked at is at the right.
    let order = "(left => left('hop') > left('producer'))(kind => document.querySelector(`[data-kind=${kind}]`).getBoundingClientRect().left)";
    assert_eq!(browser.value(page, order).await, true);

    producer.signal(Signal::KILL);
    let dead = browser.until(page, &colour("dead")).await;
    let red = "(() => {
        const [red, green, blue] = getComputedStyle(document.querySelector('[data-state=dead] .line')).stroke.match(/[0-9]+/g).map(Number);
        return red > 150 && red > 1.4 * green && red > 1.4 * blue;
    })()";
    assert_eq!(browser.value(page, red).await, true, "{dead}");
    assert_eq!(
        drawn(&mut browser, page, "link", &["state"]).await,
        json!(["dead"])
    );
    assert_eq!(browser.problems(page).await, [""; 0]);
    browser.close().await;
}

/// A topology of so many hops, one behind two others each, as somebody could tell it who calls everything by this name.
fn tree(count: usize, name: &str) -> Value {
    let node = |at: usize| {
        let stream = json!({"path": name, "origin": "x", "rate": at, "subscribers": at, "hops": 0, "produces": at > count / 2, "publish": false});
        json!({"id": at.to_string(), "kind": "hop", "address": format!("{at}{name}"), "streams": [stream]})
    };
    let link = |at: usize| {
        let to = ((at - 1) / 2).to_string();
        json!({"from": at.to_string(), "to": to, "role": if at.is_multiple_of(5) { "standby" } else { "consume" }, "transport": name,
               "connected": !at.is_multiple_of(3), "rate": 1.5, "reason": name})
    };
    json!({"instance": "0", "nodes": (0..count).map(node).collect::<Vec<_>>(), "links": (1..count).map(link).collect::<Vec<_>>()})
}

#[tokio::test]
async fn pictures_of_any_size_can_be_read_and_run_nothing() {
    let hop = Hop::start(&[]).await;
    let mut browser = Browser::start().await;
    let page = browser.open(&format!("http://{}/", hop.address)).await;
    browser
        .until(
            page,
            "document.querySelectorAll('[data-testid=node]').length === 1",
        )
        .await;
    // From now on the page is told what the test says.
    let instead = "(fetch => window.fetch = async (url, how) => String(url).includes('topology') && window.told ? new Response(told) : fetch(url, how))(fetch), 1";
    browser.value(page, instead).await;
    for count in [1, 5, 20] {
        for name in ["/events", HOSTILE] {
            let show = format!("(window.told = JSON.stringify({}), 1)", tree(count, name));
            browser.value(page, &show).await;
            browser.until(page, "document.querySelectorAll('[data-testid=node]').length === JSON.parse(told).nodes.length && drawnText === told").await;
            let parts = "[document.querySelectorAll('[data-testid=node]').length, document.querySelectorAll('[data-testid=link]').length]";
            assert_eq!(browser.value(page, parts).await, json!([count, count - 1]));
            // No two boxes lie over each other, no text is wider than its box, and nothing is outside.
            let overlaps = "(() => {
                const boxes = Array.from(document.querySelectorAll('[data-testid=node] rect'), box => box.getBoundingClientRect());
                const over = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
                const frame = document.querySelector('[data-testid=picture]').getBoundingClientRect();
                const isOut = box => box.left < frame.left || box.right > frame.right || box.top < frame.top || box.bottom > frame.bottom;
                const isWide = text => text.getBoundingClientRect().right > text.parentNode.querySelector('rect').getBoundingClientRect().right;
                return [boxes.flatMap((a, at) => boxes.slice(at + 1).filter(b => over(a, b))).length, boxes.filter(isOut).length,
                        Array.from(document.querySelectorAll('[data-testid=node] text')).filter(isWide).length];
            })()";
            assert_eq!(
                browser.value(page, overlaps).await,
                json!([0, 0, 0]),
                "{count} {name}"
            );
            let strangers = "document.querySelectorAll('[data-testid=picture] :is(script, img, foreignObject, a)').length";
            assert_eq!(browser.value(page, strangers).await, 0);
        }
    }
    // The picture scrolls, not the page.
    let scrolls = "document.documentElement.scrollWidth <= document.documentElement.clientWidth && document.querySelector('#picture > div').scrollWidth > document.querySelector('#picture > div').clientWidth";
    assert_eq!(browser.value(page, scrolls).await, true);
    assert_eq!(browser.problems(page).await, [""; 0]);
    browser.close().await;
}
