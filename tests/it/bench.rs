//! `wsevent bench`, against hops and against servers of others that lose and repeat on purpose.

use std::net::SocketAddr;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::authority::Authority;
use crate::harness::http::EVENT_STREAM;
use crate::harness::tokens;
use crate::harness::upstream::Upstream;
use crate::harness::within_guard;
use crate::harness::wsevent::{Hop, command, output};
use crate::peers::{Language, Peer};

/// How a bench has ended, and what it has found.
struct Ended {
    code: Option<i32>,
    report: Value,
    errors: String,
}

/// Runs one to its end.
async fn bench(url: &str, args: &[&str]) -> Ended {
    let output = output(&[&["bench", url, "--json"], args].concat(), &[]).await;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    Ended {
        code: output.status.code(),
        report: serde_json::from_slice(&output.stdout).unwrap_or_default(),
        errors,
    }
}

impl Ended {
    /// The one step that there was.
    fn step(&self) -> &Value {
        let steps = self.report["steps"].as_array();
        let steps = steps.unwrap_or_else(|| panic!("no report: {}", self.errors));
        assert_eq!(steps.len(), 1, "{}", self.report);
        &steps[0]
    }

    fn count(&self, name: &str) -> u64 {
        let count = self.step()[name].as_u64();
        count.unwrap_or_else(|| panic!("{name}: {}", self.report))
    }

    /// All that was published has come, once, to so many.
    fn is_whole(&self, connections: u64) {
        assert_eq!(self.code, Some(0), "{}", self.errors);
        assert_eq!(self.report["connections"]["connected"], connections);
        let published = self.count("published");
        assert!(published > 0, "{}", self.report);
        assert_eq!(self.count("delivered"), published * connections);
        assert_eq!((self.count("lost"), self.count("repeated")), (0, 0));
        let latency = &self.step()["latency"];
        assert_eq!(latency["clock"], "marker");
        let figures = ["p50", "p90", "p99", "p99_9", "max"];
        let figures = figures.map(|name| latency[name].as_f64().expect("a figure"));
        assert!(figures.is_sorted() && figures[0] > 0.0, "{figures:?}");
    }
}

const ALL_FAULTS: [&str; 2] = ["--fail-on", "lost,repeated,refused,closed"];
const SHORT: [&str; 4] = ["--duration", "500ms", "--rate", "100"];

#[tokio::test]
async fn every_transport_of_a_hop_brings_all_that_is_published() {
    let hop = Hop::quiet(&["--accept-publish"]).await;
    for (transport, size) in [
        ("ws", "48"),
        ("hop", "5KiB"),
        ("sse", "128"),
        ("ndjson", "70000"),
    ] {
        let own = [
            "--connections",
            "7",
            "--transport",
            transport,
            "--size",
            size,
        ];
        let ended = bench(&hop.url, &[&own[..], &SHORT, &ALL_FAULTS].concat()).await;
        ended.is_whole(7);
        assert_eq!(ended.report["transport"], transport);
        // Other tests may just be starting a child that has the socket.
        let server = &ended.step()["server"];
        assert!(server["rss_peak"].as_u64() > Some(1 << 20), "{server}");
        assert!(server["cpu_seconds"].as_f64() >= Some(0.0), "{server}");
    }
}

#[tokio::test]
async fn a_server_with_tls_and_tokens_is_loaded_as_tail_reads_it() {
    let authority = Authority::new();
    let token = tokens::line("bench", "a-token-of-a-bench", "*", "subscribe,publish");
    authority.write("tokens", &token);
    let file = authority.file("tokens");
    let hop = authority
        .hop(&["--accept-publish", "--auth-token-file", &file])
        .await;
    let port = hop.address.port();
    let trust = authority.trust();
    let mut args = trust.iter().map(String::as_str).collect::<Vec<_>>();
    args.extend(SHORT);
    args.extend(["--connections", "3"]);
    let header = [
        "--consume-header",
        "Authorization: Bearer a-token-of-a-bench",
    ];
    for scheme in ["wss", "https"] {
        let url = format!("{scheme}://localhost:{port}/events");
        bench(&url, &[&args[..], &header].concat())
            .await
            .is_whole(3);
    }
    let url = format!("wss://localhost:{port}/events");
    for (args, said) in [
        (&args[..], "401"),
        (&["--connections", "3"], "--consume-ca"),
    ] {
        let ended = bench(&url, args).await;
        assert_eq!(ended.code, Some(1));
        let reasons = &ended.report["connections"]["refused_reasons"];
        assert_eq!(reasons[0]["count"], 3, "{reasons}");
        assert!(reasons.to_string().contains(said), "{reasons}");
    }
}

