//! The log: lines on standard error, written by a thread of their own.

use std::io::{self, BufWriter, IsTerminal, Stderr, Write};
use std::thread;
use std::time::Duration;

use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::EnvFilter;

use crate::cli::{LogConfig, LogFormat};
use crate::spans;
#[cfg(feature = "otel")]
use crate::spans::export::Exporter;

/// Begins to log. What is still to be written when what is returned is dropped, is written then.
pub fn start(config: &LogConfig) -> WorkerGuard {
    let terminal = io::stderr().is_terminal();
    let (writer, guard) = tracing_appender::non_blocking(Batches(BufWriter::new(io::stderr())));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter(&config.filter)))
        .with_writer(writer)
        .log_internal_errors(false)
        .with_ansi(terminal);
    match config.format {
        LogFormat::Human => subscriber.with_target(false).init(),
        LogFormat::Json => subscriber.json().flatten_event(true).init(),
    }
    guard
}

/// The same, with spans for a collector beside it.
#[cfg(feature = "otel")]
pub fn start_beside(exporter: &Exporter, config: &LogConfig) -> WorkerGuard {
    use tracing_subscriber::layer::{Layer, SubscriberExt};
    use tracing_subscriber::util::SubscriberInitExt;

    let terminal = io::stderr().is_terminal();
    let (writer, guard) = tracing_appender::non_blocking(Batches(BufWriter::new(io::stderr())));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .log_internal_errors(false)
        .with_ansi(terminal);
    let filter = EnvFilter::new(filter(&config.filter));
    let subscriber = tracing_subscriber::registry().with(exporter.layer());
    match config.format {
        LogFormat::Human => subscriber
            .with(lines.with_target(false).with_filter(filter))
            .init(),
        LogFormat::Json => subscriber
            .with(lines.json().flatten_event(true).with_filter(filter))
            .init(),
    }
    guard
}

/// Without spans, which are for collectors, and without the lines in which the library of NATS tells each event and error of a connection, which
/// we tell in our own words; unless it is asked for them by name.
fn filter(wanted: &str) -> String {
    let spans = format!("{}=off", spans::TARGET);
    match wanted.contains("async_nats") {
        true => format!("{spans},{wanted}"),
        false => format!("async_nats=off,{spans},{wanted}"),
    }
}

/// Log lines are written by a thread of their own, those of a moment at once: a connect costs the server its line but no
/// system call and no task switch, and whoever has stopped reading the log stops nothing else.
struct Batches(BufWriter<Stderr>);

impl Write for Batches {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    /// Called when there is no further line for now.
    fn flush(&mut self) -> io::Result<()> {
        const MOMENT: Duration = Duration::from_millis(5);
        let result = self.0.flush();
        thread::sleep(MOMENT);
        result
    }
}
