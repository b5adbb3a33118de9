use futures_util::future::BoxFuture;
use tokio::io::duplex;

use super::*;
use crate::bus::archive::Archive;
use crate::event::{Event, EventId, Origin, Payload};
use crate::stream::history::Limits;
use crate::stream::join::Past;
use crate::stream::tape::Pending;

/// Events with the numbers from 1 up to, with it, this one.
struct Numbers {
    last: u64,
    page: usize,
}

fn numbered(seq: u64) -> Event {
    Event {
        id: EventId {
            origin: Origin::store(1),
            seq,
        },
        time: 1,
        event_type: None,
        key: None,
        payload: Payload::text(format!("{seq};")),
    }
}

impl Archive for Numbers {
    fn find<'a>(&'a self, past: &'a Past) -> BoxFuture<'a, Result<Option<u64>>> {
        let place = match past {
            Past::All => Some(1),
            Past::Last(count) => Some(self.last.saturating_sub(*count) + 1),
            Past::After(id) => (id.origin == Origin::store(1)).then_some(id.seq + 1),
        };
        Box::pin(async move { Ok(place) })
    }

    fn page(&self, place: u64, _: usize, _: usize) -> BoxFuture<'_, Result<Page>> {
        let behind = (place + self.page as u64).min(self.last + 1);
        let page = Page {
            events: (place..behind).map(numbered).collect(),
            next: behind.max(place),
        };
        Box::pin(async move { Ok(page) })
    }
}

/// A log that has taken these, and holds the last ten of them.
fn log(seqs: impl IntoIterator<Item = u64>) -> Arc<EventLog> {
    let limits = Limits {
        count: Some(10),
        ..Limits::from(1 << 20)
    };
    let log = Arc::new(EventLog::new(limits));
    for seq in seqs {
        log.relay(numbered(seq), None);
    }
    log
}

fn shelf(last: u64, page: usize) -> Arc<Shelf> {
    Arc::new(Shelf::new(Box::new(Numbers { last, page })))
}

/// Without the headers of frames, which have no digits or semicolons in them for such short payloads.
fn numbers(bytes: &[u8]) -> Vec<u64> {
    let text = bytes.iter().map(|&byte| byte as char);
    let text: String = text
        .filter(|&letter| letter.is_ascii_digit() || letter == ';')
        .collect();
    text.split_terminator(';')
        .map(|number| number.parse().expect("a number"))
        .collect()
}

/// All that a subscriber with this wish gets: first from the bus, then from the log.
async fn got(shelf: &Arc<Shelf>, log: &Arc<EventLog>, wish: &Wish) -> (Vec<u64>, Vec<u64>) {
    let earlier = Earlier::wanted(Some(shelf), log, Format::WebSocket, wish).await;
    let (mut near, mut far) = duplex(1 << 20);
    let bringing = earlier
        .expect("there is more")
        .bring(&mut near, log, Default::default());
    let brought = bringing.await.expect("it is read");
    drop(near);
    let mut bytes = Vec::new();
    far.read_to_end(&mut bytes).await.expect("a pipe");
    let (mut subscription, mut rest) = (brought.subscription, Vec::new());
    while let Pending::Frames { slice, end, .. } =
        subscription.tape.pending(subscription.cursor, &mut None)
    {
        rest.extend_from_slice(&slice);
        subscription.cursor = end;
    }
    (numbers(&bytes), numbers(&rest))
}

#[tokio::test(start_paused = true)]
async fn what_is_only_on_the_bus_comes_before_what_is_in_the_log() {
    let (shelf, log) = (shelf(100, 7), log(1..=100));
    for (wish, first) in [
        (Wish::All, 1),
        (Wish::Last(50), 51),
        (Wish::After(numbered(30).id.to_string().into()), 31),
    ] {
        let (early, late) = got(&shelf, &log, &wish).await;
        let all: Vec<_> = early.iter().chain(&late).copied().collect();
        assert_eq!(all, (first..=100).collect::<Vec<_>>(), "{wish:?}");
        assert!(
            early.len() < 98 && !late.is_empty(),
            "it joins as soon as it can"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_log_that_lags_behind_is_waited_for() {
    let (shelf, log) = (shelf(100, 1_000), log(1..=60));
    let reading = got(&shelf, &log, &Wish::All);
    let catching_up = async {
        sleep(Duration::from_secs(1)).await;
        for seq in 61..=103 {
            log.relay(numbered(seq), None);
        }
    };
    let ((early, late), ()) = tokio::join!(reading, catching_up);
    assert_eq!(early, (1..=100).collect::<Vec<_>>());
    assert_eq!(late, [101, 102, 103]);
}

#[tokio::test(start_paused = true)]
async fn who_needs_nothing_of_the_bus_is_not_kept_from_the_log() {
    let (shelf, log) = (shelf(100, 7), log(91..=100));
    for wish in [
        Wish::Live,
        Wish::All,
        Wish::Last(10),
        Wish::After(numbered(95).id.to_string().into()),
    ] {
        let shelf = shelf_beginning_at(91, &shelf, &wish);
        let earlier = Earlier::wanted(Some(&shelf), &log, Format::Sse, &wish).await;
        assert!(earlier.is_none(), "{wish:?}");
    }
    let none = Earlier::wanted(None, &log, Format::Sse, &Wish::All).await;
    assert!(none.is_none());
    let foreign = Wish::After("0H3B6Q2ZK7M9T-42".into());
    assert!(
        Earlier::wanted(Some(&shelf), &log, Format::Sse, &foreign)
            .await
            .is_none()
    );
}

/// The same, of a bus that has let go of what is before a number.
fn shelf_beginning_at(first: u64, shelf: &Arc<Shelf>, wish: &Wish) -> Arc<Shelf> {
    struct Short(Arc<Shelf>, u64);
    impl Archive for Short {
        fn find<'a>(&'a self, past: &'a Past) -> BoxFuture<'a, Result<Option<u64>>> {
            Box::pin(async move { Ok(self.0.find(past).await?.map(|place| place.max(self.1))) })
        }
        fn page(&self, place: u64, events: usize, bytes: usize) -> BoxFuture<'_, Result<Page>> {
            Box::pin(self.0.page(place, events, bytes))
        }
    }
    match wish {
        Wish::All => Arc::new(Shelf::new(Box::new(Short(shelf.clone(), first)))),
        _ => shelf.clone(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_or_takes_nothing_ends_it() {
    let (shelf, log) = (shelf(100_000, 5_000), log(1..=100_000));
    let start = || Earlier::wanted(Some(&shelf), &log, Format::Ndjson, &Wish::All);
    let (mut near, far) = duplex(64);
    drop(far);
    let earlier = start().await.expect("there is more");
    assert!(
        earlier
            .bring(&mut near, &log, Default::default())
            .await
            .is_err()
    );
    let (mut near, _far) = duplex(64);
    let earlier = start().await.expect("there is more");
    assert!(
        earlier
            .bring(&mut near, &log, Default::default())
            .await
            .is_err()
    );
}
