//! Verdicts on what real sockets do.

use std::sync::Arc;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use tempfile::NamedTempFile;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{ClientConfig, ServerConfig};

use super::*;
use crate::reason;
use crate::source::http::client::{Client, EVENT_STREAM};
use crate::source::websocket::Offer;
use crate::tls::client_config;

const AWAY: Verdict = Verdict::Away;
const BAD_GATEWAY: Verdict = Verdict::Refused { status: 502 };

/// How an attempt to read `url` fails, with TLS by these settings.
async fn failure(url: &str, tls: Option<&Arc<ClientConfig>>) -> anyhow::Error {
    let mut upstream = to(url, Vec::new());
    upstream.tls = tls.cloned();
    let result = match upstream.url.scheme() {
        "ws" | "wss" => Offer::default().connect(&upstream).await.map(drop),
        _ => Client::new(upstream.into(), EVENT_STREAM)
            .open()
            .await
            .map(drop),
    };
    result.expect_err("it fails")
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    (listener, address)
}

async fn read_request(socket: &mut TcpStream) -> Vec<u8> {
    let mut request = vec![];
    while !request.ends_with(b"\r\n\r\n") {
        let Ok(byte) = socket.read_u8().await else {
            break;
        };
        request.push(byte);
    }
    request
}

/// The verdict on a server that gives this answer whenever it is asked, over WebSocket or SSE.
async fn on(scheme: &str, answer: String) -> (Verdict, String) {
    let (listener, address) = listen().await;
    let answer = answer.replace("ADDRESS", &address);
    let serving = tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.expect("a connection");
            read_request(&mut socket).await;
            let _ = socket.write_all(answer.as_bytes()).await;
        }
    });
    let error = failure(&format!("{scheme}://{address}/feed"), None).await;
    serving.abort();
    (verdict(&error), reason::of(&error))
}

#[tokio::test]
async fn an_upstream_that_answers_with_an_error_is_believed() {
    for scheme in ["ws", "http"] {
        for (status, expected) in [
            (400, Verdict::Refused { status: 400 }),
            (401, Verdict::Refused { status: 401 }),
            (403, Verdict::Refused { status: 403 }),
            (404, Verdict::Refused { status: 404 }),
            (410, Verdict::Refused { status: 410 }),
            (426, Verdict::Refused { status: 426 }),
            (451, Verdict::Refused { status: 451 }),
            (408, AWAY),
            (425, AWAY),
            (429, AWAY),
            (500, AWAY),
            (502, AWAY),
            (503, AWAY),
            (599, AWAY),
        ] {
            let answer = format!("HTTP/1.1 {status} Hm\r\ncontent-length: 0\r\n\r\n");
            let (verdict, reason) = on(scheme, answer).await;
            assert_eq!(verdict, expected, "{scheme} {status}: {reason}");
        }
    }
}

