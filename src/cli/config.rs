//! `--config`: many routes in one file, with the names of the flags.
//!
//! A route's table becomes a row of flags, and is read as a command line is: so names, values, defaults and errors are the
//! same. What stands at the top of the file is about the process, or holds for each route that does not say otherwise.

mod blame;
mod document;
pub mod flags;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::builder::Resettable;
use clap::{Arg, ArgAction, ArgMatches, Args as _, Command, CommandFactory, FromArgMatches};

use super::args::{Args, HopArgs};
use super::route::RouteArgs;
use super::{Files, Hop, Usage, formatted, given, route, usage, without_empty_variables};
use crate::reason;
use crate::route::Policy;
use crate::route::pattern::Pattern;
use blame::{Row, text_of};
use document::{Document, Table, Word};
use flags::Flags;

/// Where many routes are described. It is of the process.
#[derive(Debug, clap::Args)]
pub struct ConfigArgs {
    /// Serve the routes that this TOML file describes, with the names of these flags (docs/wsevent.toml is an example; wsevent check FILE explains mistakes). Flags of the process may stand there as well, and count if neither flag nor variable says it. SIGHUP reads it again
    #[arg(
        long,
        env = "WSEVENT_CONFIG",
        value_name = "FILE",
        help_heading = "Serving"
    )]
    pub config: Option<PathBuf>,
}

/// The subcommands that have the flags of a hop.
const ABOUT_HOPS: [&str; 2] = ["explain", "doctor"];

/// Names the flags of a route that come from the top of a file: its own outrank them, as flags outrank variables.
const DEFAULTS: &str = "of-the-file";

/// Whether a flag of a route comes from the top of a file.
pub fn is_default(matches: &ArgMatches, id: &str) -> bool {
    let defaults = matches.try_get_many::<String>(DEFAULTS).ok().flatten();
    defaults.is_some_and(|mut defaults| defaults.any(|default| default == id))
}

/// Something that is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// The line, if it is about one; the first is 1.
    pub line: Option<usize>,
    /// What is wrong, and what to do.
    pub reason: String,
}

/// What is wrong, in a file or else on the command line.
#[derive(Debug)]
pub enum Unusable {
    /// All that is wrong with this file.
    File(PathBuf, Vec<Fault>),
    /// A usage error that is none of the file's.
    Usage(clap::Error),
}

impl Unusable {
    /// All that is wrong.
    pub fn faults(self) -> Vec<Fault> {
        match self {
            Self::File(_, faults) => faults,
            Self::Usage(error) => vec![Fault {
                line: None,
                reason: text_of(&error, &Flags::of_a_file()),
            }],
        }
    }
}

impl fmt::Display for Unusable {
    /// `FILE:LINE: reason`, a line each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(error) => error.fmt(f),
            Self::File(path, faults) => faults.iter().try_for_each(|fault| {
                write!(f, "{}:", path.display())?;
                if let Some(line) = fault.line {
                    write!(f, "{line}:")?;
                }
                writeln!(f, " {}", fault.reason)
            }),
        }
    }
}

impl From<clap::Error> for Unusable {
    fn from(error: clap::Error) -> Self {
        Self::Usage(error)
    }
}

/// A configuration file, and the command line that names it.
#[derive(Clone)]
pub struct ConfigFile {
    /// Where it is.
    pub path: PathBuf,
    /// The command line.
    args: Vec<OsString>,
    /// Where in it flags may stand.
    room: usize,
    /// The flags that are said there, or by variables.
    said: Vec<String>,
    /// The variables that are not looked at, because the file says it.
    pub ignored: Vec<String>,
    /// What the file said about the process when it was read: the names of flags, and the words that they are.
    process: Vec<(String, String)>,
    /// What to do about the files that it names.
    files: Files,
}

/// What a file says.
pub struct Loaded {
    /// The hop.
    pub hop: Hop,
    /// The command line, with what the file says about the process.
    pub matches: ArgMatches,
}

