//! `wsevent publish`.

use std::process::{Output, Stdio};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Child;
use tokio_tungstenite::tungstenite::Message;

use super::{hop, reader};
use crate::harness::port::ReservedPort;
use crate::harness::upstream::Upstream;
use crate::harness::within_guard;
use crate::harness::wsevent::{Hop, command};

/// The URL of the hop's stream, for both transports.
fn urls(hop: &Hop) -> [String; 2] {
    ["http", "ws"].map(|scheme| format!("{scheme}://{}/events", hop.address))
}

fn start(args: &[&str]) -> Child {
    let mut command = command(&[&["publish"], args].concat());
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
        .stderr(Stdio::piped())
        .spawn()
        .expect("it can be run")
}

/// Publishes what is given on standard input, to the end.
async fn publish(args: &[&str], input: &[u8]) -> Output {
    let mut child = start(args);
    let mut stdin = child.stdin.take().expect("it is a pipe");
    // It may end before it has read all.
    let _ = within_guard("writing", stdin.write_all(input)).await;
    drop(stdin);
    let ending = child.wait_with_output();
    within_guard("the end of publish", ending)
        .await
        .expect("it ends")
}

fn succeeded(output: &Output) -> &str {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}");
    assert_eq!(errors, "");
    std::str::from_utf8(&output.stdout).expect("ids are text")
}

/// The one line on standard error of a publish that has failed.
fn failed(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    errors
}

#[tokio::test]
async fn one_event_is_published_over_either_transport() {
    let hop = hop(&[]).await;
    let mut reader = reader(&hop).await;
    let [http, ws] = urls(&hop);
    for (args, input, prints) in [
        (&[&*http, "é ✓\n"][..], "", true),
        (&[&ws, "é ✓\n"], "", false),
        (&[&http, "--transport", "websocket", "é ✓\n"], "", false),
        (&[&ws, "--transport", "http", "é ✓\n"], "", true),
        (&[&http, "--whole"], "é ✓\n", true),
    ] {
        let labels = ["--type", "t t", "--key", "k&="];
        let output = publish(&[args, &labels].concat(), input.as_bytes()).await;
        let event: Value = serde_json::from_str(&reader.line().await).expect("it is JSON");
        assert_eq!(event["data"], "é ✓\n", "{args:?}");
        assert_eq!(event["type"], "t t");
        assert_eq!(event["key"], "k&=");
        let id = event["id"].as_str().expect("an id");
        let expected = if prints {
            format!("{id}\n")
        } else {
            String::new()
        };
        assert_eq!(succeeded(&output), expected);
    }
}

#[tokio::test]
async fn each_line_is_an_event() {
    let hop = hop(&[]).await;
    let mut subscriber = hop.subscribe().await;
    let expected = [
        Message::text("first"),
        Message::text(""),
        Message::text("crlf"),
        Message::binary(&b"\xFF"[..]),
        Message::text("last"),
    ];
    for url in urls(&hop) {
        let output = publish(&[&url], b"first\n\ncrlf\r\n\xFF\nlast").await;
        assert_eq!(succeeded(&output), "");
        assert_eq!(subscriber.messages(5).await, expected, "{url}");
        let output = publish(&[&url], b"").await;
        assert_eq!(succeeded(&output), "");
        let ids = if url.starts_with("http") {
            &["--ids"][..]
        } else {
            &[]
        };
        let output = publish(&[&[&*url, "--binary"], ids].concat(), b"\n").await;
        assert_eq!(succeeded(&output).lines().count(), ids.len());
        assert_eq!(subscriber.message().await, Message::binary(""));
    }
}

#[tokio::test]
async fn a_line_goes_out_when_it_is_there() {
    let hop = hop(&[]).await;
    let mut subscriber = hop.subscribe().await;
    for url in urls(&hop) {
        let mut child = start(&[&url]);
        let mut stdin = child.stdin.take().expect("it is a pipe");
        for number in 0..5 {
            stdin
                .write_all(format!("{number}\n").as_bytes())
                .await
                .expect("it reads");
            assert_eq!(
                subscriber.message().await,
                Message::text(number.to_string())
            );
        }
        drop(stdin);
        let output = within_guard("its end", child.wait_with_output())
            .await
            .expect("it ends");
        succeeded(&output);
    }
}

#[tokio::test]
async fn many_lines_all_arrive_in_order() {
    const COUNT: usize = 20_000;
    let hop = hop(&[]).await;
    let mut subscriber = hop.subscribe().await;
    let lines: String = (0..COUNT).map(|number| format!("{number}\n")).collect();
    for args in [&[][..], &["--rate", "1000000"]] {
        for url in urls(&hop) {
            let output = publish(&[&[&*url], args].concat(), lines.as_bytes()).await;
            assert_eq!(succeeded(&output), "", "no progress bar without a terminal");
            let got = subscriber.messages(COUNT).await;
            let expected = (0..COUNT).map(|number| Message::text(number.to_string()));
            assert!(got.into_iter().eq(expected), "{url}");
        }
    }
}

