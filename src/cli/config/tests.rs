use std::collections::BTreeMap;
use std::io::Write as _;

use super::*;

const EXAMPLE: &str = include_str!("../../../docs/wsevent.toml");

fn load(text: &str) -> Result<Vec<Policy>, Vec<(usize, String)>> {
    let mut file = tempfile::NamedTempFile::new().expect("a file for the test");
    file.write_all(text.as_bytes()).expect("the file is ours");
    let config = ConfigFile::at(file.path()).expect("there is nothing beside it");
    match config.load() {
        Ok(loaded) => Ok(loaded.hop.routes),
        Err(unusable) => {
            let faults = unusable.faults().into_iter();
            Err(faults
                .map(|fault| (fault.line.unwrap_or_default(), fault.reason))
                .collect())
        }
    }
}

fn faults(text: &str) -> Vec<(usize, String)> {
    load(text).err().unwrap_or_default()
}

/// The first fault of a route with these lines, and the line among them.
fn fault(lines: &str) -> (usize, String) {
    let text = format!("[[route]]\nserve-path = \"/a\"\n{lines}\n");
    let faults = faults(&text);
    let (line, reason) = faults.first().cloned().unwrap_or_default();
    (line.saturating_sub(2), reason)
}

fn words(lines: &str) -> Vec<String> {
    let text = format!("[[route]]\nserve-path = \"/a\"\n{lines}\n");
    let routes = load(&text).unwrap_or_else(|faults| panic!("{lines}: {faults:?}"));
    routes[0].words[1..].to_vec()
}

#[test]
fn values_become_what_stands_on_a_command_line() {
    for (lines, expected) in [
        ("history = \"1MiB\"", &["--history=1MiB"][..]),
        ("history = 1_000", &["--history=1000"]),
        ("history = 0x10", &["--history=16"]),
        ("produce-rate = 0.5", &["--produce-rate=0.5"]),
        ("produce-rate = \"max\"", &["--produce-rate=max"]),
        ("accept-publish = true", &["--accept-publish"]),
        ("accept-publish = false", &[]),
        ("consume = []", &[]),
        ("consume = \"ws://a\"", &["--consume=ws://a"]),
        (
            "consume = [\"ws://b\", \"ws://a\"]",
            &["--consume=ws://b", "--consume=ws://a"],
        ),
        (
            "consume-message = '''-a\nb'''\nconsume = \"ws://a\"",
            &["--consume=ws://a", "--consume-message=-a\nb"],
        ),
        (
            "consume = \"ws://a\"\nconsume-login = [{ send = \"x\", expect = \"y\" }, { send = \"z\" }]",
            &[
                "--consume=ws://a",
                "--consume-message=x",
                "--consume-expect=y",
                "--consume-message=z",
            ],
        ),
    ] {
        assert_eq!(words(lines), expected, "{lines}");
    }
    // The order of the names means nothing.
    assert_eq!(
        words("linger = \"1s\"\nkey-query = \"x\""),
        words("key-query = \"x\"\nlinger = \"1s\"")
    );
}

#[test]
fn what_is_wrong_with_a_value_is_said_at_its_line() {
    for (lines, line, reason) in [
        ("history = true", 1, "history is one string or number"),
        ("history = [\"1\"]", 1, "history is one string or number"),
        (
            "\nhistory = \"10 parsecs\"",
            2,
            "invalid value '10 parsecs' for history: unknown unit 'parsecs': use KiB, MiB or GiB",
        ),
        ("produce = \"yes\"", 1, "produce is true or false"),
        (
            "consume = { url = 1 }",
            1,
            "consume is a string or a number, or a list of these",
        ),
        (
            "consume = [\n\"ws://a\",\n1979-05-27]",
            3,
            "consume is a list of strings or numbers",
        ),
        (
            "consume = [\n\"ws://a\",\n\"ftp://a\"]",
            3,
            "'ftp://a' is no event URL: ws://, wss://, http:// and https:// are (consume takes those of buses and file:// too)",
        ),
        (
            "consume = [\n\"ws://a/\",\n\"ws://a/*\"]",
            3,
            "consume with serve-path /a: it ends in /*, so the path that is served has to as well, such as serve-path '/live/*'",
        ),
        (
            "linger = \"1s\"",
            1,
            "linger is for streams that come and go: it needs a serve-path that ends in /*, or key-query",
        ),
        (
            "consume = \"ws://a\"\nconsume-cert = \"x\"",
            2,
            "consume-key is needed as well",
        ),
        (
            "produce = true\nno-produce = true",
            1,
            "produce and no-produce exclude each other",
        ),
        (
            "consume-login = [{ say = \"x\" }]",
            1,
            "consume-login is a list of steps: { send = \"…\" } and { expect = \"…\" }",
        ),
        (
            "consume-message = \"x\"\nconsume-login = []",
            2,
            "what is sent and what is expected has an order, and line 3 has another part of it: put all of it into consume-login",
        ),
        (
            "acceptpublish = true",
            1,
            "there is no 'acceptpublish': did you mean 'accept-publish'?",
        ),
        (
            "xyzzy = true",
            1,
            "there is no 'xyzzy': the names are those of the flags in wsevent --help",
        ),
        (
            "drain = \"1s\"",
            1,
            "drain is about the process, not about a route: it belongs at the top of the file",
        ),
        (
            "serve = \"a:1/b\"",
            1,
            "serve says address and path at once: here they are serve-address, at the top, and serve-path, in a [[route]]",
        ),
        ("config = \"x\"", 1, "a file cannot name another one"),
        (
            "history = ",
            1,
            "string values must be quoted, expected literal string",
        ),
    ] {
        assert_eq!(fault(lines), (line, reason.to_owned()), "{lines}");
    }
}

