use proptest::prelude::*;

use super::*;
use crate::wire::compress::deflate_message;

const MAX: usize = 1_000;
const NOBODY: Result<fn(Payload), Unheard> = Err(Unheard::Nobody);

/// A client frame; the mask is zero, so the payload stands as it is.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..126 => frame.push(0x80 | len as u8),
        len => {
            frame.push(0x80 | 126);
            frame.extend((len as u16).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// Feeds `bytes` in pieces of `step`; the replies and how it ended.
fn feed(bytes: &[u8], step: usize) -> (Vec<u8>, Result<(), End>) {
    let mut input = Input::new(Format::WebSocket, MAX);
    let mut replies = vec![];
    for piece in bytes.chunks(step) {
        if let Err(end) = input.take(piece, &mut replies, NOBODY) {
            return (replies, Err(end));
        }
    }
    (replies, Ok(()))
}

fn code_of(bytes: &[u8]) -> u16 {
    match feed(bytes, bytes.len()).1 {
        Err(End::Violation { code, .. }) => code.into(),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn pings_are_answered_with_their_payload_however_they_arrive() {
    let pings = [
        frame(0x89, b"one"),
        frame(0x8A, b"a pong"),
        frame(0x89, b""),
    ]
    .concat();
    for step in 1..=pings.len() {
        assert_eq!(
            feed(&pings, step),
            (b"\x8a\x03one\x8a\x00".to_vec(), Ok(())),
            "step {step}"
        );
    }
}

#[test]
fn it_is_known_whether_a_message_is_whole() {
    let bytes = [
        frame(0x01, b"two "),
        frame(0x89, b"ping"),
        frame(0x80, b"halves"),
        frame(0x82, b"one"),
    ];
    let lens = bytes.each_ref().map(Vec::len);
    let bytes = bytes.concat();
    let whole = [lens[..3].iter().sum(), bytes.len()];
    let mut input = Input::new(Format::WebSocket, MAX);
    for (at, byte) in bytes.iter().enumerate() {
        let taken = input.take(&[*byte], &mut vec![], Ok(|_| ()));
        assert_eq!(taken, Ok(()));
        assert_eq!(
            input.is_between_messages(),
            whole.contains(&(at + 1)),
            "{at}"
        );
    }
}

#[test]
fn nothing_is_kept_after_whole_control_frames() {
    let mut input = Input::new(Format::WebSocket, MAX);
    let ping = frame(0x89, b"ping");
    input
        .take(&ping, &mut vec![], NOBODY)
        .expect("a ping is welcome");
    assert!(input.parser.is_none());
    input
        .take(&ping[..5], &mut vec![], NOBODY)
        .expect("half a ping too");
    assert!(input.parser.is_some());
}

#[test]
fn a_ping_alone_in_the_middle_of_a_message_leaves_that_as_it_is() {
    let (mut input, mut taken) = (Input::new(Format::WebSocket, MAX), vec![]);
    let ping = frame(0x89, b"ping");
    let whole = frame(0x82, &ping);
    let (begin, end) = whole.split_at(whole.len() - ping.len());
    for read in [
        &frame(0x01, b"two ")[..],
        &ping,
        &frame(0x80, b"halves"),
        begin,
        end,
    ] {
        let take = |payload| taken.push(payload);
        assert_eq!(input.take(read, &mut vec![], Ok(take)), Ok(()));
    }
    let expected = [Payload::text("two halves"), Payload::binary(ping.clone())];
    assert_eq!(taken, expected);
    // As before, nothing is kept once a ping has come between messages.
    assert!(input.parser.is_some());
    assert_eq!(input.take(&ping, &mut vec![], NOBODY), Ok(()));
    assert!(input.parser.is_none());
}

#[test]
fn a_long_frame_takes_no_room_before_it_has_come() {
    let long = 100_000;
    let payload = vec![b'x'; long];
    let mut whole = vec![0x82, 0xFF];
    whole.extend((long as u64).to_be_bytes());
    whole.extend([0; 4]);
    whole.extend(&payload);
    let bytes = [&frame(0x89, b"one")[..], &whole, &frame(0x81, b"next")].concat();
    for step in [1, 13, 4_096, 99_999, bytes.len()] {
        let (mut input, mut replies, mut taken) =
            (Input::new(Format::WebSocket, long), vec![], vec![]);
        let mut come = 0;
        for piece in bytes.chunks(step) {
            let take = |payload: Payload| taken.push(payload.bytes.len());
            assert_eq!(input.take(piece, &mut replies, Ok(take)), Ok(()));
            come += piece.len();
            let room = input.parser.as_ref().map_or(0, |it| it.held.capacity());
            assert!(room <= 2 * come.max(8), "{room} bytes for {come}");
            assert!(
                input.unfinished() <= come,
                "{} of {come}",
                input.unfinished()
            );
        }
        assert_eq!(taken, [long, 4], "in pieces of {step}");
        assert_eq!(replies, b"\x8a\x03one");
        assert_eq!(input.unfinished(), 0);
    }
    // The message behind it is one too many.
    let mut input = Input::new(Format::WebSocket, long);
    let begun = [&frame(0x01, &[b'x'; 500])[..], &whole[..4_000]].concat();
    let end = input.take(&begun, &mut vec![], Ok(|_| ()));
    assert!(matches!(
        end,
        Err(End::Violation {
            code: CloseCode::Protocol,
            ..
        })
    ));
}

#[test]
fn of_who_is_not_heard_little_is_kept() {
    let unheard = Err(Unheard::Nobody);
    let mut begun = vec![0x82, 0xFE];
    begun.extend(60_000u16.to_be_bytes());
    let mut input = Input::new(Format::WebSocket, 1 << 20);
    let end = input.take(&begun, &mut vec![], unheard as Result<fn(_), _>);
    assert_eq!(end, Err(Unheard::Nobody.end()));
    let mut input = Input::new(Format::WebSocket, 1 << 20);
    let fragments = [frame(0x01, b"x"), frame(0x00, &[b'x'; 1_000]).repeat(3)].concat();
    let mut come = 0;
    let end = loop {
        let fragment = &fragments[come..(come + 500).min(fragments.len())];
        come += fragment.len();
        match input.take(fragment, &mut vec![], unheard as Result<fn(_), _>) {
            Ok(()) => assert!(input.unfinished() as u64 <= LONGEST_HANDED_ON),
            Err(end) => break end,
        }
    };
    assert_eq!(end, Unheard::Nobody.end());
}

#[test]
fn a_close_is_answered_with_its_code() {
    let close = frame(0x88, &[0x03, 0xE8, b'b', b'y', b'e']);
    for step in 1..=close.len() {
        let (replies, end) = feed(&close, step);
        assert_eq!(end, Err(End::Closed { code: 1000 }));
        assert_eq!(replies[..4], [0x88, 5, 0x03, 0xE8]);
    }
    assert_eq!(
        feed(&frame(0x88, b""), 9).1,
        Err(End::Closed { code: 1005 })
    );
}

#[test]
fn what_must_not_be_sent_is_named_by_its_code() {
    assert_eq!(code_of(&frame(0x81, b"hello")), 1003);
    assert_eq!(code_of(&frame(0x82, b"")), 1003);
    assert_eq!(code_of(&frame(0x81, b"\xff\xfe")), 1007);
    assert_eq!(code_of(&frame(0x82, &[0; MAX + 1])), 1009);
    assert_eq!(
        code_of(&[frame(0x02, &[0; MAX]), frame(0x80, b"1")].concat()),
        1009
    );
    let unmasked = [0x81, 0x02, b'h', b'i'];
    assert_eq!(code_of(&unmasked), 1002);
    let reserved_bit = frame(0xC1, b"");
    assert_eq!(code_of(&reserved_bit), 1002);
    let reserved_opcode = frame(0x83, b"");
    assert_eq!(code_of(&reserved_opcode), 1002);
    let fragmented_ping = frame(0x09, b"");
    assert_eq!(code_of(&fragmented_ping), 1002);
    let long_ping = frame(0x89, &[0; 126]);
    assert_eq!(code_of(&long_ping), 1002);
    let ping_with_a_long_length = [0x89, 0xFE, 0, 1, 0, 0, 0, 0, b'x'];
    assert_eq!(code_of(&ping_with_a_long_length), 1002);
    let continuation_of_nothing = frame(0x80, b"");
    assert_eq!(code_of(&continuation_of_nothing), 1002);
    let close_of_one_byte = frame(0x88, b"x");
    assert_eq!(code_of(&close_of_one_byte), 1002);
}

#[test]
fn messages_are_taken_where_they_are_wanted() {
    let bytes = [
        frame(0x81, "é".as_bytes()),
        frame(0x89, b"ping"),
        frame(0x02, b"two "),
        frame(0x80, b"halves"),
    ]
    .concat();
    for step in 1..=bytes.len() {
        let (mut input, mut replies, mut taken) =
            (Input::new(Format::WebSocket, MAX), vec![], vec![]);
        for piece in bytes.chunks(step) {
            let take = |payload| taken.push(payload);
            assert_eq!(input.take(piece, &mut replies, Ok(take)), Ok(()));
        }
        let expected = [Payload::text("é"), Payload::binary(&b"two halves"[..])];
        assert_eq!((&taken[..], &replies[2..]), (&expected[..], &b"ping"[..]));
    }
}

#[test]
fn what_comes_before_a_wrong_header_is_taken() {
    let long_ping = [0x89, 0xFE, 0, 1, 0, 0, 0, 0, b'x'];
    let bytes = [&frame(0x89, b"one")[..], &long_ping].concat();
    for step in 1..=bytes.len() {
        let (replies, end) = feed(&bytes, step);
        assert!(matches!(end, Err(End::Violation { .. })), "step {step}");
        assert_eq!(replies, b"\x8a\x03one", "step {step}");
    }
    let bytes = [&frame(0x88, b"")[..], &long_ping].concat();
    assert_eq!(feed(&bytes, bytes.len()).1, Err(End::Closed { code: 1005 }));
}

/// A message in frames as long as these, with a ping behind each but the last; the first one of a compressed message says so.
fn fragmented(first: u8, wire: &[u8], lens: &[usize]) -> Vec<u8> {
    let (mut rest, mut first) = (wire, first);
    let mut frames = vec![];
    for len in lens {
        let (fragment, behind) = rest.split_at((*len).min(rest.len()));
        rest = behind;
        frames.extend(frame(first, fragment));
        frames.extend(frame(0x89, b"p"));
        first = 0;
    }
    frames.extend(frame(0x80 | first, rest));
    frames
}

/// One of several messages: whether it is compressed, what it consists of, and how long its fragments are.
fn message() -> impl Strategy<Value = (bool, String, Vec<usize>)> {
    let text = prop_oneof!["[a-z ]{0,40}", "[ -~]{100,300}", "[ -~]{3000,9000}"];
    let len = prop_oneof![0usize..10, 2_000usize..2_100, 0usize..6_000];
    (any::<bool>(), text, prop::collection::vec(len, 0..4))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Compressed or not, in long frames and short ones, and cut anywhere.
    #[test]
    fn messages_are_what_they_were_however_they_come(
        messages in prop::collection::vec(message(), 1..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let (mut wire, mut expected, mut pongs, mut ends) = (vec![], vec![], 0, vec![]);
        for (is_compressed, text, lens) in &messages {
            let (mut first, mut payload) = (0x01, text.clone().into_bytes());
            if *is_compressed {
                (first, payload) = (0x41, vec![]);
                deflate_message(&[text.as_bytes()], &mut payload);
            }
            wire.extend(fragmented(first, &payload, lens));
            ends.push(wire.len());
            pongs += lens.len();
            expected.push(Payload::text(text.clone()));
        }
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(wire.len())).collect();
        cuts.extend([0, wire.len()]);
        cuts.sort_unstable();
        let mut input = Input::new(Format::WebSocketDeflate, 10_000);
        let (mut replies, mut taken) = (vec![], vec![]);
        for cut in cuts.windows(2) {
            let take = |payload| taken.push(payload);
            let result = input.take(&wire[cut[0]..cut[1]], &mut replies, Ok(take));
            prop_assert_eq!(result, Ok(()));
            let is_end = cut[1] == 0 || ends.contains(&cut[1]);
            prop_assert_eq!(input.is_between_messages(), is_end);
            prop_assert!(input.unfinished() <= cut[1]);
        }
        prop_assert_eq!(taken, expected);
        prop_assert_eq!(replies, b"\x8a\x01p".repeat(pongs));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 1..200), step in 1usize..50) {
        let (_, _) = feed(&bytes, step);
    }
}
