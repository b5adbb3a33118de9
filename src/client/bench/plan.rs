//! What load to make, in which steps.

use std::str::FromStr;

use crate::source::produce::Rate;

/// The steps of a ramp that says only where it begins and ends.
const STEPS: usize = 5;
/// The most steps.
const MAX_STEPS: usize = 100;

/// A load that grows step by step.
#[derive(Debug, Clone, PartialEq)]
pub struct Ramp {
    /// What grows.
    pub of: Of,
    /// The values, step by step; none is below the one before, if it is connections.
    pub values: Vec<f64>,
}

/// What grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// The number of subscribers.
    Connections,
    /// The events that are published in a second.
    Rate,
}

/// A load that is kept up for a while.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Load {
    /// So many subscribers.
    pub connections: usize,
    /// So many events a second are published, if it is this program that publishes.
    pub rate: Option<Rate>,
}

impl FromStr for Ramp {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (of, values) = match text.split_once(':') {
            None => (Of::Connections, text),
            Some(("connections", values)) => (Of::Connections, values),
            Some(("rate", values)) => (Of::Rate, values),
            Some(_) => return Err("connections: or rate: is expected before the values".into()),
        };
        let values = match values.split_once("..") {
            Some((from, rest)) => {
                let (to, steps) = match rest.split_once('/') {
                    Some((to, steps)) => (to, steps.parse().map_err(|_| WRONG.to_owned())?),
                    None => (rest, STEPS),
                };
                between(number(from)?, number(to)?, steps)?
            }
            None => values.split(',').map(number).collect::<Result<_, _>>()?,
        };
        let ramp = Self {
            of,
            values: match of {
                Of::Connections => values.iter().map(|value| value.round()).collect(),
                Of::Rate => values,
            },
        };
        if ramp.values.len() > MAX_STEPS {
            return Err(format!("at most {MAX_STEPS} steps are possible"));
        }
        if ramp.values.iter().any(|value| *value <= 0.0) {
            return Err("a load is above 0".into());
        }
        if of == Of::Connections && !ramp.values.is_sorted() {
            return Err("connections can only become more from step to step".into());
        }
        Ok(ramp)
    }
}

const WRONG: &str = "FROM..TO, FROM..TO/STEPS or N,N,N is expected, such as connections:100..1000/10 or rate:100,1000,10000";

fn number(text: &str) -> Result<f64, String> {
    let number = text.trim().parse::<f64>().ok();
    number
        .filter(|number| number.is_finite() && (0.0..=1e12).contains(number))
        .ok_or_else(|| WRONG.to_owned())
}

/// So many values at equal distances, the ends included.
fn between(from: f64, to: f64, steps: usize) -> Result<Vec<f64>, String> {
    if !(2..=MAX_STEPS).contains(&steps) {
        return Err(format!("2 to {MAX_STEPS} steps are possible"));
    }
    let distance = (to - from) / (steps - 1) as f64;
    Ok((0..steps)
        .map(|step| from + distance * step as f64)
        .collect())
}

impl Ramp {
    /// The load of each step, where what does not grow is that of `base`.
    pub fn loads(&self, base: Load) -> Vec<Load> {
        let load = |value: &f64| match self.of {
            Of::Connections => Load {
                connections: *value as usize,
                ..base
            },
            Of::Rate => Load {
                rate: Some(Rate::PerSecond(*value)),
                ..base
            },
        };
        self.values.iter().map(load).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Vec<f64> {
        text.parse::<Ramp>().expect("a ramp").values
    }

    #[test]
    fn a_ramp_is_a_range_or_a_list() {
        assert_eq!(values("100..500"), [100.0, 200.0, 300.0, 400.0, 500.0]);
        assert_eq!(values("connections:1..10/4"), [1.0, 4.0, 7.0, 10.0]);
        assert_eq!(
            values("1..2/3"),
            [1.0, 2.0, 2.0],
            "a subscriber is a whole one"
        );
        assert_eq!(values("rate:100,1000,10.5"), [100.0, 1000.0, 10.5]);
        assert_eq!(values("rate:10..1/2"), [10.0, 1.0]);
        assert_eq!(values("7"), [7.0]);
        let ramp: Ramp = "rate:1,2".parse().expect("a ramp");
        let base = Load {
            connections: 3,
            rate: None,
        };
        let loads = ramp.loads(base).into_iter();
        let loads: Vec<_> = loads.map(|load| (load.connections, load.rate)).collect();
        let rate = |rate| Some(Rate::PerSecond(rate));
        assert_eq!(loads, [(3, rate(1.0)), (3, rate(2.0))]);
    }

    #[test]
    fn what_is_no_ramp_is_said_to_be_none() {
        for text in [
            "",
            "a",
            "1..",
            "..2",
            "1..2/1",
            "1..2/x",
            "1..2/101",
            "0",
            "-1",
            "500..100",
            "size:1",
            "1,,2",
            "rate:nan",
            "rate:1e400",
        ] {
            assert!(text.parse::<Ramp>().is_err(), "{text}");
        }
    }
}
