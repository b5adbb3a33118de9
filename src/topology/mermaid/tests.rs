use proptest::prelude::*;

use super::super::picture::tests::{HOSTILE, all, hostile};
use super::*;

#[test]
fn a_topology_becomes_a_flowchart() {
    let expected = r##"flowchart LR
  n1["producer<br>localhost:8080<br>/events 10/s"]:::produce
  n2["hop<br>localhost:9090<br>/also 10/s<br>/relay 10/s"]:::hop
  n3["bus<br>redis://localhost:6379/0#63;channel#61;x"]:::bus
  n4["server<br>wss://feed.example/x"]:::foreign
  s1["1 subscriber"]:::client
  n1 -.->|"standby"| n2
  n1 -->|"/events to /relay<br>hop<br>10/s<br>1.5 ms later"| n2
  n2 -->|"redis"| n3
  n4 -->|"down: connection refused"| n2
  n1 --> s1
  linkStyle 3 stroke:#C02626,color:#C02626
"##;
    let text = render(&all());
    let (chart, classes) = text.split_once("  classDef ").expect("classes");
    assert_eq!(chart, expected);
    assert!(classes.starts_with("produce fill:#FFF4DB,stroke:#C77C02,color:#1F2933\n"));
}

/// Within the quotes there is nothing that could mean anything, but numbers of characters and our own line breaks.
fn holds(name: &str) -> Result<(), TestCaseError> {
    let text = render(&hostile(name));
    prop_assert_eq!(text.lines().count(), render(&hostile("x")).lines().count());
    let labels: Vec<_> = text.split('"').skip(1).step_by(2).collect();
    prop_assert_eq!(labels.len(), 4, "{}", text);
    for label in labels {
        let rest = label.replace("<br>", "");
        prop_assert!(
            !rest.contains(['<', '>', '&', '`', '\\', '|', '%', '\n']),
            "{}",
            text
        );
        for code in rest.split('#').skip(1) {
            let number = code.split(';').next().unwrap_or_default();
            prop_assert!(number.parse::<u32>().is_ok(), "{}", text);
        }
    }
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
