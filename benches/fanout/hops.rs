//! Case G: what a hop adds, and a chain of ten.
//!
//! Two subscribers see the same events in the same run: one reads the upstream directly, one behind the hops.

use std::time::Duration;

use anyhow::Result;

use crate::cases::Bench;
use crate::feed::{Form, Play};
use crate::load::Load;
use crate::play::{Sample, run, warm_up};
use crate::server::{Hop, Source};
use crate::transport::Transport;
use crate::upstream::Upstream;

/// One chain, measured.
pub struct Chain {
    /// Hops between the upstream and the far subscriber.
    pub hops: usize,
    /// Events per second.
    pub rate: u64,
    /// Events sent.
    pub events: u64,
    /// Median and 99th percentile at the upstream itself, in µs.
    pub direct_us: (f64, f64),
    /// The same behind the last hop, and what went wrong on either side.
    pub far: Sample,
}

impl Chain {
    /// One hop at 100 events/s.
    pub fn one(bench: &Bench) -> Result<Self> {
        Self::run(1, if bench.quick { 200 } else { 1_000 }, 100, bench)
    }

    /// Ten hops at 1,000 events/s.
    pub fn ten(bench: &Bench) -> Result<Self> {
        Self::run(10, if bench.quick { 1_000 } else { 5_000 }, 1_000, bench)
    }

    fn run(hops: usize, events: u64, rate: u64, bench: &Bench) -> Result<Self> {
        let upstream = Upstream::start(2, Form::Binary, &bench.cpus)?;
        let mut chain = vec![Hop::start(&["--consume", &upstream.url()], &bench.cpus)?];
        while chain.len() < hops {
            let before = chain[chain.len() - 1].url();
            chain.push(Hop::start(&["--consume", &before], &bench.cpus)?);
        }
        let mut load = Load::new()?;
        load.connect(Transport::WebSocket, upstream.address, Upstream::PATH, 1)?;
        load.connect(Transport::WebSocket, chain[hops - 1].address, Hop::PATH, 1)?;
        upstream.wait_linked(Duration::from_secs(10))?;

        let mut source = Source::Upstream(upstream);
        warm_up(&mut source, &mut load)?;
        load.spin();
        let far = run(Play::Paced { events, rate }, &mut source, None, &mut load)?;
        let direct = &load.tallies()[0].latency;
        let direct_us = (
            direct.quantile(0.5) as f64 / 1e3,
            direct.quantile(0.99) as f64 / 1e3,
        );
        Ok(Self {
            hops,
            rate,
            events,
            direct_us,
            far,
        })
    }

    /// What all hops together add to the median, in µs.
    pub fn added_us(&self) -> f64 {
        self.far.p50_us - self.direct_us.0
    }
}
