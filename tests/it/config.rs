//! Many routes in one file: what a process makes of it, and what `check` and `explain` say.

mod reload;

use std::fs;
use std::path::Path;

use tempfile::NamedTempFile;

use crate::harness::client::Client;
use crate::harness::upstream::Upstream;
use crate::harness::wsevent::{Hop, output};

/// A configuration file.
pub struct File(NamedTempFile);

impl File {
    pub fn new(text: &str) -> Self {
        let file = Self(NamedTempFile::new().expect("a file for the test"));
        file.becomes(text);
        file
    }

    pub fn becomes(&self, text: &str) {
        fs::write(self.0.path(), text).expect("the file is ours");
    }

    pub fn path(&self) -> &str {
        self.0.path().to_str().expect("it is text")
    }

    /// A hop that serves what it says.
    pub async fn hop(&self, args: &[&str]) -> Hop {
        Hop::start(&[&["--config", self.path()], args].concat()).await
    }

    /// Runs a command, in which FILE stands for the path; the exit status, and what it prints: with FILE for the path again.
    async fn run(&self, args: &[&str], env: &[(&str, &str)]) -> (i32, String, String) {
        let args = args.iter().map(|arg| arg.replace("FILE", self.path()));
        let args: Vec<_> = args.collect();
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let output = output(&args, env).await;
        let text = |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).expect("it is text");
            assert!(!text.contains("s3cret"), "{text}");
            text.replace(self.path(), "FILE")
        };
        let code = output.status.code().expect("it has exited");
        (code, text(output.stdout), text(output.stderr))
    }
}

