//! `wsevent forwarder`: a fixed point between ZeroMQ publishers and subscribers that come and go.
//!
//! Publishers connect to an XSUB socket, subscribers to an XPUB socket. What begins with what somebody subscribes to is asked for at all
//! publishers, and passes unchanged, all of its frames, to those who subscribe to it. What nobody wants is not even sent here.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::accept;
use super::intake::{Batch, Intake};
use super::publisher::{PATIENCE, Publisher};
use crate::listen::Listeners;
use crate::wire::zmtp::{Item, Socket};

/// What the flags say.
pub struct Config {
    /// `host:port` where publishers connect.
    pub input: String,
    /// `host:port` where subscribers connect.
    pub output: String,
    /// The longest message that passes, in bytes, with the heads of its frames.
    pub max_message_size: usize,
    /// How often those who are silent are asked whether they are there.
    pub ping_interval: Duration,
    /// How long what is on its way may take when stopping.
    pub drain: Duration,
}

/// Forwards until `stop` is cancelled, and then what has come by then.
pub async fn run(config: Config, stop: CancellationToken) -> Result<()> {
    let input = Listeners::bind(&config.input).await.context("--in")?;
    let output = Listeners::bind(&config.output).await.context("--out")?;
    for (listeners, side, peers) in [
        (&input, "in", "publishers"),
        (&output, "out", "subscribers"),
    ] {
        for address in listeners.addresses()? {
            info!(%address, side, peers, url = %format_args!("zmq+tcp://{address}"), "listening");
        }
    }
    let (size, interval) = (config.max_message_size, config.ping_interval);
    let (intake, batches) = Intake::new(Socket::XSub, size, interval);
    let publisher = Publisher::new(Socket::XPub, Some(intake.clone()), interval);
    let to_all = publisher.clone();
    let serve =
        move |socket, address: SocketAddr| to_all.clone().serve(socket, address.to_string());
    let _subscribers = AbortOnDropHandle::new(tokio::spawn(accept(output, "subscriber", serve)));
    let serve = move |socket, _| intake.clone().serve(socket);
    let publishers = AbortOnDropHandle::new(tokio::spawn(accept(input, "publisher", serve)));
    let pass = pass(batches, publisher.clone(), stop.clone());
    let passing = tokio::spawn(pass);
    stop.cancelled().await;
    // No more comes then; what has come goes out.
    drop(publishers);
    let drained = async {
        passing.await?;
        publisher.settle(None).await;
        anyhow::Ok(())
    };
    match timeout(config.drain, drained).await {
        Ok(result) => {
            result?;
            info!("stopped");
        }
        Err(_) => warn!(drain = ?config.drain, "stopped before all messages were out"),
    }
    Ok(())
}

/// Publishes what publishers send, in the order in which it has come, until they are no more accepted.
async fn pass(
    mut batches: mpsc::Receiver<Batch>,
    publisher: Arc<Publisher>,
    stop: CancellationToken,
) {
    let mut too_long: u64 = 0;
    loop {
        let batch = tokio::select! {
            biased;
            batch = batches.recv() => batch,
            // Those who subscribe hold the other end as well, so it is not closed.
            () = stop.cancelled() => batches.try_recv().ok(),
        };
        let Some(batch) = batch else { return };
        for item in batch {
            match item {
                Item::Message(message) => publisher.publish(&message),
                Item::TooLong(bytes) => {
                    too_long += 1;
                    if too_long.is_power_of_two() {
                        warn!(
                            bytes,
                            too_long, "message not forwarded: it is too long (--max-message-size)"
                        );
                    }
                }
                Item::Command(_) => {}
            }
        }
        publisher.settle(Some(PATIENCE)).await;
    }
}
