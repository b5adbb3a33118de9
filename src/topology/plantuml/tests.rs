use std::io::Write;
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::super::figure::Figure;
use super::super::picture::tests::{HOSTILE, all, hostile};
use super::*;

/// What stands behind the look of it all.
fn body(text: &str) -> &str {
    text.split_once("hide stereotype\n\n").expect("a figure").1
}

#[test]
fn a_topology_becomes_a_figure() {
    let text = render(&all());
    let expected = r#"rectangle "<size:15><b>producer</b></size>\n\n<font:Liberation Mono>localhost:8080</font>\n<font:Liberation Mono>/events 10/s</font>" <<produce>> as n1
rectangle "<size:15><b>hop</b></size>\n\n<font:Liberation Mono>localhost:9090</font>\n<font:Liberation Mono>/also 10/s</font>\n<font:Liberation Mono>/relay 10/s</font>" <<hop>> as n2
rectangle "<size:15><b>bus</b></size>\n\n<font:Liberation Mono>redis:/<U+002F>localhost:6379/0<U+003F>channel<U+003D>x</font>" <<bus>> as n3
rectangle "<size:15><b>server</b></size>\n\n<font:Liberation Mono>wss:/<U+002F>feed.example/x</font>" <<foreign>> as n4
rectangle "<size:15><b>1 subscriber</b></size>" <<client>> as s1

n1 ..> n2 : standby\n<size:3> </size>
n1 --> n2 : /events to /relay\nhop\n10/s\n1.5 ms later\n<size:3> </size>
n2 --> n3 : redis\n<size:3> </size>
n4 -[#C02626]-> n2 : <color:#C02626>down: connection refused</color>\n<size:3> </size>
n1 --> s1
@enduml
"#;
    assert_eq!(body(&text), expected);
}

/// However things are called, the figure has the same lines, and says the names when it is read.
fn holds(name: &str) -> Result<(), TestCaseError> {
    let text = render(&hostile(name));
    prop_assert_eq!(
        text.lines().count(),
        render(&hostile("x")).lines().count(),
        "{}",
        text
    );
    let shapes = body(&text)
        .lines()
        .filter(|line| line.starts_with("rectangle \""));
    prop_assert_eq!(shapes.count(), 3, "{}", text);
    let quotes = body(&text).matches('"').count();
    prop_assert_eq!(quotes, 6, "{}", text);
    let figure = Figure::parse(&text);
    prop_assert!(figure.is_ok(), "{:?}: {}", figure, text);
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
    fn any_name_stays_a_name(name in any::<String>()) {
        holds(&name)?;
    }
}

#[test]
fn plantuml_draws_what_strangers_call_things_as_they_do() {
    if Command::new("plantuml").arg("-version").output().is_err() {
        eprintln!("there is no plantuml here to try");
        return;
    }
    let topologies: Vec<_> = std::iter::once(all()).chain(HOSTILE.map(hostile)).collect();
    let sources: Vec<_> = topologies.iter().map(render).collect();
    let mut drawing = Command::new("plantuml")
        .args(["-pipe", "-tsvg", "-charset", "UTF-8", "-nometadata"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("plantuml");
    let mut input = drawing.stdin.take().expect("it is piped");
    input
        .write_all(sources.concat().as_bytes())
        .expect("it reads");
    drop(input);
    let output = drawing.wait_with_output().expect("it ends");
    let drawn = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{drawn}");
    let figures: Vec<_> = drawn
        .split_inclusive("</svg>")
        .filter(|figure| figure.contains("<svg"))
        .collect();
    assert_eq!(figures.len(), sources.len());
    for (svg, source) in figures.into_iter().zip(sources) {
        let is_wrong = ["Syntax Error", "<a ", "<image", "Dot Executable"]
            .iter()
            .any(|sign| svg.contains(sign));
        assert!(!is_wrong, "{source}\n{svg}");
        let boxes = source.matches("rectangle \"").count();
        assert!(
            svg.matches("<rect ").count() >= boxes && svg.matches("<text ").count() > boxes,
            "{source}\n{svg}"
        );
    }
}
