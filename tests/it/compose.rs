//! Compose files, those of the scenarios and that of a deployment: what they would run is what the binary takes, and what they name is there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use saphyr::{LoadableYamlNode, Yaml};

use crate::harness::wsevent::output;

/// What the image says for whoever runs it; see the Dockerfile.
pub const IMAGE: &str = "thednp/wsevent:latest";
pub const IMAGE_ENV: [(&str, &str); 1] = [("WSEVENT_SERVE_ADDRESS", "0.0.0.0:8080")];

#[derive(Debug)]
struct Service {
    image: String,
    profiles: Vec<String>,
    command: Vec<String>,
    ports: Vec<String>,
    volumes: Vec<String>,
}

/// What stands under a key; where it does not, under the same key of what `<<` merges in.
fn get<'a>(service: &'a Yaml<'a>, key: &str) -> Option<&'a Yaml<'a>> {
    let merged = || get(service.as_mapping_get("<<")?, key);
    service.as_mapping_get(key).or_else(merged)
}

fn texts(service: &Yaml<'_>, key: &str) -> Vec<String> {
    let Some(list) = get(service, key) else {
        return Vec::new();
    };
    let list = list
        .as_sequence()
        .unwrap_or_else(|| panic!("{key} is a list"));
    let text = |item: &Yaml<'_>| {
        let text = item.as_str();
        text.unwrap_or_else(|| panic!("{item:?} of {key} is a text: it wants quotes"))
            .to_owned()
    };
    list.iter().map(text).collect()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/scenarios")
}

/// The services of all compose files.
fn compose_files() -> BTreeMap<String, BTreeMap<String, Service>> {
    let files = std::fs::read_dir(folder()).expect("there are scenarios");
    let names = files.map(|file| file.expect("it can be read").file_name());
    let names = names.map(|name| name.into_string().expect("a name"));
    let names = names.filter_map(|name| name.strip_suffix(".compose.yaml").map(str::to_owned));
    let file = |name: &str| folder().join(format!("{name}.compose.yaml"));
    names
        .map(|name| (name.clone(), services(&file(&name))))
        .collect()
}

/// The services of a deployment.
fn deployed() -> BTreeMap<String, Service> {
    services(&Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/compose.yaml"))
}

fn services(path: &Path) -> BTreeMap<String, Service> {
    let text = std::fs::read_to_string(path).expect("it can be read");
    let documents =
        Yaml::load_from_str(&text).unwrap_or_else(|wrong| panic!("{}: {wrong}", path.display()));
    let [document] = &documents[..] else {
        panic!("{} is one document", path.display());
    };
    let services = document.as_mapping_get("services");
    let services = services.and_then(Yaml::as_mapping).expect("services");
    let service = |(name, service): (&Yaml<'_>, &Yaml<'_>)| {
        let image = get(service, "image").and_then(Yaml::as_str);
        let service = Service {
            image: image.expect("an image").to_owned(),
            profiles: texts(service, "profiles"),
            command: texts(service, "command"),
            ports: texts(service, "ports"),
            volumes: texts(service, "volumes"),
        };
        (name.as_str().expect("a name").to_owned(), service)
    };
    services.iter().map(service).collect()
}

/// Behind this flag, or none.
fn value<'a>(command: &'a [String], flag: &str) -> Option<&'a str> {
    let at = command.iter().position(|word| word == flag)?;
    command.get(at + 1).map(String::as_str)
}

/// Where a hop with these flags serves its stream.
fn path(command: &[String]) -> String {
    let path = value(command, "--serve")
        .and_then(|url| url.split_once('/').map(|(_, path)| path))
        .or_else(|| value(command, "--serve-path"));
    format!("/{}", path.unwrap_or("events"))
}

/// The machines that a command names, each before a port.
fn hosts(command: &[String]) -> BTreeSet<String> {
    let host = |word: &String| {
        let word = word.split_once("://").map_or(&**word, |(_, rest)| rest);
        let authority = word.split(['/', '?']).next()?;
        let (host, port) = authority.split_once(':')?;
        port.parse::<u16>().is_ok().then(|| host.to_owned())
    };
    let hosts = command.iter().filter_map(host);
    hosts.filter(|host| host != "*").collect()
}

#[tokio::test]
async fn what_a_compose_file_runs_the_binary_takes() {
    let mut commands = 0;
    let mut files = compose_files();
    files.insert("deploy".to_owned(), deployed());
    for (scenario, services) in files {
        for (name, service) in services.iter().filter(|(_, it)| it.image == IMAGE) {
            let command: Vec<_> = service.command.iter().map(String::as_str).collect();
            match command[..] {
                [role @ ("proxy" | "forwarder"), ref flags @ ..] => {
                    let help = output(&[role, "--help"], &[]).await;
                    let help = String::from_utf8(help.stdout).expect("help is text");
                    for flag in flags.iter().filter(|word| word.starts_with("--")) {
                        let is_there = help.contains(&format!(" {flag} "));
                        assert!(is_there, "{scenario}: {name}: {role} has no {flag}");
                    }
                }
                // What it would do, down to the URLs of buses, without doing it.
                _ => {
                    let path = path(&service.command);
                    let args = [&["explain", &path][..], &command].concat();
                    let explained = output(&args, &IMAGE_ENV).await;
                    let error = String::from_utf8_lossy(&explained.stderr);
                    assert!(explained.status.success(), "{scenario}: {name}: {error}");
                }
            }
            commands += 1;
        }
    }
    assert!(commands > 20, "there are {commands} of them only");
}

#[test]
fn the_deployment_names_what_is_there_and_lets_in_whom_it_should() {
    let services = deployed();
    for (name, service) in &services {
        assert_eq!(service.image, IMAGE, "{name}");
        for host in hosts(&service.command) {
            assert!(services.contains_key(&host), "{name} names {host}");
        }
        let publishes = service.command.iter().any(|it| it == "--insecure-publish");
        assert!(
            !publishes || service.ports.is_empty(),
            "{name} is guarded by nobody"
        );
        for port in &service.ports {
            assert!(port.starts_with("127.0.0.1:"), "{name} is for all: {port}");
        }
    }
    assert_eq!(services.len(), 4);
}

#[test]
fn what_a_compose_file_names_is_there() {
    for (scenario, services) in compose_files() {
        let page = folder().join(format!("{scenario}.md"));
        let page = std::fs::read_to_string(page).expect("a scenario of that name");
        assert!(
            page.contains(&format!("{scenario}.compose.yaml")),
            "{scenario}.md"
        );
        let profiles: BTreeSet<_> = services.values().flat_map(|it| &it.profiles).collect();
        for profile in profiles {
            assert!(
                page.contains(&format!("--profile {profile}")),
                "{scenario}: {profile}"
            );
            let running = services
                .iter()
                .filter(|(_, service)| service.profiles.contains(profile));
            let running: BTreeMap<_, _> = running.collect();
            let mut taken = BTreeSet::new();
            for (name, service) in &running {
                for host in hosts(&service.command) {
                    assert!(
                        running.contains_key(&host),
                        "{scenario}: {name} names {host}"
                    );
                }
                for port in &service.ports {
                    assert!(
                        port.starts_with("127.0.0.1:"),
                        "{scenario}: {name} is for all: {port}"
                    );
                    assert!(
                        taken.insert(port.split(':').nth(1)),
                        "{scenario}: {port} is taken"
                    );
                }
                for volume in service.volumes.iter().filter(|it| it.starts_with("./")) {
                    let file = volume.split(':').next().expect("a file");
                    assert!(folder().join(file).exists(), "{scenario}: {file}");
                }
            }
        }
    }
}
