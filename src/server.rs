//! The server: listens, accepts, and brings each request to its endpoint.
//!
//! hyper parses and answers HTTP; a WebSocket leaves it after the 101 as the bare socket, together with whatever the
//! client has sent behind its handshake, and hyper's buffers are gone.

use std::future::{poll_fn, ready};
use std::io;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::http::HeaderValue;
use hyper::http::request::Parts;
use hyper::http::uri::Authority;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Version, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::endpoint::websocket::handshake;
use crate::route::Route;
use crate::stream::Subscription;

/// How often another free port is tried.
const PORT_ATTEMPTS: u32 = 10;
/// Connections that the kernel completes before they are accepted (it has a bound of its own, `somaxconn`).
const BACKLOG: u32 = 4096;
/// A request's head must be here by then, however slowly it arrives.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests are answered at once: who still speaks HTTP after so long does not read the answers.
const HTTP_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest head of a request, in bytes; more is answered with 431.
const MAX_HEAD: usize = 16 << 10;
/// How long accepting pauses when the process has run out of files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The sockets of one listen address. A name such as `localhost` may stand for several.
pub struct Listeners(Vec<TcpListener>);

impl Listeners {
    /// Listens on each address that `host:port` stands for. With port 0 they all get the same free port.
    pub async fn bind(address: &str) -> Result<Self> {
        let cannot = || format!("cannot listen on {address}");
        let resolved = lookup_host(address).await.with_context(cannot)?;
        // A hosts file may well say the same twice.
        let mut addresses: Vec<SocketAddr> = resolved.collect();
        addresses.sort_unstable();
        addresses.dedup();
        let any_port = addresses.iter().all(|address| address.port() == 0);
        let mut attempts = if any_port { PORT_ATTEMPTS } else { 1 };
        loop {
            attempts -= 1;
            match listen_on_all(&addresses) {
                // The port that was free at the first address was not so at the next one.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempts > 0 => {}
                result => return result.map(Self).with_context(cannot),
            }
        }
    }

    /// The addresses listened on, with the real port.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.0.iter().map(TcpListener::local_addr).collect()
    }
}

