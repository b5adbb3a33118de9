//! A subscriber: it comes back wherever it is cut off, says what it has, and holds what it gets against what was promised.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::World;
use super::hop::{Messages, Order, shown};
use super::net::{End, Link, Node};
use super::promise::Knowledge;
use crate::event::{EventId, Payload};
use crate::source::http::decode::{Decoder, Item, Media};
use crate::wire::Format;
use crate::wire::hop::{self, Begin, Control, Hello};

/// A subscriber.
pub struct Subscriber {
    /// Its own number, behind those of the hops.
    pub node: Node,
    /// How it reads.
    pub format: Format,
    /// Where it reads.
    pub at: Cell<Node>,
    /// Whether it first wants all there is, and not only what comes.
    pub wants_all: bool,
    /// It reads nothing for now.
    pub is_paused: Cell<bool>,
    /// It has been welcomed by a hop and has not been cut off.
    pub is_connected: Cell<bool>,
    /// Every event that it has got.
    pub received: RefCell<BTreeSet<EventIdKey>>,
    /// How many notices it was given.
    pub told: Cell<u64>,
    /// What it is connected by.
    pub link: RefCell<Option<Rc<Link>>>,
}

/// An id that can be ordered.
pub type EventIdKey = (crate::event::Origin, u64);

/// What a plain client goes by: whose order of events its place is in, and at which process it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    process: Order,
    order: Order,
}

impl Subscriber {
    /// Reads until the simulation ends.
    pub async fn run(self: Rc<Self>, world: Rc<World>) {
        match self.format {
            Format::Hop => self.follow_links(&world).await,
            _ => self.follow_bodies(&world).await,
        }
    }

    async fn connect(&self, world: &Rc<World>, ceiling: &mut u64) -> Rc<Link> {
        loop {
            if let Some(link) = world.connect(self.at.get(), self.node).await {
                *self.link.borrow_mut() = Some(link.clone());
                return link;
            }
            sleep(Duration::from_millis(world.between(50, *ceiling))).await;
            *ceiling = (*ceiling * 2).min(1_600);
            self.may_move(world);
        }
    }

    /// Wherever else it may go on with what it can say of itself.
    fn may_move(&self, world: &World) {
        if world.is_healed.get() || !world.chance(3) {
            return;
        }
        let to = world.between(0, world.hops.len() as u64 - 1) as usize;
        self.at.set(to);
        world.note((10, self.node as u64, to as u64), || {
            format!("subscriber {} moves to hop{to}", self.node)
        });
    }

    async fn disconnected(&self, world: &Rc<World>, link: &Rc<Link>, how: &str) {
        self.is_connected.set(false);
        link.break_at(End::Client);
        world.break_later(link, End::Server);
        world.note((11, self.node as u64, link.number as u64), || {
            format!("subscriber {}: link {} ends: {how}", self.node, link.number)
        });
        self.may_move(world);
        sleep(Duration::from_millis(world.between(20, 600))).await;
    }

