//! One chunk of a tape: filled from the front by one writer, while any number of readers look at what is published.
//!
//! This is the one file with `unsafe` in it: a slice that is read while the same allocation is filled further on cannot
//! be expressed otherwise without a copy for every reader or a system call for every event. What it offers is safe.

use std::sync::Arc;

#[cfg(wsevent_loom)]
use loom::{cell::UnsafeCell, sync::atomic::AtomicU64, sync::atomic::Ordering};
#[cfg(not(wsevent_loom))]
use std::{cell::UnsafeCell, sync::atomic::AtomicU64, sync::atomic::Ordering};

use crate::stream::cursor::Cursor;

/// How much of a chunk may be read, in one word, so that readers see length, count and end together.
#[derive(Clone, Copy)]
struct Published {
    /// Bytes from the front; a frame boundary.
    len: usize,
    /// Frames in these bytes.
    frames: u64,
    /// Nothing will follow: a reader at the end goes on to the next chunk.
    sealed: bool,
}

impl Published {
    const FRAMES_SHIFT: u32 = 32;
    const SEALED: u64 = 1 << 63;
    /// The count has 31 bits.
    const MAX_FRAMES: u64 = (1 << 31) - 1;

    fn pack(self) -> u64 {
        let sealed = if self.sealed { Self::SEALED } else { 0 };
        self.len as u64 | self.frames << Self::FRAMES_SHIFT | sealed
    }

    fn unpack(word: u64) -> Self {
        Self {
            len: (word & u64::from(u32::MAX)) as usize,
            frames: (word & !Self::SEALED) >> Self::FRAMES_SHIFT,
            sealed: word & Self::SEALED != 0,
        }
    }
}

/// One allocation of a tape, as its readers see it.
pub struct Chunk {
    /// Where it starts: the position of its first byte, and the number of the event whose frame comes first.
    pub start: Cursor,
    bytes: Box<[UnsafeCell<u8>]>,
    published: AtomicU64,
}

/// The one handle that fills a chunk.
pub struct ChunkWriter {
    chunk: Arc<Chunk>,
}

// SAFETY: `bytes` is the only part that is not `Sync` by itself. It is written by `ChunkWriter::append` alone, which
// takes `&mut self` of the only writer there is (`Chunk::create` makes one, and it cannot be cloned), at or above the
// published length. It is read by `Chunk::slice` alone, below a published length that was loaded with `Acquire`. The
// length only grows, and is stored with `Release` after the bytes below it were written. So no byte is ever written and
// read at the same time, and a reader sees what was written. `loom_tests` below checks this under every interleaving.
unsafe impl Sync for Chunk {}

impl ChunkWriter {
    /// For readers.
    pub fn chunk(&self) -> &Arc<Chunk> {
        &self.chunk
    }

    /// Writes one frame behind the published part and publishes it; false, and nothing changed, if it does not fit. `events` is
    /// how many events it counts for: a notice belongs to the event behind it.
    pub fn append(&mut self, frame: [&[u8]; 2], events: u64) -> bool {
        let mut published = self.chunk.load();
        let len: usize = frame.iter().map(|part| part.len()).sum();
        if len > self.chunk.bytes.len() - published.len || published.frames == Published::MAX_FRAMES
        {
            return false;
        }
        for part in frame {
            // SAFETY: this lies behind the published length, where no reader looks, and `&mut self` is the only writer.
            unsafe { self.chunk.write(published.len, part) };
            published.len += part.len();
        }
        published.frames += events;
        self.chunk.publish(published);
        true
    }

    /// Declares the chunk full: a reader at its end goes on to the next one, which must be in its place by now.
    pub fn seal(self) {
        let published = Published {
            sealed: true,
            ..self.chunk.load()
        };
        self.chunk.publish(published);
    }
}

impl Chunk {
    /// A chunk for `capacity` bytes, and the handle that fills it.
    pub fn create(start: Cursor, capacity: usize) -> ChunkWriter {
        assert!(
            u32::try_from(capacity).is_ok(),
            "the published length has 32 bits"
        );
        ChunkWriter {
            chunk: Arc::new(Self {
                start,
                bytes: (0..capacity).map(|_| UnsafeCell::new(0)).collect(),
                published: AtomicU64::new(0),
            }),
        }
    }

    fn publish(&self, published: Published) {
        self.published.store(published.pack(), Ordering::Release);
    }

    fn load(&self) -> Published {
        Published::unpack(self.published.load(Ordering::Acquire))
    }

