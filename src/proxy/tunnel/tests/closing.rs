//! How a tunnel that has to end tells both sides.

use super::*;

/// A frame of a server's.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..=125 => frame.push(length as u8),
        length @ 126..=0xffff => {
            frame.push(126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(payload);
    frame
}

/// A short frame of a client's.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 126, "short");
    let mut frame = vec![first, 0x80 | payload.len() as u8, 1, 2, 3, 4];
    frame.extend(
        payload
            .iter()
            .zip([1, 2, 3, 4].iter().cycle())
            .map(|(byte, key)| byte ^ key),
    );
    frame
}

/// The first bytes and the payloads of short and long frames, of which there must be no part.
fn parse(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = vec![];
    while !bytes.is_empty() {
        let first = bytes[0];
        let (length, mut header) = match bytes[1] & 0x7f {
            126 => (u16::from_be_bytes([bytes[2], bytes[3]]) as usize, 4),
            127 => {
                let length = bytes[2..10].try_into().expect("eight");
                (u64::from_be_bytes(length) as usize, 10)
            }
            length => (length as usize, 2),
        };
        let mut key = [0; 4];
        if bytes[1] & 0x80 != 0 {
            key.copy_from_slice(&bytes[header..header + 4]);
            header += 4;
        }
        let payload = &bytes[header..header + length];
        let payload = payload
            .iter()
            .zip(key.iter().cycle())
            .map(|(byte, key)| byte ^ key)
            .collect();
        frames.push((first, payload));
        bytes = &bytes[header + length..];
    }
    frames
}

const GOING_AWAY: &[u8] = b"\x03\xe9going away";

fn close_of_ours() -> Vec<u8> {
    frame(0x88, GOING_AWAY)
}

/// The client gets whole frames and then a Close, in the middle of traffic, and the upstream the client's answer.
#[tokio::test]
async fn a_stop_is_told_between_two_frames() {
    for seed in 0..12 {
        let mut random = SmallRng::seed_from_u64(seed);
        let sizes = [0, 3, 125, 126, 4_000, 65_535, 65_536, 200_000];
        let frames: Vec<Vec<u8>> = (0..40)
            .map(|n| frame(0x82, &vec![n; sizes[random.random_range(0..sizes.len())]]))
            .collect();
        let joined = Joined::new(NO_LIMITS).await;
        let (mut from_client, mut to_client) = joined.client.into_split();
        let (mut from_upstream, mut to_upstream) = joined.upstream.into_split();
        let sending = tokio::spawn({
            let frames = frames.clone();
            async move {
                // Until the tunnel is gone.
                for frame in frames.iter().cycle() {
                    if to_upstream.write_all(frame).await.is_err() {
                        return;
                    }
                }
            }
        });
        let mut received = vec![0; random.random_range(1..500_000)];
        from_client
            .read_exact(&mut received)
            .await
            .expect("so many");
        joined.stop.now();
        let mut piece = vec![0; 100_000];
        while !received.ends_with(&close_of_ours()) {
            let length = from_client.read(&mut piece).await.expect("read");
            assert_ne!(length, 0, "seed {seed}: no Close");
            received.extend_from_slice(&piece[..length]);
        }
        let event = masked(0x81, b"an event");
        let close = masked(0x88, GOING_AWAY);
        let answer = [&event[..], &close, b"and this is too late"].concat();
        to_client.write_all(&answer).await.expect("written");
        let mut passed = vec![];
        from_upstream
            .read_to_end(&mut passed)
            .await
            .expect("an end");
        assert_eq!(passed, [event, close].concat(), "seed {seed}");
        let mut rest = vec![];
        from_client.read_to_end(&mut rest).await.expect("an end");
        assert_eq!(rest, b"", "seed {seed}");
        drop((from_client, to_client));
        sending.abort();
        let _ = sending.await;
        let ended = joined.tunnel.await.expect("ended");
        assert!(matches!(ended.why, Why::Stopped), "{:?}", ended.why);
        assert_eq!(ended.to_client, received.len() as u64);
        let mut got = parse(&received);
        assert_eq!(got.pop(), Some((0x88, GOING_AWAY.to_vec())), "seed {seed}");
        let sent = frames.iter().cycle().flat_map(|frame| parse(frame));
        let expected = sent.take(got.len());
        assert!(expected.eq(got.iter().cloned()), "seed {seed}");
    }
}

