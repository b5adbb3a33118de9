use proptest::prelude::*;

use super::*;

/// A frame of `len` bytes that can be recognised.
fn frame(number: u64, len: usize) -> Vec<u8> {
    let mut frame = (len as u32).to_le_bytes().to_vec();
    frame.extend((0..len).map(|at| (number as usize + at) as u8));
    frame
}

#[derive(Debug, Clone)]
enum Step {
    Append(usize),
    Read(usize),
    Evict(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop_oneof![8 => 0usize..2_000, 1 => 0usize..300_000].prop_map(Step::Append),
        3 => (0usize..3).prop_map(Step::Read),
        1 => (0u64..20).prop_map(Step::Evict),
    ]
}

proptest! {
    /// Whatever is appended, read and evicted in whatever order, a cursor yields whole frames in order, or says
    /// that it has been passed by; and it is passed by only when a frame it had not read was evicted.
    #[test]
    fn cursors_yield_whole_frames_in_order(steps in proptest::collection::vec(step(), 1..80)) {
        let mut tape = Tape::new(1);
        let reader = tape.reader();
        let mut frames = vec![];
        let mut kept_from = 0;
        let mut cursors = [tape.end(); 3];
        let mut chunk = None;
        for step in steps {
            match step {
                Step::Append(len) => {
                    let next = frame(frames.len() as u64, len);
                    tape.append([&next[..3], &next[3..]]);
                    frames.push(next);
                }
                Step::Evict(keep) => {
                    kept_from = kept_from.max(frames.len().saturating_sub(keep as usize));
                    tape.evict_before(1 + kept_from as u64);
                }
                Step::Read(which) => {
                    let cursor = &mut cursors[which];
                    loop {
                        let read = (cursor.index - 1) as usize;
                        match reader.pending(*cursor, &mut chunk) {
                            Pending::Frames { slice, end, .. } => {
                                let expected = frames[read..(end.index - 1) as usize].concat();
                                prop_assert!(*slice == expected[..]);
                                prop_assert_eq!(end.position - cursor.position, expected.len() as u64);
                                *cursor = end;
                            }
                            Pending::CaughtUp => {
                                prop_assert_eq!(read, frames.len());
                                break;
                            }
                            Pending::Evicted => {
                                prop_assert!(read < kept_from);
                                *cursor = tape.end();
                                break;
                            }
                        }
                    }
                }
            }
        }
        prop_assert_eq!(tape.end().index, frames.len() as u64 + 1);
    }
}

#[test]
fn chunks_go_when_all_their_frames_are_old() {
    let mut tape = Tape::new(1);
    let reader = tape.reader();
    let start = tape.end();
    for _ in 0..1_000 {
        tape.append([&[0; 10], &[0; 110]]);
    }
    assert_eq!(reader.oldest(), start);
    // The first chunk holds four of these frames: evicting three of them must keep it.
    tape.evict_before(4);
    assert!(matches!(
        reader.pending(start, &mut None),
        Pending::Frames { .. }
    ));
    tape.evict_before(5);
    assert!(matches!(reader.pending(start, &mut None), Pending::Evicted));
    assert_eq!(reader.oldest().position, start.position + 4 * 120);
    assert_eq!(Some(reader.oldest()), tape.before(5));
}

#[test]
fn older_frames_go_before_the_first() {
    let mut tape = Tape::new(1_000);
    let reader = tape.reader();
    let edge = tape.end();
    tape.append([b"live", b""]);
    let older: Vec<_> = (0..300)
        .map(|number| frame(number, number as usize * 10))
        .collect();
    tape.prepend(&older);
    assert_eq!(tape.first(), 700);
    for from in [0, 1, 150, 299] {
        let mut cursor = tape.before(700 + from).expect("it is here");
        let mut read = vec![];
        while let Pending::Frames { slice, end, .. } = reader.pending(cursor, &mut None) {
            read.extend_from_slice(&slice);
            cursor = end;
        }
        assert_eq!(
            read,
            [&older[from as usize..].concat()[..], b"live"].concat()
        );
        assert_eq!(cursor, tape.end());
    }
    assert_eq!(tape.before(1_000), Some(edge));
    assert_eq!(tape.before(1_001), Some(tape.end()));
    assert_eq!((tape.before(699), tape.before(1_002)), (None, None));
    tape.evict_before(900);
    assert!(tape.first() > 700 && tape.first() <= 900);
    assert_eq!(tape.before(700), None);
    assert!(tape.before(900).is_some());
}

