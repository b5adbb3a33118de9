//! Reads the part of PlantUML that the figures in docs/puml and those of [`plantuml`](super::plantuml) are written in: boxes with a stereotype, and
//! arrows between them. What it does not understand is an error, so that nothing in a figure is passed over.

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::LazyLock;

use regex::Regex;

/// What a figure says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Figure {
    /// The boxes, in their order.
    pub shapes: Vec<Shape>,
    /// The arrows, in their order.
    pub arrows: Vec<Arrow>,
}

/// A box.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Its name for arrows.
    pub alias: String,
    /// What it stands for.
    pub class: Class,
    /// Where it is, as its label says: `host:port`, or a URL.
    pub place: Option<String>,
    /// The paths that its label names, of streams as a rule.
    pub paths: Vec<String>,
}

/// What a box stands for, as its stereotype says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A hop where events begin; or, when nothing says where it is, somebody's program that publishes or reads.
    Produce,
    /// A hop.
    Hop,
    /// A `wsevent proxy`.
    Proxy,
    /// A bus.
    Bus,
    /// Somebody's server that events are consumed from.
    Foreign,
    /// Somebody who reads, or publishes.
    Client,
}

/// An arrow, in the direction of events. One with two heads is two of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrow {
    /// The alias of the box where it begins.
    pub from: String,
    /// The alias of the box where it ends.
    pub to: String,
    /// Whether it must be there; one that is dotted only may.
    pub must: bool,
}

/// Why a text is no figure.
#[derive(Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The number of the line, from 1.
    pub line: usize,
    /// What is wrong there, and what to do.
    pub reason: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

impl std::error::Error for Unreadable {}

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("it is tested")
}

/// A box: its label, and what follows it.
static SHAPE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r#"^(?:rectangle|node|database|queue|cloud|card|component|storage|agent)\s+"([^"]*)"\s*(.*)$"#,
    )
});
/// What follows a label, in any order: a stereotype, an alias, a colour.
static STEREOTYPE: LazyLock<Regex> = LazyLock::new(|| pattern(r"<<\s*([^<>]*?)\s*>>"));
static ALIAS: LazyLock<Regex> = LazyLock::new(|| pattern(r"\bas\s+(\w+)"));
static COLOUR: LazyLock<Regex> = LazyLock::new(|| pattern(r"#\w[\w:;.]*"));
/// An arrow: where it begins, a head there, its line with a look or a direction in it, a head at its other end, and where that is.
static ARROW: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"^(\w+)\s*(<)?([-.]+)(?:\[([^\]]*)\])?(?:left|right|up|down|le|ri|do|[lrud])?(?:\[([^\]]*)\])?([-.]*)(>)?\s*(\w+)\s*(?::.*)?$",
    )
});
/// Lines that change only how a figure looks.
static LOOK: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"^(?:skinparam\s+\S+\s+\S.*|(?:left to right|top to bottom) direction|(?:hide|show|title|caption|header|footer|scale)\s+.*)$",
    )
});
static SKINPARAM_BLOCK: LazyLock<Regex> = LazyLock::new(|| pattern(r"^skinparam(?:\s+\S+)?\s*\{$"));
/// Markup within a label; a character that is named by its number is none.
static MARKUP: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"<(/?[a-zA-Z][^<>+]*|U\+([0-9A-Fa-f]{4,6}))>"));
/// `host:port`, with a path or without.
static ADDRESS: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"^(?:[A-Za-z0-9._-]+|\[[0-9a-fA-F:.]+\]):\d{1,5}(/\S*)?$"));

/// Where within a file.
enum Part {
    Before,
    Within,
    /// In a block that says how things look.
    Skinparam,
    Behind,
}

impl Figure {
    /// What the text says.
    pub fn parse(text: &str) -> Result<Self, Unreadable> {
        let mut figure = Self::default();
        let mut part = Part::Before;
        let mut last = 1;
        for (at, line) in text.lines().enumerate() {
            last = at + 1;
            let line = line.trim();
            part = match part {
                Part::Before if line.starts_with("@startuml") => Part::Within,
                Part::Before | Part::Behind if line.is_empty() || line.starts_with('\'') => part,
                Part::Before => return Err(unreadable(last, "a figure begins with @startuml")),
                Part::Behind => {
                    return Err(unreadable(
                        last,
                        "a file holds one figure, which ends with @enduml",
                    ));
                }
                Part::Skinparam if line == "}" => Part::Within,
                Part::Skinparam => Part::Skinparam,
                Part::Within if line == "@enduml" => Part::Behind,
                Part::Within if SKINPARAM_BLOCK.is_match(line) => Part::Skinparam,
                Part::Within => {
                    figure
                        .take(line)
                        .map_err(|reason| unreadable(last, reason))?;
                    Part::Within
                }
            };
        }
        match part {
            Part::Behind => Ok(figure),
            Part::Before => Err(unreadable(last, "a figure begins with @startuml")),
            Part::Within | Part::Skinparam => Err(unreadable(last, "@enduml is missing")),
        }
    }

