//! Printing what comes over HTTP: server-sent events or NDJSON.

use anyhow::Result;
use tracing::warn;

use super::output::{Output, written};
use super::{End, tell_of_snapshot, warn_of, warn_of_merged};
use crate::source::Backoff;
use crate::source::http::client::Stream;
use crate::source::http::decode::Item;

impl Output {
    /// Prints what comes in one answer. `url` is for the log.
    pub async fn print_stream(
        &mut self,
        stream: &mut Stream,
        backoff: &mut Backoff,
        url: &str,
    ) -> Result<End> {
        loop {
            match stream.wait().await {
                Ok(true) => {}
                Ok(false) => return Ok(End::Closed(anyhow::anyhow!("the stream has ended"))),
                Err(error) => return Ok(End::Lost(error)),
            }
            // What has arrived together goes out together.
            while let Some(item) = stream.item() {
                let payload = match item {
                    Item::Known(event) | Item::Kept(event) => event.payload,
                    Item::New(event) | Item::KeptUnnamed(event) => event.payload,
                    Item::Snapshot(boundary) => {
                        tell_of_snapshot(&boundary, url);
                        continue;
                    }
                    Item::Merged(merged) => {
                        warn_of_merged(&merged, url);
                        continue;
                    }
                    Item::Gap(gap) => {
                        warn_of(&gap, url);
                        continue;
                    }
                    Item::Unusable(reason) => {
                        warn!(url, reason, "event not printed");
                        continue;
                    }
                    Item::Retry(delay) => {
                        backoff.ask_for(delay);
                        continue;
                    }
                };
                if let Some(end) = self.print_one(&payload)? {
                    return Ok(end);
                }
            }
            if let Some(end) = written(self.flush())? {
                return Ok(end);
            }
        }
    }
}
