//! What hops say to each other, and peers of ZeroMQ.

#[cfg(feature = "zeromq")]
use bytes::BytesMut;

#[cfg(feature = "zeromq")]
use super::{Reads, option};
use crate::event::{Kind, Payload};
use crate::wire::hop::{self, Message};
use crate::wire::websocket::boundary_at_or_after;
#[cfg(feature = "zeromq")]
use crate::wire::zmtp::{self, Command, Decoder, Item, Socket};

/// A message of a hop link: header and control lines. Whatever is understood is said again, and understood as the same.
pub fn hop_messages(input: &[u8]) {
    let message = Payload {
        kind: Kind::Text,
        bytes: input.to_vec().into(),
    };
    let event = match hop::decode(message.clone()) {
        Ok(Message::Event(event)) => event,
        Ok(Message::Control(control)) => {
            let line = control.to_string();
            assert!(!line.contains('\n'), "{line:?} is one line");
            let again = hop::decode(Payload::text(line.clone()));
            assert_eq!(again, Ok(Message::Control(control)), "{line}");
            return;
        }
        Ok(Message::Unknown) => return,
        Err(wrong) => return drop(wrong.to_string()),
    };
    assert_eq!(hop::id_of(&message), Some(event.id));
    let mut frame = vec![];
    hop::encode_header(&event, &mut frame);
    let id = event.id.to_string();
    let begin = memchr::memmem::find(&frame, id.as_bytes()).expect("the line begins with the id");
    frame.extend_from_slice(&event.payload.bytes);
    assert_eq!(boundary_at_or_after(&frame, 1), (frame.len(), 1));
    let again = Payload {
        kind: Kind::Text,
        bytes: frame.split_off(begin).into(),
    };
    assert_eq!(hop::decode(again), Ok(Message::Event(event.clone())));
    let line = hop::header_line(&event);
    let again = hop::decode_header_line(line.as_bytes(), event.payload.clone());
    assert_eq!(again, Ok(event));
}

/// What a ZeroMQ peer sends behind its greeting: the same however it comes, and no more is kept than a message may have. The first byte
/// says which kind of socket it speaks to.
#[cfg(feature = "zeromq")]
pub fn zmtp(input: &[u8]) {
    const MOST: usize = 1_000;
    let (options, input) = option(input);
    let sockets = [Socket::Pub, Socket::XPub, Socket::Sub, Socket::XSub];
    let own = sockets[usize::from(options & 3)];
    let (items, _) = Reads::of(input).each_way(|reads| {
        let mut decoder = Decoder::new(own, MOST);
        let (mut buffer, mut items) = (BytesMut::new(), vec![]);
        for read in reads {
            buffer.extend_from_slice(read);
            loop {
                match decoder.decode(&mut buffer) {
                    Ok(Some(item)) => items.push(item),
                    Ok(None) => break,
                    Err(wrong) => {
                        let wrong = wrong.to_string();
                        assert!(!wrong.contains(char::is_control), "{wrong:?}");
                        // How many of its bytes have come does not matter.
                        return (items, true);
                    }
                }
            }
            // What is kept waits for the end of a message, or of a command.
            assert!(buffer.len() <= (64 << 10) + 9, "{} bytes", buffer.len());
        }
        (items, false)
    });
    for item in items {
        match item {
            Item::Message(message) => {
                assert!(message.wire().len() <= MOST, "longer than allowed");
                let frames: Vec<_> = message.frames().collect();
                let mut wire = BytesMut::from(&zmtp::Message::new(&frames).wire()[..]);
                let again = Decoder::new(Socket::Sub, usize::MAX).decode(&mut wire);
                let Ok(Some(Item::Message(again))) = again else {
                    panic!("{again:?} is no message");
                };
                assert!(again.frames().eq(frames), "other frames");
            }
            Item::Command(Command::Subscribe(topic) | Command::Cancel(topic)) => {
                assert!(topic.len() <= zmtp::MAX_TOPIC);
            }
            Item::TooLong(len) => assert!(len > MOST as u64),
            Item::Command(_) => {}
        }
    }
}
