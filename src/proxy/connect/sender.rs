//! A connection to an upstream that HTTP/1.1 is spoken on, and that may leave hyper behind the head of an answer.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::SendRequest;
use hyper::{Request, Response};
use tokio::sync::oneshot;
use tracing::debug;

use super::handshake;
use super::sluice::{Armed, Control, Sluice};
use crate::listen::stream::Stream;
use crate::proxy::body::Upload;
use crate::proxy::tunnel::Side;

/// Sends requests on one connection, one at a time.
pub struct Sender {
    requests: SendRequest<Upload>,
    sluice: Arc<Control>,
    /// The connection, if it is taken.
    taken: oneshot::Receiver<Side>,
}

impl Sender {
    /// Nothing has been said on `stream`. A task of its own does the connection's work until it ends, or is taken.
    pub async fn new(stream: Stream) -> hyper::Result<Self> {
        let sluice = Sluice::new(stream);
        let control = sluice.control();
        let (requests, mut link) = handshake(sluice).await?;
        let (to, taken) = oneshot::channel();
        let sender = Self {
            requests,
            sluice: control.clone(),
            taken,
        };
        tokio::spawn(async move {
            // Being taken wakes this task, as it waits for what the sluice withholds.
            let ended = poll_fn(|cx| match Pin::new(&mut link).poll(cx) {
                Poll::Pending if control.is_taken() => Poll::Ready(None),
                poll => poll.map(Some),
            });
            match ended.await {
                None => {
                    let parts = link.into_parts();
                    let (stream, withheld) = parts.io.into_inner().into_parts();
                    let early = match parts.read_buf.is_empty() {
                        true => withheld,
                        false => joined(&parts.read_buf, &withheld),
                    };
                    // If nobody waits for it any more, it is closed.
                    let _ = to.send(Side { stream, early });
                }
                Some(Err(error)) => debug!(%error, "connection to an upstream failed"),
                Some(Ok(())) => {}
            }
        });
        Ok(sender)
    }

    /// Whether the next request could be sent now.
    pub fn is_ready(&self) -> bool {
        self.requests.is_ready()
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.requests.is_closed()
    }

    /// Has what is behind the head of the next answer withheld from hyper, until it is taken, or what this gives is dropped.
    pub fn arm(&self) -> Armed {
        self.sluice.arm()
    }

    /// Sends a request, and waits for the head of its answer.
    pub fn send(
        &mut self,
        request: Request<Upload>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<Upload>>>> {
        self.requests.try_send_request(request)
    }

    /// The connection, once it has been taken behind the head of the answer whose body is `body`; none if it has ended.
    pub async fn taken(self, body: Incoming) -> Option<Side> {
        let Self {
            requests, taken, ..
        } = self;
        let side = taken.await;
        // hyper would close a connection that nobody asks anything, and nobody listens to.
        drop((requests, body));
        side.ok()
    }
}

fn joined(first: &[u8], second: &[u8]) -> Bytes {
    let mut all = BytesMut::from(first);
    all.extend_from_slice(second);
    all.freeze()
}
