//! Redis streams: what is written stays there, and has an id.
//!
//! - [`entry`]: an entry, and the event that it is.
//! - [`place`]: where in the stream somebody is, and what the server says of it: so it is known what is missing.
//! - [`find`]: where somebody begins who wants more of the past than a log holds.
//! - [`reader`], [`writer`].

mod entry;
mod find;
mod place;
mod reader;
mod writer;

pub use reader::Reader;
pub use writer::Writer;

use super::super::Bus;
use super::super::address::Kind;

/// The field that has the payload.
const DATA: &str = "data";
/// The field beside it that has the header line with id, time, type and key.
const LINE: &str = "wsevent";

/// What the address of a stream says.
struct Settings<'a> {
    key: &'a str,
    field: Option<&'a str>,
    max_len: Option<u64>,
}

impl<'a> Settings<'a> {
    fn of(bus: &'a Bus) -> Self {
        match &bus.address.kind {
            Kind::RedisStream {
                stream,
                field,
                max_len,
            } => Self {
                key: stream,
                field: field.as_deref(),
                max_len: *max_len,
            },
            other => unreachable!("{other:?} is no stream"),
        }
    }
}
