//! The messages, as one process writes them and another one reads them, which may be of another version. What is not known is passed
//! over, members as well as whole messages; what is new must be optional, or the version goes up.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::event::{Event, EventId, Gap, Kind, Labels, Payload};
use crate::route::Shape;
use crate::source::publish::Names;
use crate::stream::Carrier;
use crate::stream::export::{Numbered, Summary};
use crate::stream::history::Entry;
use crate::stream::via::Met;
use crate::wire::Format;
use crate::wire::compress::Coding;

/// The version that is spoken here, and the oldest one that is understood.
pub const VERSION: u32 = 1;
/// See above.
pub const OLDEST: u32 = 1;

/// New to old, first: [`Hello`].
pub const HELLO: u8 = 1;
/// Old to new: it will not, [`Refused`].
pub const REFUSED: u8 = 2;
/// Old to new: [`Here`], with the listening sockets.
pub const HERE: u8 = 3;
/// New to old: [`Wanted`].
pub const WANTED: u8 = 4;
/// Old to new: [`Events`], with their payloads.
pub const EVENTS: u8 = 5;
/// Old to new: [`Subscribers`], with their sockets.
pub const SUBSCRIBERS: u8 = 6;
/// Old to new: [`Rest`] of a stream.
pub const REST: u8 = 7;
/// Old to new: [`Positions`] of subscribers, in the order of their sockets.
pub const POSITIONS: u8 = 8;
/// Old to new: that was all, [`Done`].
pub const END: u8 = 9;
/// New to old: [`Done`], it goes on.
pub const TAKEN: u8 = 10;

/// Who asks.
#[derive(Debug, Serialize, Deserialize)]
pub struct Hello {
    /// The newest version that it speaks.
    pub version: u32,
    /// The oldest one that it understands.
    pub oldest: u32,
    /// Where it is to listen, as it was told.
    pub address: String,
    /// What that stands for.
    pub addresses: Vec<SocketAddr>,
}

/// Why not.
#[derive(Debug, Serialize, Deserialize)]
pub struct Refused {
    /// In one line.
    pub reason: String,
}

/// Who answers.
#[derive(Debug, Serialize, Deserialize)]
pub struct Here {
    /// The version that is spoken from here on.
    pub version: u32,
    /// Its name.
    pub instance: u64,
    /// So many sockets listen for clients; they come first.
    pub serving: usize,
    /// So many listen for administration.
    #[serde(default)]
    pub admin: usize,
    /// The streams there are.
    pub streams: Vec<Stream>,
}

/// A stream.
#[derive(Debug, Serialize, Deserialize)]
pub struct Stream {
    /// Its path, with those parameters that are part of its name.
    pub name: Arc<str>,
    /// The pattern of its route.
    pub pattern: String,
    /// What must be the same for its log to go on.
    pub shape: Shape,
    /// The name of its log.
    pub origin: u64,
    /// When that began, in microseconds since the Unix epoch.
    pub began: u64,
}

/// Which streams go on.
#[derive(Debug, Serialize, Deserialize)]
pub struct Wanted {
    /// Their numbers in the list.
    pub streams: Vec<usize>,
}

/// Some events of a stream.
#[derive(Debug, Serialize, Deserialize)]
pub struct Events {
    /// Its number in the list.
    pub stream: usize,
    /// In the order of the log.
    pub events: Vec<Moved>,
}

