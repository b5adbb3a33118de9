//! A stream of NATS JetStream. It keeps what it gets, and numbers it: reading goes on where it was, and begins as far back as it keeps.
//!
//! What is in it without an id of its own has the stream's: an origin that all who read the stream make from its name and the time of
//! its creation, and the message's number. So an event that enters at one hop bears the same id at all of them, also when they have been
//! started anew, and it is the id that its publisher was told.

mod reader;
mod store;
mod writer;

pub use reader::Reader;
pub use writer::Writer;