#[tokio::test]
async fn a_stop_in_the_middle_of_a_frame_waits_for_its_end() {
    let mut joined = Joined::new(NO_LIMITS).await;
    let (first, second) = (frame(0x81, b"first"), frame(0x81, b"second"));
    joined
        .upstream
        .write_all(&first[..4])
        .await
        .expect("written");
    assert_eq!(receive(&mut joined.client, 4).await, first[..4]);
    joined.stop.now();
    let rest = [&first[4..], &second].concat();
    joined.upstream.write_all(&rest).await.expect("written");
    let expected = [&first[4..], &close_of_ours()].concat();
    assert_eq!(receive(&mut joined.client, expected.len()).await, expected);
    let close = masked(0x88, GOING_AWAY);
    joined.client.write_all(&close).await.expect("written");
    assert_eq!(receive_all(&mut joined.upstream).await, close);
    drop(joined.upstream);
    assert_eq!(receive_all(&mut joined.client).await, b"");
    drop(joined.client);
    joined.tunnel.await.expect("ended");
}

#[tokio::test]
async fn what_has_no_boundary_is_cut() {
    for bytes in [&b"\x81\x05hel"[..], b"not a WebSocket"] {
        let drain = AT_ONCE;
        let mut joined = Joined::new(Limits { drain, ..NO_LIMITS }).await;
        joined.upstream.write_all(bytes).await.expect("written");
        assert_eq!(receive(&mut joined.client, bytes.len()).await, bytes);
        joined.stop.now();
        assert_eq!(receive_all(&mut joined.client).await, b"");
        let ended = joined.tunnel.await.expect("ended");
        assert!(matches!(ended.why, Why::Stopped), "{:?}", ended.why);
    }
}

#[tokio::test]
async fn a_client_is_told_only_once() {
    let mut joined = Joined::new(NO_LIMITS).await;
    let close = frame(0x88, b"\x03\xe8");
    joined.upstream.write_all(&close).await.expect("written");
    assert_eq!(receive(&mut joined.client, close.len()).await, close);
    joined.stop.now();
    let answer = masked(0x88, b"\x03\xe8");
    joined.client.write_all(&answer).await.expect("written");
    assert_eq!(receive_all(&mut joined.upstream).await, answer);
    assert_eq!(receive_all(&mut joined.client).await, b"");
    drop((joined.client, joined.upstream));
    joined.tunnel.await.expect("ended");
}

#[tokio::test]
async fn an_upstream_is_told_for_a_client_that_is_silent() {
    let drain = AT_ONCE;
    let mut joined = Joined::new(Limits { drain, ..NO_LIMITS }).await;
    joined.stop.now();
    assert_eq!(receive_all(&mut joined.client).await, close_of_ours());
    let told = receive_all(&mut joined.upstream).await;
    assert_eq!(told[1] & 0x80, 0x80, "a client masks");
    assert_eq!(parse(&told), [(0x88, GOING_AWAY.to_vec())]);
    joined.tunnel.await.expect("ended");
}

#[tokio::test]
async fn an_upstream_is_told_for_a_client_that_goes_without_an_answer() {
    let mut joined = Joined::new(NO_LIMITS).await;
    joined.stop.now();
    let close = close_of_ours();
    assert_eq!(receive(&mut joined.client, close.len()).await, close);
    drop(joined.client);
    let told = receive_all(&mut joined.upstream).await;
    assert_eq!(parse(&told), [(0x88, GOING_AWAY.to_vec())]);
    drop(joined.upstream);
    joined.tunnel.await.expect("ended");
}

/// Plays a client that answers a Close, and an upstream that says nothing.
async fn ends_by_itself(limits: Limits) -> Why {
    let mut joined = Joined::new(limits).await;
    let close = close_of_ours();
    assert_eq!(receive(&mut joined.client, close.len()).await, close);
    let answer = masked(0x88, GOING_AWAY);
    joined.client.write_all(&answer).await.expect("written");
    assert_eq!(receive_all(&mut joined.upstream).await, answer);
    drop((joined.client, joined.upstream));
    joined.tunnel.await.expect("ended").why
}

#[tokio::test]
async fn limits_end_it_with_a_close() {
    let why = ends_by_itself(Limits {
        client_idle: Some(AT_ONCE),
        upstream_idle: Some(LONG),
        ..NO_LIMITS
    });
    assert!(matches!(why.await, Why::ClientIdle));
    let why = ends_by_itself(Limits {
        client_idle: Some(Duration::MAX),
        upstream_idle: Some(AT_ONCE),
        ..NO_LIMITS
    });
    assert!(matches!(why.await, Why::UpstreamIdle));
    let why = ends_by_itself(Limits {
        age: Some(Instant::now() + AT_ONCE),
        client_idle: Some(LONG),
        ..NO_LIMITS
    });
    assert!(matches!(why.await, Why::Age));
}
