use super::body::{Chunks, Head};
use super::*;
use crate::event::Kind;
use crate::wire::websocket::message_header;

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = message_header(Kind::Text, payload.len()).as_ref().to_vec();
    frame[0] = first;
    frame.extend_from_slice(payload);
    frame
}

/// What comes of `bytes`, however they are cut.
fn each_cut(bytes: &[u8], mut feed: impl FnMut(&[&[u8]]) -> Vec<String>) -> Vec<String> {
    let whole = feed(&[bytes]);
    for cut in 1..bytes.len() {
        assert_eq!(feed(&[&bytes[..cut], &bytes[cut..]]), whole, "cut at {cut}");
    }
    let single: Vec<_> = bytes.chunks(1).collect();
    assert_eq!(feed(&single), whole, "byte for byte");
    whole
}

fn shown(item: &Item<'_>) -> String {
    match item {
        Item::Event(event) => {
            let mark = event.mark.map(|mark| mark.seq);
            let id = event.id.map(|id| id.to_string());
            format!("event {mark:?} {id:?} {:?}", event.time)
        }
        other => format!("{other:?}"),
    }
}

fn of_frames(is_hop: bool, bytes: &[u8], run: Run) -> Vec<String> {
    each_cut(bytes, |pieces| {
        let mut frames = Frames::new(is_hop);
        let mut items = vec![];
        for piece in pieces {
            let fed = frames.feed(piece, Some(run), &mut |item| items.push(shown(&item)));
            fed.expect("good frames");
        }
        items
    })
}

fn of_lines(format: Format, text: &str, run: Run) -> Vec<String> {
    each_cut(text.as_bytes(), |pieces| {
        let mut lines = Lines::new(format);
        let mut items = vec![];
        for piece in pieces {
            lines.feed(piece, Some(run), &mut |item| items.push(shown(&item)));
        }
        items
    })
}

fn marked(run: Run, seq: u64, size: usize) -> String {
    let mark = Mark { seq, sent_ns: 7 };
    String::from_utf8(run.payload(mark, size, &[b'x'; 5_000])).expect("it is ASCII")
}

#[test]
fn messages_are_told_from_what_stands_between_them() {
    let run = Run::random();
    let bytes = [
        frame(0x81, marked(run, 1, 60).as_bytes()),
        frame(0x02, marked(run, 2, 3_000).as_bytes()),
        frame(0x89, b"ping"),
        frame(0x00, &[b'x'; 2_000]),
        frame(0x80, b""),
        frame(0x8a, b""),
        frame(0x82, b"somebody else's"),
        frame(0x81, b""),
        frame(0x88, &[&1013_u16.to_be_bytes()[..], b"too slow"].concat()),
    ]
    .concat();
    assert_eq!(
        of_frames(false, &bytes, run),
        [
            "event Some(1) None None",
            "Ping([112, 105, 110, 103])",
            "event Some(2) None None",
            "event None None None",
            "event None None None",
            "Close(\"closed by the server with 1013: too slow\")",
        ]
    );
}

#[test]
fn a_hop_link_says_ids_times_and_gaps() {
    let run = Run::random();
    let bytes = [
        frame(0x81, b"!welcome backlog=0"),
        frame(
            0x81,
            format!("0000000000001-7 t=12 type=a key=b\n{}", marked(run, 3, 60)).as_bytes(),
        ),
        frame(0x81, b"!gap after=0000000000001-7 lost=2"),
        frame(0x82, b"0000000000001-10 t=13\n"),
    ]
    .concat();
    assert_eq!(
        of_frames(true, &bytes, run),
        [
            "event Some(3) Some(\"0000000000001-7\") Some(12)",
            "Gap",
            "event None Some(\"0000000000001-10\") Some(13)",
        ]
    );
}

#[test]
fn frames_that_no_server_may_send_are_refused() {
    for bytes in [
        &[0xc1, 0x00][..],
        &[0x81, 0x80],
        &[0x83, 0x00],
        &[0x89, 126, 0, 200],
    ] {
        let mut frames = Frames::new(false);
        let bytes = [bytes, &[0; 300]].concat();
        let fed = frames.feed(&bytes, None, &mut |_| {});
        assert!(fed.is_err(), "{:?}", &bytes[..4]);
    }
}

#[test]
fn blocks_of_server_sent_events_are_read() {
    let run = Run::random();
    let text = format!(
        "retry: 2000\nid: 0000000000001-1\n\n: still here\n\nid: 0000000000001-2\r\ndata: {}\r\ndata: more\r\n\r\nevent: wsevent.gap\ndata: {{}}\n\nevent: wsevent.snapshot\ndata: x\n\nevent: trade\nid: 9\ndata:{}\n\n",
        marked(run, 5, 60),
        marked(run, 6, 4_000)
    );
    assert_eq!(
        of_lines(Format::EventStream, &text, run),
        [
            "event Some(5) Some(\"0000000000001-2\") None",
            "Gap",
            "event Some(6) None None",
        ]
    );
}

#[test]
fn lines_of_ndjson_are_read() {
    let run = Run::random();
    let text = format!(
        "{{\"id\":\"0000000000001-2\",\"time\":\"1970-01-01T00:00:01.5Z\",\"data\":\"{}\"}}\n\n{{\"gap\":{{}}}}\n{{\"snapshot\":{{}}}}\n{{\"foreign\":1}}\r\n",
        marked(run, 5, 4_000)
    );
    assert_eq!(
        of_lines(Format::Ndjson, &text, run),
        [
            "event Some(5) Some(\"0000000000001-2\") Some(1500000)",
            "Gap",
            "event None None None",
        ]
    );
}

#[test]
fn chunks_are_put_together() {
    let bytes = b"5\r\nhello\r\n1;x=y\r\n \r\n5\r\nworld\r\n0\r\n\r\n";
    let whole = each_cut(bytes, |pieces| {
        let (mut chunks, mut body) = (Chunks::default(), vec![]);
        for mut piece in pieces.iter().copied() {
            while let Some(data) = chunks.next(&mut piece).expect("good chunks") {
                body.extend_from_slice(data);
            }
        }
        assert!(chunks.is_over);
        vec![String::from_utf8(body).expect("it is text")]
    });
    assert_eq!(whole, ["hello world"]);
    let mut chunks = Chunks::default();
    assert!(chunks.next(&mut &b"no length\r\n"[..]).is_err());
    assert!(Chunks::default().next(&mut &[b'1'; 300][..]).is_err());
}

#[test]
fn the_head_of_an_answer_says_how_to_read_the_rest() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Type: Text/Event-Stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\nWsevent-Resumed: no\r\n\r\nrest";
    let read = Head::read(head).expect("a good head").expect("a whole one");
    assert_eq!(
        (read.length, read.response.status().as_u16()),
        (head.len() - 4, 200)
    );
    assert_eq!(read.content_type(), "text/event-stream");
    assert_eq!(read.is_chunked(), Ok(true));
    assert!(Head::read(&head[..60]).is_ok_and(|head| head.is_none()));
    assert!(Head::read(b"SSH-2.0-x\r\n\r\n").is_err());
    let with = |header: &str| {
        let head = format!("HTTP/1.1 200 OK\r\n{header}\r\n\r\n");
        let read = Head::read(head.as_bytes()).expect("a good head");
        read.expect("a whole one").is_chunked()
    };
    assert_eq!(with("X: y"), Ok(false));
    assert!(with("Content-Encoding: gzip").is_err());
    assert!(with("Transfer-Encoding: gzip, chunked").is_err());
}
