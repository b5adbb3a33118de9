//! Standard input and output: an event a line.
//!
//! What is read: each line, without its end (`\n` or `\r\n`), is one event, empty lines too, and so is what stands behind the last end.
//! A line that is not UTF-8 is a binary event. A line of a stream's NDJSON is the event that it says, with its id (not with
//! `--bus-envelope never`), so that what another hop writes, or `curl` reads, can be piped in. At the end of input the hop serves on.
//!
//! What is written: a text as it is, and a line end; an event that is more than a line, or binary, as a line of NDJSON, with id and
//! time. With `--bus-envelope always` all are written so. When whoever reads has gone, nothing more is written, and the hop serves on.

use std::io::{self, ErrorKind, Read, Write};
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::thread;

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::{Mutex, OwnedMutexGuard, mpsc};
use tokio::task::spawn_blocking;
use tracing::warn;

use super::envelope::{self, Envelope};
use super::read::Ended;
use super::{Arrival, Bus, Sent};
use crate::event::{Event, Kind, Origin};
use crate::stdout;
use crate::wire::ndjson;

/// So many bytes are read at once.
const CHUNK: usize = 64 << 10;
/// So many chunks wait to be taken apart.
const AHEAD: usize = 4;
/// How much longer than its payload a line may be: as JSON, each byte may be two, and there are an id and labels.
const JSON_OVERHEAD: usize = 8 << 10;
/// How a line of NDJSON begins that has an id.
const BEGINNING: &[u8] = br#"{"id":""#;

/// What is read from standard input. There is one in a process, and a thread that reads it to its end: it may be a file, which the
/// runtime cannot watch. Whoever has the lock gets what comes.
static INPUT: LazyLock<Arc<Mutex<Chunks>>> = LazyLock::new(|| {
    let (sender, chunks) = mpsc::channel(AHEAD);
    thread::spawn(move || read(&sender));
    Arc::new(Mutex::new(chunks))
});

type Chunks = mpsc::Receiver<io::Result<Vec<u8>>>;

fn read(chunks: &mpsc::Sender<io::Result<Vec<u8>>>) {
    let mut input = io::stdin().lock();
    let mut buffer = vec![0; CHUNK];
    loop {
        let chunk = match input.read(&mut buffer) {
            Ok(0) => return,
            Ok(len) => Ok(buffer[..len].to_vec()),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        let is_over = chunk.is_err();
        if chunks.blocking_send(chunk).is_err() || is_over {
            return;
        }
    }
}

/// Reads standard input.
pub struct Reader {
    input: Option<OwnedMutexGuard<Chunks>>,
    lines: Lines,
}

impl Reader {
    /// Nothing has been read yet.
    pub fn new(bus: Arc<Bus>) -> Self {
        Self {
            input: None,
            lines: Lines::new(bus.envelope, bus.upstream.max_message_size),
        }
    }
}

impl super::Reader for Reader {
    fn connect(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            if self.input.is_none() {
                self.input = Some(INPUT.clone().lock_owned().await);
            }
            Ok(())
        })
    }

    fn next<'a>(&'a mut self, arrivals: &'a mut Vec<Arrival>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async {
            let input = self.input.as_mut().context("it is not open")?;
            while arrivals.is_empty() {
                match input.recv().await {
                    Some(Ok(chunk)) => self.lines.take(&chunk, arrivals),
                    Some(Err(error)) => {
                        warn!(%error, "cannot read standard input");
                        return Err(Ended("it cannot be read").into());
                    }
                    None => {
                        self.lines.end(arrivals);
                        if arrivals.is_empty() {
                            return Err(Ended("end of input").into());
                        }
                    }
                }
            }
            Ok(())
        })
    }
}

/// Takes what is read apart.
struct Lines {
    envelope: Envelope,
    /// The longest line, in bytes.
    most: usize,
    /// What has come of a line; of one that is too long, nothing.
    begun: Vec<u8>,
    /// So many bytes have come of a line that is too long.
    too_long: usize,
}

impl Lines {
    fn new(envelope: Envelope, max_message_size: usize) -> Self {
        Self {
            envelope,
            most: max_message_size
                .saturating_mul(2)
                .saturating_add(JSON_OVERHEAD),
            begun: Vec::new(),
            too_long: 0,
        }
    }

    fn take(&mut self, chunk: &[u8], arrivals: &mut Vec<Arrival>) {
        let mut rest = chunk;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            self.add(&rest[..end]);
            arrivals.push(self.line(true));
            rest = &rest[end + 1..];
        }
        self.add(rest);
    }

    /// What stands behind the last line end is a line as well.
    fn end(&mut self, arrivals: &mut Vec<Arrival>) {
        if !self.begun.is_empty() || self.too_long > 0 {
            arrivals.push(self.line(false));
        }
    }

    fn add(&mut self, piece: &[u8]) {
        if self.too_long > 0 {
            self.too_long += piece.len();
        } else if self.begun.len() + piece.len() > self.most {
            self.too_long = self.begun.len() + piece.len();
            self.begun = Vec::new();
        } else {
            self.begun.extend_from_slice(piece);
        }
    }

    fn line(&mut self, is_whole: bool) -> Arrival {
        let too_long = std::mem::take(&mut self.too_long);
        if too_long > 0 {
            return Arrival::Unusable(format!(
                "a line of {too_long} bytes is longer than an event may be (--max-message-size)"
            ));
        }
        let mut line = &self.begun[..];
        if is_whole {
            line = line.strip_suffix(b"\r").unwrap_or(line);
        }
        let arrival = event(self.envelope, line);
        self.begun.clear();
        arrival
    }
}