#[tokio::test]
async fn what_a_server_of_others_loses_and_repeats_is_counted() {
    let mut room = Peer::start(Language::Python, "careless", &["10", "7"]);
    let url = format!("ws://127.0.0.1:{}/", room.says().await["port"]);
    let ended = bench(
        &url,
        &[&SHORT[..], &ALL_FAULTS, &["--connections", "5"]].concat(),
    )
    .await;
    let published = ended.count("published");
    assert!(published >= 20, "{published}");
    let twice = (1..=published).filter(|seq| seq % 7 == 0 && seq % 10 != 0);
    let (lost, repeated) = (published / 10, twice.count() as u64);
    assert_eq!(ended.count("lost"), lost * 5);
    assert_eq!(ended.count("repeated"), repeated * 5);
    assert_eq!(ended.count("delivered"), (published - lost + repeated) * 5);
    assert_eq!(ended.code, Some(1));
    for fault in ["lost", "repeated"] {
        let line = format!("--fail-on {fault}: there were");
        assert!(ended.errors.contains(&line), "{}", ended.errors);
    }
    // The process was found by its port.
    assert!(
        ended.step()["server"]["name"]
            .as_str()
            .is_some_and(|name| name.starts_with("python"))
    );
}

#[tokio::test]
async fn markers_are_found_in_the_envelope_of_a_server_of_others() {
    let mut room = Peer::start(Language::Node, "room", &[]);
    let at = format!("127.0.0.1:{}/feed", room.says().await["port"]);
    let ws = format!("ws://{at}");
    let ended = bench(
        &ws,
        &[&SHORT[..], &ALL_FAULTS, &["--connections", "4"]].concat(),
    )
    .await;
    ended.is_whole(4);
    // Its body comes in chunks.
    let own = ["--connections", "4", "--publish-url", &ws];
    let ended = bench(
        &format!("http://{at}"),
        &[&SHORT[..], &ALL_FAULTS, &own].concat(),
    )
    .await;
    ended.is_whole(4);
    assert_eq!(ended.report["transport"], "sse");
}

#[tokio::test]
async fn who_is_sent_away_is_counted_with_the_reason() {
    let mut room = Peer::start(Language::Node, "room", &["2"]);
    let url = format!("ws://127.0.0.1:{}/", room.says().await["port"]);
    let ended = bench(
        &url,
        &[&SHORT[..], &["--connections", "5", "--fail-on", "closed"]].concat(),
    )
    .await;
    assert_eq!(ended.code, Some(1));
    let connections = &ended.report["connections"];
    assert_eq!(connections["closed"], 3, "{connections}");
    let reason = connections["closed_reasons"][0]["reason"].as_str();
    assert_eq!(reason, Some("closed by the server with 4000: enough"));
    assert_eq!(ended.step()["connections"], 2);
    assert_eq!(
        ended.count("lost"),
        0,
        "what was not waited for is not lost"
    );
}

#[tokio::test]
async fn who_is_not_let_in_is_counted_with_the_reason() {
    let hop = Hop::start(&["--max-connections", "4"]).await;
    let args = ["--connections", "6", "--duration", "200ms"];
    let ended = bench(&hop.url, &[&args[..], &["--fail-on", "refused"]].concat()).await;
    assert_eq!(ended.code, Some(1));
    let connections = &ended.report["connections"];
    assert_eq!(
        (&connections["connected"], &connections["refused"]),
        (&4.into(), &2.into())
    );
    assert!(
        connections["refused_reasons"].to_string().contains("503"),
        "{connections}"
    );
    hop.logged_times("subscriber disconnected", 4).await;
    let ended = bench(&hop.url, &args).await;
    assert_eq!(ended.code, Some(0), "nobody has called that a failure");

    let away = Upstream::away();
    let ended = bench(&away.url(), &args).await;
    assert_eq!(ended.code, Some(1));
    assert_eq!(ended.report["connections"]["refused"], 6);
    assert_eq!(ended.report["steps"], Value::Array(vec![]));
}

