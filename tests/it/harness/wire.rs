//! A wire to a server, which can be cut.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::port::ReservedPort;

/// Hands connections on to a server; from outside it is the server.
pub struct Wire {
    port: ReservedPort,
    /// Where to; each change cuts what is connected.
    target: watch::Sender<SocketAddr>,
}

impl Wire {
    pub fn to(target: SocketAddr) -> Self {
        let port = ReservedPort::new();
        let listener = port.listen();
        let (target, seen) = watch::channel(target);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut seen = seen.clone();
                let target = *seen.borrow_and_update();
                tokio::spawn(async move {
                    if let Ok(mut server) = TcpStream::connect(target).await {
                        tokio::select! {
                            _ = copy_bidirectional(&mut client, &mut server) => {}
                            _ = seen.changed() => {}
                        }
                    }
                });
            }
        });
        Self { port, target }
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Cuts all connections; those that are made from now on lead there.
    pub fn cut(&self, target: SocketAddr) {
        self.target.send_replace(target);
    }
}
