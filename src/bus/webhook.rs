//! Webhooks.

use std::sync::Arc;

use anyhow::{Result, bail};
use futures_util::future::BoxFuture;

use super::{Bus, Sent};
use crate::event::{Event, Origin};

/// How events are sent to webhooks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {}

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

impl super::Writer for Writer {
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
