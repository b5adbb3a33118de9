//! What the reverse proxy takes apart, and what a proxy in front says.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{Reads, option};
use crate::listen::proxied::{self, Failure, Proxied, Version};
use crate::proxy::front::gate::framing::{Framing, Stop};
use crate::proxy::tunnel::frames::Frames;

/// The requests of a client that is to be proxied: where each begins and ends, and which must not pass, is the same however they come.
pub fn proxy_requests(input: &[u8]) {
    Reads::of(input).each_way(|reads| {
        let mut framing = Framing::default();
        // As the gate does: what may not pass yet is given again.
        let (mut held, mut passed) = (vec![], 0);
        for read in reads {
            held.extend_from_slice(read);
            let (len, stop) = framing.advance(&held);
            assert!(len <= held.len());
            held.drain(..len);
            passed += len;
            match stop {
                // How much of what is broken has passed depends on how much of it has come, and so does which of its flaws is seen.
                Some(Stop::Body(reason)) => {
                    assert!(!reason.contains('\n'), "{reason:?}");
                    return (None, Some("a broken body"));
                }
                // When it is seen, and what of all that is wrong, depends on that as well; that it does not pass does not.
                Some(Stop::Head(status, reason)) => {
                    assert!(status.is_client_error() || status.is_server_error());
                    assert!(!reason.contains('\n'), "{reason:?}");
                    break;
                }
                Some(Stop::Handshake) => return (Some(passed), Some("a handshake")),
                Some(Stop::Http2) => return (Some(passed), Some("HTTP/2")),
                None => {}
            }
        }
        (Some(passed), None)
    });
}

/// What a WebSocket through the proxy carries, in either direction: where its frames end is the same however it comes.
pub fn proxy_tunnel(input: &[u8]) {
    let (options, input) = option(input);
    Reads::of(input).each_way(|reads| {
        let mut frames = match options & 1 {
            0 => Frames::of_client(),
            _ => Frames::of_server(),
        };
        for read in reads {
            let ahead = frames.distance(read, Frames::at_boundary);
            assert!(ahead.is_none_or(|ahead| ahead <= read.len()));
            frames.pass(read);
        }
        (frames.at_boundary(), frames.closed())
    });
}

/// A connection of which a proxy says whose it is. Whatever is understood is said again in both versions, and what is behind the header stays
/// where it is.
pub fn proxy_header(input: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let reads = Reads::of(input);
        let Some((proxied, rest)) = header(reads.iter().collect()).await else {
            assert!(header(vec![reads.bytes]).await.is_none(), "in one read");
            return;
        };
        assert!(reads.bytes.ends_with(&rest), "what follows is untouched");
        for version in [Version::V1, Version::V2] {
            let written = [&proxied::write(version, proxied)[..], &rest].concat();
            let again = header(vec![&written]).await;
            assert_eq!(again, Some((proxied, rest.clone())), "{version}");
        }
    });
}

/// What a header says, and what is behind it. Nothing if it says nothing that stands for itself.
async fn header(reads: Vec<&[u8]>) -> Option<(Proxied, Vec<u8>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a free port");
    let address = listener.local_addr().expect("it listens");
    let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (mut client, (mut server, own)) = (client.expect("connects"), server.expect("accepts"));
    client.set_zero_linger().expect("it is a socket");
    let mut proxied = None;
    let reading = async {
        proxied = Some(proxied::read(&mut server).await);
    };
    let writing = async {
        for read in &reads {
            // It may have heard enough.
            if client.write_all(read).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        let _ = client.shutdown().await;
    };
    tokio::join!(reading, writing);
    match proxied.expect("it has been read") {
        Ok(proxied) => {
            let mut rest = vec![];
            server
                .read_to_end(&mut rest)
                .await
                .expect("nothing is lost");
            let itself = Proxied {
                source: own,
                destination: address,
            };
            (proxied != itself).then(|| (canonical(proxied), rest))
        }
        Err(Failure::Io(error)) => panic!("{error}"),
        Err(Failure::Ended | Failure::Malformed(_)) => None,
    }
}

/// One family, as a header has it.
fn canonical(proxied: Proxied) -> Proxied {
    let canonical =
        |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    Proxied {
        source: canonical(proxied.source),
        destination: canonical(proxied.destination),
    }
}
