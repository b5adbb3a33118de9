//! Standard output, one event a line.

use std::fmt;
use std::io::{self, BufWriter, ErrorKind, StdoutLock, Write};
use std::time::SystemTime;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::client::reading::{End, Sink};
use crate::event::{Kind, Payload};
use crate::wire::recording::Taken;

/// Standard output, and what has been printed there.
pub struct Output {
    out: BufWriter<StdoutLock<'static>>,
    timestamps: bool,
    /// How many events to print, if that is limited.
    count: Option<u64>,
    /// How many have been.
    printed: u64,
}

impl Output {
    /// Nothing has been printed yet.
    pub fn new(timestamps: bool, count: Option<u64>) -> Self {
        Self {
            out: BufWriter::new(io::stdout().lock()),
            timestamps,
            count,
            printed: 0,
        }
    }

    /// Whether as many as asked for are out.
    fn is_full(&self) -> bool {
        self.count == Some(self.printed)
    }

    fn print(&mut self, payload: &Payload) -> io::Result<()> {
        if self.timestamps {
            write!(self.out, "{} ", Timestamp(SystemTime::now()))?;
        }
        match payload.kind {
            Kind::Text => self.out.write_all(&payload.bytes)?,
            Kind::Binary => self
                .out
                .write_all(BASE64.encode(&payload.bytes).as_bytes())?,
        }
        self.out.write_all(b"\n")?;
        self.printed += 1;
        Ok(())
    }
}

impl Sink for Output {
    fn taken(&self) -> u64 {
        self.printed
    }

    /// Prints an event, and writes it out if it is the last one asked for.
    fn take(&mut self, event: Taken) -> Result<Option<End>> {
        let printed = self.print(&event.payload);
        let full = self.is_full();
        let flushed = printed.and_then(|()| if full { self.out.flush() } else { Ok(()) });
        let end = written(flushed)?;
        Ok(end.or_else(|| full.then_some(End::Done)))
    }

    fn flush(&mut self) -> Result<Option<End>> {
        written(self.out.flush())
    }
}

/// A closed output is an end like others, and a quiet one.
fn written(result: io::Result<()>) -> Result<Option<End>> {
    match result {
        Ok(()) => Ok(None),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Some(End::OutputClosed)),
        Err(error) => Err(error).context("cannot write to standard output"),
    }
}

/// RFC 3339, in UTC, to the microsecond.
struct Timestamp(SystemTime);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_rfc3339_micros(self.0).fmt(f)
    }
}
