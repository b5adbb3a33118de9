//! An upstream that answers, but not with what it was asked for.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Body;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Response, StatusCode};
use tokio::time::timeout;

use super::upstream::Upstream;

/// The most that is repeated of what an upstream says, in bytes.
const MAX_SAID: usize = 200;
/// How long it may take to say it.
const PATIENCE: Duration = Duration::from_secs(1);
/// What is shorter stands in many texts by chance.
const SHORTEST_SECRET: usize = 4;

/// The answer of an upstream that refuses.
#[derive(Debug)]
pub struct Refused {
    /// Its status.
    pub status: StatusCode,
    /// What it says to a person, in one line; empty if that is nothing.
    said: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the upstream answered {}", self.status)?;
        match self.said.is_empty() {
            true => Ok(()),
            false => write!(f, ": {}", self.said),
        }
    }
}

impl std::error::Error for Refused {}

impl Refused {
    /// Reads on, for a while, if the answer of `upstream` is an error with a reason in plain text.
    pub async fn read<B>(upstream: &Upstream, response: Response<B>) -> Self
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let status = response.status();
        let is_error = status.is_client_error() || status.is_server_error();
        let mut said = Vec::new();
        if is_error && is_plain_text(response.headers()) {
            // What has come by then is better than nothing.
            let _ = timeout(PATIENCE, first_bytes(response.into_body(), &mut said)).await;
        }
        Self {
            status,
            said: line(&said)
                .filter(|line| !repeats_a_secret(upstream, line))
                .unwrap_or_default(),
        }
    }
}

fn is_plain_text(headers: &HeaderMap) -> bool {
    let text = headers
        .get(header::CONTENT_TYPE)
        .map_or(&b""[..], HeaderValue::as_bytes);
    let essence = text.split(|&byte| byte == b';').next().unwrap_or_default();
    let is_plain = essence.trim_ascii().eq_ignore_ascii_case(b"text/plain");
    is_plain && !headers.contains_key(header::CONTENT_ENCODING)
}

async fn first_bytes<B: Body<Data = Bytes> + Unpin>(mut body: B, said: &mut Vec<u8>) {
    while said.len() <= MAX_SAID {
        let Some(Ok(frame)) = body.frame().await else {
            return;
        };
        if let Some(data) = frame.data_ref() {
            said.extend_from_slice(&data[..data.len().min(MAX_SAID + 1)]);
        }
    }
}

/// The first line, cut off where it gets long. It goes into a log and to a terminal, so nothing in it may steer those.
fn line(said: &[u8]) -> Option<String> {
    let said = String::from_utf8_lossy(said);
    let line = said.trim_start().lines().next()?.trim_end();
    let cut = line.floor_char_boundary(MAX_SAID);
    let dots = if cut < line.len() { "..." } else { "" };
    Some(format!("{}{dots}", line[..cut].escape_debug()))
}

/// Whether the upstream says to everyone who reads the log what only it was told.
fn repeats_a_secret(upstream: &Upstream, line: &str) -> bool {
    let mut secrets: Vec<String> = Vec::new();
    for value in upstream.headers.values() {
        let value = String::from_utf8_lossy(value.as_bytes());
        secrets.extend(value.split_whitespace().map(str::to_owned));
    }
    let url = &upstream.url;
    for part in [url.username(), url.password().unwrap_or_default()] {
        secrets.push(part.to_owned());
        let decoded = percent_encoding::percent_decode_str(part);
        secrets.push(decoded.decode_utf8_lossy().into_owned());
    }
    secrets.extend(url.query().map(str::to_owned));
    secrets.extend(url.query_pairs().map(|(_, value)| value.into_owned()));
    secrets
        .iter()
        .any(|secret| secret.len() >= SHORTEST_SECRET && line.contains(secret))
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    fn upstream() -> Upstream {
        let mut headers = HeaderMap::new();
        headers.insert("x-key", HeaderValue::from_static("Bearer b3arer"));
        Upstream {
            url: "ws://me:pa%35word@host/x?key=t0ken+s"
                .parse()
                .expect("a URL"),
            headers,
            messages: Vec::new(),
            tls: None,
            max_message_size: 0,
            ping_interval: Duration::ZERO,
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
        for secret in ["b3arer", "pa5word", "pa%35word", "t0ken s", "key=t0ken+s"] {
            let said = said(401, "text/plain", &format!("I do not know '{secret}'")).await;
            assert_eq!(said, "the upstream answered 401 Unauthorized");
        }
    }
}
