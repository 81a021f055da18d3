//! `pmd register`, `unregister` and `services`.

use rustix::process::Signal;

use crate::harness::program::Program;
use crate::harness::{PATIENCE, wait_until};
use crate::support::Home;

/// The names of the registered services.
fn services(home: &Home) -> Vec<String> {
    let json = home.run(&["services", "--json"]).ended_with(0).json();
    let services = json["services"].as_array().expect("a list");
    services.iter().map(|service| service["name"].as_str().expect("a name").to_owned()).collect()
}

fn wait_for_services(home: &Home, expected: &[&str]) {
    wait_until(&format!("the services {expected:?}"), || services(home) == expected);
}

/// `pmd register web -P 8080 -- sh -c SCRIPT`, stopped at the end of the test.
fn holding(home: &Home, script: &str) -> Program {
    Program::spawn_listening(home.command(&["register", "web", "-P", "8080", "--", "sh", "-c", script]))
}

#[test]
fn a_service_is_registered_listed_and_unregistered() {
    let (home, _daemon) = Home::started();
    let said = home.run(&["services"]).ended_with(0);
    assert_eq!(
        (said.stdout.as_str(), said.stderr.as_str()),
        ("", "No services are registered. Register one: pmd register web -P 8080\n")
    );
    assert_eq!(
        home.prints(&["register", "web", "-P", "8080", "-m", "a=1", "--meta", "b=x y"]),
        "web is registered on port 8080\n"
    );
    assert_eq!(
        home.prints(&["services"]),
        "NAME  PORT  METADATA   LIFETIME\nweb   8080  a=1 b=x y  until unregistered\n"
    );
    let json = home.run(&["register", "api", "-P", "8081", "--ttl", "1h", "--json"]).ended_with(0).json();
    assert!(json["expires_at"].as_str().is_some_and(|time| time.ends_with('Z')), "{json}");
    assert_eq!(services(&home), ["api", "web"]);
    let _node = home.node("rabbit", 25672);
    assert!(!home.prints(&["names"]).contains("web"), "services are not nodes");
    assert!(!home.prints(&["names", "127.0.0.1"]).contains("web"), "EPMD clients do not see services");

    assert_eq!(home.prints(&["unregister", "web"]), "web is no longer registered (was on port 8080)\n");
    assert_eq!(
        home.complains(&["unregister", "web"]),
        (
            4,
            "error: no service named \"web\" is registered here\nhint: pmd services lists the services\n"
                .into()
        )
    );
    let (code, said) = home.complains(&["unregister", "rabbit"]);
    assert_eq!(code, 4);
    assert!(said.starts_with("error: \"rabbit\" is an Erlang node, not a service\n"), "{said}");
}

#[test]
fn a_taken_name_is_a_conflict() {
    let (home, _daemon) = Home::started();
    home.run(&["register", "web", "-P", "8080"]).ended_with(0);
    home.run(&["register", "web", "-P", "8080"]).ended_with(0);
    assert_eq!(
        home.complains(&["register", "web", "-P", "8081"]),
        (
            7,
            "error: a service named \"web\" is registered here with port 8080\n\
             hint: choose another name, or remove that service: pmd unregister web\n"
                .into()
        )
    );
    // After a conflict, the command does not run.
    let said = home.run(&["register", "web", "-P", "8081", "--", "echo", "running"]).ended_with(7);
    assert_eq!(said.stdout, "");
}

#[test]
fn invalid_services_are_usage_errors() {
    let (home, _daemon) = Home::started();
    for args in [
        &["register", "a b", "-P", "80"][..],
        &["register", "", "-P", "80"],
        &["register", "web", "-P", "0"],
        &["register", "web", "-P", "65536"],
        &["register", "web"],
        &["register", "web", "-P", "80", "-m", "novalue"],
        &["register", "web", "-P", "80", "--ttl", "0s"],
        &["register", "web", "-P", "80", "--ttl", "1s", "--", "true"],
    ] {
        let (code, said) = home.complains(args);
        assert_eq!(code, 2, "{args:?}\n{said}");
        assert!(said.starts_with("error: "), "{args:?}\n{said}");
    }
}

