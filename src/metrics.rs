//! The figures of a hop, as Prometheus reads them: docs/metrics.md has their names.
//!
//! Nothing is registered and nothing is counted here: at each scrape the routes and their streams are walked, so what has gone is not
//! told of any more. What figures cost in between is for whoever counts: an addition under a lock that is held anyway for an event that
//! comes, one for each shard of a fan-out and batch for those that go out, and nothing for each subscriber.

mod process;
mod streams;

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelSet, NoLabelSet,
    prometheus_text, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::endpoint::fanout::Overload;
use crate::route::Routes;
use crate::server::failures::{Failure, Failures};
use crate::server::limits::Keeper;
use crate::stream::Carrier;
use crate::wire::Format;
use crate::wire::compress::Coding;
use process::Process;
use streams::{Readers, Snapshot};

/// How figures are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposition {
    /// The text format of Prometheus, version 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Exposition {
    /// In order of preference, where a client has none.
    pub const OFFERED: [(Self, &str); 2] = [
        (Self::Prometheus, "text/plain"),
        (Self::OpenMetrics, "application/openmetrics-text"),
    ];

    /// What an answer calls it.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => prometheus_text::CONTENT_TYPE,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Finds the figures of a hop.
pub struct Metrics {
    routes: Arc<Routes>,
    keeper: Arc<Keeper>,
    process: Process,
}

impl Metrics {
    /// Of the hop that serves `routes`, and lets clients in by `keeper`.
    pub fn new(routes: Arc<Routes>, keeper: Arc<Keeper>) -> Self {
        Self {
            routes,
            keeper,
            process: Process::new(),
        }
    }

    /// All of them now. Takes the longer the more streams there are.
    pub async fn figures(&self) -> Figures {
        Figures {
            snapshot: Snapshot::of(&self.routes).await,
            keeper: self.keeper.clone(),
            process: self.process,
        }
    }
}

/// The figures of a moment.
pub struct Figures {
    snapshot: Snapshot,
    keeper: Arc<Keeper>,
    process: Process,
}

impl Figures {
    /// As text. Takes the longer the more streams there are, and may wait for the disk.
    pub fn text(self, exposition: Exposition) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        let written = match exposition {
            Exposition::Prometheus => prometheus_text::encode(&mut text, &registry),
            Exposition::OpenMetrics => text::encode(&mut text, &registry),
        };
        written.expect("there is no end to a text");
        text
    }
}

impl fmt::Debug for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Figures").finish_non_exhaustive()
    }
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let (snapshot, encoder) = (&self.snapshot, &mut encoder);
        encode_build(encoder)?;
        encode_streams(snapshot, encoder)?;
        encode_subscribers(snapshot, encoder)?;
        encode_upstreams(snapshot, encoder)?;
        encode_links(snapshot, encoder)?;
        encode_buses(snapshot, encoder)?;
        encode_connections(&self.keeper, encoder)?;
        encode_compression(encoder)?;
        encode_process(&self.process, encoder)
    }
}

/// A figure that only grows, of each that has it; `name` is without `_total`.
fn counters<L: EncodeLabelSet, V: EncodeCounterValue>(
    encoder: &mut DescriptorEncoder,
    (name, help): (&str, &str),
    samples: impl IntoIterator<Item = (L, V)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in samples {
        let mut sample = family.encode_family(&labels)?;
        sample.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
    }
    Ok(())
}

/// A figure that grows and shrinks, of each that has it.
fn gauges<L: EncodeLabelSet, V: EncodeGaugeValue>(
    encoder: &mut DescriptorEncoder,
    (name, help): (&str, &str),
    samples: impl IntoIterator<Item = (L, V)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in samples {
        family.encode_family(&labels)?.encode_gauge(&value)?;
    }
    Ok(())
}

