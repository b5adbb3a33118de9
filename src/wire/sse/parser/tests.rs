mod rules;

use proptest::prelude::*;

use super::*;

const NO_LIMIT: usize = usize::MAX / 2;

type Parsed = Vec<Result<Item, TooLarge>>;

/// All items of a stream that comes in these pieces.
fn parse<'a>(max_event_size: usize, pieces: impl IntoIterator<Item = &'a [u8]>) -> Parsed {
    let mut parser = Parser::new(max_event_size);
    let mut items = vec![];
    for mut piece in pieces {
        while let Some(item) = parser.next(&mut piece) {
            items.push(item);
        }
        assert!(piece.is_empty(), "what is left would be lost");
    }
    items
}

fn message(data: &str) -> Item {
    Item::Event {
        event_type: None,
        data: data.to_owned(),
        last_event_id: None,
        has_own_id: false,
    }
}

fn typed(event_type: &str, data: &str) -> Item {
    Item::Event {
        event_type: Some(event_type.to_owned()),
        data: data.to_owned(),
        last_event_id: None,
        has_own_id: false,
    }
}

/// An event whose block gave the id itself.
fn with_id(id: &str, data: &str) -> Item {
    Item::Event {
        event_type: None,
        data: data.to_owned(),
        last_event_id: Some(id.into()),
        has_own_id: true,
    }
}

/// An event behind one that gave the id.
fn behind_id(id: &str, data: &str) -> Item {
    Item::Event {
        event_type: None,
        data: data.to_owned(),
        last_event_id: Some(id.into()),
        has_own_id: false,
    }
}

fn retry(milliseconds: u64) -> Item {
    Item::Retry(Duration::from_millis(milliseconds))
}

#[test]
fn each_rule_of_the_standard_holds() {
    for (name, pieces, expected) in rules::all() {
        let expected: Vec<_> = expected.into_iter().map(Ok).collect();
        assert_eq!(parse(NO_LIMIT, pieces.iter().copied()), expected, "{name}");
        let stream = pieces.concat();
        for size in 1..=stream.len() {
            let items = parse(NO_LIMIT, stream.chunks(size));
            assert_eq!(items, expected, "{name}, in pieces of {size}");
        }
    }
}

#[test]
fn what_is_too_large_is_told_once_and_passed_over() {
    let too_large = || Err(TooLarge { limit: 10 });
    let cases: [(&str, &[u8], Parsed); 13] = [
        (
            "data that fits",
            b"data: 1234567890\n\n",
            vec![Ok(message("1234567890"))],
        ),
        ("data above it", b"data: 12345678901\n\n", vec![too_large()]),
        (
            "lines that fit",
            b"data: 1234\ndata: 67890\n\n",
            vec![Ok(message("1234\n67890"))],
        ),
        (
            "lines above it",
            b"data: 1234\ndata: 678901\n\n",
            vec![too_large()],
        ),
        (
            "only empty lines",
            &[&b"data\n".repeat(12)[..], b"\n"].concat(),
            vec![too_large()],
        ),
        (
            "replacements above it",
            b"data: \xFF\xFF\xFF\xFF\n\n",
            vec![too_large()],
        ),
        (
            "an unfinished line",
            b"data: 12345678901",
            vec![too_large()],
        ),
        (
            "a type above it",
            b"event: 12345678901\ndata: a\n\ndata: b\n\n",
            vec![too_large(), Ok(message("b"))],
        ),
        (
            "an id above it",
            b"id: 12345678901\ndata: a\n\ndata: b\n\n",
            vec![too_large(), Ok(message("b"))],
        ),
        (
            "type, id and data that fit",
            b"event: 1234567890\nid: 1234567890\ndata: 1234567890\n\n",
            vec![Ok(Item::Event {
                event_type: Some("1234567890".to_owned()),
                data: "1234567890".to_owned(),
                last_event_id: Some("1234567890".into()),
                has_own_id: true,
            })],
        ),
        (
            "long lines that mean nothing",
            b": 12345678901\ndatadatadata: 1\n\
              datadatadatadata\ndata: a\n\n",
            vec![Ok(message("a"))],
        ),
        (
            "told once, and its id takes effect",
            b"data: 12345678901\ndata: 12345678901\nevent: a\nid: 1\nretry: 5\n\
              data: a\n\ndata: b\n\n",
            vec![too_large(), Ok(retry(5)), Ok(behind_id("1", "b"))],
        ),
        (
            "each is told",
            b"data: 12345678901\n\ndata: 12345678901\n\n",
            vec![too_large(), too_large()],
        ),
    ];
    for (name, stream, expected) in cases {
        for size in 1..=stream.len() {
            let items = parse(10, stream.chunks(size));
            assert_eq!(items, expected, "{name}, in pieces of {size}");
        }
    }
}

#[test]
fn the_limit_is_named() {
    let error = parse(10, [&b"data: 12345678901\n\n"[..]])
        .remove(0)
        .expect_err("above 10");
    assert_eq!(error.to_string(), "an event of more than 10 bytes");
}

