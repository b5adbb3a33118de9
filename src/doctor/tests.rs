use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use super::certificate::Validity;
use super::kernel::Settings;
use super::room::{Kept, cpu, folders, memory, quota, total_memory};
use super::*;
use crate::process::Process;

fn levels(findings: &[Finding]) -> Vec<Level> {
    findings.iter().map(|finding| finding.level).collect()
}

/// The worst of them.
fn worst(findings: &[Finding]) -> &Finding {
    let worst = findings.iter().max_by_key(|finding| finding.level as u8);
    worst.expect("there is something to say")
}

#[test]
fn a_finding_is_a_line() {
    let fine = Finding::ok("clock", "it is right");
    assert_eq!(fine.to_string(), "ok       clock    it is right");
    let wrong = Finding::problem("port", "it is in use", "take another");
    assert_eq!(
        wrong.to_string(),
        "problem  port     it is in use: take another"
    );
}

#[test]
fn as_many_as_there_are_numbers_are_too_many() {
    let most = Some(u64::MAX);
    let limits = files::Limits {
        soft: Some(1_024),
        hard: Some(20_000),
        per_process: Some(1 << 20),
        in_all: Some(1 << 22),
    };
    let settings = Settings {
        ports: Some([1, u64::MAX]),
        memory: Some(1 << 30),
        tracked: Some([u64::MAX, 1]),
        ..Settings::default()
    };
    let route = Kept {
        path: "/a".to_owned(),
        bytes: u64::MAX,
        streams: None,
    };
    assert_eq!(worst(&files::judge(&limits, most)).level, Level::Problem);
    assert_eq!(worst(&kernel::judge(&settings, most)).level, Level::Warning);
    let findings = memory(&[route], u64::MAX, Some(1 << 30), None);
    assert_eq!(worst(&findings).level, Level::Problem);
}

#[test]
fn files_are_held_against_connections() {
    let limits = |hard| files::Limits {
        soft: Some(1_024),
        hard,
        per_process: Some(1 << 20),
        in_all: Some(1 << 22),
    };
    assert_eq!(
        levels(&files::judge(&limits(Some(20_000)), None)),
        [Level::Ok]
    );
    assert_eq!(
        levels(&files::judge(&limits(None), Some(1_000_000))),
        [Level::Ok]
    );
    assert_eq!(
        levels(&files::judge(&limits(Some(1_024)), None)),
        [Level::Warning]
    );
    let findings = files::judge(&limits(Some(20_000)), Some(20_000));
    assert_eq!(levels(&findings), [Level::Problem]);
    let line = findings[0].to_string();
    assert!(line.contains("LimitNOFILE=20400"), "{line}");
    let many = files::judge(&limits(None), Some(5_000_000));
    assert_eq!(levels(&many), [Level::Ok, Level::Problem, Level::Problem]);
    assert!(many[1].to_string().contains("sysctl -w fs.nr_open="));
}

#[test]
fn who_has_a_port_is_named() {
    let address: SocketAddr = "127.0.0.1:8080".parse().expect("an address");
    let judge =
        |tried, holders: &[Process], takes_over| port::judge(address, &tried, holders, takes_over);
    let failed = |kind| Err((kind, "a reason".to_owned()));
    let holder = |name: &str| Process {
        pid: 7,
        name: name.to_owned(),
    };
    assert_eq!(judge(Ok(()), &[], false).level, Level::Ok);
    let nginx = judge(failed(ErrorKind::AddrInUse), &[holder("nginx")], true);
    assert_eq!(nginx.level, Level::Problem);
    assert!(nginx.what.contains("nginx (pid 7)"), "{nginx}");
    let own = judge(failed(ErrorKind::AddrInUse), &[holder("wsevent")], false);
    assert_eq!(own.level, Level::Problem);
    assert!(own.advice.expect("advice").contains("--takeover"));
    let taken_over = judge(failed(ErrorKind::AddrInUse), &[holder("wsevent")], true);
    assert_eq!(taken_over.level, Level::Ok);
    for kind in [
        ErrorKind::AddrInUse,
        ErrorKind::PermissionDenied,
        ErrorKind::AddrNotAvailable,
        ErrorKind::Other,
    ] {
        let finding = judge(failed(kind), &[], false);
        assert_eq!(finding.level, Level::Problem);
        assert!(finding.advice.is_some(), "{finding}");
    }
    assert_eq!(port::exposure("localhost:80", false, false), None);
    assert_eq!(port::exposure("[::1]:80", false, false), None);
    assert_eq!(port::exposure("0.0.0.0:80", true, true), None);
    for (tls, guarded) in [(false, false), (true, false), (false, true)] {
        let finding = port::exposure("0.0.0.0:80", tls, guarded).expect("a finding");
        assert_eq!(finding.level, Level::Warning);
    }
}