#[tokio::test]
async fn it_says_what_went_wrong_and_what_to_do() {
    let off = Hop::quiet(&[]).await;
    let small = hop(&["--max-message-size", "10"]).await;
    let away = Upstream::away();
    let away = away.address();
    for scheme in ["http", "ws"] {
        let url = |address, path| format!("{scheme}://{address}/{path}");
        for (url, advice) in [
            (url(off.address, "events"), "--accept-publish"),
            (url(small.address, "events"), "--max-message-size"),
            (url(small.address, "other?secret"), "404"),
            (url(away, "events"), "connection refused"),
        ] {
            for args in [&[&*url, "longer than ten bytes"][..], &[&*url]] {
                let error = failed(&publish(args, b"longer than ten bytes\n").await);
                let count = error.matches(advice).count();
                assert_eq!(count, 1, "{args:?}: {error}");
                assert!(error.contains("://127.0.0.1:"), "{args:?}: {error}");
                assert!(!error.contains("secret"), "{error}");
            }
        }
    }
}

#[tokio::test]
async fn it_fails_when_the_server_is_killed_and_says_how_far_it_got() {
    for index in [0, 1] {
        let mut hop = hop(&[]).await;
        let mut subscriber = hop.subscribe().await;
        let urls = urls(&hop);
        let flags = [&["--ids", "--retry", "100ms"][..], &[]][index];
        let mut child = start(&[&[&*urls[index]], flags].concat());
        let mut stdin = child.stdin.take().expect("it is a pipe");
        stdin.write_all(b"one\n").await.expect("it reads");
        assert_eq!(subscriber.message().await, Message::text("one"));
        if index == 0 {
            // Its answer has come.
            let mut stdout = BufReader::new(child.stdout.as_mut().expect("a pipe")).lines();
            let line = within_guard("an id", stdout.next_line())
                .await
                .expect("text");
            assert!(line.is_some_and(|id| id.ends_with("-1")));
        }
        hop.signal(rustix::process::Signal::KILL);
        hop.exit().await;
        // It may have noticed already.
        let _ = stdin.write_all(b"two\n").await;
        drop(stdin);
        let output = within_guard("its end", child.wait_with_output())
            .await
            .expect("it ends");
        let error = failed(&output);
        assert!(
            index == 1 || error.contains("1 event was accepted"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn over_http_it_goes_on_when_the_server_is_back() {
    let port = ReservedPort::new();
    let address = port.address().to_string();
    let args = ["--serve-address", &address];
    let mut hop = hop(&args).await;
    let mut child = start(&[&urls(&hop)[0], "--ids"]);
    let mut stdin = child.stdin.take().expect("it is a pipe");
    let mut stdout = BufReader::new(child.stdout.take().expect("it is a pipe")).lines();
    for text in ["one", "two"] {
        let mut subscriber = hop.subscribe().await;
        let line = format!("{text}\n");
        stdin.write_all(line.as_bytes()).await.expect("it reads");
        assert_eq!(subscriber.message().await, Message::text(text));
        let id = within_guard("an id", stdout.next_line()).await;
        let number = if text == "one" { "-1" } else { "-2" };
        assert!(id.expect("text").is_some_and(|id| id.ends_with(number)));
        if text == "one" {
            hop.signal(rustix::process::Signal::KILL);
            hop.exit().await;
            // This one finds nobody for a while.
            stdin.write_all(b"lost\n").await.expect("it reads");
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            hop = self::hop(&args).await;
            let id = within_guard("an id", stdout.next_line()).await;
            assert!(id.expect("text").is_some_and(|id| id.ends_with("-1")));
        }
    }
    drop(stdin);
    let ending = within_guard("its end", child.wait()).await;
    assert!(ending.expect("it is our child").success());
}

#[tokio::test]
async fn a_request_whose_answer_was_lost_is_sent_again_by_the_same_name() {
    let server = Upstream::new();
    let url = format!("http://{}/events", server.address());
    let child = start(&[&url, "an event"]);
    let mut names = vec![];
    for answer in [
        "",
        "HTTP/1.1 202 Accepted\r\ncontent-length: 13\r\n\r\n{\"ids\":[\"x\"]}",
    ] {
        let mut socket = BufReader::new(server.accept_socket().await);
        let mut name = String::new();
        loop {
            let mut line = String::new();
            within_guard("a request", socket.read_line(&mut line))
                .await
                .expect("text");
            if line.starts_with("ce-") {
                name += &line;
            }
            if line == "\r\n" {
                break;
            }
        }
        names.push(name);
        socket.write_all(answer.as_bytes()).await.expect("it reads");
    }
    let output = within_guard("its end", child.wait_with_output())
        .await
        .expect("it ends");
    assert_eq!(succeeded(&output), "x\n");
    assert!(
        names[0].contains("ce-id: ") && names[0].contains("ce-source: "),
        "{names:?}"
    );
    assert_eq!(names[0], names[1]);
}

#[tokio::test]
async fn headers_go_with_every_request_and_messages_do_not() {
    let hop = hop(&[]).await;
    for url in urls(&hop) {
        let message = ["--consume-message", "hello"];
        let output = publish(&[&[&*url, "x"], &message[..]].concat(), b"").await;
        assert_eq!(output.status.code(), Some(2));
        let header = ["--consume-header", "Origin: https://other.example"];
        let error = failed(&publish(&[&[&*url, "x"], &header[..]].concat(), b"").await);
        assert!(error.contains("403") || error.contains("1008"), "{error}");
        assert!(
            error.contains("start wsevent with --allow-origin"),
            "{error}"
        );
    }
}
