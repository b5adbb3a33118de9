//! What subscribers must not send (RFC 6455, sections 5, 7 and 8): each is told with a Close frame.

use crate::harness::client::Client;
use crate::harness::events::MIB;
use crate::harness::frame::{
    BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, TEXT, close_payload, header, masked, unmasked,
};
use crate::harness::wsevent::Hop;

/// Sends each on a connection of its own, whole and byte by byte, and compares the code of the Close frame, which is
/// all that must come back. At the end others are still served.
async fn check(code: u16, cases: &[(&str, Vec<u8>)]) {
    check_at(&[], code, cases).await;
}

/// The same at a hop with these flags.
async fn check_at(args: &[&str], code: u16, cases: &[(&str, Vec<u8>)]) {
    let hop = Hop::quiet(args).await;
    let mut connections = 0;
    for (name, bytes) in cases {
        let whole = bytes.len();
        let steps = if whole < 1_000 {
            vec![whole, 1]
        } else {
            vec![whole]
        };
        for step in steps {
            let mut client = hop.subscribe().await;
            for piece in bytes.chunks(step) {
                client.send(piece).await;
                tokio::task::yield_now().await;
            }
            let (frames, got, reason) = client.until_close().await;
            assert_eq!((got, frames), (code, vec![]), "{name}: {reason}");
            client.answer_close(got).await;
            connections += 1;
            let line = hop
                .logged_times("subscriber disconnected", connections)
                .await;
            assert_eq!(line.number("code"), u64::from(code), "{name}");
        }
    }
    still_serves(&hop).await;
}

async fn still_serves(hop: &Hop) {
    let mut client = hop.subscribe().await;
    client.send_frame(PING, b"still there?").await;
    assert_eq!(client.frame().await.expect("a pong").opcode, PONG);
}

/// The header of a masked frame that says it will be `len` bytes long.
fn announced(first: u8, len: u64) -> Vec<u8> {
    [&header(first, 0x80, len)[..], b"mask"].concat()
}

#[tokio::test]
async fn frames_without_a_mask_are_refused() {
    check(
        1002,
        &[
            ("text", unmasked(FIN | TEXT, b"hello")),
            ("binary", unmasked(FIN | BINARY, b"")),
            ("ping", unmasked(FIN | PING, b"ping")),
            ("pong", unmasked(FIN | PONG, b"")),
            ("close", unmasked(FIN | CLOSE, &close_payload(1000, b""))),
        ],
    )
    .await;
}

#[tokio::test]
async fn reserved_bits_and_opcodes_are_refused() {
    let mut cases = vec![];
    for bit in [0x40, 0x20, 0x10] {
        cases.push(("text", masked(FIN | bit | TEXT, b"compressed?")));
        cases.push(("ping", masked(FIN | bit | PING, b"")));
    }
    for opcode in [0x3, 0x4, 0x5, 0x6, 0x7, 0xB, 0xC, 0xD, 0xE, 0xF] {
        cases.push(("opcode", masked(FIN | opcode, b"")));
    }
    check(1002, &cases).await;
}

#[tokio::test]
async fn wrong_control_frames_are_refused() {
    let long = [b'x'; 126];
    check(
        1002,
        &[
            ("fragmented ping", masked(PING, b"")),
            ("fragmented pong", masked(PONG, b"")),
            ("fragmented close", masked(CLOSE, b"")),
            ("long ping", masked(FIN | PING, &long)),
            ("long pong", masked(FIN | PONG, &long)),
            (
                "long close",
                masked(FIN | CLOSE, &close_payload(1000, &long)),
            ),
            ("endless ping", announced(FIN | PING, 1 << 40)),
        ],
    )
    .await;
}

