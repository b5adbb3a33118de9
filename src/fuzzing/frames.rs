//! What a WebSocket client sends.

use super::{Reads, option};
use crate::endpoint::websocket::input::{End, Input, Unheard};
use crate::event::{Kind, Payload};
use crate::wire::Format;
use crate::wire::websocket::boundary_at_or_after;

/// How it has ended: a code, or whether what has come is whole messages.
#[derive(Debug, PartialEq)]
enum Result {
    Open { between: bool },
    Closed(u16),
    Violation(u16),
}

/// Frames, read by what a server reads them with. They mean the same however they come, no message is above the limit, and what is
/// answered is whole frames. The first byte says how long a message may be, who is heard, and whether messages may be compressed.
pub fn client_frames(input: &[u8]) {
    let (options, input) = option(input);
    let limit = [0, 10, 2_000, 100_000][usize::from(options & 3)];
    let hears = [Ok(()), Err(Unheard::Nobody), Err(Unheard::WithoutRight)];
    let hears = hears[usize::from((options & 0x7F) >> 2) % hears.len()];
    let format = match options & 0x80 {
        0 => Format::WebSocket,
        _ => Format::WebSocketDeflate,
    };
    Reads::of(input).each_way(|reads| {
        let mut input = Input::new(format, limit);
        let (mut replies, mut taken) = (vec![], vec![]);
        let mut result = None;
        for read in reads {
            let publish = hears.map(|()| |payload: Payload| taken.push(payload));
            if let Err(end) = input.take(read, &mut replies, publish) {
                result = Some(end);
                break;
            }
        }
        for payload in &taken {
            assert!(payload.bytes.len() <= limit, "longer than allowed");
            let is_text = payload.kind == Kind::Text;
            assert!(!is_text || std::str::from_utf8(&payload.bytes).is_ok());
        }
        let result = match result {
            None => Result::Open {
                between: input.is_between_messages(),
            },
            Some(End::Closed { code }) => Result::Closed(code),
            // Which of two things that are wrong is seen first depends on what has come: a message at all, or what is wrong with it.
            Some(End::Violation { .. }) if hears.is_err() => Result::Violation(0),
            Some(End::Violation { code, reason }) => {
                assert!(!reason.contains(char::is_control), "{reason:?}");
                Result::Violation(code.into())
            }
        };
        let is_wrong = matches!(result, Result::Violation(_));
        // By contract they are worth nothing then.
        let replies = if is_wrong { vec![] } else { replies };
        if !replies.is_empty() {
            let (end, _) = boundary_at_or_after(&replies, replies.len());
            assert_eq!(end, replies.len(), "half a frame is sent");
        }
        (replies, taken, result)
    });
}
