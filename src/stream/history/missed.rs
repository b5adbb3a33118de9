//! What was missing before events that history has let go of: who has not got as far as them has missed that, too, and nobody will
//! tell it any more.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Of so many gaps it is remembered where they were and how much was lost.
const MAX_GAPS: usize = 256;

/// Gaps among what has gone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missed {
    /// The number of the event behind the gap, and how many are missing there, if that is known; in their order.
    gaps: VecDeque<(u64, Option<u64>)>,
    /// Of what was numbered below this nothing is remembered.
    unknown_before: u64,
}

impl Missed {
    /// Nothing is known of what was numbered below `first`.
    pub fn unknown_before(first: u64) -> Self {
        Self {
            gaps: VecDeque::new(),
            unknown_before: first,
        }
    }

    /// The event numbered `index` has gone, and so many are missing right before it, if that is known.
    pub fn push(&mut self, index: u64, lost: Option<u64>) {
        self.gaps.push_back((index, lost));
        if self.gaps.len() > MAX_GAPS
            && let Some((index, _)) = self.gaps.pop_front()
        {
            self.unknown_before = index + 1;
        }
    }

    /// How many events were missing before those that were numbered from `from` on and have gone; none if nobody knows.
    pub fn since(&self, from: u64) -> Option<u64> {
        if from < self.unknown_before {
            return None;
        }
        let at = self.gaps.partition_point(|(index, _)| *index < from);
        let mut lost = self.gaps.range(at..).map(|(_, lost)| *lost);
        lost.try_fold(0_u64, |sum, lost| Some(sum.saturating_add(lost?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_count_for_those_who_had_not_passed_them() {
        let mut missed = Missed::default();
        assert_eq!(missed.since(1), Some(0));
        missed.push(5, Some(3));
        missed.push(9, Some(4));
        let since = [1, 5, 6, 9, 10].map(|from| missed.since(from));
        assert_eq!(since, [Some(7), Some(7), Some(4), Some(4), Some(0)]);
        missed.push(12, None);
        assert_eq!(
            [6, 12, 13].map(|from| missed.since(from)),
            [None, None, Some(0)]
        );
    }

    #[test]
    fn so_many_are_remembered() {
        let mut missed = Missed::default();
        let most = MAX_GAPS as u64;
        (1..=most + 1).for_each(|index| missed.push(index, Some(1)));
        assert_eq!(
            [1, 2, 3].map(|from| missed.since(from)),
            [None, Some(most), Some(most - 1)]
        );
        assert_eq!(Missed::unknown_before(7).since(6), None);
        assert_eq!(Missed::unknown_before(7).since(7), Some(0));
    }
}
