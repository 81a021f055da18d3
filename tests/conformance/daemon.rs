//! The background server, and how signals end servers.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{ErrorKind, Read};
use std::process::{Command, Stdio};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process};

use crate::battery::{Case, case};
use crate::harness::program::{Program, run};
use crate::harness::{PATIENCE, wait_until};
use crate::sockets;
use crate::stage::{Stage, ending, said};
use crate::wire::{kill, names};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = launches();
    cases.extend(failures());
    cases.extend(signals());
    cases
}

/// Runs the launcher to its end, notes its output, waits for the daemon and returns its process id.
fn launch(t: &mut Stage<'_>, args: &[&str]) -> Pid {
    let output = run(t.command(args));
    t.note(&format!("launcher: {}", said(&output)));
    t.wait_until_listening();
    only_process(t)
}

fn only_process(t: &Stage<'_>) -> Pid {
    let mut found = Vec::new();
    wait_until("exactly one process", || {
        found = t.netns.processes();
        found.len() == 1
    });
    found[0]
}

fn proc_file(pid: Pid, name: &str) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/{name}")).expect("a running process");
    String::from_utf8_lossy(&bytes).into_owned()
}

fn launches() -> Vec<Case> {
    vec![
        case("a daemon is started silently and answers")
            .nothing_started()
            .expect(&["launcher: exit 0", r"names: \x00\x00\x11\x11 eof", "kill: OK eof", "ended"])
            .play(|t| {
                launch(t, &["-daemon"]);
                t.ask("names", &names());
                t.ask("kill", &kill());
                wait_until("the end of the daemon", || t.netns.processes().is_empty());
                t.note("ended");
            }),
        case("flags apply to a daemon, wherever they stand")
            .nothing_started()
            .port(5001)
            .expect(&["launcher: exit 0", "kill: OK eof"])
            .play(|t| {
                launch(t, &["-relaxed_command_check", "-daemon", "-port", "5001", "-packet_timeout", "9"]);
                let _node = t.register("node");
                t.ask("kill", &kill());
            }),
        case("a daemon says nothing even when debugging")
            .nothing_started()
            .expect(&["launcher: exit 0", r"names: \x00\x00\x11\x11 eof"])
            .play(|t| {
                launch(t, &["-d", "-d", "-daemon"]);
                t.ask("names", &names());
            }),
        case("a daemon is detached")
            .nothing_started()
            .expect(&[
                "launcher: exit 0",
                "directory: /",
                "umask: 0000",
                "0: /dev/null, read",
                "1: /dev/null, write",
                "2: /dev/null, write",
                "session: not its own, not ours",
                "parent: not ours",
                "name: epmd",
            ])
            .play(|t| {
                let pid = launch(t, &["-daemon"]);
                let link = |name: &str| std::fs::read_link(format!("/proc/{pid}/{name}")).expect("a process");
                t.note(&format!("directory: {}", link("cwd").display()));
                let status = proc_file(pid, "status");
                let umask = status.lines().find_map(|line| line.strip_prefix("Umask:")).unwrap_or("?");
                t.note(&format!("umask: {}", umask.trim()));
                for descriptor in 0..3 {
                    let target = link(&format!("fd/{descriptor}"));
                    let info = proc_file(pid, &format!("fdinfo/{descriptor}"));
                    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap_or("?");
                    let mode = match flags.trim().chars().last() {
                        Some('0') => "read",
                        Some('1') => "write",
                        Some('2') => "both",
                        _ => "?",
                    };
                    t.note(&format!("{descriptor}: {}, {mode}", target.display()));
                }
                note_family(t, pid);
                t.note(&format!("name: {}", proc_file(pid, "comm").trim()));
            }),
        case("a daemon keeps its environment")
            .nothing_started()
            .expect(&["launcher: exit 0", "environment: as given"])
            .play(|t| {
                let mut command = t.command(&["-daemon"]);
                let home = t.dir.path().as_os_str().to_owned();
                let given = [("PMD_HOME", home.as_os_str()), ("HOME", &home), ("MARK", OsStr::new("a b"))];
                command.env_clear().envs(given);
                t.note(&format!("launcher: {}", said(&run(command))));
                t.wait_until_listening();
                let given: BTreeSet<String> =
                    given.iter().map(|(name, value)| format!("{name}={}", value.display())).collect();
                let environment = proc_file(only_process(t), "environ");
                let kept: BTreeSet<String> = environment.split_terminator('\0').map(str::to_owned).collect();
                let same = kept == given;
                t.note(&if same {
                    "environment: as given".to_owned()
                } else {
                    format!("environment: {kept:?}")
                });
            }),
        // A caller that reads the launcher's output to its end must not wait for the daemon.
        case("a daemon lets go of every descriptor")
            .nothing_started()
            .expect(&["launcher: exit 0", "pipe: end", r"names: \x00\x00\x11\x11 eof"])
            .play(|t| {
                let plain = t.command(&["-daemon"]);
                let (mut reader, writer) = std::io::pipe().expect("a pipe");
                let mut command = Command::new("sh");
                command.args(["-c", "exec \"$@\" 3>&1 7>&1 9>&1", "sh"]);
                command.arg(plain.get_program()).args(plain.get_args());
                command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
                command.stdin(Stdio::null()).stderr(writer.try_clone().expect("a descriptor")).stdout(writer);
                let child = command.spawn().expect("a shell");
                drop(command);
                let mut launcher = Program::adopt(child, "the launcher");
                let status = launcher.wait(PATIENCE);
                t.note(&format!("launcher: {}", ending(status)));
                let flags = fcntl_getfl(&reader).expect("an open pipe");
                fcntl_setfl(&reader, flags | OFlags::NONBLOCK).expect("an open pipe");
                let mut said = Vec::new();
                wait_until("the end of the pipe", || {
                    let mut buffer = [0; 1024];
                    match reader.read(&mut buffer) {
                        Ok(0) => true,
                        Ok(count) => {
                            said.extend(&buffer[..count]);
                            false
                        }
                        Err(error) if error.kind() == ErrorKind::WouldBlock => false,
                        Err(error) => panic!("reading a pipe: {error}"),
                    }
                });
                let said = String::from_utf8_lossy(&said).into_owned();
                t.note(&if said.is_empty() { "pipe: end".to_owned() } else { format!("pipe: {said}") });
                t.wait_until_listening();
                t.ask("names", &names());
            }),
        case("the name of a server in the foreground").expect(&["name: epmd"]).play(|t| {
            let pid = Pid::from_raw(i32::try_from(t.server_pid()).expect("a pid")).expect("a pid");
            t.note(&format!("name: {}", proc_file(pid, "comm").trim()));
        }),
    ]
}

