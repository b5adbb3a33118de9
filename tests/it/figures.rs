//! The figures of the scenarios are held against what runs, by the scenarios' own scripts; and a figure that is not true is said not to be.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use rustix::process::Signal;

use crate::harness::client::Client;
use crate::harness::wsevent::{Hop, output};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The files in a folder: their names without what is behind a dot, and what is in them.
fn files(name: &str) -> Vec<(String, String)> {
    let entries = fs::read_dir(folder(name)).expect(name);
    let paths = entries.map(|entry| entry.expect("a file").path());
    let named = paths.map(|path| {
        let name = path.file_stem().expect("a name").to_string_lossy();
        (name.into_owned(), fs::read_to_string(&path).expect("text"))
    });
    named.collect()
}

#[test]
fn every_figure_is_checked_by_the_script_of_its_scenario() {
    let instances = fs::read_to_string(folder("scripts/lib/instances")).expect("it is there");
    assert!(
        instances.contains("\"$wsevent\" topology --expect \"$figure\""),
        "what as_drawn does"
    );
    let scripts = files("scripts/scenarios");
    for (figure, _) in files("docs/puml") {
        let script = scripts.iter().find(|(name, _)| *name == figure);
        let (_, script) = script.unwrap_or_else(|| panic!("no scenario has the figure {figure}"));
        assert!(
            script.contains(&format!("as_drawn {figure} ")),
            "{figure} is not checked"
        );
    }
    for (name, _) in &scripts {
        assert!(
            folder("docs/puml").join(format!("{name}.puml")).exists(),
            "{name} has no figure"
        );
    }
}

/// What runs: a producer, two hops behind it, and a subscriber, as in a figure of docs/puml.
struct Chain {
    producer: Hop,
    hops: [Hop; 2],
    figure: String,
    _subscriber: Client,
}

impl Chain {
    async fn start() -> Self {
        let serve = |path| ["--serve-path", path];
        let producer = Hop::start(&serve("events")).await;
        let first = [&["--consume", &producer.url][..], &serve("proxy-events")].concat();
        let first = Hop::start(&first).await;
        let second = [&["--consume", &first.url][..], &serve("the-end")].concat();
        let second = Hop::start(&second).await;
        let mut subscriber = Client::connect(second.address)
            .await
            .upgraded("/the-end")
            .await;
        subscriber.message().await;
        let path = folder("docs/puml/chained-services.puml");
        Self {
            producer,
            hops: [first, second],
            figure: fs::read_to_string(path).expect("it is there"),
            _subscriber: subscriber,
        }
    }

    /// What is said of a figure: the exit status, and lines.
    async fn against(&self, figure: &str) -> (ExitStatus, Vec<String>) {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), figure).expect("it is written");
        let path = file.path().to_str().expect("a path");
        let [first, second] = &self.hops;
        let places = [
            format!("producer={}", self.producer.url),
            format!("hop1={}", first.url),
            format!("hop2={}", second.address),
        ];
        let mut args = vec!["topology", "--expect", path];
        args.extend(places.iter().flat_map(|place| ["--as", place]));
        let output = output(&args, &[]).await;
        let text = [output.stdout, output.stderr].concat();
        let lines = String::from_utf8(text)
            .expect("text")
            .replace(path, "FIGURE");
        (output.status, lines.lines().map(str::to_owned).collect())
    }

    /// How a figure is not true.
    async fn differs(&self, figure: &str) -> Vec<String> {
        let (status, lines) = self.against(figure).await;
        assert_eq!(status.code(), Some(1), "{lines:?}");
        lines
    }
}