#[tokio::test]
async fn a_stream_that_comes_anyway_is_counted_by_its_ids() {
    let hop = Hop::start(&["--produce-rate", "200"]).await;
    for transport in ["hop", "ndjson", "sse"] {
        let args = [
            "--connections",
            "3",
            "--duration",
            "500ms",
            "--transport",
            transport,
        ];
        let ended = bench(&hop.url, &[&args[..], &ALL_FAULTS].concat()).await;
        assert_eq!(ended.code, Some(0), "{transport}: {}", ended.errors);
        assert!(ended.count("delivered") > 0, "{}", ended.report);
        assert_eq!((ended.count("lost"), ended.count("repeated")), (0, 0));
        let latency = &ended.step()["latency"];
        match transport {
            "sse" => assert_eq!(*latency, Value::Null),
            _ => assert_eq!(latency["clock"], "time"),
        }
    }
    // Payloads alone say nothing.
    let args = ["--connections", "3", "--duration", "300ms"];
    let ended = bench(&hop.url, &[&args[..], &["--fail-on", "lost"]].concat()).await;
    assert_eq!(ended.code, Some(1));
    assert_eq!(ended.step()["lost"], Value::Null);
    assert!(ended.errors.contains("unknown"), "{}", ended.errors);
}

#[tokio::test]
async fn ids_that_are_skipped_are_lost_events() {
    let upstream = Upstream::new();
    let args = ["--connections", "1", "--duration", "1s", "--json"];
    let mut command = command(&[&["bench", &upstream.http_url()], &args[..]].concat());
    let bench = command
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary can be run");
    // That somebody listens is looked at first.
    drop(upstream.accept_socket().await);
    let mut request = upstream.asked().await;
    request.send(EVENT_STREAM).await;
    // What comes before it begins to count is no part of it, so this goes on until it has ended.
    let feeding = async {
        let mut seq = 1_u64;
        loop {
            let block = |seq| format!("id: 0000000000001-{seq}\ndata: x\n\n");
            // Of four numbers one is missing, and one comes twice.
            let blocks = [seq, seq + 1, seq + 1, seq + 3].map(block).concat();
            if request.socket().write_all(blocks.as_bytes()).await.is_err() {
                std::future::pending::<()>().await;
            }
            seq += 4;
            tokio::task::yield_now().await;
        }
    };
    let output = tokio::select! {
        output = within_guard("the end of a bench", bench.wait_with_output()) => output.expect("it runs"),
        () = feeding => unreachable!("it goes on for ever"),
    };
    let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
    let step = &report["steps"][0];
    let count = |name: &str| step[name].as_u64().unwrap_or_else(|| panic!("{report}"));
    let (delivered, lost, repeated) = (count("delivered"), count("lost"), count("repeated"));
    assert!(lost > 0, "{report}");
    // The ends may cut a group of four.
    assert!(
        lost.abs_diff(delivered / 4) <= 2 && repeated.abs_diff(delivered / 4) <= 2,
        "{report}"
    );
}

#[tokio::test]
async fn load_grows_step_by_step_and_is_drawn() {
    let hop = Hop::quiet(&["--accept-publish"]).await;
    let folder = tempfile::tempdir().expect("a folder");
    let plot = folder.path().join("load.svg");
    let plot = plot.to_str().expect("it is text");
    let args = [
        "--ramp",
        "connections:2..6/3",
        "--rate",
        "50",
        "--duration",
        "300ms",
        "--plot",
        plot,
    ];
    let ended = bench(&hop.url, &[&args[..], &ALL_FAULTS].concat()).await;
    assert_eq!(ended.code, Some(0), "{}", ended.errors);
    let steps = ended.report["steps"].as_array().expect("steps");
    let connections: Vec<_> = steps
        .iter()
        .map(|step| step["connections"].as_u64())
        .collect();
    assert_eq!(connections, [Some(2), Some(4), Some(6)]);
    let svg = std::fs::read_to_string(plot).expect("it was drawn");
    for name in ["p50", "p90", "p99", "p99.9", "max"] {
        assert!(svg.contains(&format!(">{name}</text>")), "{name}");
    }
    assert_eq!(svg.matches("<circle").count(), 15);

    let args = [
        "--ramp",
        "rate:20,60",
        "--connections",
        "2",
        "--duration",
        "300ms",
    ];
    let output = output(&[&["bench", &hop.url], &args[..]].concat(), &[]).await;
    let text = String::from_utf8(output.stdout).expect("it is text");
    assert_eq!(
        text.lines().filter(|line| line.starts_with('|')).count(),
        4,
        "{text}"
    );
}

