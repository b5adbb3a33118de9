//! `wsevent proxy`: which upstream a client gets, and what reaches whom.

mod balancing;
mod bodies;
mod ending;
mod failing;
mod headers;
mod health;
mod hostile;
mod http2;
mod http2_peers;
mod limits;
mod lives;
mod log;
mod memory;
mod peers;
mod proxied;
mod reload;
mod spread;
mod streams;
mod tls;
mod tunnel;
mod unreachable;
