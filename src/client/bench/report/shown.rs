//! A report as a person reads it.

use std::fmt::{self, Write as _};

use super::{Bench, Connections, Reason, Report, Step};

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} over {}", self.url, self.transport)?;
        let Connections {
            wanted,
            connected,
            refused,
            closed,
            ..
        } = self.connections;
        let count = |number: u64| amount(number as f64);
        writeln!(
            f,
            "connected {} of {}, refused {}, closed {}",
            count(connected as u64),
            count(wanted as u64),
            count(refused),
            count(closed)
        )?;
        for (what, reasons) in [
            ("refused", &self.connections.refused_reasons),
            ("closed", &self.connections.closed_reasons),
        ] {
            for Reason { reason, count } in reasons {
                writeln!(f, "  {} × {what}: {reason}", amount(*count as f64))?;
            }
        }
        match &self.steps[..] {
            [] => {}
            [step] => write!(f, "\n{}", upright(&single(step, self.size)))?,
            steps => write!(f, "\n{}", table(steps))?,
        }
        if self.interrupted {
            writeln!(f, "\nended early")?;
        }
        Ok(())
    }
}

/// The rows for one step.
fn single(step: &Step, size: Option<usize>) -> Vec<[String; 2]> {
    let row = |name: &str, value: String| [name.to_owned(), value];
    let mut rows = vec![];
    if let (Some(published), Some(rate)) = (step.published, step.published_per_second) {
        let size = bytes(size.unwrap_or_default() as f64);
        rows.push(row(
            "published",
            format!(
                "{} events of {size}, {}/s",
                amount(published as f64),
                amount(rate)
            ),
        ));
    }
    rows.push(row(
        "delivered",
        format!(
            "{} events in {:.1} s",
            amount(step.delivered as f64),
            step.seconds
        ),
    ));
    rows.push(row("lost", known(step.lost)));
    rows.push(row("repeated", known(step.repeated)));
    for (name, number) in [
        ("gap notices", step.gaps),
        ("events of others", step.others),
    ] {
        if number > 0 {
            rows.push(row(name, amount(number as f64)));
        }
    }
    match step.latency {
        None => rows.push(row("latency", "unknown".to_owned())),
        Some(latency) => {
            for (name, micros) in latency.named() {
                rows.push(row(&format!("latency {name}"), duration(micros)));
            }
        }
    }
    rows.push(row(
        "throughput",
        format!(
            "{} events/s, {}/s",
            amount(step.events_per_second),
            bytes(step.bytes_per_second)
        ),
    ));
    if let Some(server) = &step.server {
        let pids: Vec<_> = server.pids.iter().map(u32::to_string).collect();
        rows.push(row(
            "server",
            format!("{} ({})", server.name, pids.join(", ")),
        ));
        let each = server.cpu_us_per_delivery;
        let each = each.map_or(String::new(), |each| format!(", {each:.2} µs a delivery"));
        rows.push(row(
            "  CPU",
            format!(
                "{:.2} s, {:.0} % of one{each}",
                server.cpu_seconds,
                server.cpu_seconds / step.seconds.max(1e-9) * 100.0
            ),
        ));
        let (before, peak) = (
            bytes(server.rss_before as f64),
            bytes(server.rss_peak as f64),
        );
        rows.push(row("  memory", format!("{before} before, {peak} at most")));
    }
    let Bench {
        cpu_seconds,
        busiest,
    } = step.bench;
    rows.push(row(
        "this bench",
        format!(
            "{cpu_seconds:.2} s of CPU, its busiest thread {:.0} %",
            busiest * 100.0
        ),
    ));
    rows
}

fn upright(rows: &[[String; 2]]) -> String {
    let width = rows.iter().map(|[name, _]| name.chars().count()).max();
    let width = width.unwrap_or_default();
    rows.iter().fold(String::new(), |mut text, [name, value]| {
        let _ = writeln!(text, "{name:width$}  {value}");
        text
    })
}

/// A row for each step, as text and as Markdown.
fn table(steps: &[Step]) -> String {
    let mut rows = vec![
        [
            "connections",
            "published/s",
            "delivered/s",
            "lost",
            "repeated",
            "p50",
            "p90",
            "p99",
            "p99.9",
            "max",
            "CPU µs/delivery",
            "memory",
        ]
        .map(str::to_owned),
    ];
    for step in steps {
        let latency = step
            .latency
            .map(|latency| latency.named().map(|(_, micros)| duration(micros)));
        let [p50, p90, p99, p99_9, max] =
            latency.unwrap_or_else(|| [(); 5].map(|()| "unknown".to_owned()));
        let server = step.server.as_ref();
        let cpu = server.and_then(|server| server.cpu_us_per_delivery);
        rows.push([
            amount(step.connections as f64),
            step.published_per_second.map_or("-".to_owned(), amount),
            amount(step.events_per_second),
            known(step.lost),
            known(step.repeated),
            p50,
            p90,
            p99,
            p99_9,
            max,
            cpu.map_or("-".to_owned(), |cpu| format!("{cpu:.2}")),
            server.map_or("-".to_owned(), |server| bytes(server.rss_peak as f64)),
        ]);
    }
    let widths: Vec<_> = (0..rows[0].len())
        .map(|column| {
            rows.iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        let cells: Vec<_> = row
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:>width$}"))
            .collect();
        let _ = writeln!(text, "| {} |", cells.join(" | "));
        if index == 0 {
            let lines: Vec<_> = widths
                .iter()
                .map(|&width| format!("{}:", "-".repeat(width - 1)))
                .collect();
            let _ = writeln!(text, "| {} |", lines.join(" | "));
        }
    }
    text
}

fn known(number: Option<u64>) -> String {
    number.map_or("unknown".to_owned(), |number| amount(number as f64))
}

/// A number with its thousands apart; of small ones a tenth.
pub fn amount(number: f64) -> String {
    if number < 100.0 && number.fract() != 0.0 {
        return format!("{number:.1}");
    }
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes, in a unit that suits.
fn bytes(number: f64) -> String {
    let units = [("GB", 1e9), ("MB", 1e6), ("KB", 1e3)];
    let unit = units.iter().find(|(_, size)| number >= *size);
    unit.map_or_else(
        || format!("{number:.0} B"),
        |(unit, size)| format!("{:.1} {unit}", number / size),
    )
}

/// Microseconds, in a unit that suits.
pub fn duration(micros: f64) -> String {
    match micros {
        ..1e3 => format!("{micros:.0} µs"),
        ..1e4 => format!("{:.2} ms", micros / 1e3),
        ..1e6 => format!("{:.1} ms", micros / 1e3),
        _ => format!("{:.2} s", micros / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_easy_to_read() {
        let amounts = [0.0, 7.0, 7.25, 999.0, 1_000.0, 1_234_567.8].map(amount);
        assert_eq!(amounts, ["0", "7", "7.2", "999", "1,000", "1,234,568"]);
        let durations = [0.0, 999.0, 1_234.0, 56_789.0, 1_500_000.0].map(duration);
        assert_eq!(
            durations,
            ["0 µs", "999 µs", "1.23 ms", "56.8 ms", "1.50 s"]
        );
        assert_eq!(
            [12.0, 1_500.0, 2.5e6].map(bytes),
            ["12 B", "1.5 KB", "2.5 MB"]
        );
    }
}
