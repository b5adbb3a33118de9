//! What one subscriber has seen of a numbered row of events: what is missing, and what came twice.

/// How far back an event that comes late is told from one that comes again.
const WINDOW: u32 = u128::BITS;

/// A row of events whose numbers have no holes.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Up to here it is of no interest.
    base: u64,
    /// The largest number so far.
    last: u64,
    /// Which of the numbers up to that have come: of `last` the lowest bit.
    seen: u128,
}

/// What an event means for the counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// It is news, and so many before it are missing for now.
    New(u64),
    /// It was taken for lost.
    Late,
    /// It is from before what is counted.
    Old,
    /// It has come before. So is one counted that comes 128 places late, or later.
    Again,
}

impl Row {
    /// One of which everything up to `last` is of no interest.
    pub fn behind(last: u64) -> Self {
        Self {
            base: last,
            last,
            seen: u128::MAX,
        }
    }

    /// One of which this event is the first that has come.
    pub fn from(first: u64) -> Self {
        Self {
            base: first.saturating_sub(1),
            ..Self::behind(first)
        }
    }

    /// The largest number that has come.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// An event has come.
    pub fn see(&mut self, seq: u64) -> Seen {
        if seq <= self.base {
            return Seen::Old;
        }
        if let Some(ahead) = seq.checked_sub(self.last).filter(|&ahead| ahead > 0) {
            let shift = u32::try_from(ahead).unwrap_or(WINDOW);
            self.seen = self.seen.checked_shl(shift).unwrap_or(0) | 1;
            self.last = seq;
            return Seen::New(ahead - 1);
        }
        let bit = u32::try_from(self.last - seq).unwrap_or(WINDOW);
        match 1u128.checked_shl(bit) {
            Some(bit) if self.seen & bit == 0 => {
                self.seen |= bit;
                Seen::Late
            }
            _ => Seen::Again,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Seen::{Again, Late, New, Old};
    use super::*;

    #[test]
    fn what_is_lost_late_and_repeated_is_told_apart() {
        let mut row = Row::behind(10);
        let seen = [11, 13, 13, 12, 12, 16, 11, 10, 15].map(|seq| row.see(seq));
        assert_eq!(
            seen,
            [New(0), New(1), Again, Late, Again, New(2), Again, Old, Late]
        );
        assert_eq!(row.last(), 16);
    }

    #[test]
    fn far_jumps_do_no_harm() {
        let mut row = Row::behind(0);
        assert_eq!(row.see(u64::MAX), New(u64::MAX - 1));
        assert_eq!(row.see(u64::MAX), Again);
        assert_eq!(row.see(u64::MAX - 127), Late);
        assert_eq!(row.see(u64::MAX - 127), Again);
        assert_eq!(row.see(u64::MAX - 128), Again);
        assert_eq!(row.see(0), Old);
        let mut row = Row::behind(1);
        assert_eq!(row.see(129), New(127));
        assert_eq!(row.see(2), Late);
        assert_eq!(row.see(1), Old);
        let mut row = Row::from(5);
        assert_eq!([5, 4, 6].map(|seq| row.see(seq)), [Again, Old, New(0)]);
    }
}
