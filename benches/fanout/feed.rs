//! The events every server is fed with, and the clock that says when.
//!
//! The two baselines make their events themselves, `wsevent` gets them from an upstream in the bench process: the same
//! code here paces both. An event's timestamp is the moment the schedule wanted it, not the moment somebody got round
//! to it, so a server that falls behind shows the time it is late (no coordinated omission).

use std::num::NonZeroU64;
use std::ops::Range;
use std::thread;
use std::time::Duration;

use rustix::thread::set_current_timer_slack;

use crate::common::now_ns;

/// Payload bytes of every event: sequence number, creation time, filling.
pub const EVENT_BYTES: usize = 128;

/// Frame header (FIN, binary, 16-bit length) and payload, as an unmasked server frame.
pub const FRAME_BYTES: usize = EVENT_BYTES + 4;

/// Events handed over at once by a paced play that has fallen behind.
const MOST_AT_ONCE: u64 = 64;

/// What kind of message carries an event. Where transports are compared it is text: binary payloads are a third longer over
/// those that cannot carry them as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Two numbers of eight bytes, little-endian, then filling.
    Binary,
    /// The same in hexadecimal.
    Text,
}

/// One event, as it is before any server has seen it.
#[derive(Clone, Copy)]
pub struct Event {
    /// Position in the stream, from 1, without holes.
    pub seq: u64,
    /// When it was due, on the clock of [`now_ns`].
    pub created_ns: u64,
}

impl Event {
    /// The payload: both numbers, then filling.
    pub fn payload(self, form: Form) -> [u8; EVENT_BYTES] {
        let mut payload = [b'.'; EVENT_BYTES];
        for (index, number) in [self.seq, self.created_ns].into_iter().enumerate() {
            match form {
                Form::Binary => payload[index * 8..][..8].copy_from_slice(&number.to_le_bytes()),
                Form::Text => {
                    let digits = format!("{number:016x}");
                    payload[index * 16..][..16].copy_from_slice(digits.as_bytes());
                }
            }
        }
        payload
    }

    /// The payload in a server's WebSocket frame.
    pub fn frame(self, form: Form) -> [u8; FRAME_BYTES] {
        let mut frame = [0; FRAME_BYTES];
        let first = match form {
            Form::Binary => 0x82,
            Form::Text => 0x81,
        };
        frame[..4].copy_from_slice(&[first, 126, 0, EVENT_BYTES as u8]);
        frame[4..].copy_from_slice(&self.payload(form));
        frame
    }

    /// The payload with more filling, so that it has so many bytes.
    pub fn padded(self, form: Form, bytes: usize) -> Vec<u8> {
        let mut payload = self.payload(form).to_vec();
        payload.resize(bytes.max(EVENT_BYTES), b'.');
        payload
    }

    /// What [`Event::payload`] or [`Event::padded`] wrote as binary; `None` if these bytes are no event of this bench.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let payload = payload.get(..EVENT_BYTES)?;
        let (numbers, filling) = payload.split_at(16);
        let number = |at: Range<usize>| numbers[at].try_into().ok().map(u64::from_le_bytes);
        (filling[0] == b'.' && filling[filling.len() - 1] == b'.').then_some(Self {
            seq: number(0..8)?,
            created_ns: number(8..16)?,
        })
    }

    /// What [`Event::payload`] or [`Event::padded`] wrote as text; `None` if these bytes are no event of this bench.
    pub fn parse_text(payload: &[u8]) -> Option<Self> {
        let payload = payload.get(..EVENT_BYTES)?;
        let (numbers, filling) = payload.split_at(32);
        // Letters have the bit of 64 set, digits have not.
        let digit = |byte: u8| u64::from((byte & 0xf) + 9 * (byte >> 6));
        let number = |at: Range<usize>| {
            let digits = numbers[at].iter();
            digits.fold(0, |number, byte| number << 4 | digit(*byte))
        };
        (filling[0] == b'.' && filling[filling.len() - 1] == b'.').then(|| Self {
            seq: number(0..16),
            created_ns: number(16..32),
        })
    }
}

/// A stretch of events to send.
#[derive(Clone, Copy, Debug)]
pub enum Play {
    /// All at once, as fast as one publisher can.
    Burst {
        /// How many.
        events: u64,
    },
    /// Evenly spaced. A sender that is still behind when half the time has gone by again gives up.
    Paced {
        /// How many.
        events: u64,
        /// Events per second.
        rate: u64,
    },
}

impl Play {
    /// Events this play wants to send.
    pub fn events(self) -> u64 {
        match self {
            Self::Burst { events } | Self::Paced { events, .. } => events,
        }
    }

    /// How long the schedule is; nothing for a burst.
    pub fn length(self) -> Duration {
        match self {
            Self::Burst { .. } => Duration::ZERO,
            Self::Paced { events, rate } => Duration::from_nanos(events * 1_000_000_000 / rate),
        }
    }

    /// One line for a baseline's standard input.
    pub fn to_line(self) -> String {
        match self {
            Self::Burst { events } => format!("burst {events}\n"),
            Self::Paced { events, rate } => format!("paced {events} {rate}\n"),
        }
    }

    /// What [`Play::to_line`] wrote.
    pub fn from_line(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["burst", events] => Some(Self::Burst {
                events: events.parse().ok()?,
            }),
            ["paced", events, rate] => Some(Self::Paced {
                events: events.parse().ok()?,
                rate: rate.parse().ok()?,
            }),
            _ => None,
        }
    }
}

/// Numbers the events of one stream through all its plays.
#[derive(Default)]
pub struct Feed {
    last: u64,
}

impl Feed {
    /// Sends one play through `emit`, each call with the events that are due by then, and returns the last sequence
    /// number sent.
    pub fn play(&mut self, play: Play, mut emit: impl FnMut(&[Event])) -> u64 {
        match play {
            Play::Burst { events } => {
                let created_ns = now_ns();
                let batch: Vec<Event> = (1..=events)
                    .map(|n| Event {
                        seq: self.last + n,
                        created_ns,
                    })
                    .collect();
                emit(&batch);
                self.last += events;
            }
            Play::Paced { events, rate } => self.pace(events, rate, play.length(), emit),
        }
        self.last
    }

    fn pace(&mut self, events: u64, rate: u64, length: Duration, mut emit: impl FnMut(&[Event])) {
        // The default slack of 50 µs would be added to every latency.
        let _ = set_current_timer_slack(NonZeroU64::new(1));
        let start = now_ns();
        let give_up = start + u64::try_from(length.as_nanos()).unwrap_or(u64::MAX / 4) * 3 / 2;
        let due = |n: u64| start + n * 1_000_000_000 / rate;
        let mut sent = 0;
        while sent < events {
            let now = now_ns();
            if now > give_up {
                return;
            }
            if now < due(sent) {
                thread::sleep(Duration::from_nanos(due(sent) - now));
                continue;
            }
            let until = (sent..events.min(sent + MOST_AT_ONCE))
                .take_while(|n| due(*n) <= now)
                .count() as u64;
            let batch: Vec<Event> = (0..until)
                .map(|n| Event {
                    seq: self.last + 1 + n,
                    created_ns: due(sent + n),
                })
                .collect();
            emit(&batch);
            sent += until;
            self.last += until;
        }
    }
}
