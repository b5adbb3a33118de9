//! What stands in the payload of an event that a bench publishes: which run it is of, its number, and when it was sent. All of it is
//! letters, digits and `-`, so it comes through whatever a server makes of a payload, and is found again.

use std::io::Write;

use memchr::memmem;
use rustix::time::{ClockId, clock_gettime};

/// What a marker begins with.
const MAGIC: &[u8] = b"wsb1-";
/// The length of a marker: `wsb1-RUN-NUMBER-TIME.`, of which the three are 8, 16 and 16 hexadecimal digits.
pub const LENGTH: usize = 5 + 8 + 1 + 16 + 1 + 16 + 1;

/// What a marker says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Counts up from 1.
    pub seq: u64,
    /// When it was handed to the publisher's connection, or was due while that was not taken from, as [`now_ns`].
    pub sent_ns: u64,
}

/// `CLOCK_MONOTONIC` in nanoseconds: whoever publishes and whoever reads have the same one, as both are this process.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// Events of one run, and how they are recognised.
#[derive(Debug, Clone, Copy)]
pub struct Run(u32);

impl Run {
    /// One that no other bench has at the same time.
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// A payload of `size` bytes, [`LENGTH`] at least. What is behind the marker is cut from `padding`, which must be long enough.
    pub fn payload(self, mark: Mark, size: usize, padding: &[u8]) -> Vec<u8> {
        let mut payload = Vec::with_capacity(size.max(LENGTH));
        let Mark { seq, sent_ns } = mark;
        // Writing into memory does not fail.
        let _ = write!(payload, "wsb1-{:08x}-{seq:016x}-{sent_ns:016x}.", self.0);
        payload.extend_from_slice(&padding[..size.saturating_sub(LENGTH)]);
        payload
    }

    /// The mark of this run that stands first in a text, if there is one.
    pub fn find(self, text: &[u8]) -> Option<Mark> {
        // A server that leaves payloads alone needs no search.
        if text.starts_with(MAGIC) {
            return self.read(text);
        }
        let at = memmem::find(text, MAGIC)?;
        self.read(&text[at..])
    }

    fn read(self, text: &[u8]) -> Option<Mark> {
        let text = text.get(MAGIC.len()..LENGTH)?;
        let is_whole = text[8] == b'-' && text[25] == b'-' && text[42] == b'.';
        let run = number(&text[..8])?;
        if !is_whole || run != u64::from(self.0) {
            return None;
        }
        Some(Mark {
            seq: number(&text[9..25])?,
            sent_ns: number(&text[26..42])?,
        })
    }
}

/// Sixteen hexadecimal digits at most.
fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |number: u64, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u64::from(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_is_found_again_wherever_it_stands() {
        let run = Run(0xdead_beef);
        let mark = Mark {
            seq: 42,
            sent_ns: u64::MAX,
        };
        for size in [0, LENGTH, LENGTH + 1, 4_000] {
            let payload = run.payload(mark, size, &[b'x'; 4_000]);
            assert_eq!(payload.len(), size.max(LENGTH));
            assert_eq!(run.find(&payload), Some(mark));
            let wrapped = [b"{\"msg\":\"", &payload[..], b"\"}"].concat();
            assert_eq!(run.find(&wrapped), Some(mark));
            for cut in 0..LENGTH {
                assert_eq!(run.find(&payload[..cut]), None, "{cut}");
            }
            assert_eq!(Run(1).find(&payload), None, "of another run");
        }
        assert_eq!(run.find(b"wsb1-DEADBEEF"), None);
    }
}
