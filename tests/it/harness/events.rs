//! Events to send through, chosen to go wrong.

use tokio_tungstenite::tungstenite::Message;

/// 1 MiB, the default of `--max-message-size`.
pub const MIB: usize = 1 << 20;

/// `len` bytes that are no UTF-8 and repeat with a period that no power of two shares.
pub fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).rev().collect()
}

/// A text of `len` bytes.
pub fn text(len: usize) -> String {
    let letters = (0..len).map(|at| char::from(b'a' + (at % 23) as u8));
    letters.collect()
}

/// Text and binary, empty, and of the lengths at which the header of a frame changes its form, up to 1 MiB.
pub fn all_sorts() -> Vec<Message> {
    let mut events = vec![
        Message::text("plain"),
        Message::text("two\nlines, a NUL \0, and more than ASCII: é ✓ 𝄞"),
        Message::binary((0..=255).collect::<Vec<u8>>()),
    ];
    for len in [0, 1, 125, 126, 127, 65_535, 65_536, 65_537, MIB] {
        events.push(Message::text(text(len)));
        events.push(Message::binary(bytes(len)));
    }
    events.push(Message::text("last"));
    events
}

/// `count` numbered events.
pub fn numbered(count: usize) -> Vec<Message> {
    (0..count)
        .map(|number| Message::text(format!("event {number}")))
        .collect()
}

/// Fails with what differs, but without a page of bytes.
#[track_caller]
pub fn assert_same(got: &[Message], sent: &[Message]) {
    for (at, (got, sent)) in got.iter().zip(sent).enumerate() {
        assert!(
            got == sent,
            "event {at} came as {}, was {}",
            outline(got),
            outline(sent)
        );
    }
    assert_eq!(got.len(), sent.len(), "number of events");
}

/// A message in a few words.
pub fn outline(message: &Message) -> String {
    let mut shown = format!("{message:?}");
    if shown.len() > 80 {
        shown.truncate(shown.floor_char_boundary(80));
        shown = format!("{shown}… ({} bytes)", message.len());
    }
    shown
}