fn listen_on_all(addresses: &[SocketAddr]) -> io::Result<Vec<TcpListener>> {
    let mut listeners: Vec<TcpListener> = vec![];
    let mut unavailable = io::Error::other("the name has no address");
    for &(mut address) in addresses {
        if address.port() == 0
            && let Some(first) = listeners.first()
        {
            address.set_port(first.local_addr()?.port());
        }
        match listen(address) {
            Ok(listener) => listeners.push(listener),
            // A machine without IPv6 still has ::1 as a name for localhost.
            Err(error) if is_unavailable(&error) => unavailable = error,
            Err(error) => return Err(error),
        }
    }
    match listeners.is_empty() {
        true => Err(unavailable),
        false => Ok(listeners),
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address.ip() {
        IpAddr::V4(_) => TcpSocket::new_v4(),
        IpAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // Restarting must not have to wait for old connections to leave TIME_WAIT.
    socket.set_reuseaddr(true)?;
    // Events go out when they come. What is accepted inherits this, so it need not be said for each connection.
    socket.set_nodelay(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn is_unavailable(error: &io::Error) -> bool {
    // EAFNOSUPPORT has no kind of its own.
    const EAFNOSUPPORT: i32 = 97;
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(EAFNOSUPPORT)
}

/// Serves `route` until `stop` is cancelled. The connections run on as `tasks`.
pub async fn serve(
    listeners: Listeners,
    route: Arc<Route>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let accepting = TaskTracker::new();
    for listener in listeners.0 {
        accepting.spawn(accept(listener, route.clone(), tasks.clone(), stop.clone()));
    }
    accepting.close();
    accepting.wait().await;
}

async fn accept(
    listener: TcpListener,
    route: Arc<Route>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let mut told = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((socket, address)) => {
                told = false;
                tasks.spawn(connection(socket, address, route.clone(), stop.clone()));
            }
            // The client was gone before it was accepted.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                if !mem::replace(&mut told, true) {
                    warn!(%error, "cannot accept connections for now");
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One client's connection while it speaks HTTP. What it is upgraded to gets a task of its own, which is smaller.
async fn connection(
    socket: TcpStream,
    address: SocketAddr,
    route: Arc<Route>,
    stop: CancellationToken,
) {
    match http(socket, &route, stop).await {
        Ok(Some(Upgraded {
            socket,
            early,
            subscription,
        })) => {
            route.websocket.serve(socket, &early, address, subscription);
        }
        Ok(None) => {}
        Err(error) => debug!(%address, %error, "connection failed"),
    }
}

/// A connection that has become a WebSocket.
struct Upgraded {
    socket: TcpStream,
    early: Bytes,
    subscription: Subscription,
}

/// Serves HTTP requests until the connection ends or is upgraded.
async fn http(
    socket: TcpStream,
    route: &Route,
    stop: CancellationToken,
) -> hyper::Result<Option<Upgraded>> {
    let subscribed = Mutex::new(None);
    let service = service_fn(|request: Request<Incoming>| {
        let (request, _) = request.into_parts();
        let response = answer(&request, route, |subscription| {
            *subscribed.lock().unwrap_or_else(PoisonError::into_inner) = Some(subscription);
        });
        ready(Ok::<_, std::convert::Infallible>(response))
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(socket), service);
    tokio::select! {
        result = poll_fn(|context| connection.poll_without_shutdown(context)) => result?,
        // No request takes time: there is none to wait for.
        () = stop.cancelled() => return Ok(None),
        () = sleep(HTTP_TIMEOUT) => return Ok(None),
    }
    let parts = connection.into_parts();
    let subscribed = subscribed
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    Ok(subscribed.map(|subscription| Upgraded {
        socket: parts.io.into_inner(),
        early: parts.read_buf,
        subscription,
    }))
}

/// Answers one request. For a WebSocket, `upgrade` gets the subscription that begins before the client hears of it.
fn answer(
    request: &Parts,
    route: &Route,
    upgrade: impl FnOnce(Subscription),
) -> Response<Full<Bytes>> {
    if let Err(reason) = check_message(request) {
        return refuse(StatusCode::BAD_REQUEST, reason);
    }
    if request.uri.path() != &*route.path {
        return refuse(StatusCode::NOT_FOUND, "there is no stream at this path");
    }
    if request.method != Method::GET {
        let mut response = refuse(StatusCode::METHOD_NOT_ALLOWED, "only GET is allowed here");
        response
            .headers_mut()
            .insert(header::ALLOW, HeaderValue::from_static("GET"));
        return response;
    }
    let handshake = match handshake::is_meant(request) {
        true => handshake::accept(request),
        false => Err(handshake::needed()),
    };
    match handshake {
        Ok(accept) => {
            upgrade(route.websocket.subscribe());
            handshake::response(accept).map(Full::new)
        }
        Err(refusal) => {
            let mut response = refuse(refusal.status, refusal.reason);
            response.headers_mut().extend(refusal.headers());
            response
        }
    }
}

/// What hyper leaves to the server of the rules for a request (RFC 9112, sections 3.2 and 6.1).
fn check_message(request: &Parts) -> Result<(), &'static str> {
    let mut hosts = request.headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (None, _) if request.version < Version::HTTP_11 => return Ok(()),
        (None, _) => return Err("the header Host is missing"),
        (Some(_), Some(_)) => return Err("there is more than one header Host"),
        (Some(host), None) => host.as_bytes(),
    };
    if !host.is_empty() && !is_host(host) {
        return Err("the header Host is not a host");
    }
    // hyper drops a Content-Length beside it, so the two cannot be told from it alone here; and nothing here has a body.
    if request.headers.contains_key(header::TRANSFER_ENCODING) {
        return Err("no request here has a body, so Transfer-Encoding is not taken");
    }
    Ok(())
}

/// Whether this is a host and perhaps a port. What stands in a URL at this place may have a user name too, and `Authority`
/// takes anything for a port.
fn is_host(value: &[u8]) -> bool {
    let Ok(authority) = Authority::try_from(value) else {
        return false;
    };
    let Some(rest) = authority.as_str().strip_prefix(authority.host()) else {
        return false;
    };
    match rest.strip_prefix(':') {
        None => rest.is_empty(),
        Some("") => true,
        Some(port) => port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok(),
    }
}

/// A refusal: the status, and the reason in one line of plain text.
fn refuse(status: StatusCode, reason: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(format!("{reason}\n")));
    *response.status_mut() = status;
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, text);
    response
}
