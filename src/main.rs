//! The wsevent binary: parse, set up logging, run, turn an error into an exit status.

use std::io::{self, Write};
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use wsevent::cli::Config;
#[cfg(feature = "otel")]
use wsevent::spans::export::Exporter;
use wsevent::{logging, reason};

/// Small objects that live as long as their connection are what a process with many subscribers consists of; this
/// allocator packs them by size, and its pages are given back when connections go.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let config = Config::from_process();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()),
    };
    #[cfg(feature = "otel")]
    let exporter = match Exporter::new(config.collector(), runtime.handle().clone()) {
        Ok(exporter) => exporter,
        Err(error) => return fail(&error),
    };
    #[cfg(not(feature = "otel"))]
    let log_writer = logging::start(&config.log);
    #[cfg(feature = "otel")]
    let log_writer = match &exporter {
        Some(exporter) => logging::start_beside(exporter, &config.log),
        None => logging::start(&config.log),
    };
    raise_file_limit();
    let result = runtime.block_on(wsevent::run(config.role));
    #[cfg(feature = "otel")]
    if let Some(exporter) = exporter {
        exporter.stop();
    }
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
