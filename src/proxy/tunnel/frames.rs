//! Where the frames of a WebSocket begin and end in a stream of bytes (RFC 6455, section 5.2).

use bytes::Bytes;

/// The opcode of a Close frame (RFC 6455, section 5.5.1).
const CLOSE: u8 = 0x8;
/// The status of an endpoint that goes away (RFC 6455, section 7.4.1).
const GOING_AWAY: u16 = 1001;
const REASON: &[u8] = b"going away";
/// The longest payload of a control frame, and of any frame whose length is in its second byte.
const SHORT: u64 = 125;

/// Follows one direction of a WebSocket. It looks at the headers of frames, never at what they carry.
///
/// Bytes that break RFC 6455 are not taken for frames, nor is anything behind them: no boundary is found again.
#[derive(Clone, Debug)]
pub struct Frames {
    /// Of the header: the payload's length as far as it is known. Behind it: what is missing of the payload.
    left: u64,
    /// The opcode of the current frame, or of the last one.
    opcode: u8,
    /// How many bytes of the current header have been seen.
    seen: u8,
    /// How many it has; 2 until both of these have been seen.
    header: u8,
    place: Place,
    /// Whether the sender masks, as a client does and a server does not (RFC 6455, section 5.1).
    masked: bool,
    closed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Boundary,
    Header,
    Payload,
    Lost,
}

impl Frames {
    /// The beginning of what a client sends.
    pub fn of_client() -> Self {
        Self::new(true)
    }

    /// The beginning of what a server sends.
    pub fn of_server() -> Self {
        Self::new(false)
    }

    fn new(masked: bool) -> Self {
        Self {
            left: 0,
            opcode: 0,
            seen: 0,
            header: 2,
            place: Place::Boundary,
            masked,
            closed: false,
        }
    }

    /// Whether a frame of ours could come next.
    pub fn at_boundary(&self) -> bool {
        self.place == Place::Boundary
    }

    /// Whether a whole Close frame has passed.
    pub fn closed(&self) -> bool {
        self.closed
    }

