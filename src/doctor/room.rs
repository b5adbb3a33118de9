//! Whether there is memory for what is to be kept, and as much CPU as there are threads.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use super::Finding;
use crate::route::Policy;

/// What a subscriber takes, with what the kernel has for it, in bytes.
const SUBSCRIBER: u64 = 8 << 10;

/// What there is to say here. `connections` is `--max-connections`.
pub fn look(routes: &[Policy], connections: Option<usize>) -> Vec<Finding> {
    let keep: Vec<_> = routes.iter().map(Kept::of).collect();
    let group = Group::read();
    let total = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| total_memory(&text));
    let workers = env::var("TOKIO_WORKER_THREADS")
        .ok()
        .and_then(|count| count.parse().ok());
    let workers = workers.or_else(|| available_parallelism().ok().map(usize::from));
    let mut findings = memory(
        &keep,
        connections.unwrap_or_default() as u64,
        total,
        group.memory,
    );
    findings.extend(workers.map(|workers| cpu(workers, group.cpus)));
    findings
}

/// What a route may keep.
#[derive(Debug, Clone)]
pub struct Kept {
    /// As it is served.
    pub path: String,
    /// What one stream keeps, in bytes: its history and its state.
    pub bytes: u64,
    /// The most streams there can be, where they come and go.
    pub streams: Option<u64>,
}

impl Kept {
    fn of(route: &Policy) -> Self {
        let state = route.retain.as_ref().map_or(0, |retain| retain.bytes);
        Self {
            path: route.pattern.to_string(),
            bytes: route.history.bytes.saturating_add(state) as u64,
            streams: route
                .pattern
                .is_on_demand()
                .then_some(route.max_streams as u64),
        }
    }
}

/// What the control group of this process may use (cgroups(7)).
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Group {
    /// In bytes.
    pub memory: Option<u64>,
    /// CPUs' worth of time.
    pub cpus: Option<f64>,
}

impl Group {
    fn read() -> Self {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let read = |folder: &Path, name: &str| fs::read_to_string(folder.join(name)).ok();
        let folders = folders(&own);
        let memory = folders.iter().filter_map(|folder| {
            let text =
                read(folder, "memory.max").or_else(|| read(folder, "memory.limit_in_bytes"))?;
            // The older version has a number for none that is near the largest.
            text.trim().parse().ok().filter(|bytes| *bytes < 1 << 60)
        });
        let cpus = folders
            .iter()
            .filter_map(|folder| match read(folder, "cpu.max") {
                Some(text) => quota(&text),
                None => {
                    let numbers =
                        ["cpu.cfs_quota_us", "cpu.cfs_period_us"].map(|name| read(folder, name));
                    let [quota, period] = numbers;
                    self::quota(&format!("{} {}", quota?.trim(), period?.trim()))
                }
            });
        Self {
            memory: memory.min(),
            cpus: cpus.min_by(f64::total_cmp),
        }
    }
}

/// Where the control group's settings are, and those of the groups around it, from `/proc/self/cgroup`.
pub fn folders(own: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let mut folders = vec![];
    for line in own.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let base = match controllers {
            "" => root.to_owned(),
            // The older version has a tree for each; others than these say nothing here.
            _ if controllers
                .split(',')
                .any(|name| matches!(name, "memory" | "cpu")) =>
            {
                root.join(controllers)
            }
            _ => continue,
        };
        let within = match path.trim_start_matches('/') {
            // Joined, it would be another spelling of the same.
            "" => base.clone(),
            path => base.join(path),
        };
        let around = within
            .ancestors()
            .take_while(|folder| folder.starts_with(&base));
        folders.extend(around.map(Path::to_owned));
    }
    folders
}

/// `QUOTA PERIOD`, as CPUs; none for `max`, or -1.
pub fn quota(text: &str) -> Option<f64> {
    let mut numbers = text.split_whitespace().map(str::parse::<f64>);
    let (quota, period) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

/// `MemTotal` of `/proc/meminfo`, in bytes.
pub fn total_memory(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib << 10)
}

/// Whether all that may be kept fits into the memory there is.
pub fn memory(
    routes: &[Kept],
    connections: u64,
    total: Option<u64>,
    limit: Option<u64>,
) -> Vec<Finding> {
    const AREA: &str = "memory";
    let Some(there) = [total, limit].into_iter().flatten().min() else {
        return vec![Finding::skipped(
            AREA,
            "how much there is cannot be read here",
        )];
    };
    let whose = match limit.is_some_and(|limit| limit == there) {
        true => "the control group may have",
        false => "the machine has",
    };
    // Once as events, and once more as encoded for the format that is read; each further format takes as much again.
    let of = |route: &Kept, streams: u64| route.bytes.saturating_mul(2).saturating_mul(streams);
    let fixed = routes.iter().filter(|route| route.streams.is_none());
    let always = fixed.fold(connections.saturating_mul(SUBSCRIBER), |sum, route| {
        sum.saturating_add(of(route, 1))
    });
    let needs = format!(
        "history, kept state and connections may take {} once they are full, and {whose} {}",
        shown(always),
        shown(there)
    );
    let mut findings = vec![];
    findings.push(match always {
        _ if always > there => Finding::problem(
            AREA,
            needs,
            "lower --history, --retain-max or --max-connections, or raise MemoryMax=",
        ),
        _ if always > there / 4 * 3 => Finding::warning(
            AREA,
            needs,
            "leave a quarter for all else: lower --history, or raise MemoryMax=",
        ),
        _ => Finding::ok(AREA, needs),
    });
    for route in routes {
        let Some(streams) = route.streams else {
            continue;
        };
        let needed = of(route, streams);
        let left = there.saturating_sub(always);
        if needed > left {
            let fits = left / 4 * 3 / of(route, 1).max(1);
            findings.push(Finding::warning(
                AREA,
                format!("{} may have {streams} streams that take {} together once they are full, and there is room for {}", route.path, shown(needed), shown(left)),
                format!("--max-streams {}, or a smaller --history, there", fits.max(1)),
            ));
        }
    }
    findings
}

/// Whether there is the time that the threads want.
pub fn cpu(workers: usize, cpus: Option<f64>) -> Finding {
    const AREA: &str = "cpu";
    match cpus {
        Some(cpus) if workers as f64 > cpus.ceil() => Finding::warning(
            AREA,
            format!(
                "{workers} worker threads share a quota of {cpus:.2} CPUs: when it is used up, all of them stand still for the rest of a tenth of a second"
            ),
            format!(
                "TOKIO_WORKER_THREADS={:.0} in the environment, or CPUQuota={}% in the unit",
                cpus.ceil(),
                workers * 100
            ),
        ),
        Some(cpus) => Finding::ok(
            AREA,
            format!("{workers} worker threads, and a quota of {cpus:.2} CPUs"),
        ),
        None => Finding::ok(AREA, format!("{workers} worker threads, and no quota")),
    }
}

fn shown(bytes: u64) -> String {
    let units = [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let unit = units.iter().find(|(_, size)| bytes >= *size);
    unit.map_or_else(
        || format!("{bytes} B"),
        |(unit, size)| format!("{:.1} {unit}", bytes as f64 / *size as f64),
    )
}
