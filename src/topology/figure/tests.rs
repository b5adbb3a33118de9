use std::fs;
use std::path::Path;

use super::*;

fn figure(body: &str) -> Result<Figure, Unreadable> {
    Figure::parse(&format!("@startuml\n{body}\n@enduml\n"))
}

fn reason(body: &str) -> String {
    figure(body).expect_err(body).to_string()
}

const TWO: &str = "rectangle \"a\" <<produce>> as a\nrectangle \"b\" <<hop>> as b\n";

/// The arrows of a line between the two: from, to, whether it must be there.
fn arrows(line: &str) -> Vec<(String, String, bool)> {
    let figure = figure(&format!("{TWO}{line}")).expect(line);
    figure
        .arrows
        .into_iter()
        .map(|arrow| (arrow.from, arrow.to, arrow.must))
        .collect()
}

#[test]
fn boxes_say_what_and_where_they_are() {
    let text = r#"' what it is
left to right direction
skinparam ranksep 30
skinparam rectangle {
  BorderColor<<hop>> #2F6FB8
}
hide stereotype
title A chain
rectangle "<size:15><b>producer</b></size>\n<color:#7B8794>ten events a second</color>\n\n<font:Liberation Mono>localhost:8080</font>\n<font:Liberation Mono>/events</font>" <<produce>> as producer
rectangle "hop\n[::1]:9090/relay\n/also 10/s" as relay <<hop>> #FFEEDD
database "Redis\nredis:/<U+002F>localhost:6379?channel<U+003D>x" <<bus>> as redis
rectangle "curl -N :8000/sse\n9999 the-end" <<client>> as curl"#;
    let shapes = figure(text).expect("a figure").shapes;
    let said: Vec<_> = shapes
        .iter()
        .map(|shape| {
            format!(
                "{} {:?} {} {}",
                shape.alias,
                shape.class,
                shape.place.as_deref().unwrap_or("-"),
                shape.paths.join(",")
            )
        })
        .collect();
    let expected = [
        "producer Produce localhost:8080 /events",
        "relay Hop [::1]:9090/relay /relay,/also",
        "redis Bus redis://localhost:6379?channel=x ",
        "curl Client - ",
    ];
    assert_eq!(said, expected);
}

#[test]
fn arrows_have_a_direction() {
    let (ab, ba) = (
        ("a".to_owned(), "b".to_owned(), true),
        ("b".to_owned(), "a".to_owned(), true),
    );
    let may = |(from, to, _): &(String, String, bool)| (from.clone(), to.clone(), false);
    for line in [
        "a --> b",
        "a->b",
        "a -down-> b : text --> c",
        "a -[#C02626]-> b",
        "a -[#red]right-> b",
        "b <-- a",
        "a ---> b:x",
    ] {
        assert_eq!(arrows(line), std::slice::from_ref(&ab), "{line}");
    }
    for line in [
        "a ..> b",
        "a -[#C02626,dashed]-> b",
        "a .down.> b",
        "b <.. a",
    ] {
        assert_eq!(arrows(line), [may(&ab)], "{line}");
    }
    assert_eq!(arrows("a <--> b : both"), [ab.clone(), ba.clone()]);
    assert_eq!(arrows("a <..> b"), [may(&ab), may(&ba)]);
}

#[test]
fn what_is_not_understood_is_an_error_with_its_line() {
    let cases = [
        ("nonsense", "line 2: 'nonsense' is neither a box"),
        ("!include x", "line 2: '!include x' is neither"),
        ("rectangle \"x\" <<hop>>", "line 2: a box needs an alias"),
        ("rectangle \"x\" as x", "line 2: x needs a stereotype"),
        (
            "rectangle \"x\" <<hob>> as x",
            "line 2: x needs a stereotype",
        ),
        (
            "rectangle \"x\" <<hop>> as x {",
            "line 2: what does '{' mean",
        ),
        (
            "\nrectangle \"x\" <<hop>> as x\nrectangle \"y\" <<hop>> as x",
            "line 4: there is another box",
        ),
        (
            "rectangle \"x\" <<hop>> as x\nx --> y",
            "line 3: no box above has the alias y",
        ),
        (
            "rectangle \"x\" <<hop>> as x\nx -- x",
            "line 3: the line between x and x has no head",
        ),
    ];
    for (body, expected) in cases {
        let reason = reason(body);
        assert!(reason.starts_with(expected), "{body}: {reason}");
    }
    let parts = [
        ("", "a figure begins with @startuml"),
        ("rectangle", "a figure begins with @startuml"),
        ("@startuml\n", "@enduml is missing"),
        ("@startuml\nskinparam x {\n", "@enduml is missing"),
        ("@startuml\n@enduml\n@startuml", "a file holds one figure"),
    ];
    for (text, expected) in parts {
        let error = Figure::parse(text).expect_err(text);
        assert!(error.reason.starts_with(expected), "{text}: {error}");
    }
}

#[test]
fn all_figures_of_the_documentation_can_be_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/puml");
    let mut count = 0;
    for file in fs::read_dir(folder).expect("docs/puml") {
        let path = file.expect("a file").path();
        let text = fs::read_to_string(&path).expect("text");
        let figure =
            Figure::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(
            !figure.shapes.is_empty() && !figure.arrows.is_empty(),
            "{}",
            path.display()
        );
        count += 1;
    }
    assert!(count >= 10);
}
