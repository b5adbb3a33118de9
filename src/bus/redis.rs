//! Redis: Pub/Sub, and streams.
//!
//! - [`connection`]: made by us, so that TLS, addresses and errors are as for every upstream; what is said over it is the library's.
//! - [`ahead`]: how far is read ahead of whoever takes what comes.
//! - [`sending`]: a batch of commands and what becomes of it, for both writers.
//! - [`channel`]: Pub/Sub. [`stream`]: streams.

mod ahead;
pub mod channel;
mod connection;
mod sending;
pub mod stream;
