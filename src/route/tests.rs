use tokio_util::sync::CancellationToken;

use super::*;
use crate::endpoint::fanout::Overload;

fn policy(path: &str) -> Policy {
    Policy {
        pattern: Pattern::new(path, vec![]).expect("a pattern"),
        upstreams: vec![],
        peers: Peers::default(),
        standbys: vec![],
        merging: Terms::default(),
        buses: Buses::default(),
        produce: None,
        history: Limits::from(1 << 20),
        retain: None,
        subscribers: Settings {
            ping_interval: Duration::from_secs(30),
            max_message_size: 1 << 20,
            max_publish_rate: None,
            max_connection_age: None,
            overload: Overload::Disconnect,
            accept_publish: true,
            compress: false,
        },
        origins: Origins::default(),
        linger: Duration::from_secs(30),
        max_streams: 3,
        ready_when_upstream: false,
        words: vec![path.to_owned()],
    }
}

fn start(policies: Vec<Policy>) -> Routes {
    let own = (Origin(7), "localhost:1");
    let (tasks, stop) = (TaskTracker::new(), Stop::new(Duration::from_secs(5)));
    Routes::start(policies, own, (&tasks, &stop))
}

fn stream(routes: &Routes, path: &str) -> Option<(Arc<Route>, Key)> {
    match routes.find(path, None) {
        Ok(Some(Place::Stream(route, key))) => Some((route, key)),
        _ => None,
    }
}

fn try_open(routes: &Routes, path: &str) -> std::result::Result<Lease, StatusCode> {
    let (route, key) = stream(routes, path).expect("a stream");
    route.open(&key).map_err(|none| none.status)
}

fn open(routes: &Routes, path: &str) -> Lease {
    try_open(routes, path).expect("there is room")
}

/// Lets tasks do what they can without time passing.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_lingers_behind_its_last_user() {
    let routes = start(vec![policy("/t/*")]);
    let origin = |lease: &Lease| lease.stream.log.origin();
    let first = open(&routes, "/t/a");
    let second = open(&routes, "/t/%61");
    assert_eq!(origin(&first), origin(&second));
    assert_ne!(origin(&first), origin(&open(&routes, "/t/b")));
    let name = origin(&first);
    drop((first, second));
    settle().await;
    tokio::time::advance(Duration::from_secs(29)).await;
    settle().await;
    let back = open(&routes, "/t/a");
    assert_eq!(origin(&back), name);
    tokio::time::advance(Duration::from_secs(3_600)).await;
    settle().await;
    assert_eq!(routes.all()[0].count(), 1, "the other one has gone");
    drop(back);
    settle().await;
    tokio::time::advance(Duration::from_secs(31)).await;
    settle().await;
    assert_eq!(routes.all()[0].count(), 0);
    assert_ne!(origin(&open(&routes, "/t/a")), name);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_comes_as_the_last_one_leaves_has_a_stream_that_stays() {
    let eager = Policy {
        linger: Duration::ZERO,
        ..policy("/t/*")
    };
    let routes = Arc::new(start(vec![eager]));
    let visitors = (0..8).map(|_| {
        let routes = routes.clone();
        tokio::spawn(async move {
            for _ in 0..2_000 {
                let lease = open(&routes, "/t/a");
                tokio::task::yield_now().await;
                let route = &routes.all()[0];
                let listed = route.streams("");
                let origins: Vec<_> = listed.map(|stream| stream.log.origin()).collect();
                assert_eq!(origins, [lease.stream.log.origin()]);
                assert!(!lease.stream.ender.token().is_cancelled());
            }
        })
    });
    for visitor in visitors.collect::<Vec<_>>() {
        visitor.await.expect("no assertion has failed");
    }
}