/// Notes that a process is not a session leader, is not in the test's session, and is not the test's child.
fn note_family(t: &Stage<'_>, pid: Pid) {
    let numbers = |pid: &str| -> Vec<i64> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
        let rest = stat.rsplit(')').next().unwrap_or_default().to_owned();
        rest.split_whitespace().skip(1).take(3).filter_map(|number| number.parse().ok()).collect()
    };
    let (its, ours) = (numbers(&pid.to_string()), numbers("self"));
    let own = its[2] == i64::from(pid.as_raw_nonzero().get());
    t.note(match (own, its[2] == ours[2]) {
        (true, _) => "session: its own",
        (_, true) => "session: ours",
        _ => "session: not its own, not ours",
    });
    t.note(if its[0] == i64::from(std::process::id()) { "parent: ours" } else { "parent: not ours" });
}

/// The launcher exits with 0 before the daemon detects the error.
fn failures() -> Vec<Case> {
    let fails = |name: &'static str, args: &'static [&'static str]| {
        case(name).nothing_started().expect(&["launcher: exit 0", "nothing is listening"]).play(move |t| {
            let output = run(t.command(args));
            t.note(&format!("launcher: {}", said(&output)));
            wait_until("the end of the daemon", || t.netns.processes().is_empty());
            let listeners = sockets::all_listeners();
            t.note(&if listeners.is_empty() {
                "nothing is listening".to_owned()
            } else {
                format!("{listeners:?}")
            });
        })
    };
    vec![
        fails("a daemon with a bad address", &["-daemon", "-address", "localhost"]),
        fails("a daemon with an address that is not this host's", &["-address", "10.9.9.3", "-daemon"]),
        case("a daemon beside another server")
            .expect(&["launcher: exit 0", "server: lives", "left: node", "node: open"])
            .play(|t| {
                let node = t.register("node");
                let output = run(t.command(&["-daemon"]));
                t.note(&format!("launcher: {}", said(&output)));
                wait_until("the end of the second", || t.netns.processes().len() == 1);
                t.server_lives();
                t.lists("left");
                t.stays_open(&node.peer);
            }),
        case("a daemon with an unknown flag")
            .nothing_started()
            .expect(&["launcher: exit 1, with usage", "launcher: exit 1, with usage", "no process"])
            .play(|t| {
                for args in [["-daemon", "-bogus"], ["-bogus", "-daemon"]] {
                    let output = run(t.command(&args));
                    let usage = output.stdout.is_empty() && !output.stderr.is_empty();
                    let usage = if usage { ", with usage" } else { "" };
                    t.note(&format!("launcher: {}{usage}", ending(output.status)));
                }
                t.note(if t.netns.processes().is_empty() { "no process" } else { "a process" });
            }),
    ]
}

fn signals() -> Vec<Case> {
    // The caller of the tests may have set them to ignored, as nohup and background jobs of a shell do.
    let usual = ["env", "--default-signal=HUP,INT,QUIT"];
    let ends = |name: &'static str, signal: Signal, expected: &'static str| {
        case(name).wrapped(&usual).expect(&["node: eof", expected]).play(move |t| {
            let node = t.register("node");
            t.signal(signal);
            node.peer.reads_to_end();
            t.server_ends();
        })
    };
    vec![
        ends("SIGTERM in the foreground", Signal::TERM, "server: signal 15"),
        ends("SIGINT in the foreground", Signal::INT, "server: signal 2"),
        ends("SIGHUP in the foreground", Signal::HUP, "server: signal 1"),
        ends("SIGUSR1 in the foreground", Signal::USR1, "server: signal 10"),
        ends("SIGQUIT in the foreground", Signal::QUIT, "server: signal 3"),
        case("SIGPIPE is ignored").expect(&["server: lives"]).play(|t| {
            t.signal(Signal::PIPE);
            t.server_lives();
        }),
        case("a daemon ignores SIGHUP and SIGPIPE, and ends by SIGTERM")
            .nothing_started()
            .expect(&[
                "launcher: exit 0",
                r"after SIGHUP: \x00\x00\x11\x11 eof",
                r"after SIGPIPE: \x00\x00\x11\x11 eof",
                "ended",
            ])
            .play(|t| {
                let pid = launch(t, &["-daemon"]);
                for (what, signal) in [("after SIGHUP", Signal::HUP), ("after SIGPIPE", Signal::PIPE)] {
                    kill_process(pid, signal).expect("the daemon of this case");
                    t.ask(what, &names());
                }
                kill_process(pid, Signal::TERM).expect("the daemon of this case");
                wait_until("the end of the daemon", || t.netns.processes().is_empty());
                t.note("ended");
            }),
    ]
}
