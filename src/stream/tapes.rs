//! The tapes of a stream: one for each format that somebody reads.

use smallvec::SmallVec;

use super::tape::{Tape, TapeReader};
use crate::wire::Format;

/// As a rule there is one, or none: many streams have one subscriber.
#[derive(Default)]
pub struct Tapes(SmallVec<[(Format, Tape); 1]>);

impl Tapes {
    /// Those of a format that are read, compressed or not.
    pub fn all_of(&mut self, plain: Format) -> impl Iterator<Item = &mut Tape> {
        self.iter_mut()
            .filter_map(move |(of, tape)| (of.plain() == plain).then_some(tape))
    }

    /// The tape of a format, which is made if there is none: its first event will be the one numbered `next`.
    pub fn get_or_make(&mut self, format: Format, next: u64) -> &mut Tape {
        let at = self.0.iter().position(|(of, _)| *of == format);
        let at = at.unwrap_or_else(|| {
            self.0.push((format, Tape::new(next)));
            self.0.len() - 1
        });
        &mut self.0[at].1
    }

    /// All there are.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Format, &mut Tape)> {
        self.0.iter_mut().map(|(format, tape)| (*format, tape))
    }

    /// Drops those that nobody reads any more.
    pub fn drop_unread(&mut self) {
        self.0.retain(|(_, tape)| !tape.is_unread());
    }

    /// Whether somebody reads.
    pub fn are_read(&self) -> bool {
        self.0.iter().any(|(_, tape)| !tape.is_unread())
    }

    /// A reader of each.
    pub fn readers(&self) -> SmallVec<[TapeReader; 1]> {
        self.0.iter().map(|(_, tape)| tape.reader()).collect()
    }
}
