//! The client commands: their output and exit status.

use std::os::unix::ffi::OsStrExt;

use rustix::pipe::{PipeFlags, pipe_with};

use crate::battery::{Case, case};
use crate::harness::PATIENCE;
use crate::harness::program::{Program, run};
use crate::pretenders;
use crate::stage::said;

const NOBODY: &str = r"exit 1, stderr epmd: Cannot connect to local epmd\n";

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = answered();
    cases.extend(unanswered());
    cases.extend(pretenders::cases());
    cases.extend(command_lines());
    cases
}

fn answered() -> Vec<Case> {
    vec![
        case("the commands with a server that is idle")
            .expect(&[
                r"names: exit 0, stdout epmd: up and running on port 4369 with data:\n",
                r"dump: exit 0, stdout epmd: up and running on port 4369 with data:\n",
                "started: exit 0",
                r"stop: exit 1, stdout epmd: local epmd responded with <>\n",
                r"kill: exit 0, stdout Killed\n",
                "server: exit 0",
            ])
            .play(|t| {
                t.runs("names", &["-names"]);
                t.runs("dump", &["-dump"]);
                t.runs("started", &["-started"]);
                t.runs("stop", &["-stop", "nobody"]);
                t.runs("kill", &["-kill"]);
                t.server_ends();
            }),
        case("the commands with a live node")
            .expect(&[
                r"names: exit 0, stdout epmd: up and running on port 4369 with data:\nname n\xc3\xa9 at port 4000\n",
                "started: exit 0",
                r"stop: exit 1, stdout epmd: local epmd responded with <>\n",
                r"kill: exit 1, stdout Killing not allowed - living nodes in database.\n",
                r"relaxed client: exit 1, stdout Killing not allowed - living nodes in database.\n",
                "server: lives",
                "node: open",
            ])
            .play(|t| {
                let node = t.register("n\u{E9}");
                t.runs("names", &["-names"]);
                t.runs("started", &["-started"]);
                t.runs("stop", &["-stop", "n\u{E9}"]);
                t.runs("kill", &["-kill"]);
                // The flag affects only the server, not a client.
                t.runs("relaxed client", &["-relaxed_command_check", "-kill"]);
                t.server_lives();
                t.note(if node.peer.has_news() { "node: disturbed" } else { "node: open" });
            }),
        case("the dump as it came, NUL bytes included")
            .expect(&[
                r"exit 0, stdout epmd: up and running on port 4369 with data:\n",
                r"active name     <node> at port 4000, fd = N\n",
                r"old/unused name <old>, port = 4000, fd = N \n",
                "each line ends with LF and NUL",
            ])
            .play(|t| {
                t.remember("old");
                let _node = t.register("node");
                let mut output = run(t.command(&["-dump"]));
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                let (first, rest) = text.split_once('\n').unwrap_or_default();
                output.stdout = format!("{first}\n").into_bytes();
                t.note(&said(&output));
                for line in rest.split_inclusive('\0') {
                    let digits = line.rsplit("fd = ").next().unwrap_or_default();
                    let digits: String = digits.chars().take_while(char::is_ascii_digit).collect();
                    let line = line.replace(&format!("fd = {digits}"), "fd = N");
                    t.note(&line.trim_end_matches('\0').escape_default().to_string());
                }
                let ends = rest.split_inclusive('\0').all(|line| line.ends_with("\n\0"));
                t.note(if ends { "each line ends with LF and NUL" } else { rest });
            }),
        case("stop with a relaxed server")
            .args(&["-relaxed_command_check"])
            .expect(&[
                r"node: exit 0, stdout STOPPED\n",
                r"unknown: exit 0, stdout NOEXIST\n",
                r"empty: exit 1, stdout epmd: local epmd responded with <>\n",
                r"1000 bytes: exit 0, stdout NOEXIST\n",
                "1001 bytes: exit 1, stdout epmd: Name too long!",
                "left: other",
            ])
            .play(|t| {
                let _nodes = ["node", "other"].map(|name| t.register(name));
                t.runs("node", &["-stop", "node"]);
                t.runs("unknown", &["-stop", "nobody"]);
                t.runs("empty", &["-stop", ""]);
                t.runs("1000 bytes", &["-stop", &"a".repeat(1000)]);
                t.runs("1001 bytes", &["-stop", &"a".repeat(1001)]);
                t.lists("left");
            }),
        case("kill with a relaxed server and a live node")
            .args(&["-relaxed_command_check"])
            .expect(&[r"kill: exit 0, stdout Killed\n", "server: exit 0"])
            .play(|t| {
                let _node = t.register("node");
                t.runs("kill", &["-kill"]);
                t.server_ends();
            }),
        case("the port printed is the one the server reports")
            .nothing_started()
            .expect(&[
                r"70000: exit 0, stdout epmd: up and running on port 70000 with data:\n",
                r"4464: exit 0, stdout epmd: up and running on port 70000 with data:\n",
                r"-5: exit 0, stdout epmd: up and running on port -5 with data:\n",
            ])
            .play(|t| {
                let mut server = t.command(&[]);
                server.env("ERL_EPMD_PORT", "70000");
                t.server = Some(Program::spawn(server));
                t.wait_until_listening_at(4464);
                t.runs("70000", &["-port", "70000", "-names"]);
                t.runs("4464", &["-port", "4464", "-names"]);
                let mut server = t.command(&[]);
                server.env("ERL_EPMD_PORT", "-5");
                t.server = Some(Program::spawn(server));
                t.wait_until_listening_at(65531);
                t.runs("-5", &["-port", "65531", "-names"]);
            }),
        case("the client's port comes from the flag or the environment")
            .args(&["-port", "5001"])
            .port(5001)
            .expect(&[
                r"flag: exit 0, stdout epmd: up and running on port 5001 with data:\n",
                r"environment: exit 0, stdout epmd: up and running on port 5001 with data:\n",
                &format!("default: {NOBODY}"),
                r"addressed: exit 0, stdout epmd: up and running on port 5001 with data:\n",
            ])
            .play(|t| {
                t.runs("flag", &["-port", "5001", "-names"]);
                let mut command = t.command(&["-names"]);
                command.env("ERL_EPMD_PORT", "5001");
                t.note(&format!("environment: {}", said(&run(command))));
                t.runs("default", &["-names"]);
                // A client ignores the listen list, even an invalid one.
                t.runs("addressed", &["-address", "nonsense", "-port", "5001", "-names"]);
            }),
        one_write(),
    ]
}

