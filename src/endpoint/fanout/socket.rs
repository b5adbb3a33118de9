//! The socket of a subscriber whose bytes go out as they are.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
#[cfg(test)]
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::net::TcpStream;

#[cfg(test)]
use super::model;

/// A client's socket, which its task reads, and which whoever has the right to write writes to.
pub enum Socket {
    /// One of the system's.
    Tcp(TcpStream),
    /// What stands for one where the hand-over between driver and task is [checked](model).
    #[cfg(test)]
    Model(Arc<model::Socket>),
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            #[cfg(test)]
            Self::Model(_) => unreachable!("it is not handed over"),
        }
    }
}

impl Socket {
    /// Reads what there is; 0 at the end.
    pub fn poll_read(
        &self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(socket) => loop {
                ready!(socket.poll_read_ready(context))?;
                match socket.try_read(buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    result => return Poll::Ready(result),
                }
            },
            #[cfg(test)]
            Self::Model(_) => Poll::Pending,
        }
    }

    /// Ready when there may be room; else `context` is woken when there is.
    pub fn poll_write_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(socket) => socket.poll_write_ready(context),
            #[cfg(test)]
            Self::Model(socket) => socket.poll_write_ready(context),
        }
    }

    /// Writes what there is room for; `Ok(0)` when there is none.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => match socket.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
                result => result,
            },
            #[cfg(test)]
            Self::Model(socket) => Ok(socket.write(bytes)),
        }
    }

    /// Says that no more will be written.
    pub fn shut_down(&self) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => SockRef::from(socket).shutdown(Shutdown::Write),
            #[cfg(test)]
            Self::Model(_) => Ok(()),
        }
    }
}
