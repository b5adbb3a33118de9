//! Recordings, which may come from anywhere and be damaged in any way.

use std::io::{Cursor, Read};

use super::{Reads, option};
use crate::recording::reader::{Item, Reader};
use crate::wire::recording::{HEAD, MAGIC, decode, encode};

/// The largest payload that is taken.
const MOST: usize = 10_000;
/// More records than bytes there cannot be.
const ENOUGH: usize = 1 << 20;

/// Gives what it has in pieces.
struct Pieces<'a, I>(I, Cursor<&'a [u8]>);

impl<'a, I: Iterator<Item = &'a [u8]>> Read for Pieces<'a, I> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            match self.1.read(buffer)? {
                0 => match self.0.next() {
                    Some(piece) => self.1 = Cursor::new(piece),
                    None => return Ok(0),
                },
                len => return Ok(len),
            }
        }
    }
}

/// All that is in a file, up to its end or to where it is damaged; none if it is no recording.
fn items(pieces: &[&[u8]]) -> Option<Vec<Item>> {
    let input = Pieces(pieces.iter().copied(), Cursor::default());
    let mut reader = Reader::new(input, MOST).ok()?;
    let mut items = Vec::new();
    loop {
        let item = reader.read();
        let is_last = matches!(item, Item::End | Item::Damage(_));
        items.push(item);
        if is_last {
            return Some(items);
        }
        assert!(items.len() < ENOUGH, "there is no end to it");
    }
}

/// A file, and a record: what is read is the same in whatever pieces it comes, and a record that can be read is written as it was understood.
/// An odd first byte says that the rest is the body of a record, for which the checksum is made.
pub fn recording(input: &[u8]) {
    let (options, input) = option(input);
    if options & 1 == 0 {
        Reads::of(input).each_way(items);
        return;
    }
    let Ok(Some(record)) = decode(input) else {
        return;
    };
    let mut written = Vec::new();
    assert!(
        encode(&record, &mut written),
        "it was small enough to be read"
    );
    assert_eq!(decode(&written[HEAD..]), Ok(Some(record.clone())));
    let file = [MAGIC, &written[..]].concat();
    let read = items(&[&file]).expect("a recording");
    match &read[..] {
        [Item::Recorded(read), Item::End] => assert_eq!(*read, record),
        [Item::Unusable(_), Item::End] => assert!(input.len() > MOST),
        other => panic!("not what was written: {other:?}"),
    }
}
