//! The text of a file as flags: what each table says, and where.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Fault;
use super::flags::{Flags, LOGIN, ROUTE};

/// What a file says.
pub struct Document {
    /// At the top: about the process, and about all routes.
    pub top: Vec<Entry>,
    /// The routes, in order.
    pub routes: Vec<Table>,
    /// Whether nothing is wrong with what stands at the top about the process.
    pub is_whole: bool,
    /// Whether nothing is wrong with what stands there for all routes.
    pub has_whole_defaults: bool,
}

/// What it says about one route.
pub struct Table {
    /// The line that it begins in.
    pub line: usize,
    /// In the order of the flags' definition.
    pub entries: Vec<Entry>,
    /// Whether nothing is wrong with them so far.
    pub is_whole: bool,
}

/// A name with its value.
#[derive(Clone)]
pub struct Entry {
    /// Where the flags that it stands for stand among [`Flags`].
    pub flags: Vec<usize>,
    /// The line of the name.
    pub line: usize,
    /// As it would stand on a command line.
    pub words: Vec<Word>,
}

/// A flag with its value, as one word of a command line.
#[derive(Clone)]
pub struct Word {
    /// Where the flag stands among [`Flags`].
    pub flag: usize,
    /// The line of the value.
    pub line: usize,
    /// The value. It may be a secret.
    pub value: Option<String>,
    /// Whether it stands at the top of the file, for all routes.
    pub is_default: bool,
}

impl Word {
    /// The word itself.
    pub fn text(&self, flags: &Flags) -> String {
        let name = &flags.all()[self.flag].name;
        match &self.value {
            Some(value) => format!("--{name}={value}"),
            None => format!("--{name}"),
        }
    }
}

impl Document {
    /// Reads a file's text. What is wrong with it goes to `faults`; of TOML that is none, nothing else is said.
    pub fn read(text: &str, flags: &Flags, faults: &mut Vec<Fault>) -> Self {
        let mut reader = Reader {
            text,
            flags,
            faults: vec![],
            is_wrong: [false; 2],
        };
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            // Only the message: the error as a whole shows the line, and there may be a secret in it.
            let at = error.span().map_or(text.len(), |span| span.start);
            let line = reader.line(at);
            if reader
                .faults
                .last()
                .is_none_or(|last| last.line != Some(line))
            {
                reader.fault(at, error.message());
            }
        }
        let document = match reader.faults.is_empty() {
            true => reader.document(table.get_ref()),
            false => Self {
                top: vec![],
                routes: vec![],
                is_whole: false,
                has_whole_defaults: false,
            },
        };
        faults.append(&mut reader.faults);
        document
    }
}

struct Reader<'a> {
    text: &'a str,
    flags: &'a Flags,
    faults: Vec<Fault>,
    /// Whether something is wrong with what is said about the process, and about routes.
    is_wrong: [bool; 2],
}