#[tokio::test]
async fn what_is_no_stream_of_events_stays_none() {
    let stream = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n";
    let moved = "HTTP/1.1 302 Found\r\ncontent-length: 0\r\nlocation: ";
    let switched = "HTTP/1.1 101 Hm\r\nupgrade: websocket\r\nconnection: upgrade\r\n";
    for (scheme, answer) in [
        ("ws", stream.to_owned() + "\r\n"),
        ("ws", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".into()),
        ("ws", moved.to_owned() + "ws://ADDRESS/other\r\n\r\n"),
        (
            "ws",
            switched.to_owned() + "sec-websocket-accept: x\r\n\r\n",
        ),
        ("ws", "HTTP/1.1 101 Hm\r\n\r\n".into()),
        ("ws", "SSH-2.0-OpenSSH_9.9\r\n\r\n".into()),
        ("http", "SSH-2.0-OpenSSH_9.9\r\n\r\n".into()),
        (
            "http",
            "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\r\n".into(),
        ),
        ("http", "HTTP/1.1 200 OK\r\n\r\n".into()),
        ("http", stream.to_owned() + "content-encoding: br\r\n\r\n"),
        ("http", moved.to_owned() + "http://ADDRESS/feed\r\n\r\n"),
        ("http", moved.to_owned() + "?again\r\n\r\n"),
        ("http", moved.to_owned() + "mailto:me\r\n\r\n"),
        (
            "http",
            "HTTP/1.1 301 Hm\r\ncontent-length: 0\r\n\r\n".into(),
        ),
        ("http", "HTTP/1.1 304 Hm\r\n\r\n".into()),
    ] {
        let (verdict, reason) = on(scheme, answer.clone()).await;
        assert_eq!(verdict, BAD_GATEWAY, "{scheme} {answer}: {reason}");
    }
}

#[tokio::test]
async fn who_is_not_there_or_breaks_off_is_away() {
    for scheme in ["ws", "http"] {
        let (listener, address) = listen().await;
        drop(listener);
        let error = failure(&format!("{scheme}://{address}/"), None).await;
        assert_eq!(verdict(&error), AWAY, "refused: {error:?}");
        for answer in ["", "HTTP/1.1 200 OK\r\ncontent-", "HTTP/1.1 101 "] {
            let (verdict, reason) = on(scheme, answer.to_owned()).await;
            assert_eq!(verdict, AWAY, "{scheme} {answer:?}: {reason}");
        }
        let (listener, address) = self::listen().await;
        let resetting = async {
            let (mut socket, _) = listener.accept().await.expect("a connection");
            read_request(&mut socket).await;
            socket.set_zero_linger().expect("sockets can do that");
        };
        let url = format!("{scheme}://{address}/");
        let (error, ()) = tokio::join!(failure(&url, None), resetting);
        assert_eq!(verdict(&error), AWAY, "reset: {error:?}");
    }
}

#[tokio::test]
async fn who_does_not_answer_is_away() {
    for scheme in ["ws", "http"] {
        let (listener, address) = listen().await;
        let url = format!("{scheme}://{address}/");
        let silent = async {
            let (mut socket, _) = listener.accept().await.expect("a connection");
            read_request(&mut socket).await;
            // From here on time passes when there is nothing else to do.
            tokio::time::pause();
            socket
        };
        let (error, _socket) = tokio::join!(failure(&url, None), silent);
        tokio::time::resume();
        assert_eq!(verdict(&error), AWAY);
        assert_eq!(error.to_string(), "no answer within 10s");
    }
}

#[tokio::test]
async fn a_name_that_cannot_be_is_refused() {
    // No name server is asked: a label has at most 63 characters (RFC 1035, section 2.3.4).
    let url = format!("ws://{}.example/", "a".repeat(64));
    let error = failure(&url, None).await;
    assert_eq!(verdict(&error), BAD_GATEWAY, "{error:?}");
    let error = reason::of(&error);
    assert!(error.starts_with("there is no host named 'aaa"), "{error}");
}

/// A server that is `name`, and the settings of a client that trusts it.
fn acceptor(name: &str) -> (TlsAcceptor, Arc<ClientConfig>) {
    let names = vec![name.to_owned()];
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).expect("a key");
    let file = NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), cert.pem()).expect("written");
    let client = client_config(Some(file.path()), None).expect("settings");
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key);
    (
        TlsAcceptor::from(Arc::new(config.expect("they fit"))),
        client,
    )
}

#[tokio::test]
async fn tls_that_does_not_fit_is_refused() {
    for scheme in ["wss", "https"] {
        let (listener, address) = listen().await;
        let port = address.rsplit(':').next().expect("a port");
        let url = format!("{scheme}://localhost:{port}/");
        let tls = client_config(None, None).expect("settings");
        let accept = async |acceptor: &TlsAcceptor| {
            let (socket, _) = listener.accept().await.expect("a connection");
            let _ = acceptor.accept(socket).await;
        };
        let (acceptor, _) = self::acceptor("localhost");
        let (error, ()) = tokio::join!(failure(&url, Some(&tls)), accept(&acceptor));
        assert_eq!(verdict(&error), BAD_GATEWAY, "untrusted: {error:?}");
        let (acceptor, trusting) = self::acceptor("other.example");
        let (error, ()) = tokio::join!(failure(&url, Some(&trusting)), accept(&acceptor));
        assert_eq!(verdict(&error), BAD_GATEWAY, "other name: {error:?}");

        let plain = async {
            let (mut socket, _) = listener.accept().await.expect("a connection");
            let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            let mut rest = vec![];
            let _ = socket.read_to_end(&mut rest).await;
        };
        let (error, ()) = tokio::join!(failure(&url, Some(&tls)), plain);
        assert_eq!(verdict(&error), BAD_GATEWAY, "{error:?}");
        let error = error.to_string();
        assert!(error.starts_with("there is no TLS at this port"), "{error}");

        // It has gone away in the middle.
        let broken = async {
            let (mut socket, _) = listener.accept().await.expect("a connection");
            let mut byte = [0];
            let _ = socket.read_exact(&mut byte).await;
        };
        let (error, ()) = tokio::join!(failure(&url, Some(&tls)), broken);
        assert_eq!(verdict(&error), AWAY, "{error:?}");
    }
}
