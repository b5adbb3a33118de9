//! The number that a feed gives its events.

use crate::event::{Kind, Payload};
use crate::stream::retained::key::Pointer;

/// Digits behind the point that count; 10 to the power of this fits a `u64`.
const DIGITS: usize = 18;
/// More digits than this are no number that anybody counts with.
const MAX_LEN: usize = 64;

/// A number that is not negative, below 2⁶⁴ − 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Number {
    /// What is before the point.
    pub whole: u64,
    /// What is behind it, in units of 10⁻¹⁸; more digits do not count.
    pub fraction: u64,
}

impl Number {
    /// The number that `pointer` leads to in a payload, which is JSON; a string that is one counts as well.
    pub fn find(pointer: &Pointer, payload: &Payload) -> Option<Self> {
        if payload.kind != Kind::Text {
            return None;
        }
        let raw = pointer.value(&payload.bytes)?.get();
        let text = match raw.strip_prefix('"') {
            // A number has nothing in it that would be escaped.
            Some(rest) => rest.strip_suffix('"')?,
            None => raw,
        };
        Self::parse(text)
    }

    /// As JSON writes numbers; in a string there may be zeros in front.
    fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_LEN {
            return None;
        }
        let number = match text.contains(['e', 'E']) {
            true => Self::of_float(text)?,
            false => {
                let (whole, fraction) = match text.split_once('.') {
                    Some((_, "")) => return None,
                    Some(parts) => parts,
                    None => (text, ""),
                };
                let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
                if !are_digits(whole) || !are_digits(fraction) {
                    return None;
                }
                let fraction = &fraction[..fraction.len().min(DIGITS)];
                Self {
                    whole: whole.parse().ok()?,
                    fraction: format!("{fraction:0<DIGITS$}").parse().ok()?,
                }
            }
        };
        (number.whole < u64::MAX).then_some(number)
    }

    fn of_float(text: &str) -> Option<Self> {
        let is_json = text.starts_with(|first: char| first.is_ascii_digit());
        let float: f64 = text.parse().ok().filter(|_| is_json)?;
        let is_in_range = float.is_finite() && float < u64::MAX as f64;
        is_in_range.then(|| Self {
            whole: float.trunc() as u64,
            fraction: (float.fract() * 1e18) as u64,
        })
    }

    /// How far two numbers are from each other.
    pub fn distance(self, other: Self) -> (u64, u64) {
        let (small, large) = (self.min(other), self.max(other));
        match large.fraction.checked_sub(small.fraction) {
            Some(fraction) => (large.whole - small.whole, fraction),
            None => {
                let borrowed = 10u64.pow(DIGITS as u32) - small.fraction + large.fraction;
                (large.whole - small.whole - 1, borrowed)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pointer: &str, json: &str) -> Option<(u64, u64)> {
        let pointer = pointer.parse().expect("a pointer");
        let number = Number::find(&pointer, &Payload::text(json))?;
        Some((number.whole, number.fraction))
    }

    #[test]
    fn a_number_or_a_string_that_is_one() {
        for (json, expected) in [
            ("7", Some((7, 0))),
            ("0", Some((0, 0))),
            ("\"0042\"", Some((42, 0))),
            ("18446744073709551614", Some((u64::MAX - 1, 0))),
            ("18446744073709551615", None),
            ("18446744073709551616", None),
            (
                "1712345678.25",
                Some((1_712_345_678, 250_000_000_000_000_000)),
            ),
            ("1.0000000000000000019", Some((1, 1))),
            ("1.5e3", Some((1_500, 0))),
            ("1e400", None),
            ("-1", None),
            ("\"\"", None),
            ("\"+1\"", None),
            ("\"1.\"", None),
            ("\".5\"", None),
            ("\"1e\"", None),
            ("\"ten\"", None),
            ("\"-1e3\"", None),
            ("\"inf\"", None),
            ("true", None),
            ("null", None),
            ("[1]", None),
            ("{}", None),
        ] {
            let json = format!(r#"{{"a":[{{"seq":{json}}}]}}"#);
            assert_eq!(found("/a/0/seq", &json), expected, "{json}");
        }
        assert_eq!(found("/seq", "{\"seq\":1"), None, "it is no JSON");
        assert_eq!(found("/seq", "{}"), None);
        let pointer = "/seq".parse().expect("a pointer");
        let binary = Payload::binary("{\"seq\":1}");
        assert_eq!(Number::find(&pointer, &binary), None);
    }

    #[test]
    fn a_distance_is_the_same_from_both_sides() {
        let number = |text| Number::parse(text).expect("a number");
        let tenth = 10u64.pow(DIGITS as u32 - 1);
        for (a, b, expected) in [
            ("1", "4", (3, 0)),
            ("1.9", "2", (0, tenth)),
            ("1.9", "4.1", (2, 2 * tenth)),
            ("3", "3", (0, 0)),
        ] {
            assert_eq!(number(a).distance(number(b)), expected);
            assert_eq!(number(b).distance(number(a)), expected);
        }
    }
}
