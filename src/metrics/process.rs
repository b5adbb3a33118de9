//! What the system says of this process, under the names that all exporters use. Where there is no `/proc` (proc(5)), there is less of it.

use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// This process.
#[derive(Debug, Clone, Copy)]
pub struct Process {
    /// When it was started, in seconds since the Unix epoch.
    pub start_seconds: Option<f64>,
}

impl Process {
    /// The one that this is.
    pub fn new() -> Self {
        Self {
            start_seconds: start_seconds(),
        }
    }

    /// The CPU time of all its threads, user and system.
    pub fn cpu_seconds(&self) -> f64 {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
    }

    /// How many files are open.
    pub fn open_files(&self) -> Option<u64> {
        let files = fs::read_dir("/proc/self/fd").ok()?.count();
        // One of them is the folder itself.
        Some(files.saturating_sub(1) as u64)
    }

    /// How many may be; none if that is not limited.
    pub fn max_files(&self) -> Option<u64> {
        getrlimit(Resource::Nofile).current
    }

    /// How many threads it has.
    pub fn threads(&self) -> Option<u64> {
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let mut lines = status.lines();
        let threads = lines.find_map(|line| line.strip_prefix("Threads:"))?;
        threads.trim().parse().ok()
    }

    /// In bytes.
    pub fn resident_memory(&self) -> Option<u64> {
        memory(1)
    }

    /// In bytes.
    pub fn virtual_memory(&self) -> Option<u64> {
        memory(0)
    }
}

/// A number of pages in `statm`, as bytes.
fn memory(at: usize) -> Option<u64> {
    let sizes = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = sizes.split_whitespace().nth(at)?.parse().ok()?;
    Some(pages * page_size() as u64)
}

fn start_seconds() -> Option<f64> {
    let own = fs::read_to_string("/proc/self/stat").ok()?;
    let system = fs::read_to_string("/proc/stat").ok()?;
    // The name of the program, in brackets, may be anything.
    let (_, fields) = own.rsplit_once(") ")?;
    let ticks: u64 = fields.split(' ').nth(19)?.parse().ok()?;
    let mut lines = system.lines();
    let boot = lines.find_map(|line| line.strip_prefix("btime "))?;
    let boot: u64 = boot.trim().parse().ok()?;
    Some(boot as f64 + ticks as f64 / clock_ticks_per_second() as f64)
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn this_process_has_used_something() {
        let process = Process::new();
        assert!(process.cpu_seconds() > 0.0);
        let resident = process.resident_memory().expect("there is /proc");
        assert!((1 << 20..1 << 36).contains(&resident), "{resident}");
        assert!(process.virtual_memory() >= Some(resident));
        let before = process.open_files().expect("there is /proc");
        assert!(before >= 3 && process.max_files().is_none_or(|most| before <= most));
        assert!(process.threads() >= Some(1));
        let start = process.start_seconds.expect("there is /proc");
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let age = now.unwrap_or(Duration::ZERO).as_secs_f64() - start;
        assert!((-2.0..86_400.0).contains(&age), "{age}");
    }
}
