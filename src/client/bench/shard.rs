//! Subscribers that share a thread, and what they have seen.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context as TaskContext, Poll, ready};

use anyhow::{Result, anyhow};
use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::runtime::Handle;

use super::account::{Row, Seen};
use super::marker::{Run, now_ns};
use super::reading::body::Chunks;
use super::reading::{Event, Frames, Item, Lines, Wrong};
use super::thread;
use crate::event::{self, EventId};
use crate::source::upstream::Stream;

/// Bytes of one read; a subscriber that is behind takes this much at a time.
const READ_BYTES: usize = 256 << 10;
/// Reasons that are kept apart: they come from the server.
const MAX_REASONS: usize = 20;

/// A thread with subscribers on it.
pub struct Shard {
    /// Where they are spawned.
    pub handle: Handle,
    state: Arc<Mutex<State>>,
}

impl Shard {
    /// A thread of its own, which ends with the process.
    pub fn start(run: Option<Run>) -> Result<Self> {
        let handle = thread("subscribers")?;
        Ok(Self {
            handle,
            state: Arc::new(Mutex::new(State::new(run)?)),
        })
    }

    /// What its subscribers share.
    pub fn state(&self) -> &Arc<Mutex<State>> {
        &self.state
    }

    /// The same, to look at.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The CPU time that the thread has used, in seconds.
    pub async fn cpu_seconds(&self) -> f64 {
        let reading = self.handle.spawn(async {
            let time = clock_gettime(ClockId::ThreadCPUTime);
            time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
        });
        reading.await.unwrap_or_default()
    }
}

/// What is shared by the subscribers of a thread.
pub fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What has been counted since the beginning of a step.
#[derive(Clone)]
pub struct Tally {
    /// Events that count: those of this run if it publishes, else all.
    pub delivered: u64,
    /// Bytes that have come for them, with all that the transport adds.
    pub bytes: u64,
    /// Events that are missing between others. Of one that comes late it is taken back, perhaps in the next step.
    pub lost: i64,
    /// Events that came again.
    pub repeated: u64,
    /// Notices of the server that something is missing.
    pub gaps: u64,
    /// Events of others, where only those of this run count.
    pub others: u64,
    /// Events without marker and number: whether one is missing cannot be seen.
    pub unnumbered: u64,
    /// In nanoseconds.
    pub latency: Histogram<u64>,
}

impl Tally {
    /// Nothing yet.
    pub fn new() -> Result<Self> {
        /// An hour.
        const LONGEST: u64 = 3_600_000_000_000;
        Ok(Self {
            delivered: 0,
            bytes: 0,
            lost: 0,
            repeated: 0,
            gaps: 0,
            others: 0,
            unnumbered: 0,
            latency: Histogram::new_with_bounds(1_000, LONGEST, 3)?,
        })
    }

    /// Adds what others have counted.
    pub fn add(&mut self, other: &Self) {
        self.delivered += other.delivered;
        self.bytes += other.bytes;
        self.lost += other.lost;
        self.repeated += other.repeated;
        self.gaps += other.gaps;
        self.others += other.others;
        self.unnumbered += other.unnumbered;
        // They have the same bounds.
        let _ = self.latency.add(&other.latency);
    }
}

/// How often something went wrong, and why.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Reasons(pub BTreeMap<String, u64>);

impl Reasons {
    /// Adds what others have counted.
    pub fn merge(&mut self, other: &Self) {
        for (reason, count) in &other.0 {
            self.add(reason, *count);
        }
    }

    /// Once more, or some times more. There are few of them, whatever servers say.
    pub fn add(&mut self, reason: &str, count: u64) {
        let is_new = !self.0.contains_key(reason) && self.0.len() >= MAX_REASONS;
        let reason = if is_new { "other reasons" } else { reason };
        *self.0.entry(reason.to_owned()).or_default() += count;
    }

