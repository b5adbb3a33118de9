//! A real browser, Debian's Chromium: the pages that a hop has for a person, and what a page's own scripts can do with a
//! stream. scripts/test installs what is missing.

pub mod driver;
mod foreign;
mod picture;
mod relay;
mod tokens;

use serde_json::json;

use crate::harness::client::Client;
use crate::harness::frame::{BINARY, TEXT};
use crate::harness::wsevent::Hop;
use driver::Browser;

/// Publishes, over a WebSocket.
async fn publish(hop: &Hop, query: &str, opcode: u8, payloads: &[&[u8]]) {
    let mut client = Client::connect(hop.address)
        .await
        .upgraded(&format!("/events{query}"))
        .await;
    for payload in payloads {
        client.send_frame(opcode, payload).await;
        client.message().await; // it gets its own: now it is in the log
    }
}

async fn publish_texts(hop: &Hop, texts: impl IntoIterator<Item = String>) {
    let texts: Vec<_> = texts.into_iter().collect();
    let payloads: Vec<_> = texts.iter().map(String::as_bytes).collect();
    publish(hop, "", TEXT, &payloads).await;
}

fn page_of(hop: &Hop) -> String {
    format!("http://{}/events", hop.address)
}

const HOSTILE: &str = "<script>alert(1)</script><img src=x onerror='alert(2)'>\"&amp;\u{202e}";

