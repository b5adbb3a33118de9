//! What strangers send, taken apart under a fuzzer: the bodies of the fuzz targets, each in one place for three ways to run it.
//!
//! - `scripts/fuzz` has libFuzzer invent inputs (through `fuzz/`, a workspace of its own, which the main build does not see);
//! - the tests of this module run all inputs that are kept in `fuzz/seeds/TARGET`, and everything that is cut off one, on each run of the
//!   tests; what a fuzzer has found is kept there under a name that says what it shows;
//! - a person runs one: `cargo fuzz run TARGET FILE`.
//!
//! A body returns if all is well and panics if not. None touches a file, a network or the environment, but for [`http()`] and
//! [`proxy_header`], which have a TCP connection to themselves.
//!
//! Where it matters how input is cut into reads, the input says so itself, in readable letters: see [`Reads`].

mod bodies;
mod files;
mod frames;
mod http;
mod messages;
mod proxy;
mod recordings;
mod topologies;

#[cfg(test)]
mod tests;

pub use bodies::{ndjson, published, sse};
pub use files::{config, jwt, token_file};
pub use frames::client_frames;
pub use http::http;
pub use messages::hop_messages;
#[cfg(feature = "zeromq")]
pub use messages::zmtp;
pub use proxy::{proxy_header, proxy_requests, proxy_tunnel};
pub use recordings::recording;
pub use topologies::{figure, paths, topology};

/// The body of a fuzz target.
pub type Body = fn(&[u8]);

/// All of them, by their names: those of the files in `fuzz/fuzz_targets` and of the folders in `fuzz/seeds`.
pub const TARGETS: &[(&str, Body)] = &[
    ("client_frames", client_frames),
    ("config", config),
    ("figure", figure),
    ("hop_messages", hop_messages),
    ("http", http),
    ("jwt", jwt),
    ("ndjson", ndjson),
    ("paths", paths),
    ("proxy_header", proxy_header),
    ("proxy_requests", proxy_requests),
    ("proxy_tunnel", proxy_tunnel),
    ("published", published),
    ("recording", recording),
    ("sse", sse),
    ("token_file", token_file),
    ("topology", topology),
    #[cfg(feature = "zeromq")]
    ("zmtp", zmtp),
];

/// What is longer is not tried in pieces of one byte.
const LONGEST_BYTEWISE: usize = 4 << 10;

/// Bytes, and where the reads that bring them end.
///
/// The first byte of an input is a letter whose value modulo 8 says how many reads there are before the last one, so with `0` there is
/// none; as many bytes follow, each the length of a read less one.
struct Reads<'a> {
    lengths: &'a [u8],
    bytes: &'a [u8],
}

impl<'a> Reads<'a> {
    fn of(input: &'a [u8]) -> Self {
        let (first, rest) = input.split_first().unwrap_or((&0, &[]));
        let count = usize::from(first % 8).min(rest.len());
        let (lengths, bytes) = rest.split_at(count);
        Self { lengths, bytes }
    }

    /// As the input says.
    fn iter(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let (mut rest, mut lengths) = (self.bytes, self.lengths.iter());
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let len = lengths
                .next()
                .map_or(rest.len(), |len| usize::from(*len) + 1);
            let (read, behind) = rest.split_at(len.min(rest.len()));
            rest = behind;
            Some(read)
        })
    }

    /// Runs `take` on all bytes at once, on the reads as they are, and byte by byte: what comes out must be the same.
    fn each_way<T: PartialEq + std::fmt::Debug>(&self, take: impl Fn(&[&[u8]]) -> T) -> T {
        let whole = take(&[self.bytes]);
        let reads: Vec<_> = self.iter().collect();
        assert_eq!(take(&reads), whole, "in reads");
        if self.bytes.len() <= LONGEST_BYTEWISE {
            let bytes: Vec<_> = self.bytes.chunks(1).collect();
            assert_eq!(take(&bytes), whole, "byte by byte");
        }
        whole
    }
}

/// The first byte of an input, for what it has to say beside the rest.
fn option(input: &[u8]) -> (u8, &[u8]) {
    let (first, rest) = input.split_first().unwrap_or((&0, &[]));
    (*first, rest)
}
