//! WebSockets: the opening handshake, and what clients send. What is written to them is the [fan-out](super::fanout)'s.

pub mod handshake;
pub mod hello;
pub mod input;
