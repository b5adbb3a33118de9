//! Case F: ten thousand subscribers that only connect.

use anyhow::Result;

use crate::cases::Bench;
use crate::load::Load;
use crate::play::rss;
use crate::server::{Kind, Server};
use crate::transport::Transport;

/// What each of them costs the server.
pub struct Idle {
    /// Server memory each, in bytes.
    pub rss: f64,
    /// Server CPU for connect and handshake, in µs.
    pub handshake_us: f64,
}

impl Idle {
    /// Subscribers in this case.
    pub const SUBSCRIBERS: usize = 10_000;

    /// Connects them all to a fresh server.
    pub fn run(kind: Kind, transport: Transport, bench: &Bench) -> Result<Self> {
        let server = Server::start(kind, &bench.cpus)?;
        let mut load = Load::new()?;
        load.settle()?;
        let (before, cpu) = (rss(&server.process)?, server.process.cpu_ns()?);
        load.connect(transport, server.address, server.path, Self::SUBSCRIBERS)?;
        load.settle()?;
        let each = |total: u64| total as f64 / Self::SUBSCRIBERS as f64;
        Ok(Self {
            rss: each(rss(&server.process)?.saturating_sub(before)),
            handshake_us: each(server.process.cpu_ns()? - cpu) / 1e3,
        })
    }
}
