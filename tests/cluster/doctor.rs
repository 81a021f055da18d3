//! `pmd doctor` finds real faults and names the remedy.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::failures::FAKETIME;
use crate::fleet::cell::mortal;
use crate::harness::program::{Program, run};
use crate::harness::wait_until;
use crate::machine::Said;
use crate::world::{OTHER_COOKIE, World};

/// The findings and exit code of `pmd doctor ARGS` on a host.
fn doctor(world: &World, host: usize, args: &[&str]) -> Examined {
    Examined(world.run(host, &[&["doctor", "--json"], args].concat()))
}

#[derive(Debug)]
struct Examined(Said);

impl Examined {
    /// The verdict of a check, and its two sentences.
    fn of(&self, check: &str) -> (String, String) {
        let report = self.0.json();
        let findings = report["findings"].as_array().expect("findings");
        let finding = findings.iter().find(|finding| finding["check"] == check);
        let finding = finding.unwrap_or_else(|| panic!("nothing about {check}: {report:#}"));
        let text = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
        (text("verdict"), text("what") + " -> " + &text("remedy"))
    }

    /// The texts of all findings of a check.
    fn all_of(&self, check: &str) -> Vec<String> {
        let report = self.0.json();
        let findings = report["findings"].as_array().expect("findings").iter();
        findings
            .filter(|finding| finding["check"] == check)
            .map(|finding| {
                let text = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
                text("what") + " -> " + &text("remedy")
            })
            .collect()
    }

    /// Fails the test if there is any finding of a check.
    #[track_caller]
    fn lacks(&self, check: &str) {
        assert!(self.all_of(check).is_empty(), "{check}: {self:#?}");
    }

    /// Fails the test unless the check has this verdict and its text contains these words.
    #[track_caller]
    fn shows(&self, check: &str, verdict: &str, words: &[&str]) -> &Examined {
        let (seen, text) = self.of(check);
        assert!(seen == verdict && words.iter().all(|word| text.contains(word)), "{check}: {seen}: {text}");
        // A failed check must also show in the exit code; other verdicts do not affect it.
        if verdict == "fail" {
            assert_eq!((self.0.code, &self.0.json()["verdict"]), (8, &Value::from("fail")));
        }
        self
    }
}

#[test]
fn a_working_cluster_passes_all_checks() {
    let world = World::joined(2);
    let said = doctor(&world, 0, &[]).0.ended_with(0);
    let report = said.json();
    assert_eq!(report["verdict"], "pass", "{report:#}");
    assert!(report["findings"].as_array().is_some_and(|findings| findings.len() >= 10), "{report:#}");
    let text = world.run(0, &["doctor"]).ended_with(0).stdout;
    assert!(text.lines().all(|line| line.starts_with("ok    ")), "{text}");
    // Dialling the other daemon leaves no warning in its log.
    assert!(!world[1].log().contains("WARN"), "{}", world[1].log());
}

#[test]
fn port_is_free_or_held_by_stock_epmd() {
    let world = World::new(1);
    doctor(&world, 0, &[]).shows("port", "fail", &["nothing is listening on port 4369", "pmd start"]).shows(
        "peers",
        "warn",
        &["no daemon answers"],
    );
    let mut epmd = mortal("epmd");
    epmd.env_remove("ERL_EPMD_PORT").env_remove("ERL_EPMD_ADDRESS");
    let _epmd = world.site(0).cell.run(move || Program::spawn(epmd));
    world.site(0).cell.run(|| {
        wait_until("epmd", || std::net::TcpStream::connect(("127.0.0.1", 4369)).is_ok());
    });
    doctor(&world, 0, &[]).shows("port", "fail", &["another port mapper", "epmd", "pmd takeover"]).shows(
        "other epmd",
        "fail",
        &["pmd takeover"],
    );
    let said = world.run(0, &["doctor"]).ended_with(8);
    assert!(said.stdout.contains("\nFAIL  other epmd") && said.stdout.contains("-> replace it"), "{said:#?}");
}

