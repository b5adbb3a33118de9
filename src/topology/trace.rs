//! The way that one event has come: what each hop knows of when it came, and from where.

use std::time::Duration;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use tokio::time::timeout_at;

use super::answer::Question;
use super::ask::{self, Answer, MAX_TRIES};
use crate::event::{self, EventId, Origin};
use crate::route::Routes;
use crate::route::served::Served;
use crate::source::presence::Named;
use crate::source::upstream::Upstream;
use crate::stream::via;

/// The legs of a way, the last first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// Each hop that it has come through, beginning with the one that was asked.
    pub legs: Vec<Leg>,
}

/// A hop that an event has come through, and how it has come there. Times are in microseconds since the Unix epoch, by that hop's
/// clock.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Leg {
    /// The id of the process.
    pub instance: String,
    /// The id of the stream there.
    pub origin: String,
    /// Where it serves, in its own words.
    pub address: String,
    /// The path of the stream there.
    pub path: String,
    /// When the question came.
    pub received: u64,
    /// When it was answered.
    pub answered: u64,
    /// When the event came; none if it is not held there any more, or was told with the stream's past.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrived: Option<u64>,
    /// How it came: as for a [link](super::Link::transport).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<String>,
    /// From where, as it may be shown to anyone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// How far this hop's clock is ahead of that of the hop before it in the list, in microseconds, which asked it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<i64>,
    /// How wrong that may be, either way, in microseconds: half of the time that question and answer were on their way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uncertainty: Option<u64>,
    /// Why there is no leg behind this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
    /// The same, in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Where a trace ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// The event began here: it was published or made.
    Origin,
    /// It came here from a server that is no wsevent, and got its id here.
    Foreign,
    /// It came from a bus.
    Bus,
    /// It is not held here any more, or never was.
    Unknown,
    /// The hop that it came from does not tell.
    Away,
    /// It has come through more hops than are asked.
    Deep,
    /// What an older wsevent than the one that tells it has no word for.
    #[serde(other)]
    Other,
}

/// The legs of the way to this stream.
pub async fn legs(routes: &Routes, stream: &Served, event: EventId, question: &Question) -> Trace {
    let received = event::now();
    let mut leg = Leg {
        instance: routes.instance().to_string(),
        origin: stream.log.origin().to_string(),
        address: routes.address().to_owned(),
        path: stream.name.to_string(),
        received,
        answered: received,
        arrived: None,
        transport: None,
        from: None,
        offset: None,
        uncertainty: None,
        end: None,
        reason: None,
    };
    // Behind an address where several answer in turn, who is not meant asks nobody: each of them would ask as often again.
    if question.at.is_some_and(|at| at != stream.log.origin()) {
        leg.end = Some(End::Unknown);
        leg.reason = Some("another instance is meant".to_owned());
        return Trace { legs: vec![leg] };
    }
    let behind = follow(routes, stream, event, question, &mut leg).await;
    leg.answered = event::now();
    let mut legs = vec![leg];
    legs.extend(behind);
    Trace { legs }
}

/// Fills in how an event has come to this stream; and the legs before that.
async fn follow(
    routes: &Routes,
    stream: &Served,
    event: EventId,
    question: &Question,
    leg: &mut Leg,
) -> Vec<Leg> {
    let mut ends = |end, reason: &str| {
        leg.end = Some(end);
        leg.reason = Some(reason.to_owned());
        vec![]
    };
    let Some(arrival) = stream.log.arrival(event) else {
        return ends(End::Unknown, "the event is not held here, or not any more");
    };
    leg.arrived = arrival.since;
    let is_own = event.origin == stream.log.origin();
    // Of what is not known, there may be one possibility only.
    let only = || match &stream.via.numbered()[..] {
        [(number, _)] if !is_own => Some(*number),
        _ => None,
    };
    let Some(link) = arrival.link.or_else(only) else {
        leg.end = Some(if is_own { End::Origin } else { End::Unknown });
        leg.reason = (!is_own).then(|| "it is not known which way it came".to_owned());
        return vec![];
    };
    let known = stream.via.upstream(link).unwrap_or_default();
    leg.transport = known.transport.map(str::to_owned);
    leg.from = Some(known.url.to_string());
    let Some(upstream) = stream.upstreams.get(link) else {
        let (scheme, _) = known.url.split_once(':').unwrap_or((&known.url, ""));
        leg.transport = Some(scheme.to_owned());
        leg.end = Some(End::Bus);
        return vec![];
    };
    let Some(origin) = known.instance() else {
        leg.end = Some(End::Foreign);
        return vec![];
    };
    if question.silence(stream).is_some() {
        leg.end = Some(End::Deep);
        leg.reason = Some("it has come through more hops than are asked".to_owned());
        return vec![];
    }
    let asked = ask(routes, (&upstream, &known, origin), event, stream, question).await;
    asked.unwrap_or_else(|error| {
        leg.end = Some(End::Away);
        leg.reason = Some(upstream.reason(&error));
        vec![]
    })
}

