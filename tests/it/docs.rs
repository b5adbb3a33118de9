//! What is written about the flags is what the binary says itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use regex::Regex;

use crate::harness::wsevent::output;

/// What is known of a flag beside its meaning.
#[derive(Debug, Default, PartialEq, Eq, Clone)]
struct Flag {
    variable: String,
    default: Option<String>,
}

type Flags = BTreeMap<String, Flag>;

/// `[key: value]` in a line of `--help`.
fn bracketed<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let rest = line
        .strip_prefix('[')?
        .strip_prefix(key)?
        .strip_prefix(": ")?;
    rest.strip_suffix(']')
}

/// The long flags in what `--help` prints.
async fn flags_of(args: &[&str]) -> Flags {
    let output = output(args, &[]).await;
    let help = String::from_utf8(output.stdout).expect("help is text");
    let mut flags = Flags::new();
    let mut current = None;
    let (flags_help, _) = help.split_once("\nExamples:").unwrap_or((&help, ""));
    for line in flags_help.lines().map(str::trim) {
        let names = line.split(", ").find(|name| name.starts_with("--"));
        if line.starts_with('-')
            && let Some(name) = names
        {
            let name = name.split([' ', '=']).next().unwrap_or(name).to_owned();
            flags.insert(name.clone(), Flag::default());
            current = Some(name);
        }
        let Some(flag) = current.as_ref().and_then(|name| flags.get_mut(name)) else {
            continue;
        };
        if let Some(variable) = bracketed(line, "env") {
            flag.variable = variable.trim_end_matches('=').to_owned();
        }
        if let Some(default) = bracketed(line, "default") {
            flag.default = Some(default.to_owned());
        }
    }
    // That is there with the feature otel only; the README has words about it elsewhere.
    let others = ["--help", "--version", "--otlp-endpoint"];
    flags.retain(|name, _| !others.contains(&name.as_str()));
    assert!(!flags.is_empty(), "{help}");
    flags
}

/// What stands in a table's cell, without the marks that make it code.
fn code(cell: &str) -> Option<&str> {
    cell.trim().strip_prefix('`')?.strip_suffix('`')
}

/// Whose flags stand below a heading.
fn owner(heading: &str) -> &'static str {
    match heading.trim_start_matches(['#', ' ']) {
        "`wsevent`, as a hop" => "hop",
        "`wsevent tail`" => "tail",
        "`wsevent record`" => "record",
        "`wsevent replay`" => "replay",
        "`wsevent man`" => "man",
        "`wsevent publish`" => "publish",
        "`wsevent bench`" => "bench",
        "`wsevent trace`" => "trace",
        "`wsevent topology`" => "topology",
        "`wsevent proxy`" => "proxy",
        "`wsevent forwarder`" => "forwarder",
        "The hop and the clients" => "connections",
        "The hop and the proxy" => "servers",
        "All" => "all",
        other => panic!("whose flags are below '{other}'?"),
    }
}

/// The README's tables between its two marks: flag, variable, default, meaning. The heading before a table says whose they
/// are.
fn flags_in_readme() -> Flags {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(path).expect("there is a README.md");
    let (_, rest) = readme
        .split_once("<!-- flags:begin -->")
        .expect("where it begins");
    let (tables, _) = rest
        .split_once("<!-- flags:end -->")
        .expect("where it ends");
    let mut flags = Flags::new();
    let mut owner = None;
    for row in tables.lines() {
        if row.starts_with('#') {
            owner = Some(self::owner(row));
        }
        if !row.starts_with("| `--") {
            continue;
        }
        let row = row.replace("\\|", "/");
        let cells: Vec<_> = row.trim_matches('|').split('|').collect();
        assert_eq!(cells.len(), 4, "{row}");
        let flag = code(cells[0]).expect("a flag is code");
        let name = flag.split(' ').next().expect("it has a name");
        let name = format!("{} {name}", owner.expect("a heading before it"));
        assert!(!cells[3].trim().is_empty(), "{name} has no meaning");
        let flag = Flag {
            variable: code(cells[1]).expect("a variable is code").to_owned(),
            // In words it is what happens without the flag.
            default: code(cells[2]).map(str::to_owned),
        };
        if let Some(earlier) = flags.insert(name.clone(), flag.clone()) {
            assert_eq!(earlier, flag, "{name} stands there twice");
        }
    }
    flags
}

