//! A recording that events are added to.
//!
//! What has been added goes to the system with [`Writer::flush`]: then the end of this process does it no harm. To the disk it goes a
//! while later, by a thread of its own, so that nobody waits for that.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use super::reader::{Damage, Item, Reader, reason};
use crate::event::{EventId, Gap};
use crate::wire::recording::{self, Checksum, HEAD, LARGEST, MAGIC, Recorded};

/// What has been added and not been flushed is written out when there is more of it, in bytes.
const BUFFER: usize = 256 << 10;
/// More than this behind damage, in bytes, is not cut away: it is not what a writer leaves behind that was stopped.
const MOST_CUT: u64 = 4 << 20;
/// Of more origins than this it is not known how far the recording goes.
const MAX_ORIGINS: usize = 1_000;

/// What a file held when it was opened.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Before {
    /// How many events.
    pub events: u64,
    /// The last of each origin, that which came last at the end.
    pub have: Vec<EventId>,
    /// What was cut away at its end, and how many bytes that were.
    pub cut: Option<(Damage, u64)>,
}

impl Before {
    fn note(&mut self, id: EventId) {
        if let Some(at) = self.have.iter().position(|it| it.origin == id.origin) {
            self.have.remove(at);
        } else if self.have.len() == MAX_ORIGINS {
            self.have.remove(0);
        }
        self.have.push(id);
    }
}

/// Adds to the end of a file.
pub struct Writer {
    file: File,
    path: PathBuf,
    /// So many bytes are in it.
    len: u64,
    pending: Vec<u8>,
    syncing: Syncing,
}

impl Writer {
    /// Opens a file for adding to it, or makes it; an error if it is there and is no recording. What is added is on the disk `sync_after`
    /// it has been flushed, at the latest; with 0 when it has been.
    pub fn open(path: &Path, sync_after: Duration) -> Result<(Self, Before)> {
        let cannot = || format!("cannot record into {}", path.display());
        let mut options = OpenOptions::new();
        let options = options.read(true).append(true).create(true);
        let mut file = options.open(path).with_context(cannot)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!("{}: another process does", cannot()),
            Err(TryLockError::Error(error)) => return Err(error).with_context(cannot),
        }
        let metadata = file.metadata().with_context(cannot)?;
        if !metadata.is_file() {
            bail!("{}: it is no ordinary file", cannot());
        }
        let (before, len) = match metadata.len() {
            0 => {
                file.write_all(MAGIC).with_context(cannot)?;
                file.sync_all().with_context(cannot)?;
                sync_folder(path).with_context(cannot)?;
                (Before::default(), MAGIC.len() as u64)
            }
            len => {
                let before = go_on(&mut file, path, len)?;
                let len = before.cut.as_ref().map_or(len, |(damage, _)| damage.at);
                (before, len)
            }
        };
        let syncing = Syncing::start(file.try_clone().with_context(cannot)?, sync_after);
        let writer = Self {
            file,
            path: path.to_owned(),
            len,
            pending: Vec::new(),
            syncing,
        };
        Ok((writer, before))
    }

    /// Adds an event or a gap; false if it is too large for any recording.
    pub fn add(&mut self, record: &Recorded) -> Result<bool> {
        let is_added = recording::encode(record, &mut self.pending);
        if self.pending.len() >= BUFFER {
            self.flush()?;
        }
        Ok(is_added)
    }

    /// Writes out what has been added.
    pub fn flush(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return self.syncing.check().with_context(|| self.cannot());
        }
        let written = self.file.write_all(&self.pending);
        let added = self.pending.len() as u64;
        self.pending.clear();
        if let Err(error) = written {
            // Such as a disk that is full: what is whole stays so, and a part of the rest is worth nothing.
            let _ = self.file.set_len(self.len);
            return Err(error).with_context(|| self.cannot());
        }
        self.len += added;
        self.pending.shrink_to(BUFFER);
        self.syncing.changed().with_context(|| self.cannot())
    }

    /// Writes out what has been added, down to the disk.
    pub fn finish(mut self) -> Result<()> {
        self.flush()?;
        let cannot = self.cannot();
        self.syncing.end().context(cannot)
    }

    fn cannot(&self) -> String {
        format!("cannot record into {}", self.path.display())
    }
}

