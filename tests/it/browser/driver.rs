//! The browser as a test sees it: pages, and what is to be done with them. tests/peers/browser.mjs does it.

use std::env;
use std::path::Path;

use serde_json::{Value, json};

use crate::peers::{Language, Peer};

/// A running browser.
pub struct Browser(Peer);

/// One of its pages.
#[derive(Clone, Copy)]
pub struct Page(u64);

impl Browser {
    pub async fn start() -> Self {
        let chromium = env::var("WSEVENT_TEST_CHROMIUM");
        let chromium = chromium.unwrap_or_else(|_| "/usr/bin/chromium".to_owned());
        assert!(
            Path::new(&chromium).exists(),
            "{chromium} is missing: run scripts/test, which installs it, or set WSEVENT_TEST_CHROMIUM"
        );
        let mut peer = Peer::start(Language::Node, "browser", &[&chromium]);
        assert!(peer.says().await["version"].is_string());
        Self(peer)
    }

    async fn command(&mut self, command: Value) -> Value {
        let command = command.to_string();
        self.0.tell(&command).await;
        let mut said = self.0.says_of(&command).await;
        assert!(said["failed"].is_null(), "{command}: {}", said["failed"]);
        said["done"].take()
    }

    pub async fn open(&mut self, url: &str) -> Page {
        self.open_with(url, json!({})).await
    }

    /// The same, whoever has signed the server's certificate.
    pub async fn open_untrusted(&mut self, url: &str) -> Page {
        self.open_with(url, json!({"ignoreHTTPSErrors": true}))
            .await
    }

    async fn open_with(&mut self, url: &str, options: Value) -> Page {
        let command = json!({"do": "open", "url": url, "options": options});
        let page = self.command(command).await;
        Page(page.as_u64().expect("a page has a number"))
    }

    /// What a JavaScript expression is worth on this page.
    pub async fn value(&mut self, page: Page, expression: &str) -> Value {
        self.command(json!({"do": "value", "page": page.0, "expression": expression}))
            .await
    }

    /// Waits until it is worth something.
    pub async fn until(&mut self, page: Page, expression: &str) -> Value {
        self.command(json!({"do": "until", "page": page.0, "expression": expression}))
            .await
    }

    pub async fn click(&mut self, page: Page, selector: &str) {
        self.command(json!({"do": "click", "page": page.0, "selector": selector}))
            .await;
    }

    pub async fn fill(&mut self, page: Page, selector: &str, text: &str) {
        self.command(json!({"do": "fill", "page": page.0, "selector": selector, "text": text}))
            .await;
    }

    pub async fn press(&mut self, page: Page, key: &str) {
        self.command(json!({"do": "press", "page": page.0, "key": key}))
            .await;
    }

    /// What has gone wrong on this page, but for requests that came to nothing because there was no server. A violation of
    /// the page's own policy would be here.
    pub async fn problems(&mut self, page: Page) -> Vec<String> {
        const NO_SERVER: [&str; 5] = [
            "net::ERR_CONNECTION_REFUSED",
            "net::ERR_CONNECTION_RESET",
            "net::ERR_EMPTY_RESPONSE",
            "net::ERR_INCOMPLETE_CHUNKED_ENCODING",
            "net::ERR_NETWORK_CHANGED",
        ];
        let problems = self
            .command(json!({"do": "problems", "page": page.0}))
            .await;
        let mut problems: Vec<String> = serde_json::from_value(problems).expect("they are text");
        problems.retain(|problem| !NO_SERVER.iter().any(|error| problem.contains(error)));
        problems
    }

    /// Waits until the page says that it is in this state.
    pub async fn in_state(&mut self, page: Page, state: &str) {
        let expression = format!("document.documentElement.dataset.state === {state:?}");
        self.until(page, &expression).await;
    }

    /// Waits for so many rows of events, and says what is in them: newest first.
    pub async fn rows(&mut self, page: Page, count: usize) -> Vec<Row> {
        let expression =
            format!("document.querySelectorAll('[data-testid=row]').length === {count}");
        self.until(page, &expression).await;
        let rows = self
            .value(
                page,
                "Array.from(document.querySelectorAll('[data-testid=row]'), row => {
                    const text = what => row.querySelector(what)?.textContent ?? '';
                    return [row.dataset.id, text('.type'), text('.key'), text('[data-testid=payload]')];
                })",
            )
            .await;
        serde_json::from_value(rows).expect("rows of text")
    }

    /// Closes it. Its profile goes with it.
    pub async fn close(self) {
        self.0.ends().await;
    }
}

/// An event as the page shows it: id, type, key, payload.
pub type Row = (String, String, String, String);
