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
//! - A tape begins where its first reader did. Whoever wants older events makes the log put their frames before it.

#[allow(unsafe_code)] // See there; everything else in this crate goes without.
mod chunk;

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, PoisonError};

#[cfg(wsevent_loom)]
use loom::sync::{Mutex, MutexGuard};
#[cfg(not(wsevent_loom))]
use std::sync::{Mutex, MutexGuard};

use tokio::sync::futures::Notified;

use super::cursor::Cursor;
use super::head::Head;
pub use chunk::Chunk;
use chunk::{ChunkWriter, Within};

/// The first chunk of a tape that holds anything: a quiet stream costs little, and one on which nothing happens next to nothing.
#[cfg(not(wsevent_loom))]
const SMALLEST_CHUNK: usize = 512;
/// So small that a few events need several.
#[cfg(wsevent_loom)]
const SMALLEST_CHUNK: usize = 2;
/// Chunks double up to this size: a busy stream gets long slices, and eviction stays fine-grained.
const LARGEST_CHUNK: usize = 256 << 10;

/// Positions begin here: with room for all that may still be put before the first frame.
const FIRST_POSITION: u64 = 1 << 62;

/// So far ahead a tape goes on when it has been cut off: what is then put before it must not reach a place where an old
/// cursor may stand.
const CUT: u64 = 1 << 42;

/// The writing side, owned by the log.
pub struct Tape {
    chunks: TapeReader,
    tail: ChunkWriter,
    next_capacity: usize,
    /// For each chunk of the row but the last, where in it its frames end: to find the frame of an event.
    ends: VecDeque<Vec<u32>>,
    /// The same for the last.
    tail_ends: Vec<u32>,
    /// Where the second chunk begins, if there is one: until that has become old, there is nothing to let go of.
    second: Option<u64>,
}

impl Tape {
    /// An empty tape; the next event has the number `index`.
    pub fn new(index: u64) -> Self {
        let start = Cursor {
            position: FIRST_POSITION,
            index,
        };
        let tail = Chunk::create(start, 0);
        let row = VecDeque::from([tail.chunk().clone()]);
        Self {
            chunks: TapeReader {
                shared: Arc::new(Shared {
                    row: Mutex::new(row),
                    head: Head::default(),
                }),
            },
            tail,
            next_capacity: SMALLEST_CHUNK,
            ends: VecDeque::new(),
            tail_ends: Vec::new(),
            second: None,
        }
    }

    /// Appends and publishes the frame of the next event, given as header and payload.
    pub fn append(&mut self, frame: [&[u8]; 2]) {
        self.put(frame, 1);
        let end = self.end().position - self.tail.chunk().start.position;
        self.tail_ends.push(end as u32);
    }

    /// Appends and publishes a frame that is no event's. It goes with the next one.
    pub fn append_notice(&mut self, frame: &[u8]) {
        self.put([frame, &[]], 0);
    }

    fn put(&mut self, frame: [&[u8]; 2], events: u64) {
        if self.tail.append(frame, events) {
            return;
        }
        let len: usize = frame.iter().map(|part| part.len()).sum();
        let mut tail = Chunk::create(self.end(), len.max(self.next_capacity));
        self.next_capacity = (self.next_capacity * 2).min(LARGEST_CHUNK);
        let fits = tail.append(frame, events);
        assert!(fits, "a new chunk has room for its first frame");
        self.ends.push_back(mem::take(&mut self.tail_ends));
        // A reader that finds the old tail sealed must find the next chunk in the row: seal it last.
        self.chunks.lock().push_back(tail.chunk().clone());
        self.second = self.second.or(Some(tail.chunk().start.index));
        mem::replace(&mut self.tail, tail).seal();
    }

    /// Puts the frames of the events right before the first one here, oldest first.
    pub fn prepend(&mut self, frames: &[Vec<u8>]) {
        let mut rest = frames;
        while !rest.is_empty() {
            // From the back: as many as make one chunk, or one that is larger than that.
            let mut total = 0;
            let fitting = rest.iter().rev().take_while(|frame| {
                total += frame.len();
                total <= LARGEST_CHUNK
            });
            let count = fitting.count().max(1);
            let (before, chunk) = rest.split_at(rest.len() - count);
            self.prepend_chunk(chunk);
            rest = before;
        }
    }

