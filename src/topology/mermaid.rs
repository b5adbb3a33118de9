//! A topology as a Mermaid flowchart (<https://mermaid.js.org/syntax/flowchart.html>), which code forges draw where it stands in Markdown.

#[cfg(test)]
mod tests;

use std::fmt::Write;

use super::Topology;
use super::picture::{Arrow, Class, DEAD, Look, Picture, Shape, TEXT};

/// The whole flowchart.
pub fn render(topology: &Topology) -> String {
    let picture = Picture::of(topology);
    let mut text = "flowchart LR\n".to_owned();
    for Shape {
        alias,
        class,
        title,
        lines,
        is_whole,
    } in &picture.shapes
    {
        let label = label([title].into_iter().chain(lines));
        let _ = writeln!(text, "  {alias}[\"{label}\"]:::{}", class.name());
        if !is_whole {
            let _ = writeln!(text, "  style {alias} stroke:{DEAD},stroke-dasharray:4");
        }
    }
    for arrow in &picture.arrows {
        let Arrow { from, to, .. } = arrow;
        let line = if arrow.look == Look::Standby {
            "-.->"
        } else {
            "-->"
        };
        let label = label(&arrow.lines);
        let label = match label.is_empty() {
            true => String::new(),
            false => format!("|\"{label}\"|"),
        };
        let _ = writeln!(text, "  {from} {line}{label} {to}");
    }
    let dead = picture.arrows.iter().enumerate();
    for (at, _) in dead.filter(|(_, arrow)| arrow.look == Look::Dead) {
        let _ = writeln!(text, "  linkStyle {at} stroke:{DEAD},color:{DEAD}");
    }
    for class in Class::ALL {
        let ((border, inside), name) = (class.colours(), class.name());
        let _ = writeln!(
            text,
            "  classDef {name} fill:{inside},stroke:{border},color:{TEXT}"
        );
    }
    text
}

fn label<'a>(lines: impl IntoIterator<Item = &'a String>) -> String {
    let lines = lines.into_iter().map(|line| escape(line));
    lines.collect::<Vec<_>>().join("<br>")
}

/// The text as nothing but text: what could mean something to Mermaid, Markdown or HTML is named by its number
/// (<https://mermaid.js.org/syntax/flowchart.html>, "Entity codes to escape characters").
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        let is_harmless = letter.is_ascii_alphanumeric()
            || !letter.is_ascii()
            || matches!(letter, ' ' | ':' | '/' | '.' | '-' | ',');
        match is_harmless {
            true => escaped.push(letter),
            false => {
                let _ = write!(escaped, "#{};", u32::from(letter));
            }
        }
    }
    escaped
}
