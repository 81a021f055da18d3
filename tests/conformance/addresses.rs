//! The addresses to listen on, and what happens when one is not available.

use std::net::{SocketAddr, TcpListener};

use crate::battery::{Case, Divergence, case};
use crate::harness::program::{Program, run};
use crate::harness::{PATIENCE, wait_until};
use crate::sockets;
use crate::stage::{Stage, ending, said};
use crate::wire::names;

const WHY_ONCE: &str = "a wildcard or a repeated address is not another epmd, so pmd listens on it once";
const WHY_REASON: &str = "a reader of the log needs to know why nothing was started";

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = lists();
    cases.extend(repeated());
    cases.extend(refused());
    cases.extend(taken());
    cases.extend(without_ipv6());
    cases
}

/// Starts a server and notes the addresses on which it listens, or how it ended.
fn note_listeners(t: &mut Stage<'_>, args: &[&str], env: &[(&str, &str)], count: usize) {
    let mut command = t.command(args);
    command.envs(env.iter().copied());
    let mut server = Program::spawn(command);
    // A server that will exit because of its last address listens briefly on the others, so it must also answer.
    wait_until("listeners or an end", || {
        !server.is_running() || (sockets::listeners(4369).len() >= count && t.names_text().is_some())
    });
    if server.is_running() {
        let listeners: Vec<String> = sockets::listeners(4369).iter().map(ToString::to_string).collect();
        t.note(&format!("listeners: {}", listeners.join(" ")));
    } else {
        t.note(&format!("server: {}", ending(server.wait(PATIENCE))));
    }
}

/// A case with a list in the environment and the same list after the flag.
fn listed(name: &'static str, list: &'static str, listeners: &'static str) -> Case {
    let line = format!("listeners: {listeners}");
    let count = listeners.split(' ').count();
    case(name).nothing_started().expect(&[&line, &line]).play(move |t| {
        note_listeners(t, &[], &[("ERL_EPMD_ADDRESS", list)], count);
        note_listeners(t, &["-address", list], &[], count);
    })
}

fn lists() -> Vec<Case> {
    vec![
        case("no list").nothing_started().expect(&["listeners: 0.0.0.0 ::"]).play(|t| {
            note_listeners(t, &[], &[], 2);
        }),
        listed("an empty list", "", "0.0.0.0 ::"),
        listed("a list of separators", " ,, , ", "0.0.0.0 ::"),
        listed("an IPv4 address", "10.9.9.1", "10.9.9.1 127.0.0.1 ::1"),
        listed("an IPv6 address", "fd00:9::1", "127.0.0.1 ::1 fd00:9::1"),
        listed("one of each", "fd00:9::1,10.9.9.1", "10.9.9.1 127.0.0.1 ::1 fd00:9::1"),
        listed(
            "mixed separators",
            " ,10.9.9.1, ,fd00:9::1  10.9.9.2,,",
            "10.9.9.1 10.9.9.2 127.0.0.1 ::1 fd00:9::1",
        ),
        listed("loopback itself", "127.0.0.1", "127.0.0.1 ::1"),
        listed("both loopbacks", "::1,127.0.0.1", "127.0.0.1 ::1"),
        listed("another loopback address", "127.0.0.2", "127.0.0.1 127.0.0.2 ::1"),
        listed(
            "13 addresses besides loopback",
            "127.0.1.1,127.0.1.2,127.0.1.3,127.0.1.4,127.0.1.5,127.0.1.6,127.0.1.7,127.0.1.8,127.0.1.9,\
             127.0.1.10,127.0.1.11,127.0.1.12,127.0.1.13",
            "127.0.0.1 127.0.1.1 127.0.1.2 127.0.1.3 127.0.1.4 127.0.1.5 127.0.1.6 127.0.1.7 127.0.1.8 \
             127.0.1.9 127.0.1.10 127.0.1.11 127.0.1.12 127.0.1.13 ::1",
        ),
        case("the flag replaces the environment")
            .nothing_started()
            .expect(&["listeners: 10.9.9.2 127.0.0.1 ::1", "listeners: 0.0.0.0 ::"])
            .play(|t| {
                let env = [("ERL_EPMD_ADDRESS", "10.9.9.1,fd00:9::1")];
                note_listeners(t, &["-address", "10.9.9.2"], &env, 3);
                note_listeners(t, &["-address", ""], &env, 2);
            }),
        case("every listed address answers")
            .nothing_started()
            .expect(&[
                r"10.9.9.1: \x00\x00\x11\x11 eof",
                r"fd00:9::1: \x00\x00\x11\x11 eof",
                r"127.0.0.1: \x00\x00\x11\x11 eof",
                r"::1: \x00\x00\x11\x11 eof",
            ])
            .play(|t| {
                t.start_with(&["-address", "10.9.9.1 fd00:9::1"]);
                for to in ["10.9.9.1", "fd00:9::1", "127.0.0.1", "::1"] {
                    let address = SocketAddr::new(to.parse().expect("an address"), 4369);
                    wait_until(to, || sockets::listeners(4369).contains(&address.ip()));
                    let client = t.dial_at(to, address);
                    client.send(&names());
                    client.reads_to_end();
                }
            }),
    ]
}

