use std::fs;

use hyper::Request;
use tempfile::TempDir;

use super::*;

/// `printf %s t0k | sha256sum`.
const T0K: &str = "98e4e27695754ae0d421e3a5a48b69d8fab2b3af4383a5c318201f8a92eb9fd0";
/// Made by another implementation, for alice.
const JWT: &str = include_str!("jwt/vectors/tokens.txt");
const RSA: &str = include_str!("jwt/vectors/rsa.pem");

/// The files, in a folder of their own.
struct Files {
    folder: TempDir,
}

impl Files {
    fn new(tokens: &str) -> Self {
        let files = Self {
            folder: tempfile::tempdir().expect("a folder for the test"),
        };
        files.write("tokens", tokens);
        files.write("keys", RSA);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("the folder is ours");
    }

    fn settings(&self) -> Settings {
        Settings {
            token_file: Some(self.path("tokens")),
            jwt_keys: vec![self.path("keys")],
            ..Settings::default()
        }
    }

    fn load(&self) -> Result<Auth> {
        Auth::load(self.settings())
    }
}

fn jwt() -> &'static str {
    let line = JWT.lines().next().expect("there are some");
    line.rsplit(' ').next().expect("a token")
}

fn asks(auth: &Auth, headers: &[(&str, &str)]) -> Result<Identity, Denied> {
    let mut request = Request::get("/live/x");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    auth.identify(&request.body(()).expect("a request").into_parts().0)
}

fn bearer(auth: &Auth, token: &str) -> Result<Identity, Denied> {
    asks(auth, &[("authorization", &format!("Bearer {token}"))])
}

const EVERYONE: &str = "guest:-:/news:subscribe\n";

#[test]
fn a_token_makes_an_identity() {
    let files = Files::new(&format!("robot:{T0K}:/live/*:publish\n"));
    let auth = files.load().expect("good files");
    let robot = bearer(&auth, "t0k").expect("it is listed");
    assert_eq!(robot.name(), "robot");
    assert!(!robot.is_anonymous() && !robot.is_ambient());
    assert_eq!(robot.expires(), None);
    assert_eq!(robot.remaining(), None);
    assert_eq!(robot.check(Right::Publish, "/live/x"), Ok(()));
    let refused = robot
        .check(Right::Subscribe, "/live/x")
        .expect_err("no right");
    assert_eq!(refused, Denied::without_right(Right::Subscribe));
    let refused = robot.check(Right::Publish, "/other").expect_err("no right");
    assert_eq!(refused.status, 403);

    let alice = bearer(&auth, jwt()).expect("it is signed");
    assert_eq!(alice.name(), "alice");
    assert!(alice.may(Right::Subscribe, "/live/x"));
    assert!(!alice.may(Right::Publish, "/live/x"));
}

#[test]
fn without_a_token_one_is_anonymous_if_anyone_may_anything() {
    let auth = Files::new(&format!("robot:{T0K}:/live/*:publish\n")).load();
    let denied = asks(&auth.expect("good files"), &[]).expect_err("nobody may");
    assert_eq!(denied, Denied::without_token());

    let auth = Files::new(&format!("{EVERYONE}robot:{T0K}:/live/*:publish\n")).load();
    let auth = auth.expect("good files");
    let guest = asks(&auth, &[]).expect("anyone may something");
    assert_eq!(guest.name(), "guest");
    assert!(guest.is_anonymous() && !guest.is_ambient());
    assert_eq!(guest.check(Right::Subscribe, "/news"), Ok(()));
    let denied = guest.check(Right::Publish, "/news").expect_err("no right");
    assert_eq!(denied, Denied::without_token());
    // Who has a token is someone as well.
    for token in ["t0k", jwt()] {
        let known = bearer(&auth, token).expect("it is good");
        assert!(known.may(Right::Subscribe, "/news"));
        assert!(!known.may(Right::Publish, "/news"));
    }
}

