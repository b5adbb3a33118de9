//! Samples to medians and bars, and those to Markdown tables.

use std::fmt::Write;
use std::fs;

/// A table that is easy to read both as text and as Markdown.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    pub fn new(columns: &[&str]) -> Self {
        Self {
            rows: vec![columns.iter().map(|column| (*column).to_owned()).collect()],
        }
    }

    /// How many columns it has.
    #[allow(dead_code, reason = "not every bench leaves some empty")]
    pub fn columns(&self) -> usize {
        self.rows[0].len()
    }

    /// Adds a row.
    pub fn push(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }

    /// The whole, its columns aligned.
    pub fn to_markdown(&self) -> String {
        let width = |column: usize| {
            self.rows
                .iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.rows[0].len()).map(width).collect();
        let mut out = String::new();
        for (index, row) in self.rows.iter().enumerate() {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:width$}"))
                .collect();
            let _ = writeln!(out, "| {} |", cells.join(" | "));
            if index == 0 {
                let lines: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
                let _ = writeln!(out, "| {} |", lines.join(" | "));
            }
        }
        out
    }
}

/// One bar of the bench, and whether it was reached.
pub struct Bar {
    text: String,
    reached: bool,
}

impl Bar {
    /// A bar in words.
    pub fn new(text: String, reached: bool) -> Self {
        Self { text, reached }
    }

    /// At most this much.
    pub fn at_most(value: f64, most: f64, of: &str) -> Self {
        Self::new(format!("≤ {most} {of}"), value <= most)
    }

    /// Nothing may go wrong, and so many deliveries did.
    pub fn none(wrong: u64) -> Self {
        Self::new("all delivered".to_owned(), wrong == 0)
    }

    /// For the last column.
    pub fn verdict(bars: &[Self]) -> String {
        let each = bars
            .iter()
            .map(|bar| format!("{} {}", bar.text, if bar.reached { "PASS" } else { "MISS" }));
        each.collect::<Vec<_>>().join("; ")
    }

    /// Whether it was reached.
    pub fn reached(&self) -> bool {
        self.reached
    }
}

/// What it ran on, in one line.
pub fn machine(pinned: bool) -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let field = |name: &str| {
        let line = info.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(": "))
            .map_or("unknown", |(_, value)| value.trim())
    };
    let kernel = read("/proc/sys/kernel/osrelease");
    let virtual_machine = if field("flags").contains("hypervisor") {
        ", virtual machine"
    } else {
        ""
    };
    let cores = info
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let apart = if pinned {
        "server and load generator on a CPU each"
    } else {
        "server and load generator not kept apart"
    };
    format!(
        "{} (family {}, model {}), {cores} CPUs{virtual_machine}, Linux {}; wsevent {}; {apart}",
        field("model name"),
        field("cpu family"),
        field("model\t"),
        kernel.trim().split('-').next().unwrap_or("unknown"),
        env!("CARGO_PKG_VERSION"),
    )
}

/// The middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A number as people write it.
#[allow(dead_code, reason = "not every bench has large numbers")]
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
