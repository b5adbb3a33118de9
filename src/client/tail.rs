//! `wsevent tail`: prints a stream.

use std::fmt;
use std::future;
use std::io::{self, BufWriter, ErrorKind, StdoutLock, Write};
use std::mem;
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures_util::{FutureExt, StreamExt};
use rustix::event::{PollFd, PollFlags, poll};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message};
use tracing::{info, warn};

use crate::event::{Kind, Payload};
use crate::reason;
use crate::source::Backoff;
use crate::source::websocket::{Heartbeat, Link, Upstream, close, complaint, payload};

/// What to print, and how.
pub struct Tail {
    /// The stream.
    pub upstream: Upstream,
    /// End after so many events.
    pub count: Option<u64>,
    /// Begin each line with the time of arrival.
    pub timestamps: bool,
    /// End with the connection.
    pub exit_on_close: bool,
}

/// How one connection ended.
enum End {
    /// All that was asked for has been printed.
    Done,
    /// Nobody reads the output any more.
    OutputClosed,
    /// The server closed it in due form.
    Closed(anyhow::Error),
    /// It broke.
    Lost(anyhow::Error),
}

impl Tail {
    /// Prints events until as many as asked for are out, or the output is closed; with `exit_on_close`, or until the
    /// connection ends, which is an error unless the server closed it.
    pub async fn run(self) -> Result<()> {
        tokio::select! {
            result = self.print() => result,
            () = output_closed() => Ok(()),
        }
    }

    async fn print(self) -> Result<()> {
        let mut output = Output {
            out: BufWriter::new(io::stdout().lock()),
            timestamps: self.timestamps,
            count: self.count,
            printed: 0,
        };
        let mut backoff = Backoff::new();
        let mut told = false;
        loop {
            let end = match self.upstream.connect().await {
                Ok(link) => {
                    if mem::take(&mut told) {
                        info!(url = %self.upstream, "connected again");
                    }
                    let (since, printed) = (Instant::now(), output.printed);
                    let end = output.print_all(link, self.upstream.ping_interval).await?;
                    backoff.connection_ended(since, output.printed > printed);
                    end
                }
                Err(error) => End::Lost(error),
            };
            let error = match end {
                End::Done | End::OutputClosed => return Ok(()),
                End::Closed(_) if self.exit_on_close => return Ok(()),
                End::Lost(error) if self.exit_on_close => {
                    return Err(error).context(self.upstream.to_string());
                }
                End::Closed(error) | End::Lost(error) => error,
            };
            if !told {
                warn!(url = %self.upstream, reason = %reason::of(&error), "connection lost, trying again");
                told = true;
            }
            sleep(backoff.pause()).await;
        }
    }
}

/// Resolves when the other end of a pipe that standard output is has been closed, even if there is nothing to print.
async fn output_closed() {
    let (closed, is_closed) = oneshot::channel();
    // In a thread that nothing waits for: standard output may be a file, which the runtime cannot watch.
    thread::spawn(move || {
        let output = io::stdout();
        // Nothing is asked for: an error is told without asking.
        let mut watched = [PollFd::new(&output, PollFlags::empty())];
        if poll(&mut watched, None).is_ok() {
            let _ = closed.send(());
        }
    });
    if is_closed.await.is_err() {
        future::pending().await
    }
}

/// Standard output, and what has been printed there.
struct Output {
    out: BufWriter<StdoutLock<'static>>,
    timestamps: bool,
    /// How many events to print, if that is limited.
    count: Option<u64>,
    /// How many have been.
    printed: u64,
}

impl Output {
    /// Prints what comes over one connection, and closes it if the server does not.
    async fn print_all(&mut self, mut link: Link, ping_interval: Duration) -> Result<End> {
        let heartbeat = Heartbeat::new(ping_interval);
        let end = self.print_until_end(&mut link, heartbeat).await;
        let farewell = match &end {
            Ok(End::Lost(error)) => complaint(error),
            _ => None,
        };
        close(&mut link, farewell.or_else(|| Some(done()))).await;
        end
    }

    async fn print_until_end(&mut self, link: &mut Link, mut heartbeat: Heartbeat) -> Result<End> {
        loop {
            let mut arrived = match heartbeat.next(link).await {
                Ok(message) => Some(message),
                Err(error) => return Ok(End::Lost(error)),
            };
            // What has arrived together goes out together.
            while let Some(message) = arrived {
                let is_close = matches!(message, Some(Ok(Message::Close(_))));
                let printed = match payload(message) {
                    Ok(Some(payload)) => self.print(&payload),
                    Ok(None) => Ok(()),
                    Err(error) => {
                        let end = if is_close {
                            End::Closed(error)
                        } else {
                            End::Lost(error)
                        };
                        return Ok(written(self.out.flush())?.unwrap_or(end));
                    }
                };
                let full = self.count == Some(self.printed);
                let flushed = printed.and_then(|()| if full { self.out.flush() } else { Ok(()) });
                if let Some(end) = written(flushed)? {
                    return Ok(end);
                }
                if full {
                    return Ok(End::Done);
                }
                arrived = link.next().now_or_never();
            }
            if let Some(end) = written(self.out.flush())? {
                return Ok(end);
            }
        }
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

fn done() -> CloseFrame {
    CloseFrame {
        code: CloseCode::Normal,
        reason: "".into(),
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
