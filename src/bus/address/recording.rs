//! What the URL of a recording says.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, percent_encode};
use url::form_urlencoded;

/// What is escaped in the path of a URL.
const IN_PATH: &AsciiSet = &CONTROLS.add(b' ').add(b'?').add(b'#').add(b'%').add(b'"');

/// How fast a recording is replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speed {
    /// So many thousandths of how fast it was.
    Thousandths(u64),
    /// As fast as it goes.
    Max,
}

impl Speed {
    /// As it was.
    pub const ORIGINAL: Self = Self::Thousandths(1_000);
    const MOST: u64 = 1_000_000_000;

    /// How long what took so many microseconds takes.
    pub fn of(self, micros: u64) -> Duration {
        match self {
            Self::Max => Duration::ZERO,
            Self::Thousandths(speed) => {
                let micros = u128::from(micros) * 1_000 / u128::from(speed);
                Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
            }
        }
    }
}

impl FromStr for Speed {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "1x, 10x, 0.5x (0.001x to 1000000x) or max is expected";
        if text == "max" {
            return Ok(Self::Max);
        }
        let number = text.strip_suffix(['x', 'X']).unwrap_or(text);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let is_plain = |part: &str| !part.is_empty() && part.bytes().all(|it| it.is_ascii_digit());
        if !is_plain(whole) || !is_plain(fraction) || fraction.len() > 3 {
            return Err(EXPECTED);
        }
        let thousandths = format!("{whole}{fraction:0<3}").parse();
        match thousandths {
            Ok(speed @ 1..=Self::MOST) => Ok(Self::Thousandths(speed)),
            _ => Err(EXPECTED),
        }
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Max => f.write_str("max"),
            Self::Thousandths(speed) => {
                let (whole, fraction) = (speed / 1_000, speed % 1_000);
                let fraction = format!(".{fraction:03}");
                let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
                write!(f, "{whole}{fraction}x")
            }
        }
    }
}

/// A recording as a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    /// The file.
    pub path: PathBuf,
    /// How fast.
    pub speed: Speed,
    /// Whether it begins again at its end.
    pub repeats: bool,
    /// Whether events have the ids that they were recorded with.
    pub keeps_ids: bool,
}

/// What stands behind the scheme, if the text is the URL of a recording. `file:PATH` and `file://PATH` without a slash before it are
/// of the folder that the process is in.
pub fn rest(text: &str) -> Option<&str> {
    let scheme = text.get(..5)?;
    let rest = &text[5..];
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    scheme.eq_ignore_ascii_case("file:").then_some(rest)
}

impl Recording {
    /// Reads what stands behind the scheme.
    pub fn parse(rest: &str) -> Result<Self, String> {
        const EXPECTED: &str = "file:///PATH is expected";
        let rest = rest.split('#').next().unwrap_or_default();
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = path
            .strip_prefix("localhost")
            .filter(|it| it.starts_with('/'))
            .unwrap_or(path);
        let path = percent_decode_str(path).decode_utf8();
        let path = path.map_err(|_| format!("its path is not UTF-8: {EXPECTED}"))?;
        if path.is_empty() || path.ends_with('/') || path.contains('\0') {
            return Err(format!("it names no file: {EXPECTED}"));
        }
        let path = std::path::absolute(&*path);
        let mut recording = Self {
            path: path.map_err(|error| format!("its path cannot be used ({error}): {EXPECTED}"))?,
            speed: Speed::ORIGINAL,
            repeats: false,
            keeps_ids: false,
        };
        let mut seen = Vec::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "speed" => {
                    recording.speed = value.parse().map_err(|why| format!("speed=: {why}"))?
                }
                "loop" => recording.repeats = flag("loop", &value)?,
                "keep-ids" => recording.keeps_ids = flag("keep-ids", &value)?,
                _ => {
                    return Err(format!(
                        "'{name}=' is not known there: speed=, loop, keep-ids are"
                    ));
                }
            }
            if seen.contains(&name) {
                return Err(format!("{name} stands there twice"));
            }
            seen.push(name);
        }
        recording.check()?;
        Ok(recording)
    }

    /// Whether it fits together.
    pub fn check(&self) -> Result<(), String> {
        match self.repeats && self.keeps_ids {
            true => Err("loop and keep-ids exclude each other: in the second round all ids would be known, and nothing would come".to_owned()),
            false => Ok(()),
        }
    }

    /// The same as a URL.
    pub fn url(&self) -> String {
        let path = self.path.as_os_str().as_encoded_bytes();
        let path = percent_encode(path, IN_PATH);
        format!("file://{path}{}", self.query())
    }

    fn query(&self) -> String {
        let speed = (self.speed != Speed::ORIGINAL).then(|| format!("speed={}", self.speed));
        let flags = [(self.repeats, "loop"), (self.keeps_ids, "keep-ids")];
        let flags = flags.into_iter().filter(|(is_set, _)| *is_set);
        let words = speed
            .into_iter()
            .chain(flags.map(|(_, flag)| flag.to_owned()));
        let words: Vec<_> = words.collect();
        match words.is_empty() {
            true => String::new(),
            false => format!("?{}", words.join("&")),
        }
    }
}

