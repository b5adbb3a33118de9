//! Reading what comes over HTTP: server-sent events or NDJSON.

use anyhow::Result;
use tracing::warn;

use super::{End, Sink, tell_of_snapshot, warn_of, warn_of_merged};
use crate::source::Backoff;
use crate::source::http::client::Stream;
use crate::source::http::decode::Item;
use crate::wire::recording::Taken;

/// Reads what comes in one answer. `url` is for the log.
pub async fn read(
    sink: &mut impl Sink,
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
            let event = match item {
                Item::Known(event) => event.into(),
                Item::New(event) => event.into(),
                Item::Kept(event) => Taken::from(event).kept(),
                Item::KeptUnnamed(event) => Taken::from(event).kept(),
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
                    sink.gap(&gap)?;
                    continue;
                }
                Item::Unusable(reason) => {
                    warn!(url, reason, "event not taken");
                    continue;
                }
                Item::Retry(delay) => {
                    backoff.ask_for(delay);
                    continue;
                }
            };
            if let Some(end) = sink.take(event)? {
                return Ok(end);
            }
        }
        if let Some(end) = sink.flush()? {
            return Ok(end);
        }
    }
}
