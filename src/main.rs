//! The wsevent binary: parse, set up logging, run, turn an error into an exit status.

use std::io::{self, BufWriter, IsTerminal, Stderr, Write};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::EnvFilter;
use wsevent::cli::{Config, LogConfig, LogFormat};
use wsevent::reason;

/// Small objects that live as long as their connection are what a process with many subscribers consists of; this
/// allocator packs them by size, and its pages are given back when connections go.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let config = Config::from_process();
    let log_writer = start_logging(&config.log);
    raise_file_limit();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()),
    };
    let result = runtime.block_on(wsevent::run(config.role));
    // Not waiting for what might hang, such as a name look-up in a thread of its own.
    runtime.shutdown_background();
    // Writes what is still to be written.
    drop(log_writer);
    match result {
        Ok(status) => status,
        Err(error) => fail(&error),
    }
}

/// Each subscriber is an open file, and the limit that shells start with is made for programs that have few.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    // Nobody may be reading it.
    let _ = writeln!(io::stderr(), "wsevent: {}", reason::of(error));
    ExitCode::FAILURE
}

fn start_logging(config: &LogConfig) -> WorkerGuard {
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

/// Without the lines in which the library of NATS tells each event and error of a connection, which we tell in our own words; unless it is
/// asked for them by name.
fn filter(wanted: &str) -> String {
    match wanted.contains("async_nats") {
        true => wanted.to_owned(),
        false => format!("async_nats=off,{wanted}"),
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
