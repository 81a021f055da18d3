//! `pmd names` and `pmd lookup`.

use crate::harness::PATIENCE;
use crate::harness::program::Program;
use crate::harness::wait_until;
use crate::support::{Home, host_name};

#[test]
fn names_lists_nodes_newest_first() {
    let (home, _daemon) = Home::started();
    let said = home.run(&["names"]).ended_with(0);
    assert_eq!(said.stdout, "");
    assert_eq!(
        home.normal(&said.stderr),
        "No Erlang nodes are registered on port PORT. Start one: erl -sname foo\n"
    );
    assert_eq!(
        home.run(&["names", "--json"]).ended_with(0).json(),
        serde_json::json!({ "host": host_name(), "names": [] })
    );
    let _first = home.node("first", 1001);
    let _second = home.node("second\u{1b}[31m\nx", 1002);

    let table = home.prints(&["names"]);
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NODE", "PORT", "AGE", "CREATION", "STATE"]);
    assert_eq!(rows[1][..2], ["second\\u{1b}[31m\\nx@HOST", "1002"]);
    assert_eq!(rows[2][..2], ["first@HOST", "1001"]);
    assert_eq!(rows[2].last(), Some(&"registered"));
    let wide = home.prints(&["names", "-o", "wide"]);
    assert!(wide.contains(" TYPE ") && wide.contains(" normal "), "{wide}");

    let plain = home.prints(&["names", "-o", "plain"]);
    let first: Vec<&str> = plain.lines().nth(1).expect("two lines").split('\t').collect();
    assert_eq!((first[0], first[1], first[4], first[5]), ("first@HOST", "1001", "normal", "5-6"));
    let lines = home.run(&["names", "-o", "jsonl"]).ended_with(0).stdout;
    let names: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(names[0]["name"], "second\u{1b}[31m\nx");
    assert_eq!(
        (&names[1]["node"], &names[1]["port"]),
        (&format!("first@{}", host_name()).into(), &1001.into())
    );
}

#[test]
fn names_of_another_host_come_over_epmd() {
    let (home, _daemon) = Home::started();
    let _node = home.node("rabbit", 25672);
    for host in ["localhost", "127.0.0.1", "::1", "[::1]"] {
        assert_eq!(home.prints(&["names", host]), "NAME    PORT\nrabbit  25672\n");
    }
    let json = home.run(&["names", "127.0.0.1", "--json"]).ended_with(0).json();
    assert_eq!(json["names"], serde_json::json!([{ "name": "rabbit", "port": 25672 }]));
    let (code, said) = home.complains(&["names", "no-such-host.invalid"]);
    assert_eq!(code, 3);
    assert!(
        said.starts_with("error: no port mapper answers on port PORT of no-such-host.invalid: "),
        "{said}"
    );
}

#[test]
fn names_can_be_watched() {
    let (home, _daemon) = Home::started();
    let _node = home.node("rabbit", 25672);
    let watching = Program::spawn(home.command(&["names", "--watch"]));
    wait_until("two looks", || watching.stdout().lines().count() >= 2);
    assert!(watching.stdout().lines().all(|line| line.contains("\"name\":\"rabbit\"")));
}

#[test]
fn lookup_prints_host_and_port() {
    let (home, _daemon) = Home::started();
    let _node = home.node("rabbit", 25672);
    home.run(&["register", "rabbit", "-P", "15672", "-m", "what=console"]).ended_with(0);
    assert_eq!(home.prints(&["lookup", "rabbit"]), "HOST:25672\n");
    let short = host_name().split('.').next().unwrap_or_default().to_owned();
    for host in [host_name(), short, "localhost".to_owned()] {
        assert_eq!(home.prints(&["lookup", &format!("rabbit@{host}")]), "HOST:25672\n");
    }
    assert_eq!(home.prints(&["lookup", "rabbit", "--all"]), "HOST:25672\nHOST:15672\n");
    let json = home.run(&["lookup", "rabbit", "--all", "--json"]).ended_with(0).json();
    assert_eq!(json["query"], "rabbit");
    assert_eq!((&json["matches"][0]["kind"], &json["matches"][0]["port"]), (&"name".into(), &25672.into()));
    assert_eq!(json["matches"][1]["metadata"]["what"], "console");
    assert_eq!(json["matches"][1]["address"], format!("{}:15672", host_name()));
}

#[test]
fn unknown_names_and_hosts_are_not_found() {
    let (home, _daemon) = Home::started();
    assert_eq!(
        home.complains(&["lookup", "nobody"]),
        (
            4,
            "error: nothing named \"nobody\" is registered in the cluster\n\
             hint: pmd names --cluster and pmd services --cluster list what is registered; --wait waits for it\n"
                .into()
        )
    );
    assert_eq!(
        home.complains(&["lookup", "nobody@elsewhere"]),
        (
            4,
            "error: the cluster has no host named \"elsewhere\"\n\
             hint: pmd nodes lists the hosts; pmd join adds one\n"
                .into()
        )
    );
    let json = home.run(&["lookup", "nobody", "--json"]).ended_with(4).json();
    assert_eq!(json["error"]["code"], "not_found");
    assert_eq!(
        home.complains(&["lookup", "nobody", "--wait", "50ms"]),
        (
            6,
            "error: \"nobody\" was not registered within 50ms: nothing named \"nobody\" is registered in the cluster\n\
             hint: list what is registered with pmd names and pmd services, or wait longer\n"
                .into()
        )
    );
}

#[test]
fn lookup_waits_for_a_node_and_for_the_daemon() {
    let home = Home::new();
    let mut waiting = Program::spawn(home.command(&["lookup", "rabbit", "--wait", "60s"]));
    let _daemon = home.daemon(&[]);
    assert!(waiting.is_running());
    let _node = home.node("rabbit", 25672);
    assert!(waiting.wait(PATIENCE).success());
    assert_eq!(waiting.stdout(), format!("{}:25672\n", host_name()));
}