/// Stock's implicit loopback sockets collide with a wildcard, and a repeated address with itself; it takes either for
/// another epmd and exits with 0.
fn repeated() -> Vec<Case> {
    let once = |name: &'static str, list: &'static str, listeners: &'static str| {
        let line = format!("listeners: {listeners}");
        let count = listeners.split(' ').count();
        case(name)
            .nothing_started()
            .expect(&["server: exit 0"])
            .repaired(&[&line])
            .diverges(Divergence::RepeatedAddress, &[&line], WHY_ONCE)
            .play(move |t| note_listeners(t, &["-address", list], &[], count))
    };
    vec![
        once("the IPv4 wildcard in the list", "0.0.0.0", "0.0.0.0 ::1"),
        once("the IPv6 wildcard in the list", "::", "127.0.0.1 ::"),
        once("both wildcards in the list", "0.0.0.0,::", "0.0.0.0 ::"),
        once("a wildcard among others", "10.9.9.1,0.0.0.0", "0.0.0.0 ::1"),
        once("an address twice", "10.9.9.1,10.9.9.1", "10.9.9.1 127.0.0.1 ::1"),
        once("an IPv6 address twice", "fd00:9::1 fd00:9::1", "127.0.0.1 ::1 fd00:9::1"),
        once("an IPv6 address in two spellings", "fd00:9::1,fd00:9:0::1", "127.0.0.1 ::1 fd00:9::1"),
    ]
}

/// Unusable lists: exit 1 and a message.
fn refused() -> Vec<Case> {
    let refused = |name: &'static str, list: &'static str| {
        case(name).nothing_started().expect(&["flag: exit 1", "environment: exit 1", "a message each"]).play(
            move |t| {
                let by_flag = run(t.command(&["-address", list]));
                let mut command = t.command(&[]);
                command.env("ERL_EPMD_ADDRESS", list);
                let by_environment = run(command);
                t.note(&format!("flag: {}", ending(by_flag.status)));
                t.note(&format!("environment: {}", ending(by_environment.status)));
                let message = [&by_flag, &by_environment].iter().all(|output| !output.stderr.is_empty());
                t.note(if message { "a message each" } else { "no message" });
            },
        )
    };
    vec![
        refused("a host name", "localhost"),
        refused("a host name among addresses", "10.9.9.1,example.org"),
        refused("an incomplete address", "10.9.9"),
        refused("a number", "4369"),
        refused("an address with a port", "10.9.9.1:4369"),
        refused("an address in brackets", "[::1]"),
        refused("an address with a scope", "fe80::1%lo"),
        refused("an octet above 255", "10.9.9.256"),
        refused("an address that is not this host's", "10.9.9.3"),
        refused("an IPv6 address that is not this host's", "fd00:9::3"),
        refused(
            "14 addresses besides loopback",
            "127.0.1.1,127.0.1.2,127.0.1.3,127.0.1.4,127.0.1.5,127.0.1.6,127.0.1.7,127.0.1.8,127.0.1.9,\
             127.0.1.10,127.0.1.11,127.0.1.12,127.0.1.13,127.0.1.14",
        ),
    ]
}

