//! What hops tell of each other, figures that are compared with it, and the paths of it all.

use crate::topology::ask::Told;
use crate::topology::expect::Expected;
use crate::topology::figure::Figure;
use crate::topology::{Topology, dot, mermaid, plain, plantuml};
use crate::url_path;

/// What an upstream answers to the question what it knows. Of any answer a picture is drawn that can be read again, and nothing that stands
/// in it gets out of its place.
pub fn topology(input: &[u8]) {
    let Ok(told) = serde_json::from_slice::<Told>(input) else {
        return;
    };
    let mut told = told.topology;
    told.cut();
    let json = serde_json::to_vec(&told).expect("it is JSON");
    let again: Topology = serde_json::from_slice(&json).expect("it was JSON");
    assert_eq!(again.nodes.len(), told.nodes.len());
    let mut merged = told.clone();
    merged.merge(&told);
    assert!(merged.nodes.len() <= told.nodes.len());
    let figure = plantuml::render(&merged);
    let lines = figure.lines().count();
    let read =
        Figure::parse(&figure).unwrap_or_else(|error| panic!("{error} of {lines}:\n{figure}"));
    for arrow in &read.arrows {
        assert!(read.shape(&arrow.from).is_some() && read.shape(&arrow.to).is_some());
    }
    assert!(dot::render(&merged).ends_with("}\n"));
    assert!(!mermaid::render(&merged).is_empty());
    for node in &merged.nodes {
        let line = plain(&node.address);
        assert!(!line.contains(char::is_control), "{line:?}");
    }
}

/// A figure in PlantUML, and what it expects of a topology.
pub fn figure(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    match Figure::parse(text) {
        Ok(figure) => {
            for arrow in &figure.arrows {
                assert!(figure.shape(&arrow.from).is_some(), "{arrow:?}");
                assert!(figure.shape(&arrow.to).is_some(), "{arrow:?}");
            }
            match Expected::new(&figure, &[], &[]) {
                Ok(expected) => drop(expected.compare(&Topology::default(), &[])),
                Err(reason) => assert!(!reason.is_empty()),
            }
        }
        Err(wrong) => {
            let lines = text.lines().count().max(1);
            assert!((1..=lines).contains(&wrong.line), "{wrong} of {lines}");
        }
    }
}

/// The path of a request: its one spelling is its own, and leads nowhere else.
pub fn paths(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let Ok(normal) = url_path::normal(text) else {
        return;
    };
    assert_eq!(url_path::normal(&normal), Ok(normal.clone()));
    assert!(normal.is_ascii() && !normal.contains("//") && !normal.contains(char::is_control));
    let mut segments = normal.split('/');
    assert!(!segments.any(|segment| segment == "." || segment == ".."));
    let url = url::Url::parse("http://upstream.example").and_then(|url| url.join(&normal));
    let url = url.unwrap_or_else(|error| panic!("{normal}: {error}"));
    assert_eq!(url.host_str(), Some("upstream.example"));
    assert_eq!(
        url.path(),
        normal,
        "what is asked for upstream is what was looked up here"
    );
}
