//! Whether an upstream can be reached, and what it says.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use hyper::Method;
use hyper::client::conn::http1;
use hyper::header;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tokio_util::either::Either;

use super::certificate::{self, Validity};
use super::{Finding, clock};
use crate::source::http::client::{Answer, Client, EVENT_STREAM_OR_NDJSON};
use crate::source::presence::Named;
use crate::source::upstream::{CONNECT_TIMEOUT, Stream, Upstream, get, open_stream_at};

const AREA: &str = "upstream";

/// Connects as a hop would; with it comes what its certificate and its clock say. Of a template for many streams there is no stream to be had.
pub async fn look(upstream: &Upstream, is_template: bool) -> Vec<Finding> {
    let mut findings = vec![];
    let stream = match connect(upstream).await {
        Ok(stream) => stream,
        Err(finding) => return vec![finding],
    };
    findings.extend(validity(upstream, &stream));
    if let Ok(Ok(finding)) = timeout(CONNECT_TIMEOUT, skew(upstream, stream)).await {
        findings.push(finding);
    }
    let name = upstream.to_string();
    if is_template {
        findings.push(Finding::ok(
            AREA,
            format!("{name}: its server takes connections (which stream, a client says)"),
        ));
        return findings;
    }
    findings.push(match subscribe(upstream).await {
        Ok(what) => Finding::ok(AREA, format!("{name} {what}")),
        Err(error) => unreached(upstream, &error),
    });
    findings
}

/// Whether somebody takes connections there who speaks a protocol of his own.
pub async fn reach(upstream: &Upstream) -> Vec<Finding> {
    match connect(upstream).await {
        Ok(stream) => {
            let reached = Finding::ok(AREA, format!("{upstream}: its server takes connections"));
            let validity = validity(upstream, &stream);
            validity.into_iter().chain([reached]).collect()
        }
        Err(finding) => vec![finding],
    }
}

async fn connect(upstream: &Upstream) -> Result<Stream, Finding> {
    let connecting = open_stream_at(upstream.address, &upstream.url, upstream.tls.as_ref());
    let connected = timeout(CONNECT_TIMEOUT, connecting).await;
    let connected = connected.unwrap_or_else(|_| bail!("no answer within {CONNECT_TIMEOUT:?}"));
    connected.map_err(|error| unreached(upstream, &error))
}

fn unreached(upstream: &Upstream, error: &anyhow::Error) -> Finding {
    let reason = upstream.reason(error);
    Finding::problem(
        AREA,
        format!("{upstream}: {reason}"),
        "see that it runs, that the URL is right, and what is between (wsevent tail URL tries it, too)",
    )
}

/// How long the certificate holds that it shows.
fn validity(upstream: &Upstream, stream: &Stream) -> Option<Finding> {
    let Either::Right(stream) = stream else {
        return None;
    };
    let first = stream.get_ref().1.peer_certificates()?.first()?;
    let advice = "whoever runs that server is to renew it";
    Some(certificate::judge(
        &upstream.to_string(),
        Validity::of(first),
        SystemTime::now(),
        advice,
    ))
}

/// What its clock is beside ours, if it speaks HTTP and says so.
async fn skew(upstream: &Upstream, stream: Stream) -> Result<Finding> {
    let mut request = get(&upstream.url)?;
    *request.method_mut() = Method::HEAD;
    upstream.introduce(request.headers_mut()).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move { drop(connection.await) });
    let asked = SystemTime::now();
    let response = sender.send_request(request).await?;
    let answered = SystemTime::now();
    let date = response.headers().get(header::DATE).context("no Date")?;
    let theirs = httpdate::parse_http_date(date.to_str()?)?;
    Ok(clock::skew(&upstream.to_string(), theirs, asked, answered))
}

/// Subscribes once, as a source would. What it is.
async fn subscribe(upstream: &Upstream) -> Result<String> {
    if matches!(upstream.url.scheme(), "ws" | "wss") {
        let mut offer = crate::source::websocket::Offer::default();
        let connected = offer.connect(upstream).await?;
        return Ok(match connected.instance {
            Some(instance) if connected.is_hop => format!("is a stream of wsevent {instance}"),
            _ => "is a WebSocket".to_owned(),
        });
    }
    let mut client = Client::new(upstream.clone().into(), EVENT_STREAM_OR_NDJSON);
    // As long as one attempt of a source takes at most, and a little more.
    let opened = timeout(CONNECT_TIMEOUT + Duration::from_secs(1), client.open()).await;
    match opened.context("no answer in time")?? {
        Answer::Stream(stream) => Ok(format!("is an event stream ({})", stream.transport)),
        Answer::NoContent => bail!("it answered 204: there is nothing more to come"),
    }
}
