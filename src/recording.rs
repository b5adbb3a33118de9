//! Recordings: streams in files, for `wsevent record` and `wsevent replay`.
//!
//! - [`reader`]: what is in a file, up to its end, or up to where it is damaged.
//! - [`writer`]: a file that events are added to.
//! - [`inspect`]: what there is to say about a file.
//!
//! The format is [`wire::recording`](crate::wire::recording); docs/recording.md describes it.

pub mod inspect;
pub mod reader;
pub mod writer;
