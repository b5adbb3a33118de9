//! WebSocket frames, written by hand so that they can be wrong, and read strictly.

pub const CONTINUATION: u8 = 0x0;
pub const TEXT: u8 = 0x1;
pub const BINARY: u8 = 0x2;
pub const CLOSE: u8 = 0x8;
pub const PING: u8 = 0x9;
pub const PONG: u8 = 0xA;

/// Set in the first byte of a message's last frame.
pub const FIN: u8 = 0x80;

/// Set in the first byte of a compressed message.
pub const COMPRESSED: u8 = 0x40;

/// A frame as a server sends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub fin: bool,
    /// It begins a message that is compressed (RFC 7692, section 6).
    pub compressed: bool,
    pub opcode: u8,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The code and the reason of a Close frame; 1005 stands for no code.
    pub fn close(&self) -> Option<(u16, String)> {
        if self.opcode != CLOSE {
            return None;
        }
        match &self.payload[..] {
            [] => Some((1005, String::new())),
            [high, low, reason @ ..] => {
                let reason = std::str::from_utf8(reason).expect("a reason is UTF-8");
                Some((u16::from_be_bytes([*high, *low]), reason.to_owned()))
            }
            [_] => panic!("a Close frame with a payload of one byte"),
        }
    }
}

/// A masked frame; `first` is its first byte as it stands on the wire.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];
    let mut frame = header(first, 0x80, payload.len() as u64);
    frame.extend(MASK);
    frame.extend(
        payload
            .iter()
            .enumerate()
            .map(|(at, byte)| byte ^ MASK[at % 4]),
    );
    frame
}

/// A frame without a mask.
pub fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(first, 0, payload.len() as u64);
    frame.extend(payload);
    frame
}

/// A frame's header up to its length, in the shortest form. `mask_bit` is 0x80 or 0.
pub fn header(first: u8, mask_bit: u8, len: u64) -> Vec<u8> {
    let mut header = vec![first];
    match len {
        0..126 => header.push(mask_bit | len as u8),
        126..65_536 => {
            header.push(mask_bit | 126);
            header.extend((len as u16).to_be_bytes());
        }
        _ => {
            header.push(mask_bit | 127);
            header.extend(len.to_be_bytes());
        }
    }
    header
}

/// The payload of a Close frame.
pub fn close_payload(code: u16, reason: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes(), reason].concat()
}

/// The first frame in `buffer` and its length there, if all of it has arrived. Panics at whatever a server must not
/// send (RFC 6455, section 5).
pub fn parse(buffer: &[u8]) -> Option<(Frame, usize)> {
    let (&first, &second) = (buffer.first()?, buffer.get(1)?);
    let compressed = first & COMPRESSED != 0;
    assert!(
        first & 0x30 == 0 && (!compressed || matches!(first & 0x0F, TEXT | BINARY)),
        "reserved bits are set: first byte {first:#04x}"
    );
    assert_eq!(second & 0x80, 0, "a server's frame is masked");
    let opcode = first & 0x0F;
    let known = [CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG];
    assert!(known.contains(&opcode), "reserved opcode {opcode:#x}");
    let (start, len) = match second {
        126 => (
            4,
            u64::from(u16::from_be_bytes(buffer.get(2..4)?.try_into().ok()?)),
        ),
        127 => (10, u64::from_be_bytes(buffer.get(2..10)?.try_into().ok()?)),
        len => (2, u64::from(len)),
    };
    let shortest = header(first, 0, len).len();
    assert_eq!(
        start, shortest,
        "a length of {len} is not in its shortest form"
    );
    let fin = first & FIN != 0;
    if opcode >= CLOSE {
        assert!(
            fin && len <= 125,
            "a control frame is fragmented or too long"
        );
    }
    let end = start + usize::try_from(len).ok()?;
    let payload = buffer.get(start..end)?.to_vec();
    let frame = Frame {
        fin,
        compressed,
        opcode,
        payload,
    };
    Some((frame, end))
}
