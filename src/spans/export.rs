//! Brings spans to a collector, by OTLP over HTTP with protobuf (opentelemetry.io/docs/specs/otlp). The variables `OTEL_*` say the rest, as
//! OpenTelemetry has named them: headers, timeout, sampling, batching, name of the service.
//!
//! The library batches and encodes, in a thread of its own; requests go out through this program's own client, so that no other one is built in.

use std::env;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header;
use hyper_util::rt::TokioIo;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_rustls::rustls::ClientConfig;
use tokio_util::task::AbortOnDropHandle;
use tracing::{Subscriber, info, warn};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::registry::LookupSpan;
use url::Url;

use super::TARGET;
use crate::reason;
use crate::source::upstream::{CONNECT_TIMEOUT, open_stream, shown};
use crate::tls::client_config;

/// Where traces are taken, below the URL of a collector.
const TRACES: &str = "v1/traces";
/// An answer of a collector is no longer than this, in bytes.
const MAX_ANSWER: usize = 1 << 20;
/// How long the last spans may take when the process ends.
const LAST: Duration = Duration::from_secs(2);

/// Brings spans to a collector until it is stopped.
pub struct Exporter(SdkTracerProvider);

impl Exporter {
    /// For the collector at this URL, or else at the one that the variables of OpenTelemetry name; none if they name none, or
    /// switch it off. `runtime` runs what is sent.
    pub fn new(collector: Option<&Url>, runtime: Handle) -> Result<Option<Self>> {
        let says = |name: &str, value: &str| env::var(name).is_ok_and(|is| is == value);
        let is_off = says("OTEL_SDK_DISABLED", "true") || says("OTEL_TRACES_EXPORTER", "none");
        let is_set = |name: &str| env::var(name).is_ok_and(|value| !value.is_empty());
        let is_named = collector.is_some()
            || is_set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
            || is_set("OTEL_EXPORTER_OTLP_ENDPOINT");
        if is_off || !is_named {
            return Ok(None);
        }
        let client = Client {
            runtime,
            patience: patience(|name| env::var(name).ok()),
            tls: client_config(None, None)?,
            is_lost: Arc::default(),
        };
        let mut exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_http_client(client);
        if let Some(collector) = collector {
            let base = collector.as_str().trim_end_matches('/');
            exporter = exporter.with_endpoint(format!("{base}/{TRACES}"));
        }
        let exporter = exporter.build().context("traces cannot be exported")?;
        let mut resource = Resource::builder();
        if !is_set("OTEL_SERVICE_NAME") {
            resource = resource.with_service_name("wsevent");
        }
        let version = opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let provider = SdkTracerProvider::builder()
            .with_resource(resource.with_attribute(version).build())
            .with_batch_exporter(exporter)
            .build();
        Ok(Some(Self(provider)))
    }

    /// What takes the spans in, and nothing else.
    pub fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let only = Targets::new().with_target(TARGET, LevelFilter::INFO);
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer("wsevent"))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(only)
    }

    /// Sends what is left. The runtime must still run.
    pub fn stop(self) {
        // Whether it gets there, the client has said.
        let _ = self.0.shutdown_with_timeout(LAST);
    }
}

/// How long a request may take, as OpenTelemetry's variables say, in milliseconds: the library uses them only to try again.
fn patience(variable: impl Fn(&str) -> Option<String>) -> Duration {
    let names = [
        "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
        "OTEL_EXPORTER_OTLP_TIMEOUT",
    ];
    let millis = names
        .iter()
        .find_map(|name| variable(name)?.trim().parse().ok());
    millis.map_or(CONNECT_TIMEOUT, Duration::from_millis)
}

/// Sends what the library has encoded.
struct Client {
    runtime: Handle,
    /// How long one request may take.
    patience: Duration,
    tls: Arc<ClientConfig>,
    /// Whether the last request has failed: the log tells when that changes, not each one.
    is_lost: Arc<AtomicBool>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl HttpClient for Client {
    /// The library waits in a thread of its own; the sockets are the runtime's.
    fn send_bytes<'client, 'sending>(
        &'client self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'sending>>
    where
        'client: 'sending,
        Self: 'sending,
    {
        let (tls, is_lost) = (self.tls.clone(), self.is_lost.clone());
        let patience = self.patience;
        let sending = self.runtime.spawn(async move {
            let to = request.uri().to_string();
            let sent = timeout(patience, send(request, &tls)).await;
            let sent = sent.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer in time")));
            note(&to, &sent, &is_lost);
            sent
        });
        let sending = AbortOnDropHandle::new(sending);
        Box::pin(async move { Ok(sending.await??) })
    }
}

/// Tells the log when the collector is lost, and when it is back.
fn note(to: &str, sent: &Result<Response<Bytes>>, is_lost: &AtomicBool) {
    let reason = match sent {
        Ok(response) if response.status().is_success() => None,
        Ok(response) => Some(format!("it answers {}", response.status())),
        Err(error) => Some(reason::of(error)),
    };
    let url = to.parse().map(|url| shown(&url).to_string());
    let url = url.unwrap_or_default();
    let was_lost = is_lost.swap(reason.is_some(), Ordering::Relaxed);
    match reason {
        Some(reason) if !was_lost => warn!(url, reason, "cannot bring traces to the collector"),
        None if was_lost => info!(url, "traces are brought to the collector again"),
        _ => {}
    }
}

/// Sends one request over a connection of its own: there is one every few seconds at most.
async fn send(request: Request<Bytes>, tls: &Arc<ClientConfig>) -> Result<Response<Bytes>> {
    let url: Url = request.uri().to_string().parse()?;
    let stream = open_stream(&url, Some(tls)).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(async move { drop(connection.await) });
    let _connection = AbortOnDropHandle::new(connection);
    let (mut parts, body) = request.into_parts();
    let authority = parts.uri.authority().context("the URL has no host")?;
    let host = authority.as_str().rsplit('@').next().unwrap_or_default();
    parts.headers.insert(header::HOST, host.parse()?);
    let target = parts
        .uri
        .path_and_query()
        .map_or("/", |target| target.as_str());
    parts.uri = target.parse()?;
    let response = sender
        .send_request(Request::from_parts(parts, Full::new(body)))
        .await?;
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, MAX_ANSWER).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!("its answer cannot be read: {error}"))?;
    Ok(Response::from_parts(parts, body.to_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_say_how_long_a_request_may_take() {
        let of = |traces: Option<&str>, all: Option<&str>| {
            patience(|name| match name {
                "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT" => traces.map(str::to_owned),
                _ => all.map(str::to_owned),
            })
        };
        assert_eq!(of(None, None), CONNECT_TIMEOUT);
        assert_eq!(of(None, Some("250")), Duration::from_millis(250));
        assert_eq!(of(Some("30000"), Some("250")), Duration::from_secs(30));
        assert_eq!(of(Some("soon"), Some("250")), Duration::from_millis(250));
    }
}