#[tokio::test(start_paused = true)]
async fn there_are_only_so_many() {
    let routes = start(vec![policy("/t/*")]);
    let leases: Vec<_> = ["/t/a", "/t/b", "/t/c"]
        .map(|path| open(&routes, path))
        .into();
    let full = Some(StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(try_open(&routes, "/t/d").err(), full);
    assert!(try_open(&routes, "/t/a").is_ok());
    drop(leases);
    settle().await;
    tokio::time::advance(Duration::from_secs(31)).await;
    settle().await;
    assert!(try_open(&routes, "/t/d").is_ok());
}

#[tokio::test]
async fn the_most_exact_route_serves_a_path() {
    let paths = ["/*", "/a/*", "/a/b", "/a/b/*", "/c"];
    let routes = start(paths.map(policy).into());
    let serving = |path| {
        let (route, _) = stream(&routes, path)?;
        Some(route.policy.pattern.to_string())
    };
    for (path, expected) in [
        ("/a/b", Some("/a/b")),
        ("/a/b/c", Some("/a/b/*")),
        ("/a/c", Some("/a/*")),
        ("/a", Some("/*")),
        ("/c", Some("/c")),
        ("/", None),
    ] {
        assert_eq!(serving(path).as_deref(), expected, "{path}");
    }
    let list = routes.find("/a/", None);
    assert!(
        matches!(list, Ok(Some(Place::List(..)))),
        "not a stream of /*"
    );
    let wrong = routes.find("/a/../c", None).err().map(|none| none.status);
    assert_eq!(wrong, Some(StatusCode::BAD_REQUEST));
    assert!(matches!(
        start(vec![policy("/c")]).find("//c", None),
        Ok(None)
    ));
}

#[tokio::test(start_paused = true)]
async fn routes_that_stay_do_not_notice() {
    let routes = start(vec![policy("/a"), policy("/t/*"), policy("/b")]);
    let (kept, lost) = (open(&routes, "/t/x"), open(&routes, "/b"));
    let changed = Policy {
        history: Limits::from(1),
        ..changed("/b")
    };
    let counts = routes.replace(vec![policy("/t/*"), changed, policy("/new")]);
    assert_eq!(counts, (2, 2));
    settle().await;
    assert!(!kept.stream.ender.token().is_cancelled());
    assert_eq!(
        open(&routes, "/t/x").stream.log.origin(),
        kept.stream.log.origin()
    );
    assert!(lost.stream.ender.token().is_cancelled());
    assert_eq!(lost.stream.ender.farewell().code, CloseCode::Restart);
    assert!(stream(&routes, "/a").is_none());
    assert_ne!(
        open(&routes, "/b").stream.log.origin(),
        lost.stream.log.origin()
    );
}

fn changed(path: &str) -> Policy {
    Policy {
        words: vec!["other".to_owned()],
        linger: Duration::from_secs(60),
        ..policy(path)
    }
}

#[tokio::test(start_paused = true)]
async fn what_clients_have_published_outlives_a_change_of_policy() {
    let routes = start(vec![policy("/a"), policy("/t/*")]);
    let (a, t) = (open(&routes, "/a"), open(&routes, "/t/x"));
    let origins = [a.stream.log.origin(), t.stream.log.origin()];
    let now = |path| open(&routes, path).stream.log.origin();
    assert_eq!(routes.replace(vec![changed("/a"), changed("/t/*")]), (2, 2));
    assert!(a.stream.ender.token().is_cancelled());
    settle().await;
    // Nobody has come back before it changes again.
    routes.replace(vec![policy("/a"), policy("/t/*")]);
    settle().await;
    assert_eq!([now("/a"), now("/t/x")], origins);
    // With other bounds, or after a while, it is another stream.
    let other = Policy {
        history: Limits::from(1),
        ..changed("/a")
    };
    routes.replace(vec![other, changed("/t/*")]);
    assert_ne!(now("/a"), origins[0]);
    settle().await;
    tokio::time::advance(Duration::from_secs(61)).await;
    settle().await;
    assert_ne!(now("/t/x"), origins[1]);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_ends_a_stream_and_is_remembered_for_a_moment() {
    let routes = start(vec![policy("/t/*")]);
    let lease = open(&routes, "/t/a");
    lease.stream.via.expect(0, "ws://upstream/");
    lease.stream.via.lost(0, Some((404, "none".to_owned())));
    let refused = lease
        .stream
        .is_there()
        .await
        .map_err(|refused| refused.status);
    assert_eq!(refused, Err(404));
    lease.stream.ender.token().cancelled().await;
    assert_eq!(u16::from(lease.stream.ender.farewell().code), 4_404);
    settle().await;
    assert_eq!(try_open(&routes, "/t/a").err(), Some(StatusCode::NOT_FOUND));
    tokio::time::advance(REMEMBERED).await;
    assert!(try_open(&routes, "/t/a").is_ok());
}

#[tokio::test(start_paused = true)]
async fn however_short_a_use_is_the_linger_begins_anew() {
    let routes = start(vec![policy("/t/*")]);
    let name = open(&routes, "/t/a").stream.log.origin();
    settle().await;
    for _ in 0..3 {
        tokio::time::advance(Duration::from_secs(29)).await;
        settle().await;
        // As short as a publish: nobody else runs meanwhile.
        assert_eq!(open(&routes, "/t/a").stream.log.origin(), name);
    }
    tokio::time::advance(Duration::from_secs(31)).await;
    settle().await;
    assert_eq!(routes.all()[0].count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_during_a_reload_finds_the_one_stream() {
    let others = |words: &str| {
        let others = (0..50).map(|number| policy(&format!("/other/{number}")));
        let policies = others.chain([policy("/a")]).map(|policy| Policy {
            linger: Duration::ZERO,
            words: vec![policy.pattern.to_string(), words.to_owned()],
            ..policy
        });
        policies.collect::<Vec<_>>()
    };
    let routes = Arc::new(start(others("first")));
    let stop = CancellationToken::new();
    let visitors: Vec<_> = (0..3)
        .map(|_| {
            let (routes, stop) = (routes.clone(), stop.clone());
            tokio::spawn(async move {
                while !stop.is_cancelled() {
                    let _ = try_open(&routes, "/a");
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    let origin = open(&routes, "/a").stream.log.origin();
    for round in 0..100 {
        routes.replace(others(&round.to_string()));
        let (route, key) = stream(&routes, "/a").expect("a route");
        let there = route.get(&key).map(|stream| stream.log.origin());
        assert_eq!(there, Some(origin), "in round {round}");
        tokio::task::yield_now().await;
    }
    stop.cancel();
    for visitor in visitors {
        visitor.await.expect("no assertion has failed");
    }
    assert_eq!(open(&routes, "/a").stream.log.origin(), origin);
}

#[tokio::test(start_paused = true)]
async fn the_stream_that_is_unused_for_longest_makes_room() {
    let routes = start(vec![policy("/t/*")]);
    let kept = open(&routes, "/t/a");
    drop(open(&routes, "/t/b"));
    tokio::time::advance(Duration::from_secs(1)).await;
    drop(open(&routes, "/t/c"));
    let _new = open(&routes, "/t/d");
    settle().await;
    let names: Vec<_> = routes.all()[0]
        .streams("")
        .map(|stream| stream.name.to_string())
        .collect();
    assert_eq!(names, ["/t/a", "/t/c", "/t/d"]);
    assert!(!kept.stream.ender.token().is_cancelled());
}

#[tokio::test]
async fn streams_are_walked_page_by_page() {
    let routes = start(vec![Policy {
        max_streams: 2 * LOOK,
        ..policy("/t/*")
    }]);
    for count in [1, LOOK, 2 * LOOK] {
        let names: Vec<_> = (0..count).map(|number| format!("/t/{number:03}")).collect();
        let leases = names.iter().map(|name| open(&routes, name));
        let _leases: Vec<_> = leases.collect();
        let route = &routes.all()[0];
        let walked = |after: &str| -> Vec<_> {
            let streams = route.streams(after);
            streams.map(|stream| stream.name.to_string()).collect()
        };
        assert_eq!(walked(""), names);
        assert_eq!(walked("/t/000"), names[1..]);
        assert_eq!(walked("/t/9"), [""; 0]);
    }
}

#[tokio::test]
async fn names_have_a_bound() {
    let routes = start(vec![policy("/t/*")]);
    let status = |len: usize| {
        let found = routes.find(&format!("/t/{}", "a".repeat(len)), None);
        found.map(|_| ()).map_err(|none| none.status)
    };
    assert_eq!(status(1_000), Ok(()));
    assert_eq!(status(1_100), Err(StatusCode::URI_TOO_LONG));
}

/// There may be as many streams as subscribers, so what each has is weighed: in bytes, on a machine of 64 bits. Who makes
/// something larger has to say here that it is meant, and to look at `cargo bench --bench streams -- A`.
#[test]
#[cfg(target_pointer_width = "64")]
fn a_stream_is_small() {
    fn future<A, B, F>(_: fn(A, B) -> F) -> usize {
        size_of::<F>()
    }
    assert!(size_of::<Served>() <= 320);
    assert!(size_of::<EventLog>() <= 616);
    assert!(size_of::<crate::stream::via::Via>() <= 112);
    assert!(future(Route::while_used) <= 400);
}
