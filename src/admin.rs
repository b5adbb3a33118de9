//! The address for those who run a hop: whether it lives, whether it is ready, and its figures. A listener of its own, so that it
//! answers while the hop's is full, and to those only who reach it.
//!
//! | path | answer |
//! | --- | --- |
//! | `/-/live` | 200 while the process runs |
//! | `/-/ready` | 200 if there is no [obstacle](readiness); else 503, and a line for each |
//! | `/-/metrics` | the [figures](crate::metrics) |
//! | `/-/streams` | the [streams], or one of them, as JSON |
//! | `/-/topology` | what `wsevent topology` prints of this hop, in the same formats |
//! | `/-/version` | what it is, as JSON |

mod readiness;
mod streams;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use clap::ValueEnum;
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info};
use url::form_urlencoded;

use crate::endpoint::answer::choose;
use crate::endpoint::body::{Body, full};
use crate::http_message::check_host;
use crate::listen::admission::{Admitted, OfEach};
use crate::listen::entrance::{Bounds, Entrance};
use crate::listen::rate::Rate;
use crate::listen::refusal::LINGER;
use crate::listen::{Listeners, handed};
use crate::metrics::{Exposition, Metrics};
use crate::reason;
use crate::route::{Routes, part};
use crate::server::limits::Keeper;
use crate::shutdown::Stop;
use crate::topology::Format;
use crate::topology::answer::{Question, told_to};
use readiness::Readiness;
use streams::Wanted;

/// At most so many connections.
const CONNECTIONS: usize = 64;
/// And so many new ones a second from one address; any number from this machine itself.
const HANDSHAKES: NonZeroU32 = NonZeroU32::new(200).expect("above 0");
/// A connection may be so long without a whole request, and may take nothing of an answer for so long: more than the pause
/// between two scrapes, as a rule.
const PATIENCE: Duration = Duration::from_secs(75);
/// The longest head of a request, in bytes.
const MAX_HEADER_SIZE: usize = 16 << 10;

/// Listens at `address`, for [`Admin::start`].
pub async fn listen(address: &str) -> Result<Listeners> {
    let listeners = match handed()? {
        Some(listeners) => return Ok(listeners),
        None => Listeners::bind(address).await.context("--admin-address")?,
    };
    listeners.notice_the_dead(Some(PATIENCE))?;
    Ok(listeners)
}

/// Listens on what has been handed over for this, if anything has.
pub fn handed() -> Result<Option<Listeners>> {
    let Some(listeners) = handed::take(handed::For::Admin)? else {
        return Ok(None);
    };
    listeners.notice_the_dead(Some(PATIENCE))?;
    Ok(Some(listeners))
}

/// Answers until it is closed.
pub struct Admin {
    closing: CancellationToken,
    serving: JoinHandle<()>,
}

impl Admin {
    /// Tells how the hop is that serves `routes`, lets clients in by `keeper`, and is about to stop once `stop` has begun.
    pub fn start(
        listeners: Listeners,
        routes: Arc<Routes>,
        keeper: Arc<Keeper>,
        stop: Stop,
    ) -> Result<Self> {
        for address in listeners.addresses()? {
            info!(%address, "listening for administration");
        }
        let closing = CancellationToken::new();
        let office = Arc::new(Office {
            version: Version::new(&routes),
            metrics: Metrics::new(routes.clone(), keeper),
            readiness: Readiness {
                routes: routes.clone(),
                stop,
            },
            routes,
        });
        Ok(Self {
            serving: tokio::spawn(serve(listeners, office, closing.clone())),
            closing,
        })
    }

    /// Ends its connections, those last that are being answered, and waits for that.
    pub async fn close(self) {
        self.closing.cancel();
        let _ = self.serving.await;
    }
}

async fn serve(mut listeners: Listeners, office: Arc<Office>, closing: CancellationToken) {
    let bounds = Bounds {
        connections: Some(CONNECTIONS),
        of_address: OfEach::address(CONNECTIONS),
        handshakes: OfEach {
            limit: Rate(HANDSHAKES),
            on_loopback: false,
        },
    };
    let entrance = Entrance::new(bounds, true);
    let tasks = TaskTracker::new();
    while let Some((socket, address)) = closing.run_until_cancelled(listeners.accept()).await {
        match entrance.enter(address) {
            Ok(admitted) => {
                let (office, closing) = (office.clone(), closing.clone());
                tasks.spawn(connection(socket, address, admitted, office, closing));
            }
            Err(no_room) => {
                if let Some(telling) = entrance.turn_away(socket, no_room) {
                    tasks.spawn(telling);
                }
            }
        }
    }
    drop(listeners);
    tasks.close();
    let _ = timeout(LINGER, tasks.wait()).await;
}