/// Of each kind one.
fn all_kinds(upstream: &Upstream) -> String {
    let address = upstream.address();
    format!(
        "\
serve-address = \"192.0.2.1:1\"
history-count = 10
consume-header = \"X-Token: s3cret\"

[[route]]
serve-path = \"/one\"
consume = \"ws://me:s3cret@{address}/feed?s3cret\"

[[route]]
serve-path = \"/live/*\"
consume = \"ws://{address}/feeds/*\"
consume-header = [\"X-One: s3cret\", \"X-Two: s3cret\"]
key-query = \"symbol\"
linger = \"1m\"

[[route]]
serve-path = \"/topics/*\"
accept-publish = true

[[route]]
serve-path = \"numbers\"
produce-rate = \"max\"
"
    )
}

#[tokio::test]
async fn one_process_serves_them_all() {
    let upstream = Upstream::new();
    let file = File::new(&all_kinds(&upstream));
    let hop = file.hop(&[]).await;
    let link = upstream.accept().await;
    let path = |link: &crate::harness::upstream::Link| link.request.uri().to_string();
    assert_eq!(path(&link), "/feed?s3cret");
    assert_eq!(link.header("x-token"), "s3cret");
    let reader = Client::connect(hop.address).await;
    let mut asking = reader;
    let handshake = crate::harness::client::handshake("/live/a?symbol=b&x=y");
    asking.send(handshake).await;
    let link = upstream.accept().await;
    assert_eq!(path(&link), "/feeds/a?symbol=b");
    assert_eq!(link.header("x-two"), "s3cret");
    assert!(!link.request.headers().contains_key("x-token"));
    assert_eq!(asking.head().await.status, 101);

    let mut topic = Client::connect(hop.address)
        .await
        .upgraded("/topics/a")
        .await;
    topic.send_frame(1, b"to all").await;
    assert_eq!(topic.message().await.to_string(), "to all");
    let mut numbers = Client::connect(hop.address)
        .await
        .upgraded("/numbers")
        .await;
    assert!(numbers.message().await.is_text());
    let mut client = Client::connect(hop.address).await;
    let (head, body) = client.get("/nothing", &[]).await;
    assert_eq!(head.status, 404);
    assert!(
        body.ends_with("what there is: /one /live/* /topics/* /numbers\n"),
        "{body}"
    );
    assert!(!hop.log.to_string().contains("s3cret"));
}

#[tokio::test]
async fn flags_outrank_variables_and_these_the_file_but_routes_are_its_own() {
    let file = File::new(
        "serve-address = \"192.0.2.1:1\"\nlog-format = \"json\"\n[[route]]\nserve-path = \"/a\"\n",
    );
    let config = ("WSEVENT_CONFIG", file.path());
    let env = [config, ("WSEVENT_SERVE_ADDRESS", "127.0.0.1:0")];
    let hop = Hop::start_with(&[], &env).await;
    assert!(hop.url.ends_with("/a"), "{}", hop.url);
    let env = [
        ("WSEVENT_SERVE_ADDRESS", "192.0.2.1:2"),
        ("WSEVENT_HISTORY", "1"),
        ("WSEVENT_SERVE", "192.0.2.1:3/b"),
    ];
    let args = ["--serve-address", "127.0.0.1:0", "--config", file.path()];
    let hop = Hop::start_with(&args, &env).await;
    let said = hop
        .logged("the routes are in the file: these variables do not count")
        .await;
    assert_eq!(said.field("variables"), "WSEVENT_SERVE WSEVENT_HISTORY");
    // Else it is the file's.
    let (code, _, stderr) = file.run(&["--config", "FILE"], &[]).await;
    assert_eq!(
        (code, &*stderr),
        (
            1,
            "wsevent: cannot listen on 192.0.2.1:1: cannot assign requested address\n"
        )
    );
    for (args, why) in [
        (
            &["--consume", "ws://a"][..],
            "--consume is about a route, and with --config these are in the file: say it there",
        ),
        (
            &["--serve", "a:1/b"],
            "--serve says a path as well, and with --config paths are in the file: say --serve-address",
        ),
        (
            &["--serve-address", "a"],
            "--serve-address: 'a' is not HOST:PORT, such as localhost:8080",
        ),
    ] {
        let (code, _, stderr) = file.run(&[&["--config", "FILE"], args].concat(), &[]).await;
        assert_eq!(code, 2);
        assert!(stderr.starts_with(&format!("error: {why}\n")), "{stderr}");
    }
}

#[tokio::test]
async fn check_says_all_that_is_wrong_or_what_is_served() {
    let file = File::new(&all_kinds(&Upstream::new()).replace("192.0.2.1:1", "localhost:0"));
    let (code, stdout, stderr) = file.run(&["check", "FILE"], &[]).await;
    assert_eq!((code, &*stderr), (0, ""));
    let lines: Vec<_> = stdout.lines().collect();
    assert_eq!(lines.len(), 4, "{stdout}");
    assert!(
        lines[0].starts_with("/one, from ws://127.0.0.1:"),
        "{stdout}"
    );
    assert!(
        lines[0].ends_with("/feed?..., history 16777216 bytes or 10 events"),
        "{stdout}"
    );
    assert!(
        lines[1].starts_with("/live/*, by symbol, from ws://127.0.0.1:"),
        "{stdout}"
    );
    assert_eq!(
        lines[2],
        "/topics/*, publish, history 16777216 bytes or 10 events"
    );
    assert_eq!(
        lines[3],
        "/numbers, random events, history 16777216 bytes or 10 events"
    );

    file.becomes("drain = 1\n[[route]]\nserve-path = \"/a\"\nconsume-header = \"s3cret\"\nconsume = \"ws://h/\"\n\nhistroy = 1\n");
    let expected = "\
FILE:1: invalid value '1' for drain: time unit needed, for example 1sec or 1ms; a duration is expected, such as 30s
FILE:4: consume-header: 'Name: value' is expected
FILE:7: there is no 'histroy': did you mean 'history'?
";
    let (code, stdout, stderr) = file.run(&["check", "FILE"], &[]).await;
    assert_eq!((code, &*stdout, &*stderr), (1, expected, ""));
    for args in [
        &["--config", "FILE"][..],
        &["explain", "/a", "--config", "FILE"],
    ] {
        let (code, stdout, stderr) = file.run(args, &[]).await;
        assert_eq!((code, &*stdout, &*stderr), (2, "", expected));
    }
    let (code, stdout, _) = file.run(&["check", "FILE.none"], &[]).await;
    assert_eq!(
        (code, &*stdout),
        (1, "FILE.none: cannot read it: no such file or directory\n")
    );
    fs::write(file.path(), b"# \xE4\n").expect("the file is ours");
    let (code, stdout, _) = file.run(&["check", "FILE"], &[]).await;
    assert_eq!((code, &*stdout), (1, "FILE:1: this is no text in UTF-8\n"));
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/wsevent.toml");
    let output = output(&["check", example.to_str().expect("it is text")], &[]).await;
    assert_eq!(output.status.code(), Some(0));
}

/// The values of a name in what `explain` prints.
fn values<'a>(lines: &'a str, name: &str) -> Vec<&'a str> {
    let pairs = lines.lines().filter_map(|line| line.split_once(": "));
    pairs
        .filter(|(found, _)| *found == name)
        .map(|(_, value)| value)
        .collect()
}

