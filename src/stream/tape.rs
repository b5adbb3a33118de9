//! A tape: the encoded frames of one stream in one wire format, each encoded once, however many subscribers read them.
//!
//! ```text
//!            oldest                                                            published
//!              v                                                                   v
//!   evicted .. [ chunk: frame frame frame ][ chunk: frame frame ][ chunk: frame frame . . . . ]
//!                        ^cursor                                                  ^cursor, caught up
//! ```
//!
//! - A tape is a row of chunks; a chunk is one allocation that is filled from the front and never moves.
//! - One writer (whoever holds `&mut Tape`, which is the log under its lock) appends whole frames behind the published
//!   length and then publishes the new length. Bytes below the published length never change again.
//! - Any number of readers look at the published bytes without a lock and without copying. A published length is
//!   always a frame boundary, and no frame lies across two chunks.
//! - A cursor is a position, not a reference: it keeps nothing alive. When history has moved past it, reading says so.

#[allow(unsafe_code)] // See there; everything else in this crate goes without.
mod chunk;

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::cursor::Cursor;
pub use chunk::Chunk;
use chunk::{ChunkWriter, Within};

/// The first chunk of a tape: a quiet stream costs little.
const SMALLEST_CHUNK: usize = 4 << 10;
/// Chunks double up to this size: a busy stream gets long slices, and eviction stays fine-grained.
const LARGEST_CHUNK: usize = 256 << 10;

/// The writing side, owned by the log.
pub struct Tape {
    chunks: TapeReader,
    tail: ChunkWriter,
    next_capacity: usize,
}

impl Tape {
    /// An empty tape; the next event has the number `index`.
    pub fn new(index: u64) -> Self {
        let tail = Chunk::create(Cursor { position: 0, index }, SMALLEST_CHUNK);
        let row = VecDeque::from([tail.chunk().clone()]);
        Self {
            chunks: TapeReader {
                row: Arc::new(Mutex::new(row)),
            },
            tail,
            next_capacity: SMALLEST_CHUNK * 2,
        }
    }

    /// Appends and publishes one frame, given as header and payload.
    pub fn append(&mut self, frame: [&[u8]; 2]) {
        if self.tail.append(frame) {
            return;
        }
        let len: usize = frame.iter().map(|part| part.len()).sum();
        let mut tail = Chunk::create(self.end(), len.max(self.next_capacity));
        self.next_capacity = (self.next_capacity * 2).min(LARGEST_CHUNK);
        let fits = tail.append(frame);
        assert!(fits, "a new chunk has room for its first frame");
        // A reader that finds the old tail sealed must find the next chunk in the row: seal it last.
        self.chunks.lock().push_back(tail.chunk().clone());
        mem::replace(&mut self.tail, tail).seal();
    }

    /// The live edge: behind the last frame.
    pub fn end(&self) -> Cursor {
        self.tail.chunk().end()
    }

    /// Lets go of the chunks that hold nothing but frames numbered below `oldest`.
    pub fn evict_before(&mut self, oldest: u64) {
        let mut row = self.chunks.lock();
        while row.get(1).is_some_and(|next| next.start.index <= oldest) {
            row.pop_front();
        }
    }

    /// A handle for reading.
    pub fn reader(&self) -> TapeReader {
        self.chunks.clone()
    }

    /// Whether nobody holds a reader of this tape any more.
    pub fn is_unread(&self) -> bool {
        Arc::strong_count(&self.chunks.row) == 1
    }
}

/// The reading side: shared, cheap to clone, and without any state of its own.
#[derive(Clone)]
pub struct TapeReader {
    row: Arc<Mutex<VecDeque<Arc<Chunk>>>>,
}

/// What a cursor finds on its tape.
pub enum Pending<'a> {
    /// Whole frames, one after another; reading goes on at `end`.
    Frames {
        /// The frames, and the chunk that holds them.
        slice: Slice<'a>,
        /// Where the cursor stands once it has passed them.
        end: Cursor,
        /// Whether this is all that was published at this moment.
        last: bool,
    },
    /// Nothing yet.
    CaughtUp,
    /// What the cursor stands before has been evicted.
    Evicted,
}

/// Published bytes, borrowed from their chunk.
#[derive(Clone, Copy)]
pub struct Slice<'a> {
    chunk: &'a Arc<Chunk>,
    from: usize,
    to: usize,
}

impl Slice<'_> {
    /// The bytes from `from` to `to` of this slice, as an owner that keeps their whole chunk alive.
    pub fn to_owned(&self, from: usize, to: usize) -> impl AsRef<[u8]> + Send + 'static {
        struct Owned(Arc<Chunk>, usize, usize);
        impl AsRef<[u8]> for Owned {
            fn as_ref(&self) -> &[u8] {
                self.0.slice(self.1, self.2)
            }
        }
        assert!(from <= to && to <= self.to - self.from);
        Owned(self.chunk.clone(), self.from + from, self.from + to)
    }
}

impl std::ops::Deref for Slice<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.chunk.slice(self.from, self.to)
    }
}

