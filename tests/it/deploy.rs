//! What `deploy/` says to systemd and to Kubernetes is what the binary takes.

use std::path::{Path, PathBuf};

use saphyr::{LoadableYamlNode, Yaml};

use crate::compose::{IMAGE, IMAGE_ENV};
use crate::harness::wsevent::output;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).expect("it is there")
}

/// What stands below these keys, one below the other; a number is a place in a list.
fn at<'a>(mut yaml: &'a Yaml<'a>, path: &str) -> Option<&'a Yaml<'a>> {
    for key in path.split('.') {
        yaml = match key.parse::<usize>() {
            Ok(number) => yaml.as_sequence()?.get(number)?,
            Err(_) => yaml.as_mapping_get(key)?,
        };
    }
    Some(yaml)
}

fn text<'a>(yaml: &'a Yaml<'a>, path: &str) -> &'a str {
    let text = at(yaml, path).and_then(Yaml::as_str);
    text.unwrap_or_else(|| panic!("no text at {path}"))
}

fn number(yaml: &Yaml<'_>, path: &str) -> i64 {
    let number = at(yaml, path).and_then(Yaml::as_integer);
    number.unwrap_or_else(|| panic!("no number at {path}"))
}

/// The value of `--flag=value`.
fn value<'a>(args: &[&'a str], flag: &str) -> Option<&'a str> {
    let values = args.iter().filter_map(|arg| arg.strip_prefix(flag));
    values.filter_map(|rest| rest.strip_prefix('=')).next()
}

fn seconds(text: &str) -> i64 {
    let number = text.strip_suffix('s').and_then(|it| it.parse().ok());
    number.expect("so many seconds")
}

/// The binary takes what a hop is told here.
async fn is_taken(args: &[&str]) {
    let args = [&["explain", "/events"][..], args].concat();
    let explained = output(&args, &IMAGE_ENV).await;
    let error = String::from_utf8_lossy(&explained.stderr);
    assert!(explained.status.success(), "{args:?}: {error}");
}

#[tokio::test]
async fn what_kubernetes_runs_the_binary_takes() {
    let file = tempfile::NamedTempFile::new().expect("a file for the test");
    std::fs::write(file.path(), "anonymous:-:*:subscribe\n").expect("it can be written");
    let tokens = file.path().to_str().expect("it is plain");
    let files = ["kubernetes/origin.yaml", "kubernetes/relays.yaml"].map(read);
    let documents = files.iter().flat_map(|text| {
        let documents = Yaml::load_from_str(text);
        documents.unwrap_or_else(|wrong| panic!("{wrong}"))
    });
    let documents: Vec<_> = documents.collect();
    let mut hops = 0;
    for document in &documents {
        let Some(pod) = at(document, "spec.template.spec") else {
            continue;
        };
        let container = at(pod, "containers.0").expect("a container");
        assert_eq!(text(container, "image"), IMAGE);
        let args = at(container, "args").and_then(Yaml::as_sequence);
        let args = args.expect("a list").iter();
        let args: Vec<_> = args.map(|arg| arg.as_str().expect("a text")).collect();
        let given = args
            .iter()
            .map(|arg| arg.replace("/etc/wsevent/tokens", tokens));
        let given: Vec<_> = given.collect();
        is_taken(&given.iter().map(String::as_str).collect::<Vec<_>>()).await;

        // It is not killed while it sends its subscribers away.
        let drain = seconds(value(&args, "--drain").expect("it drains"));
        let before = number(container, "lifecycle.preStop.sleep.seconds");
        let grace = number(pod, "terminationGracePeriodSeconds");
        assert!(
            before + drain < grace,
            "{before} s and {drain} s in {grace} s"
        );

        // Probes ask where it answers.
        let admin = value(&args, "--admin-address").expect("it tells how it is");
        let port = at(container, "ports").and_then(Yaml::as_sequence);
        let mut ports = port.expect("ports").iter();
        let port = ports.find(|port| text(port, "name") == "admin");
        let port = number(port.expect("a port of that name"), "containerPort");
        assert!(admin.ends_with(&format!(":{port}")), "{admin}");
        for (probe, path) in [
            ("startupProbe", "/-/live"),
            ("livenessProbe", "/-/live"),
            ("readinessProbe", "/-/ready"),
        ] {
            assert_eq!(text(container, &format!("{probe}.httpGet.path")), path);
            assert_eq!(text(container, &format!("{probe}.httpGet.port")), "admin");
        }
        hops += 1;
    }
    assert_eq!(hops, 2);
}

#[test]
fn what_kubernetes_names_is_there() {
    let files = ["kubernetes/origin.yaml", "kubernetes/relays.yaml"].map(read);
    let documents = files
        .iter()
        .flat_map(|text| Yaml::load_from_str(text).expect("YAML"));
    let documents: Vec<_> = documents.collect();
    let is_there = |kind: &str, name: &str| {
        let mut documents = documents.iter();
        documents.any(|it| text(it, "kind") == kind && text(it, "metadata.name") == name)
    };
    for document in &documents {
        match text(document, "kind") {
            "HorizontalPodAutoscaler" => {
                let kind = text(document, "spec.scaleTargetRef.kind");
                assert!(is_there(kind, text(document, "spec.scaleTargetRef.name")));
            }
            "StatefulSet" => assert!(is_there("Service", text(document, "spec.serviceName"))),
            _ => {}
        }
    }
    // The relays find the origin by the name of its service.
    let relays = &files[1];
    assert!(relays.contains("--consume=ws://wsevent-origin:8080/events"));
    assert!(
        is_there("Service", "wsevent-origin") && is_there("PodDisruptionBudget", "wsevent-relay")
    );
    for file in ["origin.yaml", "relays.yaml"] {
        assert!(read("kubernetes/kustomization.yaml").contains(&format!("  - {file}\n")));
    }
}

#[tokio::test]
async fn what_systemd_runs_the_binary_takes() {
    let unit = read("systemd/wsevent.service");
    let start = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="));
    let config = folder().join("systemd/wsevent.toml");
    let config = config.to_str().expect("it is plain");
    let start = start
        .expect("it starts something")
        .replace("/etc/wsevent/wsevent.toml", config);
    let words: Vec<_> = start.split(' ').collect();
    assert_eq!(words[0], "/usr/local/bin/wsevent");
    is_taken(&words[1..]).await;
    let checked = output(&["check", config], &[]).await;
    assert!(checked.status.success(), "{checked:?}");
    let drain = words.iter().position(|word| *word == "--drain");
    let drain = seconds(words[drain.expect("it drains") + 1]);
    let stop = unit
        .lines()
        .find_map(|line| line.strip_prefix("TimeoutStopSec="));
    assert!(drain < seconds(stop.expect("it is waited for")));
    // What the sockets are called says what they are for.
    for (socket, name) in [
        ("wsevent.socket", "serve"),
        ("wsevent-admin.socket", "admin"),
    ] {
        let text = read(&format!("systemd/{socket}"));
        assert!(
            text.contains(&format!("FileDescriptorName={name}\n")),
            "{socket}"
        );
        assert!(unit.contains(socket), "{socket}");
    }
}
