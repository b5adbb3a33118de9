//! Compression of what is the same for every reader: each event alone, so that a reader can begin with any of them, and what is
//! compressed once serves all.
//!
//! - [`Coding::Deflate`] is a message of a WebSocket (RFC 7692) whose compressor remembers nothing of those before.
//! - [`Coding::Gzip`] is one gzip member (RFC 1952) without an end: its header, and then for each event DEFLATE blocks that refer to
//!   nothing before them and end with a sync flush. Members of their own would cost 18 bytes each, and browsers stop reading behind the
//!   first. As the end of a stream has nothing to say, there is no trailer: it would be a checksum of what each reader alone has got.
//! - [`Coding::Zstd`] is a frame for each event (RFC 8878, section 3: frames may follow each other).
//!
//! Compressors are large, so there is one of each kind for every thread that has compressed anything.

use std::cell::RefCell;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status as Flated};
use memchr::memmem;
use zstd_safe::{CCtx, CParameter};

mod expand;

pub use expand::Expander;

/// How bytes are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Coding {
    /// `permessage-deflate` on a WebSocket (RFC 7692).
    Deflate,
    /// The content coding `gzip` (RFC 9110, section 8.4.1.3).
    Gzip,
    /// The content coding `zstd` (RFC 8878, section 7.2).
    Zstd,
}

/// For each coding, how many bytes this process has compressed, and what they have become.
static COUNTS: [[AtomicU64; 2]; 3] = [const { [const { AtomicU64::new(0) }; 2] }; 3];

impl Coding {
    /// All of them; a coding's place here is its value as a number.
    pub const ALL: [Self; 3] = [Self::Deflate, Self::Gzip, Self::Zstd];

    /// How many bytes this process has compressed so, each once however many read them, and what they have become. What did not become
    /// smaller is among them as it went out.
    pub fn counts(self) -> [u64; 2] {
        let counts = &COUNTS[self as usize];
        counts.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    /// So many bytes have become so many.
    pub(super) fn count(self, plain: usize, coded: usize) {
        for (count, more) in COUNTS[self as usize].iter().zip([plain, coded]) {
            count.fetch_add(more as u64, Ordering::Relaxed);
        }
    }

    /// The name, for headers and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Deflate => "deflate",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// What stands before everything else.
    pub fn beginning(self) -> &'static [u8] {
        match self {
            Self::Gzip => &GZIP_HEADER,
            Self::Deflate | Self::Zstd => &[],
        }
    }

    /// Adds what these parts, one after the other, are on the wire. They are not empty, and where it is a body they are UTF-8.
    pub fn append(self, parts: &[&[u8]], out: &mut Vec<u8>) {
        let begin = out.len();
        match self {
            Self::Deflate => deflate(parts, out),
            Self::Gzip => append_gzip(parts, out),
            Self::Zstd => append_zstd(parts, out),
        }
        self.count(parts.iter().map(|part| part.len()).sum(), out.len() - begin);
    }

    /// Where the part that holds byte `at - 1` of `parts` ends, and how many end up to there. `parts` has been made by
    /// [`append`](Self::append), and `0 < at <= parts.len()`.
    pub fn boundary_at_or_after(self, parts: &[u8], at: usize) -> (usize, u64) {
        let sync = memmem::Finder::new(&SYNC);
        let (mut end, mut count) = (0, 0);
        while end < at {
            let rest = &parts[end..];
            let len = match self {
                Self::Deflate | Self::Gzip => sync.find(rest).map(|found| found + SYNC.len()),
                Self::Zstd => zstd_safe::find_frame_compressed_size(rest).ok(),
            };
            end += len.unwrap_or(rest.len());
            count += 1;
        }
        (end, count)
    }
}

/// Of unknown origin in time and system, as nobody asks (RFC 1952, section 2.3).
const GZIP_HEADER: [u8; 10] = [0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 0xFF];

/// Behind the header of an empty stored block: what a sync flush ends with (RFC 1951, section 3.2.4).
const SYNC: [u8; 4] = [0, 0, 0xFF, 0xFF];

/// The next level costs a quarter more and saves nothing on events of a few KiB; the one below saves nothing on the CPU either.
const DEFLATE_LEVEL: Compression = Compression::new(3);
/// Less than the most, as some clients ask for (RFC 7692, section 7.1.2.1): events are smaller, or compress as well, and a compressor
/// is a fraction as large.
pub const WINDOW_BITS: u8 = 12;
/// As fast as the fastest of DEFLATE's levels, and as small as its third.
const ZSTD_LEVEL: i32 = 1;

thread_local! {
    static DEFLATE: RefCell<Option<Compress>> = const { RefCell::new(None) };
    static ZSTD: RefCell<Option<CCtx<'static>>> = const { RefCell::new(None) };
    static INFLATE: RefCell<Option<Decompress>> = const { RefCell::new(None) };
}

/// Adds DEFLATE blocks that need nothing before them, and end at a byte with a sync flush.
fn deflate(parts: &[&[u8]], out: &mut Vec<u8>) {
    DEFLATE.with_borrow_mut(|compress| {
        let new = || Compress::new_with_window_bits(DEFLATE_LEVEL, false, WINDOW_BITS);
        let compress = compress.get_or_insert_with(new);
        compress.reset();
        let len: usize = parts.iter().map(|part| part.len()).sum();
        out.reserve(len + len / 8 + 64);
        for part in parts {
            feed(compress, part, FlushCompress::None, out);
        }
        feed(compress, &[], FlushCompress::Sync, out);
    });
}

