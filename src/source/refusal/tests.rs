use http_body_util::Full;
use hyper::header::HeaderName;

use super::*;
use crate::source::secret::Secret;
use crate::source::websocket::login::Talk;

mod verdicts;

fn upstream() -> Upstream {
    let key = HeaderName::from_static("x-key");
    let secret = Secret::parse("Bearer b3arer").expect("a text");
    to("ws://me:pa%35word@host/x?key=t0ken+s", vec![(key, secret)])
}

fn to(url: &str, headers: Vec<(HeaderName, Secret)>) -> Upstream {
    Upstream {
        url: url.parse().expect("a URL"),
        address: None,
        is_peer: false,
        within: None,
        variables: vec!["v4riable".into()],
        headers,
        talk: Talk::default(),
        compress: false,
        tls: None,
        max_message_size: 1_000,
        ping_interval: Duration::from_secs(30),
    }
}

async fn said(status: u16, content_type: &str, body: &str) -> String {
    let response = Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, content_type)
        .body(Full::new(Bytes::from(body.to_owned())))
        .expect("a response");
    Refused::read(&upstream(), response).await.to_string()
}

#[tokio::test]
async fn one_line_of_plain_text_is_repeated() {
    const BARE: &str = "the upstream answered 404 Not Found";
    let plain = "Text/Plain; charset=utf-8";
    for (content_type, body, expected) in [
        (plain, "no such stream\nat all\n", ": no such stream"),
        (plain, "", ""),
        (plain, "\u{1b}[31mred", ": \\u{1b}[31mred"),
        ("text/html", "<h1>no</h1>", ""),
        ("application/json", "{}", ""),
    ] {
        let said = said(404, content_type, body).await;
        assert_eq!(said, format!("{BARE}{expected}"), "{body:?}");
    }
    let long = said(500, plain, &"é".repeat(1_000)).await;
    assert!(long.ends_with("é...") && long.len() < 300, "{long}");
    let other = said(302, plain, "over there").await;
    assert_eq!(other, "the upstream answered 302 Found");
}

#[tokio::test]
async fn what_only_the_upstream_was_told_is_not_repeated() {
    for secret in [
        "b3arer",
        "pa5word",
        "pa%35word",
        "t0ken s",
        "key=t0ken+s",
        "v4riable",
    ] {
        let said = said(401, "text/plain", &format!("I do not know '{secret}'")).await;
        assert_eq!(said, "the upstream answered 401 Unauthorized");
    }
}
