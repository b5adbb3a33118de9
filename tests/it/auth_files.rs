//! The files that say who may what: a broken one is said in one line, which shows nothing that may be secret, before anything is served.

use std::fs;

use tempfile::TempDir;

use crate::harness::wsevent::output;

const HASH: &str = "98e4e27695754ae0d421e3a5a48b69d8fab2b3af4383a5c318201f8a92eb9fd0";

/// Runs wsevent with a file, which it must find fault with; what it says, with FILE for the path.
async fn usage_error(flag: &str, content: &[u8]) -> String {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = write(&folder, content);
    refused(&[flag, &path]).await.replace(&path, "FILE")
}

fn write(folder: &TempDir, content: &[u8]) -> String {
    let path = folder.path().join("file");
    fs::write(&path, content).expect("the folder is ours");
    path.to_str().expect("it is text").to_owned()
}

/// The first line of what it says, without "error: ".
async fn refused(args: &[&str]) -> String {
    let args = [args, &["--serve-address", "localhost:0"]].concat();
    let output = output(&args, &[]).await;
    let stderr = String::from_utf8(output.stderr).expect("it is text");
    assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
    assert!(!stderr.contains("s3cret"), "{stderr}");
    assert!(!stderr.contains(HASH), "{stderr}");
    let first = stderr.lines().next().unwrap_or_default();
    let error = first.strip_prefix("error: ");
    error.unwrap_or_else(|| panic!("{stderr}")).to_owned()
}

#[tokio::test]
async fn a_broken_token_file_is_a_usage_error() {
    for (content, expected) in [
        (
            format!("# ours\nalice:{HASH}:/live/*:subscribe\nbob:{HASH}\n"),
            "line 3: NAME:SHA256:PATHS:RIGHTS is expected",
        ),
        (
            "alice:s3cret:/live/*:subscribe\n".to_owned(),
            "line 1: the SHA-256 of the token is expected behind the name, as 64 hex digits (printf %s \"$token\" | sha256sum), or - for everyone",
        ),
        (
            format!("alice:{HASH}:/live/*:everything\n"),
            "line 1: the rights: subscribe, publish or subscribe,publish is expected",
        ),
        (String::new(), "there is no token in it"),
    ] {
        let error = usage_error("--auth-token-file", content.as_bytes()).await;
        assert_eq!(error, format!("cannot use the token file FILE: {expected}"));
    }
}

#[tokio::test]
async fn broken_keys_are_a_usage_error() {
    for (content, expected) in [
        (
            &b"s3cret"[..],
            "it is neither PEM nor a JWK set, and as a secret it is too short: it must have 32 bytes at least (openssl rand -base64 32)",
        ),
        (
            b"{\"keys\":\"s3cret\"}",
            "it is JSON, but no JWK set ({\"keys\":[\u{2026}]} is expected)",
        ),
        (
            b"-----BEGIN PUBLIC KEY-----\ns3cret\n",
            "it begins like PEM, and is none",
        ),
        (b"", "there is no key in it"),
    ] {
        let error = usage_error("--jwt-keys", content).await;
        assert_eq!(error, format!("cannot use the JWT keys FILE: {expected}"));
    }
}

#[tokio::test]
async fn a_missing_file_is_a_usage_error_and_so_is_a_flag_without_keys() {
    for (args, expected) in [
        (
            ["--auth-token-file", "/nowhere/tokens"],
            "cannot use the token file /nowhere/tokens: no such file or directory",
        ),
        (
            ["--jwt-keys", "/nowhere/keys"],
            "cannot use the JWT keys /nowhere/keys: no such file or directory",
        ),
        (
            ["--jwt-audience", "wsevent"],
            "--jwt-audience says which JWTs to take, but no key checks any: add --jwt-keys FILE",
        ),
        (
            ["--jwt-issuer", "https://login.example"],
            "--jwt-issuer says which JWTs to take, but no key checks any: add --jwt-keys FILE",
        ),
    ] {
        assert_eq!(refused(&args).await, expected);
    }
}

#[tokio::test]
async fn several_files_of_keys_stand_in_a_variable_on_a_line_each() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let good = write(&folder, &[b'k'; 32]);
    let files = format!("{good}\n/nowhere/keys");
    let output = output(&[], &[("WSEVENT_JWT_KEYS", &files)]).await;
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8(output.stderr).expect("it is text");
    assert!(
        stderr.contains("JWT keys /nowhere/keys: no such"),
        "{stderr}"
    );
}