    /// The box with this alias.
    pub fn shape(&self, alias: &str) -> Option<&Shape> {
        self.shapes.iter().find(|shape| shape.alias == alias)
    }

    fn take(&mut self, line: &str) -> Result<(), String> {
        if line.is_empty() || line.starts_with('\'') || LOOK.is_match(line) {
            return Ok(());
        }
        if let Some(found) = SHAPE.captures(line) {
            let shape = shape(&found[1], &found[2])?;
            if self.shape(&shape.alias).is_some() {
                return Err(format!(
                    "there is another box with the alias {}",
                    shape.alias
                ));
            }
            self.shapes.push(shape);
            return Ok(());
        }
        let Some(found) = ARROW.captures(line) else {
            return Err(format!(
                "'{line}' is neither a box such as 'rectangle \"label\" <<hop>> as NAME' nor an arrow such as 'A --> B : text'"
            ));
        };
        let is = |at| found.get(at).is_some();
        let text = |at| found.get(at).map_or("", |found| found.as_str());
        let (left, right) = (&found[1], &found[8]);
        for alias in [left, right] {
            if self.shape(alias).is_none() {
                return Err(format!("no box above has the alias {alias}"));
            }
        }
        let looks = [4, 5].map(text).join(",");
        let is_dotted = [3, 6].map(text).concat().contains('.')
            || looks
                .split(',')
                .any(|look| matches!(look.trim(), "dashed" | "dotted"));
        let arrow = |from: &str, to: &str| Arrow {
            from: from.to_owned(),
            to: to.to_owned(),
            must: !is_dotted,
        };
        if !is(2) && !is(7) {
            return Err(format!(
                "the line between {left} and {right} has no head: events go in a direction"
            ));
        }
        self.arrows.extend(is(7).then(|| arrow(left, right)));
        self.arrows.extend(is(2).then(|| arrow(right, left)));
        Ok(())
    }
}

fn unreadable(line: usize, reason: impl Into<String>) -> Unreadable {
    Unreadable {
        line,
        reason: reason.into(),
    }
}

fn shape(label: &str, rest: &str) -> Result<Shape, String> {
    let alias = ALIAS.captures(rest).map(|found| found[1].to_owned());
    let alias = alias.ok_or("a box needs an alias, as in: as NAME")?;
    let stereotype = STEREOTYPE.captures(rest).map(|found| found[1].to_owned());
    let class = class(stereotype.as_deref().unwrap_or_default());
    let class = class.ok_or_else(|| format!("{alias} needs a stereotype: <<produce>>, <<hop>>, <<proxy>>, <<bus>>, <<foreign>> or <<client>>"))?;
    let left = STEREOTYPE.replace(rest, "");
    let left = ALIAS.replace(&left, "");
    let left = COLOUR.replace(&left, "");
    if !left.trim().is_empty() {
        return Err(format!(
            "what does '{}' mean behind the label of {alias}?",
            left.trim()
        ));
    }
    let (mut place, mut paths) = (None, Vec::new());
    for line in label.split("\\n").map(plain) {
        let word = line.split(' ').next().unwrap_or_default();
        if word.starts_with('/') {
            paths.push(word.to_owned());
        } else if let Some(found) = ADDRESS.captures(&line) {
            place.get_or_insert_with(|| line.clone());
            paths.extend(
                found
                    .get(1)
                    .map(|path| path.as_str().to_owned())
                    .filter(|path| path != "/"),
            );
        } else if line.contains("://") && !line.contains(' ') {
            place.get_or_insert(line);
        }
    }
    Ok(Shape {
        alias,
        class,
        place,
        paths,
    })
}

fn class(stereotype: &str) -> Option<Class> {
    Some(match stereotype {
        "produce" => Class::Produce,
        "hop" => Class::Hop,
        "proxy" => Class::Proxy,
        "bus" => Class::Bus,
        "foreign" => Class::Foreign,
        "client" => Class::Client,
        _ => return None,
    })
}

/// A line of a label without its markup.
fn plain(line: &str) -> String {
    let plain = MARKUP.replace_all(line, |found: &regex::Captures<'_>| {
        let number = found
            .get(2)
            .and_then(|number| u32::from_str_radix(number.as_str(), 16).ok());
        number
            .and_then(char::from_u32)
            .map(String::from)
            .unwrap_or_default()
    });
    plain.trim().to_owned()
}
