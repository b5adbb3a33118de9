//! The flags of kept state. They are of a route.

use super::values;
use crate::endpoint::fanout::Overload;
use crate::stream::retained::Retain;
use crate::stream::retained::key::KeySource;

/// What a route keeps of its stream beside the history.
#[derive(Debug, clap::Args)]
pub struct RetainArgs {
    /// Keep the last event of each key, however long ago it was, and give it to each new subscriber first: key for the keys that events have, or a JSON pointer such as /symbol into the payload of those that have none. An empty event deletes its key
    #[arg(
        long,
        env = "WSEVENT_RETAIN",
        value_name = "KEY",
        value_parser = values::key_source,
        help_heading = "Serving"
    )]
    pub retain: Option<KeySource>,

    /// Keep so many bytes of that at most: keys that have not changed for longest go first
    #[arg(long, env = "WSEVENT_RETAIN_MAX", value_name = "BYTES", default_value = "64MiB", value_parser = values::size, help_heading = "Serving")]
    pub retain_max: usize,
}

impl RetainArgs {
    /// What is to be kept, if anything. `is_max_given` says that `--retain-max` stands on the command line.
    pub fn checked(self, overload: Overload, is_max_given: bool) -> Result<Option<Retain>, String> {
        match self.retain {
            Some(key) => Ok(Some(Retain {
                key,
                bytes: self.retain_max,
            })),
            None if overload == Overload::Conflate => Err(
                "--overload conflate gives slow subscribers the newest event of each key: say what keys are with --retain key or --retain /json/pointer".into(),
            ),
            None if is_max_given => {
                Err("--retain-max bounds what is kept, but nothing is: add --retain".into())
            }
            None => Ok(None),
        }
    }
}