fn feed(compress: &mut Compress, mut input: &[u8], flush: FlushCompress, out: &mut Vec<u8>) {
    loop {
        let before = compress.total_in();
        let result = compress.compress_vec(input, out, flush);
        result.expect("a compressor with room takes everything");
        input = &input[(compress.total_in() - before) as usize..];
        // It is done when it has left some room (zlib.h, deflate).
        if input.is_empty() && out.len() < out.capacity() {
            return;
        }
        out.reserve(64 + input.len());
    }
}

/// The same, in which [`SYNC`] stands at the end and nowhere else, so that the end can be found: within compressed data it is as rare
/// as any four bytes, but somebody could make it up.
fn append_gzip(parts: &[&[u8]], out: &mut Vec<u8>) {
    let begin = out.len();
    deflate(parts, out);
    if memmem::find(&out[begin..], &SYNC) != Some(out.len() - begin - SYNC.len()) {
        out.truncate(begin);
        append_stored(parts, out);
    }
}

/// So long that neither it nor what its length becomes has a byte 0xFF beside a zero where [`SYNC`] would have it; and UTF-8 has no
/// byte 0xFF at all.
const LONGEST_STORED: usize = 0x7FFF;

fn append_stored(parts: &[&[u8]], out: &mut Vec<u8>) {
    for piece in parts.iter().flat_map(|part| part.chunks(LONGEST_STORED)) {
        let len = piece.len() as u16;
        out.push(0);
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&(!len).to_le_bytes());
        out.extend_from_slice(piece);
    }
    out.push(0);
    out.extend_from_slice(&SYNC);
}

fn append_zstd(parts: &[&[u8]], out: &mut Vec<u8>) {
    let joined;
    let whole = match parts {
        [whole] => *whole,
        parts => {
            joined = parts.concat();
            &joined[..]
        }
    };
    ZSTD.with_borrow_mut(|context| {
        let new = || {
            let mut context = CCtx::create();
            let level = CParameter::CompressionLevel(ZSTD_LEVEL);
            context.set_parameter(level).expect("there is such a level");
            context
        };
        let context = context.get_or_insert_with(new);
        let begin = out.len();
        out.resize(begin + zstd_safe::compress_bound(whole.len()), 0);
        let written = context.compress2(&mut out[begin..], whole);
        out.truncate(begin + written.expect("there is room for the worst case"));
    });
}

/// Adds what a message is on a WebSocket with `permessage-deflate` (RFC 7692, section 7.2.1).
pub fn deflate_message(parts: &[&[u8]], out: &mut Vec<u8>) {
    deflate(parts, out);
    out.truncate(out.len() - SYNC.len());
}

/// Why something cannot be expanded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// It is not what it should be.
    Broken,
    /// There would be more of it than is allowed.
    TooLarge,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Broken => "its compressed data is broken",
            Self::TooLarge => "it is too large once expanded",
        })
    }
}

impl std::error::Error for Wrong {}

/// What is behind a message: what its sender has cut off, and a last block by which can be seen that the message is whole.
const MESSAGE_END: [u8; 6] = [0, 0, 0xFF, 0xFF, 3, 0];
/// So much is expanded at a time.
const STEP: usize = 4 << 10;

/// Expands a message of a WebSocket with `permessage-deflate`, whose sender takes no context over (RFC 7692, section 7.2.2). It may
/// become `most` bytes long, and never are more of it made.
pub fn inflate_message(message: &[u8], most: usize) -> Result<Vec<u8>, Wrong> {
    INFLATE.with_borrow_mut(|inflate| {
        let inflate = inflate.get_or_insert_with(|| Decompress::new(false));
        inflate.reset(false);
        let mut out = Vec::new();
        expand(inflate, message, most, &mut out)?;
        match expand(inflate, &MESSAGE_END, most, &mut out)? {
            Flated::StreamEnd => Ok(out),
            _ => Err(Wrong::Broken),
        }
    })
}

fn expand(
    inflate: &mut Decompress,
    mut input: &[u8],
    most: usize,
    out: &mut Vec<u8>,
) -> Result<Flated, Wrong> {
    loop {
        if out.len() == out.capacity() {
            // One byte more than may be, to see that it would be.
            let room = (out.len() + out.len() / 2 + STEP).min(most.saturating_add(1));
            out.reserve_exact(room - out.len());
        }
        let before = inflate.total_in();
        let result = inflate.decompress_vec(input, out, FlushDecompress::None);
        let status = result.map_err(|_| Wrong::Broken)?;
        let taken = (inflate.total_in() - before) as usize;
        input = &input[taken..];
        if out.len() > most {
            return Err(Wrong::TooLarge);
        }
        match status {
            // A final block need not be the end of a message (RFC 7692, section 7.2.3.4).
            Flated::StreamEnd if !input.is_empty() => inflate.reset(false),
            Flated::StreamEnd => return Ok(status),
            _ if input.is_empty() && out.len() < out.capacity() => return Ok(status),
            _ if taken == 0 && out.len() < out.capacity() => return Err(Wrong::Broken),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