#[test]
fn a_service_that_is_not_renewed_expires() {
    let (home, _daemon) = Home::started();
    home.run(&["register", "web", "-P", "8080", "--ttl", "10ms"]).ended_with(0);
    wait_until("the end of web", || home.run(&["lookup", "web"]).code == 4);
    wait_for_services(&home, &[]);
}

#[test]
fn a_service_ends_with_its_command() {
    let (home, _daemon) = Home::started();
    let mut web = holding(&home, "echo up; read line; exit 7");
    web.wait_for_text("up");
    assert_eq!(services(&home), ["web"]);
    assert_eq!(
        home.prints(&["services", "-o", "plain"]).split('\t').next_back(),
        Some("while its command runs\n")
    );
    web.say("go");
    assert_eq!(web.wait(PATIENCE).code(), Some(7));
    wait_for_services(&home, &[]);
}

#[test]
fn the_commands_exit_code_is_passed_on() {
    let (home, _daemon) = Home::started();
    assert_eq!(holding(&home, "exit 0").wait(PATIENCE).code(), Some(0));
    wait_for_services(&home, &[]);
    assert_eq!(holding(&home, "kill -KILL $$").wait(PATIENCE).code(), Some(137));
    wait_for_services(&home, &[]);
    let missing = home.run(&["register", "web", "-P", "80", "--", "/no/such/command"]).ended_with(127);
    assert!(missing.stderr.starts_with("error: cannot run /no/such/command: "), "{missing:?}");
    home.run(&["register", "web", "-P", "80", "--", "/etc/passwd"]).ended_with(126);
    wait_for_services(&home, &[]);
}

#[test]
fn signals_are_forwarded_to_the_command() {
    let (home, _daemon) = Home::started();
    for (signal, code) in [(Signal::TERM, 9), (Signal::INT, 10), (Signal::HUP, 11)] {
        let script = "trap 'exit 9' TERM; trap 'exit 10' INT; trap 'exit 11' HUP; echo up; \
                      while :; do read line; done";
        let mut web = holding(&home, script);
        web.wait_for_text("up");
        web.signal(signal);
        assert_eq!(web.wait(PATIENCE).code(), Some(code));
        wait_for_services(&home, &[]);
    }
}

#[test]
fn a_service_ends_even_if_its_holder_is_killed() {
    let (home, _daemon) = Home::started();
    let mut web = holding(&home, "echo up; read line");
    web.wait_for_text("up");
    assert_eq!(services(&home), ["web"]);
    web.kill();
    wait_for_services(&home, &[]);
}

#[test]
fn a_held_service_is_registered_again_after_a_daemon_restart() {
    let (home, mut daemon) = Home::started();
    let mut web = holding(&home, "echo up; read line; exit 3");
    web.wait_for_text("up");
    daemon.kill();
    web.wait_for_text("note: the daemon has stopped; web will be registered again when it is back\n");
    let _next = home.daemon(&[]);
    wait_for_services(&home, &["web"]);
    web.wait_for_text("note: web is registered again\n");
    web.say("go");
    assert_eq!(web.wait(PATIENCE).code(), Some(3), "the command must not be affected by the restart");
}

#[test]
fn a_held_service_can_be_unregistered_by_others() {
    let (home, _daemon) = Home::started();
    let mut web = holding(&home, "echo up; read line; exit 3");
    web.wait_for_text("up");
    home.run(&["unregister", "web"]).ended_with(0);
    web.wait_for_text("note: web was unregistered by another command; this command keeps running\n");
    web.say("go");
    assert_eq!(web.wait(PATIENCE).code(), Some(3));
}

#[test]
fn without_a_daemon_the_command_does_not_run() {
    let home = Home::new();
    let said = home.run(&["register", "web", "-P", "8080", "--", "echo", "running"]).ended_with(3);
    assert_eq!(said.stdout, "");
}
