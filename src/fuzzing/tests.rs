//! All seeds through all bodies, and what is nearly like them; and that each target has what belongs to it.

use std::collections::BTreeSet;
use std::fs;
use std::panic;
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

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

/// What inputs are often about: other lengths, kinds and ends.
const TELLING: [&[u8]; 12] = [
    b"\0",
    b"\n",
    b"\r\n",
    b"\xff",
    b"\x7f",
    b"%",
    b"\"",
    b"{",
    b",",
    b"0",
    b"18446744073709551615",
    b"\xc3",
];

/// An input that is nearly this one.
fn mangled(input: &[u8], random: &mut StdRng) -> Vec<u8> {
    let mut mangled = input.to_vec();
    for _ in 0..random.random_range(1..5) {
        let at = random.random_range(0..=mangled.len());
        let end = (at + random.random_range(1..9)).min(mangled.len());
        match random.random_range(0..6) {
            0 if at < mangled.len() => mangled[at] ^= 1 << random.random_range(0..8),
            1 if at < mangled.len() => mangled[at] = random.random(),
            2 => drop(mangled.drain(at..end)),
            3 => {
                let again = mangled[at..end].to_vec();
                mangled.splice(at..at, again);
            }
            4 => mangled.truncate(at),
            _ => {
                let telling = TELLING[random.random_range(0..TELLING.len())];
                mangled.splice(at..at, telling.iter().copied());
            }
        }
    }
    mangled
}

/// Each input that is kept; where `cuts` says so, each beginning of it; and so many that are nearly the same, or as many times that as
/// the variable `WSEVENT_FUZZ_TIMES` says.
fn run(target: &str, cuts: bool, rounds: usize) {
    let times = std::env::var("WSEVENT_FUZZ_TIMES");
    let times: usize = times.map_or(1, |times| times.parse().expect("a number"));
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
        for round in 0..rounds * times {
            let mangled = mangled(&input, &mut StdRng::seed_from_u64(round as u64));
            let result = panic::catch_unwind(|| body(&mangled));
            if let Err(panic) = result {
                eprintln!("in round {round}: {}", mangled.escape_ascii());
                panic::resume_unwind(panic);
            }
        }
    }
}

macro_rules! seeds {
    ($($target:ident $cuts:literal $rounds:literal),* $(,)?) => {
        $(
            #[test]
            fn $target() {
                run(stringify!($target), $cuts, $rounds);
            }
        )*

        #[cfg(feature = "zeromq")]
        const TESTED: &[&str] = &[$(stringify!($target)),*];
    };
}

seeds! {
    client_frames true 200,
    config false 2,
    figure true 200,
    hop_messages true 200,
    // Each is a server of its own.
    http false 2,
    jwt true 200,
    ndjson true 200,
    paths true 200,
    proxy_header false 20,
    proxy_requests true 200,
    proxy_tunnel true 200,
    published true 200,
    recording true 200,
    sse true 200,
    token_file true 200,
    topology true 200,
}

#[cfg(feature = "zeromq")]
#[test]
fn zmtp() {
    run("zmtp", true, 200);
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