fn encode_compression(encoder: &mut DescriptorEncoder) -> fmt::Result {
    let each = |at: usize| {
        let codings = Coding::ALL.into_iter();
        codings.map(move |coding| ([("coding", coding.name())], coding.counts()[at]))
    };
    counters(
        encoder,
        (
            "wsevent_compression_input_bytes",
            "Bytes that have been compressed, once for all who read them",
        ),
        each(0),
    )?;
    counters(
        encoder,
        ("wsevent_compression_output_bytes", "What they have become"),
        each(1),
    )
}

fn encode_build(encoder: &mut DescriptorEncoder) -> fmt::Result {
    let help = "The version of wsevent that runs here";
    let mut build = encoder.encode_descriptor("wsevent_build", help, None, MetricType::Info)?;
    build.encode_info(&[("version", env!("CARGO_PKG_VERSION"))])
}

fn encode_streams(snapshot: &Snapshot, encoder: &mut DescriptorEncoder) -> fmt::Result {
    gauges(
        encoder,
        ("wsevent_streams", "Streams that there are now"),
        snapshot
            .routes
            .iter()
            .map(|(route, count)| ([("route", &**route)], *count)),
    )?;
    let streams = || snapshot.streams.iter();
    counters(
        encoder,
        (
            "wsevent_stream_events",
            "Events that have come into the stream",
        ),
        streams().map(|(name, stream)| ([("stream", &**name)], stream.events)),
    )?;
    counters(
        encoder,
        ("wsevent_stream_bytes", "Bytes of their payloads"),
        streams().map(|(name, stream)| ([("stream", &**name)], stream.bytes)),
    )?;
    let received = || {
        streams().flat_map(|(name, stream)| {
            let carriers = Carrier::ALL.iter().zip(stream.received);
            let carriers = carriers.filter(|(_, amount)| amount.events > 0);
            carriers.map(|(carrier, amount)| {
                let labels = [("stream", &**name), ("transport", carrier.name())];
                (labels, amount)
            })
        })
    };
    counters(
        encoder,
        (
            "wsevent_stream_received_events",
            "Events that have come into the stream, by what has carried them here",
        ),
        received().map(|(labels, amount)| (labels, amount.events)),
    )?;
    counters(
        encoder,
        (
            "wsevent_stream_received_bytes",
            "Bytes of their payloads, by what has carried them here",
        ),
        received().map(|(labels, amount)| (labels, amount.bytes)),
    )?;
    counters(
        encoder,
        (
            "wsevent_stream_gaps",
            "How often events were known to be missing before one that has come",
        ),
        streams().map(|(name, stream)| ([("stream", &**name)], stream.gaps)),
    )
}

fn encode_subscribers(snapshot: &Snapshot, encoder: &mut DescriptorEncoder) -> fmt::Result {
    let readers = || {
        snapshot.streams.iter().flat_map(|(name, stream)| {
            let formats = Format::PLAIN.iter().zip(stream.subscribers);
            formats.map(|(format, readers)| {
                let labels = [("stream", &**name), ("transport", format.name())];
                (labels, readers)
            })
        })
    };
    for (name, help, figure) in GAUGES_OF_READERS {
        let samples = readers().map(|(labels, readers)| (labels, figure(&readers)));
        gauges(encoder, (name, help), samples)?;
    }
    for (name, help, figure) in COUNTERS_OF_READERS {
        let samples = readers().map(|(labels, readers)| (labels, figure(&readers)));
        counters(encoder, (name, help), samples)?;
    }
    counters(
        encoder,
        (
            "wsevent_subscriber_overloads",
            "What was done about subscribers that were too slow",
        ),
        snapshot.streams.iter().flat_map(|(name, stream)| {
            let actions = Overload::ALL.iter().zip(stream.overloads);
            actions.map(|(action, count)| {
                let labels = [("stream", &**name), ("action", action.name())];
                (labels, count)
            })
        }),
    )
}

type Figure<T, V> = (&'static str, &'static str, fn(&T) -> V);

