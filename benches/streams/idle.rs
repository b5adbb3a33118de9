//! Case A: streams on which nothing happens.

use anyhow::Result;

use crate::Bench;
use crate::common::table::{Bar, Table, median};
use crate::hop::Hop;
use crate::load::{Load, Transport};

/// Streams. One that consumes is two open files.
const STREAMS: usize = 5_000;

/// What a stream may cost, in bytes.
const MOST: f64 = 4096.0;

/// In which state they are.
#[derive(Clone, Copy, PartialEq)]
enum State {
    /// The last subscriber has gone.
    Lingering,
    /// There is one subscriber.
    Read(Transport),
    /// There is one subscriber, and the stream is that of another hop, reached at a URL with this scheme.
    Consuming(&'static str),
}

impl State {
    const ALL: [Self; 5] = [
        Self::Lingering,
        Self::Read(Transport::WebSocket),
        Self::Read(Transport::Sse),
        Self::Consuming("ws"),
        Self::Consuming("http"),
    ];

    fn title(self) -> &'static str {
        match self {
            Self::Lingering => "lingering: its subscriber has left",
            Self::Read(Transport::WebSocket) => "with one WebSocket subscriber",
            Self::Read(Transport::Sse) => "with one SSE subscriber",
            Self::Consuming("ws") => "the same, consuming another hop",
            Self::Consuming(_) => "the same, consuming a body over HTTP",
        }
    }

    /// What the issue is about is a WebSocket, or nobody.
    fn has_bar(self) -> bool {
        matches!(
            self,
            Self::Lingering | Self::Read(Transport::WebSocket) | Self::Consuming("ws")
        )
    }

    fn transport(self) -> Transport {
        match self {
            Self::Read(transport) => transport,
            Self::Lingering | Self::Consuming(_) => Transport::WebSocket,
        }
    }
}

/// Measures all states in turn, and adds them up to a table.
pub fn measure(bench: &Bench) -> Result<Table> {
    let mut rounds = Vec::new();
    for _ in 0..bench.rounds(3) {
        let mut round = Vec::new();
        for state in State::ALL {
            let bytes = bytes_each(state, bench)?;
            bench.note(|| format!("A {:38} {bytes:5.0} bytes/stream", state.title()));
            round.push(bytes);
        }
        rounds.push(round);
    }
    let mut table = Table::new(&["case", "state", "bytes/stream", "bar"]);
    for (at, state) in State::ALL.into_iter().enumerate() {
        let bytes = median(rounds.iter().map(|round| round[at]).collect());
        let bar = Bar::at_most(bytes, MOST, "bytes");
        let bars = if state.has_bar() { vec![bar] } else { vec![] };
        table.push(vec![
            "A: 5,000 idle streams".to_owned(),
            state.title().to_owned(),
            format!("{bytes:.0}"),
            Bar::verdict(&bars),
        ]);
    }
    Ok(table)
}

/// What a stream costs, less what its subscriber would cost on a stream with all the others.
fn bytes_each(state: State, bench: &Bench) -> Result<f64> {
    let publishable: &[&str] = &["--accept-publish"];
    let origin;
    let hop = match state {
        State::Consuming(scheme) => {
            origin = Hop::with_many_streams(publishable, &bench.cpus)?;
            let url = origin.url(scheme);
            Hop::with_many_streams(&["--consume", &url], &bench.cpus)?
        }
        _ => Hop::with_many_streams(publishable, &bench.cpus)?,
    };
    let stays = state != State::Lingering;
    let all = memory_each(&hop, state.transport(), stays)?;
    drop(hop);
    if !stays {
        return Ok(all);
    }
    let shared = Hop::with_one_stream(publishable, &bench.cpus)?;
    Ok(all - memory_each(&shared, state.transport(), stays)?)
}

/// What each subscriber, and what is made for it, adds to the memory of a server, in bytes.
fn memory_each(hop: &Hop, transport: Transport, stays: bool) -> Result<f64> {
    let mut load = Load::new(transport)?;
    let path = |number| hop.path(number);
    // What a server has for a few, it has once.
    load.connect(hop.address, path, 100, stays)?;
    load.settle()?;
    let before = hop.rss()?;
    load.connect(hop.address, path, STREAMS, stays)?;
    load.settle()?;
    let after = hop.rss()?;
    Ok(after.saturating_sub(before) as f64 / STREAMS as f64)
}
