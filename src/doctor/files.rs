//! How many files may be open: each connection is one.

use std::fs;

use rustix::process::{Resource, getrlimit};

use super::Finding;
use crate::listen::admission::OTHER_FILES;

const AREA: &str = "files";
/// Fewer connections than these are soon used up.
const FEW: u64 = 4_096;

/// What there is to say here. `soft` is the limit that a process begins with, `connections` is `--max-connections`.
pub fn look(soft: Option<u64>, connections: Option<usize>) -> Vec<Finding> {
    let limit = getrlimit(Resource::Nofile);
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse().ok();
    judge(
        &Limits {
            soft,
            hard: limit.maximum,
            per_process: number("/proc/sys/fs/nr_open"),
            in_all: number("/proc/sys/fs/file-max"),
        },
        connections.map(|connections| connections as u64),
    )
}

/// What the system allows; none where there is no limit, or where it does not say.
pub struct Limits {
    /// What a process begins with.
    pub soft: Option<u64>,
    /// What it may raise that to, which a hop does.
    pub hard: Option<u64>,
    /// `fs.nr_open`: what the hard limit can be raised to.
    pub per_process: Option<u64>,
    /// `fs.file-max`: all processes together.
    pub in_all: Option<u64>,
}

/// Whether so many connections fit.
pub fn judge(limits: &Limits, connections: Option<u64>) -> Vec<Finding> {
    let mut findings = vec![];
    let hard = limits.hard.unwrap_or(u64::MAX);
    let others = OTHER_FILES as u64;
    let most = hard.saturating_sub(others.min(hard / 2));
    let shown =
        |limit: Option<u64>| limit.map_or("unlimited".to_owned(), |limit| limit.to_string());
    let limit = format!(
        "the limit is {} (soft), {} (hard), which a hop raises itself to",
        shown(limits.soft),
        shown(limits.hard)
    );
    let raise = |needed: u64| {
        let needed = needed.saturating_add(others);
        format!(
            "ulimit -Hn {needed} as root, LimitNOFILE={needed} in a systemd unit, or docker run --ulimit nofile={needed}"
        )
    };
    findings.push(match connections {
        Some(wanted) if wanted > most => Finding::problem(
            AREA,
            format!(
                "--max-connections {wanted} needs {} open files; {limit}",
                wanted.saturating_add(others)
            ),
            raise(wanted),
        ),
        Some(wanted) => Finding::ok(AREA, format!("--max-connections {wanted} fits: {limit}")),
        None if most < FEW => Finding::warning(
            AREA,
            format!("room for {most} connections: {limit}"),
            raise(FEW),
        ),
        None => Finding::ok(
            AREA,
            format!(
                "room for {} connections: {limit}",
                shown(limits.hard.map(|_| most))
            ),
        ),
    });
    let wanted = connections.unwrap_or(most).saturating_add(others);
    if let Some(per_process) = limits
        .per_process
        .filter(|most| *most < wanted && connections.is_some())
    {
        findings.push(Finding::problem(
            AREA,
            format!("fs.nr_open is {per_process}, and no limit can be above it"),
            format!("sysctl -w fs.nr_open={wanted}"),
        ));
    }
    if let Some(in_all) = limits
        .in_all
        .filter(|most| *most < wanted && connections.is_some())
    {
        findings.push(Finding::problem(
            AREA,
            format!("fs.file-max is {in_all} for all processes together"),
            format!("sysctl -w fs.file-max={}", wanted.saturating_mul(2)),
        ));
    }
    findings
}