impl ConfigFile {
    /// The file that a hop's command line names, or its environment. An error if the command line says something that belongs
    /// into the file.
    pub fn named(args: Vec<OsString>) -> Usage<Option<Self>> {
        // What is missing on the command line may be in the file.
        let command = without_empty_variables(Args::command()).ignore_errors(true);
        let Ok(matches) = command.try_get_matches_from(&args) else {
            return Ok(None);
        };
        let mut files = Files::Read;
        let (hop, room) = match matches.subcommand() {
            None => (&matches, 1),
            Some((name, own)) if ABOUT_HOPS.contains(&name) => {
                let is_it = |arg: &OsString| arg == name;
                let at = args.iter().position(is_it).expect("it was found");
                // What is wrong with them is a finding of its own.
                if name == "doctor" {
                    files = Files::LeaveAlone;
                }
                (own, at + 1)
            }
            Some(_) => return Ok(None),
        };
        let Some(path) = hop.get_one::<PathBuf>("config") else {
            return Ok(None);
        };
        let (mut said, mut ignored) = (vec![], vec![]);
        for arg in Args::command().get_arguments() {
            let id = arg.get_id().as_str();
            match (given(hop, id), is_of_the_file(id)) {
                (2, true) => {
                    let flag = arg.get_long().unwrap_or_default();
                    return Err(match flag {
                        "serve" => "--serve says a path as well, and with --config paths are in the file: say --serve-address".to_owned(),
                        _ => format!("--{flag} is about a route, and with --config these are in the file: say it there"),
                    });
                }
                (1, true) => {
                    let variable = arg.get_env().unwrap_or_default();
                    ignored.push(variable.to_string_lossy().into_owned());
                }
                (1.., false) => said.push(id.to_owned()),
                _ => {}
            }
        }
        Ok(Some(Self {
            path: path.clone(),
            args,
            room,
            said,
            ignored,
            process: vec![],
            files,
        }))
    }

    /// The file at a path, with no flags beside it.
    pub fn at(path: &Path) -> Usage<Self> {
        let mut flag = OsString::from("--config=");
        flag.push(path);
        let named = Self::named(vec!["wsevent".into(), flag])?;
        Ok(named.expect("it is named"))
    }

    /// The same, for a process that has read the files it names, and sees to them by itself: what it says is read, and not what
    /// they say.
    pub fn left_alone(self) -> Self {
        Self {
            files: Files::LeaveAlone,
            ..self
        }
    }

    /// Reads it.
    pub fn load(&self) -> Result<Loaded, Unusable> {
        match self.text() {
            Ok(text) => self.read(&text),
            Err(fault) => Err(Unusable::File(self.path.clone(), vec![fault])),
        }
    }

    /// The same, where `text` is what is in it.
    pub fn read(&self, text: &str) -> Result<Loaded, Unusable> {
        let flags = Flags::of_a_file();
        let mut faults = vec![];
        let document = Document::read(text, &flags, &mut faults);
        let (routes, lines): (Vec<_>, Vec<_>) =
            routes(&document, &flags, &mut faults).into_iter().unzip();
        let loaded = self.process(&document, &flags, routes);
        if let Ok(Ok(loaded)) = &loaded {
            faults.extend(circles(&loaded.hop, &lines));
        }
        match loaded {
            Ok(Ok(loaded)) if faults.is_empty() => Ok(loaded),
            Ok(Err(usage)) if faults.is_empty() => Err(Unusable::Usage(usage)),
            loaded => {
                faults.extend(loaded.err().unwrap_or_default());
                // What stands at the top may be wrong for several routes.
                faults.sort();
                faults.dedup();
                Err(Unusable::File(self.path.clone(), faults))
            }
        }
    }

    fn text(&self) -> Result<String, Fault> {
        let fault = |line, reason| Fault { line, reason };
        let bytes = fs::read(&self.path)
            .map_err(|error| fault(None, format!("cannot read it: {}", reason::io_text(&error))))?;
        String::from_utf8(bytes).map_err(|error| {
            let valid = error.utf8_error().valid_up_to();
            let before = &error.as_bytes()[..valid];
            let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
            fault(Some(line), "this is no text in UTF-8".to_owned())
        })
    }

