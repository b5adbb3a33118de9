//! Interim answers (1xx), which hyper's server cannot send but for one.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use hyper::ext::on_informational;
use hyper::header::HeaderMap;
use hyper::{Request, StatusCode};
use tokio::sync::{mpsc, oneshot};

use super::head;
use crate::proxy::body::Upload;
use crate::proxy::front::gate::Control;
use crate::proxy::headers;

/// The interim answers (1xx) to one request, on their way to the client (RFC 9110, section 15.2).
pub struct Interim {
    control: Arc<Control>,
    heads: mpsc::UnboundedReceiver<(StatusCode, Bytes)>,
    /// Lets the body go that waits for 100; hyper tells the client so then.
    go: Option<oneshot::Sender<()>>,
}

impl Interim {
    /// Hears what comes before the final answer to `request`. `go` lets the body go that waits for 100.
    pub fn of(
        request: &mut Request<Upload>,
        control: Arc<Control>,
        go: Option<oneshot::Sender<()>>,
    ) -> Self {
        let (sender, heads) = mpsc::unbounded_channel();
        on_informational(request, move |response| {
            let mut fields = response.headers().clone();
            headers::interim(&mut fields);
            let head = encode(response.status(), &fields);
            let _ = sender.send((response.status(), head));
        });
        Self { control, heads, go }
    }

    /// Waits for the final answer, and passes those before it.
    pub async fn passed_while<T>(&mut self, answer: impl Future<Output = T>) -> T {
        let mut answer = pin!(answer);
        loop {
            tokio::select! {
                biased;
                Some((status, head)) = self.heads.recv() => match self.go.take() {
                    Some(go) if status == StatusCode::CONTINUE => {
                        let _ = go.send(());
                    }
                    go => {
                        self.go = go;
                        self.control.interim(head).await;
                    }
                },
                answer = &mut answer => return answer,
            }
        }
    }
}

/// An interim answer as it stands on the wire.
fn encode(status: StatusCode, headers: &HeaderMap) -> Bytes {
    let reason = status.canonical_reason().unwrap_or_default();
    head::encode_answer(status, reason.as_bytes(), headers).into()
}