#[test]
fn cookie_is_readable_by_others_or_guessable() {
    use std::os::unix::fs::PermissionsExt;

    let world = World::started(1);
    let cookie = world[0].file("cookie");
    std::fs::set_permissions(&cookie, std::fs::Permissions::from_mode(0o644)).expect("changing the file");
    let remedy = format!("chmod 600 {}", cookie.display());
    doctor(&world, 0, &[]).shows("cookie file", "fail", &["mode 0644", &remedy]);
    world[0].set_cookies(&["short"]);
    doctor(&world, 0, &[]).shows("cookie file", "fail", &["can be guessed", "pmd cookie rotate"]);
    world[0].set_cookies(&["the-cookie-of-yesterday", "the-cookie-of-tomorrow"]);
    doctor(&world, 0, &[]).shows("cookie file", "warn", &["two cluster secrets", "--finish"]);
    std::fs::remove_file(&cookie).expect("changing the file");
    doctor(&world, 0, &[]).shows("cookie file", "warn", &["does not exist", "copy it"]);
}

#[test]
fn a_guessable_secret_is_a_warning_where_beacons_are_sent() {
    const GUESSABLE: &str = "the-cookie-of-somebody";
    let mut world = World::new(2);
    for host in [0, 1] {
        world[host].set_cookies(&[GUESSABLE]);
    }
    world[0].configure("discovery = [\"broadcast\"]\n");
    world.start_all();
    // Both derive the same key, slowly.
    world.run(1, &["join", "h1"]).ended_with(0);
    world.wait_until_agreed(&[0, 1]);
    let warnings = |world: &World, host: usize| {
        let warnings = world.block_on(world[host].api().status()).expect("a status").warnings;
        warnings.into_iter().filter(|warning| warning.contains("guess the cluster secret")).count()
    };
    let logged = |world: &World, host: usize| world[host].log().matches("guess the cluster secret").count();
    assert_eq!((warnings(&world, 0), logged(&world, 0)), (1, 1));
    assert_eq!((warnings(&world, 1), logged(&world, 1)), (0, 0));
    doctor(&world, 0, &[]).shows("cookie file", "warn", &["beacons", "guess", "pmd cookie rotate"]);
    doctor(&world, 1, &[]).shows("cookie file", "pass", &[]);
    // Once the current secret is a generated one, the beacons give nothing away.
    world.run(0, &["cookie", "rotate"]).ended_with(0);
    assert_eq!((warnings(&world, 0), logged(&world, 0)), (0, 1));
}

#[test]
fn both_hosts_report_a_cookie_mismatch() {
    let mut world = World::new(2);
    world[1].set_cookies(&[OTHER_COOKIE]);
    world.start_all();
    doctor(&world, 0, &[]).shows("refused daemons", "pass", &[]);
    for _ in 0..2 {
        world.run(1, &["join", "h1"]).ended_with(5);
    }
    doctor(&world, 0, &[]).shows(
        "refused daemons",
        "warn",
        &["10.77.0.2 was rejected 2 times, the last time ", "cookie mismatch", "pmd reload there"],
    );
    doctor(&world, 1, &[]).shows(
        "refused daemons",
        "warn",
        &["to 10.77.0.1 failed", "cookie mismatch", "pmd doctor on that host"],
    );
    let list = world.block_on(world[0].api().refusals()).expect("a response");
    // Once for each of the name's two addresses.
    assert_eq!(list.refusals.len(), 2, "{list:?}");
    for one in &list.refusals {
        assert_eq!((one.dialled, one.reason.as_str(), one.count), (false, "cookie", 2), "{list:?}");
    }
    let file = world[0].file("report.tar.gz").display().to_string();
    let said = world.run(0, &["debug", &file, "--json"]).ended_with(0);
    assert!(said.stdout.contains("\"refusals.json\""), "{said:#?}");
}

#[test]
fn the_host_that_rejects_another_cluster_name_reports_it() {
    let mut world = World::new(2);
    world[1].configure("cluster = \"other\"\n");
    world.start_all();
    world.run(1, &["join", "h1"]).ended_with(5);
    doctor(&world, 0, &[]).shows(
        "refused daemons",
        "warn",
        &["10.77.0.2 was rejected 1 time", "belongs to cluster \"other\"", "same cluster"],
    );
}

