//! The port that server and client use.

use crate::battery::{Case, Divergence, case};
use crate::harness::program::run;
use crate::harness::wait_until;
use crate::sockets;
use crate::stage::{Stage, ending};
use crate::wire::names;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = accepted();
    cases.extend(refused());
    cases
}

/// A port in the environment or after `-port`, the port that is bound, and the port that is reported.
fn accepted() -> Vec<Case> {
    let port =
        |name: &'static str, args: &'static [&'static str], env: Option<&'static str>, bound: u16, header| {
            let case = case(name).args(args).port(bound).expect(&[header]).play(|t| t.ask("names", &names()));
            match env {
                Some(value) => case.env("ERL_EPMD_PORT", value),
                None => case,
            }
        };
    vec![
        port("the default port", &[], None, 4369, r"names: \x00\x00\x11\x11 eof"),
        port("a port from the environment", &[], Some("5002"), 5002, r"names: \x00\x00\x13\x8a eof"),
        port(
            "a port with a tail from the environment",
            &[],
            Some("5002x"),
            5002,
            r"names: \x00\x00\x13\x8a eof",
        ),
        port(
            "a port with a fraction from the environment",
            &[],
            Some("5002.9"),
            5002,
            r"names: \x00\x00\x13\x8a eof",
        ),
        port(
            "a port with a space from the environment",
            &[],
            Some(" 5002 "),
            5002,
            r"names: \x00\x00\x13\x8a eof",
        ),
        port(
            "a port with a sign from the environment",
            &[],
            Some("+5002"),
            5002,
            r"names: \x00\x00\x13\x8a eof",
        ),
        port(
            "a port above 65535 from the environment",
            &[],
            Some("70000"),
            4464,
            r"names: \x00\x01\x11p eof",
        ),
        port("a port below 0 from the environment", &[], Some("-5"), 65531, r"names: \xff\xff\xff\xfb eof"),
        port("a port above 32 bits", &[], Some("4294971665"), 4369, r"names: \x00\x00\x11\x11 eof"),
        port("a port far above 32 bits", &[], Some("99999999999"), 59391, r"names: Hv\xe7\xff eof"),
        port(
            "a given port above 32 bits",
            &["-port", "4294971665"],
            None,
            4369,
            r"names: \x00\x00\x11\x11 eof",
        ),
        port("a given port", &["-port", "5001"], None, 5001, r"names: \x00\x00\x13\x89 eof"),
        port("a given port with a tail", &["-port", "5002x"], None, 5002, r"names: \x00\x00\x13\x8a eof"),
        port("a given port above 65535", &["-port", "70000"], None, 4464, r"names: \x00\x01\x11p eof"),
        port(
            "a given port beats the environment",
            &["-port", "5001"],
            Some("5002"),
            5001,
            r"names: \x00\x00\x13\x89 eof",
        ),
        port(
            "a given port beats nonsense in the environment",
            &["-port", "5001"],
            Some("x"),
            5001,
            r"names: \x00\x00\x13\x89 eof",
        ),
        port(
            "of two given ports the last counts",
            &["-port", "5001", "-port", "5002"],
            None,
            5002,
            r"names: \x00\x00\x13\x8a eof",
        ),
    ]
}

fn refused() -> Vec<Case> {
    let usage = |name: &'static str, value: &'static str| {
        case(name).nothing_started().expect(&["exit 1, usage on stderr"]).play(move |t| {
            let output = run(t.command(&["-port", value]));
            let usage = output.stdout.is_empty() && String::from_utf8_lossy(&output.stderr).contains("-port");
            t.note(&format!("{}{}", ending(output.status), if usage { ", usage on stderr" } else { "" }));
        })
    };
    let garbage = |name: &'static str, value: &'static str| {
        case(name)
            .nothing_started()
            .env("ERL_EPMD_PORT", value)
            .expect(&["two unasked-for ports"])
            .diverges(
                Divergence::GarbagePort,
                &["exit 1, with a message"],
                "a server on an unknown port is worse than one that does not start",
            )
            .play(note_garbage)
    };
    vec![
        usage("a given port of 0", "0"),
        usage("a given port that is a word", "epmd"),
        usage("a given port that is empty", ""),
        case("a missing port").nothing_started().expect(&["exit 1, usage on stderr"]).play(|t| {
            let output = run(t.command(&["-port"]));
            let usage = output.stdout.is_empty() && String::from_utf8_lossy(&output.stderr).contains("-port");
            t.note(&format!("{}{}", ending(output.status), if usage { ", usage on stderr" } else { "" }));
        }),
        garbage("a port of 0 in the environment", "0"),
        garbage("a word for a port in the environment", "epmd"),
        garbage("an empty port in the environment", ""),
        // Root is refused a port below 1024 only without this one capability.
        case("a privileged port")
            .nothing_started()
            .wrapped(&["setpriv", "--bounding-set=-net_bind_service", "--inh-caps=-net_bind_service"])
            .expect(&["exit 1, with a message"])
            .play(|t| {
                let output = run(t.command(&["-port", "900"]));
                let message = if output.stderr.is_empty() { "" } else { ", with a message" };
                t.note(&format!("{}{message}", ending(output.status)));
            }),
    ]
}

fn note_garbage(t: &mut Stage<'_>) {
    let mut server = crate::harness::program::Program::spawn(t.command(&[]));
    wait_until("listeners or an end", || !server.is_running() || sockets::all_listeners().len() >= 2);
    if server.is_running() {
        let ports: std::collections::BTreeSet<u16> =
            sockets::all_listeners().iter().map(std::net::SocketAddr::port).collect();
        let unasked_for = ports.len() == 2 && !ports.contains(&4369);
        t.note(&if unasked_for { "two unasked-for ports".to_owned() } else { format!("ports {ports:?}") });
    } else {
        let status = server.wait(crate::harness::PATIENCE);
        let message = if server.stderr().is_empty() { "" } else { ", with a message" };
        t.note(&format!("{}{message}", ending(status)));
    }
}
