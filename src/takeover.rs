//! Replacing a running instance without a cut: the new process gets the listening sockets, the streams and the subscribers of
//! the old one over a Unix socket, and goes on.
//!
//! ```text
//!   new (taking)                              old (giving)
//!     hello: version, address       ──►
//!                                   ◄──   here: listening sockets, which streams there are
//!     wanted: which of them         ──►
//!                                   ◄──   events: what the logs hold, while both go on as ever
//!                                   ◄──   subscribers: their sockets; nothing of theirs is read any more
//!                                         ·· from here on nothing moves
//!                                   ◄──   the last events, what else is known of the logs, where each subscriber stands
//!     taken                         ──►
//!     serves, closes the connection ──►
//!                                           sends away who could not be handed over, and ends
//! ```
//!
//! - Until `taken` has been said the streams are the old process's: if the new one fails before that, everything goes on there.
//!   From then on they are the new one's. It is one small message, and who gives up waiting for it first closes the way that it
//!   would come: so both know in any case whether it has been said.
//! - Neither process writes to a subscriber's socket while the other may. Where it stands in the middle of a frame, the rest goes along.
//! - What is [sent](protocol) may come from another version of this program: what is not known is passed over.

mod giving;
mod going;
mod link;
mod protocol;
mod standstill;
mod taking;

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;
use tokio::net::{UnixListener, UnixStream};

use crate::admin;
use crate::listen::Listeners;

pub use giving::Giver;
pub use taking::{Heir, Legacy};

/// The other process has so long for each step, as long as nobody waits for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a process begins with: everything that may fail has been done, and nothing has been taken yet from a process that has it.
pub struct Beginning {
    /// Where clients come.
    pub listeners: Listeners,
    /// Where those come who run it.
    pub admin: Option<Listeners>,
    /// Where the next process comes.
    pub post: Option<Post>,
    /// What it takes over, if there is somebody to take over from.
    pub heir: Option<Heir>,
}

impl Beginning {
    /// Of a process that is to listen on `address`, and for administration on `admin`; and that takes over from whoever listens at
    /// `path`.
    pub async fn find(path: Option<&Path>, address: &str, admin: Option<&str>) -> Result<Self> {
        let (mut heir, mut post) = (None, None);
        if let Some(path) = path {
            heir = taking::reach(path, address).await?;
            post = Some(Post::prepare(path)?);
        }
        let listeners = match &mut heir {
            Some(heir) => heir.listeners()?,
            None => Listeners::handed_or_bound(address).await?,
        };
        let admin = match (admin, &mut heir) {
            (Some(address), Some(heir)) => Some(heir.admin(address).await?),
            (Some(address), None) => Some(admin::listen(address).await?),
            (None, Some(_)) => None,
            (None, None) => admin::handed()?,
        };
        if let (Some(post), None) = (&mut post, &heir) {
            post.open()?;
        }
        Ok(Self {
            listeners,
            admin,
            post,
            heir,
        })
    }
}

/// A Unix socket at which the next process may ask.
pub struct Post {
    listener: UnixListener,
    path: PathBuf,
    /// Where it is until everything else is ready.
    temporary: Option<PathBuf>,
    /// Which file it is.
    inode: u64,
}

impl Post {
    /// Gets it ready, beside its place: whoever may listen there still does.
    pub fn prepare(path: &Path) -> Result<Self> {
        let cannot = || format!("cannot listen at --takeover {}", path.display());
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{}", std::process::id()));
        let temporary = PathBuf::from(name);
        // Left by a process that had this number and was killed.
        let _ = fs::remove_file(&temporary);
        let listener = UnixListener::bind(&temporary).with_context(cannot)?;
        let post = Self {
            listener,
            path: path.to_owned(),
            inode: fs::metadata(&temporary).with_context(cannot)?.ino(),
            temporary: Some(temporary.clone()),
        };
        fs::set_permissions(&temporary, fs::Permissions::from_mode(0o600)).with_context(cannot)?;
        Ok(post)
    }

    /// Puts it in its place.
    pub fn open(&mut self) -> Result<()> {
        if let Some(temporary) = &self.temporary {
            let cannot = || format!("cannot listen at --takeover {}", self.path.display());
            fs::rename(temporary, &self.path).with_context(cannot)?;
            self.temporary = None;
        }
        Ok(())
    }

    /// The next process that asks, and may: one of the same user.
    async fn accept(&self) -> io::Result<UnixStream> {
        let (socket, _) = self.listener.accept().await?;
        let other = socket_peercred(socket.as_fd())?;
        match other.uid == geteuid() {
            true => Ok(socket),
            false => Err(io::Error::other(format!(
                "process {} is another user's",
                other.pid.as_raw_nonzero()
            ))),
        }
    }

    /// Another process listens in its place now.
    fn leave(mut self) {
        self.inode = 0;
    }
}

/// Takes its file away, if that is still its own.
impl Drop for Post {
    fn drop(&mut self) {
        let path = self.temporary.as_ref().unwrap_or(&self.path);
        if fs::symlink_metadata(path).is_ok_and(|file| file.ino() == self.inode) {
            let _ = fs::remove_file(path);
        }
    }
}

/// A connection to the process that listens at `path`; none if there is none.
async fn connect(path: &Path) -> Result<Option<UnixStream>> {
    let cannot = || format!("cannot take over at {}", path.display());
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Ok(file) if !file.file_type().is_socket() && !file.is_symlink() => bail!(
            "--takeover {}: there is something else than a socket; give another path",
            path.display()
        ),
        result => result.with_context(cannot)?,
    };
    let socket = match UnixStream::connect(path).await {
        // Whoever listened there has gone.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::ConnectionRefused | ErrorKind::NotFound
            ) =>
        {
            return Ok(None);
        }
        result => result.with_context(cannot)?,
    };
    let other = socket_peercred(socket.as_fd()).with_context(cannot)?;
    if other.uid != geteuid() {
        bail!(
            "{}: the process that listens at {} is another user's",
            cannot(),
            path.display()
        );
    }
    Ok(Some(socket))
}