#[tokio::test]
async fn the_page_shows_events_as_they_are() {
    let hop = Hop::start(&["--accept-publish"]).await;
    let mut browser = Browser::start().await;
    let page = browser.open(&page_of(&hop)).await;
    browser.in_state(page, "live").await;
    publish(&hop, "", TEXT, &[b"plain", b"", HOSTILE.as_bytes()]).await;
    let labels = "?type=order.created&key=customer%2F27";
    publish(&hop, labels, TEXT, &[br#"{"total":12345678901234567890}"#]).await;
    let hostile: String = url::form_urlencoded::byte_serialize(HOSTILE.as_bytes()).collect();
    publish(
        &hop,
        &format!("?type={hostile}&key={hostile}"),
        BINARY,
        &[b"\0\xffwsevent"],
    )
    .await;
    let rows = browser.rows(page, 5).await;
    let (origin, _) = rows[0].0.rsplit_once('-').expect("an id");
    let row = |number, labels: [&str; 2], payload: &str| {
        let [event_type, key] = labels.map(str::to_owned);
        (
            format!("{origin}-{number}"),
            event_type,
            key,
            payload.to_owned(),
        )
    };
    let dump = "binary, 9 bytes\n0000  00 ff 77 73 65 76 65 6e  74  ··wsevent";
    let expected = [
        row(5, [HOSTILE, HOSTILE], dump),
        row(
            4,
            ["order.created", "customer/27"],
            r#"{"total": 12345678901234567890}"#,
        ),
        row(3, ["", ""], HOSTILE),
        row(2, ["", ""], "empty"),
        row(1, ["", ""], "plain"),
    ];
    assert_eq!(rows, expected);
    let strangers = "document.querySelectorAll('[data-testid=rows] :is(script, img)').length";
    assert_eq!(browser.value(page, strangers).await, 0);
    assert_eq!(browser.problems(page).await, [""; 0]);
    browser.close().await;
}

#[tokio::test]
async fn the_page_pauses_filters_and_clears() {
    let hop = Hop::start(&["--accept-publish"]).await;
    let mut browser = Browser::start().await;
    let page = browser.open(&page_of(&hop)).await;
    browser.in_state(page, "live").await;
    publish_texts(&hop, ["one", "two", "three"].map(str::to_owned)).await;
    browser.rows(page, 3).await;

    browser.press(page, "Space").await;
    browser.in_state(page, "paused").await;
    publish_texts(&hop, ["four".to_owned()]).await;
    let label = "document.querySelector('[data-testid=pause]').textContent.includes('1 waiting')";
    browser.until(page, label).await;
    assert_eq!(browser.rows(page, 3).await[0].3, "three");
    browser.click(page, "[data-testid=pause]").await;
    browser.in_state(page, "live").await;
    assert_eq!(browser.rows(page, 4).await[0].3, "four");

    for (filter, left) in [
        ("T", &["three", "two"][..]),
        ("/^.{4}$/", &["four"]),
        ("?", &[]),
    ] {
        browser.fill(page, "[data-testid=filter]", filter).await;
        let rows = browser.rows(page, left.len()).await;
        let payloads: Vec<_> = rows.iter().map(|row| row.3.as_str()).collect();
        assert_eq!(payloads, left, "{filter}");
    }
    browser.fill(page, "[data-testid=filter]", "/(/").await;
    let wrong = "document.querySelector('[data-testid=filter]').matches('[aria-invalid=true]')";
    browser.until(page, wrong).await;
    browser.press(page, "Escape").await;
    browser.rows(page, 4).await;

    browser.click(page, "[data-testid=clear]").await;
    browser.rows(page, 0).await;
    publish_texts(&hop, ["five".to_owned()]).await;
    assert_eq!(browser.rows(page, 1).await[0].3, "five");
    let count = "document.querySelector('[data-testid=count]').textContent";
    assert_eq!(browser.value(page, count).await, "5");
    assert_eq!(browser.problems(page).await, [""; 0]);
    browser.close().await;
}

#[tokio::test]
async fn the_page_publishes_what_is_typed() {
    let hop = Hop::start(&["--accept-publish", "--max-message-size", "100"]).await;
    let mut browser = Browser::start().await;
    let page = browser.open(&page_of(&hop)).await;
    browser.in_state(page, "live").await;
    let field = |name| format!("[data-testid=publish-form] [name={name}]");
    for (name, text) in [
        ("text", r#"{"total": 40.93}"#),
        ("type", "order & co"),
        ("key", "é/1"),
    ] {
        browser.fill(page, &field(name), text).await;
    }
    browser
        .click(page, "[data-testid=publish-form] button")
        .await;
    let (id, event_type, key, payload) = browser.rows(page, 1).await.remove(0);
    let shown = [&event_type, &key, &payload];
    assert_eq!(shown, ["order & co", "é/1", r#"{"total": 40.93}"#]);
    let answer = "document.querySelector('[data-testid=publish-answer]').textContent";
    assert_eq!(
        browser.until(page, answer).await,
        format!("Published as {id}")
    );
    let text = "document.querySelector('[name=text]').value";
    assert_eq!(browser.value(page, text).await, "");
    assert_eq!(browser.problems(page).await, [""; 0]);

    // What is refused stays in the form.
    let long = "x".repeat(101);
    browser.fill(page, &field("text"), &long).await;
    browser.press(page, "Control+Enter").await;
    browser
        .until(page, &format!("{answer}.startsWith('Refused, 413 ')"))
        .await;
    assert_eq!(browser.value(page, text).await, long);
    let problems = browser.problems(page).await;
    assert_eq!(problems.len(), 1);
    assert!(problems[0].contains("413"), "{problems:?}");
    browser.close().await;
}

#[tokio::test]
async fn nothing_runs_on_the_page_but_its_own_script() {
    let hop = Hop::start(&[]).await;
    let mut browser = Browser::start().await;
    for path in ["", "events"] {
        let page = browser
            .open(&format!("http://{}/{path}", hop.address))
            .await;
        browser.in_state(page, "live").await;
        assert_eq!(browser.problems(page).await, [""; 0]);
        let inject = "(() => {
            const script = document.createElement('script');
            script.textContent = 'window.injected = true';
            document.body.append(script);
            return window.injected === undefined;
        })()";
        assert_eq!(browser.value(page, inject).await, true);
        let elsewhere = "fetch('http://localhost:9/').then(() => false, () => true)";
        assert_eq!(browser.value(page, elsewhere).await, true);
        let problems = browser.problems(page).await;
        let of_policy = |problem: &&String| problem.contains("Content Security Policy");
        assert!(
            problems.iter().filter(of_policy).count() >= 2,
            "{problems:?}"
        );
    }
    browser.close().await;
}

#[tokio::test]
async fn the_page_offers_no_publishing_where_there_is_none() {
    let hop = Hop::start(&[]).await;
    let mut browser = Browser::start().await;
    let page = browser.open(&page_of(&hop)).await;
    browser.in_state(page, "live").await;
    browser.until(page, "via").await; // the index has answered
    let hidden = "document.querySelector('[data-testid=publish-form]').hidden";
    assert_eq!(browser.value(page, hidden).await, true);
    assert_eq!(browser.problems(page).await, [""; 0]);
    browser.close().await;
}

#[tokio::test]
async fn the_index_lists_the_stream() {
    let hop = Hop::start(&["--produce-rate", "50"]).await;
    let mut browser = Browser::start().await;
    let mut subscribers = [hop.subscribe().await, hop.subscribe().await];
    subscribers[1].message().await;
    let page = browser.open(&format!("http://{}/", hop.address)).await;
    let card = "document.querySelector('[data-testid=stream][data-path=\"/events\"]')";
    browser
        .until(
            page,
            &format!("{card}?.querySelector('.subscribers').textContent === '2'"),
        )
        .await;
    let rate = format!("Number({card}.querySelector('.rate').textContent) > 0");
    browser.until(page, &rate).await;
    browser.in_state(page, "live").await;
    browser.click(page, "a.path").await;
    browser
        .until(
            page,
            "location.pathname === '/events' && document.querySelector('[data-testid=row]')",
        )
        .await;
    assert_eq!(browser.problems(page).await, [""; 0]);
    browser.close().await;
}

#[tokio::test]
async fn what_the_page_has_to_copy_reads_events_with_a_type() {
    let hop = Hop::start(&["--accept-publish"]).await;
    let mut browser = Browser::start().await;
    let page = browser.open(&page_of(&hop)).await;
    browser.in_state(page, "live").await;
    let hostile = "?type=%22%29%3Balert%281%29%3B%2F%2F";
    publish(&hop, hostile, TEXT, &[b"one\rtwo\r\nthree"]).await;
    publish(&hop, "?type=order.created", TEXT, &[b"four"]).await;
    assert_eq!(browser.rows(page, 2).await[1].3, "one\ntwo\nthree");
    // Run as it stands, with what it shows kept.
    let run = "(async () => {
        window.got = [];
        console.log = (type, id, data) => got.push([type, data]);
        const script = document.createElement('script');
        script.nonce = document.querySelector('script').nonce;
        script.textContent = `{${document.querySelector('[data-testid=snippet]').textContent}
            window.opened = new Promise(open => source.onopen = open)}`;
        document.body.append(script);
        await opened;
    })()";
    browser.value(page, run).await;
    publish(&hop, "", TEXT, &[b"five"]).await;
    publish(&hop, hostile, TEXT, &[b"six"]).await;
    publish(&hop, "?type=order.created", TEXT, &[b"seven"]).await;
    let got = browser.until(page, "got.length === 3 && got").await;
    let expected = json!([
        ["message", "five"],
        ["\");alert(1);//", "six"],
        ["order.created", "seven"]
    ]);
    assert_eq!(got, expected);
    assert_eq!(browser.problems(page).await, [""; 0]);
    browser.close().await;
}

#[tokio::test]
async fn the_page_shows_kept_state_and_resumes_behind_it() {
    let args = [
        "--accept-publish",
        "--retain",
        "key",
        "--history-count",
        "1",
    ];
    let hop = Hop::start(&args).await;
    for (query, payload) in [
        ("?key=a", "1"),
        ("?key=b", "2"),
        ("?key=a", "3"),
        ("", "no key"),
    ] {
        publish(&hop, query, TEXT, &[payload.as_bytes()]).await;
    }
    let mut browser = Browser::start().await;
    let page = browser.open(&page_of(&hop)).await;
    browser.in_state(page, "live").await;
    let payloads = async |browser: &mut Browser, count| {
        let rows = browser.rows(page, count).await;
        rows.into_iter().map(|row| row.3).collect::<Vec<_>>()
    };
    assert_eq!(payloads(&mut browser, 3).await, ["no key", "3", "2"]);
    let mark = |name: &str| format!("document.querySelector('[data-testid={name}]')?.textContent");
    let begin = browser.until(page, &mark("snapshot")).await;
    assert_eq!(begin, "snapshot: 2 keys");
    browser.until(page, &mark("snapshot-end")).await;
    publish(&hop, "?key=b", TEXT, &[b""]).await;
    assert_eq!(payloads(&mut browser, 4).await[0], "empty");
    assert_eq!(browser.problems(page).await, [""; 0]);
    browser.close().await;
}
