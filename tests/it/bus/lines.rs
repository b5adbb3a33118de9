//! Standard input and output: pipes, files, their ends.

use std::process::Stdio;

use rustix::process::Signal;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::harness::http::Ndjson;
use crate::harness::log::Log;
use crate::harness::within_guard;
use crate::harness::wsevent::{Hop, command};

/// A hop in a pipeline, and what it says on standard error.
struct Piped {
    child: Child,
    log: Log,
}

impl Piped {
    fn start(args: &[&str], stdin: Stdio, stdout: Stdio) -> Self {
        let own = ["--serve-address", "127.0.0.1:0", "--log-format", "json"];
        let mut command = command(&[&own[..], args].concat());
        command.stdin(stdin).stdout(stdout).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it can be run");
        let stderr = child.stderr.take().expect("it is a pipe");
        let stderr = stderr.into_owned_fd().expect("it is a file");
        Self {
            child,
            log: Log::read(std::fs::File::from(stderr)),
        }
    }

    async fn logged(&self, message: &str) -> crate::harness::log::Line {
        self.log.wait(message, 1, |_| true).await
    }

    async fn address(&self) -> std::net::SocketAddr {
        let line = self.logged("listening").await;
        line.field("address").parse().expect("an address")
    }

    async fn reader(&self, target: &str) -> Ndjson {
        Ndjson::to(self.address().await, target).await
    }

    fn stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().expect("it is a pipe")
    }

    fn stdout(&mut self) -> tokio::io::Lines<BufReader<ChildStdout>> {
        let stdout = self.child.stdout.take().expect("it is a pipe");
        BufReader::new(stdout).lines()
    }

    async fn stops(mut self) {
        let id = self.child.id().expect("it runs");
        let pid = rustix::process::Pid::from_raw(id as i32).expect("it is above 0");
        rustix::process::kill_process(pid, Signal::TERM).expect("it is our child");
        let status = within_guard("the end", self.child.wait())
            .await
            .expect("it ends");
        assert_eq!(status.code(), Some(0));
    }
}

#[tokio::test]
async fn each_line_of_standard_input_is_an_event_and_the_hop_outlives_its_end() {
    let args = ["--consume", "-", "--max-message-size", "16KiB"];
    let mut hop = Piped::start(&args, Stdio::piped(), Stdio::null());
    let mut stdin = hop.stdin();
    let mut reader = hop.reader("/events").await;
    let long = "l".repeat(16 << 10);
    let longer = "m".repeat((16 << 10) + 1);
    let longest = "n".repeat(1 << 20);
    let input = format!("one\n\ntwo\r\n{long}\n{longer}\n{longest}\nthree\n");
    let writing = async {
        stdin.write_all(input.as_bytes()).await.expect("it reads");
        stdin.write_all(b"\xff\nlast").await.expect("it reads");
        drop(stdin);
    };
    let reading = async {
        for expected in ["one", "", "two", &long] {
            assert_eq!(reader.next().await["data"], expected);
        }
        assert_eq!(reader.next().await["gap"]["lost"], 2);
        assert_eq!(reader.next().await["data"], "three");
        assert_eq!(reader.next().await["data_base64"], "/w==");
        assert_eq!(reader.next().await["data"], "last");
    };
    tokio::join!(writing, reading);
    let refused = hop.logged("event not taken").await;
    assert!(refused.field("reason").contains("--max-message-size"));
    hop.logged("upstream has ended: end of input").await;
    // What it has, it serves on.
    let mut late = hop.reader("/events?history=1").await;
    assert_eq!(late.next().await["data"], "last");
    hop.stops().await;
}