#[tokio::test]
async fn the_readme_names_exactly_the_flags_there_are() {
    let mut commands = [
        ("hop", flags_of(&["--help"]).await),
        ("tail", flags_of(&["tail", "--help"]).await),
        ("publish", flags_of(&["publish", "--help"]).await),
        ("bench", flags_of(&["bench", "--help"]).await),
        ("record", flags_of(&["record", "--help"]).await),
        ("replay", flags_of(&["replay", "--help"]).await),
        ("man", flags_of(&["man", "--help"]).await),
        ("trace", flags_of(&["trace", "--help"]).await),
        ("topology", flags_of(&["topology", "--help"]).await),
        ("proxy", flags_of(&["proxy", "--help"]).await),
        ("forwarder", flags_of(&["forwarder", "--help"]).await),
    ];
    // A replay is a hop, and has all of its flags; they stand there once.
    let of_a_hop = commands[0].1.clone();
    for (command, own) in &mut commands {
        match *command {
            "replay" => own.retain(|name, _| !of_a_hop.contains_key(name)),
            // What counts in every role is not counted for it.
            "man" => own.retain(|name, _| !name.starts_with("--log-")),
            _ => {}
        }
    }
    let mut flags = Flags::new();
    for (command, own) in &commands {
        for (name, flag) in own {
            // What is the same for several stands there once.
            let same = commands
                .iter()
                .filter(|(_, flags)| flags.get(name) == Some(flag));
            let same: Vec<_> = same.map(|(command, _)| *command).collect();
            let owner = match same[..] {
                [
                    "hop",
                    "tail",
                    "publish",
                    "bench",
                    "record",
                    "trace",
                    "topology",
                    "proxy",
                    "forwarder",
                ] => "all",
                // Of messages and peers that are not events and upstreams.
                _ if *command == "forwarder" => command,
                ["hop", "tail", "publish", ..] => "connections",
                ["hop", "proxy"] => "servers",
                _ => command,
            };
            flags.insert(format!("{owner} {name}"), flag.clone());
        }
    }
    let readme = flags_in_readme();
    let missing: Vec<_> = flags
        .keys()
        .filter(|name| !readme.contains_key(*name))
        .collect();
    let too_many: Vec<_> = readme
        .keys()
        .filter(|name| !flags.contains_key(*name))
        .collect();
    assert!(missing.is_empty(), "README.md lacks {missing:?}");
    assert!(
        too_many.is_empty(),
        "README.md has {too_many:?}, which --help has not"
    );
    for (name, flag) in &flags {
        assert_eq!(&readme[name], flag, "{name}: README.md, and --help");
    }
}

#[tokio::test]
async fn every_flag_has_a_variable_named_after_it() {
    for args in [
        &["--help"][..],
        &["tail", "--help"],
        &["publish", "--help"],
        &["bench", "--help"],
        &["doctor", "--help"],
        &["record", "--help"],
        &["replay", "--help"],
        &["man", "--help"],
        &["trace", "--help"],
        &["topology", "--help"],
        &["proxy", "--help"],
        &["forwarder", "--help"],
    ] {
        for (name, flag) in flags_of(args).await {
            let name = name
                .trim_start_matches('-')
                .to_uppercase()
                .replace('-', "_");
            // A variable of that name means something else to another command.
            let name = match (args, &*name) {
                (["tail", ..], "HISTORY") => "TAIL_HISTORY".to_owned(),
                (["record", ..], "HISTORY") => "RECORD_HISTORY".to_owned(),
                (["record", ..], "TRANSPORT") => "RECORD_TRANSPORT".to_owned(),
                (["trace", ..], "HISTORY") => "TRACE_HISTORY".to_owned(),
                (["publish", ..], "TRANSPORT") => "PUBLISH_TRANSPORT".to_owned(),
                (["bench", ..], "TRANSPORT" | "RATE" | "DURATION") => format!("BENCH_{name}"),
                _ => name,
            };
            assert_eq!(flag.variable, format!("WSEVENT_{name}"));
        }
    }
}

