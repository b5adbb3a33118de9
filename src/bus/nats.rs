//! NATS: subjects, and streams of JetStream.
//!
//! - [`connection`]: a connection that tells at once when it is lost, so that the frame makes the next one.
//! - [`header`]: an event's envelope, as the header of a message.
//! - [`core`]: a subject. Who listens gets what is published meanwhile.
//! - [`jetstream`]: a stream, which keeps and numbers what it gets.

mod connection;
pub mod core;
mod header;
pub mod jetstream;
