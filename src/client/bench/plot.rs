//! Latencies over load, as a picture (SVG 1.1).
//!
//! By hand: two axes, five lines. What a library would draw has the letters of a font in it, and ten times the code.

use std::fmt::Write as _;

use super::report::{Report, Step, amount};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 500.0;
/// What is left of the picture for the axes and their labels: left, top, right, bottom.
const MARGIN: [f64; 4] = [90.0, 70.0, 110.0, 70.0];
/// From the median to the largest; told apart without colours, too.
const COLOURS: [&str; 5] = ["#1b7837", "#2166ac", "#b2182b", "#762a83", "#555555"];
const DASHES: [&str; 5] = ["none", "8 3", "none", "8 3 2 3", "2 4"];

/// A scale from values to places.
struct Axis {
    from: f64,
    to: f64,
    begin: f64,
    end: f64,
    is_log: bool,
}

impl Axis {
    fn place(&self, value: f64) -> f64 {
        let scaled = |value: f64| if self.is_log { value.log10() } else { value };
        let (from, to) = (scaled(self.from), scaled(self.to));
        let part = (scaled(value) - from) / (to - from);
        self.begin + part * (self.end - self.begin)
    }
}

/// The picture; none if there is no latency to show.
pub fn draw(report: &Report) -> Option<String> {
    let shown = report.steps.iter().filter(|step| step.latency.is_some());
    let mut steps: Vec<_> = shown.collect();
    if steps.is_empty() {
        return None;
    }
    steps.sort_by(|one, other| one.events_per_second.total_cmp(&other.events_per_second));
    let (x, y) = axes(&steps);
    let mut svg = String::new();
    // Writing into memory does not fail.
    let _ = writeln!(
        svg,
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="13" fill="#222222">
<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>
<text x="{}" y="28" font-size="17">Latency over load: {}</text>
<text x="{}" y="48" fill="#555555">{}</text>"##,
        MARGIN[0],
        escaped(&report.url),
        MARGIN[0],
        escaped(&subtitle(report, &steps)),
    );
    grid(&mut svg, &x, &y);
    lines(&mut svg, &steps, &x, &y);
    svg.push_str("</svg>\n");
    Some(svg)
}

fn axes(steps: &[&Step]) -> (Axis, Axis) {
    let loads = steps.iter().map(|step| step.events_per_second);
    let (least, most) = range(loads);
    let latencies = steps.iter().filter_map(|step| step.latency);
    let (low, high) = range(
        latencies
            .flat_map(|latency| latency.named())
            .map(|(_, micros)| micros.max(1.0)),
    );
    // Whole powers of ten, so that the axis has names at both ends.
    let (low, high) = (
        10f64.powf(low.log10().floor()),
        10f64.powf(high.log10().ceil()),
    );
    // Steps of equal factors are at equal distances where loads differ much.
    let is_log = least > 0.0 && most / least > 20.0;
    let x = Axis {
        from: if is_log {
            10f64.powf(least.log10().floor())
        } else {
            0.0
        },
        to: if is_log {
            10f64.powf(most.log10().ceil())
        } else {
            (most * 1.05).max(1.0)
        },
        begin: MARGIN[0],
        end: WIDTH - MARGIN[2],
        is_log,
    };
    let y = Axis {
        from: low,
        to: if high > low { high } else { low * 10.0 },
        begin: HEIGHT - MARGIN[3],
        end: MARGIN[1],
        is_log: true,
    };
    (x, y)
}

fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::MAX, 0.0), |(low, high), value| {
        (value.min(low), value.max(high))
    })
}

