//! Rounds to rows of the table.

use crate::cases::{Case, Figure, Most, Rounds};
use crate::common::table::{Bar, Table, median};
use crate::server::Kind;

/// The table: a row for each figure of each case.
pub fn table() -> Table {
    let mut columns = vec!["case", "figure"];
    columns.extend(Kind::ALL.map(Kind::name));
    columns.push("bar");
    Table::new(&columns)
}

/// Adds a case's rows; says whether `wsevent` passed everything on.
pub fn add(table: &mut Table, case: &Case, rounds: &Rounds) -> bool {
    let outcomes = || rounds.iter().flatten();
    for (kind, outcome) in outcomes().filter(|(_, outcome)| outcome.wrong > 0) {
        let (name, wrong) = (kind.name(), outcome.wrong);
        eprintln!("{}: {}: {name}: {wrong} wrong", case.key, case.title);
    }
    let wrong = outcomes().filter(|(kind, _)| *kind == Kind::Wsevent);
    let delivered = Bar::none(wrong.map(|(_, outcome)| outcome.wrong).sum());
    let whole = delivered.reached();
    let mut delivered = outcomes()
        .any(|(kind, _)| *kind == Kind::Wsevent)
        .then_some(delivered);
    for (index, figure) in case.figures.iter().enumerate() {
        let values = Values {
            rounds,
            index,
            added: figure.added,
        };
        let mut row = vec![
            format!("{}: {}", case.key, case.title),
            figure.name.to_owned(),
        ];
        row.extend(Kind::ALL.map(|kind| {
            let value = values.median(kind);
            value.map_or(String::new(), |value| format!("{value:.*}", figure.digits))
        }));
        let bars: Vec<Bar> = values
            .bar(figure)
            .into_iter()
            .chain(delivered.take())
            .collect();
        row.push(Bar::verdict(&bars));
        table.push(row);
    }
    whole
}

/// One figure of all rounds.
struct Values<'a> {
    rounds: &'a Rounds,
    index: usize,
    added: bool,
}

impl Values<'_> {
    /// Each round's value: of a proxy only what it adds, where that is asked.
    fn of(&self, kind: Kind) -> Vec<f64> {
        let one = |round: &Vec<(Kind, crate::cases::Outcome)>, kind: Kind| {
            let found = round.iter().find(|(other, _)| *other == kind);
            found.map(|(_, outcome)| outcome.figures[self.index])
        };
        let rounds = self.rounds.iter();
        let values = rounds.filter_map(|round| {
            let direct = match self.added && kind != Kind::Direct {
                true => one(round, Kind::Direct)?,
                false => 0.0,
            };
            Some(one(round, kind)? - direct)
        });
        values.collect()
    }

    fn median(&self, kind: Kind) -> Option<f64> {
        Some(median(self.of(kind))).filter(|value| !value.is_nan())
    }

    /// The bar, if all it needs took part; a ratio is the median of the ratios within a round.
    fn bar(&self, figure: &Figure) -> Option<Bar> {
        let value = self.median(Kind::Wsevent)?;
        Some(match figure.bar.as_ref()? {
            Most::Flat(most) => Bar::at_most(value, *most, "bytes"),
            Most::Of(most, kind) => {
                self.median(*kind)?;
                let pairs = self.of(Kind::Wsevent).into_iter().zip(self.of(*kind));
                // Where the machine is busy, a proxy may seem to add less than nothing.
                let told = pairs.filter(|(_, theirs)| *theirs > 0.0);
                let ratio = median(told.map(|(ours, theirs)| ours / theirs).collect());
                let text = format!("{ratio:.2} ≤ {most} × {}", kind.name());
                Bar::new(text, ratio <= *most)
            }
        })
    }
}