#[tokio::test]
async fn lengths_not_in_their_shortest_form_are_refused() {
    let ping_16 = [0x89, 0x80 | 126, 0, 4, 0, 0, 0, 0, b'p', b'i', b'n', b'g'];
    let ping_64 = [0x89, 0x80 | 127, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let text_64 = [0x81, 0x80 | 127, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, b'x'];
    check(
        1002,
        &[
            ("ping of 4 in 16 bits", ping_16.to_vec()),
            ("ping of 0 in 64 bits", ping_64.to_vec()),
            ("text of 1 in 64 bits", text_64.to_vec()),
        ],
    )
    .await;
}

#[tokio::test]
async fn wrong_fragments_are_refused() {
    let start = masked(TEXT, b"beginning");
    check(
        1002,
        &[
            ("continues nothing", masked(FIN | CONTINUATION, b"")),
            ("continues nothing, nor ends", masked(CONTINUATION, b"")),
            (
                "text in text",
                [&start[..], &masked(FIN | TEXT, b"")].concat(),
            ),
            (
                "binary in text",
                [&start[..], &masked(BINARY, b"")].concat(),
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn wrong_close_frames_are_refused() {
    let close = |payload: &[u8]| masked(FIN | CLOSE, payload);
    let code = |code| close(&close_payload(code, b""));
    check(1002, &[("half a code", close(b"x"))]).await;
    check(
        1007,
        &[("reason", close(&close_payload(1000, b"\xff\xfe")))],
    )
    .await;
    // The answer says that the code was none, whatever the log calls it.
    let hop = Hop::quiet(&[]).await;
    for wrong in [
        0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535,
    ] {
        let mut client = hop.subscribe().await;
        client.send(code(wrong)).await;
        let (_, got, _) = client.until_close().await;
        assert_eq!(got, 1002, "in answer to {wrong}");
        client.ended().await;
    }
    still_serves(&hop).await;
}

#[tokio::test]
async fn a_close_is_answered_with_its_code() {
    let hop = Hop::quiet(&[]).await;
    for code in [
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 4999,
    ] {
        for reason in [&b""[..], "because ✓".as_bytes()] {
            let mut client = hop.subscribe().await;
            client.send_frame(CLOSE, &close_payload(code, reason)).await;
            let (frames, got, _) = client.until_close().await;
            assert_eq!((got, frames.len()), (code, 0));
            // The server is the one to end the connection (RFC 6455, section 7.1.1).
            client.ended().await;
            hop.logged_where("subscriber disconnected", |line| {
                line.number("code") == u64::from(code)
            })
            .await;
        }
    }
    let mut client = hop.subscribe().await;
    client.send_frame(CLOSE, b"").await;
    assert_eq!(client.frame().await.expect("an answer").payload, b"");
    client.ended().await;
}

#[tokio::test]
async fn text_that_is_not_utf8_is_refused() {
    let note = "𝄞".as_bytes();
    let split =
        |one: &[u8], other: &[u8]| [masked(TEXT, one), masked(FIN | CONTINUATION, other)].concat();
    check(
        1007,
        &[
            ("bytes", masked(FIN | TEXT, b"\xff\xfe")),
            ("cut short", masked(FIN | TEXT, &note[..3])),
            ("overlong", masked(FIN | TEXT, b"\xc0\x80")),
            ("surrogate", masked(FIN | TEXT, b"\xed\xa0\x80")),
            ("above Unicode", masked(FIN | TEXT, b"\xf4\x90\x80\x80")),
            ("in the second fragment", split(b"good", b"\xff")),
            ("across fragments", split(&note[..2], b"xx")),
            ("cut short across fragments", split(&note[..2], &note[2..3])),
        ],
    )
    .await;
}

#[tokio::test]
async fn messages_above_the_limit_are_refused() {
    let half = vec![b'x'; MIB / 2];
    let mut many = masked(BINARY, b"");
    for _ in 0..1_100 {
        many.extend(masked(CONTINUATION, &[0; 1_000]));
    }
    // Of others, who are not heard at all, not so much is waited for.
    check_at(
        &["--accept-publish"],
        1009,
        &[
            ("in one frame", masked(FIN | BINARY, &vec![0; MIB + 1])),
            (
                "text in one frame",
                masked(FIN | TEXT, &vec![b'x'; MIB + 1]),
            ),
            ("announced only", announced(FIN | BINARY, MIB as u64 + 1)),
            ("announced, huge", announced(FIN | BINARY, (1 << 63) - 1)),
            ("in many fragments", many),
            (
                "in two and a byte",
                [
                    masked(TEXT, &half),
                    masked(CONTINUATION, &half),
                    masked(FIN | CONTINUATION, b"x"),
                ]
                .concat(),
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn messages_are_not_taken_here() {
    let note = "𝄞".as_bytes();
    let fragments = [
        masked(TEXT, &note[..2]),
        masked(FIN | PONG, b"in between"),
        masked(CONTINUATION, b""),
        masked(FIN | CONTINUATION, &note[2..]),
    ];
    check(
        1003,
        &[
            ("text", masked(FIN | TEXT, b"hello")),
            ("binary", masked(FIN | BINARY, b"\xff")),
            ("empty text", masked(FIN | TEXT, b"")),
            ("empty binary", masked(FIN | BINARY, b"")),
            ("fragments", fragments.concat()),
            ("as large as may be", masked(FIN | TEXT, &vec![b'x'; MIB])),
        ],
    )
    .await;
}

#[tokio::test]
async fn control_frames_are_no_messages_and_may_be_longer_than_those() {
    let hop = Hop::quiet(&["--max-message-size", "10"]).await;
    let mut client = hop.subscribe().await;
    client.send_frame(PING, &[b'x'; 125]).await;
    assert_eq!(client.frame().await.expect("a pong").payload, [b'x'; 125]);
    client.send_frame(TEXT, &[b'x'; 11]).await;
    assert_eq!(client.closed().await, 1009);
}

#[tokio::test]
async fn a_ping_among_fragments_is_answered() {
    let hop = Hop::quiet(&[]).await;
    let mut client = hop.subscribe().await;
    client.send(masked(TEXT, b"half a message")).await;
    client.send_frame(PING, b"in between").await;
    let pong = client.frame().await.expect("a pong");
    assert_eq!((pong.opcode, &pong.payload[..]), (PONG, &b"in between"[..]));
    client.send(masked(FIN | CONTINUATION, b"the rest")).await;
    assert_eq!(client.closed().await, 1003);
}

#[tokio::test]
async fn who_goes_on_sending_still_gets_the_close_frame() {
    let hop = Hop::quiet(&[]).await;
    let mut client = hop.subscribe().await;
    let junk = [masked(FIN | TEXT, b"refused"), vec![0xFF; 4 * MIB]].concat();
    client.send(junk).await;
    assert_eq!(client.closed().await, 1003);
}

#[tokio::test]
async fn who_ends_its_side_right_behind_still_gets_the_close_frame() {
    let hop = Hop::quiet(&[]).await;
    for (bytes, expected) in [
        (masked(FIN | CLOSE, &close_payload(1000, b"")), 1000),
        (masked(FIN | TEXT, b"refused"), 1003),
        (unmasked(FIN | PING, b""), 1002),
    ] {
        for _ in 0..20 {
            let mut client = hop.subscribe().await;
            client.send(&bytes).await;
            client.half_close().await;
            let (_, code, _) = client.until_close().await;
            assert_eq!(code, expected);
            client.ended().await;
        }
    }
    still_serves(&hop).await;
}

#[tokio::test]
async fn who_is_wrong_while_events_flow_gets_whole_events_before_the_close() {
    let hop = Hop::start(&["--produce-rate", "max", "--produce-size", "10000"]).await;
    let client = Client::connect_with_buffer(hop.address, 16 << 10).await;
    let mut client = client.upgraded("/events").await;
    for _ in 0..20 {
        client.frame().await.expect("an event");
    }
    client.send(unmasked(FIN | TEXT, b"hello")).await;
    let (events, code, _) = client.until_close().await;
    assert!(events.iter().all(|event| event.payload.len() == 10_000));
    assert_eq!(code, 1002);
    client.answer_close(code).await;
}
