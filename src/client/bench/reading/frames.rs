//! Messages of a WebSocket, as a client gets them (RFC 6455, section 5.2): not masked.

use std::mem;

use super::{Event, Item, LOOK, Wrong, of_hop};
use crate::client::bench::marker::Run;

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;

/// Where a connection stands in its frames.
#[derive(Debug, Default)]
pub struct Frames {
    /// Whether messages have a header line.
    is_hop: bool,
    /// The beginning of a frame that has been cut.
    held: Vec<u8>,
    /// So much of the current frame is still to come, and of no interest.
    skip: u64,
    /// The message that is under way, if it counts.
    message: Option<Item<'static>>,
    /// The current frame is the last one of its message.
    is_last: bool,
}

/// The header of a frame, and how much of the payload is looked at.
struct Frame {
    opcode: u8,
    is_last: bool,
    header: usize,
    looked_at: usize,
    payload: u64,
}

impl Frame {
    /// The frame that begins here; none while its header is not all there.
    fn of(bytes: &[u8]) -> Result<Option<Self>, Wrong> {
        let [first, second, ..] = *bytes else {
            return Ok(None);
        };
        if first & 0x70 != 0 {
            return Err(Wrong("a frame with an extension that was not asked for"));
        }
        if second & 0x80 != 0 {
            return Err(Wrong("a masked frame of a server"));
        }
        let (header, payload) = match second {
            126 => match bytes.get(2..4) {
                Some(length) => (4, u64::from(u16::from_be_bytes([length[0], length[1]]))),
                None => return Ok(None),
            },
            127 => match bytes.get(2..10).and_then(|length| length.try_into().ok()) {
                Some(length) => (10, u64::from_be_bytes(length)),
                None => return Ok(None),
            },
            short => (2, u64::from(short)),
        };
        Ok(Some(Self {
            opcode: first & 0xF,
            is_last: first & 0x80 != 0,
            header,
            looked_at: usize::try_from(payload).unwrap_or(LOOK).min(LOOK),
            payload,
        }))
    }

    /// How much must be there before it can be dealt with.
    fn needed(&self) -> usize {
        self.header + self.looked_at
    }
}

impl Frames {
    /// Nothing has come yet.
    pub fn new(is_hop: bool) -> Self {
        Self {
            is_hop,
            ..Self::default()
        }
    }

    /// Goes through what has come.
    pub fn feed(
        &mut self,
        mut bytes: &[u8],
        run: Option<Run>,
        tell: &mut impl FnMut(Item<'_>),
    ) -> Result<(), Wrong> {
        loop {
            if self.skip > 0 {
                let skipped =
                    usize::try_from(self.skip).map_or(bytes.len(), |skip| skip.min(bytes.len()));
                bytes = &bytes[skipped..];
                self.skip -= skipped as u64;
                if self.skip > 0 {
                    return Ok(());
                }
                self.end_of_frame(tell);
            }
            if bytes.is_empty() {
                return Ok(());
            }
            let used = match self.held.is_empty() {
                true => self.take(bytes, run, tell)?,
                false => self.take_held(bytes, run, tell)?,
            };
            bytes = &bytes[used..];
        }
    }

    /// Deals with the frame that begins here, or holds all there is of it. How much it has used.
    fn take(
        &mut self,
        bytes: &[u8],
        run: Option<Run>,
        tell: &mut impl FnMut(Item<'_>),
    ) -> Result<usize, Wrong> {
        match Frame::of(bytes)? {
            Some(frame) if frame.needed() <= bytes.len() => {
                self.frame(&frame, &bytes[frame.header..frame.needed()], run, tell)?;
                Ok(frame.needed())
            }
            _ => {
                self.held.extend_from_slice(bytes);
                Ok(bytes.len())
            }
        }
    }

    /// The same, where the frame has begun before.
    fn take_held(
        &mut self,
        bytes: &[u8],
        run: Option<Run>,
        tell: &mut impl FnMut(Item<'_>),
    ) -> Result<usize, Wrong> {
        let mut used = 0;
        loop {
            // Of a header the next byte says whether there are more.
            let needed = Frame::of(&self.held)?.map_or(self.held.len() + 1, |frame| frame.needed());
            let missing = needed - self.held.len();
            if missing == 0 {
                break;
            }
            let more = missing.min(bytes.len() - used);
            if more == 0 {
                return Ok(used);
            }
            self.held.extend_from_slice(&bytes[used..used + more]);
            used += more;
        }
        let mut held = mem::take(&mut self.held);
        if let Some(frame) = Frame::of(&held)? {
            self.frame(&frame, &held[frame.header..], run, tell)?;
        }
        held.clear();
        self.held = held;
        Ok(used)
    }

    fn frame(
        &mut self,
        frame: &Frame,
        looked_at: &[u8],
        run: Option<Run>,
        tell: &mut impl FnMut(Item<'_>),
    ) -> Result<(), Wrong> {
        match frame.opcode {
            TEXT | BINARY => {
                self.message = match self.is_hop {
                    true => of_hop(looked_at, run),
                    false => Some(Item::Event(Event {
                        mark: run.and_then(|run| run.find(looked_at)),
                        ..Event::default()
                    })),
                };
            }
            CONTINUATION | PONG => {}
            PING if frame.payload < 126 => tell(Item::Ping(looked_at)),
            CLOSE => tell(Item::Close(farewell(looked_at))),
            _ => return Err(Wrong("a frame of a kind that there is not")),
        }
        // Control frames may stand between those of a message.
        self.is_last = frame.is_last && frame.opcode < CLOSE;
        self.skip = frame.payload - frame.looked_at as u64;
        if self.skip == 0 {
            self.end_of_frame(tell);
        }
        Ok(())
    }

    fn end_of_frame(&mut self, tell: &mut impl FnMut(Item<'_>)) {
        if mem::take(&mut self.is_last)
            && let Some(message) = self.message.take()
        {
            tell(message);
        }
    }
}

/// Why a server closes (RFC 6455, section 5.5.1), in words.
fn farewell(payload: &[u8]) -> String {
    let [high, low, ref reason @ ..] = *payload else {
        return "closed by the server".to_owned();
    };
    let code = u16::from_be_bytes([high, low]);
    // Where each is told a pause of its own, all of them have one reason.
    let reason = String::from_utf8_lossy(reason);
    let reason = reason.split(": come back in").next().unwrap_or_default();
    match reason.is_empty() {
        true => format!("closed by the server with {code}"),
        false => format!(
            "closed by the server with {code}: {}",
            reason.escape_debug()
        ),
    }
}
