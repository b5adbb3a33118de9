//! A topology as PlantUML (<https://plantuml.com/deployment-diagram>), which looks like the figures in docs/puml and can be read
//! by [`figure`](super::figure).

#[cfg(test)]
mod tests;

use std::fmt::Write;

use super::Topology;
use super::picture::{ARROW, Arrow, Class, DEAD, Look, Picture, Shape, TEXT};

/// The whole source of a figure.
pub fn render(topology: &Topology) -> String {
    let picture = Picture::of(topology);
    let mut text = head();
    for shape in &picture.shapes {
        text.push_str(&rectangle(shape));
    }
    text.push('\n');
    for arrow in &picture.arrows {
        text.push_str(&line(arrow));
    }
    text.push_str("@enduml\n");
    text
}

fn head() -> String {
    let mut colours = String::new();
    for class in Class::ALL {
        let ((border, inside), name) = (class.colours(), class.name());
        let _ = write!(
            colours,
            "  BorderColor<<{name}>> {border}\n  BackgroundColor<<{name}>> {inside}\n"
        );
    }
    format!(
        "@startuml\n\
         ' What runs, as wsevent topology has seen it.\n\
         left to right direction\n\
         skinparam shadowing false\n\
         skinparam roundCorner 16\n\
         skinparam backgroundColor #FFFFFF\n\
         skinparam defaultFontName Liberation Sans\n\
         skinparam defaultFontSize 13\n\
         skinparam defaultFontColor {TEXT}\n\
         skinparam defaultTextAlignment center\n\
         skinparam ranksep 30\n\
         skinparam nodesep 40\n\
         skinparam rectangle {{\n  BorderThickness 1.5\n{colours}}}\n\
         skinparam arrow {{\n  Color {ARROW}\n  Thickness 1.5\n  FontName Liberation Mono\n  FontColor {ARROW}\n  FontSize 11\n}}\n\
         hide stereotype\n\n"
    )
}

fn rectangle(shape: &Shape) -> String {
    let mut label = format!("<size:15><b>{}</b></size>", escape(&shape.title));
    for (at, line) in shape.lines.iter().enumerate() {
        let space = if at == 0 { "\\n\\n" } else { "\\n" };
        let _ = write!(
            label,
            "{space}<font:Liberation Mono>{}</font>",
            escape(line)
        );
    }
    let (class, alias) = (shape.class.name(), &shape.alias);
    let look = match shape.is_whole {
        true => String::new(),
        false => format!(" #line:{};line.dashed", DEAD.trim_start_matches('#')),
    };
    format!("rectangle \"{label}\" <<{class}>> as {alias}{look}\n")
}

fn line(arrow: &Arrow) -> String {
    let Arrow { from, to, .. } = arrow;
    let (arrow_itself, colour) = match arrow.look {
        Look::Live => ("-->".to_owned(), None),
        Look::Standby => ("..>".to_owned(), None),
        Look::Dead => (format!("-[{DEAD}]->"), Some(DEAD)),
    };
    let lines: Vec<_> = arrow.lines.iter().map(|line| escape(line)).collect();
    let lines = lines.iter().map(|line| match colour {
        Some(colour) => format!("<color:{colour}>{line}</color>"),
        None => line.clone(),
    });
    let text = lines.collect::<Vec<_>>().join("\\n");
    match text.is_empty() {
        true => format!("{from} {arrow_itself} {to}\n"),
        // The last line keeps the text off the arrow.
        false => format!("{from} {arrow_itself} {to} : {text}\\n<size:3> </size>\n"),
    }
}

/// The text as nothing but text: what could mean something to PlantUML, its preprocessor or its markup is named by its number, which is looked at
/// last (<https://plantuml.com/creole>, "Special characters").
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let mut before = None;
    for letter in text.chars() {
        // Alone, and behind something, these are no markup: text stays readable in the source.
        let is_harmless = letter.is_ascii_alphanumeric()
            || !letter.is_ascii()
            || matches!(letter, ' ' | '/' if before != Some('/'))
            || (matches!(letter, ':' | '.' | '-' | '_' | ',' | '+')
                && before.is_some_and(|before| before != letter));
        match is_harmless {
            true => escaped.push(letter),
            false => {
                let _ = write!(escaped, "<U+{:04X}>", u32::from(letter));
            }
        }
        before = Some(letter);
    }
    escaped
}