#[test]
fn all_that_is_wrong_is_said() {
    let text = "\
drain = 5
consum-header = \"x\"
[[route]]
serve-path = \"/a\"
history = \"x\"
linger = \"x\"
allow-origin = [\"https://a.example\", \"b\"]
[[route]]
accept-publish = true
[[route]]
serve-path = \"/a\"
[[route]]
serve-path = \"b?\"
ping-interval = \"1ms\"
";
    let lines: Vec<_> = faults(text).into_iter().map(|(line, _)| line).collect();
    assert_eq!(lines, [1, 2, 5, 6, 7, 8, 11, 13, 14]);
    for (text, line, begins) in [
        ("", 0, "nothing is served"),
        ("serve-address = \"a:1\"", 0, "nothing is served"),
        ("route = 1", 1, "a route begins with [[route]]"),
        (
            "[route]\nserve-path = \"/a\"",
            1,
            "a route begins with [[route]]",
        ),
        (
            "\nserve-path = \"/a\"\n[[route]]\nserve-path = \"/a\"",
            2,
            "serve-path belongs into a [[route]]",
        ),
        ("[[route]\n", 1, "unclosed array table"),
        (
            "[[route]]\nserve-path = \"/a\"\nserve-path = \"/a\"",
            3,
            "duplicate key",
        ),
        (
            "serve-address = \"x\"\n[[route]]\nserve-path = \"/a\"",
            1,
            "serve-address: 'x' is not HOST:PORT",
        ),
        (
            "tls-cert = \"x\"\n[[route]]\nserve-path = \"/a\"",
            1,
            "tls-key is needed as well",
        ),
        (
            "log-level = \"loud\"\n[[route]]\nserve-path = \"/a\"",
            1,
            "invalid value 'loud' for log-level",
        ),
        (
            "log-format = \"xml\"\n[[route]]\nserve-path = \"/a\"",
            1,
            "invalid value 'xml' for log-format: human or json is expected",
        ),
        (
            "serve-address = \"localhost:9\"\n[[route]]\nserve-path = \"/a\"\nconsume = \"ws://127.0.0.1:9/a\"",
            3,
            "ws://127.0.0.1:9/a is what this hop itself would serve",
        ),
        (
            "serve-address = \"0.0.0.0:9\"\n[[route]]\nserve-path = \"/a\"\naccept-publish = true",
            1,
            "everyone who reaches 0.0.0.0:9 could publish at /a",
        ),
    ] {
        let faults = faults(text);
        assert_eq!(faults.len(), 1, "{text}: {faults:?}");
        assert_eq!(faults[0].0, line, "{text}: {faults:?}");
        assert!(faults[0].1.starts_with(begins), "{text}: {faults:?}");
    }
}

#[test]
fn what_stands_at_the_top_holds_where_it_makes_sense_and_nothing_else_is_said() {
    let text = "\
linger = \"1s\"
accept-publish = true
consume-header = \"a: b\"
history-count = 7
produce-rate = 3
[[route]]
serve-path = \"/a\"
[[route]]
serve-path = \"/b/*\"
accept-publish = false
consume = \"ws://x/*\"
history-count = 8
[[route]]
serve-path = \"/c\"
accept-publish = false
no-produce = false
";
    let routes = load(text).unwrap_or_else(|faults| panic!("{faults:?}"));
    let [a, b, c] = &routes[..] else {
        panic!("three routes")
    };
    let counts = routes.iter().map(|route| route.history.count);
    assert_eq!(counts.collect::<Vec<_>>(), [Some(7), Some(8), Some(7)]);
    assert!(a.subscribers.accept_publish && a.produce.is_none());
    assert!(!b.subscribers.accept_publish && b.produce.is_none());
    assert_eq!(b.linger.as_secs(), 1);
    assert_eq!(b.upstreams[0].headers.len(), 1);
    assert!(!c.subscribers.accept_publish && c.produce.is_some());
}

#[test]
fn no_value_that_may_be_a_secret_is_shown() {
    let text = "\
[[route]]
serve-path = \"/a\"
consume = [\"ftp://me:s3cret@a\", \"ws://h/?s3cret\"]
consume-header = \"s3cret\"
[[route]]
serve-path = \"/b\"
consume = \"ws://me:s3cret@h/\"
consume-header = \"s3cret: \\u007fs3cret\"
consume-login = [{ send = \"s3cret\" }, { send = \"${s3-cret\" }]
[[route]]
serve-path = \"/c\"
consume = \"ws://h/\"
consume-keepalive = \"s3cret every day\"
[[route]]
serve-path = \"/d\"
consume-message = [true, \"s3cret\"]
";
    let faults = faults(text);
    assert!(faults.len() >= 4, "{faults:?}");
    let said = faults.iter().filter(|(_, said)| said.contains("s3cret"));
    // A header's name is none.
    let said: Vec<_> = said.filter(|(line, _)| *line != 8).collect();
    assert!(said.is_empty(), "{said:?}");
    let broken = self::faults("[[route]]\nserve-path = \"/a\"\nconsume = \"s3cret\nx = s3cret\n");
    assert!(
        !broken.is_empty() && !format!("{broken:?}").contains("s3cret"),
        "{broken:?}"
    );
}

#[test]
fn a_thousand_routes_are_read() {
    let route =
        |number| format!("[[route]]\nserve-path = \"/{number}\"\nconsume = \"wss://h/{number}\"\n");
    let text: String = (0..1_000).map(route).collect();
    assert_eq!(load(&text).map(|routes| routes.len()), Ok(1_000));
}

#[test]
fn the_example_is_good_and_names_all_there_is() {
    let routes = load(EXAMPLE).unwrap_or_else(|faults| panic!("{faults:?}"));
    assert_eq!(routes.len(), 5);
    let flags = Flags::of_a_file();
    let (process, _) = EXAMPLE
        .split_once("# --- All routes")
        .expect("its first part");
    let (_, more) = EXAMPLE
        .split_once("# --- What else")
        .expect("its last part");
    // A blank before the equals sign: prose has none.
    let pairs = |text: &str| -> BTreeMap<String, String> {
        let lines = text.lines().map(|line| line.trim_start_matches("# "));
        let pairs = lines.filter_map(|line| line.split_once(" = "));
        pairs
            .filter(|(name, _)| !name.contains(' '))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    };
    let (process, route) = (pairs(process), pairs(more));
    let command = Args::command();
    for flag in flags.all() {
        // That is there with the feature otel only, which is off by default.
        if matches!(&*flag.name, "serve-path" | "otlp-endpoint") {
            continue;
        }
        let pairs = if flag.is_of_route { &route } else { &process };
        let value = pairs.get(&flag.name);
        let value = value.unwrap_or_else(|| panic!("docs/wsevent.toml lacks {}", flag.name));
        // It can be read, and is the default where there is one.
        let value = format!("x = {value}");
        let table = toml::de::DeTable::parse(&value).expect("it is TOML");
        let shown = match table.get_ref().get("x").expect("it is there").get_ref() {
            toml::de::DeValue::String(text) => text.to_string(),
            toml::de::DeValue::Integer(number) => number.to_string(),
            toml::de::DeValue::Boolean(is_on) => is_on.to_string(),
            _ => continue,
        };
        let arg = command
            .get_arguments()
            .find(|arg| arg.get_id() == flag.id.as_str());
        let arg = arg.expect("it is a flag");
        let default = arg.get_default_values().first();
        if let Some(default) = default.filter(|_| !arg.is_hide_default_value_set()) {
            assert_eq!(shown, default.to_string_lossy(), "{}", flag.name);
        }
    }
    let is_known = |name: &&String| flags.position(name).is_some();
    let unknown: Vec<_> = process
        .keys()
        .chain(route.keys())
        .filter(|name| !is_known(name))
        .collect();
    assert!(unknown.is_empty(), "docs/wsevent.toml has {unknown:?}");
}
