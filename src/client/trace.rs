//! `wsevent trace`: the way that an event has come, hop by hop.

mod table;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use tokio::time::Instant;

use crate::event::EventId;
use crate::source::http::client::{Answer, Client, NDJSON_OR_EVENT_STREAM, Stream};
use crate::source::http::decode::Item;
use crate::source::presence::Named;
use crate::source::upstream::Upstream;
use crate::stdout;
use crate::topology::ask::{PATIENCE, Question};
use crate::topology::trace;

/// Which event to trace, and how to print its way.
pub struct Trace {
    /// The stream. The scheme of its URL is one of HTTP.
    pub upstream: Upstream,
    /// The event.
    pub event: Event,
    /// Print for programs.
    pub json: bool,
}

/// Of which event the way is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The one with this id.
    This(EventId),
    /// The last that is held.
    Last,
    /// The next so many that come.
    Next(u64),
}

impl Trace {
    /// Prints the ways, until there have been as many as wanted, or the output is closed.
    pub async fn run(self) -> Result<ExitCode> {
        let shown = self.upstream.to_string();
        let traced = tokio::select! {
            traced = self.trace() => traced,
            () = stdout::closed() => Ok(()),
        };
        let named = traced.map_err(|error| anyhow!(self.upstream.reason(&error)));
        named.context(shown).map(|()| ExitCode::SUCCESS)
    }

    async fn trace(&self) -> Result<()> {
        let count = match self.event {
            Event::This(id) => return self.print(id).await,
            Event::Last => 1,
            Event::Next(count) => count,
        };
        let mut events = self.events().await?;
        for _ in 0..count {
            let id = next(&mut events).await?;
            self.print(id).await?;
        }
        Ok(())
    }

    /// The stream, from where it is wanted.
    async fn events(&self) -> Result<Stream> {
        let mut upstream = self.upstream.clone();
        let mut url = upstream.url.clone();
        if self.event == Event::Last {
            url.query_pairs_mut().append_pair("history", "1");
        }
        url.query_pairs_mut().append_pair("snapshot", "no");
        upstream.url = url;
        // Lines name their events, also where nobody has thought of reconnecting.
        let mut client = Client::new(Arc::new(upstream), NDJSON_OR_EVENT_STREAM);
        match client.open().await? {
            Answer::Stream(stream) if stream.instance.is_some() => Ok(*stream),
            Answer::Stream(_) => {
                bail!("it is no wsevent, so nobody knows how its events have come")
            }
            Answer::NoContent => bail!("there is no more to come"),
        }
    }

    /// Finds out the way of this event, and prints it.
    async fn print(&self, id: EventId) -> Result<()> {
        let text = id.to_string();
        let question = Question {
            upstream: &self.upstream,
            what: ("trace", &text),
            of_stream: true,
            via: &[],
            at: None,
            deadline: Instant::now() + PATIENCE,
        };
        let legs = trace::of_instance(&question).await?;
        let printed = match self.json {
            true => {
                let way = serde_json::json!({"event": text, "url": self.upstream.to_string(), "legs": legs});
                format!("{way}\n")
            }
            false => table::table(&text, &self.upstream.to_string(), &legs),
        };
        stdout::print(printed.as_bytes())?;
        match &legs[..] {
            [only] if only.end == Some(trace::End::Unknown) && only.arrived.is_none() => {
                bail!("the event {text} is not held there, or not any more")
            }
            _ => Ok(()),
        }
    }
}

/// The id of the next event.
async fn next(events: &mut Stream) -> Result<EventId> {
    loop {
        while let Some(item) = events.item() {
            if let Item::Known(event) = item {
                return Ok(event.id);
            }
        }
        if !events.wait().await? {
            bail!("the stream has ended");
        }
    }
}