/// Some programs read only the first chunk of the output. A pipe in packet mode preserves write boundaries.
fn one_write() -> Case {
    case("the output is one write").expect(&["names: 1 write, 31 lines", "dump: 1 write, 31 lines"]).play(
        |t| {
            let _nodes: Vec<_> = (0..30).map(|number| t.register(format!("node{number}"))).collect();
            for command in ["names", "dump"] {
                let (reader, writer) = pipe_with(PipeFlags::DIRECT | PipeFlags::CLOEXEC).expect("a pipe");
                let mut process = t.command(&[&format!("-{command}")]);
                process.stdin(std::process::Stdio::null()).stdout(writer);
                let child = process.spawn().expect("the program under test");
                drop(process);
                let mut program = Program::adopt(child, command);
                let mut writes = Vec::new();
                loop {
                    let mut buffer = [0; 8192];
                    match rustix::io::read(&reader, &mut buffer).expect("an open pipe") {
                        0 => break,
                        count => writes.push(buffer[..count].to_vec()),
                    }
                }
                program.wait(PATIENCE);
                let lines = writes.concat().iter().filter(|&&byte| byte == b'\n').count();
                let plural = if writes.len() == 1 { "" } else { "s" };
                t.note(&format!("{command}: {} write{plural}, {lines} lines", writes.len()));
            }
        },
    )
}

fn unanswered() -> Vec<Case> {
    vec![
        case("the commands without a server")
            .nothing_started()
            .expect(&[
                &format!("names: {NOBODY}"),
                &format!("dump: {NOBODY}"),
                "started: exit 1",
                &format!("kill: {NOBODY}"),
                &format!("stop: {NOBODY}"),
                "long name: exit 1, stdout epmd: Name too long!",
            ])
            .play(|t| {
                t.runs("names", &["-names"]);
                t.runs("dump", &["-dump"]);
                t.runs("started", &["-started"]);
                t.runs("kill", &["-kill"]);
                t.runs("stop", &["-stop", "node"]);
                t.runs("long name", &["-stop", &"a".repeat(1001)]);
            }),
    ]
}