#[tokio::test]
async fn events_are_lines_on_standard_output_and_the_log_is_not() {
    let args = ["--accept-publish", "--forward", "-"];
    let mut hop = Piped::start(&args, Stdio::null(), Stdio::piped());
    let mut lines = hop.stdout();
    let mut client = crate::harness::client::Client::connect(hop.address().await)
        .await
        .upgraded("/events?key=k")
        .await;
    hop.logged("downstream connected").await;
    client.send_frame(1, b"plain").await;
    client.send_frame(1, b"two\nlines").await;
    client.send_frame(2, b"\x00").await;
    client.send_frame(1, b"").await;
    let mut line = async || {
        let line = within_guard("a line", lines.next_line()).await;
        line.expect("text").expect("a line")
    };
    assert_eq!(line().await, "plain");
    for expected in [
        json!({"data": "two\nlines"}),
        json!({"data_base64": "AA=="}),
    ] {
        let mut event: serde_json::Value = serde_json::from_str(&line().await).expect("JSON");
        assert_eq!(event["key"], "k");
        let event = event.as_object_mut().expect("an object");
        event.retain(|name, _| name.starts_with("data"));
        assert_eq!(json!(event), expected);
    }
    assert_eq!(line().await, "");
    hop.stops().await;
}

#[tokio::test]
async fn hops_in_a_pipeline_know_their_events_again() {
    let args = [
        "--consume",
        "-",
        "--forward",
        "-",
        "--bus-envelope",
        "always",
    ];
    let mut first = Piped::start(&args, Stdio::piped(), Stdio::piped());
    let pipe: Stdio = first
        .child
        .stdout
        .take()
        .expect("a pipe")
        .try_into()
        .expect("a file");
    let second = Piped::start(&["--consume", "-"], pipe, Stdio::null());
    let (mut one, mut two) = (
        first.reader("/events").await,
        second.reader("/events").await,
    );
    let mut stdin = first.stdin();
    for text in ["a", "b"] {
        stdin
            .write_all(format!("{text}\n").as_bytes())
            .await
            .expect("it reads");
        let event = one.next().await;
        assert_eq!(event["data"], text);
        assert_eq!(two.next().await, event);
    }
}

#[tokio::test]
async fn when_nobody_reads_any_more_that_is_said_once_and_the_hop_serves_on() {
    let args = ["--forward", "-", "--produce-rate", "1000"];
    let mut hop = Piped::start(&args, Stdio::null(), Stdio::piped());
    let pipe: Stdio = hop
        .child
        .stdout
        .take()
        .expect("a pipe")
        .try_into()
        .expect("a file");
    let head = Command::new("head")
        .arg("-1")
        .stdin(pipe)
        .kill_on_drop(true)
        .output();
    let head = within_guard("the end of head", head)
        .await
        .expect("it runs");
    assert!(head.stdout.ends_with(b"\n"));
    hop.logged("downstream has ended: nobody reads standard output any more")
        .await;
    let mut reader = hop.reader("/events").await;
    reader.next().await;
    assert_eq!(hop.log.all("downstream lost").len(), 0);
    assert_eq!(hop.log.all("downstream connected").len(), 1);
    hop.stops().await;
}

#[tokio::test]
async fn that_nobody_reads_is_noticed_without_an_event() {
    let args = ["--accept-publish", "--forward", "-"];
    let mut hop = Piped::start(&args, Stdio::null(), Stdio::piped());
    hop.logged("downstream connected").await;
    drop(hop.child.stdout.take());
    hop.logged("downstream has ended: nobody reads standard output any more")
        .await;
    hop.stops().await;
}

#[tokio::test]
async fn there_is_one_standard_input_for_one_stream() {
    for args in [
        &["--consume", "-", "--consume", "-"][..],
        &["--forward", "-", "--forward", "-", "--produce"],
        &["--consume", "-", "--serve-path", "/live/*"],
    ] {
        let output = crate::harness::wsevent::output(args, &[]).await;
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains("is for one stream, and once"), "{error}");
    }
    // What is at its end at once is no error.
    let hop = Hop::start(&["--consume", "-"]).await;
    hop.logged("upstream has ended: end of input").await;
}