    /// The process, with the file's flags where the command line and the variables say nothing. The inner error is a usage
    /// error that is not the file's.
    fn process(
        &self,
        document: &Document,
        flags: &Flags,
        routes: Vec<Policy>,
    ) -> Result<Result<Loaded, clap::Error>, Vec<Fault>> {
        let words: Vec<Word> = document
            .top
            .iter()
            .flat_map(|entry| &entry.words)
            .filter(|word| {
                let flag = &flags.all()[word.flag];
                !flag.is_of_route && !self.said.contains(&flag.id)
            })
            .cloned()
            .collect();
        let attempt = |words: &[Word]| {
            let process = words.iter().map(|word| {
                let name = flags.all()[word.flag].name.clone();
                (name, word.text(flags))
            });
            self.hop(process.collect(), routes.clone())
        };
        if let (Err(with), Err(without)) = (attempt(&words), attempt(&[]))
            && text_of(&with, flags) == text_of(&without, flags)
        {
            return Ok(Err(with));
        }
        let row = Row {
            flags,
            words,
            line: None,
            is_whole: document.is_whole,
        };
        row.read(attempt).map(Ok)
    }

    fn hop(
        &self,
        process: Vec<(String, String)>,
        routes: Vec<Policy>,
    ) -> Result<Loaded, clap::Error> {
        let mut args = self.args.clone();
        let words = process.iter().map(|(_, word)| word.into());
        args.splice(self.room..self.room, words);
        let mut command = command();
        let matches = command.try_get_matches_from_mut(args)?;
        let own = match matches.subcommand() {
            Some((_, own)) => own,
            None => &matches,
        };
        let hop = super::hop(
            HopArgs::from_arg_matches(own)?,
            own,
            Some(routes),
            self.files,
        );
        let hop = hop.map_err(|text| formatted(usage(text), &mut command, &matches))?;
        let file = Self {
            process,
            ..self.clone()
        };
        Ok(Loaded {
            hop: Hop {
                file: Some(file),
                ..hop
            },
            matches,
        })
    }

    /// Whether these routes fit a process that was started with what this file said then.
    pub fn suits(&self, routes: &[Policy]) -> Result<(), String> {
        let hop = self.hop(self.process.clone(), routes.to_vec());
        hop.map(drop)
            .map_err(|error| text_of(&error, &Flags::of_a_file()))
    }

    /// The flags of the process about which this file says something else than that one.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let said = |file: &Self, name: &str| -> Vec<String> {
            let said = file.process.iter().filter(|(flag, _)| flag == name);
            said.map(|(_, text)| text.clone()).collect()
        };
        let mut names: Vec<_> = self.process.iter().chain(&other.process).collect();
        names.sort();
        let mut names: Vec<_> = names.into_iter().map(|(name, _)| name.clone()).collect();
        names.dedup();
        names.retain(|name| said(self, name) != said(other, name));
        names
    }
}

/// Whether a flag cannot stand beside a file: its routes are described there.
fn is_of_the_file(id: &str) -> bool {
    let routes = RouteArgs::augment_args(Command::new("route"));
    id == "serve" || routes.get_arguments().any(|arg| arg.get_id() == id)
}

/// The command line, where there is a file: what that says is not looked for in the environment.
fn command() -> Command {
    fn without(command: Command) -> Command {
        let command = command.mut_args(|arg| match is_of_the_file(arg.get_id().as_str()) {
            true => arg.env(Resettable::Reset),
            false => arg,
        });
        ABOUT_HOPS.iter().fold(command, |command, name| {
            match command.find_subcommand(name) {
                Some(_) => command.mut_subcommand(name, without),
                None => command,
            }
        })
    }
    without(without_empty_variables(Args::command()))
}

/// A route as a command line, without an environment.
fn route_command() -> Command {
    let command = RouteArgs::augment_args(Command::new("route"));
    let defaults = Arg::new(DEFAULTS).long(DEFAULTS).action(ArgAction::Append);
    command
        .disable_help_flag(true)
        .mut_args(|arg| arg.env(Resettable::Reset))
        .arg(defaults)
}

/// The flags of a route as it was configured, with their defaults.
pub fn route_matches(policy: &Policy) -> Result<ArgMatches, clap::Error> {
    let words = policy.words.iter().map(String::as_str);
    route_command().try_get_matches_from(["route"].into_iter().chain(words))
}

