//! Redis: Pub/Sub, and streams.

pub mod channel;
pub mod stream;