fn event(envelope: Envelope, line: &[u8]) -> Arrival {
    if envelope != Envelope::Never
        && line.starts_with(BEGINNING)
        && let Ok(ndjson::Line::Event(event)) = ndjson::decode(line)
    {
        return Arrival::Known(event);
    }
    Arrival::New(envelope::payload(Bytes::copy_from_slice(line)).into())
}

/// Writes to standard output.
pub struct Writer {
    envelope: Envelope,
    /// Resolves when nobody reads any more. Watching takes a thread, so it begins once.
    closed: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Writer {
    /// Nothing has been written yet.
    pub fn new(bus: Arc<Bus>) -> Self {
        Self {
            envelope: bus.envelope,
            closed: Box::pin(stdout::closed()),
        }
    }
}

impl super::Writer for Writer {
    fn connect(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn send<'a>(
        &'a mut self,
        events: &'a [Event],
        _: Option<Origin>,
        sent: &'a mut Vec<Sent>,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let mut lines = Vec::new();
            for event in events {
                print(self.envelope, event, &mut lines);
            }
            // Whoever reads may be slow.
            let writing = spawn_blocking(move || {
                let mut output = io::stdout().lock();
                output.write_all(&lines)?;
                output.flush()
            });
            match writing.await? {
                Ok(()) => {
                    sent.extend(events.iter().map(|event| Sent::Taken(event.id)));
                    Ok(())
                }
                Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(CLOSED.into()),
                // Some of it may be there: what comes then begins with a line of its own, at least.
                Err(error) => Err(anyhow!(error).context("cannot write to standard output")),
            }
        })
    }

    fn lost(&mut self) -> BoxFuture<'_, anyhow::Error> {
        Box::pin(async {
            self.closed.as_mut().await;
            // It is not asked again.
            self.closed = Box::pin(std::future::pending());
            CLOSED.into()
        })
    }
}

const CLOSED: Ended = Ended("nobody reads standard output any more");

/// Appends the line of an event.
fn print(envelope: Envelope, event: &Event, lines: &mut Vec<u8>) {
    let bytes = &event.payload.bytes;
    let is_line =
        event.payload.kind == Kind::Text && memchr::memchr2(b'\n', b'\r', bytes).is_none();
    if is_line && envelope != Envelope::Always {
        lines.extend_from_slice(bytes);
        lines.push(b'\n');
    } else {
        ndjson::encode(event, lines);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Payload;

    fn new(payload: Payload) -> Arrival {
        Arrival::New(payload.into())
    }

    fn taken(envelope: Envelope, chunks: &[&[u8]]) -> Vec<Arrival> {
        let mut lines = Lines::new(envelope, 1_000);
        let mut arrivals = Vec::new();
        for chunk in chunks {
            lines.take(chunk, &mut arrivals);
        }
        lines.end(&mut arrivals);
        arrivals
    }

    #[test]
    fn each_line_is_an_event_wherever_it_is_cut() {
        let expected = [
            new(Payload::text("a")),
            new(Payload::text("")),
            new(Payload::text("b")),
            new(Payload::binary(&b"\xff"[..])),
            new(Payload::text("last\r")),
        ];
        let input = b"a\n\nb\r\n\xff\nlast\r";
        for cut in 0..input.len() {
            let (before, behind) = input.split_at(cut);
            assert_eq!(taken(Envelope::Auto, &[before, behind]), expected, "{cut}");
        }
        assert_eq!(taken(Envelope::Auto, &[b""]), []);
        assert_eq!(taken(Envelope::Auto, &[b"\n"]), [new(Payload::text(""))]);
    }

    #[test]
    fn a_line_that_is_too_long_is_told_and_not_kept() {
        let long = vec![b'x'; 2_000 + JSON_OVERHEAD];
        let most = taken(Envelope::Auto, &[&long, b"\n"]);
        assert!(matches!(&most[..], [Arrival::New(_)]), "{most:?}");
        let arrivals = taken(
            Envelope::Auto,
            &[b"a\n", &long, &long, b"x\nb\n", &long, b"x"],
        );
        let [first, Arrival::Unusable(why), next, Arrival::Unusable(_)] = &arrivals[..] else {
            panic!("{arrivals:?}")
        };
        assert!(why.contains("a line of 20385 bytes"), "{why}");
        assert_eq!(
            (first, next),
            (&new(Payload::text("a")), &new(Payload::text("b")))
        );
    }

    #[test]
    fn what_is_more_than_a_line_is_written_so_that_it_can_be_read_again() {
        let event = |payload| Event {
            id: "0H3B6Q2ZK7M9T-42".parse().expect("an id"),
            time: 1_763_711_000_123_456,
            event_type: None,
            key: Some("k".into()),
            payload,
        };
        let events = [
            event(Payload::text("plain")),
            event(Payload::text("two\nlines")),
            event(Payload::text("cr\r")),
            event(Payload::binary(&b"\x00\xff"[..])),
        ];
        let written = |envelope| {
            let mut lines = Vec::new();
            events
                .iter()
                .for_each(|event| print(envelope, event, &mut lines));
            lines
        };
        let known = events.clone().map(Arrival::Known);
        let always = written(Envelope::Always);
        assert_eq!(taken(Envelope::Auto, &[&always]), known);
        let auto = taken(Envelope::Auto, &[&written(Envelope::Auto)]);
        assert_eq!(auto[0], new(Payload::text("plain")));
        assert_eq!(auto[1..], known[1..]);
        let never = taken(Envelope::Never, &[&always]);
        assert!(
            never
                .iter()
                .all(|arrival| matches!(arrival, Arrival::New(_)))
        );
        assert_eq!(never.len(), 4);
    }
}