impl TapeReader {
    /// What lies behind `cursor`, as far as it is in one chunk.
    ///
    /// `chunk` remembers where the last look ended: cursors that are near each other, as those of caught-up
    /// subscribers are, then cost neither a lock nor a search.
    pub fn pending<'a>(&self, cursor: Cursor, chunk: &'a mut Option<Arc<Chunk>>) -> Pending<'a> {
        let mut found = chunk
            .as_ref()
            .map_or(Within::Elsewhere, |chunk| chunk.after(cursor));
        if matches!(found, Within::Elsewhere) {
            let Some(right) = self.find(cursor) else {
                return Pending::Evicted;
            };
            found = right.after(cursor);
            *chunk = Some(right);
        }
        match (found, chunk) {
            (
                Within::Frames {
                    from,
                    to,
                    end,
                    last,
                },
                Some(chunk),
            ) => Pending::Frames {
                slice: Slice { chunk, from, to },
                end,
                last,
            },
            _ => Pending::CaughtUp,
        }
    }

    /// The chunk that holds what lies behind `cursor`; none if it has been evicted.
    fn find(&self, cursor: Cursor) -> Option<Arc<Chunk>> {
        let row = self.lock();
        // At a border two chunks claim the position; the later one holds what comes next.
        let behind = row.partition_point(|chunk| chunk.start.position <= cursor.position);
        behind.checked_sub(1).map(|index| row[index].clone())
    }

    /// The position of the oldest frame that can still be read.
    pub fn oldest(&self) -> u64 {
        self.lock().front().map_or(0, |chunk| chunk.start.position)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Chunk>>> {
        // A panic elsewhere cannot leave the row half-changed: each change is one push or pop.
        self.row.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(all(test, not(wsevent_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame of `len` bytes that can be recognised.
    fn frame(number: u64, len: usize) -> Vec<u8> {
        let mut frame = (len as u32).to_le_bytes().to_vec();
        frame.extend((0..len).map(|at| (number as usize + at) as u8));
        frame
    }

    #[derive(Debug, Clone)]
    enum Step {
        Append(usize),
        Read(usize),
        Evict(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => prop_oneof![8 => 0usize..2_000, 1 => 0usize..300_000].prop_map(Step::Append),
            3 => (0usize..3).prop_map(Step::Read),
            1 => (0u64..20).prop_map(Step::Evict),
        ]
    }

    proptest! {
        /// Whatever is appended, read and evicted in whatever order, a cursor yields whole frames in order, or says
        /// that it has been passed by; and it is passed by only when a frame it had not read was evicted.
        #[test]
        fn cursors_yield_whole_frames_in_order(steps in proptest::collection::vec(step(), 1..80)) {
            let mut tape = Tape::new(1);
            let reader = tape.reader();
            let mut frames = vec![];
            let mut kept_from = 0;
            let mut cursors = [tape.end(); 3];
            let mut chunk = None;
            for step in steps {
                match step {
                    Step::Append(len) => {
                        let next = frame(frames.len() as u64, len);
                        tape.append([&next[..3], &next[3..]]);
                        frames.push(next);
                    }
                    Step::Evict(keep) => {
                        kept_from = kept_from.max(frames.len().saturating_sub(keep as usize));
                        tape.evict_before(1 + kept_from as u64);
                    }
                    Step::Read(which) => {
                        let cursor = &mut cursors[which];
                        loop {
                            let read = (cursor.index - 1) as usize;
                            match reader.pending(*cursor, &mut chunk) {
                                Pending::Frames { slice, end, .. } => {
                                    let expected = frames[read..(end.index - 1) as usize].concat();
                                    prop_assert!(*slice == expected[..]);
                                    prop_assert_eq!(end.position - cursor.position, expected.len() as u64);
                                    *cursor = end;
                                }
                                Pending::CaughtUp => {
                                    prop_assert_eq!(read, frames.len());
                                    break;
                                }
                                Pending::Evicted => {
                                    prop_assert!(read < kept_from);
                                    *cursor = tape.end();
                                    break;
                                }
                            }
                        }
                    }
                }
            }
            prop_assert_eq!(tape.end().index, frames.len() as u64 + 1);
        }
    }

    #[test]
    fn chunks_go_when_all_their_frames_are_old() {
        let mut tape = Tape::new(1);
        let reader = tape.reader();
        let start = tape.end();
        for _ in 0..100 {
            tape.append([&[0; 10], &[0; 1_000]]);
        }
        assert_eq!(reader.oldest(), 0);
        // The first chunk holds four of these frames: evicting three of them must keep it.
        tape.evict_before(4);
        assert!(matches!(
            reader.pending(start, &mut None),
            Pending::Frames { .. }
        ));
        tape.evict_before(5);
        assert!(matches!(reader.pending(start, &mut None), Pending::Evicted));
        assert_eq!(reader.oldest(), 4 * 1_010);
    }

    #[test]
    fn a_slice_outlives_its_tape() {
        let mut tape = Tape::new(1);
        let start = tape.end();
        tape.append([b"ab", b"cdef"]);
        let mut chunk = None;
        let owned = match tape.reader().pending(start, &mut chunk) {
            Pending::Frames { slice, .. } => slice.to_owned(1, 4),
            _ => panic!("a frame is pending"),
        };
        drop((tape, chunk));
        assert_eq!(owned.as_ref(), b"bcd");
    }

    #[test]
    fn a_tape_knows_whether_it_is_read() {
        let tape = Tape::new(1);
        assert!(tape.is_unread());
        let reader = tape.reader();
        assert!(!tape.is_unread());
        drop(reader);
        assert!(tape.is_unread());
    }

    #[test]
    fn readers_and_the_writer_run_at_the_same_time() {
        const FRAMES: u64 = 20_000;
        let mut tape = Tape::new(0);
        let (reader, start) = (tape.reader(), tape.end());
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let (mut cursor, mut chunk) = (start, None);
                    while cursor.index < FRAMES {
                        if let Pending::Frames { slice, end, .. } =
                            reader.pending(cursor, &mut chunk)
                        {
                            let expected = (cursor.index..end.index).flat_map(u64::to_le_bytes);
                            assert!(slice.iter().copied().eq(expected));
                            cursor = end;
                        }
                    }
                });
            }
            for number in 0..FRAMES {
                tape.append([&number.to_le_bytes(), &[]]);
            }
        });
    }
}
