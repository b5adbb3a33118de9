//! Whether a hop is ready: it listens, has not begun to stop, and whatever the streams that are always there depend on is there.
//!
//! Buses are always waited for: without its bus a replica has nothing new, and takes nothing. Other upstreams are waited for where the
//! route says so, as one that is away is for its subscribers what a quiet one is. Streams that come and go have theirs while they are
//! used, so nobody can wait for these.

use std::sync::Arc;
use std::time::Duration;

use humantime::format_duration;

use crate::bus::figures::{Figures, Link, Way};
use crate::route::Routes;
use crate::route::served::Served;
use crate::shutdown::Stop;
use crate::stream::via::Role;

/// Looks whether a hop is ready.
pub struct Readiness {
    /// What is served.
    pub routes: Arc<Routes>,
    /// How it stops.
    pub stop: Stop,
}

impl Readiness {
    /// Why it is not, a line each; none if it is.
    pub fn obstacles(&self) -> Vec<String> {
        if self.stop.begun().is_cancelled() {
            let reason = match self.stop.is_drain() {
                true => "this hop is draining: whoever is connected is on the way to another one",
                false => "this hop is stopping",
            };
            return vec![reason.to_owned()];
        }
        let routes = self.routes.all();
        let always = routes
            .iter()
            .filter(|route| !route.policy.pattern.is_on_demand());
        let streams = always.flat_map(|route| route.streams(""));
        streams.flat_map(|stream| of_stream(&stream)).collect()
    }
}

fn of_stream(stream: &Served) -> Vec<String> {
    let buses = &stream.connections.figures;
    let mut obstacles: Vec<_> = buses
        .iter()
        .filter_map(|bus| of_bus(&stream.name, bus))
        .collect();
    if stream.policy.ready_when_upstream {
        let is_bus = |url: &str| {
            let mut incoming = buses.iter().filter(|bus| bus.way == Way::In);
            incoming.any(|bus| bus.bus == url)
        };
        let upstreams = stream.via.upstreams().into_iter();
        // A name may stand for instances that are gone, and a standby is for when others are.
        let counts = |role| matches!(role, Role::Consumed | Role::Peer);
        let away = upstreams.filter(|upstream| {
            counts(upstream.role) && !upstream.connected && !is_bus(&upstream.url)
        });
        obstacles.extend(away.map(|upstream| {
            let reason = upstream.refusal().unwrap_or("it is away");
            format!("upstream {} of {}: {reason}", upstream.url, stream.name)
        }));
    }
    obstacles
}

fn of_bus(stream: &str, figures: &Figures) -> Option<String> {
    let Link::Away { since, reason } = figures.link() else {
        return None;
    };
    let reason = reason.as_deref().unwrap_or("it has not been reached yet");
    let since = format_duration(Duration::from_secs(since.elapsed().as_secs()));
    let bus = &figures.bus;
    Some(match figures.way {
        Way::In => format!("bus {bus}, read for {stream}, is away for {since}: {reason}"),
        Way::Out => format!("bus {bus}, written to by {stream}, is away for {since}: {reason}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_bus_is_in_the_way_while_it_is_away() {
        let bus = Figures::new("redis://h:1?channel=x".to_owned(), Way::In);
        let line = || of_bus("/events", &bus);
        let away = |rest: &str| {
            let bus = "bus redis://h:1?channel=x, read for /events,";
            Some(format!("{bus} is away for {rest}"))
        };
        assert_eq!(line(), away("0s: it has not been reached yet"));
        tokio::time::advance(Duration::from_secs(61)).await;
        bus.away("no");
        assert_eq!(line(), away("1m 1s: no"), "since the beginning");
        bus.connected();
        assert_eq!(line(), None);
        tokio::time::advance(Duration::from_secs(5)).await;
        bus.away("lost");
        tokio::time::advance(Duration::from_millis(2_500)).await;
        bus.away("refused");
        assert_eq!(line(), away("2s: refused"), "since it was lost");
        bus.ended();
        assert_eq!(line(), None, "there is nothing to wait for");
    }
}