/// An event; its payload is the next so many bytes of the body.
#[derive(Debug, Serialize, Deserialize)]
pub struct Moved {
    /// Its number in the log.
    index: u64,
    id: EventId,
    time: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    r#type: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<Arc<str>>,
    len: usize,
    #[serde(default, skip_serializing_if = "is_false")]
    binary: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gap: Option<MovedGap>,
    /// When it came here, if not when it happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since: Option<u64>,
    /// It is not in the history, but kept as the last of its key.
    #[serde(default, skip_serializing_if = "is_false")]
    kept: bool,
    /// A peer has brought it.
    #[serde(default, skip_serializing_if = "is_false")]
    peer: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct MovedGap {
    after: Option<Box<str>>,
    next: Option<EventId>,
    lost: Option<u64>,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl Moved {
    /// `body` gets its payload.
    pub fn new(numbered: Numbered, body: &mut Vec<u8>) -> Self {
        let Numbered {
            index,
            entry:
                Entry {
                    event,
                    gap,
                    since,
                    link: _,
                    is_from_peer,
                    carrier: _,
                },
            is_held,
        } = numbered;
        body.extend_from_slice(&event.payload.bytes);
        Self {
            index,
            id: event.id,
            time: event.time,
            len: event.payload.bytes.len(),
            binary: event.payload.kind == Kind::Binary,
            r#type: event.event_type,
            key: event.key,
            gap: gap.map(|gap| MovedGap {
                after: gap.after,
                next: gap.next,
                lost: gap.lost,
            }),
            since: Some(since).filter(|since| *since != event.time),
            kept: !is_held,
            peer: is_from_peer,
        }
    }

    /// The event again; its payload is taken off `body`.
    pub fn numbered(self, body: &mut Bytes) -> Result<Numbered> {
        let payload = take(body, self.len)?;
        let kind = match self.binary {
            true => Kind::Binary,
            false => Kind::Text,
        };
        if kind == Kind::Text {
            std::str::from_utf8(&payload).context("an event's text is not UTF-8")?;
        }
        let gap = self.gap.map(|gap| {
            Box::new(Gap {
                after: gap.after,
                next: gap.next,
                lost: gap.lost,
            })
        });
        Ok(Numbered {
            index: self.index,
            entry: Entry {
                since: self.since.unwrap_or(self.time),
                event: Event {
                    id: self.id,
                    time: self.time,
                    event_type: self.r#type,
                    key: self.key,
                    payload: Payload {
                        kind,
                        // Its neighbours may have to go before it.
                        bytes: Bytes::copy_from_slice(&payload),
                    },
                },
                gap,
                // The numbers of sources are others now.
                link: None,
                is_from_peer: self.peer,
                carrier: Carrier::default(),
            },
            is_held: !self.kept,
        })
    }
}

/// The next so many bytes of a body.
pub fn take(body: &mut Bytes, len: usize) -> Result<Bytes> {
    ensure!(len <= body.len(), "a message is shorter than it says");
    Ok(body.split_to(len))
}

/// Some subscribers, each with its socket.
#[derive(Debug, Serialize, Deserialize)]
pub struct Subscribers {
    /// In the order of their sockets.
    pub subscribers: Vec<Subscriber>,
}

/// A subscriber.
#[derive(Debug, Serialize, Deserialize)]
pub struct Subscriber {
    /// The number of its stream in the list.
    pub stream: usize,
    /// Whether it is a link to another hop.
    #[serde(default)]
    pub hop: bool,
    /// Whether `permessage-deflate` is agreed on. A process that does not know of it sends plain messages, which is allowed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub deflate: bool,
    /// Where it comes from.
    pub address: SocketAddr,
    /// For how long it has been connected, in microseconds.
    pub connected_for: u64,
    /// How long it may still read, in microseconds, if there is an end to it.
    #[serde(default)]
    pub remaining: Option<u64>,
    /// What its messages are, if it may publish.
    #[serde(default)]
    pub publish: Option<Labelled>,
    /// It may not, though others may.
    #[serde(default)]
    pub without_right: bool,
}

impl Subscriber {
    /// What it is written in.
    pub fn format(&self) -> Format {
        let format = match self.hop {
            true => Format::Hop,
            false => Format::WebSocket,
        };
        format.coded(self.deflate.then_some(Coding::Deflate))
    }
}

/// What a publisher says of all its events.
#[derive(Debug, Serialize, Deserialize)]
pub struct Labelled {
    r#type: Option<Arc<str>>,
    key: Option<Arc<str>>,
}

impl From<Labels> for Labelled {
    fn from(labels: Labels) -> Self {
        Self {
            r#type: labels.event_type,
            key: labels.key,
        }
    }
}

impl From<Labelled> for Labels {
    fn from(labelled: Labelled) -> Self {
        Self {
            event_type: labelled.r#type,
            key: labelled.key,
        }
    }
}

/// What is known of a stream beside its events.
#[derive(Debug, Serialize, Deserialize)]
pub struct Rest {
    /// Its number in the list.
    pub stream: usize,
    /// Of its log.
    pub summary: Summary,
    /// What has been published lately under names.
    #[serde(default)]
    pub names: Option<Names>,
    /// What its sources have to know, by the names of their upstreams.
    #[serde(default)]
    pub sources: Vec<(Box<str>, Met)>,
}

/// Where subscribers stand.
#[derive(Debug, Serialize, Deserialize)]
pub struct Positions {
    /// In the order of their sockets. Those that stay where they are have none.
    pub positions: Vec<Option<Position>>,
}

/// Where one stands. What goes out before anything else, and the control frames behind that, are the next so many bytes of the body.
#[derive(Debug, Serialize, Deserialize)]
pub struct Position {
    /// The number of the next event for it.
    pub index: u64,
    /// How many bytes go out first.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rest: usize,
    /// How many of control frames follow.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub control: usize,
    /// For the log line about its end.
    pub first: u64,
    /// For the same.
    #[serde(default)]
    pub walked: i64,
    /// For the same.
    #[serde(default)]
    pub merged: u64,
    /// For the same.
    #[serde(default)]
    pub sent: u64,
}

fn is_zero(value: &usize) -> bool {
    *value == 0
}

/// One side has said all that it has to say.
#[derive(Debug, Serialize, Deserialize)]
pub struct Done {
    /// So many subscribers.
    pub subscribers: usize,
}