fn command_lines() -> Vec<Case> {
    let usage = |name: &'static str, lines: Vec<Vec<&'static str>>| {
        let expected: Vec<String> = lines.iter().map(|args| format!("{args:?}: usage")).collect();
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        case(name).expect(&expected).play(move |t| {
            for args in &lines {
                let output = run(t.command(args));
                let text = String::from_utf8_lossy(&output.stderr).into_owned();
                let usage = output.status.code() == Some(1)
                    && output.stdout.is_empty()
                    && text.contains("usage")
                    && text.contains("-relaxed_command_check");
                t.note(&format!("{args:?}: {}", if usage { "usage".to_owned() } else { said(&output) }));
            }
        })
    };
    vec![
        usage(
            "words that are no flags",
            vec![
                vec!["-h"],
                vec!["-help"],
                vec!["--help"],
                vec!["-version"],
                vec!["--version"],
                vec!["-Names"],
                vec!["--names"],
                vec!["names"],
                vec![""],
                vec!["-"],
                vec!["--"],
                vec!["-d", "extra"],
                vec!["-dd"],
            ],
        ),
        usage(
            "commands that are not at the end",
            vec![
                vec!["-names", "-d"],
                vec!["-names", "-port", "4369"],
                vec!["-dump", "x"],
                vec!["-started", "x"],
                vec!["-kill", "x"],
                vec!["-names", "-names"],
                vec!["-stop"],
                vec!["-stop", "a", "b"],
            ],
        ),
        usage(
            "flags whose value is missing or wrong",
            vec![
                vec!["-port"],
                vec!["-address"],
                vec!["-packet_timeout"],
                vec!["-packet_timeout", "0"],
                vec!["-packet_timeout", "soon"],
                vec!["-delay_accept"],
                vec!["-delay_accept", "0"],
                vec!["-delay_accept", "x"],
                vec!["-delay_write"],
                vec!["-delay_write", "0"],
                vec!["-delay_write", "x"],
            ],
        ),
        usage(
            "an unknown flag in front of a command",
            vec![vec!["-bogus", "-names"], vec!["-d", "-bogus", "-kill"]],
        ),
        case("the usage text names every flag")
            .nothing_started()
            .needs_systemd()
            .expect(&["all named"])
            .play(|t| {
                let output = run(t.command(&["-help"]));
                let text = String::from_utf8_lossy(&output.stderr).into_owned();
                let flags = [
                    "-d",
                    "-debug",
                    "-daemon",
                    "-port",
                    "-address",
                    "-relaxed_command_check",
                    "-systemd",
                    "-packet_timeout",
                    "-delay_accept",
                    "-delay_write",
                    "-names",
                    "-kill",
                    "-stop",
                ];
                let missing: Vec<&&str> = flags.iter().filter(|flag| !text.contains(**flag)).collect();
                t.note(&if missing.is_empty() {
                    "all named".to_owned()
                } else {
                    format!("missing {missing:?}")
                });
            }),
        case("flags in front of a command")
            .expect(&[
                r"-d: exit 0, stdout epmd: up and running on port 4369 with data:\n",
                r"-debug: exit 0, stdout epmd: up and running on port 4369 with data:\n",
                r"-daemon: exit 0, stdout epmd: up and running on port 4369 with data:\n",
                r"timeout: exit 0, stdout epmd: up and running on port 4369 with data:\n",
                r"delays: exit 0, stdout epmd: up and running on port 4369 with data:\n",
                &format!("last port: {NOBODY}"),
            ])
            .play(|t| {
                t.runs("-d", &["-d", "-names"]);
                t.runs("-debug", &["-debug", "-names"]);
                t.runs("-daemon", &["-daemon", "-names"]);
                t.runs("timeout", &["-packet_timeout", "1", "-names"]);
                t.runs("delays", &["-delay_accept", "1", "-delay_write", "1", "-names"]);
                t.runs("last port", &["-port", "4369", "-port", "5001", "-names"]);
            }),
        case("odd values that are accepted")
            .args(&["-relaxed_command_check"])
            .expect(&[
                "-packet_timeout 5x: exit 0",
                "-packet_timeout -3: exit 0",
                "-delay_write 1x: exit 0",
                "-delay_write -1: exit 0",
                "-delay_accept -1: exit 0",
                "-address : exit 0",
                "-port 4369x: exit 0",
                "-port  4369: exit 0",
                "-port +4369: exit 0",
                "-daemon -daemon: exit 0",
                r"stop of -names: exit 0, stdout NOEXIST\n",
                r"stop of two lines: exit 0, stdout NOEXIST\n",
                r"stop of bad UTF-8: exit 0, stdout NOEXIST\n",
                "address in bad UTF-8: exit 0",
            ])
            .play(|t| {
                let pairs = [
                    ["-packet_timeout", "5x"],
                    ["-packet_timeout", "-3"],
                    ["-delay_write", "1x"],
                    ["-delay_write", "-1"],
                    ["-delay_accept", "-1"],
                    ["-address", ""],
                    ["-port", "4369x"],
                    ["-port", " 4369"],
                    ["-port", "+4369"],
                    ["-daemon", "-daemon"],
                ];
                for [flag, value] in pairs {
                    t.runs(&format!("{flag} {value}"), &[flag, value, "-started"]);
                }
                t.runs("stop of -names", &["-stop", "-names"]);
                t.runs("stop of two lines", &["-stop", "a\nb"]);
                let strange = std::ffi::OsStr::from_bytes(b"\xFF\xFE");
                let mut command = t.command(&["-stop"]);
                command.arg(strange);
                t.note(&format!("stop of bad UTF-8: {}", said(&run(command))));
                let mut command = t.command(&["-address"]);
                command.arg(strange).arg("-started");
                t.note(&format!("address in bad UTF-8: {}", said(&run(command))));
            }),
        case("a flag for systemd without its sockets, beside a server")
            .needs_systemd()
            .expect(&["exit 0"])
            .play(|t| {
                let output = run(t.command(&["-systemd", "-relaxed_command_check", "-started"]));
                t.note(&said(&output));
            }),
        case("a server in the foreground is silent")
            .expect(&["stdout and stderr are empty", "server: lives"])
            .play(|t| {
                let node = t.register("node");
                t.ask_silently(&crate::wire::names());
                t.ask_silently(&crate::wire::port2("node"));
                drop(node);
                t.wait_until_unregistered(b"node");
                let log = t.server_log();
                t.note(if log.is_empty() { "stdout and stderr are empty" } else { &log });
                t.server_lives();
            }),
    ]
}