    /// Follows all of `bytes`.
    pub fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let passed = self.pass_one(bytes);
            bytes = &bytes[passed..];
        }
    }

    /// How many of `bytes`, which come next, it takes to the first place where `wanted` is so; that may be here.
    pub fn distance(&self, bytes: &[u8], wanted: impl Fn(&Self) -> bool) -> Option<usize> {
        let mut ahead = self.clone();
        let mut distance = 0;
        while !wanted(&ahead) {
            if distance == bytes.len() {
                return None;
            }
            distance += ahead.pass_one(&bytes[distance..]);
        }
        Some(distance)
    }

    /// A Close frame with which this direction may end, at a boundary.
    pub fn going_away(&self) -> Bytes {
        let mut payload = GOING_AWAY.to_be_bytes().to_vec();
        payload.extend_from_slice(REASON);
        let mut frame = vec![0x80 | CLOSE, payload.len() as u8];
        if self.masked {
            let key: [u8; 4] = rand::random();
            frame[1] |= 0x80;
            frame.extend_from_slice(&key);
            for (byte, key) in payload.iter_mut().zip(key.iter().cycle()) {
                *byte ^= key;
            }
        }
        frame.extend_from_slice(&payload);
        frame.into()
    }

    /// Follows `bytes` to the end of a frame at most; how many of them those are. Not none, unless there are none.
    fn pass_one(&mut self, bytes: &[u8]) -> usize {
        let mut passed = 0;
        while let Some(&byte) = bytes.get(passed) {
            match self.place {
                Place::Lost => return bytes.len(),
                Place::Boundary | Place::Header => {
                    passed += 1;
                    self.pass_header(byte);
                }
                Place::Payload => {
                    let rest = (bytes.len() - passed) as u64;
                    let step = self.left.min(rest);
                    passed += step as usize;
                    self.left -= step;
                    if self.left == 0 {
                        self.end();
                    }
                }
            }
            if self.place == Place::Boundary {
                break;
            }
        }
        passed
    }

    fn pass_header(&mut self, byte: u8) {
        self.place = Place::Header;
        let valid = match self.seen {
            0 => self.begin(byte),
            1 => self.begin_length(byte),
            _ => self.pass_length(byte),
        };
        self.seen += 1;
        if !valid {
            self.place = Place::Lost;
        } else if self.seen >= 2 && self.seen == self.header {
            match self.left {
                0 => self.end(),
                _ => self.place = Place::Payload,
            }
        }
    }

    /// FIN, three bits of extensions, and the opcode: 3 to 7 and 11 to 15 are reserved, and control frames are whole.
    fn begin(&mut self, byte: u8) -> bool {
        self.opcode = byte & 0xf;
        let whole = byte & 0x80 != 0;
        match self.opcode {
            0..=2 => true,
            8..=10 => whole,
            _ => false,
        }
    }

    fn begin_length(&mut self, byte: u8) -> bool {
        let masked = byte & 0x80 != 0;
        let length = u64::from(byte & 0x7f);
        let more = match length {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        self.header = 2 + more + if masked { 4 } else { 0 };
        self.left = if more == 0 { length } else { 0 };
        masked == self.masked && (more == 0 || self.opcode < CLOSE)
    }

    /// The rest of the length, the highest byte first, and then the masking key, which says nothing.
    fn pass_length(&mut self, byte: u8) -> bool {
        let length = self.header - if self.masked { 4 } else { 0 };
        if self.seen >= length {
            return true;
        }
        self.left = self.left << 8 | u64::from(byte);
        // The shortest form must be used, and the highest bit of eight bytes must be 0.
        let least = match length {
            4 => SHORT + 1,
            _ => 1 << 16,
        };
        self.seen + 1 < length || (least..1 << 63).contains(&self.left)
    }

    fn end(&mut self) {
        self.closed |= self.opcode == CLOSE;
        self.place = Place::Boundary;
        self.seen = 0;
        self.header = 2;
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// One frame; only its length matters of the payload.
    fn frame(first: u8, length: usize, masked: bool) -> Vec<u8> {
        let mut frame = vec![first];
        let mask = if masked { 0x80 } else { 0 };
        match length {
            0..=125 => frame.push(mask | length as u8),
            126..=0xffff => {
                frame.push(mask | 126);
                frame.extend((length as u16).to_be_bytes());
            }
            _ => {
                frame.push(mask | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        if masked {
            frame.extend([1, 2, 3, 4]);
        }
        // Looks like frames itself.
        frame.extend([0x81, 0x88].iter().cycle().take(length));
        frame
    }

    fn lengths() -> impl Strategy<Value = usize> {
        prop_oneof![
            0..130usize,
            Just(65_535),
            Just(65_536),
            100..1_000usize,
            60_000..70_000usize
        ]
    }

    fn frames() -> impl Strategy<Value = Vec<(u8, usize)>> {
        let data = (
            prop::sample::select(vec![0x00, 0x01, 0x02, 0x80, 0x81, 0x82, 0xc1]),
            lengths(),
        );
        let control = (prop::sample::select(vec![0x89, 0x8a]), 0..=125usize);
        vec(prop_oneof![data, control], 0..12)
    }

    proptest! {
        #[test]
        fn boundaries_do_not_depend_on_how_the_bytes_come(
            frames in frames(),
            masked: bool,
            cuts in vec(any::<prop::sample::Index>(), 0..40),
        ) {
            let mut bytes = vec![];
            let mut boundaries = vec![0];
            for &(first, length) in &frames {
                bytes.extend(frame(first, length, masked));
                boundaries.push(bytes.len());
            }
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            // Beside each boundary it matters most.
            cuts.extend(boundaries.iter().flat_map(|&at| [at.saturating_sub(1), at, at + 1, at + 3]));
            cuts.push(bytes.len());
            cuts.retain(|&cut| cut <= bytes.len());
            cuts.sort_unstable();
            let mut tracked = Frames::new(masked);
            let mut at = 0;
            for cut in cuts {
                let next = boundaries.iter().copied().find(|&boundary| boundary >= at);
                prop_assert_eq!(
                    tracked.distance(&bytes[at..], Frames::at_boundary),
                    next.map(|next| next - at)
                );
                tracked.pass(&bytes[at..cut]);
                at = cut;
                prop_assert_eq!(tracked.at_boundary(), boundaries.contains(&at), "at {}", at);
                prop_assert!(!tracked.closed());
            }
            prop_assert_eq!(tracked.distance(&bytes[at..], Frames::closed), None);
        }

        #[test]
        fn a_close_has_passed_when_its_last_byte_has(
            before in frames(),
            length in 0..=125usize,
            masked: bool,
        ) {
            let mut bytes: Vec<u8> = before
                .iter()
                .flat_map(|&(first, length)| frame(first, length, masked))
                .collect();
            bytes.extend(frame(0x88, length, masked));
            let close = bytes.len();
            bytes.extend(b"anything");
            let mut tracked = Frames::new(masked);
            prop_assert_eq!(tracked.distance(&bytes, Frames::closed), Some(close));
            tracked.pass(&bytes[..close - 1]);
            prop_assert!(!tracked.closed());
            tracked.pass(&bytes[close - 1..]);
            prop_assert!(tracked.closed());
        }

        #[test]
        fn any_bytes_are_followed_the_same_way_in_any_pieces(bytes in vec(any::<u8>(), 0..300), masked: bool) {
            let mut whole = Frames::new(masked);
            whole.pass(&bytes);
            let mut single = Frames::new(masked);
            for byte in &bytes {
                single.pass(&[*byte]);
            }
            prop_assert_eq!(format!("{whole:?}"), format!("{single:?}"));
        }
    }

    #[test]
    fn what_is_not_a_frame_ends_the_search() {
        let malformed: [(&str, &[u8]); 9] = [
            (
                "a length whose highest bit is set",
                &[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0],
            ),
            (
                "eight bytes for a length of two",
                &[0x82, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff],
            ),
            ("two bytes for a length of one", &[0x82, 126, 0, 125]),
            ("a reserved opcode", &[0x83, 0]),
            ("a reserved control opcode", &[0x8b, 0]),
            ("a long ping", &[0x89, 126, 0, 126]),
            ("a Close in pieces", &[0x08, 0]),
            ("a server that masks", &[0x82, 0x80, 0, 0, 0, 0]),
            ("HTTP", b"HTTP/1.1 200 OK\r\n\r\n"),
        ];
        for (what, bytes) in malformed {
            let mut tracked = Frames::of_server();
            tracked.pass(&frame(0x81, 3, false));
            tracked.pass(bytes);
            tracked.pass(&frame(0x88, 2, false));
            assert!(!tracked.at_boundary(), "{what}");
            assert!(!tracked.closed(), "{what}");
        }
        let mut tracked = Frames::of_client();
        tracked.pass(&frame(0x81, 0, false));
        assert!(!tracked.at_boundary(), "a client that does not mask");
    }

    #[test]
    fn its_own_close_is_one() {
        for mut tracked in [Frames::of_client(), Frames::of_server()] {
            let mut close = tracked.going_away().to_vec();
            tracked.pass(&close);
            assert!(tracked.closed() && tracked.at_boundary());
            if tracked.masked {
                let key: Vec<u8> = close.drain(2..6).collect();
                for (byte, key) in close[2..].iter_mut().zip(key.iter().cycle()) {
                    *byte ^= key;
                }
                close[1] &= 0x7f;
            }
            assert_eq!(close, b"\x88\x0c\x03\xe9going away");
        }
    }
}
