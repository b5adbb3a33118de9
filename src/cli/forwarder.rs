//! The flags of `wsevent forwarder`.

use std::time::Duration;

use super::{Usage, values};
use crate::bus::zeromq::forwarder::Config;

const EXAMPLES: &str = "\
Examples:
  wsevent forwarder
      publishers connect to localhost:5559, subscribers to localhost:5560
  wsevent forwarder --in 'zmq+tcp://*:5555' --out 'zmq+tcp://*:5556'
      the same for those on other machines
  wsevent --accept-publish --forward 'zmq+tcp://localhost:5559?topic=news'
  wsevent --consume 'zmq+tcp://localhost:5560?topic=news' --serve localhost:9090/news
      a hop that publishes there, and one that subscribes

Exit status: 0 after SIGINT or SIGTERM, 1 for what fails at run time, 2 for wrong usage.";

/// The flags of `forwarder`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct ForwarderArgs {
    /// Where publishers connect: HOST:PORT or zmq+tcp://HOST:PORT, with * for all addresses of this machine; port 0 takes any free port
    #[arg(
        long = "in",
        id = "in",
        env = "WSEVENT_IN",
        value_name = "ADDRESS",
        default_value = "localhost:5559"
    )]
    pub input: String,

    /// Where subscribers connect, in the same form
    #[arg(
        long = "out",
        id = "out",
        env = "WSEVENT_OUT",
        value_name = "ADDRESS",
        default_value = "localhost:5560"
    )]
    pub output: String,

    /// The largest message to take from anyone
    #[arg(long, env = "WSEVENT_MAX_MESSAGE_SIZE", value_name = "BYTES", default_value = "1MiB", value_parser = values::message_size)]
    pub max_message_size: usize,

    /// Ask those who are silent so often whether they are there; after two intervals without an answer they are given up
    #[arg(long, env = "WSEVENT_PING_INTERVAL", value_name = "DURATION", default_value = "30s", value_parser = values::interval)]
    pub ping_interval: Duration,

    /// When stopping, how long messages may take to get out
    #[arg(long, env = "WSEVENT_DRAIN", value_name = "DURATION", default_value = "5s", value_parser = values::duration)]
    pub drain: Duration,
}

/// What the flags say, if it fits together.
pub fn config(args: ForwarderArgs) -> Usage<Config> {
    let input = address("in", &args.input)?;
    let output = address("out", &args.output)?;
    if input == output && !input.ends_with(":0") {
        return Err(format!(
            "--in and --out are both {input}: publishers and subscribers connect to ports of their own"
        ));
    }
    Ok(Config {
        input,
        output,
        max_message_size: args.max_message_size,
        ping_interval: args.ping_interval,
        drain: args.drain,
    })
}

/// `host:port` to listen on.
fn address(flag: &str, text: &str) -> Usage<String> {
    let schemes = ["zmq+tcp://", "tcp://"];
    let bare = schemes.iter().find_map(|scheme| text.strip_prefix(scheme));
    let bare = bare.unwrap_or(text);
    let bare = bare.strip_suffix('/').unwrap_or(bare);
    let address = match bare.strip_prefix("*:") {
        Some(port) => format!("0.0.0.0:{port}"),
        None => bare.to_owned(),
    };
    match values::check_address(&address) {
        Ok(()) => Ok(address),
        Err(_) => Err(format!(
            "--{flag}: '{text}' is not where to listen: HOST:PORT or zmq+tcp://HOST:PORT is expected, such as localhost:5559 or zmq+tcp://*:5559"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_and_a_port() {
        for (text, expected) in [
            ("localhost:5559", "localhost:5559"),
            ("zmq+tcp://*:5555", "0.0.0.0:5555"),
            ("tcp://[::1]:0/", "[::1]:0"),
            ("*:1", "0.0.0.0:1"),
        ] {
            assert_eq!(address("in", text).as_deref(), Ok(expected), "{text}");
        }
        for text in [
            "",
            "localhost",
            "*",
            "zmq+tcp://*",
            "http://h:1",
            "h:port",
            "h:1/topic",
            ":1",
        ] {
            let error = address("out", text).expect_err(text);
            assert!(
                error.starts_with("--out: ") && error.contains("HOST:PORT"),
                "{error}"
            );
        }
    }
}
