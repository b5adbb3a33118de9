//! Lines of a body: server-sent events (WHATWG HTML, section 9.2) and NDJSON.

use std::mem;

use memchr::memchr;

use super::{Event, Item, LOOK, of_ndjson, parsed};
use crate::client::bench::marker::Run;

/// What a body consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Blocks of lines.
    EventStream,
    /// An object a line.
    Ndjson,
}

/// Where a connection stands in its lines. They end with LF or CRLF; one that ends with CR alone, which nobody sends, is not told from the
/// next.
#[derive(Debug)]
pub struct Lines {
    format: Format,
    /// The beginning of a line that has been cut.
    held: Vec<u8>,
    /// What the block says so far.
    block: Block,
}

#[derive(Debug, Default)]
struct Block {
    event: Event,
    has_data: bool,
    /// It is of a type that is no event's.
    notice: Notice,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Notice {
    #[default]
    None,
    Gap,
    Other,
}

impl Lines {
    /// Nothing has come yet.
    pub fn new(format: Format) -> Self {
        Self {
            format,
            held: Vec::new(),
            block: Block::default(),
        }
    }

    /// Goes through what has come.
    pub fn feed(&mut self, mut bytes: &[u8], run: Option<Run>, tell: &mut impl FnMut(Item<'_>)) {
        while let Some(end) = memchr(b'\n', bytes) {
            match self.held.is_empty() {
                true => self.line(&bytes[..end], run, tell),
                false => {
                    let mut line = mem::take(&mut self.held);
                    hold(&mut line, &bytes[..end]);
                    self.line(&line, run, tell);
                    line.clear();
                    self.held = line;
                }
            }
            bytes = &bytes[end + 1..];
        }
        hold(&mut self.held, bytes);
    }

    fn line(&mut self, line: &[u8], run: Option<Run>, tell: &mut impl FnMut(Item<'_>)) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let looked_at = &line[..line.len().min(LOOK)];
        match self.format {
            Format::Ndjson => {
                if let Some(item) = of_ndjson(looked_at, run) {
                    tell(item);
                }
            }
            Format::EventStream if line.is_empty() => {
                let block = mem::take(&mut self.block);
                match block.notice {
                    Notice::None if block.has_data => tell(Item::Event(block.event)),
                    Notice::Gap => tell(Item::Gap),
                    _ => {}
                }
            }
            Format::EventStream => self.block.field(looked_at, run),
        }
    }
}

impl Block {
    fn field(&mut self, line: &[u8], run: Option<Run>) {
        let value = |name: &[u8]| {
            let value = line.strip_prefix(name)?;
            Some(value.strip_prefix(b" ").unwrap_or(value))
        };
        if let Some(data) = value(b"data:") {
            self.has_data = true;
            if self.event.mark.is_none() {
                self.event.mark = run.and_then(|run| run.find(data));
            }
        } else if let Some(id) = value(b"id:") {
            self.event.id = parsed(id);
        } else if let Some(name) = value(b"event:") {
            self.notice = match name {
                b"wsevent.gap" => Notice::Gap,
                b"wsevent.snapshot" | b"wsevent.merged" => Notice::Other,
                _ => Notice::None,
            };
        }
    }
}

/// Holds the beginning of a line, as far as it is looked at.
fn hold(held: &mut Vec<u8>, more: &[u8]) {
    // One more than that, so that the CR at its end is not taken for the last letter of a short line.
    let room = (LOOK + 1).saturating_sub(held.len());
    held.extend_from_slice(&more[..more.len().min(room)]);
}
