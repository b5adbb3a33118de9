//! Samples to medians and ratios, and those to Markdown tables.

use crate::cases::{FanOut, Rounds};
use crate::common::table::{Bar, Table, median, thousands};
use crate::hops::Chain;
use crate::idle::Idle;
use crate::play::Sample;
use crate::server::Kind;

impl Table {
    /// The table for cases A to E.
    pub fn fan_out() -> Self {
        Self::new(&[
            "case",
            "server",
            "CPU µs/delivery",
            "× bare",
            "× broadcast",
            "deliveries/s",
            "p50 ms",
            "p99 ms",
            "RSS MiB",
            "lost",
            "disconnected",
            "bar",
        ])
    }

    /// The table for case F.
    pub fn idle() -> Self {
        Self::new(&[
            "case",
            "server",
            "RSS KiB/subscriber",
            "CPU µs/handshake",
            "bar",
        ])
    }

    /// The table for case G.
    pub fn hops() -> Self {
        Self::new(&[
            "case",
            "p50 µs direct",
            "p99 µs direct",
            "p50 µs behind",
            "p99 µs behind",
            "added µs",
            "lost",
            "bar",
        ])
    }
}

/// Whether it has nothing but the columns and the line below them.
pub fn is_empty(table: &Table) -> bool {
    table.to_markdown().lines().count() == 2
}

impl Bar {
    /// At least this much.
    pub fn at_least(value: f64, least: u64, of: &str) -> Self {
        Self::new(
            format!("≥ {} {of}", thousands(least)),
            value >= least as f64,
        )
    }

    /// Everything delivered once, in order, and nobody let go.
    pub fn whole<'a>(samples: impl IntoIterator<Item = &'a Sample>) -> Self {
        Self::none(
            samples
                .into_iter()
                .map(|sample| sample.lost + sample.disordered + sample.disconnected)
                .sum(),
        )
    }
}

/// Adds a case's three rows; says whether `wsevent` delivered everything.
pub fn add_fan_out(table: &mut Table, case: &FanOut, rounds: &Rounds) -> bool {
    let cpu = |round: &Vec<Vec<Sample>>, kind: Kind| {
        middle(&round[kind as usize], |sample| sample.cpu_us)
    };
    let ratio = |kind: Kind, to: Kind| {
        median(
            rounds
                .iter()
                .map(|round| cpu(round, kind) / cpu(round, to))
                .collect(),
        )
    };
    let mut whole = true;
    for kind in Kind::ALL {
        let samples: Vec<&Sample> = rounds
            .iter()
            .flat_map(|round| &round[kind as usize])
            .collect();
        let mid = |field: fn(&Sample) -> f64| middle(samples.iter().copied(), field);
        let sum =
            |field: fn(&Sample) -> u64| thousands(samples.iter().map(|sample| field(sample)).sum());
        let (of_bare, of_broadcast) = (ratio(kind, Kind::Bare), ratio(kind, Kind::Broadcast));
        let mut bars = Vec::new();
        if kind == Kind::Wsevent {
            bars.extend(
                case.most_of_bare
                    .map(|most| Bar::at_most(of_bare, most, "× bare")),
            );
            bars.extend(
                case.most_of_broadcast
                    .map(|most| Bar::at_most(of_broadcast, most, "× broadcast")),
            );
            bars.extend(
                case.most_us
                    .map(|most| Bar::at_most(mid(|sample| sample.cpu_us), most, "µs")),
            );
            let delivered = Bar::whole(rounds.iter().flat_map(|round| &round[kind as usize]));
            whole = delivered.reached();
            bars.push(delivered);
        }
        table.push(vec![
            format!("{}: {}", case.key, case.title()),
            kind.name().to_owned(),
            format!("{:.3}", mid(|sample| sample.cpu_us)),
            format!("{of_bare:.2}"),
            format!("{of_broadcast:.2}"),
            thousands(mid(|sample| sample.per_second) as u64),
            format!("{:.2}", mid(|sample| sample.p50_us) / 1e3),
            format!("{:.2}", mid(|sample| sample.p99_us) / 1e3),
            format!(
                "{:.1}",
                mid(|sample| sample.rss as f64) / f64::from(1 << 20)
            ),
            sum(|sample| sample.lost),
            sum(|sample| sample.disconnected),
            Bar::verdict(&bars),
        ]);
    }
    whole
}

/// Adds a server's row of case F; `rounds[round][server]`, servers as in [`Kind::ALL`].
pub fn add_idle(table: &mut Table, kind: Kind, rounds: &[Vec<Idle>]) {
    let mid = |field: fn(&Idle) -> f64| {
        median(
            rounds
                .iter()
                .map(|round| field(&round[kind as usize]))
                .collect(),
        )
    };
    let (rss, handshake) = (mid(|idle| idle.rss / 1024.0), mid(|idle| idle.handshake_us));
    let bars = match kind {
        Kind::Wsevent => vec![
            Bar::at_most(rss, 1.5, "KiB"),
            Bar::at_most(handshake, 20.0, "µs"),
        ],
        _ => Vec::new(),
    };
    table.push(vec![
        format!("F: {} idle", thousands(Idle::SUBSCRIBERS as u64)),
        kind.name().to_owned(),
        format!("{rss:.2}"),
        format!("{handshake:.1}"),
        Bar::verdict(&bars),
    ]);
}

/// Adds a chain's row of case G; says whether everything was delivered.
pub fn add_chain(table: &mut Table, chain: &Chain) -> bool {
    let delivered = Bar::whole([&chain.far]);
    let whole = delivered.reached();
    let mut bars = Vec::new();
    if chain.hops == 1 {
        bars.push(Bar::at_most(chain.added_us(), 150.0, "µs added"));
    }
    bars.push(delivered);
    table.push(vec![
        format!(
            "G: {}, {} events at {}/s",
            if chain.hops == 1 {
                "one hop".to_owned()
            } else {
                format!("{} hops", chain.hops)
            },
            thousands(chain.events),
            thousands(chain.rate)
        ),
        format!("{:.0}", chain.direct_us.0),
        format!("{:.0}", chain.direct_us.1),
        format!("{:.0}", chain.far.p50_us),
        format!("{:.0}", chain.far.p99_us),
        format!("{:.0}", chain.added_us()),
        thousands(chain.far.lost),
        Bar::verdict(&bars),
    ]);
    whole
}

/// The middle one of a figure.
pub fn middle<'a>(samples: impl IntoIterator<Item = &'a Sample>, field: fn(&Sample) -> f64) -> f64 {
    median(samples.into_iter().map(field).collect())
}
