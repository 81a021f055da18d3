//! The cluster commands, against a stub of the control API.

use std::time::Duration;

use pmd::control::api;
use pmd::control::json::timestamp;
use serde_json::{Value, json};

use crate::harness::program::Program;
use crate::harness::wait_until;
use crate::stub::{Answer, Stub, error, ok};
use crate::support::Home;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn joined() -> api::Joined {
    api::Joined {
        cluster: "shop".into(),
        peers: vec![api::JoinedPeer {
            asked: "host1".into(),
            address: "10.0.0.1:4369".parse().expect("an address"),
            id: ID.into(),
            host: "host1".into(),
        }],
        failed: Vec::new(),
        members: 3,
    }
}

#[test]
fn join_reports_which_seeds_accepted_and_which_failed() {
    let home = Home::new();
    let stub = Stub::start(&home, |_, _| {
        let error = api::ErrorInfo {
            code: "unresolvable".into(),
            message: "the name hsot2 has no address".into(),
            hint: "check the spelling".into(),
        };
        ok(&api::Joined { failed: vec![api::JoinFailure { asked: "hsot2".into(), error }], ..joined() })
    });
    let said = home.run(&["join", "host1", "hsot2", "--timeout", "3s"]).ended_with(0);
    assert_eq!(said.stdout, "joined cluster shop through host1 (10.0.0.1:4369): 3 members\n");
    assert_eq!(
        said.stderr,
        "note: joining through hsot2 failed: the name hsot2 has no address (check the spelling)\n"
    );
    let request = &stub.requests()[0];
    assert_eq!(request.what, "POST /v1/join");
    assert_eq!(request.body, json!({ "addresses": ["host1", "hsot2"], "timeout_ms": 3000 }));
    let json = home.run(&["join", "host1", "--json"]).ended_with(0).json();
    assert_eq!((&json["cluster"], &json["peers"][0]["id"]), (&"shop".into(), &ID.into()));
}

#[test]
fn join_waits_longer_than_the_daemons_own_timeout() {
    let home = Home::new();
    let _stub = Stub::start(&home, |_, _| {
        std::thread::sleep(Duration::from_millis(200));
        ok(&joined())
    });
    home.run(&["join", "host1", "--timeout", "20ms"]).ended_with(0);
}

#[test]
fn each_join_failure_has_its_exit_code() {
    for (status, code, exit) in [
        (404, "unresolvable", 4),
        (502, "unreachable", 3),
        (403, "refused", 5),
        (408, "timeout", 6),
        (400, "oneself", 2),
        (409, "no_cluster", 7),
    ] {
        let home = Home::new();
        let _stub = Stub::start(&home, move |_, _| error(status, code));
        assert_eq!(
            home.complains(&["join", "host1"]),
            (exit, format!("error: it is {code}\nhint: do something\n"))
        );
        let json = home.run(&["join", "host1", "--json"]).ended_with(exit).json();
        assert_eq!(json["error"]["code"], code);
    }
    let home = Home::new();
    home.run(&["join"]).ended_with(2);
    home.run(&["join", "rabbit@host1"]).ended_with(2);
    home.run(&["join", "host1"]).ended_with(3);
}

#[test]
fn leave_applies_to_the_local_daemon_or_a_named_member() {
    let home = Home::new();
    let left = |members| api::LeftCluster { cluster: "shop".into(), members };
    let stub = Stub::start(&home, move |number, _| ok(&left(if number == 0 { 2 } else { 1 })));
    assert_eq!(home.prints(&["leave"]), "left cluster shop, which has 2 other members\n");
    assert_eq!(home.prints(&["leave", "host1"]), "host1 has left cluster shop\n");
    let bodies: Vec<Value> = stub.requests().into_iter().map(|request| request.body).collect();
    assert_eq!(bodies, [json!({}), json!({ "peer": "host1" })]);
}

