//! The way of an event as a table for a person.

use std::fmt::Write;

use crate::topology::picture::plain;
use crate::topology::trace::{End, Leg};

/// A line for each hop, in the order in which the event came to them, and one for all.
pub fn table(event: &str, url: &str, legs: &[Leg]) -> String {
    let mut text = format!("{event} at {url}\n");
    let times = times(legs);
    let rows: Vec<_> = (0..legs.len()).rev().collect();
    let names: Vec<_> = legs.iter().map(name).collect();
    let width = names.iter().map(|name| name.chars().count()).max();
    let width = width.unwrap_or_default();
    let begun = times.iter().rev().flatten().next().copied();
    for (number, &at) in rows.iter().enumerate() {
        let leg = &legs[at];
        let way = leg.transport.as_deref().map(plain);
        // What came with the past, or from elsewhere, has no time that could be told.
        let before = times.get(at + 1).copied().flatten();
        let took = before
            .zip(times[at])
            .map(|(before, here)| here.saturating_sub(before));
        let took = took.map_or_else(
            || "-".to_owned(),
            |took| millis(took, legs[at + 1].uncertainty),
        );
        let since = begun
            .zip(times[at])
            .map(|(begun, here)| here.saturating_sub(begun));
        let since = since.map_or_else(
            || "-".to_owned(),
            |since| format!("{} since", millis(since, None)),
        );
        let way = way.as_deref().unwrap_or("-");
        let _ = writeln!(
            text,
            "{:>3}  {:<width$}  {}  {way:<9}  {took:>18}  {since:>16}{}",
            number + 1,
            names[at],
            plain(&leg.instance),
            note(leg),
        );
    }
    let total = begun.zip(times.first().copied().flatten());
    let links = legs.len().saturating_sub(1);
    let links = match links {
        1 => "1 link".to_owned(),
        links => format!("{links} links"),
    };
    let _ = match total {
        Some((begun, here)) => {
            let wrong = legs.iter().filter_map(|leg| leg.uncertainty).skip(1);
            let wrong = wrong.fold(0, u64::saturating_add);
            let ends = legs.last().and_then(|leg| leg.end);
            let from = match ends {
                Some(End::Origin | End::Foreign | End::Bus) => "from where it got its id",
                _ => "from the first that is known",
            };
            let sum = millis(here.saturating_sub(begun), Some(wrong));
            writeln!(text, "     {sum} over {links}, {from}")
        }
        None => writeln!(text, "     over {links}; when it came is not known"),
    };
    text
}

fn name(leg: &Leg) -> String {
    format!("{}{}", plain(&leg.address), plain(&leg.path))
}

/// When the event came to each, by the clock of the first of them, in microseconds; none where that is not known.
fn times(legs: &[Leg]) -> Vec<Option<i64>> {
    let mut ahead: i64 = 0;
    let times = legs.iter().enumerate().map(|(at, leg)| {
        // The clock of who asks here does not count.
        let offset = leg.offset.filter(|_| at > 0);
        ahead = ahead.saturating_add(offset.unwrap_or_default());
        let arrived = leg.arrived.and_then(|arrived| i64::try_from(arrived).ok());
        arrived.map(|arrived| arrived.saturating_sub(ahead))
    });
    times.collect()
}

/// In milliseconds, and what it may be wrong by, where that shows.
fn millis(micros: i64, wrong: Option<u64>) -> String {
    let wrong = wrong.filter(|wrong| *wrong >= 10);
    let wrong = wrong.map(|wrong| format!(" ±{:.2}", wrong as f64 / 1e3));
    format!("{:.2}{} ms", micros as f64 / 1e3, wrong.unwrap_or_default())
}

/// What else there is to say.
fn note(leg: &Leg) -> String {
    let from = plain(leg.from.as_deref().unwrap_or("elsewhere"));
    let past = match (leg.arrived, leg.end) {
        (None, None | Some(End::Foreign | End::Bus | End::Away | End::Deep)) => {
            "  came with the stream's past"
        }
        _ => "",
    };
    let reason = plain(leg.reason.as_deref().unwrap_or_default());
    let end = match leg.end {
        None => String::new(),
        Some(End::Other) if reason.is_empty() => "  it is not told why there is no more".to_owned(),
        Some(End::Origin) => "  began here".to_owned(),
        Some(End::Foreign) => format!("  from {from}, which is no wsevent"),
        Some(End::Bus) if from.starts_with("file:") => format!("  from the recording {from}"),
        Some(End::Bus) => format!("  from the bus {from}"),
        Some(End::Away) => format!("  from {from}, which does not tell more: {reason}"),
        Some(End::Unknown | End::Deep | End::Other) => format!("  {reason}"),
    };
    format!("{past}{end}")
}

#[cfg(test)]
mod tests;
