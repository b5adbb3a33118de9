//! Wire formats: pure functions from events to bytes and back. No I/O, no state; only [`crate::event`] is known here.

pub mod websocket;
