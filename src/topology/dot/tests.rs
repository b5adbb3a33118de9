use std::io::Write;
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::super::picture::tests::{HOSTILE, all, hostile};
use super::*;

#[test]
fn a_topology_becomes_a_graph() {
    let text = render(&all());
    let (head, graph) = text.split_once("\n  n1 ").expect("a node");
    assert!(head.starts_with("digraph wsevent {\n  rankdir=LR;\n"));
    let expected = r##"[label="producer\nlocalhost:8080\n/events 10/s", color="#C77C02", fillcolor="#FFF4DB"];
  n2 [label="hop\nlocalhost:9090\n/also 10/s\n/relay 10/s", color="#2F6FB8", fillcolor="#E6F1FF"];
  n3 [label="bus\nredis://localhost:6379/0?channel=x", color="#7B8794", fillcolor="#F2F4F6"];
  n4 [label="server\nwss://feed.example/x", color="#52606D", fillcolor="#FFFFFF"];
  s1 [label="1 subscriber", color="#2E8540", fillcolor="#E6F8E9"];
  n1 -> n2 [label="standby", style=dashed];
  n1 -> n2 [label="/events to /relay\nhop\n10/s\n1.5 ms later"];
  n2 -> n3 [label="redis"];
  n4 -> n2 [label="down: connection refused", color="#C02626", fontcolor="#C02626"];
  n1 -> s1 [label=""];
}
"##;
    assert_eq!(graph, expected);
}

/// The quotes within a line, but those that are escaped.
fn quotes(line: &str) -> usize {
    line.replace("\\\\", "")
        .replace("\\\"", "")
        .matches('"')
        .count()
}

/// However things are called, each line has its quotes, and a name is what it was once its escapes are undone.
fn holds(name: &str) -> Result<(), TestCaseError> {
    let (text, plain) = (render(&hostile(name)), render(&hostile("x")));
    prop_assert_eq!(text.lines().count(), plain.lines().count(), "{}", text);
    for (line, plain) in text.lines().zip(plain.lines()) {
        prop_assert_eq!(quotes(line), quotes(plain), "{}", text);
    }
    let name = super::super::picture::plain(name);
    let undone = escape(&name)
        .replace("\\\"", "\"")
        .replace("\\\\", "\\")
        .replace("&amp;", "&");
    prop_assert_eq!(undone, name);
    Ok(())
}

#[test]
fn hostile_names_stay_names() {
    for name in HOSTILE {
        holds(name).expect(name);
    }
}

proptest! {
    #[test]
    fn any_name_stays_a_name(name in "[^\\\\]*") {
        holds(&name)?;
    }
}

#[test]
fn graphviz_takes_it() {
    if Command::new("dot").arg("-V").output().is_err() {
        eprintln!("there is no dot here to try");
        return;
    }
    for topology in std::iter::once(all()).chain(HOSTILE.map(hostile)) {
        let source = render(&topology);
        let mut dot = Command::new("dot")
            .arg("-Tplain")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("dot");
        let input = dot.stdin.take();
        input
            .expect("it is piped")
            .write_all(source.as_bytes())
            .expect("it reads");
        let output = dot.wait_with_output().expect("it ends");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && told.is_empty(),
            "{source}\n{told}"
        );
        let drawn = String::from_utf8_lossy(&output.stdout);
        let nodes = drawn
            .lines()
            .filter(|line| line.starts_with("node "))
            .count();
        assert_eq!(nodes, source.matches("fillcolor").count(), "{drawn}");
    }
}