    fn prepend_chunk(&mut self, frames: &[Vec<u8>]) {
        let len: usize = frames.iter().map(Vec::len).sum();
        let mut row = self.chunks.lock();
        let next = row
            .front()
            .map_or(self.tail.chunk().start, |chunk| chunk.start);
        let start = Cursor {
            position: next.position - len as u64,
            index: next.index - frames.len() as u64,
        };
        let mut writer = Chunk::create(start, len);
        let mut ends = Vec::with_capacity(frames.len());
        for frame in frames {
            let fits = writer.append([frame, &[]], 1);
            assert!(fits, "the chunk was made for these frames");
            ends.push(ends.last().copied().unwrap_or(0) + frame.len() as u32);
        }
        row.push_front(writer.chunk().clone());
        self.second = row.get(1).map(|chunk| chunk.start.index);
        self.ends.push_front(ends);
        writer.seal();
    }

    /// The number of the event whose frame is the first here.
    pub fn first(&self) -> u64 {
        let row = self.chunks.lock();
        row.front().map_or(0, |chunk| chunk.start.index)
    }

    /// The place right before the frame of the event with this number; none if it is not here. The number of the next event
    /// stands for the live edge.
    pub fn before(&self, index: u64) -> Option<Cursor> {
        let row = self.chunks.lock();
        let at = row.partition_point(|chunk| chunk.start.index <= index);
        let at = at.checked_sub(1)?;
        let mut start = row[at].start;
        let offset = match index - start.index {
            // A notice that goes with this event may be all that is behind the one before.
            0 if at > 0 => {
                start = row[at - 1].start;
                self.ends[at - 1].last().copied().unwrap_or(0)
            }
            0 => 0,
            frames => {
                let ends = self.ends.get(at).unwrap_or(&self.tail_ends);
                *ends.get(frames as usize - 1)?
            }
        };
        Some(Cursor {
            position: start.position + u64::from(offset),
            index,
        })
    }

    /// The live edge: behind the last frame.
    pub fn end(&self) -> Cursor {
        self.tail.chunk().end()
    }

    /// Lets go of the chunks that hold nothing but frames numbered below `oldest`.
    pub fn evict_before(&mut self, oldest: u64) {
        if self.second.is_none_or(|second| second > oldest) {
            return;
        }
        let mut row = self.chunks.lock();
        while row.get(1).is_some_and(|next| next.start.index <= oldest) {
            row.pop_front();
            self.ends.pop_front();
        }
        self.second = row.get(1).map(|chunk| chunk.start.index);
    }

    /// With which events those chunks begin that hold events, and the last one.
    #[cfg(test)]
    pub fn firsts(&self) -> Vec<u64> {
        let row = self.chunks.lock();
        let mut firsts: Vec<_> = row.iter().map(|chunk| chunk.start.index).collect();
        firsts.dedup();
        firsts
    }

    /// Lets go of everything: whoever reads here finds out as if history had passed.
    pub fn cut_off(&mut self) {
        let end = self.end();
        let start = Cursor {
            position: end.position + CUT,
            ..end
        };
        let tail = Chunk::create(start, 0);
        let mut row = self.chunks.lock();
        row.clear();
        row.push_back(tail.chunk().clone());
        drop(row);
        self.ends = VecDeque::new();
        self.tail_ends = Vec::new();
        self.second = None;
        mem::replace(&mut self.tail, tail).seal();
    }

    /// A handle for reading.
    pub fn reader(&self) -> TapeReader {
        self.chunks.clone()
    }

    /// Whether nobody holds a reader of this tape any more.
    pub fn is_unread(&self) -> bool {
        Arc::strong_count(&self.chunks.shared) == 1
    }
}

