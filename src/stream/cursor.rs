//! A subscriber's place on a tape.

/// A position on a tape, at a frame boundary. It is all that a waiting subscriber is to its stream: it holds no event
/// and no memory, and being far behind costs nobody anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Bytes on the tape before it, evicted ones included.
    pub position: u64,
    /// The number, in the log, of the event whose frame comes next.
    pub index: u64,
}
