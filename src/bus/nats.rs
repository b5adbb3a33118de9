//! NATS: subjects, and streams of JetStream.

pub mod core;
pub mod jetstream;
