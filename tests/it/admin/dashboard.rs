//! The dashboard and the alerts in docs: what they ask for is what a hop tells, by somebody else's parser of PromQL.

use std::path::Path;

use saphyr::{LoadableYamlNode, Yaml};
use serde_json::Value;

use super::metrics::{Families, families};
use crate::peers::{Language, Peer};

/// What Prometheus adds to each sample.
const ADDED: [&str; 2] = ["instance", "job"];

fn document(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("docs")
        .join(name);
    std::fs::read_to_string(path).expect("it is in docs")
}

/// All strings with this key, wherever they stand.
fn all_of<'v>(key: &str, value: &'v Value, found: &mut Vec<&'v str>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if name == key => found.push(text),
                    value => all_of(key, value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| all_of(key, value, found)),
        _ => {}
    }
}

/// What is wrong with expressions that were each found under a name.
async fn wrong(expressions: &[(String, String)], there: &Families) -> Vec<String> {
    let args: Vec<_> = expressions.iter().map(|(_, it)| it.as_str()).collect();
    let mut peer = Peer::start(Language::Python, "promql", &args);
    let mut wrong = vec![];
    for (name, expression) in expressions {
        let parsed = peer.says().await;
        let mut labels: Vec<_> = parsed["grouped"].as_array().expect("a list").clone();
        let selected = parsed["selected"].as_array().expect("a list");
        let mut known = ADDED.map(str::to_owned).to_vec();
        for one in selected {
            let metric = one["metric"].as_str().expect("a name");
            let Some((kind, its)) = there.get(metric) else {
                wrong.push(format!("{name}: there is no {metric}"));
                continue;
            };
            known.extend(its.iter().cloned());
            labels.extend(one["labels"].as_array().expect("a list").iter().cloned());
            if (kind == "counter") != (one["rated"] == true) {
                wrong.push(format!("{name}: {metric} is a {kind}: {expression}"));
            }
        }
        for label in labels {
            let label = label.as_str().expect("a name");
            if !known.iter().any(|it| it == label) {
                wrong.push(format!(
                    "{name}: nothing has the label {label}: {expression}"
                ));
            }
        }
    }
    peer.ends().await;
    wrong
}

/// A title, and what is asked for below it.
fn panels(dashboard: &Value) -> Vec<(String, String)> {
    let panels = dashboard["panels"].as_array().expect("panels");
    let mut found = vec![];
    for panel in panels {
        let title = panel["title"].as_str().expect("a title");
        let mut expressions = vec![];
        all_of("expr", panel, &mut expressions);
        assert_eq!(expressions.is_empty(), panel["type"] == "row", "{title}");
        let ranges = expressions
            .iter()
            .map(|it| (title.to_owned(), it.replace("$__rate_interval", "5m")));
        found.extend(ranges);
    }
    found
}

/// What the variables ask for: `label_values(selector, label)`, as a query and the label that it groups by.
fn variables(dashboard: &Value) -> Vec<(String, String)> {
    let mut definitions = vec![];
    all_of("definition", &dashboard["templating"], &mut definitions);
    let queries = definitions.iter().map(|definition| {
        let inner = definition.strip_prefix("label_values(");
        let inner = inner.and_then(|inner| inner.strip_suffix(')'));
        let (selector, label) = inner
            .and_then(|inner| inner.rsplit_once(", "))
            .expect("values of a label");
        ((*definition).to_owned(), (selector, label))
    });
    let query = |(name, (selector, label)): (String, (&str, &str))| {
        let selector = match selector.contains("_total") {
            true => format!("rate({selector}[5m])"),
            false => selector.to_owned(),
        };
        (name, format!("count by ({label}) ({selector})"))
    };
    queries.map(query).collect()
}

#[tokio::test]
async fn what_the_dashboard_and_the_alerts_ask_for_is_there() {
    let dashboard: Value = serde_json::from_str(&document("grafana.json")).expect("it is JSON");
    let mut expressions = panels(&dashboard);
    let variables = variables(&dashboard);
    assert_eq!(variables.len(), 2, "{variables:?}");
    expressions.extend(variables);
    let text = document("alerts.yml");
    let documents = Yaml::load_from_str(&text).expect("it is YAML");
    let groups = documents[0]["groups"].as_sequence().expect("groups");
    for rule in groups
        .iter()
        .flat_map(|group| group["rules"].as_sequence().expect("rules"))
    {
        let string = |value: &Yaml| value.as_str().expect("a text").to_owned();
        let name = string(&rule["alert"]);
        assert!(rule["labels"]["severity"].as_str().is_some(), "{name}");
        assert!(rule["annotations"]["summary"].as_str().is_some(), "{name}");
        expressions.push((name, string(&rule["expr"])));
    }
    assert!(expressions.len() > 40, "{}", expressions.len());
    let there = families().await;
    assert_eq!(wrong(&expressions, &there).await, [""; 0]);
    // And that can fail.
    let bad = |expression: &str| ("it".to_owned(), expression.to_owned());
    let bad = [
        bad("wsevent_nothing"),
        bad("rate(wsevent_streams[5m])"),
        bad("wsevent_stream_events_total"),
        bad("wsevent_streams{stream=\"x\"}"),
        bad("sum by (url) (wsevent_streams)"),
    ];
    assert_eq!(wrong(&bad, &there).await.len(), bad.len());
}
