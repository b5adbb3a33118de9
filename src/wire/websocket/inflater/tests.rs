use proptest::prelude::*;

use super::super::{HeaderCheck, OPCODE_PING, encode_deflated};
use super::*;
use crate::event::Kind;

const MAX: usize = 10_000;
const MASK: [u8; 4] = [1, 0x7F, 0x80, 0xFF];

/// A frame of a client, or of a server if it has no mask.
fn frame(first: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let mut header = encode_header(0, payload.len());
    header.bytes[0] = first;
    let mut frame = header.as_ref().to_vec();
    if let Some(mask) = mask {
        frame[1] |= MASKED;
        frame.extend(mask);
    }
    let payload = payload.iter().enumerate();
    frame.extend(payload.map(|(at, byte)| byte ^ mask.map_or(0, |mask| mask[at % 4])));
    frame
}

fn compressed(text: &[u8]) -> Vec<u8> {
    let mut message = vec![];
    compress::deflate_message(&[text], &mut message);
    message
}

fn take(wire: &[u8], step: usize) -> (Vec<u8>, Result<(), Violation>) {
    let (mut inflater, mut out) = (Inflater::new(MAX), vec![]);
    for piece in wire.chunks(step) {
        if let Err(violation) = inflater.take(piece, &mut out) {
            return (out, Err(violation));
        }
    }
    (out, Ok(()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// In fragments, with control frames and other messages between them, and cut anywhere.
    #[test]
    fn messages_go_on_as_if_they_had_never_been_compressed(
        texts in prop::collection::vec("[a-z ]{0,500}", 1..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        is_masked in any::<bool>(),
        step in 1usize..600,
    ) {
        let (mask, neutral) = match is_masked {
            true => (Some(MASK), Some([0; 4])),
            false => (None, None),
        };
        let (mut wire, mut expected) = (vec![], vec![]);
        for (index, text) in texts.iter().enumerate() {
            let is_plain = index % 3 == 2;
            let message = match is_plain {
                true => text.as_bytes().to_vec(),
                false => compressed(text.as_bytes()),
            };
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(message.len() + 1)).collect();
            cuts.sort_unstable();
            let mut first = OPCODE_TEXT | if is_plain { 0 } else { COMPRESSED };
            let mut from = 0;
            for cut in cuts {
                let fragment = frame(first, &message[from..cut], mask);
                let ping = frame(FIN | OPCODE_PING, b"ping", mask);
                wire.extend([&fragment[..], &ping].concat());
                if is_plain {
                    expected.extend(&fragment);
                }
                expected.extend(ping);
                (first, from) = (OPCODE_CONTINUATION, cut);
            }
            let last = frame(first | FIN, &message[from..], mask);
            wire.extend(&last);
            match is_plain {
                true => expected.extend(last),
                false => expected.extend(frame(FIN | OPCODE_TEXT, text.as_bytes(), neutral)),
            }
        }
        prop_assert_eq!(take(&wire, step), (expected, Ok(())));
        let checked = HeaderCheck::of(true).take(&wire);
        prop_assert_eq!((checked.good, checked.wrong), (wire.len(), None));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), step in 1usize..50) {
        let _ = take(&bytes, step);
    }
}

#[test]
fn what_is_sent_by_us_is_read_by_us() {
    let text = "the same again and ".repeat(40);
    let mut wire = vec![];
    assert!(encode_deflated(Kind::Text, &[text.as_bytes()], &mut wire));
    assert_eq!(wire[0], FIN | COMPRESSED | OPCODE_TEXT);
    assert!(wire.len() < text.len() / 4);
    let expected = frame(FIN | OPCODE_TEXT, text.as_bytes(), None);
    assert_eq!(take(&wire, 10), (expected, Ok(())));
    // What is small or random goes as it is.
    let random: Vec<u8> = std::iter::repeat_with(rand::random).take(500).collect();
    for not_smaller in [&b"short"[..], &random] {
        assert!(!encode_deflated(Kind::Binary, &[not_smaller], &mut wire));
    }
}

fn code(wire: &[u8]) -> u16 {
    let (_, result) = take(wire, wire.len());
    result.map_or(0, |()| 0).max(match take(wire, 1).1 {
        Err((code, _)) => code.into(),
        Ok(()) => 0,
    })
}

#[test]
fn what_is_wrong_is_named_by_its_code() {
    let first = FIN | COMPRESSED | OPCODE_BINARY;
    let whole = |payload: &[u8]| frame(first, payload, Some(MASK));
    assert_eq!(code(&whole(b"\xff\xff\xff")), 1007);
    assert_eq!(code(&whole(b"")), 1007);
    assert_eq!(code(&whole(&compressed(&vec![b' '; MAX]))), 0);
    assert_eq!(code(&whole(&compressed(&vec![b' '; MAX + 1]))), 1009);
    // It says how long it is, and nothing of it need come.
    assert_eq!(code(&whole(&vec![0; 2 * MAX])[..8]), 1009);
    let begun = frame(first & !FIN, &[0; MAX], Some(MASK));
    let more = frame(OPCODE_CONTINUATION, &[0; MAX], Some(MASK));
    assert_eq!(code(&[&begun[..], &more].concat()), 1009);
    assert_eq!(code(&[&begun[..], &whole(b"")].concat()), 1002);
    let plain = frame(FIN | OPCODE_TEXT, b"", Some(MASK));
    assert_eq!(code(&[&begun[..], &plain].concat()), 1002);
    let begun_plain = frame(OPCODE_TEXT, b"", Some(MASK));
    assert_eq!(code(&[&begun_plain[..], &whole(b"")].concat()), 1002);
}

/// The parser behind says what is wrong with them.
#[test]
fn what_must_not_be_compressed_passes() {
    for first in [
        FIN | COMPRESSED | OPCODE_PING,
        FIN | COMPRESSED | OPCODE_CONTINUATION,
        FIN | COMPRESSED | 0x20 | OPCODE_TEXT,
    ] {
        let wire = frame(first, b"hello", Some(MASK));
        assert_eq!(take(&wire, 3), (wire, Ok(())));
    }
}