const GAUGES_OF_READERS: [Figure<Readers, f64>; 4] = [
    (
        "wsevent_stream_subscribers",
        "Subscribers that are connected",
        |readers| readers.connected as f64,
    ),
    (
        "wsevent_subscribers_behind",
        "Subscribers that have not been sent all that is there for them",
        |readers| readers.behind as f64,
    ),
    (
        "wsevent_subscriber_lag_events",
        "Events before the subscriber that is furthest behind",
        |readers| readers.lag_events as f64,
    ),
    (
        "wsevent_subscriber_lag_seconds",
        "For how long the event is there that this subscriber waits for",
        |readers| readers.lag_seconds,
    ),
];

const COUNTERS_OF_READERS: [Figure<Readers, u64>; 4] = [
    (
        "wsevent_subscriber_connects",
        "Subscribers that have come",
        |readers| readers.joined,
    ),
    (
        "wsevent_subscriber_sent_events",
        "Events that subscribers have been sent",
        |readers| readers.sent.events,
    ),
    (
        "wsevent_subscriber_sent_bytes",
        "Bytes that subscribers have been sent, before encryption",
        |readers| readers.sent.bytes,
    ),
    (
        "wsevent_subscriber_gaps",
        "How often a subscriber was told alone that it has missed events",
        |readers| readers.gaps,
    ),
];

fn encode_upstreams(snapshot: &Snapshot, encoder: &mut DescriptorEncoder) -> fmt::Result {
    let upstreams = || {
        snapshot.upstreams.iter().map(|((stream, url), upstream)| {
            let labels = [("stream", &**stream), ("url", &**url)];
            (labels, upstream)
        })
    };
    gauges(
        encoder,
        (
            "wsevent_upstream_connected",
            "Whether there is a connection to the upstream",
        ),
        upstreams().map(|(labels, upstream)| (labels, u32::from(upstream.connected))),
    )?;
    gauges(
        encoder,
        (
            "wsevent_upstream_refuses",
            "Whether the upstream is there and says that it has nothing for this hop",
        ),
        upstreams().map(|(labels, upstream)| (labels, u32::from(upstream.refuses))),
    )?;
    counters(
        encoder,
        (
            "wsevent_upstream_connects",
            "How often a connection to the upstream was made",
        ),
        upstreams().map(|(labels, upstream)| (labels, upstream.connects)),
    )?;
    counters(
        encoder,
        (
            "wsevent_upstream_failures",
            "How often an attempt to connect has failed, or a connection has ended",
        ),
        upstreams().map(|(labels, upstream)| (labels, upstream.failures)),
    )
}

fn encode_connections(keeper: &Keeper, encoder: &mut DescriptorEncoder) -> fmt::Result {
    const NO_LABELS: [(&str, &str); 0] = [];
    let (open, most) = keeper.entrance.connections();
    gauges(
        encoder,
        ("wsevent_connections", "Connections of clients"),
        [(NO_LABELS, open)],
    )?;
    gauges(
        encoder,
        (
            "wsevent_connections_max",
            "How many there may be before others are turned away",
        ),
        [(NO_LABELS, most)],
    )?;
    let of = |failures: &Failures| {
        let of = |failure: Failure| ([("reason", failure.name())], failures.of(failure));
        Failure::ALL.map(of)
    };
    counters(
        encoder,
        (
            "wsevent_handshake_failures",
            "Connections that were not let in, and requests to read that were refused",
        ),
        of(&keeper.handshakes),
    )?;
    counters(
        encoder,
        (
            "wsevent_publish_failures",
            "Requests to publish that were refused",
        ),
        of(&keeper.publishes),
    )
}

