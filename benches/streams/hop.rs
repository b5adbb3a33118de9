//! The servers: the real binary, with one stream or with as many as are asked for.

use std::fs;
use std::net::SocketAddr;

use anyhow::{Context, Result};

use crate::common::process::{Cpus, Process};
use crate::common::wsevent;

/// A running hop.
pub struct Hop {
    /// The process, for its figures.
    pub process: Process,
    /// Where it serves.
    pub address: SocketAddr,
    is_wildcard: bool,
}

impl Hop {
    /// Serves one stream.
    pub fn with_one_stream(arguments: &[&str], cpus: &Cpus) -> Result<Self> {
        Self::start("/s", arguments, cpus)
    }

    /// Serves a stream for each URL. None ends for want of readers.
    pub fn with_many_streams(arguments: &[&str], cpus: &Cpus) -> Result<Self> {
        Self::start("/s/*", &[arguments, &["--linger", "1h"]].concat(), cpus)
    }

    fn start(path: &str, arguments: &[&str], cpus: &Cpus) -> Result<Self> {
        let arguments = [&["--serve-path", path], arguments].concat();
        let (process, address) = wsevent::start(&arguments, cpus)?;
        Ok(Self {
            process,
            address,
            is_wildcard: path.ends_with('*'),
        })
    }

    /// The path that the subscriber with this number asks for.
    pub fn path(&self, number: usize) -> String {
        match self.is_wildcard {
            true => format!("/s/{number:05}"),
            false => "/s".to_owned(),
        }
    }

    /// What another hop consumes to serve the same streams.
    pub fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}/s/*", self.address)
    }

    /// Its resident memory, in bytes.
    pub fn rss(&self) -> Result<u64> {
        let pid = self.process.tree()[0];
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let mut lines = status.lines();
        let line = lines.find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.context("VmRSS")?.trim().trim_end_matches(" kB");
        Ok(kib.parse::<u64>()? * 1024)
    }
}
