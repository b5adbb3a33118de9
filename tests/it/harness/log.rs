//! The log of a child process, as it comes.

use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use serde_json::Value;
use tokio::sync::watch;

/// One line of a log: its fields, or nothing but its text if it was no JSON object.
#[derive(Debug, Clone)]
pub struct Line {
    pub text: String,
    fields: Value,
}

impl Line {
    fn new(text: String) -> Self {
        let fields = serde_json::from_str(&text).unwrap_or(Value::Null);
        Self { text, fields }
    }

    /// A field as text; empty if it is not there.
    pub fn field(&self, name: &str) -> String {
        match &self.fields[name] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        }
    }

    /// A field that is a number.
    pub fn number(&self, name: &str) -> u64 {
        let field = self.fields[name].as_u64();
        field.unwrap_or_else(|| panic!("no number {name} in {}", self.text))
    }

    fn is(&self, message: &str) -> bool {
        self.fields["message"] == message
    }
}

/// All lines so far; a thread reads on.
#[derive(Clone)]
pub struct Log {
    lines: Arc<Mutex<Vec<Line>>>,
    /// Changes with each line, and closes with the log.
    changed: watch::Receiver<()>,
}

impl Log {
    /// Reads `source` to its end in a thread of its own.
    pub fn read(source: impl Read + Send + 'static) -> Self {
        let (change, changed) = watch::channel(());
        let lines = Arc::new(Mutex::new(vec![]));
        let log = Self { lines, changed };
        let written = log.clone();
        thread::spawn(move || {
            for line in BufReader::new(source).split(b'\n') {
                let Ok(line) = line else { break };
                let line = Line::new(String::from_utf8_lossy(&line).into_owned());
                written.lock().push(line);
                change.send_replace(());
            }
        });
        log
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<Line> {
        self.lock().clone()
    }

    /// The lines with this message so far.
    pub fn all(&self, message: &str) -> Vec<Line> {
        let mut lines = self.lines();
        lines.retain(|line| line.is(message));
        lines
    }

    /// Waits for the first line, whatever it is.
    pub async fn first(&self) -> Line {
        let mut changed = self.changed.clone();
        super::within_guard("a line in the log", async {
            loop {
                if let Some(line) = self.lock().first() {
                    return line.clone();
                }
                assert!(changed.changed().await.is_ok(), "the log has ended");
            }
        })
        .await
    }

    /// Waits until the log has ended, as it does with its process.
    pub async fn end(&self) {
        let mut changed = self.changed.clone();
        super::within_guard("the end of the log", async {
            while changed.changed().await.is_ok() {}
        })
        .await;
    }

    /// Waits until there are `count` lines that have this message and satisfy `wanted`; the last of these.
    pub async fn wait(&self, message: &str, count: usize, wanted: impl Fn(&Line) -> bool) -> Line {
        let mut changed = self.changed.clone();
        let what = format!("{count} × \"{message}\" in the log");
        super::within_guard(&what, async {
            loop {
                changed.borrow_and_update();
                let found = self.all(message).into_iter().filter(|line| wanted(line));
                if let Some(line) = found.take(count).nth(count - 1) {
                    return line;
                }
                assert!(
                    changed.changed().await.is_ok(),
                    "no {what}, and it has ended"
                );
            }
        })
        .await
    }
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.lines();
        lines
            .iter()
            .try_for_each(|line| writeln!(f, "{}", line.text))
    }
}
