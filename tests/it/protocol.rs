//! docs/protocol.md is true: the client in it works.

use std::path::Path;
use std::process::Stdio;

use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::events::numbered;
use crate::harness::port::ReservedPort;
use crate::harness::within_guard;
use crate::harness::wsevent::Hop;
use crate::peers::installed;

/// The one program in the document.
fn program() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/protocol.md");
    let text = std::fs::read_to_string(path).expect("there is docs/protocol.md");
    let (_, rest) = text.split_once("```python\n").expect("where it begins");
    let (program, _) = rest.split_once("```").expect("where it ends");
    program.to_owned()
}

#[tokio::test]
async fn the_client_in_the_document_goes_on_after_a_restart() {
    let python = installed("WSEVENT_TEST_PYTHON", "venv/bin/python");
    let port = ReservedPort::new();
    let address = port.address().to_string();
    let (mut link, upper) = Hop::fed(&[]).await;
    let consume = ["--consume", &upper.url, "--serve-address", &address];
    let mut relay = Hop::start(&consume).await;
    relay.logged("upstream connected").await;
    let mut client = Command::new(python)
        .args(["-c", &program(), &relay.url])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("there is Python");
    let mut lines = BufReader::new(client.stdout.take().expect("it is a pipe")).lines();
    relay.logged("subscriber connected").await;
    let mut expected = 0;
    for round in 0..3 {
        for _ in 0..10 {
            link.send(Message::text(format!("event {expected}"))).await;
            let line = within_guard("a line", lines.next_line()).await;
            let line = line.expect("text").expect("it goes on");
            assert_eq!(line, format!("event {expected}"), "{round}");
            expected += 1;
        }
        relay.signal(Signal::KILL);
        relay.exit().await;
        // These it gets from the history of what comes back.
        let late = numbered(expected + 5).split_off(expected);
        link.send_all(&late).await;
        relay = Hop::start(&consume).await;
        for event in late {
            let line = within_guard("a line", lines.next_line()).await;
            assert_eq!(line.expect("text").as_deref(), event.to_text().ok());
            expected += 1;
        }
    }
}