impl Reader<'_> {
    fn line(&self, at: usize) -> usize {
        let before = &self.text.as_bytes()[..at.min(self.text.len())];
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    }

    fn fault(&mut self, at: usize, reason: impl ToString) {
        self.faults.push(Fault {
            line: Some(self.line(at)),
            reason: reason.to_string(),
        });
    }

    fn document(&mut self, table: &DeTable<'_>) -> Document {
        let top = self.entries(table, false);
        let [process, defaults] = std::mem::take(&mut self.is_wrong);
        let route = table.iter().find(|(name, _)| name.get_ref() == ROUTE);
        let routes = route.map(|(name, value)| self.routes(name.span().start, value));
        // Something that is no route is not what is missing.
        let is_no_route = routes.as_ref().is_some_and(Vec::is_empty) && !self.faults.is_empty();
        Document {
            top,
            routes: routes.unwrap_or_default(),
            is_whole: !process && !is_no_route,
            has_whole_defaults: !defaults,
        }
    }

    fn routes(&mut self, at: usize, value: &Spanned<DeValue<'_>>) -> Vec<Table> {
        let DeValue::Array(array) = value.get_ref() else {
            self.fault(
                at,
                "a route begins with [[route]], in two brackets: there may be several",
            );
            return vec![];
        };
        let mut routes = vec![];
        for item in array.iter() {
            let at = item.span().start;
            match item.get_ref() {
                DeValue::Table(table) => {
                    let before = self.faults.len();
                    routes.push(Table {
                        line: self.line(at),
                        entries: self.entries(table, true),
                        is_whole: self.faults.len() == before,
                    });
                }
                _ => self.fault(at, "a route is a table: it begins with [[route]]"),
            }
        }
        routes
    }

    /// What a table says, in the order of the flags: what means the same is the same, however it is ordered.
    fn entries(&mut self, table: &DeTable<'_>, in_route: bool) -> Vec<Entry> {
        let mut entries: Vec<Entry> = vec![];
        let mut names: Vec<_> = table.iter().collect();
        names.sort_by_key(|(name, _)| name.span().start);
        for (name, value) in names {
            let at = name.span().start;
            let name: &str = name.get_ref();
            if name == ROUTE && !in_route {
                continue;
            }
            let before = self.faults.len();
            let entry = self.entry(at, name, value, in_route);
            if self.faults.len() > before {
                self.doubt(name, in_route);
            }
            let Some(entry) = entry else { continue };
            let steps = self.flags.steps();
            let is_step = |entry: &Entry| {
                let mut steps = steps.iter();
                steps.any(|(_, step)| entry.flags.contains(step))
            };
            if let Some(other) = entries
                .iter()
                .find(|other| is_step(other) && is_step(&entry))
            {
                let line = other.line;
                self.fault(
                    at,
                    format!("what is sent and what is expected has an order, and line {line} has another part of it: put all of it into {LOGIN}"),
                );
            }
            entries.push(entry);
        }
        entries.sort_by_key(|entry| entry.flags[0]);
        entries
    }

    /// Something is wrong with what this name says, or is meant to say.
    fn doubt(&mut self, name: &str, in_route: bool) {
        let flag = self.flags.position(name);
        let flag = flag.or_else(|| self.flags.position(self.flags.nearest(name, in_route)?));
        let is_of_route = flag.map(|flag| self.flags.all()[flag].is_of_route);
        self.is_wrong[0] |= is_of_route != Some(true);
        self.is_wrong[1] |= is_of_route != Some(false);
    }

    fn entry(
        &mut self,
        at: usize,
        name: &str,
        value: &Spanned<DeValue<'_>>,
        in_route: bool,
    ) -> Option<Entry> {
        let steps = self.flags.steps();
        let (flags, words) = if name == LOGIN && !steps.is_empty() {
            let flags = steps.iter().map(|(_, flag)| *flag).collect();
            (flags, self.login(value))
        } else {
            let Some(flag) = self.flags.position(name) else {
                self.unknown(at, name, in_route);
                return None;
            };
            if let Err(misplaced) = self.check_place(flag, in_route) {
                self.fault(at, misplaced);
                return None;
            }
            (vec![flag], self.words(flag, value))
        };
        let words = words
            .map_err(|(at, reason)| self.fault(at, reason))
            .unwrap_or_default();
        Some(Entry {
            flags,
            line: self.line(at),
            words,
        })
    }

    fn unknown(&mut self, at: usize, name: &str, in_route: bool) {
        let reason = match (name, self.flags.nearest(name, in_route)) {
            ("serve", _) => "serve says address and path at once: here they are serve-address, at the top, and serve-path, in a [[route]]".to_owned(),
            ("config", _) => "a file cannot name another one".to_owned(),
            (_, Some(nearest)) => format!("there is no '{name}': did you mean '{nearest}'?"),
            (_, None) => format!("there is no '{name}': the names are those of the flags in wsevent --help"),
        };
        self.fault(at, reason);
    }

    fn check_place(&self, flag: usize, in_route: bool) -> Result<(), String> {
        let flag = &self.flags.all()[flag];
        if in_route && !flag.is_of_route {
            return Err(format!(
                "{} is about the process, not about a route: it belongs at the top of the file",
                flag.name
            ));
        }
        if !in_route && flag.name == "serve-path" {
            return Err("serve-path belongs into a [[route]]".to_owned());
        }
        Ok(())
    }

    /// The words that a value is.
    fn words(
        &self,
        flag: usize,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<Vec<Word>, (usize, String)> {
        let about = &self.flags.all()[flag];
        let at = value.span().start;
        let word = |value: &Spanned<DeValue<'_>>| {
            Some(Word {
                flag,
                line: self.line(value.span().start),
                value: Some(scalar(value.get_ref())?),
                is_default: false,
            })
        };
        match value.get_ref() {
            DeValue::Boolean(is_there) if about.is_switch => {
                let line = self.line(at);
                let word = Word {
                    flag,
                    line,
                    value: None,
                    is_default: false,
                };
                Ok(is_there.then_some(word).into_iter().collect())
            }
            _ if about.is_switch => Err((at, format!("{} is true or false", about.name))),
            DeValue::Array(items) if about.is_list => {
                let words = items.iter().map(|item| {
                    let wrong = || format!("{} is a list of strings or numbers", about.name);
                    word(item).ok_or_else(|| (item.span().start, wrong()))
                });
                words.collect()
            }
            _ => match word(value) {
                Some(word) => Ok(vec![word]),
                None if about.is_list => Err((
                    at,
                    format!("{} is a string or a number, or a list of these", about.name),
                )),
                None => Err((at, format!("{} is one string or number", about.name))),
            },
        }
    }

    /// The steps of a login: a list of tables with one member each, or of tables whose members are in order.
    fn login(&self, value: &Spanned<DeValue<'_>>) -> Result<Vec<Word>, (usize, String)> {
        let names = self.flags.steps();
        let names: Vec<_> = names
            .iter()
            .map(|(name, _)| format!("{{ {name} = \"…\" }}"))
            .collect();
        let wrong = |at| {
            (
                at,
                format!("{LOGIN} is a list of steps: {}", names.join(" and ")),
            )
        };
        let DeValue::Array(items) = value.get_ref() else {
            return Err(wrong(value.span().start));
        };
        let mut words = vec![];
        for item in items.iter() {
            let at = item.span().start;
            let DeValue::Table(step) = item.get_ref() else {
                return Err(wrong(at));
            };
            let mut members: Vec<_> = step.iter().collect();
            members.sort_by_key(|(name, _)| name.span().start);
            if members.is_empty() {
                return Err(wrong(at));
            }
            for (name, value) in members {
                let flag = self
                    .flags
                    .step(name.get_ref())
                    .ok_or_else(|| wrong(name.span().start))?;
                let text = scalar(value.get_ref()).ok_or_else(|| wrong(value.span().start))?;
                words.push(Word {
                    flag,
                    line: self.line(value.span().start),
                    value: Some(text),
                    is_default: false,
                });
            }
        }
        Ok(words)
    }
}

/// A string, or a number as a flag has it.
fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => {
            let number = i128::from_str_radix(number.as_str(), number.radix()).ok()?;
            Some(number.to_string())
        }
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}
