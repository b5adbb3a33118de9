use proptest::prelude::*;

use super::*;

fn pattern(text: &str, key_query: &[&str]) -> Pattern {
    let names = key_query.iter().map(|name| (*name).to_owned()).collect();
    Pattern::new(text, names).expect("a pattern")
}

fn name(pattern: &Pattern, path: &str, query: Option<&str>) -> Option<String> {
    let path = url_path::normal(path).ok()?;
    let key = pattern.matches(&path).then(|| pattern.key(&path, query));
    Some(key?.ok()?.name.to_string())
}

#[test]
fn a_wildcard_is_all_that_is_below() {
    let live = pattern("live/*", &[]);
    assert_eq!(live.to_string(), "/live/*");
    for (path, expected) in [
        ("/live/a", Some("/live/a")),
        ("/live/a/b/", Some("/live/a/b/")),
        ("/live/%61", Some("/live/a")),
        ("/live/", None),
        ("/live", None),
        ("/lively/a", None),
        ("/live/../a", None),
        ("/live//a", None),
    ] {
        assert_eq!(name(&live, path, None).as_deref(), expected, "{path}");
    }
    let all = pattern("/*", &[]);
    assert_eq!(name(&all, "/a", None).as_deref(), Some("/a"));
    assert_eq!(name(&all, "/", None), None);
    assert!(!pattern("/live", &[]).is_on_demand());
}

#[test]
fn only_listed_parameters_name_a_stream() {
    let quotes = pattern("/quotes", &["symbol", "interval"]);
    assert!(quotes.is_on_demand() && !quotes.is_wildcard());
    for (query, expected) in [
        (None, Some("/quotes")),
        (Some("history=5"), Some("/quotes")),
        (Some("symbol=A%20B&x=1"), Some("/quotes?symbol=A+B")),
        (
            Some("interval=1m&symbol=A"),
            Some("/quotes?symbol=A&interval=1m"),
        ),
        (Some("symbol="), Some("/quotes?symbol=")),
        (Some("symbol=A&symbol=B"), None),
    ] {
        assert_eq!(
            name(&quotes, "/quotes", query).as_deref(),
            expected,
            "{query:?}"
        );
    }
    for taken in TAKEN {
        assert!(Pattern::new("/a", vec![taken.to_owned()]).is_err());
    }
}

#[test]
fn patterns_are_paths() {
    for text in [
        "",
        "/",
        "a",
        "/a/",
        "/a/*",
        "*",
        "/*",
        "a/b-c_d.e",
        "/a%20b",
    ] {
        assert!(Pattern::new(text, vec![]).is_ok(), "{text}");
    }
    for text in [
        "/a*",
        "/*/a",
        "/a/*/b",
        "/a?b",
        "/a#b",
        "/a b",
        "/ä",
        "/a/../b",
        "//",
        "/a//b",
        "/%2e%2e/*",
    ] {
        assert!(Pattern::new(text, vec![]).is_err(), "{text}");
    }
}

#[test]
fn the_rest_of_the_path_is_carried_over() {
    let url = |text: &str| Url::parse(text).expect("a URL");
    let live = pattern("/live/*", &["depth"]);
    for (template, path, query, expected) in [
        (
            "wss://o.example/feeds/*",
            "/live/a",
            None,
            "wss://o.example/feeds/a",
        ),
        (
            "wss://o.example/*",
            "/live/a/b",
            None,
            "wss://o.example/a/b",
        ),
        (
            "https://u:p@o.example:99/f/*?token=t",
            "/live/%C3%A4%3F",
            Some("depth=5&x=2"),
            "https://u:p@o.example:99/f/%C3%A4%3F?token=t&depth=5",
        ),
    ] {
        let path = url_path::normal(path).expect("a path");
        let key = live.key(&path, query).expect("a key");
        assert_eq!(live.upstream(&url(template), &key), url(expected));
    }
    for (serves, template, fits) in [
        ("/live/*", "ws://o/feeds/*", true),
        ("/live/*", "ws://o/*", true),
        ("/live/*", "ws://o/feed", false),
        ("/live/*", "ws://o/*/feed", false),
        ("/live/*", "ws://o/*/*", false),
        ("/live/*", "ws://o/feed*", false),
        ("/live", "ws://o/feeds/*", false),
        ("/live", "ws://o/feed*s", true),
        ("/live", "ws://o/feed", true),
    ] {
        let result = pattern(serves, &[]).check_upstream(&url(template));
        assert_eq!(result.is_ok(), fits, "{serves} {template}");
    }
}

proptest! {
    /// Whatever a client writes, the request upstream goes to the configured host, below the configured path, and cannot
    /// become two lines.
    #[test]
    fn nothing_leads_to_another_place(
        rest in "([a-z./\\\\@:?#;%\r\n -]|%2e|%2E|%2f|%5c|%0d|%0a|%25|%40|\\.\\.|//|http://evil/|.){0,20}",
        query in proptest::option::of(".{0,20}"),
    ) {
        let live = pattern("/live/*", &["q"]);
        let template = Url::parse("wss://user:pass@origin.example:8443/feeds/*?k=v").expect("a URL");
        let Ok(path) = url_path::normal(&format!("/live/{rest}")) else { return Ok(()) };
        if !live.matches(&path) {
            return Ok(());
        }
        let Ok(key) = live.key(&path, query.as_deref()) else { return Ok(()) };
        let url = live.upstream(&template, &key);
        let place = |url: &Url| {
            (url.scheme().to_owned(), url.username().to_owned(), url.password().map(str::to_owned),
             url.host_str().map(str::to_owned), url.port())
        };
        prop_assert_eq!(place(&url), place(&template));
        prop_assert!(url.path().starts_with("/feeds/"), "{}", url);
        prop_assert!(url.query().unwrap_or_default().starts_with("k=v"));
        prop_assert_eq!(url.fragment(), None);
        let decoded: Vec<u8> = percent_encoding::percent_decode_str(url.path()).collect();
        let mut segments = decoded.split(|byte| b"/\\".contains(byte));
        prop_assert!(!segments.any(|segment| segment == b".." || segment == b"."), "{}", url);
        prop_assert!(url.as_str().bytes().all(|byte| byte > 0x20 && byte < 0x7F), "{}", url);
        // And the URL is read again as what it is.
        prop_assert_eq!(Url::parse(url.as_str()), Ok(url));
    }
}
