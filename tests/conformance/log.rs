//! The log of a foreground server: the events logged at each level, and the format of the lines.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::battery::{Case, case};
use crate::harness::PATIENCE;
use crate::harness::program::run;
use crate::stage::{Stage, now};
use crate::wire::{Alive2, alive2, dump, header, kill, names, packet, port2, stop};

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = always();
    cases.extend(levels());
    cases.extend(form());
    cases
}

/// An action against a server.
type Act = fn(&Stage<'_>);

/// Sends a request and waits for the end of the connection.
fn ask(t: &Stage<'_>, request: &[u8]) {
    t.ask_silently(request);
}

/// Sends a registration and waits for its answer.
fn register(t: &Stage<'_>, request: &Alive2) {
    let peer = t.dial("aside");
    peer.send(&request.bytes());
    peer.all_of(6);
}

/// Sends a request from an address that is not local.
fn ask_from_afar(t: &Stage<'_>, request: &[u8]) {
    let peer = t.dial_between("afar", "10.9.9.2", "10.9.9.1");
    peer.send(request);
    peer.all();
}

/// Events that are logged even without `-d`.
const ALWAYS: [(&str, Act); 24] = [
    ("connect and close", |t| drop(t.dial("aside"))),
    ("part of a length and close", |t| t.dial("aside").send(b"\0")),
    ("part of a request and close", |t| t.dial("aside").send(b"\0\x07zno")),
    ("length 0", |t| ask(t, &header(0))),
    ("length 3058", |t| ask(t, &header(3058))),
    ("surplus", |t| ask(t, &[names(), names()].concat())),
    ("unknown opcode", |t| ask(t, &packet("N"))),
    ("ALIVE2 too short", |t| ask(t, &packet("x"))),
    ("ALIVE2 with a name beyond the packet", |t| ask(t, &Alive2::new("n").name_length(9).bytes())),
    ("ALIVE2 with an extra field beyond the packet", |t| ask(t, &Alive2::new("n").extra_length(9).bytes())),
    ("ALIVE2 with NUL", |t| ask(t, &alive2("a\0b"))),
    ("ALIVE2 with bad UTF-8", |t| register(t, &Alive2::new(b"\xFF"))),
    ("ALIVE2 with 256 characters", |t| register(t, &Alive2::new("a".repeat(256)))),
    ("ALIVE2 with 1021 bytes", |t| register(t, &Alive2::new("a".repeat(1021)))),
    ("ALIVE2 with too much extra", |t| register(t, &Alive2::new("n").extra([0; 1021]))),
    ("ALIVE2 of a name in use", |t| register(t, &Alive2::new("holder"))),
    ("PORT2 without a name", |t| ask(t, &packet("z"))),
    ("PORT2 with NUL", |t| ask(t, &port2("a\0b"))),
    ("PORT2 with bad UTF-8", |t| ask(t, &port2(b"\xFF"))),
    ("KILL with a live node", |t| ask(t, &kill())),
    ("STOP not relaxed", |t| ask(t, &stop("holder"))),
    ("ALIVE2 from afar", |t| ask_from_afar(t, &alive2("far"))),
    ("DUMP from afar", |t| ask_from_afar(t, &dump())),
    ("KILL from afar", |t| ask_from_afar(t, &kill())),
];

/// Events that are additionally logged with one `-d`.
const DEBUGGING: [(&str, Act); 7] = [
    ("NAMES", |t| ask(t, &names())),
    ("PORT2 found", |t| ask(t, &port2("holder"))),
    ("PORT2 not found", |t| ask(t, &port2("nobody"))),
    ("DUMP", |t| ask(t, &dump())),
    ("a registration", |t| register(t, &Alive2::new("node"))),
    ("a registration and its end", |t| _ = t.remember("another")),
    ("data on a registered connection", |t| {
        let node = t.register("talker");
        node.peer.send(b"?");
        node.peer.all();
    }),
];

/// Waits for more complete lines than before; false if none appear.
fn grows(t: &Stage<'_>, before: usize) -> bool {
    let deadline = Instant::now() + Duration::from_secs(5);
    while t.server_log().matches('\n').count() <= before {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

/// Performs each action and notes whether something was logged.
fn note_growth(t: &Stage<'_>, acts: &[(&str, Act)]) {
    for (what, act) in acts {
        // Late lines of an earlier action must not count for this one.
        let before = lines_at_rest(t);
        act(t);
        t.note(&format!("{what}: {}", if grows(t, before) { "logged" } else { "not logged" }));
    }
}

/// The number of lines once it has stopped changing.
fn lines_at_rest(t: &Stage<'_>) -> usize {
    let mut before = usize::MAX;
    crate::harness::wait_within(PATIENCE, "the log to rest", || {
        std::thread::sleep(Duration::from_millis(5));
        let lines = t.server_log().matches('\n').count();
        std::mem::replace(&mut before, lines) == lines
    });
    before
}

fn logged(acts: &[(&'static str, Act)]) -> Vec<String> {
    acts.iter().map(|(what, _)| format!("{what}: logged")).collect()
}

fn always() -> Vec<Case> {
    // A few at a time, because a server may suppress lines in a flood.
    let always = ALWAYS.chunks(8).map(|acts| {
        let mut expected = logged(acts);
        expected.push("every line well-formed".to_owned());
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        case("what is always logged").expect(&expected).play(move |t| {
            let _holder = t.register("holder");
            note_growth(t, acts);
            note_form(t);
        })
    });
    let mut cases = vec![
        case("an allowed kill is logged")
            .expect(&["server: exit 0", "kill: logged", "every line well-formed"])
            .play(|t| {
                ask(t, &kill());
                t.server_ends();
                t.note(if t.server_log().is_empty() { "kill: not logged" } else { "kill: logged" });
                note_form(t);
            }),
        case("an address that cannot be had is logged")
            .nothing_started()
            .expect(&["stdout: nothing", "stderr: a line", "every line well-formed"])
            .play(|t| {
                let output = run(t.command(&["-address", "10.9.9.3"]));
                let log = String::from_utf8_lossy(&output.stderr).into_owned();
                t.note(if output.stdout.is_empty() { "stdout: nothing" } else { "stdout: something" });
                t.note(if log.is_empty() { "stderr: nothing" } else { "stderr: a line" });
                note_form_of(t, &log);
            }),
        case("what goes well is not logged").expect(&["log: empty"]).play(|t| {
            let _holder = t.register("holder");
            DEBUGGING[..6].iter().for_each(|(_, act)| act(t));
            assert!(t.names_text().is_some(), "the server does not answer");
            let log = t.server_log();
            t.note(&if log.is_empty() { "log: empty".to_owned() } else { format!("log: {log}") });
        }),
    ];
    cases.extend(always);
    cases
}

fn levels() -> Vec<Case> {
    let mut expected = vec!["start: logged".to_owned()];
    expected.extend(logged(&DEBUGGING));
    expected.push("stdout: empty".to_owned());
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    vec![
        case("what is logged with -d").args(&["-d"]).expect(&expected).play(|t| {
            t.note(if grows(t, 0) { "start: logged" } else { "start: not logged" });
            let _holder = t.register("holder");
            note_growth(t, &DEBUGGING);
            let stdout = t.server.as_ref().expect("a server").stdout();
            t.note(if stdout.is_empty() { "stdout: empty" } else { &stdout });
        }),
        case("a time-out is logged with -d")
            .alone()
            .args(&["-d", "-packet_timeout", "1"])
            .expect(&["time-out: logged"])
            .play(|t| {
                let silent = t.dial("silent");
                silent.send_apart(b"\0");
                let before = t.server_log().matches('\n').count();
                silent.all();
                t.note(if grows(t, before) { "time-out: logged" } else { "time-out: not logged" });
            }),
        // The third level is not specified; it must only not log less.
        case("further -d say more").nothing_started().expect(&["0 < 1 < 2 <= 3"]).play(|t| {
            let lines: Vec<usize> = [&[][..], &["-d"], &["-d", "-debug"], &["-d", "-d", "-d"]]
                .iter()
                .map(|args| {
                    t.start_with(args);
                    t.remember("node");
                    ask(t, &names());
                    let lines = lines_at_rest(t);
                    t.kill_server();
                    lines
                })
                .collect();
            let grows =
                lines[0] == 0 && lines[..3].is_sorted_by(|one, next| one < next) && lines[2] <= lines[3];
            t.note(&if grows { "0 < 1 < 2 <= 3".to_owned() } else { format!("{lines:?}") });
        }),
    ]
}

fn form() -> Vec<Case> {
    ["UTC0", "AHEAD-5:30", "BEHIND+8"]
        .map(|zone| {
            case("the time is local time in the form of ctime")
                .env("TZ", zone)
                .expect(&["stamp: the time of the event", "every line well-formed"])
                .play(move |t| {
                    let before = now();
                    ask(t, &header(0));
                    assert!(grows(t, 0), "nothing was logged");
                    let after = now();
                    let log = t.server_log();
                    let stamp = log.strip_prefix("epmd: ").and_then(|line| line.get(..24)).unwrap_or(&log);
                    let right = (before..=after).any(|second| ctime(zone, second) == stamp);
                    t.note(if right { "stamp: the time of the event" } else { stamp });
                    note_form(t);
                })
        })
        .into_iter()
        .collect()
}

/// The time in `ctime` format, from `date` as an independent implementation.
fn ctime(zone: &str, second: u32) -> String {
    let mut date = Command::new("date");
    date.env("TZ", zone).env("LC_ALL", "C").arg(format!("-d@{second}")).arg("+%a %b %e %H:%M:%S %Y");
    String::from_utf8_lossy(&run(date).stdout).trim_end().to_owned()
}

fn note_form(t: &Stage<'_>) {
    note_form_of(t, &t.server_log());
}

fn note_form_of(t: &Stage<'_>, log: &str) {
    match log.split_inclusive('\n').find(|line| !is_well_formed(line)) {
        None => t.note("every line well-formed"),
        Some(line) => t.note(&format!("ill-formed: {}", line.escape_debug())),
    }
}

/// `epmd: Fri Nov 20 14:26:53 2026: TEXT` and CR LF.
fn is_well_formed(line: &str) -> bool {
    let Some(rest) = line.strip_prefix("epmd: ").and_then(|rest| rest.strip_suffix("\r\n")) else {
        return false;
    };
    let Some((stamp, text)) = rest.split_at_checked(24) else {
        return false;
    };
    let digits = |range: std::ops::Range<usize>| stamp.as_bytes()[range].iter().all(u8::is_ascii_digit);
    let spaces = [3, 7, 10, 19].iter().all(|&at| stamp.as_bytes()[at] == b' ');
    stamp.is_ascii()
        && spaces
        && DAYS.contains(&&stamp[..3])
        && MONTHS.contains(&&stamp[4..7])
        && (digits(8..10) || (stamp.as_bytes()[8] == b' ' && digits(9..10)))
        && digits(11..13)
        && stamp.as_bytes()[13] == b':'
        && digits(14..16)
        && stamp.as_bytes()[16] == b':'
        && digits(17..19)
        && digits(20..24)
        && text.starts_with(": ")
        && text.len() > 2
}
