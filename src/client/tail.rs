//! `wsevent tail`: prints a stream.

mod output;

use anyhow::Result;

use super::reading::Reading;
pub use super::reading::Transport;
use crate::stdout;
use output::Output;

/// What to print, and how.
pub struct Tail {
    /// What to read.
    pub reading: Reading,
    /// End after so many events.
    pub count: Option<u64>,
    /// Begin each line with the time of arrival.
    pub timestamps: bool,
}

impl Tail {
    /// Prints events until as many as asked for are out, or the output is closed; with `exit_on_close`, or until the
    /// connection ends, which is an error unless the server closed it.
    pub async fn run(self) -> Result<()> {
        let mut output = Output::new(self.timestamps, self.count);
        tokio::select! {
            result = self.reading.run(&mut output) => result,
            () = stdout::closed() => Ok(()),
        }
    }
}