/// Asks the upstream that has brought it.
async fn ask(
    routes: &Routes,
    (upstream, known, origin): (&Upstream, &via::Upstream, Origin),
    event: EventId,
    stream: &Served,
    question: &Question,
) -> Result<Vec<Leg>> {
    if !known.connected {
        let reason = known.reason.as_deref().unwrap_or("no reason is known");
        bail!("the link is down: {reason}");
    }
    let Ok(leave) = timeout_at(question.deadline, routes.known().traces.acquire()).await else {
        bail!("too many ask for the ways of events");
    };
    let via = question.via(stream);
    let id = event.to_string();
    let asked = ask::Question {
        upstream,
        what: ("trace", &id),
        of_stream: true,
        via: &via,
        at: Some(origin),
        deadline: question.deadline - Duration::from_millis(5),
    };
    let legs = of_instance(&asked).await;
    drop(leave);
    legs
}

/// The legs that an upstream tells, with its clock held against ours. Where several instances answer in turn, those of the one that
/// is meant.
pub async fn of_instance(question: &ask::Question<'_>) -> Result<Vec<Leg>> {
    let meant = question.at.map(|origin| origin.to_string());
    for _ in 0..MAX_TRIES {
        let answer = question.ask().await?;
        let trace: Trace = serde_json::from_slice(&answer.body).map_err(|_| {
            anyhow::anyhow!("it does not tell the ways of events: an older wsevent, or none")
        })?;
        let mut legs = trace.legs;
        let Some(first) = legs.first_mut() else {
            bail!("it tells of no way");
        };
        if meant.as_ref().is_some_and(|meant| *meant != first.origin) {
            continue;
        }
        let (offset, uncertainty) = clock(&answer, first);
        (first.offset, first.uncertainty) = (Some(offset), Some(uncertainty));
        return Ok(legs);
    }
    bail!("others answer at its address, and not the instance that the event came from")
}

/// How far the clock of who has answered is ahead of ours, and how wrong that may be (RFC 5905, section 8).
fn clock(answer: &Answer, leg: &Leg) -> (i64, u64) {
    let [asked, received, answered, here] =
        [answer.asked, leg.received, leg.answered, answer.answered].map(|time| time as i64);
    let offset =
        (received.saturating_sub(asked) / 2).saturating_add(answered.saturating_sub(here) / 2);
    let on_the_way = (here - asked).saturating_sub(answered.saturating_sub(received));
    (offset, on_the_way.max(0) as u64 / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_compared_by_the_middle_of_question_and_answer() {
        let leg = |received, answered| Leg {
            instance: String::new(),
            origin: String::new(),
            address: String::new(),
            path: String::new(),
            received,
            answered,
            arrived: None,
            transport: None,
            from: None,
            offset: None,
            uncertainty: None,
            end: None,
            reason: None,
        };
        let answer = |asked, answered| Answer {
            body: bytes::Bytes::new(),
            asked,
            answered,
        };
        // A second ahead, 10 µs each way, and 100 µs to answer.
        let ahead = leg(1_000_010, 1_000_110);
        assert_eq!(clock(&answer(0, 120), &ahead), (1_000_000, 10));
        let behind = leg(1_010, 1_110);
        assert_eq!(clock(&answer(2_000, 2_120), &behind), (-1_000, 10));
        // Whatever somebody says, it is no panic.
        clock(&answer(5, 0), &leg(u64::MAX, 0));
        clock(&answer(u64::MAX, 0), &leg(0, u64::MAX));
    }
}
