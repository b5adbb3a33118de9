//! Whether the clock is right: times of events, tokens and certificates are by it.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Finding;

const AREA: &str = "clock";
/// This program is not as old as that, in seconds since 1970.
const NOT_BEFORE: u64 = 1_764_547_200;
/// A difference that matters to nobody.
const SMALL: Duration = Duration::from_secs(2);

/// What there is to say here.
pub fn look() -> Finding {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    // What systemd-timesyncd touches when it has set the clock.
    let is_set = Path::new("/run/systemd/timesync/synchronized").exists();
    judge(now, is_set)
}

/// Whether it can be right.
pub fn judge(now: Duration, is_set: bool) -> Finding {
    if now.as_secs() < NOT_BEFORE {
        let time = humantime::format_rfc3339_seconds(UNIX_EPOCH + now);
        return Finding::problem(
            AREA,
            format!("it says {time}, and no certificate holds then"),
            "set it: timedatectl set-ntp true, or chronyd -q",
        );
    }
    match is_set {
        true => Finding::ok(AREA, "systemd-timesyncd has set it"),
        // The kernel would tell by adjtimex(2), for which there is no safe call here.
        false => Finding::skipped(
            AREA,
            "whether it is synchronised is not known here: timedatectl, or chronyc tracking, says so",
        ),
    }
}

/// What the clock of a server is beside ours, from a time in whole seconds that it has given between two moments here.
pub fn skew(name: &str, theirs: SystemTime, asked: SystemTime, answered: SystemTime) -> Finding {
    let middle = asked + answered.duration_since(asked).unwrap_or_default() / 2;
    // On average it is half a second more.
    let theirs = theirs + Duration::from_millis(500);
    let (difference, way) = match theirs.duration_since(middle) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(error) => (error.duration(), "behind"),
    };
    let slack = SMALL + answered.duration_since(asked).unwrap_or_default() / 2;
    match difference > slack {
        true => Finding::warning(
            AREA,
            format!(
                "the clock of {name} is {:.0} s {way} this one",
                difference.as_secs_f64()
            ),
            "let both be synchronised (timedatectl set-ntp true), or ages and latencies are wrong by as much",
        ),
        false => Finding::ok(
            AREA,
            format!("the clock of {name} is this one's, as far as its Date shows"),
        ),
    }
}
