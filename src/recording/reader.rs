//! Reading a recording, or a file of a stream's NDJSON, from its beginning.
//!
//! Whatever a file says, no more of it is in memory than one event that may be taken, and what has really come of it.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read};
use std::path::Path;

use crate::reason::io_text;
use crate::wire::ndjson::{self, Line};
use crate::wire::recording::{
    Checksum, HEAD, LABELS, LARGEST, MAGIC, Recorded, Taken, decode, head,
};

/// So many bytes are read from a file at once.
const BUFFER: usize = 256 << 10;
/// How much longer than its payload a line of NDJSON may be: JSON escapes a control character as six letters.
const LONGEST_ESCAPE: usize = 6;

const TORN: &str = "it ends in the middle of a record";
const UNREADABLE: &str = "it cannot be read there";

/// What is next in a file.
#[derive(Debug, PartialEq, Eq)]
pub enum Item {
    /// An event, or a gap.
    Recorded(Recorded),
    /// An event that is not taken, and why. It has been passed over.
    Unusable(String),
    /// It ends here, as it should.
    End,
    /// It cannot be read any further.
    Damage(Damage),
}

/// Where a file is damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Where what cannot be read begins: so many bytes from the beginning of the file.
    pub at: u64,
    /// The number of events before it.
    pub events: u64,
    /// What is wrong there.
    pub what: &'static str,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, events, what } = self;
        write!(f, "damaged at byte {at}, behind event {events}: {what}")
    }
}

/// What may be read.
enum Format {
    /// Ours.
    Recording,
    /// Lines of NDJSON, as a stream's endpoint sends them.
    Lines,
}

/// Reads from the beginning on.
pub struct Reader<R> {
    input: BufReader<R>,
    format: Format,
    /// The largest payload that is taken, in bytes.
    most: usize,
    /// So many bytes have been read.
    at: u64,
    /// So many events have been.
    events: u64,
    /// The body that is being read.
    body: Vec<u8>,
}

impl Reader<File> {
    /// Opens a file; an error if it is none that can be replayed.
    pub fn open(path: &Path, most: usize) -> io::Result<Self> {
        let file = File::open(path)?;
        // What is read once, such as a pipe, is for standard input.
        if !file.metadata()?.is_file() {
            return Err(invalid("it is no ordinary file"));
        }
        Self::new(file, most)
    }
}

