use proptest::prelude::*;

use super::*;
use crate::auth::Right;

/// `printf %s t0k | sha256sum`, and of `0ther`.
const T0K: &str = "98e4e27695754ae0d421e3a5a48b69d8fab2b3af4383a5c318201f8a92eb9fd0";
const OTHER: &str = "0000000000000000000000000000000000000000000000000000000000000000";

fn tokens(lines: &str) -> Tokens {
    Tokens::parse(lines).expect("a good file")
}

/// The line and the reason.
fn wrong(text: &str) -> (Option<usize>, String) {
    let wrong = Tokens::parse(text).expect_err("a bad file");
    (wrong.line, wrong.reason)
}

fn may(tokens: &Tokens, token: &str, right: Right, path: &str) -> bool {
    let found = tokens.find(token.as_bytes());
    found.is_some_and(|(_, rights)| rights.allow(right, path))
}

#[test]
fn a_line_says_who_may_what() {
    let tokens = tokens(&format!(
        "# who may what\n\n alice : {T0K} : /live/*, /a:b : subscribe , publish\n"
    ));
    let (name, _) = tokens.find(b"t0k").expect("it is listed");
    assert_eq!(&*name, "alice");
    for right in [Right::Subscribe, Right::Publish] {
        assert!(may(&tokens, "t0k", right, "/live/x"));
        assert!(may(&tokens, "t0k", right, "/a:b"));
        assert!(!may(&tokens, "t0k", right, "/other"));
    }
    for token in ["t0k ", "T0K", "", T0K, "0ther"] {
        assert!(tokens.find(token.as_bytes()).is_none(), "{token}");
    }
    assert!(tokens.everyone().is_none());
}

#[test]
fn a_path_is_understood_however_it_is_spelled() {
    let tokens = tokens(&format!("alice:{T0K}:/t/a%2db,/t/%c3%a4:subscribe\n"));
    for path in ["/t/a-b", "/t/%C3%A4"] {
        assert!(may(&tokens, "t0k", Right::Subscribe, path), "{path}");
    }
}

#[test]
fn several_lines_may_be_about_one_token() {
    let upper = T0K.to_uppercase();
    let tokens = tokens(&format!(
        "\u{feff}alice:{T0K}:/a:subscribe\r\nbob:{OTHER}:*:publish\r\nalice:{upper}:/b:publish\r\n"
    ));
    for (right, path, expected) in [
        (Right::Subscribe, "/a", true),
        (Right::Publish, "/a", false),
        (Right::Subscribe, "/b", false),
        (Right::Publish, "/b", true),
    ] {
        assert_eq!(
            may(&tokens, "t0k", right, path),
            expected,
            "{right:?} {path}"
        );
    }
}

#[test]
fn a_dash_is_for_everyone() {
    let tokens = tokens("anonymous:-:/news:subscribe\nanonymous:-:/guests:publish");
    let (name, rights) = tokens.everyone().expect("there are such lines");
    assert_eq!(&**name, "anonymous");
    assert!(rights.allow(Right::Subscribe, "/news"));
    assert!(rights.allow(Right::Publish, "/guests"));
    assert!(!rights.allow(Right::Publish, "/news"));
    assert!(tokens.find(b"-").is_none());
    assert!(tokens.find(b"").is_none());
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    let format = "NAME:SHA256:PATHS:RIGHTS is expected";
    let hash = "the SHA-256 of the token is expected behind the name, as 64 hex digits (printf %s \"$token\" | sha256sum), or - for everyone";
    let name = "the name is missing, or is not plain text";
    let rights = "the rights: subscribe, publish or subscribe,publish is expected";
    let paths = "the paths: a path such as /live/a is expected, one that ends in /* for all below it, or * for all, with commas between several";
    for (line, expected) in [
        ("alice".to_owned(), format),
        ("alice:t0k".to_owned(), format),
        (format!("alice:{T0K}"), format),
        (format!("alice:{T0K}:/a"), format),
        (format!(":{T0K}:/a:publish"), name),
        (format!("al\u{1b}ice:{T0K}:/a:publish"), name),
        ("alice:t0k:/a:publish".to_owned(), hash),
        (format!("alice:{T0K}  -:/a:publish"), hash),
        (format!("alice:+{}:/a:publish", &T0K[1..]), hash),
        (format!("alice:ä{}:/a:publish", &T0K[2..]), hash),
        ("alice::/a:publish".to_owned(), hash),
        (
            format!("alice:{OF_NOTHING}:/a:publish"),
            "this is the hash of an empty token",
        ),
        (format!("alice:{T0K}::publish"), paths),
        (format!("alice:{T0K}:/a,,/b:publish"), paths),
        (format!("alice:{T0K}:/a /b:publish"), paths),
        (format!("alice:{T0K}:/a:"), rights),
        (format!("alice:{T0K}:/a:pub"), rights),
        (format!("alice:{T0K}:/a:publish,"), rights),
        (format!("alice:{T0K}:/a:publish subscribe"), rights),
        (
            format!("bob:{OTHER}:/a:publish"),
            "the name for this hash is 'zoe' on a line above: it has one",
        ),
        (
            "nobody:-:/a:publish".to_owned(),
            "the name for this hash is 'all' on a line above: it has one",
        ),
    ] {
        let text = format!("zoe:{OTHER}:*:subscribe\n# :\nall:-:/news:subscribe\n{line}\n");
        assert_eq!(wrong(&text), (Some(4), expected.to_owned()), "{line}");
    }
    for text in ["", "\n# nobody yet\n"] {
        assert_eq!(wrong(text), (None, "there is no token in it".to_owned()));
    }
}

/// How long it takes must not tell how near a guess was, nor where in the list a hash stands: so each is compared, always.
#[test]
fn all_entries_are_compared_wherever_the_right_one_is() {
    let list = [3, 1, 4, 5, 9];
    for (wanted, expected) in [(3, Some(0)), (4, Some(2)), (9, Some(4)), (7, None)] {
        let mut compared = vec![];
        let found = select(&list, |item: &u8| {
            compared.push(*item);
            item.ct_eq(&wanted)
        });
        assert_eq!(found, expected);
        assert_eq!(compared, list, "{wanted}");
    }
    assert_eq!(select(&[], |_: &u8| Choice::from(1)), None);
}

#[test]
fn a_hash_is_not_shown() {
    let shown = format!("{:?}", tokens(&format!("alice:{T0K}:/a:publish")));
    assert!(
        shown.contains("alice") && !shown.contains(&T0K[..8]),
        "{shown}"
    );
    assert!(!shown.contains("162"), "{shown}");
}

proptest! {
    #[test]
    fn any_text_is_a_token_file_or_not(text in "(.|\n){0,200}") {
        let _ = Tokens::parse(&text);
    }

    /// Lines that are nearly right, so that all fields are reached.
    #[test]
    fn no_error_shows_what_stands_in_the_file(
        name in "[a-c]{0,2}", hash in "[0-9a-fS]{62,66}|-", paths in "[/*a-b,.]{0,6}", rights in "(publish|subscribe|,|x){0,3}"
    ) {
        let line = format!("{name}:{hash}:{paths}:{rights}");
        if let Err(wrong) = Tokens::parse(&line) {
            prop_assert_eq!(wrong.line, Some(1));
            prop_assert!(hash == "-" || !wrong.reason.contains(&hash));
        }
    }
}
