//! Metrics, alert rules, the dashboard, structured logs and support bundles.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::harness::daemon::register;
use crate::harness::wait_until;
use crate::support::{Home, said};

/// Runs promtool with this input and fails the test unless it succeeds.
fn promtool(args: &[&str], input: &str, folder: &Path) -> String {
    let mut child = Command::new("promtool")
        .args(args)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool, of the Debian package prometheus: scripts/install-test-deps installs it");
    child.stdin.take().expect("its standard input").write_all(input.as_bytes()).expect("promtool reads");
    let output = child.wait_with_output().expect("waiting for it to exit");
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "promtool {args:?} says\n{said}\nto\n{input}");
    said
}

/// The values of a metrics page by series.
fn numbers(page: &str) -> BTreeMap<&str, f64> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(series, value)| (series, value.parse().expect("a number")))
        .collect()
}

/// Sends a request to the EPMD port and reads until the daemon closes.
fn ask(home: &Home, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, home.port)).expect("a daemon");
    stream.write_all(&u16::try_from(request.len()).expect("short").to_be_bytes()).expect("writing");
    stream.write_all(request).expect("writing");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("a response");
    answer
}

fn contrib(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib").join(path)
}

#[test]
fn metrics_count_requests_and_are_valid_for_prometheus() {
    let (home, _daemon) = Home::started();
    let names = ["one", "two", "three"];
    let _nodes: Vec<_> = names.iter().zip(41_000..).map(|(name, port)| home.node(name, port)).collect();
    assert!(register((Ipv4Addr::LOCALHOST, home.port).into(), "one", 42_000).is_none(), "a duplicate");
    for name in names {
        assert_eq!(ask(&home, &[b"z", name.as_bytes()].concat())[..2], [119, 0]);
    }
    assert_eq!(ask(&home, b"znobody"), [119, 1]);
    ask(&home, b"n");
    // Closed without a response.
    assert_eq!(ask(&home, b"!"), b"");

    let page = home.run(&["metrics"]).ended_with(0).stdout;
    promtool(&["check", "metrics"], &page, Path::new("/"));
    let found = numbers(&page);
    for (series, value) in [
        ("pmd_names", 3.0),
        ("pmd_cluster_names", 3.0),
        ("pmd_registrations_total{result=\"registered\"}", 3.0),
        ("pmd_registrations_total{result=\"duplicate\"}", 1.0),
        ("pmd_epmd_requests_total{request=\"port_please2\",result=\"found\"}", 3.0),
        ("pmd_epmd_requests_total{request=\"port_please2\",result=\"not_found\"}", 1.0),
        ("pmd_epmd_requests_total{request=\"names\",result=\"answered\"}", 1.0),
        ("pmd_epmd_requests_total{request=\"alive2\",result=\"refused\"}", 1.0),
        ("pmd_epmd_requests_refused_total{reason=\"malformed\"}", 1.0),
        ("pmd_connections_open{class=\"registered\"}", 3.0),
        ("pmd_connections_accepted_total", 10.0),
        ("pmd_cluster_members{state=\"alive\"}", 1.0),
        ("pmd_cluster_fingerprint_agreement", 1.0),
        ("pmd_tunnels_open{side=\"entry\",path=\"direct\"}", 0.0),
    ] {
        assert_eq!(found.get(series), Some(&value), "{series} in\n{page}");
    }
    // The first request of each thread is sampled; it was a registration.
    let measured = "pmd_epmd_request_duration_seconds";
    assert!(found[format!("{measured}_count{{request=\"alive2\"}}").as_str()] >= 1.0, "{page}");
    assert!(found[format!("{measured}_sum{{request=\"alive2\"}}").as_str()] > 0.0, "{page}");
    assert!(
        found["process_open_fds"] > 3.0 && found["process_open_fds"] < found["process_max_fds"],
        "{page}"
    );
    // Labels contain no node names.
    assert!(!page.contains("three"), "{page}");

    drop(_nodes);
    wait_until("the end of the registrations", || {
        let page = home.run(&["metrics"]).ended_with(0).stdout;
        let found = numbers(&page);
        found["pmd_names"] == 0.0 && found["pmd_unregistrations_total{reason=\"closed\"}"] == 3.0
    });
    let json = home.run(&["metrics", "--json"]).ended_with(0).json();
    let samples = json["samples"].as_array().expect("a list");
    assert!(samples.iter().any(|sample| sample["series"] == "pmd_names" && sample["value"] == 0.0), "{json}");
    let (status, _) = home.http("GET", "/v1/metrics", "");
    assert_eq!(status, 200);
}

#[test]
fn without_a_daemon_there_are_no_metrics() {
    let home = Home::new();
    assert_eq!(home.complains(&["metrics"]).0, 3);
}

#[test]
fn alert_rules_are_valid_and_pass_their_tests() {
    let folder = contrib("prometheus");
    let said = promtool(&["check", "rules", "pmd-alerts.yml"], "", &folder);
    assert!(said.contains("SUCCESS: 9 rules found"), "{said}");
    promtool(&["test", "rules", "pmd-alerts-test.yml"], "", &folder);
}