    async fn unpaused(&self) {
        while self.is_paused.get() {
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn got(
        &self,
        world: &World,
        link: &Link,
        knowledge: &mut Knowledge,
        id: EventId,
        payload: &Payload,
    ) {
        let key = (id.origin, id.seq);
        world.note((12, self.node as u64, id.seq ^ id.origin.0), || {
            let origin = shown(world, id.origin);
            format!(
                "subscriber {} gets {origin}-{} on link {}",
                self.node, id.seq, link.number
            )
        });
        if !world.is_genuine(id, payload) {
            world.fail(format!(
                "subscriber {}: {id} is not what was published",
                self.node
            ));
        }
        let known = link.known.borrow();
        match knowledge.event(id, |origin| known.contains(&origin)) {
            Ok(true) => {
                self.received.borrow_mut().insert(key);
            }
            Ok(false) => {}
            Err(broken) => {
                let origin = shown(world, id.origin);
                world.fail(format!(
                    "subscriber {} ({}) at hop{}, link {}: at {origin}-{}: {broken}",
                    self.node,
                    self.format.name(),
                    self.at.get(),
                    link.number,
                    id.seq
                ));
            }
        }
    }

    fn told_of(
        &self,
        world: &World,
        link: &Link,
        knowledge: &mut Knowledge,
        gap: &crate::event::Gap,
    ) {
        self.told.set(self.told.get() + 1);
        world.note((13, self.node as u64, gap.lost.unwrap_or(u64::MAX)), || {
            let next = gap
                .next
                .map(|id| format!("{}-{}", shown(world, id.origin), id.seq));
            let after = gap
                .after
                .as_deref()
                .map(|after| match after.parse::<EventId>() {
                    Ok(id) => format!("{}-{}", shown(world, id.origin), id.seq),
                    Err(_) => after.to_owned(),
                });
            let lost = gap.lost;
            format!(
                "subscriber {} is told on link {}: after {after:?} next {next:?} lost {lost:?}",
                self.node, link.number
            )
        });
        if let Err(broken) = knowledge.gap(gap) {
            world.fail(format!(
                "subscriber {} ({}) at hop{}, link {}: {broken}",
                self.node,
                self.format.name(),
                self.at.get(),
                link.number
            ));
        }
    }

    /// Over hop links, as the program in docs/protocol.md does it: it may go anywhere with the last of each origin.
    async fn follow_links(&self, world: &Rc<World>) {
        let mut knowledge = Knowledge::of_links();
        let mut has_met = false;
        loop {
            let mut ceiling = 200;
            let link = self.connect(world, &mut ceiling).await;
            let have: Vec<_> = knowledge.have();
            let hello = Hello {
                have,
                from: match (has_met, self.wants_all) {
                    (true, _) => Begin::First,
                    (false, true) => Begin::All,
                    (false, false) => Begin::Live,
                },
                ..Hello::default()
            };
            link.say(world, &Control::Hello(hello).to_string());
            let mut messages = Messages::default();
            knowledge.begin();
            let welcome = timeout(Duration::from_secs(10), messages.next(world, &link)).await;
            let welcome = welcome.ok().flatten().map(hop::decode);
            let Some(Ok(hop::Message::Control(Control::Welcome(welcome)))) = welcome else {
                self.disconnected(world, &link, "no welcome").await;
                continue;
            };
            if welcome.resumed.as_deref() == Some("no") {
                knowledge.is_unknown();
            }
            has_met = true;
            self.is_connected.set(true);
            loop {
                self.unpaused().await;
                let Some(message) = messages.next(world, &link).await else {
                    break;
                };
                match hop::decode(message) {
                    Ok(hop::Message::Event(event)) => {
                        self.got(world, &link, &mut knowledge, event.id, &event.payload);
                    }
                    Ok(hop::Message::Control(Control::Gap(gap))) => {
                        self.told_of(world, &link, &mut knowledge, &gap);
                    }
                    Ok(_) => {}
                    Err(wrong) => world.fail(format!("link {}: {wrong}", link.number)),
                }
            }
            let how = messages.end.take().unwrap_or_else(|| "lost".into());
            self.disconnected(world, &link, &how).await;
        }
    }

    /// As a body over HTTP, with the last id alone: a place in the order of the instance that has merged.
    async fn follow_bodies(&self, world: &Rc<World>) {
        let mut knowledge = Knowledge::of_bodies();
        let mut last: Option<String> = None;
        let mut place: Option<Place> = None;
        loop {
            let mut ceiling = 200;
            let link = self.connect(world, &mut ceiling).await;
            let hop = &world.hops[self.at.get()];
            let Some(process) = hop.running() else {
                self.disconnected(world, &link, "killed").await;
                continue;
            };
            let here = Place {
                process: (hop.node, process.generation),
                order: hop.order(&process),
            };
            let goes_on = place.is_none_or(|place| {
                place.process == here.process || place.order == here.order || world.has_one_origin()
            });
            if !goes_on {
                // One id means nothing in another order: what it missed, it cannot know.
                knowledge = Knowledge::of_bodies();
            }
            let wish = match (&last, self.wants_all) {
                (Some(id), _) => id.clone(),
                (None, true) => "all".into(),
                (None, false) => String::new(),
            };
            link.say(world, format!("{} {wish}", self.format.name()).trim_end());
            knowledge.begin();
            let media = match self.format {
                Format::Sse => Media::EventStream,
                _ => Media::Ndjson,
            };
            let mut decoder = Decoder::new(media, true, 1 << 20);
            let mut head = Vec::new();
            let mut has_head = false;
            loop {
                self.unpaused().await;
                let Some(mut bytes) = link.receive(world).await else {
                    break;
                };
                if !has_head {
                    head.append(&mut bytes);
                    let Some(end) = head.iter().position(|byte| *byte == b'\n') else {
                        continue;
                    };
                    bytes = head.split_off(end + 1);
                    if head.starts_with(b"no") {
                        // It is not known there: it begins with the next event, which this reader may have.
                        knowledge = Knowledge::of_bodies();
                    }
                    has_head = true;
                    self.is_connected.set(true);
                    place = Some(here);
                }
                let mut input = &bytes[..];
                while let Some(item) = decoder.next(&mut input) {
                    match item {
                        Item::Known(event) => {
                            self.got(world, &link, &mut knowledge, event.id, &event.payload);
                        }
                        Item::Gap(gap) => self.told_of(world, &link, &mut knowledge, &gap),
                        Item::Retry(_) => {}
                        other => world.fail(format!("link {}: {other:?}", link.number)),
                    }
                }
                if let Some(id) = decoder.last_event_id() {
                    last = Some(id.to_owned());
                }
            }
            self.disconnected(world, &link, "ended").await;
        }
    }
}

/// What was received, by origin, for the trace.
pub fn summary(received: &BTreeSet<EventIdKey>, world: &World) -> String {
    let mut last = BTreeMap::new();
    for (origin, seq) in received {
        last.insert(*origin, *seq);
    }
    let last = last
        .iter()
        .map(|(origin, seq)| format!("{}-{seq}", shown(world, *origin)));
    last.collect::<Vec<_>>().join(" ")
}
