//! `wsevent record` and `wsevent replay`, and recordings as a source.

use std::fs;
use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::client::Client;
use crate::harness::events::{all_sorts, assert_same};
use crate::harness::http::Ndjson;
use crate::harness::upstream::Upstream;
use crate::harness::wsevent::{Hop, Process, command, output};
use crate::mesh::{from, publish};
use crate::publish::{ask, post};

/// A folder for recordings.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder for the test"))
    }

    fn file(&self, name: &str) -> String {
        let path = self.0.path().join(name);
        path.to_str().expect("it is plain").to_owned()
    }
}

fn recorder(url: &str, file: &str, args: &[&str]) -> Process {
    let own = ["record", url, file, "--log-format", "json"];
    Process::spawn(command(&[&own[..], args].concat()))
}

/// Records to its end, which must be a good one.
async fn record(url: &str, file: &str, args: &[&str]) -> Process {
    let mut process = recorder(url, file, args);
    assert_eq!(process.exit().await.code(), Some(0));
    process
}

async fn replay(file: &str, args: &[&str]) -> Hop {
    Hop::start(&[&["replay", file], args].concat()).await
}

fn http(hop: &Hop) -> String {
    hop.url.replace("ws://", "http://")
}

/// The next objects of a stream, from the first that is held.
async fn objects(hop: &Hop, count: usize) -> Vec<Value> {
    let mut reader = Ndjson::at(hop, "/events?history=all").await;
    let mut objects = Vec::new();
    while objects.len() < count {
        objects.push(reader.next().await);
    }
    objects
}

/// A hop with events of all sorts: with types and keys, text and binary.
async fn eventful() -> (Hop, usize) {
    let hop = Hop::start(&["--accept-publish"]).await;
    let mut client = Client::connect(hop.address).await;
    let lines = [
        json!({"data": "plain"}),
        json!({"data": "two\nlines\r\n", "type": "trade", "key": "BTC EUR"}),
        json!({"data_base64": "AP/+", "key": "é ✓"}),
        json!({"data": "", "key": "BTC EUR"}),
        json!({"data_base64": "", "type": "empty"}),
    ];
    let body = lines.each_ref().map(Value::to_string).join("\n");
    let headers = [("Content-Type", "application/x-ndjson")];
    let published = post("/events", &headers, body.as_bytes());
    assert_eq!(ask(&mut client, published).await.0, 202);
    let large = post("/events", &[], &vec![0xfe; 500_000]);
    assert_eq!(ask(&mut client, large).await.0, 202);
    (hop, lines.len() + 1)
}

/// Without what a log gives an event.
fn contents(mut objects: Vec<Value>) -> Vec<Value> {
    for object in &mut objects {
        let object = object.as_object_mut().expect("an object");
        object.remove("id").expect("it has one");
        object.remove("time").expect("it has one");
    }
    objects
}

#[tokio::test]
async fn what_is_replayed_is_what_was_recorded() {
    let (hop, count) = eventful().await;
    let original = objects(&hop, count).await;
    for (name, url) in [("ws.rec", hop.url.clone()), ("http.rec", http(&hop))] {
        let folder = Folder::new();
        let file = folder.file(name);
        let number = count.to_string();
        record(&url, &file, &["--history", "all", "--count", &number]).await;
        let same = replay(&file, &["--keep-ids", "--speed", "max"]).await;
        same.logged("upstream has ended: end of the recording")
            .await;
        assert_eq!(objects(&same, count).await, original, "{name}");
        let anew = replay(&file, &["--speed", "1000x"]).await;
        anew.logged("upstream has ended: end of the recording")
            .await;
        let replayed = objects(&anew, count).await;
        for (at, object) in replayed.iter().enumerate() {
            assert_eq!(object["id"], anew.id(at as u64 + 1).await, "{name}");
        }
        assert_eq!(contents(replayed), contents(original.clone()), "{name}");
    }
}

#[tokio::test]
async fn a_foreign_stream_is_recorded_as_it_comes() {
    let folder = Folder::new();
    let file = folder.file("a.rec");
    let upstream = Upstream::new();
    let sent = all_sorts();
    let count = sent.len().to_string();
    let mut recorder = recorder(&upstream.url(), &file, &["--count", &count]);
    let mut link = upstream.accept().await;
    link.send_all(&sent).await;
    assert_eq!(recorder.exit().await.code(), Some(0));
    let hop = Hop::start(&["--consume", &format!("file://{file}?speed=max")]).await;
    hop.logged("upstream has ended: end of the recording").await;
    let mut subscriber = Client::connect(hop.address)
        .await
        .upgraded("/events?history=all")
        .await;
    assert_same(&subscriber.messages(sent.len()).await, &sent);
}