/// As it may be shown to anyone: where it is on this machine is nobody's business.
impl fmt::Display for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.path.file_name().unwrap_or_default();
        let name = percent_encode(name.as_encoded_bytes(), IN_PATH);
        write!(f, "file:{name}{}", self.query())
    }
}

fn flag(name: &str, value: &str) -> Result<bool, String> {
    match value {
        "" | "1" | "yes" | "true" => Ok(true),
        "0" | "no" | "false" => Ok(false),
        _ => Err(format!("{name} is yes or no")),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn speeds_are_read_as_they_are_written() {
        for (text, shown) in [
            ("1x", "1x"),
            ("10x", "10x"),
            ("0.5x", "0.5x"),
            ("2.25", "2.25x"),
            ("0.001X", "0.001x"),
            ("max", "max"),
        ] {
            let speed: Speed = text.parse().expect(text);
            assert_eq!(speed.to_string(), shown);
            assert_eq!(shown.parse(), Ok(speed));
        }
        for wrong in [
            "", "x", "0", "0x", "0.0001x", "-1x", "1e3x", ".5x", "1.x", "fast", "9999999x", "+1x",
        ] {
            assert!(wrong.parse::<Speed>().is_err(), "{wrong}");
        }
        assert_eq!(
            "0.5x".parse::<Speed>().map(|speed| speed.of(1_000)),
            Ok(Duration::from_millis(2))
        );
        assert_eq!(
            Speed::Thousandths(1).of(u64::MAX),
            Duration::from_micros(u64::MAX)
        );
    }

    #[test]
    fn a_url_says_where_and_how() {
        let parse = |text: &str| Recording::parse(rest(text).expect("a file"));
        let plain = parse("file:///var/lib/a%20b.rec").expect("a recording");
        assert_eq!(plain.path, Path::new("/var/lib/a b.rec"));
        assert_eq!(plain.to_string(), "file:a%20b.rec");
        assert_eq!(parse(&plain.url()), Ok(plain));
        let all = parse("FILE://localhost/x.rec?speed=10x&loop").expect("a recording");
        assert_eq!(all.to_string(), "file:x.rec?speed=10x&loop");
        assert_eq!(parse(&all.url()), Ok(all));
        let here = std::env::current_dir().expect("there is one").join("x.rec");
        for relative in [
            "file://x.rec?keep-ids=yes",
            "file:x.rec?keep-ids",
            "file:./x.rec?keep-ids=1",
        ] {
            let relative = parse(relative).expect("a recording");
            assert_eq!((&relative.path, relative.keeps_ids), (&here, true));
        }
        for (wrong, why) in [
            ("file://", "names no file"),
            ("file:///a/", "names no file"),
            ("file:///a?speed=fast", "speed=: 1x"),
            ("file:///a?loop=perhaps", "yes or no"),
            ("file:///a?rate=1", "'rate=' is not known"),
            ("file:///a?loop&loop", "twice"),
            ("file:///a?loop&keep-ids", "exclude each other"),
            ("file:///%ff", "not UTF-8"),
        ] {
            let error = parse(wrong).expect_err(wrong);
            assert!(error.contains(why), "{wrong}: {error}");
        }
        assert_eq!(rest("files:///a"), None);
        assert_eq!(rest("-"), None);
    }
}
