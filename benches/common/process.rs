//! Server processes: started on the server's CPU, measured through /proc with all their descendants, killed when dropped.

use std::fs;
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{
    Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, waitpid,
};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Every child alive, for [`kill_all`].
static CHILDREN: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// Which CPU the servers have, and which the load generator.
#[derive(Clone, Copy)]
pub struct Cpus {
    server: CpuSet,
    load: CpuSet,
    /// False where there is one CPU only and nothing can be kept apart.
    pub pinned: bool,
}

impl Cpus {
    /// The first two CPUs this process may use, one for either side.
    pub fn choose() -> Result<Self> {
        let all = sched_getaffinity(None)?;
        let usable: Vec<usize> = (0..CpuSet::MAX_CPU)
            .filter(|cpu| all.is_set(*cpu))
            .take(2)
            .collect();
        let one = |cpu| {
            let mut set = CpuSet::new();
            set.set(cpu);
            set
        };
        Ok(match usable.as_slice() {
            [server, load] => Self {
                server: one(*server),
                load: one(*load),
                pinned: true,
            },
            _ => Self {
                server: all,
                load: all,
                pinned: false,
            },
        })
    }

    /// For servers of others, which are not to take the time of the one that is measured.
    #[allow(dead_code, reason = "not every bench has such servers")]
    pub fn beside_load(&self) -> Self {
        Self {
            server: self.load,
            ..*self
        }
    }

    /// Puts the calling thread on the servers' CPU.
    pub fn join_server(&self) -> Result<()> {
        Ok(sched_setaffinity(None, &self.server)?)
    }

    /// Puts the calling thread on the load generator's CPU.
    pub fn join_load(&self) -> Result<()> {
        Ok(sched_setaffinity(None, &self.load)?)
    }
}

/// A running server.
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts the command on the servers' CPU: a child inherits the place of the thread that starts it.
    pub fn start(command: &mut Command, cpus: &Cpus) -> Result<Self> {
        cpus.join_server()?;
        let child = command.spawn();
        cpus.join_load()?;
        let child = child.with_context(|| format!("start {}", command.get_program().display()))?;
        children().push(Pid::from_child(&child));
        Ok(Self { child })
    }

    /// The child itself, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// It and all of its descendants, in no order: a server may have workers.
    pub fn tree(&self) -> Vec<u32> {
        descendants(self.child.id())
    }

    /// CPU time of all its threads so far and those of its descendants, in nanoseconds, user and system.
    pub fn cpu_ns(&self) -> Result<u64> {
        self.tree().into_iter().map(cpu_ns).sum()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let pid = Pid::from_child(&self.child);
        let tree = self.tree();
        kill(&tree);
        let _ = self.child.wait();
        wait(&tree[1..]);
        children().retain(|other| *other != pid);
    }
}

/// A process and all of its descendants.
fn descendants(pid: u32) -> Vec<u32> {
    let mut tree = vec![pid];
    let mut at = 0;
    while at < tree.len() {
        let tasks = fs::read_dir(format!("/proc/{}/task", tree[at]));
        for task in tasks.into_iter().flatten().flatten() {
            let line = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            tree.extend(
                line.split_whitespace()
                    .filter_map(|pid| pid.parse::<u32>().ok()),
            );
        }
        at += 1;
    }
    tree
}

/// Kills these, the first one first: nobody starts its workers again.
fn kill(tree: &[u32]) {
    for pid in tree.iter().filter_map(|pid| to_pid(*pid)) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// Waits for their ends, so that nobody else has to: workers are ours when their parent has gone, see [`adopt_workers`].
fn wait(tree: &[u32]) {
    for pid in tree.iter().filter_map(|pid| to_pid(*pid)) {
        let _ = waitpid(Some(pid), WaitOptions::empty());
    }
}

fn to_pid(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

/// Makes this process the parent of workers whose own has gone, so that none stays behind as a zombie.
pub fn adopt_workers() -> Result<()> {
    Ok(set_child_subreaper(Some(getpid()))?)
}

fn cpu_ns(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        match fs::read_to_string(task?.path().join("schedstat")) {
            Ok(line) => {
                sum += line
                    .split_whitespace()
                    .next()
                    .unwrap_or("0")
                    .parse::<u64>()?
            }
            // A kernel without it has /proc/PID/stat, in steps of 10 ms.
            Err(_) => return cpu_ns_by_ticks(pid),
        }
    }
    Ok(sum)
}

fn cpu_ns_by_ticks(pid: u32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(") ").context("/proc/PID/stat")?;
    let ticks = |at: usize| -> Result<u64> {
        Ok(fields
            .split(' ')
            .nth(at)
            .context("/proc/PID/stat")?
            .parse()?)
    };
    Ok((ticks(11)? + ticks(12)?) * 1_000_000_000 / rustix::param::clock_ticks_per_second())
}

/// Kills every child that still runs: for the way out that drops nothing.
pub fn kill_all() {
    for pid in children().drain(..) {
        let tree = descendants(pid.as_raw_nonzero().get().unsigned_abs());
        kill(&tree);
        wait(&tree);
    }
}

/// The part of all CPU time that was used meanwhile: before the bench begins, by others.
pub fn busy(wait: Duration) -> Result<f64> {
    let sample = || -> Result<(u64, u64)> {
        let stat = fs::read_to_string("/proc/stat")?;
        let line = stat.lines().next().context("/proc/stat")?;
        let times = line
            .split_whitespace()
            .skip(1)
            .map(str::parse)
            .collect::<Result<Vec<u64>, _>>()?;
        // The fourth and fifth are idle and waiting for a disk; from the ninth on they are counted before.
        let used = times.iter().take(8).sum::<u64>() - times[3] - times[4];
        Ok((used, times.iter().take(8).sum()))
    };
    let (used, all) = sample()?;
    thread::sleep(wait);
    let (used_then, all_then) = sample()?;
    Ok((used_then - used) as f64 / (all_then - all).max(1) as f64)
}

fn children() -> MutexGuard<'static, Vec<Pid>> {
    CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
}
