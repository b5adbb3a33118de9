//! What a person needs at a terminal.

pub mod tail;
