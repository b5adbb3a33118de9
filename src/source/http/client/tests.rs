use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::source::websocket::login::Talk;

/// The connection to a server that answers with these headers and then says nothing, and that server's end of it.
async fn silent(headers: &str) -> (Stream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let upstream = Upstream {
        url: Url::parse(&format!("http://{address}/")).expect("a URL"),
        address: None,
        is_peer: false,
        within: None,
        variables: vec![],
        headers: vec![],
        talk: Talk::default(),
        compress: false,
        tls: None,
        max_message_size: 100,
        ping_interval: Duration::from_secs(30),
    };
    let head = format!("HTTP/1.1 200 OK\r\n{headers}\r\n");
    let serve = async {
        let (mut socket, _) = listener.accept().await.expect("a connection");
        let mut request = vec![];
        while !request.ends_with(b"\r\n\r\n") {
            request.push(socket.read_u8().await.expect("a request"));
        }
        socket.write_all(head.as_bytes()).await.expect("it reads");
        socket
    };
    let mut client = Client::new(upstream.into(), EVENT_STREAM_OR_NDJSON);
    match tokio::join!(client.open(), serve) {
        (Ok(Answer::Stream(stream)), socket) => (*stream, socket),
        (Ok(Answer::NoContent), _) => panic!("no 204 was sent"),
        (Err(error), _) => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn a_silent_wsevent_is_given_up_and_others_are_not() {
    let day = Duration::from_secs(24 * 60 * 60);
    for (headers, is_given_up) in [
        ("content-type: text/event-stream\r\n", false),
        (
            "content-type: text/event-stream\r\nwsevent-resumed: no\r\n",
            true,
        ),
        // It has no heartbeat.
        (
            "content-type: application/x-ndjson\r\nwsevent-resumed: no\r\n",
            false,
        ),
    ] {
        let (mut stream, _socket) = silent(headers).await;
        // From here on time passes when there is nothing else to do.
        tokio::time::pause();
        let waited = timeout(day, stream.wait()).await;
        assert_eq!(waited.is_ok(), is_given_up, "{headers}");
        if let Ok(result) = waited {
            let error = result.expect_err("nothing came").to_string();
            assert_eq!(error, "silent for 45s");
        }
        tokio::time::resume();
    }
}

#[test]
fn a_redirect_never_brings_credentials_or_a_fragment() {
    let from = Url::parse("http://a/b/c?d").expect("a URL");
    let to = |location: &'static str| {
        let location = HeaderValue::from_static(location);
        redirect(&from, &HeaderMap::from_iter([(header::LOCATION, location)]))
    };
    for (location, expected) in [
        ("http://me:secret@a/x#y", "http://a/x"),
        ("//b/x", "http://b/x"),
        ("?e", "http://a/b/c?e"),
        ("../x", "http://a/x"),
    ] {
        assert_eq!(to(location).expect("a place").as_str(), expected);
    }
    assert!(to("mailto:me").is_err());
}

#[test]
fn media_types_are_known_whatever_else_is_said_of_them() {
    let of = |content_type: &'static str| {
        let value = HeaderValue::from_static(content_type);
        media(&HeaderMap::from_iter([(header::CONTENT_TYPE, value)])).ok()
    };
    for text in [
        "text/event-stream",
        "Text/Event-Stream ; charset=latin1",
        "text/event-stream;x",
    ] {
        assert_eq!(of(text), Some(Media::EventStream), "{text}");
    }
    for text in ["application/x-ndjson", "application/ndjson; charset=utf-8"] {
        assert_eq!(of(text), Some(Media::Ndjson), "{text}");
    }
    for text in ["", "text/event-streams", "application/json", "text/plain"] {
        assert_eq!(of(text), None, "{text}");
    }
}