/// All routes, and the lines they begin in.
fn routes(document: &Document, flags: &Flags, faults: &mut Vec<Fault>) -> Vec<(Policy, usize)> {
    let mut routes: Vec<(Policy, usize)> = vec![];
    if document.routes.is_empty() && document.is_whole {
        faults.push(Fault {
            line: None,
            reason: "nothing is served: there is no [[route]] with a serve-path".to_owned(),
        });
    }
    let path = flags.position("serve-path");
    let mut lines = BTreeMap::new();
    for table in &document.routes {
        let at = table
            .entries
            .iter()
            .find(|entry| Some(entry.flags[0]) == path);
        if at.is_none() {
            faults.push(Fault {
                line: Some(table.line),
                reason: "this route has no serve-path, such as serve-path = \"/events\"".to_owned(),
            });
        }
        let row = Row {
            flags,
            words: words(document, table, flags),
            line: Some(table.line),
            is_whole: table.is_whole && document.has_whole_defaults && at.is_some(),
        };
        let policy = row.read(|words| policy(words, flags));
        let policy = policy.map_err(|found| faults.extend(found)).ok();
        let Some(entry) = at else { continue };
        let path = entry.words.first().and_then(|word| word.value.as_deref());
        let Ok(pattern) = Pattern::new(path.unwrap_or_default(), vec![]) else {
            continue;
        };
        let text = pattern.to_string();
        let line = entry.line;
        match lines.get(&text) {
            Some(other) => faults.push(Fault {
                line: Some(line),
                reason: format!("there is a route for {text} already, in line {other}"),
            }),
            None => drop(lines.insert(text, line)),
        }
        routes.extend(policy.map(|policy| (policy, line)));
    }
    routes
}

/// What a table says, and what the top of the file says where it does not.
fn words(document: &Document, table: &Table, flags: &Flags) -> Vec<Word> {
    let is_said = |flags: &[usize]| {
        let mut own = table.entries.iter().flat_map(|entry| &entry.flags);
        own.any(|flag| flags.contains(flag))
    };
    let defaults = document
        .top
        .iter()
        .filter(|entry| flags.all()[entry.flags[0]].is_of_route && !is_said(&entry.flags));
    let defaults = defaults.cloned().map(|mut entry| {
        entry
            .words
            .iter_mut()
            .for_each(|word| word.is_default = true);
        entry
    });
    let mut entries: Vec<_> = defaults.chain(table.entries.iter().cloned()).collect();
    entries.sort_by_key(|entry| entry.flags[0]);
    entries.into_iter().flat_map(|entry| entry.words).collect()
}

fn policy(words: &[Word], flags: &Flags) -> Result<Policy, clap::Error> {
    let texts: Vec<_> = words.iter().map(|word| word.text(flags)).collect();
    let defaults = words.iter().filter(|word| word.is_default);
    let defaults = defaults.map(|word| format!("--{DEFAULTS}={}", flags.all()[word.flag].id));
    let name = std::iter::once("route".to_owned());
    let row = name.chain(texts.iter().cloned()).chain(defaults);
    let matches = route_command().try_get_matches_from(row)?;
    let args = RouteArgs::from_arg_matches(&matches)?;
    let path = args.serve_path.clone();
    let policy = route::policy(args, &path, &matches).map_err(usage)?;
    Ok(Policy {
        words: texts,
        ..policy
    })
}

/// The routes that consume what the hop itself serves, as far as that can be seen without asking anybody for names.
fn circles(hop: &Hop, lines: &[usize]) -> Vec<Fault> {
    let Some((host, port)) = hop.address.rsplit_once(':') else {
        return vec![];
    };
    let ips: Vec<IpAddr> = match host.trim_matches(['[', ']']).parse() {
        Ok(ip) => vec![ip],
        Err(_) if host == "localhost" => {
            vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
        }
        Err(_) => vec![],
    };
    let port: u16 = port.parse().unwrap_or_default();
    // Which port 0 will be is not known.
    let ips = ips.into_iter().filter(|_| port != 0);
    let addresses: Vec<_> = ips.map(|ip| SocketAddr::new(ip, port)).collect();
    let routes = hop.routes.iter().zip(lines);
    let circles = routes.filter_map(|(policy, line)| {
        let circle = policy.clone().at(&hop.address, &addresses).err()?;
        Some(Fault {
            line: Some(*line),
            reason: reason::of(&circle),
        })
    });
    circles.collect()
}

#[cfg(test)]
mod tests;
