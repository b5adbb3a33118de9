//! The entrance of a hop: whose connection is let in, and who is told to come later.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;

use super::admission::{Admission, Admitted, NoRoom, OfEach, most_connections};
use super::rate::{OfAddresses, Rate};
use super::refusal::{TurningAway, say_later};
use super::sampled::Sampled;
use super::streams::Streams;

/// What is let in.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// The most connections; none: as many as the limit of open files allows.
    pub connections: Option<usize>,
    /// The most connections of one address.
    pub of_address: OfEach<usize>,
    /// How many connections one address may make a second.
    pub handshakes: OfEach<Rate>,
}

/// Lets clients in, as long as there is room.
pub struct Entrance {
    admission: Arc<Admission>,
    handshakes: OfEach<OfAddresses>,
    is_plain: bool,
    turning_away: TurningAway,
    refused: [Arc<Sampled>; 3],
}

impl Entrance {
    /// Lets in what is within these bounds. `is_plain`: a client can be told in plain HTTP why it is not let in; with TLS it cannot.
    pub fn new(bounds: Bounds, is_plain: bool) -> Arc<Self> {
        let most = bounds.connections.unwrap_or_else(|| most_connections(1));
        let refused = || Sampled::new("connection refused");
        Arc::new(Self {
            admission: Admission::new(most, Some(bounds.of_address)),
            handshakes: OfEach {
                limit: OfAddresses::new(bounds.handshakes.limit),
                on_loopback: bounds.handshakes.on_loopback,
            },
            is_plain,
            turning_away: TurningAway::default(),
            refused: [refused(), refused(), refused()],
        })
    }

    /// How many are in, and how many may be.
    pub fn connections(&self) -> (usize, usize) {
        self.admission.open_of_most()
    }

    /// Lets a connection in, or says why not.
    pub fn enter(&self, address: SocketAddr) -> Result<Admitted, NoRoom> {
        let entered = self.entered(address);
        if let Err(no_room) = &entered {
            self.log(address, *no_room);
        }
        entered
    }

    /// Counts a connection that another process has let in.
    pub fn keep(&self, address: SocketAddr) -> Admitted {
        self.admission.keep(address.ip())
    }

    fn entered(&self, address: SocketAddr) -> Result<Admitted, NoRoom> {
        let ip = address.ip();
        let handshakes = self.handshakes.of(ip);
        if handshakes.is_some_and(|handshakes| handshakes.take(ip, 1).is_err()) {
            return Err(NoRoom::Haste);
        }
        self.admission.enter_from(ip)
    }

    /// The requests of an HTTP/2 connection that has been let in: from the second on each needs room as well.
    pub fn streams(&self, address: SocketAddr) -> Arc<Streams> {
        Streams::new(self.admission.clone(), address.ip())
    }

    /// Notes a refusal.
    pub fn log(&self, address: SocketAddr, no_room: NoRoom) {
        let status = no_room.status().as_u16();
        self.refused[no_room as usize].note(address, status, no_room.reason());
    }

    /// What there is to do for a connection that has not been let in, if anything: it is told why, unless many others are just
    /// being told.
    pub fn turn_away(
        self: &Arc<Self>,
        mut socket: TcpStream,
        no_room: NoRoom,
    ) -> Option<impl Future<Output = ()> + Send + use<>> {
        if !self.is_plain || !self.turning_away.has_room() {
            return None;
        }
        let entrance = self.clone();
        Some(async move {
            if let Some(_permit) = entrance.turning_away.permit() {
                say_later(&mut socket, no_room).await;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn haste_counts_before_room_and_both_for_each_address() {
        let rate = Rate(NonZeroU32::new(3).expect("above 0"));
        let entrance = Entrance::new(
            Bounds {
                connections: Some(3),
                of_address: OfEach::address(2),
                handshakes: OfEach::address(rate),
            },
            true,
        );
        let enter = |last: u8| entrance.enter(([192, 0, 2, last], 4711).into());
        let mut inside = vec![enter(1).expect("room"), enter(1).expect("room")];
        assert_eq!(enter(1).err(), Some(NoRoom::OfAddress));
        assert_eq!(enter(1).err(), Some(NoRoom::Haste));
        inside.push(enter(2).expect("room"));
        assert_eq!(enter(3).err(), Some(NoRoom::InAll));
        inside.remove(0);
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        assert!(enter(1).is_ok());
    }
}