/// Whether there is this test in `src`: in the file of its module, or in that of the module's tests.
fn is_in_src(path: &str) -> bool {
    let (module, name) = path.rsplit_once("::").expect("a module and a name");
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let file = module.replace("::", "/");
    let files = [file.clone(), file.trim_end_matches("/tests").to_owned()];
    let mut texts = files
        .iter()
        .filter_map(|file| std::fs::read_to_string(src.join(format!("{file}.rs"))).ok());
    // Those of the fuzz targets are made by a macro.
    let (seeds, zmtp) = (format!("\n    {name} "), format!("fn {name}("));
    texts.any(|text| text.contains(&zmtp) || text.contains("seeds! {") && text.contains(&seeds))
}

#[test]
fn each_row_of_the_threat_model_names_its_tests_and_they_exist() {
    let own = std::env::current_exe().expect("this test has a file");
    let listed = std::process::Command::new(own).arg("--list").output();
    let listed = String::from_utf8(listed.expect("it runs").stdout).expect("names are text");
    let tests: Vec<_> = listed
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/threat-model.md");
    let text = std::fs::read_to_string(path).expect("there is a docs/threat-model.md");
    let (mut rows, mut in_table) = (0, false);
    for line in text.lines() {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        if !line.starts_with('|')
            || cells
                == [
                    "abuse",
                    "what holds",
                    "flag and default",
                    "in → out",
                    "test",
                ]
        {
            in_table = line.starts_with('|');
            continue;
        }
        if !in_table || line.starts_with("| ---") {
            continue;
        }
        rows += 1;
        assert_eq!(cells.len(), 5, "{line}");
        let names: Vec<_> = cells[4].split(", ").filter_map(code).collect();
        assert!(!names.is_empty(), "no test: {line}");
        for name in names {
            let exists = match name.strip_prefix("wsevent::") {
                Some(path) => is_in_src(path),
                None => tests.contains(&name),
            };
            assert!(exists, "there is no test {name}");
        }
    }
    assert!(rows > 40, "{rows} rows");
}

/// All documents, by their paths from the root.
fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["", "docs", "docs/scenarios"].map(|folder| root.join(folder));
    let entries = folders
        .iter()
        .flat_map(|folder| std::fs::read_dir(folder).expect("there is such a folder"));
    let paths = entries.map(|entry| entry.expect("it can be read").path());
    paths
        .filter(|path| path.extension().is_some_and(|it| it == "md"))
        .collect()
}

/// What a heading is called in links to it.
fn anchor(heading: &str) -> String {
    let link = Regex::new(r"\[([^\]]*)\]\([^)]*\)").expect("an expression");
    let text = link.replace_all(heading, "$1").trim().to_lowercase();
    let kept = text.chars().filter_map(|letter| match letter {
        ' ' => Some('-'),
        '-' | '_' => Some(letter),
        _ => letter.is_alphanumeric().then_some(letter),
    });
    kept.collect()
}

#[test]
fn links_between_documents_lead_somewhere() {
    let link = Regex::new(r"\]\(([^)\s]+)\)").expect("an expression");
    let mut links = 0;
    for document in documents() {
        let text = std::fs::read_to_string(&document).expect("it is text");
        for link in link.captures_iter(&text) {
            let target = &link[1];
            if target.contains("://") {
                continue;
            }
            links += 1;
            let (path, wanted) = target.split_once('#').unwrap_or((target, ""));
            let path = match path {
                "" => document.clone(),
                _ => document.parent().expect("a folder").join(path),
            };
            assert!(path.exists(), "{}: {target}", document.display());
            if !wanted.is_empty() {
                let there = std::fs::read_to_string(&path).expect("it is text");
                let headings = there.lines().filter(|line| line.starts_with('#'));
                let mut anchors = headings.map(|heading| anchor(heading.trim_start_matches('#')));
                assert!(
                    anchors.any(|anchor| anchor == wanted),
                    "{}: there is no heading for {target}",
                    document.display()
                );
            }
        }
    }
    assert!(links > 50, "{links} links");
}
