//! Pages of another server, and what they may do here (RFC 6454, WHATWG Fetch).

use serde_json::{Value, json};
use tempfile::TempDir;

use super::driver::{Browser, Page};
use crate::harness::tokens::{SECRET, jwt, line, now};
use crate::harness::upstream::Upstream;
use crate::harness::wsevent::Hop;

/// Another server, which has one page.
struct Foreign {
    /// As its pages say it.
    origin: String,
    /// The same server under another name, so another origin.
    other: String,
}

impl Foreign {
    fn start() -> Self {
        let server = Upstream::new();
        let port = server.address().port();
        tokio::spawn(async move {
            loop {
                let asked = server.asked().await;
                let page = "<!doctype html><title>foreign</title><link rel=icon href=data:,>";
                let length = page.len();
                asked
                    .answer(format!(
                        "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {length}\r\n\r\n{page}"
                    ))
                    .await;
            }
        });
        Self {
            origin: format!("http://127.0.0.1:{port}"),
            other: format!("http://localhost:{port}"),
        }
    }
}

/// What the page has to try things with. Each says how it ended; what gets events begins with one that it has published itself.
const TOOLS: &str = "(() => {
    window.socket = (url, protocols = []) => new Promise(resolve => {
        const socket = new WebSocket(url, protocols), got = [];
        socket.onmessage = event => { got.push(event.data); socket.got?.(); };
        socket.onopen = () => resolve({ socket, got, protocol: socket.protocol });
        socket.onclose = event => resolve({ refused: event.code });
    });
    window.source = (url, withCredentials = false) => new Promise(resolve => {
        const source = new EventSource(url, { withCredentials });
        source.onopen = () => resolve({ source });
        source.onerror = () => resolve({ refused: source.readyState === EventSource.CLOSED });
    });
    window.ask = (url, init = {}) => fetch(url, init).then(
        async response => ({ status: response.status, resumed: response.headers.get('wsevent-resumed') }),
        error => ({ refused: error.name }));
    window.post = (url, type, init = {}) => fetch(url, { method: 'POST', body: '{\"n\":1}', headers: { 'Content-Type': type }, ...init }).then(
        async response => ({ status: response.status, ids: (await response.json()).ids?.length }),
        error => ({ refused: error.name }));
})()";

/// Opens the page of an origin, with its tools.
async fn open(browser: &mut Browser, origin: &str) -> Page {
    let page = browser.open(origin).await;
    browser.value(page, TOOLS).await;
    page
}

fn urls(hop: &Hop, path: &str) -> [String; 2] {
    ["ws", "http"].map(|scheme| format!("{scheme}://{}{path}", hop.address))
}

/// Everything that a page could do without credentials: WebSocket, EventSource, fetch, and POST without and with a question before.
async fn everything(browser: &mut Browser, page: Page, [ws, http]: &[String; 2]) -> Value {
    let expression = format!(
        "(async () => {{
            const {{ refused: socket = 'open' }} = await window.socket({ws:?});
            const {{ refused: source = 'open' }} = await window.source({http:?});
            return {{ socket, source,
                ask: await ask({http:?}, {{ method: 'HEAD', headers: {{ Accept: 'application/x-ndjson' }} }}),
                list: await ask(new URL('/', {http:?})),
                plain: await post({http:?}, 'text/plain'),
                json: await post({http:?}, 'application/json') }};
        }})()"
    );
    browser.value(page, &expression).await
}

#[tokio::test]
async fn a_page_of_another_origin_is_refused_and_one_that_is_named_is_let_in() {
    let foreign = Foreign::start();
    let mut browser = Browser::start().await;
    let strict = Hop::start(&["--accept-publish"]).await;
    let allowing = Hop::start(&["--accept-publish", "--allow-origin", &foreign.origin]).await;
    let page = open(&mut browser, &foreign.origin).await;
    let other = open(&mut browser, &foreign.other).await;
    let refused = json!({
        "socket": 1006, "source": true,
        "ask": {"refused": "TypeError"}, "list": {"refused": "TypeError"},
        "plain": {"refused": "TypeError"}, "json": {"refused": "TypeError"},
    });
    for (page, hop) in [(page, &strict), (other, &strict), (other, &allowing)] {
        let urls = urls(hop, "/events");
        assert_eq!(everything(&mut browser, page, &urls).await, refused);
        // Nor has anything of it happened: a page can send a POST of plain text without a question.
        let stream = &hop.index().await["streams"][0];
        assert_eq!(
            (&stream["events"], hop.count("subscriber connected")),
            (&json!(0), 0)
        );
    }
    let urls = urls(&allowing, "/events");
    let published = json!({"status": 202, "ids": 1});
    let expected = json!({
        "socket": "open", "source": "open",
        "ask": {"status": 200, "resumed": "no"}, "list": {"status": 200, "resumed": null},
        "plain": published, "json": published,
    });
    assert_eq!(everything(&mut browser, page, &urls).await, expected);
    assert_eq!(allowing.index().await["streams"][0]["events"], 2);
    let said = strict.log.to_string() + &allowing.log.to_string();
    assert!(!said.contains("panicked"), "{said}");
    browser.close().await;
}

