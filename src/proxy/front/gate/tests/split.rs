//! Requests in any pieces are the same requests.

use std::fmt::Write;

use proptest::collection::vec;
use proptest::prelude::*;
use tokio::runtime;

use super::*;

/// A request's body, as it is sent.
#[derive(Debug, Clone)]
enum Sent {
    Nothing,
    Len(Vec<u8>),
    /// Chunks, each perhaps with an extension, and so many trailers.
    Chunks(Vec<(Vec<u8>, bool)>, usize),
}

fn body() -> impl Strategy<Value = Sent> {
    // Bytes that would mean something elsewhere.
    let bytes = |max| vec(prop::sample::select(b"\r\n0aG:; \0".to_vec()), 0..max);
    let chunk = (bytes(40), any::<bool>());
    prop_oneof![
        Just(Sent::Nothing),
        bytes(60).prop_map(Sent::Len),
        vec(bytes(20_000), 1..2).prop_map(|mut one| Sent::Len(one.remove(0))),
        (vec(chunk, 0..5), 0..3_usize)
            .prop_map(|(chunks, trailers)| Sent::Chunks(chunks, trailers)),
    ]
}

/// A request with this body, and what hyper is to see of it.
fn request(number: usize, body: &Sent) -> (Vec<u8>, Seen) {
    let path = format!("/{number}");
    let mut bytes = format!("POST {path} HTTP/1.1\r\nHost: a\r\n").into_bytes();
    if number % 3 == 2 {
        // One empty line in front of a request is allowed (RFC 9112, section 2.2).
        bytes.splice(0..0, *b"\r\n");
    }
    let mut content = vec![];
    let mut trailer_count = 0;
    match body {
        Sent::Nothing => bytes.extend_from_slice(b"\r\n"),
        Sent::Len(body) => {
            bytes.extend_from_slice(format!("content-LENGTH:  {} \r\n\r\n", body.len()).as_bytes());
            bytes.extend_from_slice(body);
            content.clone_from(body);
        }
        Sent::Chunks(chunks, trailers) => {
            bytes.extend_from_slice(b"Transfer-Encoding: Chunked\r\n\r\n");
            for (chunk, is_extended) in chunks.iter().filter(|(chunk, _)| !chunk.is_empty()) {
                let extension = if *is_extended { ";a=\"b c\"" } else { "" };
                bytes.extend_from_slice(format!("0{:X}{extension}\r\n", chunk.len()).as_bytes());
                bytes.extend_from_slice(chunk);
                bytes.extend_from_slice(b"\r\n");
                content.extend_from_slice(chunk);
            }
            let mut end = "0\r\n".to_owned();
            for trailer in 0..*trailers {
                let _ = write!(end, "x-{trailer}: 1\r\n");
            }
            bytes.extend_from_slice(format!("{end}\r\n").as_bytes());
            trailer_count = *trailers;
        }
    }
    (bytes, ("POST".into(), path, Some((content, trailer_count))))
}

/// All of them, and the last one, in pieces.
fn sent(bodies: &[Sent], at: &[prop::sample::Index]) -> (Vec<Vec<u8>>, Vec<Seen>) {
    let (mut requests, mut seen): (Vec<_>, Vec<_>) = bodies
        .iter()
        .enumerate()
        .map(|(number, body)| request(number, body))
        .unzip();
    requests.push(LAST.into());
    seen.push(("GET".into(), "/last".into(), Some((vec![], 0))));
    let bytes = requests.concat();
    let mut at: Vec<_> = at.iter().map(|at| at.index(bytes.len())).collect();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    let pieces = at.windows(2).map(|at| bytes[at[0]..at[1]].to_vec());
    (pieces.collect(), seen)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn hyper_sees_the_same_requests(
        bodies in vec(body(), 0..6),
        at in vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let (pieces, seen) = sent(&bodies, &at);
        let pieces: Vec<_> = pieces.iter().map(Vec::as_slice).collect();
        let runtime = runtime::Builder::new_current_thread().enable_io().build();
        let (ended, _) = runtime.expect("a runtime").block_on(exchange(&pieces));
        prop_assert!(ended.is_ok);
        prop_assert_eq!(ended.verdict, None);
        prop_assert_eq!(ended.seen, seen);
    }
}

proptest! {
    #[test]
    fn all_of_it_passes(
        bodies in vec(body(), 0..6),
        at in vec(any::<prop::sample::Index>(), 0..30),
    ) {
        let (pieces, _) = sent(&bodies, &at);
        let mut framing = Framing::default();
        let mut unpassed = vec![];
        for piece in pieces {
            unpassed.extend_from_slice(&piece);
            let (passed, stop) = framing.advance(&unpassed);
            prop_assert_eq!(stop, None);
            unpassed.drain(..passed);
            // Of a body nothing waits.
            prop_assert!(!matches!(framing, Framing::Body(_)) || unpassed.is_empty());
        }
        prop_assert!(unpassed.is_empty());
        prop_assert!(matches!(framing, Framing::Head(_)), "{:?}", framing);
    }
}
