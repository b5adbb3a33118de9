use std::io::Write;

use tempfile::NamedTempFile;

use super::*;

/// Cargo sets it for tests, and it says what this is.
const NAME: &str = "CARGO_PKG_NAME";

fn given(text: &str) -> Result<String, String> {
    Secret::parse(text).map(|secret| secret.last())
}

#[test]
fn only_what_is_meant_so_is_replaced() {
    for (text, expected) in [
        ("", ""),
        ("$", "$"),
        ("a$b {c} $", "a$b {c} $"),
        ("$$", "$$"),
        ("me@example, @", "me@example, @"),
        ("${CARGO_PKG_NAME}", "wsevent"),
        ("<${CARGO_PKG_NAME}${CARGO_PKG_NAME}>", "<wseventwsevent>"),
        (r#"{"a":"${CARGO_PKG_NAME}"}"#, r#"{"a":"wsevent"}"#),
        ("$${CARGO_PKG_NAME}", "${CARGO_PKG_NAME}"),
        ("$$${CARGO_PKG_NAME}", "$${CARGO_PKG_NAME}"),
        ("$${", "${"),
        ("$${ ${CARGO_PKG_NAME}", "${ wsevent"),
        ("@@", "@"),
        ("@@me ${CARGO_PKG_NAME}", "@me wsevent"),
        ("@@@", "@@"),
    ] {
        assert_eq!(given(text), Ok(expected.to_owned()), "{text}");
    }
}

#[test]
fn what_cannot_be_had_is_named_and_what_may_be_a_secret_is_not() {
    let error = given("login ${WSEVENT_TEST_NOT_SET} s3cret").expect_err("it is not set");
    assert!(
        error.contains("WSEVENT_TEST_NOT_SET") && !error.contains("s3cret"),
        "{error}"
    );
    for text in [
        "${",
        "${}",
        "${s3cret",
        "${s3 cret}",
        "${1s3cret}",
        "a ${s3-cret} b",
    ] {
        let error = given(text).expect_err(text);
        assert!(error.contains("$${") && !error.contains("s3"), "{error}");
    }
    let error = given("@/no/such/file").expect_err("there is none");
    assert_eq!(
        error,
        "cannot read /no/such/file: no such file or directory"
    );
    assert!(given("@").is_err());
}

#[tokio::test]
async fn a_file_is_read_anew_each_time() {
    let mut file = NamedTempFile::new().expect("a file");
    file.write_all(b"first ${CARGO_PKG_NAME} @\r\n")
        .expect("written");
    let name = file.path().display().to_string();
    let secret = Secret::parse(&format!("@{name}")).expect("it can be read");
    assert_eq!(secret.last(), "first ${CARGO_PKG_NAME} @");
    std::fs::write(&name, "second\n\n").expect("written");
    assert_eq!(secret.read().await.expect("it is there"), "second\n");
    assert_eq!(secret.clone().last(), "second\n");
    std::fs::write(&name, "x".repeat(MAX_FILE as usize + 1)).expect("written");
    assert!(secret.read().await.is_err());
    std::fs::write(&name, b"\xff").expect("written");
    assert!(secret.read().await.is_err());
    drop(file);
    let error = crate::reason::of(&secret.read().await.expect_err("it is gone"));
    assert_eq!(
        error,
        format!("cannot read {name}: no such file or directory")
    );
}

#[test]
fn a_variable_in_a_url_is_part_of_a_component_and_stays_that() {
    let expanded =
        expand_url("wss://h/${CARGO_PKG_DESCRIPTION}?k=${CARGO_PKG_NAME}#$${").expect("set");
    let description = env::var("CARGO_PKG_DESCRIPTION").expect("set");
    let url = url::Url::parse(&expanded.text).expect("a URL");
    let segments: Vec<_> = url.path_segments().expect("a path").collect();
    let [segment] = segments[..] else {
        panic!("{segments:?}");
    };
    let decoded = percent_encoding::percent_decode_str(segment).decode_utf8_lossy();
    assert_eq!(decoded, description);
    assert_eq!(url.query(), Some("k=wsevent"));
    assert!(expanded.variables.contains(&segment.to_owned()));
    assert!(expanded.variables.contains(&description));
}

#[test]
fn secrets_do_not_show() {
    let secret = Secret::parse(&format!("login s3cret ${{{NAME}}}")).expect("it is set");
    assert_eq!(format!("{secret:?}"), "Secret");
    let mut words = Vec::new();
    secret.words(&mut words);
    assert_eq!(words, ["login s3cret wsevent", "wsevent"]);
    assert!(repeats(&words, "no wsevent here"));
    assert!(
        !repeats(&["abc".to_owned()], "abc"),
        "it is too short to be one"
    );
    assert_eq!(
        conceal(&words, "what login s3cret wsevent? wsevent!"),
        "what ...? ...!"
    );
}

#[test]
fn each_word_of_a_file_is_a_secret() {
    let mut file = NamedTempFile::new().expect("a file");
    file.write_all(br#"{"op":"login","args":["k3y\"1",{"p":"pa55 word"}]}"#)
        .expect("written");
    let secret = Secret::parse(&format!("@{}", file.path().display())).expect("it is there");
    let mut words = Vec::new();
    secret.words(&mut words);
    for word in ["k3y\"1", "pa55 word", "login"] {
        assert!(words.contains(&word.to_owned()), "{words:?}");
    }
}