/// A hop with topics that tokens open, for pages of this origin.
async fn guarded(origin: &str) -> (Hop, TempDir) {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let file = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).expect("the folder is ours");
        path.to_str().expect("it is text").to_owned()
    };
    let lines = line(
        "reader",
        "reads-and-writes",
        "/topics/*",
        "subscribe,publish",
    ) + &line("other", "of-another", "/topics/other", "subscribe,publish");
    let (tokens, key) = (file("tokens", lines.as_bytes()), file("key", SECRET));
    let args = [
        "--serve-path",
        "/topics/*",
        "--accept-publish",
        "--auth-token-file",
        &tokens,
        "--jwt-keys",
        &key,
        "--allow-origin",
        origin,
    ];
    let hop = Hop::start(&args).await;
    (hop, folder)
}

/// A browser keeps cookies by host, not by port: so this page could have any hop of this machine asked with them.
#[tokio::test]
async fn a_page_brings_cookies_along_only_where_its_origin_is_listed_by_name() {
    let foreign = Foreign::start();
    let mut browser = Browser::start().await;
    let page = open(&mut browser, &foreign.origin).await;
    let set = "document.cookie = 'access_token=reads-and-writes; path=/; SameSite=Strict'";
    browser.value(page, set).await;
    let with_cookie = |[ws, http]: [String; 2]| {
        format!(
            "(async () => {{
                const {{ refused: socket = 'open' }} = await window.socket({ws:?});
                const {{ refused: source = 'open' }} = await window.source({http:?}, true);
                return {{ socket, source,
                    ask: await ask({http:?}, {{ method: 'HEAD', credentials: 'include' }}),
                    post: await post({http:?}, 'application/json', {{ credentials: 'include' }}) }};
            }})()"
        )
    };
    let (named, _files) = guarded(&foreign.origin).await;
    let expression = with_cookie(urls(&named, "/topics/a"));
    let expected = json!({
        "socket": "open", "source": "open",
        "ask": {"status": 200, "resumed": "no"}, "post": {"status": 202, "ids": 1},
    });
    assert_eq!(browser.value(page, &expression).await, expected);

    let (all, _files) = guarded("*").await;
    let expression = with_cookie(urls(&all, "/topics/a"));
    let expected = json!({
        "socket": 1006, "source": true,
        "ask": {"refused": "TypeError"}, "post": {"refused": "TypeError"},
    });
    assert_eq!(browser.value(page, &expression).await, expected);
    assert_eq!(all.count("stream opened"), 0, "{}", all.log);
    // A token that the page has itself it may use.
    let [_, http] = urls(&all, "/topics/a");
    let own = format!(
        "post({http:?}, 'application/json', {{ headers: {{ Authorization: 'Bearer reads-and-writes', 'Content-Type': 'application/json' }} }})"
    );
    assert_eq!(
        browser.value(page, &own).await,
        json!({"status": 202, "ids": 1})
    );
    let source = format!(
        "source({http:?} + '?access_token=reads-and-writes').then(it => it.refused ?? 'open')"
    );
    assert_eq!(browser.value(page, &source).await, "open");
    browser.close().await;
}

#[tokio::test]
async fn a_token_as_a_subprotocol_opens_a_websocket_for_its_time() {
    let foreign = Foreign::start();
    let mut browser = Browser::start().await;
    let page = open(&mut browser, &foreign.origin).await;
    let (hop, _files) = guarded("*").await;
    let [ws, http] = urls(&hop, "/topics/a");
    // Within the leeway of ten seconds, and not for long.
    let late = || jwt(&json!({"exp": now() - 7, "wsevent.subscribe": ["/topics/a"]}));
    let mut expired = String::new();
    for is_late in [false, true] {
        let token = match is_late {
            true => late(),
            false => "reads-and-writes".to_owned(),
        };
        let protocol = format!("bearer.{token}");
        let opening =
            format!("socket({ws:?}, [{protocol:?}]).then(it => (window.it = it).protocol ?? it)");
        assert_eq!(browser.value(page, &opening).await, protocol);
        let publishing =
            format!("post({http:?} + '?access_token=reads-and-writes', 'application/json')");
        let published = browser.value(page, &publishing).await;
        assert_eq!(published, json!({"status": 202, "ids": 1}));
        let got = browser.until(page, "it.got.length && it.got").await;
        assert_eq!(got, json!([r#"{"n":1}"#]));
        if is_late {
            let close = "new Promise(close => it.socket.onclose = event => close([event.code, event.wasClean]))";
            assert_eq!(browser.value(page, close).await, json!([4401, true]));
            expired = token;
        }
    }
    for token in ["nobodys", "of-another", &expired] {
        let opening = format!("socket({ws:?}, ['bearer.{token}']).then(it => it.refused)");
        // What the reason is, browsers keep to themselves.
        assert_eq!(browser.value(page, &opening).await, 1006, "{token}");
    }
    browser.close().await;
}