impl<R: Read> Reader<R> {
    /// Reads what `input` begins with; an error if it is neither a recording nor NDJSON. Payloads may have `most` bytes.
    pub fn new(input: R, most: usize) -> io::Result<Self> {
        let mut input = BufReader::with_capacity(BUFFER, input);
        let mut magic = Vec::with_capacity(MAGIC.len());
        // Byte by byte, as another file may be shorter.
        while magic.len() < MAGIC.len() && MAGIC.starts_with(&magic) {
            let mut byte = [0];
            match input.read(&mut byte) {
                Ok(0) => break,
                Ok(_) => magic.push(byte[0]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let is_recording = magic == MAGIC;
        let begins_as_json = magic.first().is_some_and(|&byte| byte == b'{');
        let wrong = match magic.len() {
            _ if is_recording || begins_as_json => None,
            0 => Some("it is empty".to_owned()),
            len if MAGIC.starts_with(&magic) => Some(format!(
                "it ends after {len} bytes, in the middle of its first line"
            )),
            len if len > MAGIC.len() - 2 => {
                Some("it is a recording of a later version of wsevent".to_owned())
            }
            _ => Some("it is no recording, and no NDJSON of a stream".to_owned()),
        };
        if let Some(wrong) = wrong {
            return Err(invalid(&wrong));
        }
        Ok(Self {
            input,
            format: match is_recording {
                true => Format::Recording,
                false => Format::Lines,
            },
            most,
            at: magic.len() as u64,
            events: 0,
            // The first letter of the first line.
            body: if is_recording { Vec::new() } else { magic },
        })
    }

    /// Whether it is one of ours, that can be added to.
    pub fn is_recording(&self) -> bool {
        matches!(self.format, Format::Recording)
    }

    /// How many bytes have been read that are whole.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// How many events there have been.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The next that is there. Behind an end or a damage it is not to be called again.
    pub fn read(&mut self) -> Item {
        let item = match self.format {
            Format::Recording => self.next_record(),
            Format::Lines => self.next_line(),
        };
        if matches!(
            item,
            Item::Unusable(_) | Item::Recorded(Recorded::Event { .. })
        ) {
            self.events += 1;
        }
        item
    }

    fn damage(&self, what: &'static str) -> Item {
        Item::Damage(Damage {
            at: self.at,
            events: self.events,
            what,
        })
    }

    fn next_record(&mut self) -> Item {
        loop {
            let mut first = Vec::with_capacity(HEAD);
            match self
                .input
                .by_ref()
                .take(HEAD as u64)
                .read_to_end(&mut first)
            {
                Ok(0) => return Item::End,
                Ok(HEAD) => {}
                Ok(_) => return self.damage(TORN),
                Err(_) => return self.damage(UNREADABLE),
            }
            let (len, checksum) = head(first.try_into().expect("as long as that"));
            if len == 0 {
                return self.damage("a record of no length");
            }
            if len as usize > LARGEST {
                return self.damage("a record that is longer than any may be");
            }
            match self.read_body(len) {
                Ok(found) if found == checksum => {}
                Ok(_) => return self.damage("a checksum is wrong"),
                Err(what) => return self.damage(what),
            }
            let at = self.at;
            self.at += HEAD as u64 + u64::from(len);
            if self.body.len() < len as usize {
                return Item::Unusable(too_long(len as usize, self.most));
            }
            match decode(&self.body) {
                Ok(Some(Recorded::Event { event, .. }))
                    if event.payload.bytes.len() > self.most =>
                {
                    return Item::Unusable(too_long(event.payload.bytes.len(), self.most));
                }
                Ok(Some(record)) => return Item::Recorded(record),
                // Of a later version.
                Ok(None) => {}
                Err(what) => {
                    self.at = at;
                    return self.damage(what);
                }
            }
        }
    }

    /// Reads a body as long as this, and says its checksum. Of one that is too long to be taken, only the beginning is kept.
    fn read_body(&mut self, len: u32) -> Result<u32, &'static str> {
        let mut checksum = Checksum::of(len);
        let keep = self.most.saturating_add(LABELS).min(len as usize);
        self.body.clear();
        // What has not come takes no room: a length is just a number.
        let mut beginning = self.input.by_ref().take(keep as u64);
        let Ok(kept) = beginning.read_to_end(&mut self.body) else {
            return Err(UNREADABLE);
        };
        let mut left = len as usize - kept;
        checksum.add(&self.body);
        if kept == keep {
            let mut chunk = vec![0; left.min(BUFFER)];
            while left > 0 {
                let want = left.min(chunk.len());
                match self.input.read(&mut chunk[..want]) {
                    Ok(0) => break,
                    Ok(read) => {
                        checksum.add(&chunk[..read]);
                        left -= read;
                    }
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(_) => return Err(UNREADABLE),
                }
            }
        }
        match left {
            0 => Ok(checksum.value()),
            _ => Err(TORN),
        }
    }

    fn next_line(&mut self) -> Item {
        loop {
            let line = match self.read_line() {
                Ok(Some(line)) => line,
                Ok(None) => return Item::End,
                Err(what) => return self.damage(what),
            };
            let LineRead { len, is_whole } = line;
            // It was counted when the file was opened.
            let counted = usize::from(self.at == 1);
            self.at += (len - counted) as u64;
            if !is_whole {
                self.body.clear();
                return Item::Unusable(too_long(len, self.most));
            }
            let text = self.body.trim_ascii();
            let decoded = (!text.is_empty()).then(|| ndjson::decode(text));
            self.body.clear();
            return match decoded {
                None | Some(Ok(Line::Snapshot(_) | Line::Merged(_))) => continue,
                Some(Ok(Line::Event(event))) if event.payload.bytes.len() > self.most => {
                    Item::Unusable(too_long(event.payload.bytes.len(), self.most))
                }
                Some(Ok(Line::Event(event))) => recorded(event.time, event.into()),
                Some(Ok(Line::Kept(event))) => recorded(event.time, Taken::from(event).kept()),
                Some(Ok(Line::Gap(gap))) => Item::Recorded(Recorded::Gap { arrived: 0, gap }),
                Some(Err(reason)) => Item::Unusable(format!(
                    "the line that ends at byte {} is no event of a stream: {reason}",
                    self.at
                )),
            };
        }
    }

    /// The next line, with its end, behind what is there of it.
    fn read_line(&mut self) -> Result<Option<LineRead>, &'static str> {
        let most = self
            .most
            .saturating_mul(LONGEST_ESCAPE)
            .saturating_add(LABELS);
        let mut len = self.body.len();
        loop {
            let piece = match io::BufRead::fill_buf(&mut self.input) {
                Ok([]) => {
                    return Ok((len > 0).then_some(LineRead {
                        len,
                        is_whole: len <= most,
                    }));
                }
                Ok(piece) => piece,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return Err(UNREADABLE),
            };
            let end = memchr::memchr(b'\n', piece);
            let taken = end.map_or(piece.len(), |end| end + 1);
            len += taken;
            if len <= most {
                self.body.extend_from_slice(&piece[..taken]);
            }
            io::BufRead::consume(&mut self.input, taken);
            if end.is_some() {
                let is_whole = len <= most;
                return Ok(Some(LineRead { len, is_whole }));
            }
        }
    }
}

/// A line that has been read: how long it is, and whether all of it is here.
struct LineRead {
    len: usize,
    is_whole: bool,
}

fn recorded(arrived: u64, event: Taken) -> Item {
    Item::Recorded(Recorded::Event { arrived, event })
}

fn too_long(len: usize, most: usize) -> String {
    format!("it has {len} bytes, more than --max-message-size {most}")
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why)
}

/// Why a file cannot be opened, in words.
pub fn reason(error: &io::Error) -> String {
    match error.kind() {
        // In our own words.
        ErrorKind::InvalidData => error.to_string(),
        _ => io_text(error),
    }
}

/// The same, for whoever has named the file.
pub fn cannot_open(path: &Path, error: &io::Error) -> String {
    format!("cannot replay {}: {}", path.display(), reason(error))
}

#[cfg(test)]
mod tests;
