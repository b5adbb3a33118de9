//! A chain whose every hop is killed in turn while it is read: nobody misses anything, and nobody gets anything twice.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::client::body::Stream;
use crate::harness::events::numbered;
use crate::harness::port::ReservedPort;
use crate::harness::within_guard;
use crate::harness::wsevent::Hop;
use crate::links::Down;

/// What a subscriber was sent, in short.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Item {
    /// Origin and number.
    Event(String, u64),
    /// From, to, and how many are missing.
    Gap(String, String, u64),
}

impl Item {
    fn event(id: &str) -> Self {
        let (origin, seq) = id.rsplit_once('-').expect("an id");
        Self::Event(origin.to_owned(), seq.parse().expect("a number"))
    }

    fn gap(gap: &serde_json::Value) -> Self {
        let id = |name: &str| gap[name].as_str().expect("an id").to_owned();
        let lost = gap["lost"].as_u64().expect("a number");
        Self::Gap(id("after"), id("next"), lost)
    }
}

#[derive(Debug, Clone, Copy)]
enum Transport {
    Sse,
    Ndjson,
    Hop,
}

/// A client that comes back whenever its connection ends, and says what it has.
struct Subscriber {
    transport: Transport,
    items: Arc<Mutex<Vec<Item>>>,
    count: watch::Receiver<usize>,
    running: JoinHandle<()>,
}

impl Subscriber {
    fn start(transport: Transport, address: SocketAddr) -> Self {
        let items = Arc::new(Mutex::new(vec![]));
        let (counted, count) = watch::channel(0);
        let mut reading = Reading {
            address,
            last: None,
            have: BTreeMap::new(),
            items: items.clone(),
            counted,
        };
        Self {
            transport,
            items,
            count,
            running: tokio::spawn(async move {
                loop {
                    match transport {
                        Transport::Sse => reading.sse().await,
                        Transport::Ndjson => reading.ndjson().await,
                        Transport::Hop => reading.hop().await,
                    }
                    // Somebody has to try until a server that was killed is back.
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }),
        }
    }

    /// Waits until it has so many more than now.
    async fn gets_more(&mut self, more: usize) {
        let enough = *self.count.borrow() + more;
        self.gets(enough).await;
    }

    async fn gets(&mut self, enough: usize) {
        let what = format!("{enough} events over {:?}", self.transport);
        let waiting = self.count.wait_for(|count| *count >= enough);
        within_guard(&what, waiting).await.expect("it runs");
    }

    fn items(&self) -> Vec<Item> {
        assert!(!self.running.is_finished(), "it comes back for ever");
        self.items.lock().expect("not poisoned").clone()
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.running.abort();
    }
}

struct Reading {
    address: SocketAddr,
    last: Option<String>,
    have: BTreeMap<String, u64>,
    items: Arc<Mutex<Vec<Item>>>,
    counted: watch::Sender<usize>,
}

impl Reading {
    fn take(&mut self, item: Item) {
        if let Item::Event(origin, seq) = &item {
            self.last = Some(format!("{origin}-{seq}"));
            self.have.insert(origin.clone(), *seq);
        }
        self.items.lock().expect("not poisoned").push(item);
        self.counted.send_modify(|count| *count += 1);
    }

    async fn open(&self, accept: &str) -> Option<Stream> {
        let mut headers = vec![("Accept", accept)];
        headers.extend(self.last.as_deref().map(|last| ("Last-Event-ID", last)));
        Stream::try_open(self.address, "/events?history=all", &headers).await
    }

    async fn sse(&mut self) {
        let Some(mut stream) = self.open("text/event-stream").await else {
            return;
        };
        while let Some(event) = stream.try_event().await {
            self.take(match &event.id {
                Some(id) => Item::event(id),
                None => Item::gap(&event.gap()),
            });
        }
    }

