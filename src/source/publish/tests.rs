use std::convert::Infallible;

use futures_util::{StreamExt, stream};
use http_body_util::{Full, StreamBody};
use hyper::Request;
use hyper::body::Frame;
use tokio::time::{Instant, sleep};

use super::*;
use crate::stream::EventLog;

const MAX: usize = 100;

fn publisher() -> Publisher {
    Publisher::new(Sink::Log(Arc::new(EventLog::new(1 << 20))), MAX, None)
}

fn bodies() -> Bodies {
    Bodies::new(16 << 20, 256 << 20)
}

/// Publishes from 192.0.2.1.
fn sender(bodies: &Bodies) -> Sender<'_> {
    let address = ([192, 0, 2, 1], 4711).into();
    Sender { address, bodies }
}

fn head(headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::post("/events");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).expect("a request").into_parts().0
}

async fn take(
    publisher: &Publisher,
    headers: &[(&str, &str)],
    body: &str,
) -> Result<String, Refused> {
    let body = Full::new(Bytes::from(body.to_owned()));
    let taken = publisher
        .take(&head(headers), body, Labels::default(), &sender(&bodies()))
        .await;
    taken.map(|answer| String::from_utf8(answer).expect("it is JSON"))
}

/// A body without a length, whose pieces are apart in time.
fn pieces(
    count: usize,
    pause: Duration,
) -> impl Body<Data = Bytes, Error = Infallible> + Send + Unpin {
    let pieces = stream::iter(0..count).then(move |_| async move {
        sleep(pause).await;
        Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"0123456789")))
    });
    StreamBody::new(Box::pin(pieces))
}

async fn status(body: impl Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static) -> u16 {
    let taken = publisher()
        .take(&head(&[]), body, Labels::default(), &sender(&bodies()))
        .await;
    taken.map_or_else(|refused| refused.status.as_u16(), |_| 202)
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stalls_is_given_up_and_a_slow_one_is_not() {
    let start = Instant::now();
    assert_eq!(status(pieces(2, STALLED * 2)).await, 408);
    assert_eq!(start.elapsed(), STALLED);
    assert_eq!(status(pieces(10, STALLED / 2)).await, 202);
}

#[tokio::test(start_paused = true)]
async fn a_body_without_a_length_is_not_read_beyond_the_limit() {
    assert_eq!(status(pieces(MAX / 10, Duration::ZERO)).await, 202);
    assert_eq!(status(pieces(MAX / 10 + 1, Duration::ZERO)).await, 413);
    let endless = pieces(usize::MAX, Duration::from_millis(1));
    assert_eq!(status(endless).await, 413);
}

#[tokio::test]
async fn too_many_events_are_refused_whatever_their_length() {
    let publisher = publisher();
    let lines = [("content-type", "application/x-ndjson")];
    let body = "{\"data\":\"\"}\n".repeat(MAX_EVENTS);
    let answer = take(&publisher, &lines, &body)
        .await
        .expect("all are taken");
    assert_eq!(answer.matches(',').count(), MAX_EVENTS - 1);
    let one_more = format!("{body}{{\"data\":\"\"}}");
    let refused = take(&publisher, &lines, &one_more)
        .await
        .expect_err("too many");
    assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(events(&publisher), MAX_EVENTS as u64);
}

#[tokio::test]
async fn labels_are_no_way_around_what_a_label_may_be() {
    let long = "x".repeat(MAX_LABEL + 1);
    for value in [
        RESERVED_TYPES[0],
        RESERVED_TYPES[1],
        RESERVED_TYPES[2],
        "a%0Ab",
        "%C2%85",
        &long,
        "%FF",
    ] {
        let refused = take(&publisher(), &[("ce-type", value)], "").await;
        let refused = refused.expect_err(value);
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{value}");
    }
    assert!(
        take(&publisher(), &[("ce-subject", RESERVED_TYPES[0])], "")
            .await
            .is_ok()
    );
}

#[tokio::test(start_paused = true)]
async fn who_publishes_too_fast_is_told_when_to_come_back() {
    let rate = crate::listen::rate::Rate(std::num::NonZeroU32::new(10).expect("above 0"));
    let rate = Arc::new(OfAddresses::new(rate));
    let publisher = Publisher::new(Sink::Log(Arc::new(EventLog::new(1 << 20))), MAX, Some(rate));
    let lines = [("content-type", "application/x-ndjson")];
    let publish = async |count: usize| {
        let body = "{\"data\":\"\"}\n".repeat(count);
        let taken = take(&publisher, &lines, &body).await;
        taken.map_err(|refused| (refused.status.as_u16(), refused.retry_after))
    };
    assert!(publish(1).await.is_ok());
    // It would have to be full for so many.
    assert_eq!(publish(50).await, Err((429, Some(1))));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(publish(50).await.is_ok());
    assert_eq!(publish(1).await, Err((429, Some(5))));
    assert_eq!(events(&publisher), 51);
    // Of whom nothing can be taken no body is read.
    assert_eq!(
        take(&publisher, &lines, "no JSON")
            .await
            .map_err(|refused| refused.status.as_u16()),
        Err(429)
    );
    tokio::time::advance(Duration::from_secs(5)).await;
    assert!(publish(1).await.is_ok());
}

/// So many have been taken.
fn events(publisher: &Publisher) -> u64 {
    match &publisher.sink {
        Sink::Log(log) => log.figures().events,
        Sink::Bus(_) => unreachable!("there is none"),
    }
}