/// A new name in a folder is on the disk once the folder is.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// Reads what is in a file, and cuts away what a writer has left at its end that was stopped in the middle.
fn go_on(file: &mut File, path: &Path, len: u64) -> Result<Before> {
    let cannot = || format!("cannot record into {}", path.display());
    file.rewind().with_context(cannot)?;
    let other = |why: &str| format!("{}: {why}: say another name", cannot());
    let reader = Reader::new(&*file, LARGEST);
    let mut reader = reader.map_err(|error| anyhow!(other(&reason(&error))))?;
    if !reader.is_recording() {
        bail!(other("it is NDJSON, and no recording"));
    }
    let mut before = Before::default();
    let damage = loop {
        match reader.read() {
            Item::Recorded(Recorded::Event { event, .. }) => {
                if let Some(id) = event.id {
                    before.note(id);
                }
            }
            Item::Recorded(Recorded::Gap { .. }) | Item::Unusable(_) => {}
            Item::End => break None,
            Item::Damage(damage) => break Some(damage),
        }
    };
    before.events = reader.events();
    drop(reader);
    if let Some(damage) = damage {
        let bytes = len.saturating_sub(damage.at);
        if bytes > MOST_CUT || goes_on_behind(file, damage.at).with_context(cannot)? {
            bail!(
                "{}: it is {damage}; more follows behind that, so nothing is cut away: say another name",
                cannot()
            );
        }
        file.set_len(damage.at).with_context(cannot)?;
        file.sync_all().with_context(cannot)?;
        before.cut = Some((damage, bytes));
    }
    Ok(before)
}

/// Whether there is a whole record behind damage at `at`.
fn goes_on_behind(file: &mut File, at: u64) -> io::Result<bool> {
    file.seek(SeekFrom::Start(at))?;
    let mut rest = Vec::new();
    file.take(MOST_CUT).read_to_end(&mut rest)?;
    let is_record = |begin: usize| {
        let (first, rest) = rest[begin..].split_first_chunk::<HEAD>()?;
        let (len, checksum) = recording::head(*first);
        let body = rest.get(..len as usize).filter(|body| !body.is_empty())?;
        let mut found = Checksum::of(len);
        // Most of what looks like a length is none; what does not begin as a body does needs no checksum to tell.
        recording::decode(body).ok().flatten()?;
        found.add(body);
        (found.value() == checksum).then_some(())
    };
    Ok((1..rest.len()).any(|begin| is_record(begin).is_some()))
}

/// Brings to the disk what has been written.
struct Syncing {
    shared: Arc<Shared>,
    /// None where it is done at once.
    thread: Option<JoinHandle<()>>,
    file: File,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    is_dirty: bool,
    is_over: bool,
    failed: Option<io::Error>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Syncing {
    fn start(file: File, after: Duration) -> Self {
        let shared = Arc::<Shared>::default();
        let thread = (!after.is_zero()).then(|| {
            let (shared, file) = (shared.clone(), file.try_clone());
            thread::spawn(move || match file {
                Ok(file) => keep_in_sync(&shared, &file, after),
                Err(error) => shared.lock().failed = Some(error),
            })
        });
        Self {
            shared,
            thread,
            file,
        }
    }

    /// Something has been written.
    fn changed(&self) -> io::Result<()> {
        if self.thread.is_none() {
            return self.file.sync_data();
        }
        self.shared.lock().is_dirty = true;
        self.shared.changed.notify_one();
        self.check()
    }

    /// Whether all has gone well.
    fn check(&self) -> io::Result<()> {
        self.shared.lock().failed.take().map_or(Ok(()), Err)
    }

    /// Nothing more is written.
    fn end(&mut self) -> io::Result<()> {
        self.shared.lock().is_over = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.check()?;
        self.file.sync_data()
    }
}

fn keep_in_sync(shared: &Shared, file: &File, after: Duration) {
    loop {
        let idle = |state: &mut State| !state.is_dirty && !state.is_over;
        let state = shared.changed.wait_while(shared.lock(), idle);
        let state = state.unwrap_or_else(PoisonError::into_inner);
        // More may come meanwhile, and goes along.
        let waiting = |state: &mut State| !state.is_over;
        let waited = shared.changed.wait_timeout_while(state, after, waiting);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if state.is_over {
            return;
        }
        let is_dirty = mem::take(&mut state.is_dirty);
        drop(state);
        if is_dirty && let Err(error) = file.sync_data() {
            shared.lock().failed = Some(error);
        }
    }
}

/// Whoever ends without [`Writer::finish`] has failed already.
impl Drop for Syncing {
    fn drop(&mut self) {
        self.shared.lock().is_over = true;
        self.shared.changed.notify_one();
    }
}

/// What is missing between what a file holds and what is added to it, where nobody can tell.
pub fn interruption(after: Option<EventId>) -> Gap {
    Gap {
        after: after.map(|id| id.to_string().into()),
        next: None,
        lost: None,
    }
}

#[cfg(test)]
mod tests;