#[test]
fn cluster_lists_are_requested_and_printed() {
    let home = Home::new();
    let stub = Stub::start(&home, |_, request| match request.what.as_str() {
        "GET /v1/nodes" => ok(&api::NodeList { cluster: "shop".into(), nodes: vec![node()] }),
        "GET /v1/peers" => ok(&api::PeerList { peers: Vec::new() }),
        "GET /v1/discover" => ok(&api::Discovered { found: Vec::new() }),
        path if path.starts_with("GET /v1/names?scope=cluster") => {
            ok(&api::ClusterNameList { names: Vec::new() })
        }
        "GET /v1/services?scope=cluster" => ok(&api::ClusterServiceList { services: Vec::new() }),
        other => panic!("{other}"),
    });
    assert_eq!(
        home.prints(&["nodes"]),
        "HOST              NAMES  SERVICES  VERSION  ADDRESS        STATE\n\
         host1 (this one)  2      1         0.1.0    10.0.0.1:4369  alive\n"
    );
    for (args, message) in [
        (&["peers"][..], "No links to other daemons. Join a cluster: pmd join HOST\n"),
        (&["discover"], "No daemons found; try pmd discover --wait 5s to listen for a while.\n"),
        (&["names", "--cluster"], "No Erlang nodes are registered in the cluster.\n"),
        (&["names", "--cluster", "host2"], "No Erlang nodes are registered on host2.\n"),
        (
            &["services", "--cluster"],
            "No services are registered in the cluster. Register one: pmd register web -P 8080\n",
        ),
    ] {
        assert_eq!(home.complains(args), (0, message.to_owned()), "{args:?}");
    }
    let asked: Vec<String> = stub.requests().into_iter().map(|request| request.what).collect();
    assert!(asked.contains(&"GET /v1/names?scope=cluster&host=host2".to_owned()), "{asked:?}");
    assert_eq!(home.run(&["names", "--cluster", "--json"]).ended_with(0).json(), json!({ "names": [] }));
    let watching = Program::spawn(home.command(&["nodes", "--watch"]));
    wait_until("two looks", || watching.stdout().lines().count() >= 2);
    assert!(watching.stdout().lines().all(|line| line.contains("\"host\":\"host1\"")));
}

fn node() -> api::Node {
    api::Node {
        id: ID.into(),
        host: "host1".into(),
        oneself: true,
        state: api::NodeState::Alive,
        addresses: vec!["10.0.0.1:4369".parse().expect("an address")],
        version: "0.1.0".into(),
        metadata: Default::default(),
        names: 2,
        services: 1,
        started_at: timestamp(0),
    }
}

/// The status of a daemon whose registry has this fingerprint.
fn status(fingerprint: &str, converged: bool) -> Answer {
    let cluster = api::ClusterStatus {
        name: "shop".into(),
        id: ID.into(),
        identity: api::IdentityMode::Auto,
        addresses: Vec::new(),
        left: false,
        members: 3,
        suspects: 0,
        links: 2,
        agreeing: if converged { 2 } else { 1 },
        converged,
        fingerprint: fingerprint.repeat(64),
        names: 0,
        services: 0,
        certificate_expires_at: None,
    };
    ok(&api::Status { cluster: Some(cluster), ..alone() })
}

fn alone() -> api::Status {
    api::Status {
        version: "0.1.0".into(),
        pid: 1,
        boot_id: "x".into(),
        host: "host1".into(),
        port: 4369,
        listening: Vec::new(),
        socket: "/x".into(),
        started_at: timestamp(0),
        uptime_seconds: 0,
        relaxed_command_check: false,
        metadata: Default::default(),
        names: api::NameNumbers { registered: 0, adopted: 0, old: 0, limit: 1 },
        services: api::ServiceNumbers { registered: 0, limit: 1 },
        descriptors: api::DescriptorNumbers { limit: 1, registered: 0, waiting: 0, refused: 0 },
        counters: api::Counts::default(),
        tunnels: None,
        cluster: None,
        warnings: Vec::new(),
    }
}

#[test]
fn wait_converged_requires_the_same_agreement_twice() {
    let home = Home::new();
    let stub = Stub::start(&home, |number, _| match number {
        0 => error(503, "ending"),
        1 => status("a", false),
        2 => status("a", true),
        _ => status("b", true),
    });
    let said = home.run(&["status", "--wait-converged", "60s"]).ended_with(0);
    assert!(said.stdout.contains("registry        bbbbbbbbbbbbbbbb, agrees with 2 of 2 peers\n"), "{said:?}");
    assert_eq!(stub.requests().len(), 5);
}

#[test]
fn wait_converged_reports_a_timeout() {
    let home = Home::new();
    let _stub = Stub::start(&home, |_, _| status("a", false));
    assert_eq!(
        home.complains(&["status", "--wait-converged", "250ms"]),
        (
            6,
            "error: the daemons did not converge within 250ms: only 1 of 2 peers agreed\n\
             hint: run pmd peers to see which peers disagree and pmd nodes to see suspect members, or wait longer\n"
                .into()
        )
    );
    let home = Home::new();
    let (code, said) = home.complains(&["status", "--wait-converged", "50ms"]);
    assert_eq!(code, 6);
    assert!(said.contains("within 50ms: no pmd answers on HOME/pmd-PORT.sock\n"), "{said}");
}

#[test]
fn wait_converged_without_a_cluster_is_an_error() {
    let home = Home::new();
    let _stub = Stub::start(&home, |_, _| ok(&alone()));
    let json = home.run(&["status", "--wait-converged", "60s", "--json"]).ended_with(7).json();
    assert_eq!(json["error"]["code"], "no_cluster");
    home.run(&["status", "--wait-converged", "1s", "--watch"]).ended_with(2);
    // Very long waits are accepted.
    home.run(&["status", "--wait-converged", "18446744073709551615"]).ended_with(7);
}
