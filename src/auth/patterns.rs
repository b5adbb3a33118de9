//! Which paths a right is for.

use std::str::FromStr;

use crate::url_path;

/// What is said of a text that is no pattern. It does not show the text, which may be in a token.
pub const EXPECTED: &str =
    "a path such as /live/a is expected, one that ends in /* for all below it, or * for all";

/// The paths that a right is for, in the one spelling that each has ([`url_path::normal`]): so they are compared byte by byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// `*`: every path.
    All,
    /// `/a/*`: what begins with this, which ends in a slash; itself as well, as that is where the list of what is below stands.
    Below(Box<str>),
    /// This one only.
    Exact(Box<str>),
}

impl Pattern {
    /// Whether it is for this path, which begins with a slash and is normalised already.
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::All => true,
            Self::Below(folder) => path.starts_with(&**folder),
            Self::Exact(exact) => path == &**exact,
        }
    }

    /// Whether it is for any path below this one, which ends in a slash.
    pub fn matches_below(&self, base: &str) -> bool {
        match self {
            Self::All => true,
            Self::Below(folder) => folder.starts_with(base) || base.starts_with(&**folder),
            Self::Exact(exact) => exact.len() > base.len() && exact.starts_with(base),
        }
    }
}

impl FromStr for Pattern {
    type Err = &'static str;

    /// As everywhere, the leading slash may be left out, and a path may be spelled as in a URL. What could match no path is an
    /// error: it hides a mistake.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "*" {
            return Ok(Self::All);
        }
        let path = format!("/{}", text.strip_prefix('/').unwrap_or(text));
        let (folder, is_below) = match path.strip_suffix('*') {
            Some(folder) => (folder, true),
            None => (&*path, false),
        };
        // They would be escaped, and are more likely a mistake.
        let is_odd = |letter: char| letter.is_whitespace() || "*?#\"".contains(letter);
        if text.is_empty() || is_below && !folder.ends_with('/') || folder.contains(is_odd) {
            return Err(EXPECTED);
        }
        let normal = url_path::normal(folder).map_err(|_| EXPECTED)?;
        Ok(match is_below {
            true => Self::Below(normal.into()),
            false => Self::Exact(normal.into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> Pattern {
        text.parse().expect("a pattern")
    }

    #[test]
    fn a_pattern_is_a_path_or_what_is_below_or_all() {
        for (text, path, expected) in [
            ("/live/a", "/live/a", true),
            ("live/a", "/live/a", true),
            ("/live/a", "/live/ab", false),
            ("/live/a", "/live/a/", false),
            ("/live/a", "/live", false),
            ("/live/a", "/Live/a", false),
            ("/live/*", "/live/a", true),
            ("live/*", "/live/a/b", true),
            ("/live/*", "/live/", true),
            ("/live/*", "/live", false),
            ("/live/*", "/lively", false),
            ("/live/*", "/x/live/a", false),
            ("/", "/", true),
            ("/", "/a", false),
            ("/*", "/", true),
            ("/*", "/a/b", true),
            ("*", "/", true),
            ("*", "/a/b", true),
            ("/a/", "/a/", true),
            ("/a/", "/a", false),
            ("/a%20b", "/a%20b", true),
            ("/a%2db", "/a-b", true),
            ("/%c3%a4", "/%C3%A4", true),
            ("/ä", "/%C3%A4", true),
            ("/%7ea/*", "/~a/b", true),
            ("/a%2Bb", "/a+b", false),
        ] {
            assert_eq!(pattern(text).matches(path), expected, "{text} {path}");
        }
    }

    #[test]
    fn a_pattern_may_be_for_some_of_what_is_below_a_path() {
        for (text, base, expected) in [
            ("*", "/live/", true),
            ("/*", "/live/", true),
            ("/live/*", "/live/", true),
            ("/live/a/*", "/live/", true),
            ("/live/a", "/live/", true),
            // The list, and none of what is in it.
            ("/live/", "/live/", false),
            ("/live", "/live/", false),
            ("/lively/*", "/live/", false),
            ("/news", "/live/", false),
            ("/news", "/", true),
        ] {
            assert_eq!(pattern(text).matches_below(base), expected, "{text} {base}");
        }
    }

    #[test]
    fn what_could_never_match_is_no_pattern() {
        for text in [
            "",
            "**",
            "/a*",
            "/a/*/b",
            "/*/b",
            "a b",
            "/a//b",
            "//",
            "/a/../b",
            "/./a",
            "/..",
            "/../*",
            "/a?b",
            "/a#b",
            "/a\n",
            "*/",
            "/a/**",
            "/a%2fb",
            "/%2e%2e/*",
            "/a%",
            "/a\\b",
        ] {
            assert_eq!(text.parse::<Pattern>(), Err(EXPECTED), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_pattern_or_not(text in ".{0,40}", path in "/[a-c/]{0,8}") {
            if let Ok(pattern) = text.parse::<Pattern>() {
                pattern.matches(&path);
            }
        }

        #[test]
        fn what_matches_a_path_matches_below_all_that_it_is_below(pattern in "(/[a-c]{1,2}){0,3}(/|/\\*)", path in "(/[a-c]{1,2}){1,4}") {
            let pattern = super::tests::pattern(&pattern);
            let slashes = path.match_indices('/').map(|(at, _)| &path[..=at]);
            for base in slashes.filter(|_| pattern.matches(&path)) {
                prop_assert!(pattern.matches_below(base), "{:?} {}", pattern, base);
            }
        }

        #[test]
        fn below_is_what_begins_so(folder in "(/[a-c]{1,2}){0,3}/", path in "(/[a-c]{1,2}){0,4}/?") {
            let below = pattern(&format!("{folder}*"));
            prop_assert_eq!(below.matches(&path), path.starts_with(&folder));
            prop_assert!(below.matches(&folder));
            prop_assert!(!below.matches(folder.trim_end_matches('/')));
        }
    }
}
