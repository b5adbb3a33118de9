//! Redis streams.

use std::sync::Arc;

use anyhow::{Result, bail};
use futures_util::future::BoxFuture;

use super::super::{Arrival, Bus, Sent};
use crate::event::{Event, Origin};

/// Reads it.
pub struct Reader {
    bus: Arc<Bus>,
}

impl Reader {
    /// Not connected yet.
    pub fn new(bus: Arc<Bus>) -> Self {
        Self { bus }
    }
}

impl super::super::Reader for Reader {
    fn connect(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { bail!("{} is not built yet", self.bus) })
    }

    fn next<'a>(&'a mut self, _: &'a mut Vec<Arrival>) -> BoxFuture<'a, Result<()>> {
        Box::pin(std::future::pending())
    }
}

/// Writes to it.
pub struct Writer {
    bus: Arc<Bus>,
}

impl Writer {
    /// Not connected yet.
    pub fn new(bus: Arc<Bus>) -> Self {
        Self { bus }
    }
}

impl super::super::Writer for Writer {
    fn connect(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { bail!("{} is not built yet", self.bus) })
    }

    fn send<'a>(
        &'a mut self,
        _: &'a [Event],
        _: Option<Origin>,
        _: &'a mut Vec<Sent>,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(std::future::pending())
    }

    fn lost(&mut self) -> BoxFuture<'_, anyhow::Error> {
        Box::pin(std::future::pending())
    }
}