fn encode_links(snapshot: &Snapshot, encoder: &mut DescriptorEncoder) -> fmt::Result {
    let links = || {
        let links = snapshot.links.iter();
        links.map(|((stream, url), link)| {
            let labels = [("stream", &**stream), ("url", &**url)];
            (labels, link)
        })
    };
    counters(
        encoder,
        (
            "wsevent_upstream_wins",
            "Events that the upstream has brought before others of the stream",
        ),
        links().map(|(labels, link)| (labels, link.wins)),
    )?;
    counters(
        encoder,
        (
            "wsevent_upstream_repeated",
            "Events that others had brought before",
        ),
        links().map(|(labels, link)| (labels, link.repeated)),
    )?;
    counters(
        encoder,
        (
            "wsevent_upstream_holes",
            "How often the upstream has skipped events",
        ),
        links().map(|(labels, link)| (labels, link.holes)),
    )?;
    counters(
        encoder,
        (
            "wsevent_upstream_holes_filled",
            "How often others have brought all of these in time",
        ),
        links().map(|(labels, link)| (labels, link.filled)),
    )?;
    gauges(
        encoder,
        (
            "wsevent_upstream_lag_seconds",
            "How much later than others the upstream brings events",
        ),
        links().filter_map(|(labels, link)| Some((labels, link.lag? as f64 / 1e6))),
    )
}

fn encode_buses(snapshot: &Snapshot, encoder: &mut DescriptorEncoder) -> fmt::Result {
    let buses = || {
        let buses = snapshot.buses.iter();
        buses.map(|((stream, bus, way), counts)| {
            let labels = [("stream", &**stream), ("bus", &**bus), ("way", *way)];
            (labels, counts)
        })
    };
    gauges(
        encoder,
        (
            "wsevent_bus_connected",
            "Whether there is a connection to the bus",
        ),
        buses().map(|(labels, counts)| (labels, u32::from(counts.connected))),
    )?;
    counters(
        encoder,
        (
            "wsevent_bus_connects",
            "How often a connection to the bus was made",
        ),
        buses().map(|(labels, counts)| (labels, counts.connects)),
    )?;
    counters(
        encoder,
        (
            "wsevent_bus_events",
            "Events that came from the bus, or that it has confirmed",
        ),
        buses().map(|(labels, counts)| (labels, counts.events)),
    )?;
    counters(
        encoder,
        ("wsevent_bus_bytes", "Bytes of their payloads"),
        buses().map(|(labels, counts)| (labels, counts.bytes)),
    )?;
    counters(
        encoder,
        (
            "wsevent_bus_refused",
            "Events that were not taken, by this hop or by the bus, and never will be",
        ),
        buses().map(|(labels, counts)| (labels, counts.refused)),
    )?;
    counters(
        encoder,
        ("wsevent_bus_lost", "Events that are known to be missing"),
        buses().map(|(labels, counts)| (labels, counts.lost)),
    )
}

fn encode_process(process: &Process, encoder: &mut DescriptorEncoder) -> fmt::Result {
    const NO_LABELS: [(&str, &str); 0] = [];
    counters(
        encoder,
        (
            "process_cpu_seconds",
            "CPU time that the process has used, of user and system, in seconds",
        ),
        [(NO_LABELS, process.cpu_seconds())],
    )?;
    for (name, help, value) in [
        (
            "process_open_fds",
            "Open files, connections among them",
            process.open_files(),
        ),
        (
            "process_max_fds",
            "How many files may be open",
            process.max_files(),
        ),
        (
            "process_resident_memory_bytes",
            "Memory that the process has, in bytes",
            process.resident_memory(),
        ),
        (
            "process_virtual_memory_bytes",
            "Memory that it could address, in bytes",
            process.virtual_memory(),
        ),
        ("process_threads", "Its threads", process.threads()),
    ] {
        let value = value.map(|value| (NO_LABELS, value));
        gauges(encoder, (name, help), value)?;
    }
    gauges(
        encoder,
        (
            "process_start_time_seconds",
            "When it was started, in seconds since the Unix epoch",
        ),
        process.start_seconds.map(|seconds| (NO_LABELS, seconds)),
    )
}