/// An address is already in use: exit 0 and silence, whichever socket it is. pmd may give the reason in its log.
fn taken() -> Vec<Case> {
    let taken = |name: &'static str, occupant: &'static str, args: &'static [&'static str]| {
        case(name)
            .nothing_started()
            .expect(&["exit 0"])
            .diverges(Divergence::InUseReason, &["exit 0, with a reason on stderr"], WHY_REASON)
            .play(move |t| {
                let _occupant = TcpListener::bind(occupant).expect("a free address");
                note_in_use(t, args);
            })
    };
    vec![
        taken("the IPv4 wildcard is taken", "0.0.0.0:4369", &[]),
        taken("an IPv4 address below the wildcard is taken", "10.9.9.1:4369", &[]),
        taken("IPv4 loopback is taken", "127.0.0.1:4369", &[]),
        taken("IPv6 loopback is taken", "[::1]:4369", &[]),
        taken("an IPv6 address below the wildcard is taken", "[fd00:9::1]:4369", &[]),
        taken("IPv4 loopback is taken, and implied", "127.0.0.1:4369", &["-address", "10.9.9.1"]),
        taken("IPv6 loopback is taken, and implied", "[::1]:4369", &["-address", "10.9.9.1"]),
        taken("a listed address is taken", "10.9.9.1:4369", &["-address", "10.9.9.1"]),
        taken("the wildcard is taken, and loopback wanted", "0.0.0.0:4369", &["-address", "127.0.0.1"]),
        case("another server runs").expect(&["exit 0", "server: lives"]).play(|t| {
            note_in_use(t, &[]);
            t.server_lives();
        }),
        case("another server runs, told with -d")
            .expect(&["-d: exit 0, with a reason on stderr", "server: lives"])
            .play(|t| {
                let output = run(t.command(&["-d"]));
                let reason = !output.stderr.is_empty() && output.stdout.is_empty();
                let reason = if reason { ", with a reason on stderr" } else { "" };
                t.note(&format!("-d: {}{reason}", ending(output.status)));
                t.server_lives();
            }),
        case("an unrelated address is taken")
            .nothing_started()
            .expect(&["listeners: 10.9.9.1 127.0.0.1 ::1"])
            .play(|t| {
                // The occupant also appears among the listeners, on another port.
                let _occupant = TcpListener::bind("10.9.9.1:4370").expect("a free address");
                note_listeners(t, &["-address", "10.9.9.1"], &[], 3);
            }),
        case("a server that was killed leaves its port free at once")
            .expect(&["node: reset", "again: lives"])
            .play(|t| {
                let client = t.dial("node");
                client.send_apart(b"\0\x07zno");
                let waiting = t.register("waiting");
                t.kill_server();
                client.all();
                client.note("reset");
                t.start();
                drop(waiting);
                t.note(if t.names_text().is_some() { "again: lives" } else { "again: silent" });
            }),
    ]
}

fn note_in_use(t: &Stage<'_>, args: &[&str]) {
    let mut output = run(t.command(args));
    let reason = if output.stderr.is_empty() { "" } else { ", with a reason on stderr" };
    output.stderr.clear();
    t.note(&format!("{}{reason}", said(&output)));
}

fn without_ipv6() -> Vec<Case> {
    vec![
        // Failing to get an implied loopback address is not fatal.
        case("a list on a host without IPv6")
            .nothing_started()
            .without_ipv6()
            .expect(&["listeners: 10.9.9.1 127.0.0.1"])
            .play(|t| note_listeners(t, &["-address", "10.9.9.1"], &[], 2)),
        case("a list with an IPv6 address on a host without IPv6")
            .nothing_started()
            .without_ipv6()
            .expect(&["server: exit 1"])
            .play(|t| note_listeners(t, &["-address", "fd00:9::1"], &[], 3)),
        case("no list on a host without IPv6")
            .nothing_started()
            .without_ipv6()
            .expect(&["listeners: 0.0.0.0 ::"])
            .play(|t| note_listeners(t, &[], &[], 2)),
    ]
}