/// The reading side: shared, cheap to clone, and without any state of its own.
#[derive(Clone)]
pub struct TapeReader {
    shared: Arc<Shared>,
}

struct Shared {
    row: Mutex<VecDeque<Arc<Chunk>>>,
    /// Changes when there is more to read.
    head: Head,
}

/// What wakes a reader.
#[derive(Clone)]
pub struct Changes {
    tape: TapeReader,
    /// What it has looked at.
    seen: u64,
}

impl Changes {
    fn head(&self) -> &Head {
        &self.tape.shared.head
    }

    /// Whether there may be more to read.
    pub fn has_changed(&self) -> bool {
        self.head().count() != self.seen
    }

    /// All that is there has been looked at.
    pub fn mark_seen(&mut self) {
        self.seen = self.head().count();
    }

    /// Ready when there may be more to read than when this was called. Whether there was some then is another question.
    pub fn next(&self) -> Notified<'_> {
        self.head().next()
    }

    /// Waits until there may be more to read.
    pub async fn changed(&mut self) {
        self.seen = self.head().beyond(self.seen).await;
    }
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

/// Before everything.
const NOWHERE: Cursor = Cursor {
    position: 0,
    index: 0,
};

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
    /// Wakes who waits for more.
    pub(super) fn tell(&self) {
        self.shared.head.advance();
    }

    /// What comes from here on.
    pub fn changes(&self) -> Changes {
        Changes {
            tape: self.clone(),
            seen: self.shared.head.count(),
        }
    }

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

    /// The place before the oldest frame that can still be read.
    pub fn oldest(&self) -> Cursor {
        let first = |chunk: &Arc<Chunk>| chunk.start;
        // There is always the chunk that is being filled.
        self.lock().front().map_or(NOWHERE, first)
    }

    /// The place behind the newest frame.
    pub fn newest(&self) -> Cursor {
        self.lock().back().map_or(NOWHERE, |chunk| chunk.end())
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Chunk>>> {
        // A panic elsewhere cannot leave the row half-changed: each change is one push or pop.
        self.shared
            .row
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(all(test, not(wsevent_loom)))]
mod tests;

/// Run as those of [`chunk`].
#[cfg(all(test, wsevent_loom))]
mod loom_tests {
    use super::*;

    /// While events are appended and old ones evicted, a reader that remembers a chunk sees each event once and in order, up to where it is
    /// told that history has passed it.
    #[test]
    fn a_reader_sees_all_in_order_or_learns_that_it_is_passed_by() {
        loom::model(|| {
            let mut tape = Tape::new(1);
            let reader = tape.reader();
            let mut cursor = tape.end();
            let writer = loom::thread::spawn(move || {
                for number in 1..=4u8 {
                    tape.append([&[number], &[number]]);
                    // Only the newest is kept.
                    tape.evict_before(u64::from(number));
                }
                tape
            });
            let mut chunk = None;
            let mut seen = vec![];
            let look = |cursor: &mut Cursor, chunk: &mut _, seen: &mut Vec<u8>| {
                let evicted = match reader.pending(*cursor, chunk) {
                    Pending::Frames { slice, end, .. } => {
                        seen.extend_from_slice(&slice);
                        *cursor = end;
                        false
                    }
                    Pending::CaughtUp => false,
                    Pending::Evicted => true,
                };
                // Whole events from the first on, none twice and none missing.
                let events = (1..=(seen.len() / 2) as u8).flat_map(|number| [number; 2]);
                assert_eq!(*seen, events.collect::<Vec<_>>());
                assert_eq!(cursor.index, 1 + seen.len() as u64 / 2);
                evicted
            };
            let mut evicted = false;
            for _ in 0..2 {
                evicted = evicted || look(&mut cursor, &mut chunk, &mut seen);
            }
            let tape = writer.join().expect("the writer does not panic");
            // Now nothing changes any more: it gets to the end, or learns that it will not.
            for _ in 0..4 {
                evicted = evicted || look(&mut cursor, &mut chunk, &mut seen);
            }
            assert!(evicted || cursor == tape.end(), "{seen:?}");
        });
    }
}