#[test]
fn a_wrong_token_is_refused_even_where_none_is_needed() {
    let files = Files::new(EVERYONE);
    let with_keys = files.load().expect("good files");
    let without = Auth::load(Settings {
        jwt_keys: vec![],
        ..files.settings()
    });
    for auth in [with_keys, without.expect("a good file")] {
        for token in ["t0ken", "a.b.c", "-"] {
            let denied = bearer(&auth, token).expect_err("it is not listed");
            assert_eq!(denied.status, 401);
            let shown = format!("{denied} {:?}", denied.headers());
            assert!(shown.contains("invalid_token"), "{shown}");
            assert!(!shown.contains(token) || token == "-", "{shown}");
        }
    }
}

#[test]
fn keys_alone_will_do() {
    let settings = Settings {
        token_file: None,
        ..Files::new("").settings()
    };
    assert!(Auth::load(settings).is_err(), "the folder is gone");
    let files = Files::new("");
    let auth = Auth::load(Settings {
        token_file: None,
        ..files.settings()
    });
    let auth = auth.expect("good keys");
    assert_eq!(bearer(&auth, jwt()).expect("it is signed").name(), "alice");
    assert_eq!(asks(&auth, &[]).expect_err("none"), Denied::without_token());
}

#[test]
fn a_cookie_is_ambient_unless_the_token_comes_otherwise_too() {
    let auth = Files::new(&format!("robot:{T0K}:*:publish\n")).load();
    let auth = auth.expect("good files");
    let cookie = ("cookie", "access_token=t0k");
    assert!(asks(&auth, &[cookie]).expect("good").is_ambient());
    let header = ("authorization", "Bearer t0k");
    assert!(!asks(&auth, &[cookie, header]).expect("good").is_ambient());
    let other = ("authorization", "Bearer other");
    assert_eq!(asks(&auth, &[cookie, other]).expect_err("two").status, 400);
}

#[test]
fn a_reload_is_for_those_to_come_and_a_broken_file_changes_nothing() {
    let files = Files::new(&format!("robot:{T0K}:/live/*:publish\n"));
    let auth = files.load().expect("good files");
    let before = bearer(&auth, "t0k").expect("it is listed");

    files.write("tokens", &format!("robot:{T0K}:/live/*:publish\nbroken\n"));
    let error = crate::reason::of(&auth.reload().expect_err("a broken file"));
    let expected = format!(
        "cannot use the token file {}: line 2: NAME:SHA256:PATHS:RIGHTS is expected",
        files.path("tokens").display()
    );
    assert_eq!(error, expected);
    assert!(bearer(&auth, "t0k").is_ok());

    files.write("tokens", EVERYONE);
    files.write("keys", "broken");
    assert!(auth.reload().is_err());
    // All or nothing: the other file was good.
    assert!(asks(&auth, &[]).is_err());

    files.write("keys", RSA);
    auth.reload().expect("good files");
    assert!(bearer(&auth, "t0k").is_err());
    assert!(asks(&auth, &[]).is_ok());
    assert!(before.may(Right::Publish, "/live/x"));
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let files = Files::new(EVERYONE);
    fs::write(files.path("binary"), [0xFF]).expect("the folder is ours");
    let error = |name: &str, is_tokens: bool| {
        let path = files.path(name);
        let settings = match is_tokens {
            true => Settings {
                token_file: Some(path),
                ..Settings::default()
            },
            false => Settings {
                jwt_keys: vec![files.path("keys"), path],
                ..Settings::default()
            },
        };
        let error = Auth::load(settings).err().expect("it cannot be used");
        let folder = format!("{}/", files.folder.path().display());
        crate::reason::of(&error).replace(&folder, "")
    };
    for (name, is_tokens, expected) in [
        (
            "none",
            true,
            "cannot use the token file none: no such file or directory",
        ),
        (
            "none",
            false,
            "cannot use the JWT keys none: no such file or directory",
        ),
        ("", true, "cannot use the token file : is a directory"),
        (
            "binary",
            true,
            "cannot use the token file binary: it is not a text in UTF-8",
        ),
        (
            "tokens",
            false,
            "cannot use the JWT keys tokens: it is neither PEM nor a JWK set, and as a secret it is too short: it must have 32 bytes at least (openssl rand -base64 32)",
        ),
    ] {
        assert_eq!(error(name, is_tokens), expected);
    }
}
