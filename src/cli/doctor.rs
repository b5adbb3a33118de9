//! The flags of `wsevent doctor`.

use clap::ArgMatches;
use clap::builder::BoolishValueParser;
use rustix::process::{Resource, getrlimit};

use super::args::HopArgs;
use super::auth;
use super::connect::{connect, event_url};
use super::{Files, Hop, Usage, given, hop};
use crate::doctor::Doctor;

const EXAMPLES: &str = "\
Examples:
  wsevent doctor --config /etc/wsevent.toml
      whether the hop of that file has what it needs on this machine
  wsevent doctor --serve-address 0.0.0.0:443 --tls-cert cert.pem --tls-key key.pem --max-connections 50000
      the same of one that flags describe
  wsevent doctor wss://feed.example/v1
      whether that upstream can be reached, for how long its certificate holds, and what its clock says

Each finding is one line: ok, skipped (with the reason), warning or problem; what it is about; what is, and what to change. Exit status: 0
without problems, 1 with some, 2 for wrong usage.";

/// The flags of `doctor`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct DoctorArgs {
    /// Upstreams to look at beside those that the hop has
    #[arg(value_name = "URL")]
    pub urls: Vec<String>,

    /// Print all findings as one JSON object
    #[arg(long, env = "WSEVENT_JSON", value_parser = BoolishValueParser::new())]
    pub json: bool,

    /// What the hop is told
    #[command(flatten)]
    pub hop: HopArgs,
}

/// What the flags say. `of_file` is the hop of a file, if there is one.
pub fn doctor(mut args: DoctorArgs, of_file: Option<Hop>, matches: &ArgMatches) -> Usage<Doctor> {
    let says = |flag| given(matches, flag) > 0;
    let is_serving = of_file.is_some()
        || args.urls.is_empty()
        || ["serve", "serve_address", "admin_address"]
            .into_iter()
            .any(says);
    let tls = &args.hop.tls;
    let identity = tls.tls_cert.clone().zip(tls.tls_key.clone());
    let client_ca = tls.tls_client_ca.clone();
    let access = auth::settings(&args.hop.auth, matches)?;
    let access = access.map(|settings| auth::load(settings).map(drop));
    let (hop, upstreams) = match of_file {
        Some(of_file) => {
            let urls = args.urls.iter().map(|url| event_url(url));
            let urls = urls.collect::<Usage<Vec<_>>>()?;
            let connect = connect(&args.hop.route.connect, matches, &urls)?;
            (
                of_file,
                urls.iter().map(|url| connect.upstream(url)).collect(),
            )
        }
        None => {
            args.hop.route.consume.append(&mut args.urls);
            (hop(args.hop, matches, None, Files::LeaveAlone)?, vec![])
        }
    };
    Ok(Doctor {
        hop,
        is_serving,
        upstreams,
        identity,
        client_ca,
        access,
        soft_files: getrlimit(Resource::Nofile).current,
        json: args.json,
    })
}
