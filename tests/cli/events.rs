//! `pmd subscribe`: events as they happen, across gaps and restarts.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::program::Program;
use crate::harness::{PATIENCE, wait_until};
use crate::support::{Home, host_name};

/// The events that the daemon remembers.
const WINDOW: usize = 4096;

/// `pmd subscribe ARGS`, once it has printed a first event, which is made for this purpose.
fn subscribe(home: &Home, args: &[&str]) -> Program {
    let mut all = vec!["subscribe"];
    all.extend(args);
    Program::spawn(home.command(&all))
}

fn lines(program: &Program) -> Vec<Value> {
    let complete = |line: &&str| line.ends_with('\n');
    let stdout = program.stdout();
    stdout
        .split_inclusive('\n')
        .filter(complete)
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("not JSON: {error}: {line}")))
        .collect()
}

fn names(program: &Program) -> Vec<String> {
    let name = |event: &Value| Some(event["name"].as_str()?.to_owned());
    lines(program).iter().filter_map(name).collect()
}

fn register(home: &Home, name: &str) {
    home.run(&["register", name, "-P", "8080"]).ended_with(0);
}

#[test]
fn events_are_printed_as_they_happen() {
    let (home, _daemon) = Home::started();
    register(&home, "before");
    let mut all = subscribe(&home, &["--since", "0"]);
    all.wait_for_text("before");
    let node = home.node("rabbit", 25672);
    all.wait_for_text("name_up");
    drop(node);
    all.wait_for_text("name_down");
    home.run(&["unregister", "before"]).ended_with(0);
    all.wait_for_text("service_down");
    let stdout = all.stdout();
    let rows: Vec<Vec<&str>> = stdout.lines().map(|line| line.split_whitespace().skip(1).collect()).collect();
    let [before, rabbit] = ["before", "rabbit"].map(|name| format!("{name}@{}", host_name()));
    assert_eq!(rows[0], ["service_up", &before, "8080"]);
    assert_eq!(rows[1], ["name_up", &rabbit, "25672"]);
    assert_eq!(rows[2][..3], ["name_down", &rabbit, "25672"]);
    assert_eq!(rows[3], ["service_down", &before, "8080", "unregistered"]);
    all.signal(Signal::INT);
    assert_eq!(all.wait(PATIENCE).code(), Some(130));
}

#[test]
fn events_can_be_printed_as_json_lines_and_filtered() {
    let (home, _daemon) = Home::started();
    register(&home, "web");
    home.run(&["unregister", "web"]).ended_with(0);
    let chosen = subscribe(&home, &["--since", "0", "--kind", "service_down", "--json"]);
    chosen.wait_for_text("\n");
    let event = &lines(&chosen)[0];
    assert_eq!(
        (&event["seq"], &event["kind"], &event["name"]),
        (&2.into(), &"service_down".into(), &"web".into())
    );
    assert!(event["at"].as_str().is_some_and(|at| at.len() == "2026-01-01T00:00:00.000Z".len()), "{event}");
    let later = subscribe(&home, &["--since", "1", "-o", "plain"]);
    later.wait_for_text("\n");
    assert!(later.stdout().starts_with("2\t"), "{}", later.stdout());
    assert_eq!(home.run(&["subscribe", "--kind", "nodeup"]).code, 2);
}

#[test]
fn a_subscriber_continues_after_a_daemon_restart() {
    let (home, daemon) = Home::started();
    register(&home, "one");
    let mut events = subscribe(&home, &["--since", "0", "--json"]);
    events.wait_for_text("\"one\"");
    drop(daemon);
    events.wait_for_text("note: the daemon has stopped; waiting for it to come back\n");
    let daemon = home.daemon(&[]);
    // The subscriber may reconnect before or after this event, and misses it in neither case.
    register(&home, "two");
    events.wait_for_text("\"two\"");
    home.run(&["stop"]).ended_with(0);
    drop(daemon);
    let _daemon = home.daemon(&[]);
    register(&home, "three");
    events.wait_for_text("\"three\"");
    assert_eq!(names(&events), ["one", "two", "three"]);
    let gaps: Vec<Value> = lines(&events).into_iter().filter(|line| line["kind"] == "gap").collect();
    assert_eq!(gaps.len(), 2);
    assert_eq!(gaps[0]["reason"], "restarted");
    assert!(events.is_running());
}

#[test]
fn a_subscriber_resumes_after_a_lost_connection() {
    let (home, _daemon) = Home::started();
    register(&home, "one");
    let events = subscribe(&home, &["--since", "0", "--json"]);
    events.wait_for_text("\"one\"");
    // Its connection is closed while the daemon keeps running: it is frozen while the window advances.
    events.signal(Signal::STOP);
    for name in ["two", "three"] {
        register(&home, name);
    }
    events.signal(Signal::CONT);
    events.wait_for_text("\"three\"");
    assert_eq!(names(&events), ["one", "two", "three"]);
}

#[test]
fn forgotten_events_are_reported_as_a_gap() {
    let (home, _daemon) = Home::started();
    let pairs = WINDOW / 2 + 5;
    make_events(&home, pairs);
    let events = subscribe(&home, &["--since", "0", "--json"]);
    wait_until("all that is remembered", || lines(&events).len() == WINDOW + 1);
    let lines = lines(&events);
    assert_eq!(lines[0], serde_json::json!({ "kind": "gap", "reason": "too_old", "missed": 10 }));
    assert_eq!((&lines[1]["seq"], &lines[WINDOW]["seq"]), (&11.into(), &(2 * pairs).into()));
    let people = subscribe(&home, &["--since", "0"]);
    people.wait_for_text("note: 10 events are missing: the daemon no longer has them\n");
}

/// Registers and unregisters a service over and over, on one connection.
fn make_events(home: &Home, pairs: usize) {
    let body = r#"{"name":"web","port":80}"#;
    let mut requests = String::new();
    for pair in 1..=pairs {
        let close = if pair == pairs { "connection: close\r\n" } else { "" };
        let length = body.len();
        write!(
            requests,
            "POST /v1/services HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{body}\
             DELETE /v1/services/web HTTP/1.1\r\nhost: x\r\n{close}\r\n"
        )
        .expect("memory");
    }
    let mut stream = UnixStream::connect(home.socket()).expect("a daemon");
    let mut writer = stream.try_clone().expect("a second handle");
    std::thread::scope(|scope| {
        scope.spawn(move || writer.write_all(requests.as_bytes()).expect("writing the requests"));
        let mut answers = Vec::new();
        stream.read_to_end(&mut answers).expect("answers");
    });
}

#[test]
fn subscribing_without_a_daemon_is_an_error() {
    let home = Home::new();
    assert_eq!(home.run(&["subscribe"]).code, 3);
}
