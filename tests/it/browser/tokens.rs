//! The pages of a hop where one needs a token.

use serde_json::json;
use tempfile::TempDir;

use super::driver::Browser;
use crate::harness::client::{Client, request};
use crate::harness::tokens::line;
use crate::harness::wsevent::Hop;

/// A hop with topics, some of which are for everyone.
async fn hop() -> (Hop, TempDir) {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let tokens = folder.path().join("tokens");
    let lines = [
        line("writer", "writes", "*", "subscribe,publish"),
        line("reader", "reads", "/topics/x,/topics/y", "subscribe"),
        "anonymous:-:/topics/open:subscribe\n".to_owned(),
    ];
    std::fs::write(&tokens, lines.concat()).expect("the folder is ours");
    let tokens = tokens.to_str().expect("it is text");
    let args = [
        "--serve-path",
        "/topics/*",
        "--linger",
        "1h",
        "--accept-publish",
        "--auth-token-file",
        tokens,
    ];
    (Hop::start(&args).await, folder)
}

async fn publish(hop: &Hop, path: &str, text: &str) {
    let mut client = Client::connect(hop.address).await;
    let length = text.len().to_string();
    let headers = [
        ("Host", "localhost"),
        ("Authorization", "Bearer writes"),
        ("Content-Length", &length),
    ];
    let line = format!("POST {path} HTTP/1.1");
    client.send(request(&line, &headers) + text).await;
    assert_eq!(client.head().await.status, 202);
}

#[tokio::test]
async fn the_page_of_a_stream_takes_its_token_from_the_address() {
    let (hop, _files) = hop().await;
    let mut browser = Browser::start().await;
    let url = |path: &str| format!("http://{}{path}", hop.address);
    let page = browser.open(&url("/topics/x?access_token=writes")).await;
    browser.in_state(page, "live").await;
    publish(&hop, "/topics/x", "live").await;
    assert_eq!(browser.rows(page, 1).await[0].3, "live");
    let form = "[data-testid=publish-form]";
    let is_hidden = format!("document.querySelector({form:?}).hidden");
    browser.until(page, &format!("!{is_hidden}")).await;
    browser
        .fill(page, &format!("{form} [name=text]"), "typed")
        .await;
    browser.click(page, &format!("{form} button")).await;
    assert_eq!(browser.rows(page, 2).await[0].3, "typed");
    // What is there to copy has a place for the token, and not the token.
    let snippet = browser
        .value(
            page,
            "document.querySelector('[data-testid=snippet]').textContent",
        )
        .await;
    let snippet = snippet.as_str().expect("a text");
    assert!(
        snippet.contains("/topics/x?access_token=TOKEN\""),
        "{snippet}"
    );
    assert!(!snippet.contains("writes"), "{snippet}");
    assert_eq!(browser.problems(page).await, [""; 0]);
    // Back to the list of all.
    browser.click(page, ".brand").await;
    browser
        .until(page, "document.querySelector('[data-path=\"/topics/x\"]')")
        .await;
    browser.in_state(page, "live").await;

    // Who may not publish is not asked to.
    let page = browser.open(&url("/topics/x?access_token=reads")).await;
    browser.in_state(page, "live").await;
    browser.until(page, "via").await; // the index has answered
    assert_eq!(browser.value(page, &is_hidden).await, true);
    assert_eq!(browser.problems(page).await, [""; 0]);
    browser.close().await;
}

#[tokio::test]
async fn the_list_shows_what_one_may_see_and_leads_there() {
    let (hop, _files) = hop().await;
    for topic in ["open", "x", "y", "z"] {
        publish(&hop, &format!("/topics/{topic}"), "here").await;
    }
    let mut browser = Browser::start().await;
    let url = |path: &str| format!("http://{}{path}", hop.address);
    let paths =
        "Array.from(document.querySelectorAll('[data-testid=stream]'), card => card.dataset.path)";
    for (query, expected) in [
        ("", &["/topics/open"][..]),
        (
            "?access_token=reads",
            &["/topics/open", "/topics/x", "/topics/y"],
        ),
        (
            "?access_token=writes",
            &["/topics/open", "/topics/x", "/topics/y", "/topics/z"],
        ),
    ] {
        for list in ["/", "/topics/"] {
            let page = browser.open(&url(&format!("{list}{query}"))).await;
            browser.in_state(page, "live").await;
            assert_eq!(
                browser.value(page, paths).await,
                json!(expected),
                "{list}{query}"
            );
            let route = "document.querySelector('[data-testid=routes]').textContent";
            let count = expected.len();
            let streams = if count == 1 { "stream" } else { "streams" };
            let expected = format!("/topics/* · {count} {streams} now");
            assert_eq!(browser.value(page, route).await, expected);
            assert_eq!(browser.problems(page).await, [""; 0]);
        }
    }
    let page = browser.open(&url("/?access_token=reads")).await;
    browser
        .until(page, "document.querySelector('[data-path=\"/topics/y\"]')")
        .await;
    browser.click(page, "[data-testid=routes] a").await;
    browser
        .until(page, "location.pathname === '/topics/'")
        .await;
    browser
        .until(page, "document.querySelector('[data-path=\"/topics/y\"]')")
        .await;
    browser
        .click(page, "[data-path=\"/topics/y\"] a.path")
        .await;
    browser
        .until(page, "location.pathname === '/topics/y'")
        .await;
    browser.in_state(page, "live").await;
    assert_eq!(browser.rows(page, 1).await[0].3, "here");
    browser.close().await;
}
