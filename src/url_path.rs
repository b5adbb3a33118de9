//! Paths as they are compared: one spelling for each, and none that leads out of where it stands.

use std::fmt;

/// Why a path cannot be the path of a stream, nor a right be for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wrong(pub &'static str);

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Wrong {}

/// The one spelling of a URL path (RFC 3986, section 6.2.2): escapes of letters that need none are undone, the others are
/// in capitals, and what needs an escape has one.
///
/// Refused is whatever somebody behind may read as another path: `.` and `..`, however they are written, empty segments but
/// for the last one, and escapes of slashes, backslashes and control characters.
pub fn normal(path: &str) -> Result<String, Wrong> {
    let rest = path
        .strip_prefix('/')
        .ok_or(Wrong("a path begins with a slash"))?;
    let mut normal = String::with_capacity(path.len());
    let mut segments = rest.split('/').peekable();
    while let Some(segment) = segments.next() {
        normal.push('/');
        let start = normal.len();
        push_segment(segment, &mut normal)?;
        match &normal[start..] {
            "." | ".." => return Err(Wrong("the path has a segment '.' or '..'")),
            "" if segments.peek().is_some() => {
                return Err(Wrong("the path has an empty segment"));
            }
            _ => {}
        }
    }
    Ok(normal)
}

fn push_segment(segment: &str, normal: &mut String) -> Result<(), Wrong> {
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        let (byte, is_escaped) = match byte {
            b'%' => (escaped(&mut bytes)?, true),
            byte => (byte, false),
        };
        match byte {
            0..0x20 | 0x7F => return Err(Wrong("the path has a control character")),
            b'\\' => return Err(Wrong("the path has a backslash")),
            b'/' => return Err(Wrong("the path has an escaped slash")),
            // An escaped delimiter does not mean what the bare one does (RFC 3986, section 2.2).
            _ if is_unreserved(byte) || is_delimiter(byte) && !is_escaped => {
                normal.push(char::from(byte));
            }
            _ => {
                const HEX: &[u8; 16] = b"0123456789ABCDEF";
                normal.push('%');
                for digit in [byte >> 4, byte & 0xF] {
                    normal.push(char::from(HEX[usize::from(digit)]));
                }
            }
        }
    }
    Ok(())
}

fn escaped(bytes: &mut impl Iterator<Item = u8>) -> Result<u8, Wrong> {
    let mut digit = || {
        let digit = char::from(bytes.next()?).to_digit(16)?;
        Some(digit as u8)
    };
    let value = digit().zip(digit()).map(|(high, low)| high << 4 | low);
    value.ok_or(Wrong("the path has a '%' without two digits behind it"))
}

/// RFC 3986, section 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// What else may stand in a segment as it is (RFC 3986, section 3.3).
fn is_delimiter(byte: u8) -> bool {
    b"!$&'()*+,;=:@".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_path_has_one_spelling() {
        for (path, expected) in [
            ("/", "/"),
            ("/a", "/a"),
            ("/a/", "/a/"),
            ("/%61%2D%7e", "/a-~"),
            ("/a%2bb", "/a%2Bb"),
            ("/a+b", "/a+b"),
            ("/%c3%A4", "/%C3%A4"),
            ("/ä", "/%C3%A4"),
            ("/a\"b|c", "/a%22b%7Cc"),
            ("/a%3Fb%23", "/a%3Fb%23"),
            ("/...", "/..."),
            ("/%252e%252e", "/%252e%252e"),
        ] {
            assert_eq!(normal(path).as_deref(), Ok(expected), "{path}");
        }
    }

    #[test]
    fn what_may_lead_elsewhere_is_refused() {
        for path in [
            "",
            "a",
            "//",
            "//a",
            "/a//b",
            "/.",
            "/..",
            "/a/../b",
            "/%2e%2E/b",
            "/.%2e",
            "/a%2Fb",
            "/a%5cb",
            "/a\\b",
            "/a%0d%0ab",
            "/a%00",
            "/a%7F",
            "/a%",
            "/a%2",
            "/a%zz",
            "/a\u{1}b",
            "http://host/a",
        ] {
            assert!(normal(path).is_err(), "{path}");
        }
    }

    proptest! {
        #[test]
        fn the_spelling_is_stable(path in "/([a-z%./\\\\]|%[0-9a-f]{2}|.){0,12}") {
            if let Ok(once) = normal(&path) {
                prop_assert_eq!(normal(&once), Ok(once.clone()));
            }
        }
    }
}