#[test]
fn a_notice_goes_with_the_event_behind_it() {
    let mut tape = Tape::new(1);
    let reader = tape.reader();
    for round in 0..2_000u64 {
        tape.append([b"event", b""]);
        if round % 3 == 0 {
            tape.append_notice(b"notice");
        }
    }
    assert_eq!(tape.end().index, 2_001);
    for index in 1..=2_000 {
        let cursor = tape.before(index).expect("it is here");
        let mut chunk = None;
        let Pending::Frames { slice, .. } = reader.pending(cursor, &mut chunk) else {
            panic!("something follows");
        };
        let notice: &[u8] = if index % 3 == 2 {
            b"noticeevent"
        } else {
            b"event"
        };
        // A notice may stand at the end of a chunk.
        assert!(slice.starts_with(notice) || *slice == *b"notice", "{index}");
    }
}

#[test]
fn readers_that_were_cut_off_find_out() {
    let mut tape = Tape::new(1);
    let reader = tape.reader();
    let start = tape.end();
    tape.append([b"a frame", b""]);
    let (edge, mut chunk) = (tape.end(), None);
    assert!(matches!(
        reader.pending(edge, &mut chunk),
        Pending::CaughtUp
    ));
    tape.cut_off();
    assert!(matches!(reader.pending(edge, &mut chunk), Pending::Evicted));
    assert!(matches!(reader.pending(start, &mut None), Pending::Evicted));
    let again = tape.end();
    // Nor is it what somebody else wants before that.
    tape.prepend(&[frame(1, 10)]);
    assert!(matches!(reader.pending(edge, &mut None), Pending::Evicted));
    tape.append([b"another", b""]);
    assert!(matches!(
        reader.pending(again, &mut chunk),
        Pending::Frames { .. }
    ));
    assert_eq!(again.index, 2);
}

#[test]
fn a_slice_outlives_its_tape() {
    let mut tape = Tape::new(1);
    let start = tape.end();
    tape.append([b"ab", b"cdef"]);
    let mut chunk = None;
    let owned = match tape.reader().pending(start, &mut chunk) {
        Pending::Frames { slice, .. } => slice.to_owned(1, 4),
        _ => panic!("a frame is pending"),
    };
    drop((tape, chunk));
    assert_eq!(owned.as_ref(), b"bcd");
}

#[test]
fn a_tape_knows_whether_it_is_read() {
    let tape = Tape::new(1);
    assert!(tape.is_unread());
    let reader = tape.reader();
    assert!(!tape.is_unread());
    drop(reader);
    assert!(tape.is_unread());
}

#[test]
fn readers_and_the_writer_run_at_the_same_time() {
    const FRAMES: u64 = 20_000;
    let mut tape = Tape::new(0);
    let (reader, start) = (tape.reader(), tape.end());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let (mut cursor, mut chunk) = (start, None);
                while cursor.index < FRAMES {
                    if let Pending::Frames { slice, end, .. } = reader.pending(cursor, &mut chunk) {
                        let expected = (cursor.index..end.index).flat_map(u64::to_le_bytes);
                        assert!(slice.iter().copied().eq(expected));
                        cursor = end;
                    }
                }
            });
        }
        for number in 0..FRAMES {
            tape.append([&number.to_le_bytes(), &[]]);
        }
    });
}

#[test]
fn a_tape_has_room_for_nothing_before_there_is_something() {
    let mut tape = Tape::new(1);
    assert!(!tape.tail.append([b"a", b""], 1), "room that nobody needs");
    tape.append([b"a", b""]);
    assert!(!tape.tail.append([&[0; SMALLEST_CHUNK], b""], 1));
    let mut cut = Tape::new(1);
    cut.append([b"a", b""]);
    cut.cut_off();
    assert!(!cut.tail.append([b"a", b""], 1), "room that nobody needs");
}
