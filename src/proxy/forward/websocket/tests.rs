use super::*;

fn encoded(request: Request<()>) -> String {
    let head = head::encode_request(&request.into_parts().0);
    String::from_utf8(head).expect("it is text here")
}

#[test]
fn a_handshake_is_written_as_everyone_writes_it() {
    let request = Request::get("/a/b?c=d")
        .header("host", "a.example")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("x-own-field", "one")
        .header("x-own-field", "two")
        .header("te", "")
        .body(());
    assert_eq!(
        encoded(request.expect("a request")),
        "GET /a/b?c=d HTTP/1.1\r\nHost: a.example\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX-Own-Field: one\r\nX-Own-Field: two\r\nTe: \r\n\r\n"
    );
}

fn read(text: &str) -> Result<Option<Answered>> {
    answered(&mut BytesMut::from(text))
}

#[test]
fn an_answer_is_a_switch_or_for_hyper_to_read() {
    const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
    let whole = format!("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n{SWITCH}behind");
    for end in 0..whole.len() - "behind".len() {
        assert!(read(&whole[..end]).expect("so far").is_none(), "{end}");
    }
    let Some(Answered::Switched(head, rest)) = read(&whole).expect("an answer") else {
        panic!("it is a switch");
    };
    assert_eq!(head.headers[header::UPGRADE], "websocket");
    assert_eq!(rest, "behind");
    let refusal = "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno";
    let Some(Answered::Otherwise(early)) = read(refusal).expect("an answer") else {
        panic!("it is none");
    };
    assert_eq!(early, refusal);
    for wrong in [
        "SSH-2.0-x\r\n",
        "HTTP/1.1 1000 x\r\n\r\n",
        "HTTP/1.1 101 x\r\na b: c\r\n\r\n",
    ] {
        assert!(read(wrong).is_err(), "{wrong}");
    }
}
