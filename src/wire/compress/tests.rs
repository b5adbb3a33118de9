use proptest::prelude::*;

use super::*;

const BODIES: [Coding; 2] = [Coding::Gzip, Coding::Zstd];

/// Expands a body that comes in pieces of `step` bytes, `room` bytes at a time.
fn read(coding: Coding, body: &[u8], step: usize, room: usize) -> Result<Vec<u8>, Wrong> {
    let mut expander = Expander::new(coding).expect("it is a coding of bodies");
    let (mut all, mut output) = (vec![], vec![0; room]);
    for mut piece in body.chunks(step) {
        loop {
            let len = expander.next(&mut piece, &mut output)?;
            all.extend_from_slice(&output[..len]);
            if len < room {
                assert!(piece.is_empty());
                break;
            }
        }
    }
    Ok(all)
}

fn body(coding: Coding, texts: &[String]) -> (Vec<u8>, Vec<usize>) {
    let (mut wire, mut ends) = (vec![], vec![]);
    for text in texts {
        let (one, other) = text.as_bytes().split_at(text.len() / 3);
        coding.append(&[one, other], &mut wire);
        ends.push(wire.len());
    }
    (wire, ends)
}

fn texts() -> impl Strategy<Value = Vec<String>> {
    let text = prop_oneof![
        "[ -~é\u{0}\n]{1,300}",
        ("[a-c ]{1,20}", 1usize..3_000).prop_map(|(word, times)| word.repeat(times)),
    ];
    prop::collection::vec(text, 1..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whichever event a reader begins with.
    #[test]
    fn a_body_can_be_read_from_any_event_on(texts in texts(), from in 0usize..8, step in 1usize..5_000, room in 1usize..5_000) {
        for coding in BODIES {
            let (wire, ends) = body(coding, &texts);
            let from = from % texts.len();
            let begin = from.checked_sub(1).map_or(0, |before| ends[before]);
            let sent = [coding.beginning(), &wire[begin..]].concat();
            prop_assert_eq!(read(coding, &sent, step, room), Ok(texts[from..].concat().into_bytes()));
        }
    }

    #[test]
    fn the_end_of_each_event_is_found(texts in texts(), at in any::<prop::sample::Index>()) {
        for coding in BODIES {
            let (wire, ends) = body(coding, &texts);
            let at = at.index(wire.len()) + 1;
            let event = ends.iter().position(|end| *end >= at).expect("within");
            prop_assert_eq!(coding.boundary_at_or_after(&wire, at), (ends[event], event as u64 + 1));
        }
    }

    #[test]
    fn messages_come_out_unchanged(message in prop::collection::vec(any::<u8>(), 0..3_000), times in 1usize..50) {
        let message = message.repeat(times);
        let mut wire = vec![];
        let (one, other) = message.split_at(message.len() / 2);
        deflate_message(&[one, other], &mut wire);
        let inflated = inflate_message(&wire, message.len());
        prop_assert_eq!(inflated.as_deref(), Ok(&message[..]));
        if let Some(less) = message.len().checked_sub(1) {
            prop_assert_eq!(inflate_message(&wire, less), Err(Wrong::TooLarge));
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), step in 1usize..50) {
        let _ = inflate_message(&bytes, 1_000);
        for coding in BODIES {
            let _ = read(coding, &[coding.beginning(), &bytes].concat(), step, 100);
        }
    }

    #[test]
    fn half_a_message_is_none(text in "[ -~]{200,400}", cut in any::<prop::sample::Index>()) {
        let mut wire = vec![];
        deflate_message(&[text.as_bytes()], &mut wire);
        // The last byte holds nothing but the rest of the flush.
        wire.truncate(cut.index(wire.len() - 2));
        let half = inflate_message(&wire, 1_000);
        prop_assert!(half == Err(Wrong::Broken) || wire.is_empty(), "{:?}", half);
    }
}

#[test]
fn the_examples_of_the_standard_are_read() {
    // RFC 7692, sections 7.2.3.1, 7.2.3.3, 7.2.3.4 and 7.2.3.5.
    for example in [
        &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..],
        &[
            0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00,
        ],
        &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
        &[
            0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00,
        ],
    ] {
        assert_eq!(inflate_message(example, 5).as_deref(), Ok(&b"Hello"[..]));
        assert_eq!(inflate_message(example, 4), Err(Wrong::TooLarge));
    }
    assert_eq!(inflate_message(&[0], 0).as_deref(), Ok(&b""[..]));
}

/// A thousandfold of what is sent, and still no more is made of it than is allowed.
#[test]
fn a_bomb_does_not_go_off() {
    let mut bomb = vec![];
    deflate_message(&[&vec![0; 4 << 20]], &mut bomb);
    assert!(bomb.len() < 1 << 14);
    let mut inflate = Decompress::new(false);
    let mut out = vec![];
    assert_eq!(
        expand(&mut inflate, &bomb, 1_000, &mut out),
        Err(Wrong::TooLarge)
    );
    assert!(out.capacity() <= 1_001, "{}", out.capacity());
    assert_eq!(inflate_message(&bomb, 1 << 20), Err(Wrong::TooLarge));
}

/// Four bytes that look like the end of an event, in the middle of one: as it is rare, it is made up here.
#[test]
fn what_looks_like_an_end_is_no_end() {
    for len in [1, LONGEST_STORED, LONGEST_STORED + 1, 0xFF00, 200_000] {
        let text = "\0é".repeat(len / 3 + 1);
        let mut wire = vec![];
        append_stored(&[text.as_bytes(), b"\0"], &mut wire);
        let len = wire.len();
        assert_eq!(memmem::find(&wire, &SYNC), Some(len - SYNC.len()));
        assert_eq!(Coding::Gzip.boundary_at_or_after(&wire, 1), (len, 1));
        let sent = [&GZIP_HEADER[..], &wire].concat();
        let read = read(Coding::Gzip, &sent, 1_000, 10_000).expect("it is gzip");
        assert!(read == [text.as_bytes(), b"\0"].concat());
    }
}

#[test]
fn members_and_frames_may_follow_each_other() {
    let mut body = vec![];
    for text in ["one ", "two ", "three"] {
        let mut member = flate2::write::GzEncoder::new(&mut body, Compression::default());
        std::io::Write::write_all(&mut member, text.as_bytes()).expect("memory can be written");
        member.finish().expect("memory can be written");
    }
    for step in [1, 7, 1_000] {
        let read = read(Coding::Gzip, &body, step, 1_000);
        assert_eq!(read.as_deref(), Ok(&b"one two three"[..]));
    }
    assert_eq!(read(Coding::Gzip, b"no gzip", 9, 9), Err(Wrong::Broken));
    assert_eq!(read(Coding::Zstd, b"no zstd", 9, 9), Err(Wrong::Broken));
}