async fn connection(
    socket: TcpStream,
    address: SocketAddr,
    _admitted: Admitted,
    office: Arc<Office>,
    closing: CancellationToken,
) {
    let service = service_fn(|request: Request<Incoming>| {
        let office = office.clone();
        async move { Ok::<_, Infallible>(office.answer(&request.into_parts().0).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // That is the time without a request as well.
        .header_read_timeout(PATIENCE)
        .max_buf_size(MAX_HEADER_SIZE)
        .serve_connection(TokioIo::new(socket), service);
    let mut connection = pin!(connection);
    let result = tokio::select! {
        result = &mut connection => result,
        () = closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        let error = reason::of(&error.into());
        debug!(%address, %error, "connection for administration failed");
    }
}

/// What there is to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    Live,
    Ready,
    Metrics,
    Streams,
    Topology,
    Version,
}

const SUBJECTS: [(&str, Subject); 6] = [
    ("/-/live", Subject::Live),
    ("/-/ready", Subject::Ready),
    ("/-/metrics", Subject::Metrics),
    ("/-/streams", Subject::Streams),
    ("/-/topology", Subject::Topology),
    ("/-/version", Subject::Version),
];

/// Knows the answers.
struct Office {
    routes: Arc<Routes>,
    readiness: Readiness,
    metrics: Metrics,
    version: Version,
}

impl Office {
    async fn answer(self: &Arc<Self>, request: &Parts) -> Response<Body> {
        if let Err(wrong) = check_host(request) {
            return line(StatusCode::BAD_REQUEST, wrong);
        }
        let path = request.uri.path();
        let Some((_, subject)) = SUBJECTS.iter().find(|(subject, _)| *subject == path) else {
            let paths = SUBJECTS.map(|(path, _)| path).join(" ");
            let reason = format!("there is nothing at this path; what there is: {paths}");
            return line(StatusCode::NOT_FOUND, &reason);
        };
        if !matches!(request.method, Method::GET | Method::HEAD) {
            let reason = "this method is not possible here";
            let mut response = line(StatusCode::METHOD_NOT_ALLOWED, reason);
            let methods = HeaderValue::from_static("GET, HEAD");
            response.headers_mut().insert(header::ALLOW, methods);
            return response;
        }
        match subject {
            Subject::Live => line(StatusCode::OK, "live"),
            Subject::Ready => self.ready(),
            Subject::Metrics => self.metrics(request).await,
            Subject::Streams => self.streams(request).await,
            Subject::Topology => self.topology(request).await,
            Subject::Version => {
                let json = serde_json::to_string(&self.version).expect("names are JSON");
                said(StatusCode::OK, "application/json", json + "\n")
            }
        }
    }

    fn ready(&self) -> Response<Body> {
        let obstacles = self.readiness.obstacles();
        match obstacles.is_empty() {
            true => line(StatusCode::OK, "ready"),
            false => line(StatusCode::SERVICE_UNAVAILABLE, &obstacles.join("\n")),
        }
    }

    async fn streams(&self, request: &Parts) -> Response<Body> {
        let wanted = match Wanted::of(request.uri.query().unwrap_or_default()) {
            Ok(wanted) => wanted,
            Err(reason) => return line(StatusCode::BAD_REQUEST, reason),
        };
        match wanted.list(&self.routes, request.uri.path()).await {
            Some(json) => said(StatusCode::OK, "application/json", json),
            None => {
                let reason =
                    "there is no stream at this path now: see /-/streams for what there is";
                line(StatusCode::NOT_FOUND, reason)
            }
        }
    }

    /// What whoever may see all is told of this hop, and of those upstream of it as it may see them.
    async fn topology(&self, request: &Parts) -> Response<Body> {
        let query = request.uri.query().unwrap_or_default();
        let format = format_in(query);
        let (question, format) = match (Question::of_topology(query), format) {
            (Ok(question), Ok(format)) => (question, format),
            (Err(reason), _) | (_, Err(reason)) => return line(StatusCode::BAD_REQUEST, reason),
        };
        let target = question.target();
        let target = target.map(|target| part::at(&self.routes, None, target));
        if let Some(None) = target {
            let reason = "there is no stream at the path that of= names";
            return line(StatusCode::NOT_FOUND, reason);
        }
        let told = told_to(&self.routes, None, &question, target.flatten(), &|_, _| {
            true
        })
        .await;
        let content_type = match format {
            Format::Json => "application/json",
            Format::Puml | Format::Mermaid | Format::Dot => TEXT,
        };
        said(StatusCode::OK, content_type, format.render(&told))
    }

    async fn metrics(self: &Arc<Self>, request: &Parts) -> Response<Body> {
        // Whoever asks for something else is a person who wants to see it.
        let exposition = choose(&request.headers, &Exposition::OFFERED);
        let exposition = exposition.unwrap_or(Exposition::Prometheus);
        let office = self.clone();
        // There may be many streams, and whoever is served meanwhile is not to wait for that.
        let figures = office.metrics.figures().await;
        match spawn_blocking(move || figures.text(exposition)).await {
            Ok(text) => said(StatusCode::OK, exposition.content_type(), text),
            Err(_) => line(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the figures cannot be had",
            ),
        }
    }
}

/// A line of plain text, or several.
fn line(status: StatusCode, text: &str) -> Response<Body> {
    said(status, TEXT, format!("{text}\n"))
}

const TEXT: &str = "text/plain; charset=utf-8";

/// How a topology is to be written, as a query says.
fn format_in(query: &str) -> Result<Format, &'static str> {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    match pairs.find(|(name, _)| name == "format") {
        None => Ok(Format::Json),
        Some((_, format)) => Format::from_str(&format, false)
            .map_err(|_| "?format= is one of json, puml, mermaid and dot"),
    }
}

fn said(status: StatusCode, content_type: &'static str, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(text));
    *response.status_mut() = status;
    for (name, value) in [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}

/// What runs here.
#[derive(Serialize)]
struct Version {
    version: &'static str,
    /// The kinds of buses that are built in and need not be.
    features: Vec<&'static str>,
    /// The name of this process in the ids of its events, and in the lists of streams.
    instance: String,
    /// Where it serves, in its own words.
    address: String,
}

impl Version {
    fn new(routes: &Routes) -> Self {
        let features = [
            ("redis", cfg!(feature = "redis")),
            ("nats", cfg!(feature = "nats")),
            ("zeromq", cfg!(feature = "zeromq")),
        ];
        let features = features.into_iter().filter(|(_, is_built_in)| *is_built_in);
        Self {
            version: env!("CARGO_PKG_VERSION"),
            features: features.map(|(name, _)| name).collect(),
            instance: routes.instance().to_string(),
            address: routes.address().to_owned(),
        }
    }
}