#[test]
fn an_id_is_known_when_its_block_is_finished() {
    let mut parser = Parser::new(NO_LIMIT);
    assert_eq!(parser.last_event_id(), None);
    assert_eq!(parser.next(&mut &b"id: 1\n"[..]), None);
    assert_eq!(parser.last_event_id(), None);
    assert_eq!(parser.next(&mut &b"\n"[..]), None);
    assert_eq!(parser.last_event_id(), Some("1"));
}

#[test]
fn a_line_without_end_is_kept_up_to_the_limit_only() {
    let limit = 10_000;
    for (beginning, errors) in [
        ("", 0),
        (": ", 0),
        ("data: ", 1),
        ("id: ", 1),
        ("datas: ", 0),
    ] {
        let mut parser = Parser::new(limit);
        let mut found = 0;
        for piece in std::iter::once(beginning.as_bytes()).chain([&[b'x'; 1000][..]; 1000]) {
            let mut input = piece;
            while let Some(item) = parser.next(&mut input) {
                assert_eq!(item, Err(TooLarge { limit }));
                found += 1;
            }
            assert!(parser.line.capacity() <= 4 * limit, "{beginning:?}");
        }
        assert_eq!(found, errors, "{beginning:?}");
        assert_eq!(parser.line.capacity(), 0, "{beginning:?}");
    }
}

/// The standard's algorithm word by word, of a whole stream and without a limit.
fn reference(stream: &[u8]) -> Vec<Item> {
    let decoded = String::from_utf8_lossy(stream);
    let decoded = decoded.strip_prefix('\u{FEFF}').unwrap_or(&decoded);
    let text = decoded.replace("\r\n", "\n").replace('\r', "\n");
    // What is behind the last line end is no line.
    let lines = text
        .rsplit_once('\n')
        .map_or(vec![], |(lines, _)| lines.split('\n').collect());
    let (mut data, mut event_type, mut id) = (String::new(), String::new(), None::<String>);
    let mut has_own_id = false;
    let mut items = vec![];
    for line in lines {
        let (name, value) = match line.split_once(':') {
            _ if line.is_empty() => {
                let event_type = std::mem::take(&mut event_type);
                if let Some(data) = std::mem::take(&mut data).strip_suffix('\n') {
                    items.push(Item::Event {
                        event_type: Some(event_type).filter(|event_type| !event_type.is_empty()),
                        data: data.to_owned(),
                        last_event_id: id.as_deref().map(Arc::from),
                        has_own_id,
                    });
                }
                has_own_id = false;
                continue;
            }
            Some((name, value)) => (name, value.strip_prefix(' ').unwrap_or(value)),
            None => (line, ""),
        };
        match name {
            "event" => event_type = value.to_owned(),
            "data" => data.extend([value, "\n"]),
            "id" if !value.contains('\0') => {
                id = Some(value.to_owned());
                has_own_id = true;
            }
            "retry" if !value.is_empty() && value.chars().all(|c| c.is_ascii_digit()) => {
                items.push(retry(value.parse().unwrap_or(u64::MAX)));
            }
            _ => {}
        }
    }
    items
}

/// Streams of the bits that mean something.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let bits: Vec<&[u8]> = vec![
        b"data",
        b"data:",
        b"data: ",
        b"event",
        b"event:",
        b"id",
        b"id: ",
        b"retry:",
        b":",
        b" ",
        b"\n",
        b"\n\n",
        b"\r",
        b"\r\n",
        b"\xEF\xBB\xBF",
        b"\xEF\xBB",
        b"\0",
        b"\xC3\xA9",
        b"\xFF",
        b"\xF0\x9F",
        b"12",
        b"x",
    ];
    proptest::collection::vec(proptest::sample::select(bits), 0..40).prop_map(|bits| bits.concat())
}

/// The stream in pieces that end at these places, empty pieces among them.
fn cut(stream: &[u8], places: Vec<proptest::sample::Index>) -> Vec<&[u8]> {
    let mut places: Vec<_> = places
        .iter()
        .map(|place| place.index(stream.len() + 1))
        .collect();
    places.extend([0, stream.len()]);
    places.sort_unstable();
    places
        .windows(2)
        .map(|ends| &stream[ends[0]..ends[1]])
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn it_reads_what_the_standard_reads(
        stream in stream(),
        places in proptest::collection::vec(any::<proptest::sample::Index>(), 0..8),
    ) {
        let items = parse(NO_LIMIT, cut(&stream, places));
        prop_assert_eq!(items, reference(&stream).into_iter().map(Ok).collect::<Vec<_>>());
    }

    #[test]
    fn cuts_do_not_matter_at_any_limit(
        stream in stream(),
        limit in 0usize..12,
        places in proptest::collection::vec(any::<proptest::sample::Index>(), 0..8),
    ) {
        prop_assert_eq!(parse(limit, cut(&stream, places)), parse(limit, [&stream[..]]));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), step in 1usize..50) {
        parse(20, bytes.chunks(step));
    }
}
