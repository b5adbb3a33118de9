use std::sync::Arc;

use super::super::fake::{Brought, FakeReader, Name};
use super::super::figures::Way;
use super::*;
use crate::event::{EventId, Origin, Payload};
use crate::stream::follow::Follower;

use Brought::{Arrivals, Broken, Connected, Past};

/// An origin whose numbers count.
const HOP: Origin = Origin(5);

fn known(origin: Origin, seq: u64) -> Event {
    Event {
        id: EventId { origin, seq },
        time: 1,
        event_type: None,
        key: None,
        payload: Payload::text(seq.to_string()),
    }
}

fn hop(seq: u64) -> Arrival {
    Arrival::Known(known(HOP, seq))
}

fn new(text: &str) -> Arrival {
    Arrival::New(Payload::text(text).into())
}

/// What is in a log when all this was brought to it: each event, behind how many are missing before it (a question mark where
/// that is not known).
async fn read(resumes: bool, brought: Vec<Brought>) -> Vec<String> {
    let log = Arc::new(EventLog::new(1 << 20));
    let mut follower = Follower::new(log.clone());
    let entry = Entry {
        name: "fake".to_owned(),
        log: log.clone(),
        link: 0,
        figures: Arc::new(Figures::new("fake".to_owned(), Way::In)),
        most: 10,
        resumes,
        last: None,
        missing: None,
        unusable: 0,
    };
    let presence = Presence::downstream(&Arc::new(Name));
    let reader = Box::new(FakeReader(brought.into()));
    let mut reading = Reading::new(reader, presence, entry);
    // Time passes as soon as there is nothing to do.
    let _ = tokio::time::timeout(std::time::Duration::from_secs(600), reading.run()).await;
    let batch = follower.peek(1_000, 1 << 20);
    let event = |event: &Event| {
        let text = String::from_utf8_lossy(&event.payload.bytes);
        match log.gap_before(event.id) {
            None => text.into_owned(),
            Some(gap) => match gap.lost {
                Some(lost) => format!("({lost}){text}"),
                None => format!("(?){text}"),
            },
        }
    };
    batch.events.iter().map(event).collect()
}

#[tokio::test(start_paused = true)]
async fn events_come_once_and_in_order() {
    let brought = vec![
        Broken,
        Connected,
        Arrivals(vec![new("a"), hop(1), hop(2), hop(2)]),
        Arrivals(vec![hop(1), new("b")]),
    ];
    assert_eq!(read(false, brought).await, ["a", "1", "2", "b"]);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_listened_to_is_a_gap_as_far_as_it_is_known() {
    // Others' events have no numbers.
    let brought = vec![
        Connected,
        Arrivals(vec![new("a")]),
        Broken,
        Connected,
        Arrivals(vec![new("b"), new("c")]),
    ];
    assert_eq!(read(false, brought).await, ["a", "(?)b", "c"]);
    // Those of hops have.
    let brought = vec![
        Connected,
        Arrivals(vec![hop(1)]),
        Broken,
        Connected,
        Arrivals(vec![hop(2), hop(5)]),
    ];
    assert_eq!(read(false, brought).await, ["1", "2", "(2)5"]);
    // One that has begun meanwhile, and one of which that is not known.
    let other = |origin, seq| Arrival::Known(known(Origin(origin), seq));
    let brought = vec![
        Connected,
        Arrivals(vec![hop(1)]),
        Broken,
        Connected,
        Arrivals(vec![other(6, 1), hop(2)]),
    ];
    assert_eq!(read(false, brought).await, ["1", "1", "2"]);
    let brought = vec![
        Connected,
        Arrivals(vec![hop(1)]),
        Broken,
        Connected,
        Arrivals(vec![other(6, 4)]),
    ];
    assert_eq!(read(false, brought).await, ["1", "(?)4"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_goes_on_where_it_was() {
    let store = |seq| Arrival::Known(known(Origin::store(1), seq));
    let brought = vec![
        Connected,
        Broken,
        Connected,
        Past(vec![known(Origin::store(1), 3)]),
        Arrivals(vec![store(7)]),
        Broken,
        Connected,
        Arrivals(vec![store(9), Arrival::Lost(Some(4)), store(20)]),
    ];
    assert_eq!(
        read(true, brought).await,
        ["7", "9", "(4)20"],
        "the past is not news"
    );
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_taken_is_missing() {
    let brought = vec![
        Connected,
        Arrivals(vec![
            new("a"),
            Arrival::Unusable("odd".to_owned()),
            new("longer than that"),
            new("b"),
        ]),
    ];
    assert_eq!(read(false, brought).await, ["a", "(2)b"]);
}
