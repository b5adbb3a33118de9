//! Texts for an upstream that nobody else is to see: they may name a variable of the environment or a file that holds the
//! secret, so that it is neither in the list of processes nor in a configuration.

use std::env;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

/// The most that a file may hold, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// What is shorter stands in many texts by chance.
const SHORTEST: usize = 4;
/// All but the unreserved characters (RFC 3986, section 2.3), as in a component of a URL.
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A text that may be a secret, or hold one.
#[derive(Clone)]
pub struct Secret {
    text: Text,
    /// What the variables in it stand for.
    variables: Vec<String>,
}

#[derive(Clone)]
enum Text {
    Given(String),
    /// Each time it is needed it is read anew. `last` is what it held then.
    File {
        path: PathBuf,
        last: Arc<Mutex<String>>,
    },
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.text {
            Text::Given(_) => f.write_str("Secret"),
            Text::File { path, .. } => write!(f, "Secret({})", path.display()),
        }
    }
}

impl Secret {
    /// Reads how a text is given: `${NAME}` in it is a variable of the environment, `$${` a mere `${`; `@FILE` is what the
    /// file holds, and `@@` at the beginning a mere `@`. What cannot be had is a usage error, which does not show the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (rest, is_file) = match text.strip_prefix('@') {
            // Of `@@` one is left.
            Some(rest) if rest.starts_with('@') => (rest, false),
            Some(rest) => (rest, true),
            None => (text, false),
        };
        let Expanded { text, variables } = expand(rest, str::to_owned)?;
        if !is_file {
            let text = Text::Given(text);
            return Ok(Self { text, variables });
        }
        let path = PathBuf::from(text);
        if path.as_os_str().is_empty() {
            return Err("the name of a file is expected behind @ (a mere @ is written @@)".into());
        }
        let last = load(&path).map_err(|error| crate::reason::of(&error))?;
        let last = Arc::new(Mutex::new(last));
        let text = Text::File { path, last };
        Ok(Self { text, variables })
    }

    /// The text, as it is now.
    pub async fn read(&self) -> Result<String> {
        match &self.text {
            Text::Given(text) => Ok(text.clone()),
            Text::File { path, last } => {
                let path = path.clone();
                let now = tokio::task::spawn_blocking(move || load(&path)).await??;
                *last.lock().unwrap_or_else(PoisonError::into_inner) = now.clone();
                Ok(now)
            }
        }
    }

    /// The text, as it was when it was last read.
    pub fn last(&self) -> String {
        match &self.text {
            Text::Given(text) => text.clone(),
            Text::File { last, .. } => {
                let last = last.lock().unwrap_or_else(PoisonError::into_inner);
                last.clone()
            }
        }
    }

    /// What must not be repeated before others: the text, what the variables in it stand for, and each word of a file.
    pub fn words(&self, words: &mut Vec<String>) {
        let text = self.last();
        if matches!(self.text, Text::File { .. }) {
            words.extend(text.split_whitespace().map(str::to_owned));
            if let Ok(value) = serde_json::from_str(&text) {
                strings(&value, words);
            }
        }
        words.push(text);
        words.extend(self.variables.iter().cloned());
    }
}

/// The strings in a JSON text, which is how most logins are written.
fn strings(value: &Value, words: &mut Vec<String>) {
    match value {
        Value::String(text) => words.push(text.clone()),
        Value::Array(values) => values.iter().for_each(|value| strings(value, words)),
        Value::Object(members) => members.values().for_each(|value| strings(value, words)),
        _ => {}
    }
}

/// What the file holds, without a line end behind it.
fn load(path: &Path) -> Result<String> {
    let cannot = || format!("cannot read {}", path.display());
    let mut text = String::new();
    let file = File::open(path).with_context(cannot)?;
    file.take(MAX_FILE + 1)
        .read_to_string(&mut text)
        .with_context(cannot)?;
    if text.len() as u64 > MAX_FILE {
        bail!("{}: it is larger than 1MiB", cannot());
    }
    let line = text.strip_suffix('\n');
    let line = line.map(|line| line.strip_suffix('\r').unwrap_or(line));
    Ok(match line {
        Some(line) => line.to_owned(),
        None => text,
    })
}

/// A text with its variables replaced.
pub struct Expanded {
    /// The text.
    pub text: String,
    /// What stands in it for variables.
    pub variables: Vec<String>,
}

/// The same for the text of a URL: what a variable holds becomes part of a component, whatever characters it has.
pub fn expand_url(text: &str) -> Result<Expanded, String> {
    let encode = |value: &str| utf8_percent_encode(value, COMPONENT).to_string();
    let mut expanded = expand(text, encode)?;
    // Others may show it either way.
    let encoded: Vec<_> = expanded
        .variables
        .iter()
        .map(|value| encode(value))
        .collect();
    expanded.variables.extend(encoded);
    Ok(expanded)
}

/// Replaces each `${NAME}` by the variable of that name, as `encode` wants it, and each `$${` by `${`.
fn expand(text: &str, encode: impl Fn(&str) -> String) -> Result<Expanded, String> {
    let mut expanded = Expanded {
        text: String::with_capacity(text.len()),
        variables: Vec::new(),
    };
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            expanded.text.push_str(before);
            expanded.text.push_str("${");
            rest = &from[2..];
            continue;
        }
        expanded.text.push_str(before);
        let name = from[2..].split_once('}');
        let Some((name, behind)) = name.filter(|(name, _)| is_name(name)) else {
            return Err(
                "behind ${ the name of a variable and } are expected (a mere ${ is written $${)"
                    .into(),
            );
        };
        let value = variable(name)?;
        expanded.text.push_str(&encode(&value));
        expanded.variables.push(value);
        rest = behind;
    }
    expanded.text.push_str(rest);
    Ok(expanded)
}

/// As shells know it (POSIX.1-2017, XBD 3.235). What is no name is not repeated in an error: it may be anything.
fn is_name(text: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    text.starts_with(is_letter) && text.chars().all(|c| is_letter(c) || c.is_ascii_digit())
}

/// An empty variable is as good as none: so it is with those of the flags, too.
fn variable(name: &str) -> Result<String, String> {
    match env::var(name) {
        Ok(value) if !value.is_empty() => Ok(value),
        Err(env::VarError::NotUnicode(_)) => Err(format!("the variable {name} is not UTF-8")),
        _ => Err(format!(
            "the variable {name}, named by ${{{name}}}, is not set"
        )),
    }
}

/// Whether `text` repeats one of these.
pub fn repeats(secrets: &[String], text: &str) -> bool {
    let is_in = |secret: &String| secret.len() >= SHORTEST && text.contains(secret.as_str());
    secrets.iter().any(is_in)
}

/// `text` with dots in place of whatever of these it repeats.
pub fn conceal(secrets: &[String], text: &str) -> String {
    let mut secrets: Vec<_> = secrets.iter().filter(|s| s.len() >= SHORTEST).collect();
    // Of one that is part of another, nothing else of the other is to be left.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    let mut text = text.to_owned();
    for secret in secrets {
        if text.contains(secret.as_str()) {
            text = text.replace(secret.as_str(), "...");
        }
    }
    text
}

#[cfg(test)]
mod tests;
