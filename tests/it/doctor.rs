//! `wsevent doctor`, on the machine that the tests run on.

use serde_json::Value;

use crate::harness::authority::Authority;
use crate::harness::upstream::Upstream;
use crate::harness::wsevent::{Hop, output};

/// What it finds, and its exit status.
async fn findings(args: &[&str]) -> (Option<i32>, Vec<Value>) {
    let output = output(&[&["doctor", "--json"], args].concat(), &[]).await;
    let errors = String::from_utf8_lossy(&output.stderr);
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{args:?}: {error}: {errors}"));
    let findings = report["findings"].as_array().expect("findings").clone();
    let problems = findings
        .iter()
        .filter(|finding| finding["level"] == "problem")
        .count();
    assert_eq!(report["problems"], problems);
    (output.status.code(), findings)
}

/// The one finding of an area that has this in it.
fn about<'a>(findings: &'a [Value], area: &str, text: &str) -> &'a Value {
    let mut all = findings
        .iter()
        .filter(|finding| finding["area"] == area && finding.to_string().contains(text));
    let found = all.next();
    found.unwrap_or_else(|| panic!("nothing about {area} with '{text}': {findings:#?}"))
}

#[tokio::test]
async fn a_hop_that_can_run_has_no_problem() {
    let (code, found) =
        findings(&["--serve-address", "127.0.0.1:0", "--max-connections", "100"]).await;
    assert_eq!(code, Some(0), "{found:#?}");
    assert_eq!(
        about(&found, "files", "--max-connections 100")["level"],
        "ok"
    );
    assert_eq!(
        about(&found, "port", "is free, for this machine only")["level"],
        "ok"
    );
    for area in ["kernel", "memory", "cpu", "clock"] {
        assert_ne!(about(&found, area, "")["level"], "problem");
    }
    let text = output(&["doctor", "--serve-address", "127.0.0.1:0"], &[]).await;
    let text = String::from_utf8(text.stdout).expect("text");
    assert!(
        text.lines().count() > 5 && text.contains("\n0 problems, "),
        "{text}"
    );
}

#[tokio::test]
async fn a_port_that_is_taken_names_who_has_it() {
    let hop = Hop::start(&[]).await;
    let address = hop.address.to_string();
    let (code, found) = findings(&["--serve-address", &address]).await;
    assert_eq!(code, Some(1));
    let finding = about(&found, "port", "in use by");
    assert!(
        finding["what"]
            .as_str()
            .is_some_and(|what| what.contains("wsevent (pid ")),
        "{finding}"
    );
    let (code, found) =
        findings(&["--serve-address", &address, "--takeover", "/nowhere/socket"]).await;
    assert_eq!(code, Some(0), "{found:#?}");
    about(&found, "port", "to be taken over from");
    let (code, found) = findings(&["--serve-address", "192.0.2.1:0"]).await;
    assert_eq!(code, Some(1));
    about(&found, "port", "no address of this machine");
}

#[tokio::test]
async fn more_connections_than_files_are_a_problem() {
    let (code, found) = findings(&[
        "--serve-address",
        "127.0.0.1:0",
        "--max-connections",
        "2000000000",
    ])
    .await;
    // Where there is no limit, the kernel has one.
    assert_eq!(code, Some(1), "{found:#?}");
    about(&found, "files", "LimitNOFILE=2000000400");
}

#[tokio::test]
async fn upstreams_are_reached_and_their_certificates_looked_at() {
    let authority = Authority::new();
    let secure = authority.hop(&[]).await;
    let plain = Hop::start(&[]).await;
    let away = Upstream::away();
    let wss = format!("wss://localhost:{}/events", secure.address.port());
    let trust = authority.trust();
    let trust: Vec<_> = trust.iter().map(String::as_str).collect();
    let http = format!("http://{}/events", plain.address);
    let (code, found) = findings(&[&[&*wss, &plain.url, &http], &trust[..]].concat()).await;
    assert_eq!(code, Some(0), "{found:#?}");
    about(&found, "upstream", "is a stream of wsevent");
    about(&found, "upstream", "is an event stream");
    assert_eq!(about(&found, "tls", "more days")["level"], "ok");
    assert_eq!(
        about(&found, "clock", "as far as its Date shows")["level"],
        "ok"
    );
    assert!(
        found.iter().all(|finding| finding["area"] != "port"),
        "nothing is to be served"
    );

    let missing = format!("http://{}/missing", plain.address);
    let (code, found) = findings(&[&away.url(), &missing, &wss]).await;
    assert_eq!(code, Some(1));
    about(&found, "upstream", "refused");
    about(&found, "upstream", "404");
    about(&found, "upstream", "--consume-ca");
}

#[tokio::test]
async fn a_file_is_looked_at_with_its_certificate_and_its_streams() {
    let authority = Authority::new();
    let away = Upstream::away();
    let text = format!(
        "serve-address = \"127.0.0.1:0\"\ntls-cert = \"{}\"\ntls-key = \"{}\"\n[[route]]\nserve-path = \"a\"\nconsume = \"{}\"\n[[route]]\nserve-path = \"many/*\"\naccept-publish = true\nhistory = \"1GiB\"\n",
        authority.file("server.pem"),
        authority.file("ca.pem"),
        away.url(),
    );
    authority.write("wsevent.toml", &text);
    let file = authority.file("wsevent.toml");
    let (code, found) = findings(&["--config", &file]).await;
    assert_eq!(code, Some(1));
    assert_eq!(
        about(&found, "tls", "there is no key in it")["level"],
        "problem"
    );
    assert_eq!(about(&found, "upstream", "refused")["level"], "problem");
    assert_eq!(about(&found, "memory", "--max-streams")["level"], "warning");

    let fixed = text.replace("ca.pem", "server-key.pem");
    authority.write("wsevent.toml", &fixed);
    let (_, found) = findings(&["--config", &file]).await;
    assert_eq!(about(&found, "tls", "more days")["level"], "ok");
    let wrong = output(&["doctor", "--config", &authority.file("ca.pem")], &[]).await;
    assert_eq!(wrong.status.code(), Some(2));
}
