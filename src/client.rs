//! What a person needs at a terminal.

pub mod bench;
pub mod publish;
pub mod reading;
pub mod record;
pub mod tail;
pub mod topology;
pub mod trace;
