//! `wsevent doctor`: whether a hop with these flags has what it needs here, and what to change.
//!
//! Each part reads what the system says and hands it to a function that does nothing else than judge it, so that tests can say anything.

mod certificate;
mod clock;
mod files;
mod kernel;
mod port;
mod room;
mod upstream;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use futures_util::future::join_all;
use serde::Serialize;

use crate::bus::address::Kind;
use crate::cli::Hop;
use crate::reason;
use crate::source::upstream::Upstream;
use crate::stdout;

/// What to look at.
pub struct Doctor {
    /// The hop that is to run here.
    pub hop: Hop,
    /// Whether it is to be looked at where it serves: not if a URL is all that was said.
    pub is_serving: bool,
    /// Upstreams beside those of the hop.
    pub upstreams: Vec<Upstream>,
    /// The certificate and the key that it shows to clients.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Those whose certificates clients may show.
    pub client_ca: Option<PathBuf>,
    /// What is wrong with the files of tokens and keys, if something is.
    pub access: Option<Result<(), String>>,
    /// How many files a process begins with: this one has raised that meanwhile.
    pub soft_files: Option<u64>,
    /// Print JSON.
    pub json: bool,
}

/// How good what was found is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It could not be looked at.
    Skipped,
    /// It works, but not under all loads, or not for ever.
    Warning,
    /// It does not work.
    Problem,
}

/// Something that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How good it is.
    pub level: Level,
    /// What it is about, in a word.
    pub area: &'static str,
    /// What is.
    pub what: String,
    /// What to change, if something is to be.
    pub advice: Option<String>,
}

impl Finding {
    /// It is as it should be.
    fn ok(area: &'static str, what: impl Into<String>) -> Self {
        Self::new(Level::Ok, area, what, None)
    }

    /// It could not be looked at.
    fn skipped(area: &'static str, what: impl Into<String>) -> Self {
        Self::new(Level::Skipped, area, what, None)
    }

    /// It works, with bounds.
    fn warning(area: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(Level::Warning, area, what, Some(advice.into()))
    }

    /// It does not work.
    fn problem(area: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(Level::Problem, area, what, Some(advice.into()))
    }

    fn new(
        level: Level,
        area: &'static str,
        what: impl Into<String>,
        advice: Option<String>,
    ) -> Self {
        Self {
            level,
            area,
            what: what.into(),
            advice,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Ok => "ok",
            Level::Skipped => "skipped",
            Level::Warning => "warning",
            Level::Problem => "problem",
        };
        write!(f, "{level:8} {:8} {}", self.area, self.what)?;
        match &self.advice {
            Some(advice) => write!(f, ": {advice}"),
            None => Ok(()),
        }
    }
}

/// All findings, for programs.
#[derive(Serialize)]
struct Report<'a> {
    version: &'static str,
    problems: usize,
    warnings: usize,
    findings: &'a [Finding],
}

impl Doctor {
    /// Looks, and prints what there is to say. The exit status says whether there is a problem.
    pub async fn run(self) -> Result<ExitCode> {
        let findings = self.findings().await;
        let count = |level| {
            findings
                .iter()
                .filter(|finding| finding.level == level)
                .count()
        };
        let (problems, warnings) = (count(Level::Problem), count(Level::Warning));
        let text = match self.json {
            true => {
                let report = Report {
                    version: env!("CARGO_PKG_VERSION"),
                    problems,
                    warnings,
                    findings: &findings,
                };
                serde_json::to_string_pretty(&report)? + "\n"
            }
            false => {
                let lines = findings.iter().map(|finding| format!("{finding}\n"));
                format!(
                    "{}{}, {}\n",
                    lines.collect::<String>(),
                    counted(problems, "problem"),
                    counted(warnings, "warning"),
                )
            }
        };
        stdout::print(text.as_bytes())?;
        Ok(match problems {
            0 => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        })
    }

    async fn findings(&self) -> Vec<Finding> {
        let connections = self.hop.limits.entrance.connections;
        let mut findings = files::look(self.soft_files, connections);
        if self.is_serving {
            findings.extend(port::look(&self.hop.address, self.hop.takeover.is_some()).await);
            if let Some(admin) = &self.hop.admin {
                findings.extend(port::look(admin, self.hop.takeover.is_some()).await);
            }
            findings.extend(port::exposure(
                &self.hop.address,
                self.identity.is_some(),
                self.access.is_some() || self.client_ca.is_some(),
            ));
        }
        findings.extend(self.access.as_ref().map(|access| match access {
            Ok(()) => Finding::ok("access", "the files of tokens and keys can be read"),
            Err(reason) => Finding::problem("access", "who may what is unknown", reason.clone()),
        }));
        findings.extend(kernel::look(connections));
        findings.extend(room::look(&self.hop.routes, connections));
        findings.push(clock::look());
        findings.extend(certificate::look(
            self.identity.as_ref(),
            self.client_ca.as_deref(),
        ));
        findings.extend(self.upstreams().await);
        findings
    }

    /// All upstreams at the same time: one that does not answer takes its ten seconds.
    async fn upstreams(&self) -> Vec<Finding> {
        let mut patient = vec![];
        for route in &self.hop.routes {
            let is_template = route.pattern.is_wildcard();
            let upstreams = route
                .upstreams
                .iter()
                .chain(&route.peers.listed)
                .chain(&route.standbys);
            patient.extend(upstreams.map(|upstream| (upstream, is_template)));
        }
        patient.extend(self.upstreams.iter().map(|upstream| (upstream, false)));
        let looking = patient
            .into_iter()
            .map(|(upstream, is_template)| upstream::look(upstream, is_template));
        let buses = self.hop.routes.iter().flat_map(|route| {
            let buses = &route.buses;
            buses
                .consume
                .iter()
                .chain(&buses.forward)
                .chain(&buses.both)
        });
        let are_reached = |kind: &Kind| !matches!(kind, Kind::Lines | Kind::ZeroMq { .. });
        let buses = buses.filter(|bus| are_reached(&bus.address.kind));
        let reaching = buses.map(|bus| upstream::reach(&bus.upstream));
        let (upstreams, buses) = tokio::join!(join_all(looking), join_all(reaching));
        upstreams.into_iter().chain(buses).flatten().collect()
    }
}

/// A number of things.
fn counted(count: usize, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

/// What has failed, in one line.
fn said(error: &io::Error) -> String {
    reason::io_text(error)
}

#[cfg(test)]
mod tests;