#[test]
fn a_clock_that_is_behind_or_ahead_is_reported_on_its_own_host_and_on_the_others() {
    assert!(Path::new(FAKETIME).exists(), "install the package faketime (scripts/install-test-deps does)");
    let mut world = World::new(4);
    for (host, shift) in [(0, "+0s"), (1, "-630s"), (2, "+7290s"), (3, "+0s")] {
        let clock = [("LD_PRELOAD", FAKETIME), ("FAKETIME", shift), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
        world.start_with(host, &clock);
    }
    world.join_first(1..4);
    world.wait_until_agreed(&world.all());
    world.wait_on(&world.all(), "all clocks to be told", |host| {
        let peers = world.block_on(world[host].api().peers()).expect("a response").peers;
        peers.len() == 3 && peers.iter().all(|peer| peer.clock_ahead_ms.is_some())
    });
    for host in [0, 3] {
        let both = [
            "2 clocks differ",
            "the clock of h2 is 10m",
            "behind",
            "the clock of h3 is 2h 1m",
            "ahead of",
            "NTP",
        ];
        doctor(&world, host, &[]).shows("clock", "fail", &both);
    }
    let own = ["the clock of this host is", "10m", "behind the clocks of its 3 peers", "NTP"];
    doctor(&world, 1, &[]).shows("clock", "warn", &own);
    let own =
        ["the clock of this host is 2h 1m ahead of the clocks of its 3 peers", "reject new certificates"];
    doctor(&world, 2, &[]).shows("clock", "fail", &own);
    let metrics = world.run(0, &["metrics"]).ended_with(0).stdout;
    let offset = |host: &str| {
        let line = metrics.lines().find(|line| {
            line.starts_with("pmd_link_clock_offset_seconds{") && line.contains(&format!("host=\"{host}\""))
        });
        let value = line.and_then(|line| line.rsplit(' ').next()).expect("an offset");
        value.parse::<f64>().expect("a number")
    };
    assert!((offset("h2") + 630.0).abs() < 60.0 && (offset("h3") - 7290.0).abs() < 60.0, "{metrics}");
    let wide = world.run(0, &["peers", "-o", "wide"]).ended_with(0).stdout;
    assert!(wide.contains("CLOCK") && wide.contains(" +7"), "{wide}");
}

#[test]
fn the_failing_hop_to_a_peer_is_named() {
    let mut world = World::new(6);
    let folder = world.shared("authority").display().to_string();
    world.run(0, &["ca", "init", "--dir", &folder]).ended_with(0);
    world.run(0, &["ca", "issue", "h4", "--dir", &folder, "--out", &folder]).ended_with(0);
    // h2 has no daemon, h3 has no route, h4 requires certificates of its authority, h5 has another cookie, and on h6 a
    // program that is not pmd holds the port.
    world[0].configure("join = [\"h2\", \"10.77.0.3\", \"h4\", \"h5\", \"h6\"]\n");
    world.site(0).cell.ip("route add unreachable 10.77.0.3\n");
    world[3].configure(&format!(
        "ca_cert_path = \"{folder}/ca.pem\"\ncert_path = \"{folder}/h4.pem\"\nkey_path = \"{folder}/h4.key\"\n"
    ));
    world[4].set_cookies(&[OTHER_COOKIE]);
    [0, 3, 4].into_iter().for_each(|host| world.start(host));
    let mut epmd = mortal("epmd");
    epmd.env_remove("ERL_EPMD_PORT").env_remove("ERL_EPMD_ADDRESS");
    let _epmd = world.site(5).cell.run(move || Program::spawn(epmd));
    world.site(5).cell.run(|| {
        wait_until("epmd", || std::net::TcpStream::connect(("127.0.0.1", 4369)).is_ok());
    });
    wait_until("the seeds", || {
        world.block_on(world[0].api().discover()).is_ok_and(|list| list.found.len() == 5)
    });
    let seen = doctor(&world, 0, &[]);
    for words in [
        ["no route: 10.77.0.3", "ip route get"],
        ["refused by the host: h2", "pmd start"],
        ["no handshake: h6", "pmd takeover"],
        ["TLS: h4", "same authority"],
        ["cookie: h5", "copy the cluster secret"],
    ] {
        assert!(
            seen.all_of("peers").iter().any(|text| words.iter().all(|word| text.contains(word))),
            "{words:?}: {seen:#?}"
        );
    }
    assert_eq!(seen.all_of("peers").len(), 5, "{seen:#?}");
    // The host with an authority rejects daemons without a certificate and records who they were.
    let refused = doctor(&world, 3, &[]);
    refused.shows("refused daemons", "warn", &["10.77.0.1 was rejected", "TLS", "same authority"]);
}

#[test]
fn a_member_has_since_changed_its_cookie() {
    let world = World::joined(2);
    doctor(&world, 0, &["foo@h2"]).shows("peers", "pass", &["1 of 1"]);
    world[1].set_cookies(&[OTHER_COOKIE]);
    world.run(1, &["reload"]).ended_with(0);
    // The existing link stays up; a new one would be rejected.
    doctor(&world, 0, &[]).shows("peers", "fail", &["1 of 1", "cookie: h2", "copy the cluster secret"]);
}

#[test]
fn a_long_names_address_resolves_to_another_name() {
    let world = World::new(1);
    let table = world.shared("hosts");
    let write = |text: &str| std::fs::write(&table, text).expect("changing the file");
    write("127.0.0.1 localhost\n10.77.0.1 h1.example.org h1\n");
    world.site(0).cell.cover("/etc/hosts", &table);
    doctor(&world, 0, &[]).shows("name to address", "pass", &["h1 resolves"]).lacks("address to name");
    world.site(0).cell.run(|| nix::unistd::sethostname("h1.example.org").expect("setting the host name"));
    doctor(&world, 0, &[]).shows("address to name", "pass", &["10.77.0.1 resolves back to h1.example.org"]);
    write("127.0.0.1 localhost\n10.77.0.1 h1 h1.example.org\n");
    doctor(&world, 0, &[]).shows(
        "address to name",
        "warn",
        &["which resolves back to h1:", "put the long name first in /etc/hosts: 10.77.0.1 h1.example.org h1"],
    );
    write("127.0.0.1 localhost\n10.77.0.1 db7.example.org h1.example.org\n");
    doctor(&world, 0, &[]).shows(
        "address to name",
        "warn",
        &["which resolves back to db7.example.org", "PTR record", "host_name = \"db7.example.org\""],
    );
}

#[test]
fn certificates_expire_soon_or_have_expired() {
    assert!(Path::new(FAKETIME).exists(), "install the package faketime (scripts/install-test-deps does)");
    let world = World::new(1);
    let folder = world.shared("authority").display().to_string();
    world.run(0, &["ca", "init", "--dir", &folder]).ended_with(0);
    world.run(0, &["ca", "issue", "h1", "--days", "7", "--dir", &folder, "--out", &folder]).ended_with(0);
    world[0].configure(&format!(
        "ca_cert_path = \"{folder}/ca.pem\"\ncert_path = \"{folder}/h1.pem\"\nkey_path = \"{folder}/h1.key\"\n"
    ));
    doctor(&world, 0, &[]).shows("certificates", "warn", &["h1.pem expires in", "pmd ca issue"]);
    let mut later = world[0].command(&["doctor", "--json"]);
    later.envs([("LD_PRELOAD", FAKETIME), ("FAKETIME", "+8d"), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")]);
    examined(&world, later).shows("certificates", "fail", &["h1.pem has expired", "pmd ca issue"]);
}

/// Runs a command on the first host.
fn examined(world: &World, command: Command) -> Examined {
    let output = world.site(0).cell.run(move || run(command));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().unwrap_or(-1);
    Examined(Said { code, stdout: text(&output.stdout), stderr: text(&output.stderr) })
}

#[test]
fn descriptor_limit_is_low() {
    let world = World::new(1);
    let limited = |args: &[&str]| {
        let inner = world[0].command(args);
        let mut command = mortal("prlimit");
        command.arg("--nofile=256:256").arg(inner.get_program()).args(inner.get_args());
        command.envs(inner.get_envs().filter_map(|(key, value)| Some((key, value?))));
        command
    };
    let examiner = limited(&["doctor", "--json"]);
    examined(&world, examiner).shows("descriptors", "warn", &["only 256", "LimitNOFILE"]);
    // With a daemon, its own limit counts.
    let daemon = limited(&["start", "--foreground"]);
    let _daemon = world.site(0).cell.run(move || Program::spawn(daemon));
    wait_until("the daemon", || world.status(0).is_some());
    doctor(&world, 0, &[]).shows("descriptors", "warn", &["only 256", "restart the daemon"]);
}

#[test]
fn ipv6_loopback_is_missing() {
    let world = World::new(1);
    doctor(&world, 0, &[]).shows("IPv6 loopback", "pass", &[]);
    world.site(0).cell.ip("addr del ::1/128 dev lo\n");
    doctor(&world, 0, &[]).shows(
        "IPv6 loopback",
        "warn",
        &["::1 does not exist", "ip addr add ::1/128 dev lo"],
    );
}

#[test]
fn host_names_do_not_resolve_or_resolve_elsewhere() {
    let world = World::new(2);
    for (name, check, words) in [
        ("nowhere", "name to address", ["nowhere, does not resolve", "/etc/hosts"]),
        ("h2", "name to address", ["10.77.0.2", "not an address of this host"]),
        ("localhost", "host name", ["which is not unique", "hostnamectl"]),
    ] {
        world.site(0).cell.run(move || nix::unistd::sethostname(name).expect("setting the host name"));
        doctor(&world, 0, &[]).shows(check, "fail", &words);
    }
}

#[test]
fn a_host_is_behind_a_firewall() {
    let mut world = World::new(2);
    world[0].configure("join = [\"10.77.0.2\"]\n");
    world.site(1).cell.nft("table inet wall {\nchain in {\ntype filter hook input priority 0;\ntcp dport 4369 iifname != \"lo\" drop\n}\n}\n");
    world.start_all();
    wait_until("the seed", || {
        world.block_on(world[0].api().discover()).is_ok_and(|list| !list.found.is_empty())
    });
    doctor(&world, 0, &[]).shows("peers", "fail", &["1 of 1", "timeout", "10.77.0.2", "firewall"]);
}

#[test]
fn short_and_long_names_are_mixed_or_nodes_are_missing() {
    let world = World::joined(2);
    doctor(&world, 0, &["foo@h9.example.org"])
        .shows("name style", "warn", &["a long name", "-sname"])
        .shows("member", "fail", &["h9.example.org", "pmd nodes"])
        .shows("resolver", "fail", &["h9.example.org", "/etc/hosts"]);
    doctor(&world, 0, &["foo@h2"]).shows("name style", "pass", &[]).shows("member", "pass", &[]).shows(
        "path",
        "fail",
        &["foo"],
    );
    doctor(&world, 0, &["foo"]).shows("node name", "fail", &["NAME@HOST"]);
}

#[test]
fn listen_addresses_are_unreachable_for_others() {
    let mut world = World::new(1);
    world[0].configure("bind = [\"127.0.0.1\"]\n");
    world.start(0);
    doctor(&world, 0, &[]).shows("bind", "warn", &["only on loopback", "add an address"]);
    world[0].configure("bind = [\"127.0.0.1\", \"10.77.0.1\"]\n");
    doctor(&world, 0, &[]).shows("bind", "warn", &["10.77.0.1", "restart the daemon"]);
}

#[test]
fn the_user_may_not_access_the_daemon_or_the_cookie() {
    use std::os::unix::fs::PermissionsExt;

    let world = World::started(1);
    let home = world[0].file("");
    for folder in [&world.shared(""), &home] {
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).expect("changing the mode");
    }
    let inner = world[0].command(&["doctor", "--json"]);
    let mut command = mortal("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]);
    // The built binary may be in a directory that only root can access.
    let program = world[0].file("pmd");
    std::fs::copy(crate::harness::pmd(), &program).expect("copying the program");
    command.arg(program).args(["doctor", "--json"]);
    command.envs(inner.get_envs().filter_map(|(key, value)| Some((key, value?))));
    examined(&world, command)
        .shows("port", "pass", &["serves port 4369"])
        .shows("other epmd", "pass", &["no stock epmd"])
        .shows("cookie file", "fail", &["Permission denied", "run pmd as the user who owns the file"])
        .shows("refused daemons", "warn", &["not checked", "as its user"]);
}

#[test]
fn the_path_to_an_erlang_node_is_checked() {
    let world = World::joined(2);
    let home = world[1].file("");
    let mut node = world.site(1).cell.run(move || {
        let mut command = mortal(crate::erlang::ERL);
        command
            .args(["-noinput", "-sname", "real", "-setcookie", "whatever"])
            .env("HOME", home)
            .env_remove("ERL_EPMD_PORT");
        Program::spawn(command)
    });
    world.wait_on(&[0], "the Erlang node", |host| world.names(host).iter().any(|(name, ..)| name == "real"));
    let seen = doctor(&world, 0, &["real@h2"]);
    assert_eq!(seen.0.code, 0, "{seen:#?}");
    for check in ["name style", "member", "resolver", "lookup", "greeting"] {
        seen.shows(check, "pass", &[]);
    }
    seen.shows("greeting", "pass", &["real@h2"]);
    let file = world[0].file("erlang-cookie");
    for (cookie, verdict, says) in [("whatever", "pass", "accepted"), ("another", "fail", "refused")] {
        std::fs::write(&file, cookie).expect("a cookie");
        let args = ["real@h2", "--erlang-cookie", file.to_str().expect("text")];
        doctor(&world, 0, &args).shows("Erlang cookie", verdict, &[says]);
    }
    node.kill();
    world.wait_for_names(&[0], []);
    doctor(&world, 0, &["real@h2"]).shows("path", "fail", &["real"]).shows(
        "Erlang cookie",
        "warn",
        &["not tried"],
    );
}
