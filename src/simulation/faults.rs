//! What goes wrong while events are published.

use std::rc::Rc;
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::sleep;

use super::World;
use super::net::{End, Node, Quality};

impl World {
    /// One fault after another until the time has come to heal.
    pub async fn suffer(self: Rc<Self>) {
        while !self.is_healed.get() {
            self.pause(30, 700).await;
            if !self.is_healed.get() {
                self.one_fault();
            }
        }
    }

    async fn pause(&self, from: u64, to: u64) {
        sleep(Duration::from_millis(self.between(from, to))).await;
    }

    fn any_hop(&self) -> Node {
        self.between(0, self.hops.len() as u64 - 1) as usize
    }

    fn one_fault(self: &Rc<Self>) {
        match self.between(0, 10) {
            0 | 1 => self.restart(),
            2..=4 => self.partition(),
            5 | 6 => self.reset(),
            7 => self.slow(),
            8 => self.freeze(),
            9 => self.stop_reading(),
            _ => self.set_clock_of_one(),
        }
    }

    fn restart(self: &Rc<Self>) {
        let (world, node) = (self.clone(), self.any_hop());
        if self.hops[node].running().is_none() {
            return;
        }
        self.hops[node].kill(self);
        spawn_local(async move {
            world.pause(1, 2_500).await;
            world.revive(node);
        });
    }

    /// Starts a hop that has been killed.
    pub fn revive(self: &Rc<Self>, node: Node) {
        if self.hops[node].running().is_none() {
            self.hops[node].start(self);
        }
    }

    /// Some cannot be heard by the others, who may or may not be heard by them.
    fn partition(self: &Rc<Self>) {
        let nodes = self.hops.len() + self.subscribers.borrow().len();
        let apart: Vec<bool> = (0..nodes).map(|_| self.chance(3)).collect();
        let is_both = self.chance(2);
        let mut cuts = Vec::new();
        for from in (0..nodes).filter(|from| apart[*from]) {
            for to in (0..nodes).filter(|to| !apart[*to]) {
                cuts.push((from, to));
                if is_both {
                    cuts.push((to, from));
                }
            }
        }
        self.note((20, cuts.len() as u64, 0), || {
            let apart = (0..nodes).filter(|node| apart[*node]);
            format!(
                "cut off: {:?}, both ways: {is_both}",
                apart.collect::<Vec<_>>()
            )
        });
        self.cut(&cuts);
        let world = self.clone();
        spawn_local(async move {
            world.pause(20, 3_000).await;
            // Who has waited for too long for the other side gives it up.
            for link in world.open_links() {
                let way = (link.server, link.client);
                if (world.is_cut(way) || world.is_cut((way.1, way.0))) && world.chance(3) {
                    link.break_at(if world.chance(2) {
                        End::Server
                    } else {
                        End::Client
                    });
                    world.break_later(&link, End::Server);
                    world.break_later(&link, End::Client);
                }
            }
            world.mend(&cuts);
        });
    }

    fn reset(self: &Rc<Self>) {
        let links = self.open_links();
        if links.is_empty() {
            return;
        }
        let link = &links[self.between(0, links.len() as u64 - 1) as usize];
        self.note((21, link.number as u64, 0), || {
            format!(
                "link {} (hop{} -> {}) is reset",
                link.number, link.server, link.client
            )
        });
        let (first, then) = match self.chance(2) {
            true => (End::Server, End::Client),
            false => (End::Client, End::Server),
        };
        link.break_at(first);
        self.break_later(link, then);
    }

    fn slow(self: &Rc<Self>) {
        let node = self.any_hop();
        let quality = Quality {
            latency: Duration::from_millis(self.between(5, 400)),
            jitter: Duration::from_millis(self.between(0, 100)),
            bandwidth: self.between(300, 5_000),
            window: self.between(200, 4_000) as usize,
        };
        self.note((22, node as u64, 0), || {
            format!("links of hop{node} are slow: {quality:?}")
        });
        let links = self.open_links();
        let links: Vec<_> = links
            .into_iter()
            .filter(|link| link.server == node || link.client == node)
            .collect();
        for link in &links {
            link.down.set_quality(quality);
        }
        let world = self.clone();
        spawn_local(async move {
            world.pause(300, 4_000).await;
            for link in links {
                link.down.set_quality(world.quality());
            }
        });
    }

    fn freeze(self: &Rc<Self>) {
        let hop = self.hops[self.any_hop()].clone();
        self.note((23, hop.node as u64, 0), || {
            format!("hop{} is stopped", hop.node)
        });
        hop.freezer.set(true);
        let world = self.clone();
        spawn_local(async move {
            world.pause(50, 2_000).await;
            hop.freezer.set(false);
            world.note((24, hop.node as u64, 0), || {
                format!("hop{} goes on", hop.node)
            });
        });
    }

    fn stop_reading(self: &Rc<Self>) {
        let subscribers = self.subscribers.borrow();
        let at = self.between(0, subscribers.len() as u64 - 1) as usize;
        let subscriber = subscribers[at].clone();
        drop(subscribers);
        self.note((25, at as u64, 0), || {
            format!("subscriber {} stops reading", subscriber.node)
        });
        subscriber.is_paused.set(true);
        if let Some(link) = subscriber.link.borrow().as_ref() {
            let window = self.between(50, 2_000) as usize;
            link.down.set_quality(Quality {
                window,
                ..self.quality()
            });
        }
        let world = self.clone();
        spawn_local(async move {
            world.pause(200, 3_000).await;
            subscriber.is_paused.set(false);
        });
    }

    fn set_clock_of_one(&self) {
        let hop = &self.hops[self.any_hop()];
        let skew = self.skew();
        self.note((26, hop.node as u64, 0), || {
            format!("the clock of hop{} is off by {} ms", hop.node, skew / 1_000)
        });
        hop.skew.set(skew);
    }

    /// All that has been broken is as it should be.
    pub fn heal(self: &Rc<Self>) {
        self.is_healed.set(true);
        self.note((30, 0, 0), || "everything is healed".into());
        self.mend_all();
        for hop in &self.hops {
            hop.freezer.set(false);
            self.revive(hop.node);
        }
        for link in self.open_links() {
            link.down.set_quality(self.quality());
        }
        for subscriber in self.subscribers.borrow().iter() {
            subscriber.is_paused.set(false);
        }
    }
}
