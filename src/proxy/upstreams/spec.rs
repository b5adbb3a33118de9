//! What is said about an upstream on the command line or in a file.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result, anyhow, bail};
use url::Host;

#[cfg(test)]
mod tests;

/// The largest weight: more than enough to say any proportion that is meant.
const MAX_WEIGHT: u32 = 1000;

/// An upstream as it is written: `[http://|https://]host:port[,weight=N][,max=N]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Whether it is reached over TLS.
    pub https: bool,
    /// A name in lower case, or an IP address, without brackets.
    pub host: String,
    /// Never 0.
    pub port: u16,
    /// Its share of the clients, from 1 to 1000.
    pub weight: u32,
    /// The most connections it may have at once.
    pub max: Option<usize>,
}

impl Spec {
    /// What it is the same upstream by, whatever its weight: `host:port`, with `https://` before it if it has TLS.
    pub fn name(&self) -> String {
        let scheme = if self.https { "https://" } else { "" };
        format!("{scheme}{}:{}", self.bracketed_host(), self.port)
    }

    /// What a request to it has for a Host: without the port if it is the scheme's own (RFC 9110, sections 4.2.3 and 7.2).
    pub fn authority(&self) -> String {
        match self.port == default_port(self.https) {
            true => self.bracketed_host(),
            false => format!("{}:{}", self.bracketed_host(), self.port),
        }
    }

    /// An IPv6 address needs brackets before a port (RFC 3986, section 3.2.2).
    fn bracketed_host(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        }
    }
}

fn default_port(https: bool) -> u16 {
    if https { 443 } else { 80 }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())?;
        if self.weight != 1 {
            write!(f, ",weight={}", self.weight)?;
        }
        self.max.map_or(Ok(()), |max| write!(f, ",max={max}"))
    }
}

impl FromStr for Spec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',').map(str::trim);
        let (https, host, port) = location(parts.next().unwrap_or_default())?;
        let mut weight = None;
        let mut max = None;
        for setting in parts {
            match setting.split_once('=') {
                Some(("weight", value)) if weight.is_none() => weight = Some(parse_weight(value)?),
                Some(("max", value)) if max.is_none() => max = Some(parse_max(value)?),
                Some((name @ ("weight" | "max"), _)) => {
                    return Err(format!("{name} is said twice: leave one out"));
                }
                _ if setting.contains('@') => return Err(USER_INFO.to_owned()),
                _ => {
                    return Err(format!(
                        "'{setting}' is not a setting of an upstream: weight=N and max=N are"
                    ));
                }
            }
        }
        Ok(Self {
            https,
            host,
            port,
            weight: weight.unwrap_or(1),
            max,
        })
    }
}

/// It does not show the text: a password may be in it.
const USER_INFO: &str =
    "a user name or password has no place in an upstream: clients send their own Authorization";

fn parse_weight(value: &str) -> Result<u32, String> {
    match value.parse() {
        Ok(weight) if (1..=MAX_WEIGHT).contains(&weight) => Ok(weight),
        _ => Err(format!(
            "weight={value}: a whole number from 1 to {MAX_WEIGHT} is expected"
        )),
    }
}

fn parse_max(value: &str) -> Result<usize, String> {
    match value.parse() {
        Ok(max) if max > 0 => Ok(max),
        _ => Err(format!(
            "max={value}: a number of connections is expected, at least 1"
        )),
    }
}

/// Scheme, host and port.
fn location(text: &str) -> Result<(bool, String, u16), String> {
    if text.contains('@') {
        return Err(USER_INFO.to_owned());
    }
    let (scheme, rest) = match text.split_once("://") {
        None => (None, text),
        Some((scheme, rest)) => (Some(scheme.to_ascii_lowercase()), rest),
    };
    let https = match scheme.as_deref() {
        None | Some("http" | "ws") => false,
        Some("https" | "wss") => true,
        Some(scheme) => {
            return Err(format!(
                "{scheme}:// cannot be an upstream: http:// and https:// can"
            ));
        }
    };
    if rest.contains(['/', '?', '#']) {
        return Err(format!(
            "'{text}' has a path, and requests keep their own: HOST:PORT is expected, such as localhost:8080"
        ));
    }
    let (host, port) = match rest.rfind(':') {
        // A colon within brackets is the address's own.
        Some(colon) if !rest[colon..].contains(']') => (&rest[..colon], Some(&rest[colon + 1..])),
        _ => (rest, None),
    };
    if host.contains(':') && !host.starts_with('[') {
        return Err(format!(
            "'{text}': an IPv6 address needs brackets, such as [::1]:8080"
        ));
    }
    let port = match port {
        Some(port) => match port.parse() {
            // A sign would pass as a number.
            Ok(number) if number > 0 && !port.starts_with('+') => number,
            _ => {
                return Err(format!(
                    "'{text}': '{port}' is not a port: a number from 1 to 65535 is expected"
                ));
            }
        },
        None if scheme.is_some() => default_port(https),
        None => {
            return Err(format!(
                "'{text}' has no port: HOST:PORT is expected, such as localhost:8080"
            ));
        }
    };
    // It knows names that are not ASCII, too, and the several ways to write the same address.
    let host = match Host::parse(host) {
        Ok(Host::Domain(name)) => name,
        Ok(Host::Ipv4(ip)) => ip.to_string(),
        Ok(Host::Ipv6(ip)) => ip.to_string(),
        Err(error) => {
            return Err(format!(
                "'{text}': '{host}' is not a host ({error}): HOST:PORT is expected, such as localhost:8080"
            ));
        }
    };
    Ok((https, host, port))
}

/// Checks that there are upstreams, and none of them twice.
pub fn check(specs: &[Spec]) -> Result<()> {
    if specs.is_empty() {
        bail!("there is no upstream: at least one is needed");
    }
    let mut seen = HashSet::new();
    for spec in specs {
        if !seen.insert(spec.name()) {
            bail!("{} is there twice: give it a weight instead", spec.name());
        }
    }
    Ok(())
}

/// Reads upstreams from a file, one a line; what follows a `#` is a comment.
pub fn read_file(path: &Path) -> Result<Vec<Spec>> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("cannot read upstreams from {}", path.display()))?;
    parse_lines(&text).map_err(|(line, why)| match line {
        Some(line) => anyhow!("{}, line {line}: {why}", path.display()),
        None => anyhow!("{}: {why}", path.display()),
    })
}

/// Errors come with the number of their line, if they have one.
fn parse_lines(text: &str) -> Result<Vec<Spec>, (Option<usize>, String)> {
    let mut specs = vec![];
    let mut lines: HashMap<String, usize> = HashMap::new();
    // Some editors begin a file with a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let spec: Spec = line.parse().map_err(|why| (Some(number), why))?;
        if let Some(first) = lines.insert(spec.name(), number) {
            let why = format!(
                "{} is in line {first} already: give it a weight instead",
                spec.name()
            );
            return Err((Some(number), why));
        }
        specs.push(spec);
    }
    match specs.is_empty() {
        true => Err((
            None,
            "there is no upstream in it: one a line is expected, such as localhost:8080".to_owned(),
        )),
        false => Ok(specs),
    }
}
