//! What the standard says, rule by rule: its name, a stream in pieces, and what is read from it.

use super::*;

pub type Case = (&'static str, &'static [&'static [u8]], Vec<Item>);

pub fn all() -> Vec<Case> {
    [
        examples(),
        lines(),
        encoding(),
        fields(),
        types_and_ids(),
        retries_and_ends(),
    ]
    .concat()
}

/// What WHATWG HTML, section 9.2, shows.
fn examples() -> Vec<Case> {
    vec![
        (
            "three messages, the last of two lines",
            &[b"data: This is the first message.\n\n\
                data: This is the second message, it\ndata: has two lines.\n\n\
                data: This is the third message.\n\n"],
            vec![
                message("This is the first message."),
                message("This is the second message, it\nhas two lines."),
                message("This is the third message."),
            ],
        ),
        (
            "types",
            &[b"event: add\ndata: 73857293\n\n\
                event: remove\ndata: 2153\n\n\
                event: add\ndata: 113411\n\n"],
            vec![
                typed("add", "73857293"),
                typed("remove", "2153"),
                typed("add", "113411"),
            ],
        ),
        (
            "stock: lines are joined",
            &[b"data: YHOO\ndata: +2\ndata: 10\n\n"],
            vec![message("YHOO\n+2\n10")],
        ),
        (
            "a comment, an id, an empty id, a space that stays",
            &[b": test stream\n\n\
                data: first event\nid: 1\n\n\
                data:second event\nid\n\n\
                data:  third event\n\n"],
            vec![
                with_id("1", "first event"),
                with_id("", "second event"),
                behind_id("", " third event"),
            ],
        ),
        (
            "empty data, two empty lines, an unfinished block",
            &[b"data\n\ndata\ndata\n\ndata:"],
            vec![message(""), message("\n")],
        ),
        (
            "the space behind the colon does not count",
            &[b"data:test\n\ndata: test\n\n"],
            vec![message("test"), message("test")],
        ),
    ]
}

fn lines() -> Vec<Case> {
    vec![
        ("LF", &[b"data: a\ndata: b\n\n"], vec![message("a\nb")]),
        ("CR", &[b"data: a\rdata: b\r\r"], vec![message("a\nb")]),
        (
            "CRLF",
            &[b"data: a\r\ndata: b\r\n\r\n"],
            vec![message("a\nb")],
        ),
        (
            "mixed",
            &[b"data: a\rdata: b\ndata: c\r\n\n"],
            vec![message("a\nb\nc")],
        ),
        (
            "LF CR is two ends",
            &[b"data: a\n\rdata: b\n\r"],
            vec![message("a"), message("b")],
        ),
        (
            "CR ends a block at once",
            &[b"data: a\r\n\r"],
            vec![message("a")],
        ),
        (
            "CRLF cut in two",
            &[b"data: a\r", b"\ndata: b\r", b"\n\r", b"\n"],
            vec![message("a\nb")],
        ),
        (
            "CR, then a piece with LF LF",
            &[b"data: a\r", b"\n\n"],
            vec![message("a")],
        ),
        (
            "no piece between CR and LF",
            &[b"data: a\r", b"", b"\ndata: b\n\n"],
            vec![message("a\nb")],
        ),
    ]
}

fn encoding() -> Vec<Case> {
    vec![
        (
            "a byte order mark",
            &[b"\xEF\xBB\xBFdata: a\n\n"],
            vec![message("a")],
        ),
        (
            "a byte order mark in pieces",
            &[b"\xEF", b"\xBB", b"\xBF", b"data: a\n\n"],
            vec![message("a")],
        ),
        (
            "only a byte order mark on a line",
            &[b"\xEF\xBB\xBF\ndata: a\n\n"],
            vec![message("a")],
        ),
        (
            "half a byte order mark",
            &[b"\xEF\xBB", b"data: a\n\ndata: b\n\n"],
            vec![message("b")],
        ),
        (
            "two byte order marks",
            &[b"\xEF\xBB\xBF\xEF\xBB\xBFdata: a\n\ndata: b\n\n"],
            vec![message("b")],
        ),
        (
            "a late byte order mark",
            &[b"\n\xEF\xBB\xBFdata: a\n\ndata: b\n\n"],
            vec![message("b")],
        ),
        (
            "a byte order mark in data",
            &[b"data: \xEF\xBB\xBFa\n\n"],
            vec![message("\u{FEFF}a")],
        ),
        (
            "a character cut in two",
            &[b"data: \xC3", b"\xA9\n\n"],
            vec![message("é")],
        ),
        (
            "no UTF-8",
            &[b"data: a\xFFb\n\n"],
            vec![message("a\u{FFFD}b")],
        ),
        (
            "one replacement for a part of a character",
            &[b"data: \xF0\x9F\x98\n\n"],
            vec![message("\u{FFFD}")],
        ),
        (
            "one replacement for each wrong byte",
            &[b"data: \xC0\x80\xED\xA0\x80\n\n"],
            vec![message("\u{FFFD}\u{FFFD}\u{FFFD}\u{FFFD}\u{FFFD}")],
        ),
        (
            "no UTF-8 in type and id",
            &[b"event: \xFF\nid: \xFF\ndata\n\n"],
            vec![Item::Event {
                event_type: Some("\u{FFFD}".to_owned()),
                data: String::new(),
                last_event_id: Some("\u{FFFD}".into()),
                has_own_id: true,
            }],
        ),
    ]
}

fn fields() -> Vec<Case> {
    vec![
        (
            "one space is taken away",
            &[b"data:  a \n\n"],
            vec![message(" a ")],
        ),
        ("a tab is not", &[b"data:\ta\n\n"], vec![message("\ta")]),
        (
            "the space in the next piece",
            &[b"data:", b" a\n\n"],
            vec![message("a")],
        ),
        (
            "a space before the colon is in the name",
            &[b"data : a\n\ndata: b\n\n"],
            vec![message("b")],
        ),
        (
            "a space before the name as well",
            &[b" data: a\n\ndata: b\n\n"],
            vec![message("b")],
        ),
        (
            "names are exact",
            &[b"Data: a\nDATA: b\ndat: c\ndatas: d\n\ndata: e\n\n"],
            vec![message("e")],
        ),
        (
            "further colons are in the value",
            &[b"data: a: b:\n\n"],
            vec![message("a: b:")],
        ),
        (
            "a comment in a block",
            &[b"data: a\n: data: b\n:\ndata: c\n\n"],
            vec![message("a\nc")],
        ),
        (
            "a long comment in pieces",
            &[b": data", b": a", b"\ndata: b\n\n"],
            vec![message("b")],
        ),
        (
            "unknown fields",
            &[b"foo: a\nfoobarbaz\ndata: b\nretries: 1\n\n"],
            vec![message("b")],
        ),
        (
            "an unknown field in pieces",
            &[b"foobar", b"baz", b"data: a\ndata: b\n\n"],
            vec![message("b")],
        ),
        (
            "a name in pieces",
            &[b"da", b"ta", b": a\n\nev", b"ent: b\nda", b"ta\n\n"],
            vec![message("a"), typed("b", "")],
        ),
    ]
}

fn types_and_ids() -> Vec<Case> {
    vec![
        (
            "the last type counts",
            &[b"event: a\nevent: b\ndata\n\n"],
            vec![typed("b", "")],
        ),
        (
            "an empty type is none",
            &[b"event: a\nevent\ndata\n\n"],
            vec![message("")],
        ),
        (
            "a type holds for its block only",
            &[b"event: a\ndata\n\ndata\n\n"],
            vec![typed("a", ""), message("")],
        ),
        (
            "a type without data holds for nothing",
            &[b"event: a\n\ndata\n\n"],
            vec![message("")],
        ),
        ("empty lines tell nothing", &[b"\n\n\r\r\n\r\n\n"], vec![]),
        (
            "an id holds on",
            &[b"id: 1\ndata: a\n\ndata: b\n\nid: 2\ndata: c\n\n"],
            vec![with_id("1", "a"), behind_id("1", "b"), with_id("2", "c")],
        ),
        (
            "an id without data takes effect",
            &[b"id: 1\n\ndata: a\n\n"],
            vec![behind_id("1", "a")],
        ),
        (
            "the last id counts",
            &[b"id: 1\nid: 2\ndata\n\n"],
            vec![with_id("2", "")],
        ),
        (
            "an id with NUL is none",
            &[b"id: 1\ndata: a\n\nid: 2\0\ndata: b\n\n"],
            vec![with_id("1", "a"), behind_id("1", "b")],
        ),
        (
            "NUL elsewhere stays",
            &[b"event: \0\ndata: \0\n\n"],
            vec![typed("\0", "\0")],
        ),
    ]
}

fn retries_and_ends() -> Vec<Case> {
    vec![
        (
            "retry takes effect at its line",
            &[b"data: a\nretry: 2000\n"],
            vec![retry(2000)],
        ),
        (
            "retry without a space",
            &[b"retry:0010\n\n"],
            vec![retry(10)],
        ),
        (
            "retry takes digits only",
            &[
                b"retry: 1s\nretry: -1\nretry: +1\nretry: 1.5\nretry:  1\nretry: 1 \n\
                retry\nretry:\nretry: \xD9\xA1\n",
            ],
            vec![],
        ),
        (
            "retry above all numbers",
            &[b"retry: 18446744073709551615\nretry: 99999999999999999999\n"],
            vec![retry(u64::MAX), retry(u64::MAX)],
        ),
        (
            "an unfinished block",
            &[b"data: a\n\nid: 1\ndata: b\n"],
            vec![message("a")],
        ),
        (
            "an unfinished line",
            &[b"data: a\n\ndata: b"],
            vec![message("a")],
        ),
    ]
}