    async fn ndjson(&mut self) {
        let Some(mut stream) = self.open("application/x-ndjson").await else {
            return;
        };
        while let Some(object) = stream.try_object().await {
            self.take(match object["id"].as_str() {
                Some(id) => Item::event(id),
                None => Item::gap(&object["gap"]),
            });
        }
    }

    async fn hop(&mut self) {
        let have: Vec<_> = self
            .have
            .iter()
            .map(|(origin, seq)| format!("{origin}-{seq}"))
            .collect();
        let hello = match have.is_empty() {
            true => "!hello from=all".to_owned(),
            false => format!("!hello from=first have={}", have.join(",")),
        };
        let Some(mut link) = Down::try_connect(self.address, &hello).await else {
            return;
        };
        while let Some(message) = link.try_next().await {
            let Message::Text(message) = message else {
                continue;
            };
            let (line, _) = message.split_once('\n').unwrap_or((&message, ""));
            if let Some(gap) = line.strip_prefix("!gap ") {
                let field = |name: &str| {
                    let mut fields = gap.split(' ').filter_map(|field| field.split_once('='));
                    let found = fields.find(|(key, _)| *key == name);
                    found.map(|(_, value)| value.to_owned())
                };
                let after = field("after").expect("an id");
                let lost = field("lost").expect("a number");
                let lost = lost.parse().expect("a number");
                let behind = || {
                    // The event behind it is missing as well.
                    let (origin, seq) = after.rsplit_once('-').expect("an id");
                    let seq: u64 = seq.parse().expect("a number");
                    format!("{origin}-{}", seq + lost + 1)
                };
                let next = field("next").unwrap_or_else(behind);
                self.take(Item::Gap(after, next, lost));
            } else if !line.starts_with('!') {
                let event = Item::event(line.split(' ').next().expect("an id"));
                let Item::Event(origin, seq) = &event else {
                    continue;
                };
                // Of several origins there may be some again; docs/protocol.md says so.
                if self.have.get(origin).is_none_or(|have| have < seq) {
                    self.take(event);
                }
            }
        }
    }
}

const TRANSPORTS: [Transport; 3] = [Transport::Sse, Transport::Ndjson, Transport::Hop];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_hop_is_killed_in_turn_and_nothing_is_lost_or_repeated() {
    const HOPS: usize = 5;
    let ports: Vec<_> = (0..HOPS).map(|_| ReservedPort::new()).collect();
    let addresses: Vec<_> = ports.iter().map(ReservedPort::address).collect();
    let args: Vec<Vec<String>> = (0..HOPS)
        .map(|hop| {
            let source = match hop.checked_sub(1) {
                None => ["--produce-rate".to_owned(), "300".to_owned()],
                Some(upper) => {
                    let url = format!("ws://{}/events", addresses[upper]);
                    ["--consume".to_owned(), url]
                }
            };
            let serve = ["--serve-address".to_owned(), addresses[hop].to_string()];
            [serve, source].concat()
        })
        .collect();
    let start = async |hop: usize| {
        let args: Vec<_> = args[hop].iter().map(String::as_str).collect();
        let started = Hop::start(&args).await;
        if hop > 0 {
            started.logged("upstream connected").await;
        }
        started
    };
    let mut hops = vec![];
    for hop in 0..HOPS {
        hops.push(start(hop).await);
    }
    let mut raw = hops[HOPS - 1].subscribe().await;
    let mut subscribers = vec![];
    for place in [2, HOPS - 1] {
        for transport in TRANSPORTS {
            subscribers.push(Subscriber::start(transport, addresses[place]));
        }
    }
    for subscriber in &mut subscribers {
        subscriber.gets(100).await;
    }
    for (hop, running) in hops.iter_mut().enumerate() {
        running.signal(Signal::KILL);
        running.exit().await;
        *running = start(hop).await;
        for subscriber in &mut subscribers {
            subscriber.gets_more(100).await;
        }
        if hop + 2 == HOPS {
            // So far this one has had the same connection all the time.
            assert_counts_on(&raw.messages(300).await);
        }
    }
    for subscriber in &subscribers {
        let items = subscriber.items();
        let mut origins: Vec<(String, u64)> = vec![];
        for item in &items {
            let Item::Event(origin, seq) = item else {
                panic!("{:?}: {item:?}", subscriber.transport);
            };
            match origins.last_mut() {
                Some((current, last)) if current == origin => {
                    assert_eq!(*seq, *last + 1, "{:?}", subscriber.transport);
                    *last = *seq;
                }
                // The producer has another id after it was killed.
                _ => {
                    assert_eq!(*seq, 1, "{:?}", subscriber.transport);
                    origins.push((origin.clone(), 1));
                }
            }
        }
        assert_eq!(origins.len(), 2, "{:?}", subscriber.transport);
    }
}

/// What the producer produces begins with a number; after it was killed, with 1 again.
fn assert_counts_on(events: &[Message]) {
    let number = |event: &Message| -> u64 {
        let text = event.to_text().expect("text");
        let number = text
            .split(' ')
            .next()
            .and_then(|number| number.parse().ok());
        number.expect("a number")
    };
    let mut restarts = 0;
    for pair in events.windows(2) {
        match (number(&pair[0]), number(&pair[1])) {
            (_, 1) => restarts += 1,
            (one, next) => assert_eq!(next, one + 1),
        }
    }
    assert!(restarts <= 1, "{restarts} restarts");
}

#[tokio::test]
async fn what_no_history_has_any_more_is_named_exactly() {
    let port = ReservedPort::new();
    let address = port.address().to_string();
    let (mut link, first) = Hop::fed(&["--history-count", "5"]).await;
    let middle = ["--consume", &first.url, "--serve-address", &address];
    let mut second = Hop::start(&middle).await;
    second.logged("upstream connected").await;
    let third = Hop::consuming(&second.url).await;
    let mut subscribers = TRANSPORTS.map(|it| Subscriber::start(it, third.address));
    let mut connected = 0;
    for _ in &subscribers {
        connected += 1;
        third.logged_times("subscriber connected", connected).await;
    }
    link.send_all(&numbered(10)).await;
    for subscriber in &mut subscribers {
        subscriber.gets(10).await;
    }
    let mut seen = first.subscribe().await;
    second.signal(Signal::KILL);
    second.exit().await;
    link.send_all(&numbered(20)).await;
    seen.messages(20).await;
    second = Hop::start(&middle).await;
    for subscriber in &mut subscribers {
        subscriber.gets(16).await;
        let items = subscriber.items();
        let Item::Event(origin, 1) = &items[0] else {
            panic!("{items:?}");
        };
        let event = |seq| Item::Event(origin.clone(), seq);
        let id = |seq| format!("{origin}-{seq}");
        let mut expected: Vec<_> = (1..=10).map(event).collect();
        expected.push(Item::Gap(id(10), id(26), 15));
        expected.extend((26..=30).map(event));
        assert_eq!(items, expected, "{:?}", subscriber.transport);
    }
    drop(second);
}

#[tokio::test]
async fn a_subscriber_goes_on_at_a_sibling() {
    let (mut link, first) = Hop::fed(&[]).await;
    let siblings = [
        Hop::consuming(&first.url).await,
        Hop::consuming(&first.url).await,
    ];
    let mut seen = [siblings[0].subscribe().await, siblings[1].subscribe().await];
    link.send_all(&numbered(10)).await;
    for seen in &mut seen {
        seen.messages(10).await;
    }
    let mut one = Stream::open(siblings[0].address, "/events?history=all", &[]).await;
    for _ in 0..6 {
        one.event().await;
    }
    let last = one.event().await;
    let headers = [("Last-Event-ID", last.id())];
    let mut other = Stream::open(siblings[1].address, "/events", &headers).await;
    assert_eq!(other.head.header("wsevent-resumed"), "yes");
    for number in 7..10 {
        assert_eq!(other.event().await.data, format!("event {number}"));
    }
}
