//! What is wrong with a row of flags that come from a file: all of it, and each time where in the file.

use std::error::Error as _;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::Fault;
use super::document::Word;
use super::flags::Flags;

/// A row of flags from one table of a file.
pub struct Row<'a> {
    /// The flags there are.
    pub flags: &'a Flags,
    /// Those that are said.
    pub words: Vec<Word>,
    /// The line of the table, if it has one.
    pub line: Option<usize>,
    /// Whether this is all that the table says, and nothing has been found wrong before.
    pub is_whole: bool,
}

/// What is to blame for an error.
struct Culprit {
    word: Option<usize>,
    /// Whether the error is about this value by itself, and not about what fits together.
    is_by_itself: bool,
}

impl Row<'_> {
    /// What `attempt` makes of the flags, or what is wrong with them.
    pub fn read<T>(
        &self,
        attempt: impl Fn(&[Word]) -> Result<T, clap::Error>,
    ) -> Result<T, Vec<Fault>> {
        let mut error = match attempt(&self.words) {
            Ok(read) => return Ok(read),
            Err(error) => text_of(&error, self.flags),
        };
        let mut words = self.words.clone();
        let mut faults = vec![];
        loop {
            let text = |words: &[Word]| {
                attempt(words)
                    .err()
                    .map(|error| text_of(&error, self.flags))
            };
            let culprit = self.culprit(&words, &error, text);
            // Without what was wrong before, what is left need not fit together.
            let counts = self.is_whole && faults.is_empty();
            if !counts && !culprit.is_by_itself {
                return Err(faults);
            }
            let line = culprit.word.map(|word| words[word].line);
            faults.push(Fault {
                line: line.or(self.line),
                reason: self.flags.as_names(&error),
            });
            let Some(word) = culprit.word else {
                return Err(faults);
            };
            words.remove(word);
            error = match text(&words) {
                None => return Err(faults),
                Some(error) => error,
            };
        }
    }

    /// What is to blame: a word whose flag the error names, or whose value, and without which it says something else.
    fn culprit(
        &self,
        words: &[Word],
        error: &str,
        attempt: impl Fn(&[Word]) -> Option<String>,
    ) -> Culprit {
        let named = |word: &Word| self.flags.named_at(error, word.flag);
        let quoted = |word: &Word| {
            let value = word.value.as_ref()?;
            error.find(&format!("'{value}'"))
        };
        let mut suspects = suspects(words, named);
        let is_named = !suspects.is_empty();
        if !is_named {
            suspects = self::suspects(words, quoted);
        }
        let is_by_itself = match suspects.first() {
            Some(&first) => {
                let name = &self.flags.all()[words[first].flag].name;
                !is_named || error.starts_with(&format!("--{name}: ")) || error.starts_with(INVALID)
            }
            None => false,
        };
        let first = suspects.first().copied();
        if suspects.is_empty() {
            suspects = (0..words.len()).collect();
        }
        let would_help = |&word: &usize| {
            let without = [&words[..word], &words[word + 1..]].concat();
            attempt(&without).is_none_or(|other| other != error)
        };
        Culprit {
            word: suspects.iter().copied().find(would_help).or(first),
            is_by_itself,
        }
    }
}

/// The words that stand in an error, in its order.
fn suspects(words: &[Word], place: impl Fn(&Word) -> Option<usize>) -> Vec<usize> {
    let places = words.iter().enumerate();
    let mut places: Vec<_> = places
        .filter_map(|(word, said)| Some((place(said)?, word)))
        .collect();
    places.sort_unstable();
    places.into_iter().map(|(_, word)| word).collect()
}

/// How an error begins that is about a value which cannot be read.
const INVALID: &str = "invalid value ";

/// An error in one line, with flags as they stand on a command line. Values that may be secrets are not in it.
pub fn text_of(error: &clap::Error, flags: &Flags) -> String {
    let named = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(flag)) => flag.clone(),
        Some(ContextValue::Strings(flags)) => flags.join(" and "),
        _ => String::new(),
    };
    // Behind the name clap says what its value is.
    let name = named.split([' ', '=']).next().unwrap_or_default();
    let name = name.trim_start_matches('-');
    match error.kind() {
        ErrorKind::ValueValidation | ErrorKind::InvalidValue if !name.is_empty() => {
            let is_secret = flags
                .position(name)
                .is_some_and(|at| flags.all()[at].is_secret);
            let value = match error.get(ContextKind::InvalidValue) {
                Some(ContextValue::String(value)) if !is_secret => format!("'{value}' "),
                _ => String::new(),
            };
            let why = match (error.source(), error.get(ContextKind::ValidValue)) {
                (Some(source), _) => source.to_string(),
                (None, Some(ContextValue::Strings(valid))) => {
                    format!("{} is expected", valid.join(" or "))
                }
                (None, _) => "it cannot be read".to_owned(),
            };
            format!("{INVALID}{value}for --{name}: {why}")
        }
        ErrorKind::MissingRequiredArgument => format!("--{name} is needed as well"),
        _ => {
            let text = error.to_string();
            let text = text.split("\n\n").next().unwrap_or_default();
            let text = text.strip_prefix("error: ").unwrap_or(text);
            let words: Vec<_> = text.split_whitespace().collect();
            words.join(" ")
        }
    }
}