#[test]
fn rules_and_dashboard_use_only_existing_metrics() {
    let home = Home::new();
    home.run(&["ca", "init"]).ended_with(0);
    home.run(&["ca", "issue", "metrics-host"]).ended_with(0);
    let ca = home.path().join("ca").display().to_string();
    home.configure(&format!(
        "host_name = \"metrics-host\"\nca_cert_path = \"{ca}/ca.pem\"\ncert_path = \"{ca}/metrics-host.pem\"\n\
         key_path = \"{ca}/metrics-host.key\"\n"
    ));
    let _daemon = home.daemon(&[]);
    let page = home.run(&["metrics"]).ended_with(0).stdout;
    let mut known = BTreeSet::new();
    for line in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').expect("a name and a kind");
        known.insert(name.to_owned());
        if kind == "histogram" {
            known.extend(["_bucket", "_sum", "_count"].map(|suffix| format!("{name}{suffix}")));
        }
    }
    let dashboard = std::fs::read_to_string(contrib("grafana/pmd-dashboard.json")).expect("the dashboard");
    let parsed: serde_json::Value = serde_json::from_str(&dashboard).expect("JSON");
    let mut expressions = Vec::new();
    for panel in parsed["panels"].as_array().expect("panels") {
        for target in panel["targets"].as_array().into_iter().flatten() {
            expressions.push(target["expr"].as_str().expect("an expression").to_owned());
        }
    }
    assert!(expressions.len() > 20, "{expressions:?}");
    let rules = std::fs::read_to_string(contrib("prometheus/pmd-alerts.yml")).expect("the rules");
    expressions
        .extend(rules.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).map(str::to_owned));
    for expression in &expressions {
        let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let metrics: Vec<_> =
            words.filter(|word| word.starts_with("pmd_") || word.starts_with("process_")).collect();
        assert!(!metrics.is_empty(), "{expression}");
        for metric in metrics {
            assert!(known.contains(metric), "{metric} of {expression} is not among {known:?}");
        }
    }
}

#[test]
fn a_reload_logs_its_result() {
    let home = Home::new();
    let daemon = home.daemon(&[]);
    home.run(&["reload"]).ended_with(0);
    daemon.wait_for_text("reloaded: no changes");
    home.configure("port = 4711\n");
    daemon.signal(rustix::process::Signal::HUP);
    daemon.wait_for_text("need a restart: port");
    home.configure("port = true\n");
    daemon.signal(rustix::process::Signal::HUP);
    daemon.wait_for_text("reload failed, nothing has changed");
}

#[test]
fn json_logs_are_one_object_per_line() {
    let home = Home::new();
    let mut command = home.command(&["start", "--foreground"]);
    command.env("PMD_LOG_FORMAT", "json").env("PMD_LOG", "info");
    let daemon = crate::harness::program::Program::spawn(command);
    wait_until("the daemon", || home.run(&["health"]).code == 0);
    home.run(&["reload"]).ended_with(0);
    daemon.wait_for_text("reloaded: ");
    for line in daemon.stderr().lines() {
        let line: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(line["level"].is_string() && line["fields"]["message"].is_string(), "{line}");
    }
}

#[test]
fn a_support_bundle_is_complete_but_has_no_secrets() {
    let home = Home::new();
    home.configure("discovery = [\"exec:true hush-argument\"]\n[metadata]\napi_token = \"hush-token\"\nzone = \"north\"\n");
    let _daemon = home.daemon(&[]);
    let _node = home.node("rabbit", 25_672);
    home.run(&["reload"]).ended_with(0);
    let place = home.path().join("report.tar.gz");
    let file = place.to_str().expect("UTF-8");
    let said = home.run(&["debug", file, "--json"]).ended_with(0);
    let report = said.json();
    assert_eq!(report["missing"], serde_json::json!([]), "{said:#?}");
    let mode = std::os::unix::fs::PermissionsExt::mode(&place.metadata().expect("a file").permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(home.run(&["debug", file]).code, 7, "an existing bundle must not be overwritten");
    home.run(&["debug", file, "--force"]).ended_with(0);

    let text = unpacked(&place);
    for part in [
        "status.json",
        "nodes.json",
        "peers.json",
        "names.json",
        "tunnels.json",
        "metrics.txt",
        "config.toml",
        "version.txt",
        "limits.txt",
        "doctor.json",
        "events.jsonl",
        "log.txt",
        "pmd_names 1",
        "\"kind\":\"name_up\"",
        "reloaded: no changes",
        "zone = \"north\"",
        "Max open files",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("hush"), "{text}");
    let secrets = [home.path().join("cookie"), home.path().join(format!("node-{}.key", home.port))];
    for secret in secrets {
        let secret =
            std::fs::read_to_string(&secret).unwrap_or_else(|error| panic!("{}: {error}", secret.display()));
        for line in secret.lines().filter(|line| line.len() > 8) {
            assert!(!text.contains(line), "the support bundle contains a secret");
        }
    }
}

#[test]
fn a_support_bundle_without_a_daemon_lists_what_is_missing() {
    let home = Home::new();
    home.configure("port = 4369\n");
    let place = home.path().join("report.tar.gz");
    let said = home.run(&["debug", place.to_str().expect("UTF-8")]).ended_with(0);
    assert!(said.stderr.contains("note: status.json is missing: no pmd answers"), "{said:#?}");
    let text = unpacked(&place);
    assert!(text.contains("config.toml") && text.contains("missing.txt"), "{text}");
    assert!(text.contains("metrics.txt: no pmd answers"), "{text}");
}

/// The contents of a support bundle, extracted with `tar`.
fn unpacked(place: &Path) -> String {
    let mut command = Command::new("tar");
    command.args(["--extract", "--to-stdout", "--verbose", "--gzip", "--file"]).arg(place);
    let said = said(command);
    assert_eq!(said.code, 0, "{said:#?}");
    said.stdout + &said.stderr
}