#[tokio::test]
async fn a_signal_ends_it_with_what_there_is() {
    let mut hop = Hop::quiet(&["--accept-publish"]).await;
    let args = [
        "bench",
        &hop.url,
        "--connections",
        "2",
        "--transport",
        "ws",
        "--rate",
        "50",
        "--duration",
        "1h",
        "--json",
    ];
    let bench = command(&args)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary can be run");
    // The third is the publisher, which comes when it begins to measure.
    hop.logged_times("subscriber connected", 3).await;
    let pid = bench
        .id()
        .and_then(|id| Pid::from_raw(id as i32))
        .expect("it runs");
    kill_process(pid, Signal::INT).expect("it is our child");
    let output = within_guard("the end of a bench", bench.wait_with_output())
        .await
        .expect("it runs");
    assert_eq!(output.status.code(), Some(0));
    let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
    assert_eq!(report["interrupted"], true);
    assert_eq!(report["connections"]["connected"], 2);
    assert_eq!(report["steps"][0]["lost"], 0, "{report}");
    hop.signal(Signal::INT);
    hop.stops_well().await;
}

#[tokio::test]
async fn who_cannot_publish_is_told_why() {
    let hop = Hop::start(&[]).await;
    let http = format!("http://{}/events", hop.address);
    for url in [&hop.url, &http] {
        let ended = bench(url, &[&SHORT[..], &["--connections", "1"]].concat()).await;
        assert_eq!(ended.code, Some(1));
        assert!(
            ended.errors.contains("--accept-publish"),
            "{}",
            ended.errors
        );
    }
}

#[tokio::test]
async fn a_foreign_server_is_logged_in_to_and_kept_alive() {
    let upstream = Upstream::new();
    let url = upstream.url();
    let args = [
        "--connections",
        "1",
        "--duration",
        "500ms",
        "--json",
        "--consume-message",
        "who",
    ];
    let talk = [
        "--consume-expect",
        "welcome",
        "--consume-message",
        "feed",
        "--consume-keepalive",
        "alive every 50ms",
    ];
    let bench = command(&[&["bench", &url], &args[..], &talk].concat())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary can be run");
    drop(upstream.accept_socket().await);
    let mut link = upstream.accept().await;
    assert_eq!(link.receive().await, Message::text("who"));
    link.send(Message::text("not yet")).await;
    link.send(Message::text("welcome")).await;
    assert_eq!(link.receive().await, Message::text("feed"));
    assert_eq!(link.receive().await, Message::text("alive"));
    link.send(Message::Ping("x".into())).await;
    while link.receive().await != Message::Pong("x".into()) {}
    drop(link);
    let output = within_guard("the end of a bench", bench.wait_with_output())
        .await
        .expect("it runs");
    let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
    assert_eq!(report["connections"]["connected"], 1, "{report}");
    assert_eq!(report["connections"]["closed"], 1, "{report}");
}

#[tokio::test]
async fn what_does_not_fit_is_said_before_it_begins() {
    let address: SocketAddr = "127.0.0.1:9".parse().expect("an address");
    let url = format!("ws://{address}/");
    for (args, said) in [
        (
            &[url.as_str(), "--connections", "2000000000"][..],
            "open files",
        ),
        (&[&url, "--plot", "/dev/null/load.svg"], "cannot write"),
        (
            &["ws://feed.example/", "--connections", "1000"],
            "--allow-remote",
        ),
        (&["ws://feed.example/", "--rate", "max"], "--allow-remote"),
        (&[&url, "--ramp", "500..100"], "more from step to step"),
        (&[&url, "--size", "128"], "add --rate"),
        (&[&url, "--rate", "1", "--size", "10"], "marker of 48 bytes"),
        (&[&url, "--consume-ignore", "x"], "--consume-ignore"),
        (&[&url, "--transport", "carrier-pigeon"], "--transport"),
    ] {
        let output = output(&[&["bench"], args].concat(), &[]).await;
        let errors = String::from_utf8_lossy(&output.stderr);
        let code = match said {
            "open files" | "cannot write" => 1,
            _ => 2,
        };
        assert_eq!(output.status.code(), Some(code), "{args:?}: {errors}");
        assert!(errors.contains(said), "{args:?}: {errors}");
    }
}