#[test]
fn settings_of_the_kernel_are_held_against_what_many_connections_need() {
    let good = Settings {
        accept_queue: Some(4_096),
        syn_queue: Some(4_096),
        ports: Some([32_768, 60_999]),
        send_buffer: Some(4 << 20),
        receive_buffer: Some(6 << 20),
        memory: Some(1 << 33),
        tracked: Some([262_144, 10]),
    };
    assert_eq!(worst(&kernel::judge(&good, Some(50_000))).level, Level::Ok);
    let bad = [
        Settings {
            accept_queue: Some(128),
            ..good.clone()
        },
        Settings {
            syn_queue: Some(128),
            ..good.clone()
        },
        Settings {
            ports: Some([60_000, 60_999]),
            ..good.clone()
        },
        Settings {
            send_buffer: Some(65_536),
            ..good.clone()
        },
        Settings {
            receive_buffer: Some(65_536),
            ..good.clone()
        },
        Settings {
            memory: Some(1 << 20),
            ..good.clone()
        },
        Settings {
            tracked: Some([262_144, 250_000]),
            ..good.clone()
        },
        Settings {
            tracked: Some([20_000, 10]),
            ..good.clone()
        },
    ];
    for settings in bad {
        let findings = kernel::judge(&settings, Some(50_000));
        let finding = worst(&findings);
        assert_eq!(finding.level, Level::Warning, "{settings:?}");
        assert!(
            finding
                .advice
                .as_deref()
                .is_some_and(|advice| advice.starts_with("sysctl -w ")),
            "{finding}"
        );
    }
    let unknown = kernel::judge(&Settings::default(), None);
    assert_eq!(levels(&unknown), [Level::Skipped; 2]);
}

#[test]
fn a_clock_that_cannot_be_right_is_a_problem() {
    assert_eq!(
        clock::judge(Duration::from_secs(1), true).level,
        Level::Problem
    );
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    assert_eq!(clock::judge(now, true).level, Level::Ok);
    assert_eq!(clock::judge(now, false).level, Level::Skipped);
    let at = |seconds: u64| UNIX_EPOCH + Duration::from_secs(seconds);
    assert_eq!(clock::skew("x", at(100), at(100), at(101)).level, Level::Ok);
    let ahead = clock::skew("x", at(160), at(100), at(100));
    assert_eq!(ahead.level, Level::Warning);
    assert!(
        ahead.what.contains("60 s ahead of") || ahead.what.contains("61 s ahead of"),
        "{ahead}"
    );
    assert!(
        clock::skew("x", at(40), at(100), at(100))
            .what
            .contains("behind")
    );
    let slow = clock::skew("x", at(108), at(100), at(116));
    assert_eq!(slow.level, Level::Ok, "nobody knows when it was said");
}