#[tokio::test]
async fn explain_says_what_is_at_a_url_and_how() {
    let upstream = Upstream::new();
    let feeds = format!("ws://{}/feeds/", upstream.address());
    let file = File::new(&all_kinds(&upstream).replace("192.0.2.1:1", "127.0.0.1:0"));
    let explain = async |target: &str| {
        let (code, stdout, stderr) = file
            .run(&["explain", target, "--config", "FILE"], &[])
            .await;
        assert_eq!(stderr, "");
        (code, stdout)
    };
    for target in [
        "/live/%61?x=y&symbol=b",
        "live/a?symbol=b#c",
        "https://h.example/live/a?symbol=b",
    ] {
        let (code, said) = explain(target).await;
        assert_eq!(code, 0);
        for (name, expected) in [
            ("route", &["/live/*"][..]),
            ("stream", &["/live/a?symbol=b"]),
            ("upstream", &[&*format!("{feeds}a?...")]),
            ("upstream-header", &["x-one", "x-two"]),
            ("publish", &["no"]),
            ("history", &["16MiB"]),
            ("history-count", &["10"]),
            ("overload", &["disconnect"]),
            ("linger", &["1m"]),
            ("max-streams", &["10000"]),
            ("allow-origin", &["not set"]),
            ("serve-address", &["127.0.0.1:0"]),
            ("auth-token-file", &["not set"]),
            ("consume-message", &["not set"]),
        ] {
            assert_eq!(values(&said, name), expected, "{name} in {said}");
        }
    }
    let (code, said) = explain("/one").await;
    assert_eq!(
        (code, values(&said, "upstream-header")),
        (0, vec!["authorization", "x-token"])
    );
    assert_eq!(values(&said, "linger"), [""; 0], "it is always there");
    let (code, said) = explain("/topics/x").await;
    assert_eq!(
        (code, values(&said, "publish")),
        (0, vec!["by POST, and by messages on a WebSocket"])
    );
    assert_eq!(explain("/topics/").await.0, 0);
    assert_eq!(
        explain("/").await,
        (0, "list: all streams there are\n".to_owned())
    );
    // As the hop itself says.
    let hop = file.hop(&[]).await;
    for (target, status) in [
        ("/nothing", 404),
        ("/live/../x", 400),
        ("/live/a?symbol=1&symbol=2", 400),
        ("/one/", 404),
    ] {
        let (code, said) = explain(target).await;
        assert_eq!(code, 1, "{said}");
        let mut client = Client::connect(hop.address).await;
        let (head, body) = client.get(target, &[]).await;
        assert_eq!(head.status, status, "{target}");
        assert_eq!(
            said,
            format!("stream: none\nstatus: {status}\nreason: {body}")
        );
    }
}

#[tokio::test]
async fn explain_takes_the_flags_of_a_hop() {
    let args = [
        "explain",
        "/x/y",
        "--serve-path",
        "/x/*",
        "--consume",
        "ws://me:s3cret@h/z/*",
        "--consume-message",
        "s3cret",
    ];
    let file = File::new("");
    let env = [("WSEVENT_LINGER", "7s")];
    let (code, said, _) = file.run(&args, &env).await;
    assert_eq!(code, 0);
    assert_eq!(values(&said, "upstream"), ["ws://h/z/y"]);
    assert_eq!(values(&said, "upstream-header"), ["authorization"]);
    assert_eq!(values(&said, "consume-message"), ["set, not shown"]);
    assert_eq!(values(&said, "linger"), ["7s"]);
    let (code, _, stderr) = file.run(&["explain", "/x", "--overload", "no"], &[]).await;
    assert_eq!(code, 2, "{stderr}");
    let (code, _, stderr) = file.run(&["explain", "http://"], &[]).await;
    assert_eq!(code, 2, "{stderr}");
}