    /// How often in all.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

/// What the subscribers of a thread share.
pub struct State {
    /// Events of this run count, if it publishes.
    run: Option<Run>,
    /// What the current read has brought.
    buffer: Box<[u8]>,
    /// What has been counted.
    pub tally: Tally,
    clients: Vec<Client>,
    /// Connections that have been made, ever.
    pub connected: usize,
    /// Those that were not let in, ever.
    pub refused: Reasons,
    /// Those that have ended, ever.
    pub closed: Reasons,
}

/// One subscriber.
struct Client {
    parser: Parser,
    is_open: bool,
    /// Of the events of this run.
    marks: Row,
    /// Of events that a wsevent has numbered, by origin; mostly there is one.
    origins: Vec<(EventId, Row)>,
}

/// How what comes is read.
pub enum Parser {
    /// Messages of a WebSocket.
    Frames(Frames),
    /// A body of lines, perhaps in chunks.
    Body(Lines, Option<Chunks>),
}

impl State {
    fn new(run: Option<Run>) -> Result<Self> {
        Ok(Self {
            run,
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            tally: Tally::new()?,
            clients: Vec::new(),
            connected: 0,
            refused: Reasons::default(),
            closed: Reasons::default(),
        })
    }

    /// A connection has been made; its number. Events of this run behind `seq` must come over it.
    pub fn open(&mut self, parser: Parser, seq: u64) -> usize {
        self.connected += 1;
        self.clients.push(Client {
            parser,
            is_open: true,
            marks: Row::behind(seq),
            origins: Vec::new(),
        });
        self.clients.len() - 1
    }

    /// A connection has ended.
    pub fn close(&mut self, at: usize, reason: &str) {
        self.clients[at].is_open = false;
        self.closed.add(reason, 1);
    }

    /// Connections that last.
    pub fn open_count(&self) -> usize {
        self.clients.iter().filter(|client| client.is_open).count()
    }

    /// From here on it is counted anew; all events of this run up to `seq` are of the past.
    pub fn begin(&mut self, seq: u64) -> Result<()> {
        self.tally = Tally::new()?;
        for client in &mut self.clients {
            client.marks = Row::behind(seq);
        }
        Ok(())
    }

    /// How many events up to this one have not come over connections that last, and over how many of these.
    pub fn behind(&self, seq: u64) -> (u64, usize) {
        let open = self.clients.iter().filter(|client| client.is_open);
        let missing = open.map(|client| seq.saturating_sub(client.marks.last()));
        missing.fold((0, 0), |(sum, count), missing| {
            (sum + missing, count + usize::from(missing > 0))
        })
    }

    /// What has come over a connection before it was one of this thread's.
    pub fn early(&mut self, at: usize, bytes: &[u8]) -> Result<Vec<u8>, End> {
        let mut answers = Vec::new();
        for piece in bytes.chunks(READ_BYTES) {
            self.buffer[..piece.len()].copy_from_slice(piece);
            self.take(at, piece.len(), &mut answers)?;
        }
        Ok(answers)
    }

