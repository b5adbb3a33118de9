use super::*;

fn decoded(own: Socket, most: usize, chunks: &[&[u8]]) -> Result<Vec<Item>, Wrong> {
    let mut decoder = Decoder::new(own, most);
    let (mut buffer, mut items) = (BytesMut::new(), Vec::new());
    for chunk in chunks {
        buffer.put_slice(chunk);
        while let Some(item) = decoder.decode(&mut buffer)? {
            items.push(item);
        }
        assert!(
            buffer.len() <= most.max(MAX_COMMAND) + 9,
            "it keeps what it needs"
        );
    }
    Ok(items)
}

#[test]
fn messages_come_out_as_they_went_in_wherever_they_are_cut() {
    let long = vec![b'x'; 300];
    let messages = [
        Message::new(&[b""]),
        Message::new(&[b"topic", b"payload"]),
        Message::new(&[&long, b"", &long]),
    ];
    assert_eq!(
        messages[2].frames().collect::<Vec<_>>(),
        [&long[..], b"", &long]
    );
    assert_eq!(messages[1].topic(), b"topic");
    let wire = messages
        .each_ref()
        .map(|message| &message.wire()[..])
        .concat();
    let expected = messages.map(Item::Message);
    for cut in 0..wire.len() {
        let (before, behind) = wire.split_at(cut);
        let items = decoded(Socket::Sub, 1_000, &[before, behind]);
        assert_eq!(items.as_deref(), Ok(&expected[..]), "{cut}");
    }
}

#[test]
fn what_is_too_long_is_skipped_and_takes_no_room() {
    let next = Message::new(&[b"next"]);
    let parts = Message::new(&[&[1; 60], &[2; 60], &[3; 60]]);
    let one = Message::new(&[&[1; 500]]);
    for (message, len) in [(&parts, 186), (&one, 509)] {
        let wire = [&message.wire()[..], next.wire()].concat();
        let bytes: Vec<_> = wire.chunks(1).collect();
        let items = decoded(Socket::Sub, 100, &bytes).expect("frames");
        assert_eq!(items, [Item::TooLong(len), Item::Message(next.clone())]);
    }
    // Its length alone is no reason to make room.
    let endless = [&[LONG][..], &u64::MAX.to_be_bytes(), b"begun"].concat();
    assert_eq!(decoded(Socket::Sub, 100, &[&endless]), Ok(vec![]));
}

#[test]
fn peers_subscribe_with_messages_or_commands() {
    for by_command in [false, true] {
        let wire = [
            subscription(b"a", true, by_command),
            subscription(b"", true, by_command),
            subscription(b"a", false, by_command),
        ]
        .concat();
        let expected = [
            Command::Subscribe(Bytes::from("a")),
            Command::Subscribe(Bytes::new()),
            Command::Cancel(Bytes::from("a")),
        ];
        let items = decoded(Socket::Pub, 1_000, &[&wire]);
        assert_eq!(items, Ok(expected.map(Item::Command).to_vec()));
    }
    // What a subscriber says otherwise is nothing that a publisher knows.
    let other = Message::new(&[b"\x01two", b"frames"]);
    let items = decoded(Socket::XPub, 1_000, &[other.wire()]);
    assert_eq!(items, Ok(vec![Item::Command(Command::Other)]));
}

#[test]
fn topics_that_are_too_long_are_refused_before_they_have_come() {
    let (longest, longer) = ([b'x'; MAX_TOPIC], [b'x'; MAX_TOPIC + 1]);
    for (by_command, is_wanted) in [(false, false), (false, true), (true, false), (true, true)] {
        let wire = subscription(&longest, is_wanted, by_command);
        let topic = Bytes::copy_from_slice(&longest);
        let command = match is_wanted {
            true => Command::Subscribe(topic),
            false => Command::Cancel(topic),
        };
        let items = decoded(Socket::XPub, 8 << 10, &[&wire]);
        assert_eq!(items, Ok(vec![Item::Command(command)]));
        let wire = subscription(&longer, is_wanted, by_command);
        // A message's kind is known when it is whole.
        let come = if by_command { 9 + 10 } else { wire.len() };
        let wrong = decoded(Socket::XPub, 8 << 10, &[&wire[..come]]).expect_err("too long");
        assert!(wrong.0.contains("a topic of 1025 bytes"), "{wrong}");
    }
}

#[test]
fn a_peer_is_greeted_if_it_fits() {
    let begun: [u8; VERSION] = greeting()[..VERSION].try_into().expect("its beginning");
    assert_eq!(check_version(&begun), Ok(()));
    assert_eq!(check_greeting(&greeting()), Ok(true));
    let mut old = begun;
    old[10] = 1;
    assert!(check_version(&old).is_err_and(|wrong| wrong.0.contains("old version")));
    assert!(check_version(b"HTTP/1.1 40").is_err_and(|wrong| wrong.0.contains("does not speak")));
    let mut curve = greeting();
    curve[12..17].copy_from_slice(b"CURVE");
    assert!(check_greeting(&curve).is_err_and(|wrong| wrong.0.contains("CURVE")));
    let first = |own, theirs| decoded(own, 100, &[&ready(theirs)]);
    for (own, theirs) in [
        (Socket::Sub, Socket::Pub),
        (Socket::XSub, Socket::XPub),
        (Socket::Pub, Socket::XSub),
        (Socket::XPub, Socket::Sub),
    ] {
        assert_eq!(first(own, theirs), Ok(vec![Item::Command(Command::Ready)]));
        let wrong = first(own, own).expect_err("no peer");
        assert!(wrong.0.contains(own.name()), "{wrong}");
    }
}

#[test]
fn other_commands_are_answered_or_left_alone() {
    let ping = command("PING", &[&[0, 9], b"context"]);
    let error = command("ERROR", &[b"\x07go\naway"]);
    let wire = [&ping[..], &error, &pong(b"x"), &command("SPARKLE", &[])].concat();
    let expected = [
        Command::Ping(Bytes::from("context")),
        Command::Error("go\\naway".to_owned()),
        Command::Other,
        Command::Other,
    ];
    let items = decoded(Socket::Sub, 100, &[&wire]);
    assert_eq!(items, Ok(expected.map(Item::Command).to_vec()));
    for wrong in [
        &b"\x80\x00"[..],
        &[COMMAND, 0],
        &[COMMAND, 2, 9, 9],
        &[COMMAND | MORE, 5, 4],
        &[COMMAND | LONG, 0, 0, 0, 0, 0, 1, 0, 1],
    ] {
        assert!(decoded(Socket::Sub, 100, &[wrong]).is_err(), "{wrong:?}");
    }
}

proptest::proptest! {
    #[test]
    fn nothing_that_comes_is_a_reason_to_panic(chunks: Vec<Vec<u8>>, publishes: bool) {
        let own = if publishes { Socket::Pub } else { Socket::Sub };
        let chunks: Vec<_> = chunks.iter().map(|chunk| &chunk[..]).collect();
        let _ = decoded(own, 64, &chunks);
    }
}
