//! The flags of `wsevent record`.

use std::path::PathBuf;
use std::time::Duration;

use clap::ArgMatches;
use clap::builder::BoolishValueParser;

use super::connect::{ConnectArgs, connect, event_url};
use super::{Usage, values};
use crate::client::reading::{Reading, Transport};
use crate::client::record::Record;

/// The flags of `record`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Ids, times, types, keys, kinds and gaps are kept. FILE is made, or added to if it is a recording: then what a crash has left at its end is cut away, and the stream is gone on with behind the last events there. When the connection is lost, record connects again, for ever, and goes on where it was, over a link to another wsevent and over HTTP. It ends with SIGINT (Ctrl-C) or SIGTERM. wsevent replay FILE serves it again; wsevent replay FILE --check says what is in it."
)]
pub struct RecordArgs {
    /// The event URL (ws://, wss://, http:// or https://)
    pub url: String,

    /// The file
    #[arg(value_name = "FILE")]
    pub path: PathBuf,

    /// Read the stream over websocket, sse or ndjson, whatever the scheme of the URL; by default http:// and https:// mean ndjson, which has all that is recorded
    // Not as with tail, whose variable means another default.
    #[arg(
        long,
        env = "WSEVENT_RECORD_TRANSPORT",
        value_name = "TRANSPORT",
        hide_possible_values = true
    )]
    pub transport: Option<Transport>,

    /// Begin so many events earlier, or with all that the server still has (all); by default at the live edge, or behind what FILE has
    #[arg(long, env = "WSEVENT_RECORD_HISTORY", value_name = "N", value_parser = values::past)]
    pub history: Option<String>,

    /// Begin right behind this event
    #[arg(long, env = "WSEVENT_LAST_EVENT_ID", value_name = "ID")]
    pub last_event_id: Option<String>,

    /// End after so many events
    #[arg(long, env = "WSEVENT_COUNT", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,

    /// End after so long
    #[arg(long, env = "WSEVENT_DURATION", value_name = "DURATION", value_parser = values::limit)]
    pub duration: Option<Duration>,

    /// Have on the disk what has been recorded so much later, at the latest (fsync); 0s for at once. The end of the process alone loses nothing that has come
    #[arg(long, env = "WSEVENT_SYNC_AFTER", value_name = "DURATION", default_value = "1s", value_parser = values::duration)]
    pub sync_after: Duration,

    /// End when the connection ends, rather than connecting again
    #[arg(long, env = "WSEVENT_EXIT_ON_CLOSE", value_parser = BoolishValueParser::new())]
    pub exit_on_close: bool,

    /// How to reach the stream
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// What the flags say.
pub fn record(args: RecordArgs, matches: &ArgMatches) -> Usage<Record> {
    let mut url = event_url(&args.url)?;
    let transport = args.transport.unwrap_or(match Transport::of(&url.url) {
        Transport::Websocket => Transport::Websocket,
        // Server-sent events have no room for keys and times.
        Transport::Sse | Transport::Ndjson => Transport::Ndjson,
    });
    url.url = transport.mapped(url.url);
    let connect = connect(&args.connect, matches, std::slice::from_ref(&url))?;
    Ok(Record {
        reading: Reading {
            upstreams: vec![connect.upstream(&url)],
            transport,
            or_sse: args.transport.is_none(),
            history: args.history,
            last_event_id: args.last_event_id,
            have: Vec::new(),
            goes_on: false,
            exit_on_close: args.exit_on_close,
        },
        path: args.path,
        count: args.count,
        duration: args.duration,
        sync_after: args.sync_after,
    })
}
