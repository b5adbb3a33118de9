use hyper::Request;
use proptest::prelude::*;

use super::*;

fn request(uri: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::get(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).expect("a request").into_parts().0
}

/// The token and its place, or the status of the refusal.
fn found(uri: &str, headers: &[(&str, &str)]) -> Result<Option<(String, Place)>, u16> {
    let request = request(uri, headers);
    let presented = presented(&request).map_err(|denied| denied.status.as_u16())?;
    Ok(presented.map(|presented| {
        let token = String::from_utf8(presented.token.into_owned());
        (token.expect("it is text"), presented.place)
    }))
}

fn one(token: &str, place: Place) -> Result<Option<(String, Place)>, u16> {
    Ok(Some((token.to_owned(), place)))
}

#[test]
fn a_token_has_four_places() {
    for scheme in ["Bearer t0k", "bearer t0k", "BEARER   t0k "] {
        let headers = [("authorization", scheme)];
        assert_eq!(found("/a", &headers), one("t0k", Place::Header));
    }
    for cookie in [
        "access_token=t0k",
        "a=b; access_token=t0k; c=d",
        "a=b;access_token=\"t0k\"",
    ] {
        let headers = [("cookie", cookie)];
        assert_eq!(found("/a", &headers), one("t0k", Place::Cookie), "{cookie}");
    }
    let headers = [("cookie", "a=b"), ("cookie", "access_token=t0k")];
    assert_eq!(found("/a", &headers), one("t0k", Place::Cookie));
    assert_eq!(
        found("/a?x=y&access_token=t%2B0k", &[]),
        one("t+0k", Place::Query)
    );
    for protocols in ["bearer.t0k", "wsevent.v1, bearer.t0k", " bearer.t0k , x"] {
        let headers = [("sec-websocket-protocol", protocols)];
        assert_eq!(found("/a", &headers), one("t0k", Place::Subprotocol));
    }
}

#[test]
fn what_is_no_token_is_passed_over() {
    for (uri, headers) in [
        ("/a", &[][..]),
        ("/a?access_token=", &[]),
        ("/a?Access_token=x&token=y", &[]),
        ("/a", &[("authorization", "Basic dTpw")]),
        ("/a", &[("authorization", "Bearertoken")]),
        ("/a", &[("cookie", "access_token=")]),
        ("/a", &[("cookie", "access_token")]),
        ("/a", &[("cookie", "xaccess_token=t; Access_Token=t")]),
        ("/a", &[("cookie", "a=access_token=t")]),
        (
            "/a",
            &[("sec-websocket-protocol", "bearer., bearer, Bearer.t")],
        ),
    ] {
        assert_eq!(found(uri, headers), Ok(None), "{uri} {headers:?}");
    }
}

#[test]
fn a_header_without_a_clear_token_is_a_bad_request() {
    for headers in [
        &[("authorization", "Bearer")][..],
        &[("authorization", "Bearer ")],
        &[("authorization", "Bearer a b")],
        &[("authorization", "Bearer a"), ("authorization", "Bearer a")],
        &[("authorization", "Basic a"), ("authorization", "Bearer a")],
    ] {
        assert_eq!(found("/a", headers), Err(400), "{headers:?}");
    }
}

/// Wherever they stand, two that differ are refused, two that are the same count as the first in the order of places.
#[test]
fn there_is_one_token() {
    let places = [
        (Place::Header, "authorization", "Bearer "),
        (Place::Subprotocol, "sec-websocket-protocol", "bearer."),
        (Place::Query, "", ""),
        (Place::Cookie, "cookie", "access_token="),
    ];
    let with = |tokens: &[(usize, &str)]| {
        let mut uri = "/a?x=y".to_owned();
        let mut headers = vec![];
        for (place, token) in tokens {
            match places[*place] {
                (Place::Query, ..) => uri += &format!("&access_token={token}"),
                (_, name, before) => headers.push((name, format!("{before}{token}"))),
            }
        }
        let headers: Vec<_> = headers.iter().map(|(n, v)| (*n, &**v)).collect();
        found(&uri, &headers)
    };
    for first in 0..places.len() {
        for second in 0..places.len() {
            // Two lines of Authorization are wrong whatever they say.
            if first == second && first == 0 {
                continue;
            }
            assert_eq!(with(&[(first, "a"), (second, "b")]), Err(400));
            let place = places[first.min(second)].0;
            assert_eq!(with(&[(first, "a"), (second, "a")]), one("a", place));
        }
    }
}

#[test]
fn a_browser_gets_back_what_it_has_offered() {
    let answer = |offered: &str, taken| {
        let request = request("/a", &[("sec-websocket-protocol", offered)]);
        let value = subprotocol(&request, taken)?;
        Some(value.to_str().expect("it is text").to_owned())
    };
    let hop = Some("wsevent.v1");
    assert_eq!(
        answer("bearer.t0k, wsevent.v1", hop).as_deref(),
        Some("wsevent.v1")
    );
    assert_eq!(answer("x, bearer.t0k", None).as_deref(), Some("bearer.t0k"));
    assert_eq!(answer("x", None), None);
    let request = request("/a", &[("sec-websocket-protocol", "bearer.t0k")]);
    let value = subprotocol(&request, None).expect("one");
    assert!(!format!("{value:?}").contains("t0k"));
}

proptest! {
    #[test]
    fn no_header_makes_it_panic(value in "[ -~\u{80}-\u{ff}]{0,60}", query in "[a-z=&%+_]{0,40}") {
        let value = HeaderValue::from_bytes(value.as_bytes()).expect("visible");
        let mut parts = request("/a", &[]);
        parts.uri = format!("/a?{query}").parse().expect("a URL");
        for name in [header::AUTHORIZATION, header::COOKIE, header::SEC_WEBSOCKET_PROTOCOL] {
            parts.headers.insert(name, value.clone());
        }
        let _ = presented(&parts);
        let _ = subprotocol(&parts, None);
    }
}
