//! A topology in Graphviz' language (<https://graphviz.org/doc/info/lang.html>).

#[cfg(test)]
mod tests;

use std::fmt::Write;

use super::Topology;
use super::picture::{ARROW, Arrow, DEAD, Look, Picture, Shape, TEXT};

/// The whole graph.
pub fn render(topology: &Topology) -> String {
    let picture = Picture::of(topology);
    let mut text = format!(
        "digraph wsevent {{\n  rankdir=LR;\n  node [shape=box, style=\"rounded,filled\", fontname=\"sans-serif\", fontcolor=\"{TEXT}\"];\n  \
         edge [fontname=\"monospace\", fontsize=11, color=\"{ARROW}\", fontcolor=\"{ARROW}\"];\n"
    );
    for Shape {
        alias,
        class,
        title,
        lines,
        is_whole,
    } in &picture.shapes
    {
        let (border, inside) = class.colours();
        let (border, look) = match is_whole {
            true => (border, ""),
            false => (DEAD, ", style=\"rounded,filled,dashed\""),
        };
        let label = label([title].into_iter().chain(lines));
        let _ = writeln!(
            text,
            "  {alias} [label=\"{label}\", color=\"{border}\", fillcolor=\"{inside}\"{look}];"
        );
    }
    for Arrow {
        from,
        to,
        look,
        lines,
    } in &picture.arrows
    {
        let label = label(lines);
        let look = match look {
            Look::Live => String::new(),
            Look::Standby => ", style=dashed".to_owned(),
            Look::Dead => format!(", color=\"{DEAD}\", fontcolor=\"{DEAD}\""),
        };
        let _ = writeln!(text, "  {from} -> {to} [label=\"{label}\"{look}];");
    }
    text.push_str("}\n");
    text
}

fn label<'a>(lines: impl IntoIterator<Item = &'a String>) -> String {
    let lines = lines.into_iter().map(|line| escape(line));
    lines.collect::<Vec<_>>().join("\\n")
}

/// The text as nothing but text within quotes: neither their end, nor an escape (<https://graphviz.org/docs/attr-types/escString/>),
/// nor a character of HTML, which labels may have.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '"' => escaped.push_str("\\\""),
            '\\' => escaped.push_str("\\\\"),
            '&' => escaped.push_str("&amp;"),
            letter => escaped.push(letter),
        }
    }
    escaped
}