#[tokio::test]
async fn a_figure_is_true_until_an_arrow_is_added_or_taken_away() {
    let chain = Chain::start().await;
    let figure = &chain.figure;
    let (status, lines) = chain.against(figure).await;
    assert_eq!(
        lines,
        ["FIGURE is what runs: 3 instances, 2 links, 1 subscriber, 0 publishers"]
    );
    assert_eq!(status.code(), Some(0));

    let arrows = figure.lines().filter(|line| line.contains("-->"));
    let told = [
        "a link from producer to hop1 that is not in the figure",
        "a link from hop1 to hop2 that is not in the figure",
    ];
    for (arrow, told) in arrows.zip(told) {
        assert_eq!(chain.differs(&figure.replace(arrow, "")).await, [told]);
    }
    let more = figure.replace("@enduml", "producer --> hop2\n@enduml");
    assert_eq!(
        chain.differs(&more).await,
        ["hop2 gets events from producer in the figure, but not here"]
    );
    let more = figure.replace("@enduml", "consumer --> hop1\n@enduml");
    assert_eq!(
        chain.differs(&more).await,
        ["somebody publishes to hop1 in the figure, but it takes nothing here"]
    );
    let more = figure.replace("@enduml", "hop2 --> consumer\n@enduml");
    assert_eq!(
        chain.differs(&more).await,
        ["hop2 has 2 subscribers in the figure, but 1 here"]
    );
}

#[tokio::test]
async fn a_figure_is_not_true_when_an_instance_has_died() {
    let mut chain = Chain::start().await;
    chain.producer.signal(Signal::KILL);
    chain.producer.exit().await;
    chain.hops[0].logged("upstream lost").await;
    let lines = chain.differs(&chain.figure).await;
    let address = chain.producer.address.port();
    let expected = format!("producer is not at localhost:{address}");
    assert_eq!(lines[0], expected, "{lines:?}");
    let last = lines.last().expect("a line");
    assert!(last.ends_with(": connection refused"), "{lines:?}");
}

#[tokio::test]
async fn what_is_no_figure_is_wrong_usage() {
    let hop = Hop::start(&[]).await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    let path = file.path().to_str().expect("a path");
    let cases = [
        ("", &[][..], "line 1: a figure begins with @startuml"),
        (
            "@startuml\nnote left\n@enduml",
            &[],
            "line 2: 'note left' is neither a box",
        ),
        (
            "@startuml\n@enduml",
            &[],
            "shows no hop that could be asked",
        ),
        (
            "@startuml\n@enduml",
            &["--as", "a=localhost:1"],
            "the figure has no box a",
        ),
        ("@startuml\n@enduml", &["--as", "a"], "it is ALIAS=URL"),
        (
            "@startuml\nrectangle \"a\" <<bus>> as a\n@enduml",
            &[],
            "nothing says where a is",
        ),
    ];
    for (text, args, expected) in cases {
        fs::write(file.path(), text).expect("it is written");
        let args = [&["topology", "--expect", path][..], args].concat();
        let output = output(&args, &[]).await;
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{text}: {told}");
        assert!(told.contains(expected), "{text}: {told}");
    }
    let gone = output(&["topology", &hop.url, "--expect", "/no/such/file"], &[]).await;
    assert_eq!(gone.status.code(), Some(2));
}

#[tokio::test]
async fn a_picture_of_what_runs_is_true() {
    let chain = Chain::start().await;
    let url = format!("http://{}/", chain.hops[1].address);
    let picture = output(&["topology", &url], &[]).await;
    assert!(picture.status.success());
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), &picture.stdout).expect("it is written");
    let path = file.path().to_str().expect("a path");
    let told = output(&["topology", &url, "--expect", path], &[]).await;
    assert_eq!(told.status.code(), Some(0), "{told:?}");
    for (format, begin) in [
        ("mermaid", "flowchart LR\n"),
        ("dot", "digraph wsevent {\n"),
        ("json", "{\n"),
    ] {
        let picture = output(&["topology", &url, "--format", format], &[]).await;
        let text = String::from_utf8(picture.stdout).expect("text");
        assert!(text.starts_with(begin), "{text}");
        assert!(text.contains("/proxy-events"), "{text}");
    }
}
