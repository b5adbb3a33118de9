//! What somebody subscribes to: whatever begins with one of a set of topics.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hasher};

use bytes::Bytes;

/// A set of topics, each perhaps several times.
///
/// Whether one of them is a message's beginning is found out in one pass over that, however many there are: the hash of each
/// beginning goes on from that of the one before it. Hashes are keyed at random, so that nobody can make many equal ones.
#[derive(Default)]
pub struct Topics {
    counts: HashMap<Bytes, usize>,
    /// How many of these have which hash.
    hashes: HashMap<u64, usize>,
    /// How many of these have which length.
    lengths: BTreeMap<usize, usize>,
    /// Of all of them together.
    bytes: usize,
    keys: RandomState,
}

impl Topics {
    /// Adds one. Whether it is new.
    pub fn add(&mut self, topic: Bytes) -> bool {
        if let Some(count) = self.counts.get_mut(&topic) {
            *count += 1;
            return false;
        }
        *self.hashes.entry(self.hash(&topic)).or_default() += 1;
        *self.lengths.entry(topic.len()).or_default() += 1;
        self.bytes += topic.len();
        self.counts.insert(topic, 1);
        true
    }

    /// Takes one away. Whether that was the last.
    pub fn remove(&mut self, topic: &Bytes) -> bool {
        let Some(count) = self.counts.get_mut(topic) else {
            return false;
        };
        *count -= 1;
        if *count > 0 {
            return false;
        }
        self.counts.remove(topic);
        self.bytes -= topic.len();
        let hash = self.hash(topic);
        if let Some(of_hash) = self.hashes.get_mut(&hash) {
            *of_hash -= 1;
            if *of_hash == 0 {
                self.hashes.remove(&hash);
            }
        }
        if let Some(of_length) = self.lengths.get_mut(&topic.len()) {
            *of_length -= 1;
            if *of_length == 0 {
                self.lengths.remove(&topic.len());
            }
        }
        true
    }

    /// Whether one of them is the beginning of this.
    pub fn match_beginning(&self, topic: &[u8]) -> bool {
        let mut hasher = self.keys.build_hasher();
        let mut hashed = 0;
        let mut lengths = self.lengths.range(..=topic.len());
        lengths.any(|(&length, _)| {
            go_on(&mut hasher, &topic[hashed..length]);
            hashed = length;
            self.hashes.contains_key(&hasher.finish()) && self.counts.contains_key(&topic[..length])
        })
    }

    /// Each once.
    pub fn all(&self) -> impl Iterator<Item = &Bytes> {
        self.counts.keys()
    }

    /// How many different ones there are.
    pub fn len(&self) -> usize {
        self.counts.len()
    }

    /// How many bytes these have together.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn hash(&self, topic: &[u8]) -> u64 {
        let mut hasher = self.keys.build_hasher();
        go_on(&mut hasher, topic);
        hasher.finish()
    }
}

/// Byte by byte: hashers need not give the same for what is cut elsewhere.
fn go_on(hasher: &mut impl Hasher, bytes: &[u8]) {
    bytes.iter().for_each(|&byte| hasher.write_u8(byte));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_beginnings_and_are_counted() {
        let mut topics = Topics::default();
        assert!(!topics.match_beginning(b"a"));
        assert!(topics.add(Bytes::from("ab")) && !topics.add(Bytes::from("ab")));
        assert!(topics.add(Bytes::from("cde")));
        assert_eq!((topics.len(), topics.bytes()), (2, 5));
        for (topic, expected) in [("ab", true), ("abc", true), ("a", false), ("cd", false)] {
            assert_eq!(
                topics.match_beginning(topic.as_bytes()),
                expected,
                "{topic}"
            );
        }
        assert!(!topics.remove(&Bytes::from("ab")) && topics.match_beginning(b"ab"));
        assert!(topics.remove(&Bytes::from("ab")) && !topics.match_beginning(b"ab"));
        assert!(!topics.remove(&Bytes::from("ab")));
        assert_eq!((topics.len(), topics.bytes()), (1, 3));
        assert!(topics.add(Bytes::new()) && topics.match_beginning(b""));
    }

    proptest::proptest! {
        #[test]
        fn a_beginning_is_found_whatever_else_there_is(
            added: Vec<(bool, String)>,
            (from, kept) in (0..32_usize, 0..64_usize),
        ) {
            let mut topics = Topics::default();
            for (_, topic) in &added {
                topics.add(topic.clone().into());
            }
            let mut left = vec![];
            for (is_left, topic) in added {
                match is_left {
                    true => left.push(topic),
                    false => drop(topics.remove(&topic.into())),
                }
            }
            let mut asked = left.get(from).cloned().unwrap_or_default().into_bytes();
            asked.truncate(kept);
            asked.extend(b"more");
            for end in 0..=asked.len() {
                let asked = &asked[..end];
                let expected = left.iter().any(|topic| asked.starts_with(topic.as_bytes()));
                assert_eq!(topics.match_beginning(asked), expected);
            }
        }
    }
}
