use tokio::task::JoinHandle;

use super::super::fake::{Deed, Fake, Name};
use super::super::figures::Way;
use super::*;
use crate::event::Payload;

struct Running {
    outbox: Arc<Outbox>,
    bus: Fake,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// An outbox with this bus, whose first deeds are these.
fn start(away: usize, deeds: impl IntoIterator<Item = Deed>) -> Running {
    let bus = Fake::default();
    bus.with(|server| {
        server.away = away;
        server.deeds.extend(deeds);
    });
    let figures = Arc::new(Figures::new("fake".to_owned(), Way::Out));
    let (outbox, stop) = (Arc::new(Outbox::new(figures)), CancellationToken::new());
    let presence = Presence::downstream(&Arc::new(Name));
    let writer = Box::new(bus.clone());
    let task = tokio::spawn(outbox.clone().carry(writer, presence, stop.clone()));
    Running {
        outbox,
        bus,
        stop,
        task,
    }
}

impl Running {
    /// Waits until it brings letters to the bus.
    async fn opened(&self) {
        let is_open = || self.outbox.lock().closed.is_none();
        while !is_open() || !self.outbox.figures.counts().connected {
            sleep(Duration::from_millis(1)).await;
        }
    }

    async fn publish(&self, texts: &[&str]) -> Result<Vec<EventId>, NotTaken> {
        let events = texts.iter();
        let events = events.map(|text| Payload::text(*text).into()).collect();
        self.outbox.publish(events).await
    }
}

fn seqs(result: Result<Vec<EventId>, NotTaken>) -> Vec<u64> {
    let ids = result.expect("it is taken");
    ids.iter().map(|id| id.seq).collect()
}

#[tokio::test(start_paused = true)]
async fn what_is_taken_is_on_the_bus() {
    let running = start(0, []);
    running.opened().await;
    assert_eq!(seqs(running.publish(&["a", "b"]).await), [1, 2]);
    assert_eq!(seqs(running.publish(&["c"]).await), [3]);
    assert_eq!(running.bus.texts(), ["a", "b", "c"]);
    let counts = running.outbox.figures.counts();
    assert_eq!((counts.events, counts.bytes, counts.connects), (3, 3, 1));
}

#[tokio::test(start_paused = true)]
async fn who_comes_first_waits_for_the_first_connection() {
    let running = start(0, []);
    assert_eq!(seqs(running.publish(&["a"]).await), [1]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_taken_while_the_bus_is_away() {
    let running = start(3, []);
    let result = running.publish(&["a"]).await;
    assert!(matches!(result, Err(NotTaken::Away(_))), "{result:?}");
    running.opened().await;
    assert_eq!(seqs(running.publish(&["b"]).await), [1]);
    assert_eq!(running.bus.texts(), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_on_its_way_is_sent_again_with_the_same_ids() {
    let running = start(
        0,
        [Deed::Break {
            taken: 2,
            confirmed: 1,
        }],
    );
    running.opened().await;
    assert_eq!(seqs(running.publish(&["a", "b", "c"]).await), [1, 2, 3]);
    // What was confirmed is not sent again; of what was not, nobody knows.
    assert_eq!(running.bus.texts(), ["a", "b", "b", "c"]);
    let ids: Vec<_> = running
        .bus
        .with(|bus| bus.got.iter().map(|it| it.id).collect());
    assert_eq!(ids[1], ids[2]);
    assert!(ids.iter().all(|id| id.origin == ids[0].origin));
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_a_bus_that_does_not_come_back_is_told() {
    let running = start(
        0,
        [Deed::Break {
            taken: 1,
            confirmed: 1,
        }],
    );
    running.opened().await;
    running.bus.with(|server| server.away = 1_000);
    let (first, second) = tokio::join!(running.publish(&["a"]), running.publish(&["b"]));
    assert_eq!(seqs(first), [1], "it is there, and that is known");
    assert!(matches!(second, Err(NotTaken::Away(_))), "{second:?}");
    let third = running.publish(&["c"]).await;
    assert!(matches!(third, Err(NotTaken::Away(_))), "{third:?}");
    running.bus.with(|server| server.away = 0);
    running.opened().await;
    assert_eq!(seqs(running.publish(&["d"]).await), [1], "a new origin");
    assert_eq!(running.bus.texts(), ["a", "d"]);
}

#[tokio::test(start_paused = true)]
async fn a_bus_that_goes_away_in_silence_is_noticed() {
    let running = start(0, []);
    running.opened().await;
    running.bus.with(|server| {
        server.away = 1;
        server.deeds.push_back(Deed::Vanish);
    });
    while running.outbox.lock().closed.is_none() {
        sleep(Duration::from_millis(1)).await;
    }
    running.opened().await;
    assert_eq!(running.outbox.figures.counts().connects, 2);
}

#[tokio::test(start_paused = true)]
async fn a_bus_that_confirms_nothing_is_lost() {
    let running = start(0, [Deed::Hang]);
    assert_eq!(seqs(running.publish(&["a"]).await), [1]);
    assert_eq!(running.outbox.figures.counts().connects, 2);
    running.bus.with(|server| {
        server.deeds.push_back(Deed::Hang);
        server.away = 1_000;
    });
    let result = running.publish(&["b"]).await;
    assert!(matches!(result, Err(NotTaken::Away(_))), "{result:?}");
}

#[tokio::test(start_paused = true)]
async fn a_bus_that_can_be_reached_and_confirms_nothing_is_not_waited_for_without_end() {
    let running = start(0, (0..1_000).map(|_| Deed::Hang));
    let begun = Instant::now();
    let result = running.publish(&["a"]).await;
    assert!(matches!(result, Err(NotTaken::Away(_))), "{result:?}");
    // The clock stands still but for what is waited for.
    assert!(begun.elapsed() <= PATIENCE + GRACE);
}

#[tokio::test(start_paused = true)]
async fn what_the_bus_refuses_is_refused() {
    let running = start(0, [Deed::Refuse]);
    running.opened().await;
    let refused = running.publish(&["a"]).await;
    assert_eq!(refused, Err(NotTaken::Refused("too odd".to_owned())));
    assert_eq!(seqs(running.publish(&["b"]).await), [2]);
}

#[tokio::test(start_paused = true)]
async fn a_bus_that_does_not_get_on_is_full() {
    let running = start(0, []);
    running.opened().await;
    let large = || vec![Payload::binary(vec![0; MAX_WAITING / 2]).into()];
    // The carrier has had no turn yet.
    for _ in 0..2 {
        running
            .outbox
            .offer(large(), |_| {})
            .expect("there is room");
    }
    let full = running
        .outbox
        .offer(large(), |_| panic!("it was told already"));
    assert_eq!(full, Err(NotTaken::Full));
    while running.outbox.lock().bytes > 0 {
        sleep(Duration::from_millis(1)).await;
    }
    running
        .outbox
        .offer(large(), |_| {})
        .expect("there is room again");
}

#[tokio::test(start_paused = true)]
async fn what_has_been_accepted_is_brought_before_the_end() {
    let running = start(0, []);
    running.opened().await;
    let (told, answer) = oneshot::channel();
    let events = vec![Payload::text("last").into()];
    let tell = |result| told.send(result).expect("it is waited for");
    running.outbox.offer(events, tell).expect("it is taken");
    running.stop.cancel();
    running.task.await.expect("it ends");
    assert!(answer.await.expect("it is told").is_ok());
    assert_eq!(running.bus.texts(), ["last"]);
    let late = running
        .outbox
        .publish(vec![Payload::text("late").into()])
        .await;
    assert!(matches!(late, Err(NotTaken::Away(_))));
}
