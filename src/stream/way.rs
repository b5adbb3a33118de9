//! Which ways events come into a log, and how much has come by each.

use std::ops::AddAssign;

/// Which way an event has come into a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Way {
    /// The number of the source that has brought it, if one has.
    pub link: Option<u16>,
    /// Whether that is a peer, so that other peers do not get it from here.
    pub is_from_peer: bool,
    /// What has carried it here.
    pub carrier: Carrier,
}

impl Way {
    /// By the source with this number, which is no peer.
    pub fn of(link: usize) -> Self {
        Self {
            link: u16::try_from(link).ok(),
            ..Self::default()
        }
    }

    /// The same, carried so.
    pub fn by(self, carrier: Carrier) -> Self {
        Self { carrier, ..self }
    }
}

/// What carries events to a hop: what figures tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Carrier {
    /// Nothing that is known.
    #[default]
    Unknown,
    /// A link to another hop.
    Hop,
    /// Messages on a WebSocket, of an upstream or of a client that publishes.
    WebSocket,
    /// Server-sent events of an upstream.
    Sse,
    /// NDJSON of an upstream.
    Ndjson,
    /// Requests of clients that publish.
    Post,
    /// A bus.
    Bus,
    /// They are made here.
    Produce,
}

impl Carrier {
    /// All of them; a carrier's place here is its value as a number.
    pub const ALL: [Self; 8] = [
        Self::Unknown,
        Self::Hop,
        Self::WebSocket,
        Self::Sse,
        Self::Ndjson,
        Self::Post,
        Self::Bus,
        Self::Produce,
    ];

    /// The name for figures.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Hop => "hop",
            Self::WebSocket => "websocket",
            Self::Sse => "sse",
            Self::Ndjson => "ndjson",
            Self::Post => "post",
            Self::Bus => "bus",
            Self::Produce => "produce",
        }
    }

    /// What an upstream's events come by, as a handshake has shown it: the name of a transport.
    pub fn of_transport(name: &str) -> Self {
        let mut all = Self::ALL.into_iter();
        all.find(|carrier| carrier.name() == name)
            .unwrap_or_default()
    }
}

/// Events, and the bytes that they take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amount {
    /// How many.
    pub events: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        self.events += other.events;
        self.bytes += other.bytes;
    }
}

/// What has come in a log, by what has carried it: of most streams that is one thing.
#[derive(Debug, Default)]
pub struct Received(Vec<(Carrier, Amount)>);

impl Received {
    /// So much more has been carried by this.
    pub fn add(&mut self, by: Carrier, amount: Amount) {
        match self.0.iter_mut().find(|(carrier, _)| *carrier == by) {
            Some((_, sum)) => *sum += amount,
            None => {
                self.0.reserve_exact(1);
                self.0.push((by, amount));
            }
        }
    }

    /// All that has come.
    pub fn all(&self) -> Vec<(Carrier, Amount)> {
        self.0.clone()
    }
}
