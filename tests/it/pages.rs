//! `wsevent completions` and `wsevent man`: what they print works where it is used.

use std::fs::{self, File};
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::harness::within_guard;
use crate::harness::wsevent::{command, output};

async fn printed(args: &[&str]) -> String {
    let output = output(args, &[]).await;
    assert!(output.status.success(), "{args:?}: {output:?}");
    assert!(output.stderr.is_empty(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// What bash offers for a line whose last word is begun.
async fn offered(line: &[&str]) -> String {
    let script = printed(&["completions", "bash"]).await;
    let words: Vec<_> = line.iter().map(|word| format!("'{word}'")).collect();
    let asking = format!(
        "\nCOMP_WORDS=({})\nCOMP_CWORD={}\n\
         complete -p wsevent >/dev/null || exit 1\n\
         _wsevent wsevent \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"\n\
         printf '%s\\n' \"${{COMPREPLY[@]}}\"\n",
        words.join(" "),
        line.len() - 1
    );
    let mut bash = Command::new("bash")
        .args(["--norc", "--noprofile", "-s"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("there is bash");
    let mut input = bash.stdin.take().expect("it is a pipe");
    let text = script + &asking;
    input.write_all(text.as_bytes()).await.expect("it reads");
    drop(input);
    let output = within_guard("bash", bash.wait_with_output()).await;
    let output = output.expect("it runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && error.is_empty(),
        "{line:?}: {error}"
    );
    String::from_utf8(output.stdout).expect("text")
}

#[tokio::test]
async fn bash_completes_subcommands_flags_and_their_values() {
    for (line, expected) in [
        (&["wsevent", "rec"][..], &["record"][..]),
        (&["wsevent", "--consume-h"], &["--consume-header"]),
        (&["wsevent", "replay", "--sp"], &["--speed"]),
        (&["wsevent", "tail", "--transport", "nd"], &["ndjson"]),
        (&["wsevent", "--log-format", ""], &["human", "json"]),
        (
            &["wsevent", "--overload", ""],
            &["disconnect", "skip", "conflate"],
        ),
        (&["wsevent", "--bus-envelope", "al"], &["always"]),
        (&["wsevent", "completions", "z"], &["zsh"]),
    ] {
        let offered = offered(line).await;
        assert_eq!(offered.lines().collect::<Vec<_>>(), expected, "{line:?}");
    }
}

#[tokio::test]
async fn zsh_and_fish_get_all_flags_too() {
    let flags = ["serve-address", "keep-ids", "sync-after"];
    let zsh = printed(&["completions", "zsh"]).await;
    assert!(zsh.starts_with("#compdef wsevent\n"), "{zsh}");
    let fish = printed(&["completions", "fish"]).await;
    assert!(fish.contains("complete -c wsevent"), "{fish}");
    for flag in flags {
        assert!(zsh.contains(&format!("--{flag}")), "{flag}");
        assert!(fish.contains(&format!("-l {flag} ")), "{flag}");
    }
}

/// A page as a person sees it, if there is something here that shows it.
async fn shown(page: &str) -> Option<String> {
    for (program, args) in [
        ("mandoc", &["-T", "utf8"][..]),
        ("groff", &["-man", "-Tutf8", "-ww", "-P-cbou"]),
    ] {
        let started = Command::new(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let Ok(mut showing) = started else { continue };
        let mut input = showing.stdin.take().expect("it is a pipe");
        let page = page.as_bytes().to_vec();
        let writing = tokio::spawn(async move { input.write_all(&page).await });
        let output = within_guard(program, showing.wait_with_output()).await;
        let output = output.expect("it runs");
        writing.await.expect("no panic").expect("it reads");
        assert!(output.status.success(), "{program}: {output:?}");
        return Some(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    None
}

#[tokio::test]
async fn a_page_is_one_for_those_who_show_it() {
    for (args, name, flag) in [
        (&["man"][..], "wsevent", "consume"),
        (&["man", "tail"], "wsevent-tail", "timestamps"),
        (&["man", "replay"], "wsevent-replay", "keep"),
    ] {
        let page = printed(args).await;
        assert!(page.contains(&format!(".TH {name} 1")), "{page}");
        for section in [".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION", ".SH OPTIONS"] {
            assert!(page.contains(section), "{args:?} has no {section}");
        }
        assert!(page.contains(flag), "{args:?}");
        if let Some(shown) = shown(&page).await {
            assert!(
                shown.contains("SYNOPSIS") && shown.contains(flag),
                "{shown}"
            );
        }
    }
}

#[tokio::test]
async fn all_pages_go_into_a_folder() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let man = folder.path().join("share/man1");
    let path = man.to_str().expect("it is plain");
    assert_eq!(printed(&["man", "--dir", path]).await, "");
    let names = fs::read_dir(&man).expect("it is made");
    let names = names.map(|file| file.expect("it can be read").file_name());
    let mut names: Vec<_> = names
        .map(|name| name.into_string().expect("text"))
        .collect();
    names.sort();
    // Each subcommand that help names has one.
    let help = printed(&["--help"]).await;
    let (_, commands) = help.split_once("Commands:\n").expect("it names them");
    let commands = commands.lines().take_while(|line| line.starts_with("  "));
    let commands = commands.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let commands = commands.filter(|command| !command.is_empty() && *command != "help");
    let mut expected: Vec<_> = commands.map(|it| format!("wsevent-{it}.1")).collect();
    expected.push("wsevent.1".to_owned());
    expected.sort();
    assert_eq!(names, expected);
    assert!(names.len() > 10, "{names:?}");
    let page = fs::read_to_string(man.join("wsevent-record.1")).expect("it is there");
    assert_eq!(page, printed(&["man", "record"]).await);
}

#[tokio::test]
async fn what_there_is_no_page_of_is_said() {
    let refused = output(&["man", "nothing"], &[]).await;
    let error = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        error.contains("there is no subcommand 'nothing': there are tail, publish"),
        "{error}"
    );
    let refused = output(&["completions", "tcsh"], &[]).await;
    assert_eq!(refused.status.code(), Some(2));
    // Who does not want to know all is told nothing any more.
    let mut closed = command(&["man"]);
    closed.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = closed.spawn().expect("it runs");
    drop(child.stdout.take());
    let output = within_guard("its end", child.wait_with_output()).await;
    assert!(output.expect("it runs").stderr.is_empty());
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_cannot_be_printed_is_an_error() {
    for args in [
        &["man"][..],
        &["doctor", "--serve-address", "localhost:0"],
        &["explain", "/events"],
        &["check", "docs/wsevent.toml"],
    ] {
        let full = File::create("/dev/full").expect("Linux has it");
        let mut printing = command(args);
        printing.stdout(full).stderr(Stdio::piped());
        let printing = printing.spawn().expect("it runs");
        let ended = within_guard("the end", printing.wait_with_output()).await;
        let ended = ended.expect("it runs");
        let error = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(1), "{args:?}: {error}");
        assert_eq!(
            error, "wsevent: cannot write to standard output: no space left on device\n",
            "{args:?}"
        );
    }
}