/// What else there is to know.
fn subtitle(report: &Report, steps: &[&Step]) -> String {
    let connections: Vec<_> = steps.iter().map(|step| step.connections).collect();
    let (least, most) = (connections.iter().min(), connections.iter().max());
    let count = |count: Option<&usize>| amount(count.copied().unwrap_or_default() as f64);
    let connections = match least == most {
        true => count(most),
        false => format!("{} to {}", count(least), count(most)),
    };
    let size = report
        .size
        .map_or(String::new(), |size| format!(", events of {size} bytes"));
    format!(
        "{connections} connections over {}{size}; wsevent bench {}",
        report.transport, report.version
    )
}

fn grid(svg: &mut String, x: &Axis, y: &Axis) {
    let mut power = y.from;
    while power <= y.to * 1.001 {
        let at = y.place(power);
        let _ = writeln!(
            svg,
            r##"<line x1="{:.1}" y1="{at:.1}" x2="{:.1}" y2="{at:.1}" stroke="#dddddd"/>
<text x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"##,
            x.begin,
            x.end,
            x.begin - 8.0,
            at + 4.0,
            label(power),
        );
        power *= 10.0;
    }
    for value in ticks(x) {
        let at = x.place(value);
        let _ = writeln!(
            svg,
            r##"<line x1="{at:.1}" y1="{:.1}" x2="{at:.1}" y2="{:.1}" stroke="#dddddd"/>
<text x="{at:.1}" y="{:.1}" text-anchor="middle">{}</text>"##,
            y.begin,
            y.end,
            y.begin + 20.0,
            amount(value),
        );
    }
    let _ = writeln!(
        svg,
        r##"<path d="M{:.1} {:.1}V{:.1}H{:.1}" fill="none" stroke="#222222"/>
<text x="{:.1}" y="{:.1}" text-anchor="middle">delivered events/s, all connections together</text>"##,
        x.begin,
        y.end,
        y.begin,
        x.end,
        f64::midpoint(x.begin, x.end),
        y.begin + 46.0,
    );
}

/// A power of ten, in microseconds.
fn label(power: f64) -> String {
    match power {
        ..1e3 => format!("{power:.0} µs"),
        ..1e6 => format!("{:.0} ms", power / 1e3),
        _ => format!("{:.0} s", power / 1e6),
    }
}

/// Round values on the axis of loads.
fn ticks(x: &Axis) -> Vec<f64> {
    if x.is_log {
        let powers = x.from.log10().round() as i32..=x.to.log10().round() as i32;
        return powers.map(|power| 10f64.powi(power)).collect();
    }
    let rough = x.to / 6.0;
    let power = 10f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
    let step = steps
        .into_iter()
        .find(|step| *step >= rough)
        .unwrap_or(rough);
    let count = (x.to / step).floor() as u32;
    (0..=count).map(|at| f64::from(at) * step).collect()
}

fn lines(svg: &mut String, steps: &[&Step], x: &Axis, y: &Axis) {
    let mut free = f64::MAX;
    for (line, (colour, dash)) in COLOURS.iter().zip(DASHES).enumerate() {
        let points: Vec<_> = steps
            .iter()
            .filter_map(|step| {
                let (_, micros) = step.latency?.named()[line];
                Some((x.place(step.events_per_second), y.place(micros.max(1.0))))
            })
            .collect();
        let path: Vec<_> = points
            .iter()
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        let _ = writeln!(
            svg,
            r##"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>"##,
            path.join(" "),
        );
        for (x, y) in &points {
            let _ = writeln!(
                svg,
                r##"<circle cx="{x:.1}" cy="{y:.1}" r="3" fill="{colour}"/>"##
            );
        }
        let (Some(&(end, height)), Some(latency)) =
            (points.last(), steps.iter().find_map(|step| step.latency))
        else {
            continue;
        };
        // Names stand at the ends of their lines, from below upwards, and never on each other.
        let place = height.min(free - 15.0);
        free = place;
        let _ = writeln!(
            svg,
            r##"<text x="{:.1}" y="{:.1}" fill="{colour}">{}</text>"##,
            end + 10.0,
            place + 4.0,
            latency.named()[line].0,
        );
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