    /// Reads all that has come over a connection. It is ready with what is to be answered to that, or with the end.
    pub fn poll_read(
        &mut self,
        at: usize,
        stream: &mut Stream,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Result<Vec<u8>, End>> {
        let mut answers = Vec::new();
        loop {
            let mut buffer = ReadBuf::new(&mut self.buffer);
            let read = Pin::new(&mut *stream).poll_read(cx, &mut buffer);
            if read.is_pending() && !answers.is_empty() {
                // What has come meanwhile is read behind the answer.
                return Poll::Ready(Ok(answers));
            }
            ready!(read).map_err(|error| End::Broken(error.kind()))?;
            let length = buffer.filled().len();
            if length == 0 {
                return Poll::Ready(Err(End::Broken(io::ErrorKind::UnexpectedEof)));
            }
            self.take(at, length, &mut answers)?;
        }
    }

    /// Goes through what stands in the buffer.
    fn take(&mut self, at: usize, length: usize, answers: &mut Vec<u8>) -> Result<(), End> {
        let Self {
            run,
            buffer,
            tally,
            clients,
            ..
        } = self;
        let Client {
            parser,
            marks,
            origins,
            ..
        } = &mut clients[at];
        tally.bytes += length as u64;
        let (now, mut wall) = (now_ns(), None);
        let mut end = None;
        let mut tell = |item: Item<'_>| match item {
            Item::Event(event) => {
                if !count(tally, run.is_some(), &event, (marks, origins)) {
                    return;
                }
                let latency = match (event.mark, event.time) {
                    (Some(mark), _) => Some(now.saturating_sub(mark.sent_ns)),
                    (None, Some(time)) if run.is_none() => {
                        let wall = *wall.get_or_insert_with(event::now);
                        Some(wall.saturating_sub(time) * 1_000)
                    }
                    _ => None,
                };
                if let Some(latency) = latency {
                    tally.latency.saturating_record(latency);
                }
            }
            Item::Gap => tally.gaps += 1,
            Item::Ping(payload) => pong(payload, answers),
            Item::Close(reason) => end = Some(End::Closed(reason)),
        };
        let bytes = &buffer[..length];
        match parser {
            Parser::Frames(frames) => frames.feed(bytes, *run, &mut tell)?,
            Parser::Body(lines, None) => lines.feed(bytes, *run, &mut tell),
            Parser::Body(lines, Some(chunks)) => {
                let mut bytes = bytes;
                while let Some(piece) = chunks.next(&mut bytes)? {
                    lines.feed(piece, *run, &mut tell);
                }
                if chunks.is_over {
                    end = Some(End::Closed("the server has ended the body".to_owned()));
                }
            }
        }
        end.map_or(Ok(()), Err)
    }
}

/// Counts an event, and says whether it counts. `is_marked`: only those of this run do.
fn count(
    tally: &mut Tally,
    is_marked: bool,
    event: &Event,
    (marks, origins): (&mut Row, &mut Vec<(EventId, Row)>),
) -> bool {
    let (seen, counts) = match (event.mark, event.id) {
        (Some(mark), _) => (marks.see(mark.seq), true),
        (None, _) if is_marked => {
            tally.others += 1;
            return false;
        }
        (None, Some(id)) => (see_id(origins, id), id.origin.counts()),
        (None, None) => (Seen::New(0), false),
    };
    if seen == Seen::Old {
        return false;
    }
    tally.delivered += 1;
    tally.unnumbered += u64::from(!counts);
    match seen {
        Seen::New(missing) if counts => tally.lost += i64::try_from(missing).unwrap_or(i64::MAX),
        Seen::Late if counts => tally.lost -= 1,
        Seen::New(_) | Seen::Late | Seen::Old => {}
        Seen::Again => tally.repeated += 1,
    }
    true
}

fn see_id(origins: &mut Vec<(EventId, Row)>, id: EventId) -> Seen {
    let known = origins
        .iter_mut()
        .find(|(known, _)| known.origin == id.origin);
    match known {
        Some((_, row)) => row.see(id.seq),
        None => {
            origins.push((id, Row::from(id.seq)));
            Seen::New(0)
        }
    }
}

/// Adds the answer to a ping: masked, as a client must, with the key that leaves the bytes as they are.
fn pong(payload: &[u8], answers: &mut Vec<u8>) {
    answers.extend_from_slice(&[0x8a, 0x80 | payload.len() as u8, 0, 0, 0, 0]);
    answers.extend_from_slice(payload);
}

/// How a connection has ended.
#[derive(Debug)]
pub enum End {
    /// In due form, with what the server says.
    Closed(String),
    /// Otherwise.
    Broken(io::ErrorKind),
    /// It has sent what it must not.
    Wrong(Wrong),
}

impl From<Wrong> for End {
    fn from(wrong: Wrong) -> Self {
        Self::Wrong(wrong)
    }
}

impl End {
    /// In words.
    pub fn reason(self) -> String {
        match self {
            Self::Closed(reason) => reason,
            Self::Broken(io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => {
                "connection lost".to_owned()
            }
            Self::Broken(kind) => format!("connection lost: {kind}"),
            Self::Wrong(Wrong(what)) => format!("the server has sent {what}"),
        }
    }
}

impl From<End> for anyhow::Error {
    fn from(end: End) -> Self {
        anyhow!(end.reason())
    }
}