#[tokio::test]
async fn events_come_in_their_order_and_with_their_pauses() {
    // Written by hand, so that the pauses are known: the last comes an hour later.
    let folder = Folder::new();
    let file = folder.file("day.ndjson");
    let line = |seq: u64, time: &str| {
        format!(
            "{{\"id\":\"0000000000001-{seq}\",\"time\":\"2026-01-01T{time}Z\",\"data\":\"{seq}\"}}\n"
        )
    };
    let lines = [
        line(1, "00:00:00"),
        line(2, "00:00:00.010"),
        line(3, "00:00:00.005"),
        line(4, "01:00:00"),
    ];
    fs::write(&file, lines.concat()).expect("it can be written");
    let hop = replay(&file, &[]).await;
    let mut reader = Ndjson::at(&hop, "/events?history=all").await;
    for expected in ["1", "2", "3"] {
        assert_eq!(reader.next().await["data"], expected);
    }
    assert_eq!(hop.index().await["streams"][0]["events"], 3);
    assert_eq!(hop.count("upstream has ended: end of the recording"), 0);
    let fast = replay(&file, &["--speed", "1000000x"]).await;
    fast.logged("upstream has ended: end of the recording")
        .await;
}

#[tokio::test]
async fn a_recording_is_gone_on_with_where_it_ends() {
    let folder = Folder::new();
    let file = folder.file("a.rec");
    let hop = Hop::start(&["--accept-publish"]).await;
    publish(&hop, &from("a", 3)).await;
    record(&hop.url, &file, &["--history", "all", "--count", "2"]).await;
    // As a crash leaves it: the second is torn.
    let bytes = fs::read(&file).expect("it is there");
    fs::write(&file, &bytes[..bytes.len() - 1]).expect("it can be written");
    let own = record(&hop.url, &file, &["--count", "1"]).await;
    let cut = own.log.to_string();
    assert!(
        cut.contains("cut away at its end what was damaged at byte"),
        "{cut}"
    );
    record(&http(&hop), &file, &["--count", "1"]).await;
    let original = objects(&hop, 3).await;
    let same = replay(&file, &["--keep-ids", "--speed", "max"]).await;
    same.logged("upstream has ended: end of the recording")
        .await;
    assert_eq!(objects(&same, 3).await, original);
    let checked = output(&["replay", &file, "--check"], &[]).await;
    let text = String::from_utf8(checked.stdout).expect("text");
    assert_eq!(checked.status.code(), Some(0), "{text}");
    for line in [
        "events: 3\n",
        "payload bytes: 9\n",
        "gaps: 0\n",
        "damage: none\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
    for (name, object) in [("first", &original[0]), ("last", &original[2])] {
        let (id, time) = (&object["id"], &object["time"]);
        let line = format!("{name}: {id}, {time}\n").replace('"', "");
        assert!(text.contains(&line), "{text} has no {line}");
    }
}

#[tokio::test]
async fn it_stops_when_it_is_told_to_with_all_that_came() {
    for signal in [Signal::INT, Signal::TERM] {
        let folder = Folder::new();
        let file = folder.file("a.rec");
        let upstream = Upstream::new();
        let mut process = recorder(&upstream.url(), &file, &["--sync-after", "0s"]);
        let mut link = upstream.accept().await;
        link.send(Message::text("an event")).await;
        process.logged("recording").await;
        // It is with the system as soon as it has come.
        until(&file, |events| events == 1).await;
        process.signal(signal);
        assert_eq!(process.exit().await.code(), Some(0));
        let recorded = process.logged("recorded").await;
        assert_eq!(recorded.number("events"), 1);
    }
    let folder = Folder::new();
    let hop = Hop::quiet(&[]).await;
    record(&hop.url, &folder.file("b.rec"), &["--duration", "50ms"]).await;
}

/// Waits until a file that is being written has so many events.
async fn until(file: &str, wanted: impl Fn(u64) -> bool) {
    let looking = async {
        loop {
            let checked = output(&["replay", file, "--check"], &[]).await;
            let text = String::from_utf8(checked.stdout).expect("text");
            let events = text
                .lines()
                .next()
                .and_then(|line| line.strip_prefix("events: "));
            if events
                .and_then(|events| events.parse().ok())
                .is_some_and(&wanted)
            {
                return;
            }
        }
    };
    crate::harness::within_guard("events in the file", looking).await;
}

#[tokio::test]
async fn what_is_missing_is_recorded_and_replayed() {
    let folder = Folder::new();
    let file = folder.file("a.rec");
    // A foreign server that goes away: nobody knows what it has sent meanwhile.
    let upstream = Upstream::new();
    let mut process = recorder(&upstream.url(), &file, &["--count", "2"]);
    let mut link = upstream.accept().await;
    link.send(Message::text("a")).await;
    until(&file, |events| events == 1).await;
    link.reset();
    let mut link = upstream.accept().await;
    link.send(Message::text("b")).await;
    assert_eq!(process.exit().await.code(), Some(0));
    let hop = replay(&file, &["--speed", "max"]).await;
    let told = objects(&hop, 3).await;
    let [a, gap, b] = &told[..] else {
        unreachable!()
    };
    assert_eq!((&a["data"], &b["data"]), (&json!("a"), &json!("b")));
    assert_eq!(
        gap["gap"],
        json!({"after": a["id"], "next": b["id"], "lost": null})
    );

    // A hop that has let go of what the recording does not have.
    let file = folder.file("b.rec");
    let hop = Hop::start(&["--accept-publish", "--history-count", "1"]).await;
    publish(&hop, &from("a", 1)).await;
    record(&hop.url, &file, &["--history", "all", "--count", "1"]).await;
    publish(&hop, &from("b", 3)).await;
    record(&hop.url, &file, &["--count", "1"]).await;
    let (first, last) = (hop.id(1).await, hop.id(4).await);
    let gap = json!({"gap": {"after": first, "next": last, "lost": 2}});
    let same = replay(&file, &["--keep-ids", "--speed", "max"]).await;
    let told = objects(&same, 3).await;
    assert_eq!(
        (&told[0]["id"], &told[1], &told[2]["id"]),
        (&json!(first), &gap, &json!(last))
    );
    let anew = replay(&file, &["--speed", "max"]).await;
    let told = objects(&anew, 3).await;
    assert_eq!(told[1]["gap"]["lost"], 2);
}

#[tokio::test]
async fn state_is_recorded_as_state() {
    let folder = Folder::new();
    let file = folder.file("a.rec");
    let hop = Hop::start(&[
        "--accept-publish",
        "--retain",
        "key",
        "--history-count",
        "1",
    ])
    .await;
    let mut client = Client::connect(hop.address).await;
    for (key, data) in [("a", "1"), ("b", "2"), ("b", "3")] {
        let published = post(&format!("/events?key={key}"), &[], data.as_bytes());
        assert_eq!(ask(&mut client, published).await.0, 202);
    }
    record(&http(&hop), &file, &["--history", "all", "--count", "2"]).await;
    let same = replay(&file, &["--keep-ids", "--retain", "key", "--speed", "max"]).await;
    same.logged("upstream has ended: end of the recording")
        .await;
    // What the snapshot stands behind is not in the recording.
    let events = |objects: Vec<Value>| objects.into_iter().filter(|it| it["id"].is_string());
    let (replayed, original) = (objects(&same, 4).await, objects(&hop, 4).await);
    assert_eq!(
        events(replayed).collect::<Vec<_>>(),
        events(original).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn a_damaged_recording_is_replayed_up_to_there() {
    let folder = Folder::new();
    let file = folder.file("a.rec");
    let hop = Hop::start(&["--accept-publish"]).await;
    publish(&hop, &from("a", 3)).await;
    record(&hop.url, &file, &["--history", "all", "--count", "3"]).await;
    let mut bytes = fs::read(&file).expect("it is there");
    let one = (bytes.len() - 20) / 3;
    let byte = 20 + one;
    bytes[byte + one - 1] ^= 1;
    fs::write(&file, bytes).expect("it can be written");
    let text = format!("damaged at byte {byte}, behind event 1: a checksum is wrong");
    let replaying = replay(&file, &["--speed", "max"]).await;
    replaying.logged(&format!("the recording is {text}")).await;
    replaying
        .logged("upstream has ended: the recording is damaged there")
        .await;
    assert_eq!(objects(&replaying, 1).await[0]["data"], "a 0");
    let checked = output(&["replay", &file, "--check"], &[]).await;
    assert_eq!(checked.status.code(), Some(1));
    let report = String::from_utf8(checked.stdout).expect("text");
    assert!(report.contains(&format!("damage: {text}\n")), "{report}");
    // Nothing is cut away that others stand behind.
    let refused = output(&["record", &hop.url, &file], &[]).await;
    assert_eq!(refused.status.code(), Some(1));
    let error = String::from_utf8(refused.stderr).expect("text");
    assert!(error.contains("say another name"), "{error}");
}

#[tokio::test]
async fn it_may_begin_again_at_its_end() {
    let folder = Folder::new();
    let file = folder.file("a.rec");
    let hop = Hop::start(&["--accept-publish"]).await;
    publish(&hop, &from("a", 2)).await;
    record(&hop.url, &file, &["--history", "all", "--count", "2"]).await;
    let replaying = replay(&file, &["--loop", "--speed", "100x"]).await;
    let told = objects(&replaying, 6).await;
    for (at, object) in told.iter().enumerate() {
        assert_eq!(object["data"], format!("a {}", at % 2));
        assert_eq!(object["id"], replaying.id(at as u64 + 1).await);
    }
}

#[tokio::test]
async fn another_process_goes_on_in_the_middle_of_it() {
    let folder = Folder::new();
    let (file, post) = (folder.file("a.rec"), folder.file("takeover"));
    // One now, and one later.
    let lines = [("1", "00"), ("2", "02")].map(|(seq, second)| {
        format!("{{\"id\":\"0000000000001-{seq}\",\"time\":\"2026-01-01T00:00:{second}Z\",\"data\":\"{seq}\"}}\n")
    });
    fs::write(&file, lines.concat()).expect("it can be written");
    let mut old = replay(&file, &["--takeover", &post]).await;
    assert_eq!(objects(&old, 1).await[0]["data"], "1");
    let address = old.address.to_string();
    let taking = ["--takeover", &post, "--serve-address", &address];
    let mut new = replay(&file, &taking).await;
    old.stops_well().await;
    new.logged("upstream has ended: end of the recording").await;
    // When all of it has been, there is nothing to begin again.
    let last = replay(&file, &taking).await;
    new.stops_well().await;
    last.logged("upstream has ended: end of the recording")
        .await;
    let told = objects(&last, 2).await;
    assert_eq!(
        (&told[0]["data"], &told[1]["data"]),
        (&json!("1"), &json!("2"))
    );
    assert_eq!(last.index().await["streams"][0]["events"], 2);
}

#[tokio::test]
async fn a_file_of_routes_may_have_one_as_a_source() {
    let folder = Folder::new();
    let (file, config) = (folder.file("day.rec"), folder.file("wsevent.toml"));
    let hop = Hop::start(&["--accept-publish"]).await;
    publish(&hop, &from("a", 1)).await;
    record(&hop.url, &file, &["--history", "all", "--count", "1"]).await;
    let text =
        format!("[[route]]\nserve-path = \"/events\"\nconsume = \"file://{file}?speed=2x\"\n");
    fs::write(&config, text).expect("it can be written");
    let checked = output(&["check", &config], &[]).await;
    assert_eq!(checked.status.code(), Some(0), "{checked:?}");
    let explained = output(&["explain", "/events", "--config", &config], &[]).await;
    let text = String::from_utf8(explained.stdout).expect("text");
    assert!(text.contains("upstream: file:day.rec?speed=2x\n"), "{text}");
    let serving = Hop::start(&["--config", &config]).await;
    assert_eq!(objects(&serving, 1).await[0]["data"], "a 0");
    serving
        .logged("upstream has ended: end of the recording")
        .await;
    let url = http(&serving);
    for (args, text) in [
        (
            &["trace", &url, "--history"][..],
            "from the recording file:day.rec?speed=2x",
        ),
        (&["topology", &url], "recording"),
    ] {
        let told = output(args, &[]).await;
        let told = String::from_utf8(told.stdout).expect("text");
        assert!(told.contains(text), "{told}");
    }
    // Where it is on this machine is not told to everyone.
    let index = serving.index().await.to_string();
    assert!(index.contains("file:day.rec?speed=2x"), "{index}");
    assert!(
        !index.contains(&*folder.0.path().to_string_lossy()),
        "{index}"
    );
}

#[tokio::test]
async fn a_source_waits_for_a_file_that_is_not_there() {
    let folder = Folder::new();
    let file = folder.file("a.ndjson");
    let hop = Hop::start(&["--consume", &format!("file://{file}")]).await;
    hop.logged_where("cannot reach upstream, trying again", |line| {
        line.field("reason").contains("no such file")
    })
    .await;
    // Nor is it told where that is on this machine.
    let index = hop.index().await.to_string();
    assert!(
        !index.contains(&*folder.0.path().to_string_lossy()),
        "{index}"
    );
    let line = "{\"id\":\"0000000000001-1\",\"time\":\"2026-01-01T00:00:00Z\",\"data\":\"x\"}\n";
    let part = Path::new(&file).with_extension("part");
    fs::write(&part, line).expect("it can be written");
    fs::rename(part, file).expect("it can be moved");
    hop.logged("upstream has ended: end of the recording").await;
    assert_eq!(objects(&hop, 1).await[0]["data"], "x");
}

#[tokio::test]
async fn each_stream_on_demand_has_a_replay_of_its_own() {
    let folder = Folder::new();
    let file = folder.file("a.rec");
    let hop = Hop::start(&["--accept-publish"]).await;
    publish(&hop, &from("a", 2)).await;
    record(&hop.url, &file, &["--history", "all", "--count", "2"]).await;
    let url = format!("file://{file}?speed=max");
    let hop = Hop::start(&["--consume", &url, "--serve-path", "/replay/*"]).await;
    for path in ["/replay/a", "/replay/b/c"] {
        let mut reader = Ndjson::at(&hop, &format!("{path}?history=all")).await;
        for expected in ["a 0", "a 1"] {
            assert_eq!(reader.next().await["data"], expected, "{path}");
        }
    }
}

#[tokio::test]
async fn a_disk_that_is_full_leaves_what_is_whole() {
    let folder = Folder::new();
    let file = folder.file("a.rec");
    let hop = Hop::start(&["--accept-publish"]).await;
    publish(&hop, &from("a", 1)).await;
    record(&hop.url, &file, &["--history", "all", "--count", "1"]).await;
    publish(&hop, &["b".repeat(100_000)]).await;
    // No file may be larger than this; the system refuses what would make it so.
    let limited = "trap '' XFSZ; ulimit -f 8; exec \"$0\" \"$@\"";
    let plain = command(&["record", &hop.url, &file]);
    let mut shell = tokio::process::Command::new("bash");
    shell
        .args(["-c", limited])
        .arg(plain.as_std().get_program());
    shell.args(plain.as_std().get_args()).kill_on_drop(true);
    let mut process = Process::spawn(shell);
    assert_eq!(process.exit().await.code(), Some(1));
    let error = process.log.to_string();
    assert!(error.contains("cannot record into"), "{error}");
    let checked = output(&["replay", &file, "--check"], &[]).await;
    let text = String::from_utf8(checked.stdout).expect("text");
    assert!(
        text.contains("events: 1\n") && text.contains("damage: none\n"),
        "{text}"
    );
}

#[tokio::test]
async fn what_cannot_be_is_said_in_one_line() {
    let folder = Folder::new();
    let notes = folder.file("notes.txt");
    fs::write(&notes, "notes\n").expect("it can be written");
    let absent = folder.file("absent.rec");
    for (args, status, why) in [
        (&["replay", &absent][..], 2, "no such file"),
        (&["replay", &notes], 2, "it is no recording"),
        (&["replay", &notes, "--check"], 1, "it is no recording"),
        (&["replay", &absent, "--check"], 1, "no such file"),
        (&["replay", "/"], 2, "no ordinary file"),
        (&["replay", &notes, "--speed", "fast"], 2, "1x, 10x, 0.5x"),
        (
            &["--consume", "file:///a?loop&keep-ids"],
            2,
            "exclude each other",
        ),
        (
            &["--consume", "file:///a?rate=1"],
            2,
            "'rate=' is not known",
        ),
        (&["--forward", "file:///a"], 2, "a recording is read only"),
        (
            &["record", "ws://127.0.0.1:9/events", &notes],
            1,
            "no recording",
        ),
        (
            &["record", "ws://127.0.0.1:9/events", "/absent/a.rec"],
            1,
            "no such file",
        ),
        (&["record", "file:///a", "/tmp/a.rec"], 2, "is no event URL"),
    ] {
        let refused = output(args, &[]).await;
        let error = String::from_utf8(refused.stderr).expect("text");
        assert_eq!(refused.status.code(), Some(status), "{args:?}: {error}");
        assert!(error.contains(why), "{args:?}: {error}");
    }
    assert_eq!(fs::read_to_string(notes).expect("it is there"), "notes\n");
}
