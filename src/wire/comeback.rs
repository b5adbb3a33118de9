//! When to come back: the end of the reason of a Close frame by which a hop sends a client away that is welcome again, such as
//! `restarting: come back in 1200 ms`. docs/protocol.md describes it.

use std::time::Duration;

const BEFORE: &str = ": come back in ";
const BEHIND: &str = " ms";

/// More than this is not believed.
const LONGEST: Duration = Duration::from_secs(60);

/// A reason that says `why`, and after what pause to come back.
pub fn reason(why: &str, pause: Duration) -> String {
    format!("{why}{BEFORE}{}{BEHIND}", pause.as_millis())
}

/// The pause that a reason ends with, if it does.
pub fn pause(reason: &str) -> Option<Duration> {
    let (_, millis) = reason.strip_suffix(BEHIND)?.rsplit_once(BEFORE)?;
    let is_number = millis.bytes().all(|byte| byte.is_ascii_digit());
    let millis = millis.parse().ok().filter(|_| is_number)?;
    Some(Duration::from_millis(millis).min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        let pause_of = Duration::from_millis(1_200);
        let said = reason("restarting", pause_of);
        assert_eq!(said, "restarting: come back in 1200 ms");
        assert_eq!(pause(&said), Some(pause_of));
        assert_eq!(pause("x: come back in 99999999 ms"), Some(LONGEST));
        for other in [
            "",
            "restarting",
            "come back in 5 ms",
            ": come back in  ms",
            ": come back in +5 ms",
            ": come back in 5 s",
            ": come back in 5 ms or so",
            ": come back in 99999999999999999999999 ms",
        ] {
            assert_eq!(pause(other), None, "{other:?}");
        }
    }
}
