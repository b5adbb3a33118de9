//! The flags of what clients may cost. docs/limits.md is the table of all limits.

use std::num::NonZeroU32;
use std::time::Duration;

use clap::ArgMatches;

use super::{Usage, given, values};
use crate::listen::admission::OfEach;
use crate::listen::entrance::Bounds;
use crate::listen::rate::Rate;
use crate::server::limits::Limits;

/// The most connections of one address, if no flag says it.
const OF_ADDRESS: usize = 1_000;
/// The most connections that one address makes a second, if no flag says it.
const HANDSHAKES: NonZeroU32 = NonZeroU32::new(200).expect("above 0");
/// The longest body, if no flag says it and no event may be longer.
const BODY: usize = 16 << 20;
/// The memory of all bodies, if no flag says it and none may be larger.
const BODIES: usize = 256 << 20;

/// The limits of the process: whatever stream it is about.
#[derive(Debug, clap::Args)]
pub struct LimitArgs {
    /// At most so many connections of clients, subscribers included; others get 503. As many as the limit of open files allows, if not given
    #[arg(long, env = "WSEVENT_MAX_CONNECTIONS", value_name = "N", value_parser = values::at_least_one, help_heading = "Limits")]
    pub max_connections: Option<usize>,

    /// At most so many of one address (of one /64 network with IPv6); others get 429. If not given, 1000, and any number from this machine itself
    #[arg(long, env = "WSEVENT_MAX_CONNECTIONS_PER_ADDRESS", value_name = "N", value_parser = values::at_least_one, help_heading = "Limits")]
    pub max_connections_per_address: Option<usize>,

    /// At most so many new connections a second from one address; others get 429. If not given, 200, and any number from this machine itself
    #[arg(long, env = "WSEVENT_MAX_HANDSHAKES_PER_SECOND", value_name = "N", value_parser = values::per_second, help_heading = "Limits")]
    pub max_handshakes_per_second: Option<NonZeroU32>,

    /// How long a client may take from connecting to its whole first request (then it gets 408), and for each further one once that has begun
    #[arg(long, env = "WSEVENT_HANDSHAKE_TIMEOUT", value_name = "DURATION", default_value = "10s", value_parser = values::interval, help_heading = "Limits")]
    pub handshake_timeout: Duration,

    /// Close a connection that has been without a request for so long
    #[arg(long, env = "WSEVENT_IDLE_TIMEOUT", value_name = "DURATION", default_value = "45s", value_parser = values::interval, help_heading = "Limits")]
    pub idle_timeout: Duration,

    /// The longest head of a request: line and headers; longer ones get 431
    #[arg(long, env = "WSEVENT_MAX_HEADER_SIZE", value_name = "BYTES", default_value = "16KiB", value_parser = values::header_size, help_heading = "Limits")]
    pub max_header_size: usize,

    /// The longest body of a request; longer ones get 413. If not given, 16MiB, or as much as the largest event if that is more
    #[arg(long, env = "WSEVENT_MAX_BODY_SIZE", value_name = "BYTES", value_parser = values::message_size, help_heading = "Limits")]
    pub max_body_size: Option<usize>,

    /// All bodies, and messages of WebSockets, that are being received take at most so much memory together; others get 503 or a close with 1013 for now. If not given, 256MiB, or as much as one body may take if that is more
    #[arg(long, env = "WSEVENT_MAX_BODY_MEMORY", value_name = "BYTES", value_parser = values::size, help_heading = "Limits")]
    pub max_body_memory: Option<usize>,
}

/// The limits of a route.
#[derive(Debug, clap::Args)]
pub struct RouteLimitArgs {
    /// At most so many events a second from one client: of one address by POST (then 429), of one WebSocket (then it is closed with 1008)
    #[arg(long, env = "WSEVENT_MAX_PUBLISH_RATE", value_name = "N", value_parser = values::per_second, help_heading = "Limits")]
    pub max_publish_rate: Option<NonZeroU32>,

    /// Send a subscriber away when it has been connected for so long, or up to a tenth more or less, each another time: it comes back, perhaps to another instance, and resumes. A WebSocket is closed with 1012, SSE and NDJSON end
    #[arg(long, env = "WSEVENT_MAX_CONNECTION_AGE", value_name = "DURATION", value_parser = values::age, help_heading = "Limits")]
    pub max_connection_age: Option<Duration>,
}

impl LimitArgs {
    /// The limits, if they fit together and with the largest event.
    pub fn limits(&self, max_message_size: usize) -> Usage<Limits> {
        let max_body_size = self.max_body_size.unwrap_or(BODY.max(max_message_size));
        let max_body_memory = self.max_body_memory;
        let max_body_memory = max_body_memory.unwrap_or(BODIES.max(max_body_size));
        if max_body_size > max_body_memory {
            return Err(format!(
                "a body may have {max_body_size} bytes, but all bodies together only {max_body_memory}: raise --max-body-memory or lower --max-body-size"
            ));
        }
        Ok(Limits {
            entrance: Bounds {
                connections: self.max_connections,
                of_address: of_each(self.max_connections_per_address, OF_ADDRESS),
                handshakes: of_each(self.max_handshakes_per_second.map(Rate), Rate(HANDSHAKES)),
            },
            handshake_timeout: self.handshake_timeout,
            idle_timeout: self.idle_timeout,
            max_header_size: self.max_header_size,
            max_body_size,
            max_body_memory,
        })
    }
}

/// How fast a client may publish, where it may at all.
pub fn max_publish_rate(
    args: &RouteLimitArgs,
    accept_publish: bool,
    matches: &ArgMatches,
) -> Usage<Option<Rate>> {
    if given(matches, "max_publish_rate") == 2 && !accept_publish {
        return Err(
            "--max-publish-rate has no effect where nobody may publish: add --accept-publish"
                .into(),
        );
    }
    Ok(args.max_publish_rate.map(Rate))
}

/// What holds where one of these flags says nothing.
pub fn implicit(flag: &str) -> Option<&'static str> {
    Some(match flag {
        "max_connections" => "as many as the limit of open files allows",
        "max_connections_per_address" => "1000, any number from this machine",
        "max_handshakes_per_second" => "200, any number from this machine",
        "max_body_size" => "16MiB, or max-message-size if that is more",
        "max_body_memory" => "256MiB, or max-body-size if that is more",
        _ => return None,
    })
}

/// What is said holds for all, what is not spares this machine.
fn of_each<T>(given: Option<T>, default: T) -> OfEach<T> {
    OfEach {
        on_loopback: given.is_some(),
        limit: given.unwrap_or(default),
    }
}