    /// Copies `part` to `at`.
    ///
    /// # Safety
    ///
    /// Nobody else may access `at..at + part.len()` meanwhile.
    #[cfg(not(wsevent_loom))]
    unsafe fn write(&self, at: usize, part: &[u8]) {
        let cells = &self.bytes[at..at + part.len()];
        // SAFETY: `cells` is as long as `part` (the index above has checked that it lies in the chunk), `UnsafeCell<u8>`
        // is laid out like `u8` and allows writing through a shared reference, the caller promises that nobody else
        // accesses these bytes, and `part` is not among them, as only published bytes can be borrowed from a chunk.
        unsafe {
            let to = UnsafeCell::raw_get(cells.as_ptr());
            std::ptr::copy_nonoverlapping(part.as_ptr(), to, part.len());
        }
    }

    #[cfg(wsevent_loom)]
    unsafe fn write(&self, at: usize, part: &[u8]) {
        for (cell, byte) in self.bytes[at..at + part.len()].iter().zip(part) {
            // SAFETY: as the caller promises; here loom checks it.
            cell.with_mut(|cell| unsafe { *cell = *byte });
        }
    }

    /// The bytes from `from` up to `to`.
    ///
    /// # Panics
    ///
    /// If they are not all published.
    #[cfg(not(wsevent_loom))]
    pub fn slice(&self, from: usize, to: usize) -> &[u8] {
        assert!(to <= self.load().len, "only published bytes can be read");
        let cells = &self.bytes[from..to];
        // SAFETY: the length above was loaded with `Acquire`; bytes below it are never written again, so they may be
        // borrowed for as long as the chunk lives.
        unsafe { std::slice::from_raw_parts(cells.as_ptr().cast(), cells.len()) }
    }

    /// The bytes from `from` up to `to`.
    #[cfg(wsevent_loom)]
    pub fn slice(&self, from: usize, to: usize) -> &[u8] {
        // SAFETY: as above; here loom checks it. The model reads a copy, and a few leaked bytes do not matter to it.
        let read = |cell: &UnsafeCell<u8>| cell.with(|cell| unsafe { *cell });
        self.bytes[from..to]
            .iter()
            .map(read)
            .collect::<Vec<u8>>()
            .leak()
    }

    /// Behind the last frame.
    pub fn end(&self) -> Cursor {
        self.end_of(self.load())
    }

    fn end_of(&self, published: Published) -> Cursor {
        Cursor {
            position: self.start.position + published.len as u64,
            index: self.start.index + published.frames,
        }
    }

    /// What is published from `cursor` on, if the cursor is in this chunk.
    pub fn after(&self, cursor: Cursor) -> Within {
        let Some(from) = cursor.position.checked_sub(self.start.position) else {
            return Within::Elsewhere;
        };
        let published = self.load();
        let from = from as usize;
        if from < published.len {
            return Within::Frames {
                from,
                to: published.len,
                end: self.end_of(published),
                last: !published.sealed,
            };
        }
        match published.sealed || from > published.len {
            true => Within::Elsewhere,
            false => Within::CaughtUp,
        }
    }
}

/// Where a cursor stands, seen from one chunk.
pub enum Within {
    /// Before these bytes of the chunk; `end` is behind them, and nothing is behind that if they are the `last` for now.
    Frames {
        from: usize,
        to: usize,
        end: Cursor,
        last: bool,
    },
    /// Behind the last frame, and the next one will come here.
    CaughtUp,
    /// In another chunk.
    Elsewhere,
}

/// Run with `RUSTFLAGS='--cfg wsevent_loom' cargo test --release --lib loom_tests`: a name of its own, because tokio
/// and others change under `--cfg loom`.
#[cfg(all(test, wsevent_loom))]
mod loom_tests {
    use super::*;

    /// What is published can be read whole while the next frame is written behind it, and a reader that finds the
    /// chunk sealed has seen all of it.
    #[test]
    fn published_bytes_are_never_written_again() {
        loom::model(|| {
            let start = Cursor {
                position: 0,
                index: 0,
            };
            let mut filling = Chunk::create(start, 4);
            let chunk = filling.chunk().clone();
            let writer = loom::thread::spawn(move || {
                assert!(filling.append([&[1], &[2]], 1));
                assert!(filling.append([&[3], &[]], 1));
                assert!(!filling.append([&[4], &[5]], 1));
                filling.seal();
            });
            let mut cursor = start;
            let mut seen = vec![];
            for _ in 0..3 {
                match chunk.after(cursor) {
                    Within::Frames { from, to, end, .. } => {
                        seen.extend_from_slice(chunk.slice(from, to));
                        cursor = end;
                    }
                    Within::Elsewhere => assert_eq!(seen, [1, 2, 3], "sealed, so this was all"),
                    Within::CaughtUp => loom::thread::yield_now(),
                }
                // Whole frames only: nothing, the first, or both.
                let frames = [&[][..], &[1, 2], &[1, 2, 3]];
                assert_eq!(seen, frames[cursor.index as usize]);
            }
            writer.join().expect("the writer does not panic");
        });
    }
}
