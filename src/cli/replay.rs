//! The flags of `wsevent replay`, and what the URL of a recording says.

use std::path::PathBuf;

use clap::ArgMatches;
use clap::builder::BoolishValueParser;

use super::args::HopArgs;
use super::{Files, Role, Usage, given};
use crate::bus::address::{Recording, Speed};
use crate::recording::inspect::Inspect;
use crate::recording::reader::{Reader, cannot_open};

const EXAMPLES: &str = "\
Examples:
  wsevent record wss://feed.example/v1 day.rec
  wsevent replay day.rec --speed 10x --serve localhost:9090/feed
      serve it again, ten times as fast; who comes later gets the beginning with ?history=all
  wsevent replay day.rec --keep-ids
      the same events, and not new ones: with the ids that they had
  wsevent replay day.rec --check
      what is in it, and whether it is whole
  wsevent --consume 'file:///var/lib/wsevent/day.rec?speed=10x&loop' --consume ws://localhost:8080/events
      a source like any other

FILE is what wsevent record has written, or lines of NDJSON as a stream's endpoint sends them. When all of it has been replayed, the
hop serves on.";

/// The flags of `replay`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct ReplayArgs {
    /// The recording
    #[arg(value_name = "FILE")]
    pub path: PathBuf,

    /// How fast: 1x keeps the pauses between events, 10x and 0.5x are ten times and half as fast; max is as fast as it goes
    #[arg(
        long,
        env = "WSEVENT_SPEED",
        value_name = "SPEED",
        default_value = "1x"
    )]
    pub speed: Speed,

    /// Begin again at its end, for ever; the events of each round get new ids
    #[arg(long, env = "WSEVENT_LOOP", value_parser = BoolishValueParser::new())]
    pub r#loop: bool,

    /// Leave events the ids and times that they were recorded with, rather than giving them new ones
    #[arg(long, env = "WSEVENT_KEEP_IDS", value_parser = BoolishValueParser::new())]
    pub keep_ids: bool,

    /// Serve nothing, but say what is in the file: events, the first and the last, how long it takes, and where it is damaged; then the exit status is 1
    #[arg(long, env = "WSEVENT_CHECK", value_parser = BoolishValueParser::new())]
    pub check: bool,

    /// What the hop is told
    #[command(flatten)]
    pub hop: HopArgs,
}

/// What the flags say: a hop, or a look at the file.
pub fn role(args: ReplayArgs, matches: &ArgMatches) -> Usage<Role> {
    if args.check {
        return Ok(Role::Inspect(Inspect { path: args.path }));
    }
    if given(matches, "config") == 2 {
        return Err(
            "with --config the sources are in the file: say consume = \"file:///PATH\" there"
                .into(),
        );
    }
    let path = std::path::absolute(&args.path);
    let path = path.map_err(|error| format!("{}: {error}", args.path.display()))?;
    // A source waits for what is not there yet; whoever names a file on the command line means one that is.
    Reader::open(&path, 0).map_err(|error| cannot_open(&path, &error))?;
    let recording = Recording {
        path,
        speed: args.speed,
        repeats: args.r#loop,
        keeps_ids: args.keep_ids,
    };
    recording.check()?;
    let mut hop = args.hop;
    hop.route.replay = Some(recording.url());
    super::hop(hop, matches, None, Files::Read).map(Role::Hop)
}
