//! All seeds through all bodies, and that each target has what belongs to it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Body, TARGETS};

/// What is longer is not cut everywhere.
const LONGEST_CUT: usize = 300;

fn fuzz(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz")
        .join(folder)
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries =
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries
        .map(|entry| {
            entry
                .expect("it can be read")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect()
}

/// Each input that is kept, and, where `cuts` says so, each beginning of it.
fn run(target: &str, cuts: bool) {
    let body: Body = TARGETS
        .iter()
        .find(|(name, _)| *name == target)
        .map(|(_, body)| *body)
        .expect("a target");
    let folder = fuzz("seeds").join(target);
    let seeds = names(&folder);
    assert!(!seeds.is_empty(), "there is none for {target}");
    for name in seeds {
        let input = fs::read(folder.join(&name)).expect("it can be read");
        // The name of the seed that fails is the last thing that is said.
        eprintln!("{target}/{name}");
        body(&input);
        if cuts && input.len() <= LONGEST_CUT {
            (0..input.len()).for_each(|end| body(&input[..end]));
        }
    }
}

macro_rules! seeds {
    ($($target:ident $cuts:literal),* $(,)?) => {
        $(
            #[test]
            fn $target() {
                run(stringify!($target), $cuts);
            }
        )*

        const TESTED: &[&str] = &[$(stringify!($target)),*];
    };
}

seeds! {
    client_frames true,
    config false,
    figure true,
    hop_messages true,
    // Each is a server of its own.
    http false,
    jwt true,
    ndjson true,
    paths true,
    proxy_header false,
    proxy_requests true,
    proxy_tunnel true,
    published true,
    sse true,
    token_file true,
    topology true,
}

#[cfg(feature = "zeromq")]
#[test]
fn zmtp() {
    run("zmtp", true);
}

#[cfg(feature = "zeromq")]
#[test]
fn each_target_has_a_body_a_binary_seeds_and_a_test() {
    let targets: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let tested = TESTED.iter().chain(&["zmtp"]);
    assert_eq!(
        tested
            .map(|name| (*name).to_owned())
            .collect::<BTreeSet<_>>(),
        targets
    );
    let binaries = names(&fuzz("fuzz_targets"));
    let binaries: BTreeSet<_> = binaries
        .iter()
        .filter_map(|name| name.strip_suffix(".rs"))
        .map(str::to_owned)
        .collect();
    assert_eq!(binaries, targets);
    assert_eq!(names(&fuzz("seeds")), targets);
    let manifest = fs::read_to_string(fuzz("Cargo.toml")).expect("it is there");
    for target in &targets {
        assert!(
            manifest.contains(&format!("\nname = \"{target}\"\n")),
            "{target}"
        );
    }
}
