//! The names that a file may have: those of the flags, whatever flags there are.

use clap::{Arg, ArgAction, Args as _, Command, CommandFactory};

use crate::cli::args::Args;
use crate::cli::route::RouteArgs;

/// What has no place in a file: the file itself, and what says an address and a path in one.
const NEVER: [&str; 2] = ["config", "serve"];
/// The name of the tables that describe routes.
pub const ROUTE: &str = "route";
/// What is sent to an upstream and expected of it, in order, and the flags that the steps are.
pub const LOGIN: &str = "consume-login";
const STEPS: [(&str, &str); 2] = [("send", "consume-message"), ("expect", "consume-expect")];

/// A flag of a hop.
pub struct Flag {
    /// Its name, without dashes.
    pub name: String,
    /// What clap knows it by.
    pub id: String,
    /// Whether it says something about a route, or else about the process.
    pub is_of_route: bool,
    /// Whether it has no value: it is there or not.
    pub is_switch: bool,
    /// Whether it may stand there several times.
    pub is_list: bool,
    /// Whether its value may be a secret.
    pub is_secret: bool,
}

/// The flags of a hop, in the order of their definition.
pub struct Flags(Vec<Flag>);

impl Flags {
    /// Those that may stand in a file.
    pub fn of_a_file() -> Self {
        let routes = RouteArgs::augment_args(Command::new("route"));
        let is_of_route = |arg: &Arg| {
            routes
                .get_arguments()
                .any(|own| own.get_id() == arg.get_id())
        };
        let command = Args::command();
        let flags = command.get_arguments().filter_map(|arg| {
            let name = arg.get_long().filter(|name| !NEVER.contains(name))?;
            Some(Flag {
                name: name.to_owned(),
                id: arg.get_id().to_string(),
                is_of_route: is_of_route(arg),
                is_switch: !arg.get_action().takes_values(),
                is_list: matches!(arg.get_action(), ArgAction::Append),
                is_secret: arg.is_hide_env_values_set(),
            })
        });
        Self(flags.collect())
    }

    /// All of them.
    pub fn all(&self) -> &[Flag] {
        &self.0
    }

    /// Where a flag stands in [`all`](Self::all).
    pub fn position(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|flag| flag.name == name)
    }

    /// The step of a login with this name: where its flag stands.
    pub fn step(&self, name: &str) -> Option<usize> {
        let (_, flag) = STEPS.iter().find(|(step, _)| *step == name)?;
        self.position(flag)
    }

    /// The steps that there are: their names, and where their flags stand.
    pub fn steps(&self) -> Vec<(&'static str, usize)> {
        let steps = STEPS.iter();
        steps
            .filter_map(|&(step, flag)| Some((step, self.position(flag)?)))
            .collect()
    }

    /// What a wrong name may have been meant to be. `in_route` says where it stands.
    pub fn nearest(&self, wrong: &str, in_route: bool) -> Option<&str> {
        /// As for clap's own suggestions.
        const NEAR: f64 = 0.7;
        let flags = self.0.iter().filter(|flag| !in_route || flag.is_of_route);
        let names = flags.map(|flag| flag.name.as_str());
        let login = (!self.steps().is_empty()).then_some(LOGIN);
        let route = (!in_route).then_some(ROUTE);
        let names = names.chain(login).chain(route);
        names
            .map(|name| (strsim::jaro(name, wrong), name))
            .filter(|(near, _)| *near > NEAR)
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, name)| name)
    }

    /// A text about flags, about names in a file: without dashes.
    pub fn as_names(&self, text: &str) -> String {
        let mut named = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find("--") {
            let (before, flag) = rest.split_at(at);
            let name = &flag[2..];
            let name = &name[..word_len(name)];
            named.push_str(before);
            if self.position(name).is_none() {
                named.push_str("--");
            }
            named.push_str(name);
            rest = &flag[2 + name.len()..];
        }
        named + rest
    }

    /// Where in a text this flag is named.
    pub fn named_at(&self, text: &str, flag: usize) -> Option<usize> {
        let flag = format!("--{}", self.0[flag].name);
        let mut found = text.match_indices(&flag);
        found
            .find(|(at, _)| word_len(&text[at + 2..]) == flag.len() - 2)
            .map(|(at, _)| at)
    }
}

/// The length of the flag's name that a text begins with.
fn word_len(text: &str) -> usize {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    end.unwrap_or(text.len())
}