#[test]
fn what_is_kept_must_fit_into_memory() {
    let route = |bytes, streams| Kept {
        path: "/events".into(),
        bytes,
        streams,
    };
    let gib = 1 << 30;
    let judge = |routes: &[Kept], limit| memory(routes, 0, Some(8 * gib), limit);
    assert_eq!(levels(&judge(&[route(16 << 20, None)], None)), [Level::Ok]);
    assert_eq!(
        levels(&judge(&[route(5 * gib, None)], None)),
        [Level::Problem]
    );
    assert_eq!(
        levels(&judge(&[route(gib, None)], Some(gib))),
        [Level::Problem]
    );
    assert_eq!(
        levels(&judge(&[route(gib, None)], Some(5 * gib / 2))),
        [Level::Warning]
    );
    let many = judge(&[route(16 << 20, Some(10_000))], None);
    assert_eq!(levels(&many), [Level::Ok, Level::Warning]);
    assert!(
        many[1].to_string().contains("--max-streams 192"),
        "{}",
        many[1]
    );
    assert_eq!(
        levels(&memory(&[], 10_000_000, Some(gib), None)),
        [Level::Problem]
    );
    assert_eq!(levels(&memory(&[], 0, None, None)), [Level::Skipped]);
    assert_eq!(
        total_memory("MemTotal:       16 kB\nMemFree: 1 kB"),
        Some(16 << 10)
    );
    assert_eq!(total_memory("nothing"), None);
}

#[test]
fn threads_are_held_against_the_quota() {
    assert_eq!(quota("max 100000\n"), None);
    assert_eq!(quota("-1 100000"), None);
    assert_eq!(quota("150000 100000"), Some(1.5));
    assert_eq!(quota(""), None);
    assert_eq!(cpu(8, None).level, Level::Ok);
    assert_eq!(cpu(2, Some(1.5)).level, Level::Ok);
    let throttled = cpu(8, Some(1.5));
    assert_eq!(throttled.level, Level::Warning);
    assert!(
        throttled
            .advice
            .expect("advice")
            .contains("TOKIO_WORKER_THREADS=2")
    );
    let folders = |own| -> Vec<_> {
        let folders = folders(own).into_iter();
        folders.map(|folder| folder.display().to_string()).collect()
    };
    assert_eq!(
        folders("0::/a/b\n"),
        ["/sys/fs/cgroup/a/b", "/sys/fs/cgroup/a", "/sys/fs/cgroup"]
    );
    assert_eq!(
        folders("4:memory:/a\n3:cpu,cpuacct:/\n2:pids:/a\nnonsense"),
        [
            "/sys/fs/cgroup/memory/a",
            "/sys/fs/cgroup/memory",
            "/sys/fs/cgroup/cpu,cpuacct"
        ]
    );
}

#[test]
fn certificates_say_how_long_they_hold() {
    let mut params = CertificateParams::new(["localhost".to_owned()]).expect("good names");
    params.not_before = date_time_ymd(2020, 1, 1);
    // From 2050 on a time has another form.
    for (year, form) in [(2030, "with two digits"), (2060, "with four")] {
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        let validity = Validity::of(certificate.der()).expect(form);
        let year = |time| humantime::format_rfc3339_seconds(time).to_string();
        assert_eq!(year(validity.from), "2020-01-01T00:00:00Z");
        assert!(year(validity.until).ends_with("-01-01T00:00:00Z"), "{form}");
        let day = Duration::from_secs(24 * 60 * 60);
        let judge = |now| certificate::judge("x", Some(validity), now, "renew it").level;
        assert_eq!(judge(validity.from - day), Level::Problem);
        assert_eq!(judge(validity.from), Level::Ok);
        assert_eq!(judge(validity.until - day * 20), Level::Warning);
        assert_eq!(judge(validity.until + day), Level::Problem);
        for cut in [0, 1, 10, 60] {
            assert_eq!(Validity::of(&certificate.der()[..cut]), None);
        }
    }
    let none = certificate::judge("x", None, SystemTime::now(), "renew it");
    assert_eq!(none.level, Level::Problem);
}
