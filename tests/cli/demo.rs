//! `pmd demo`: a cluster that exists while the command runs and leaves nothing behind.

use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::harness::program::Program;
use crate::harness::{PATIENCE, wait_until};
use crate::support::Home;
use crate::terminal::Terminal;

/// `pmd demo`, with its own directory for temporary files.
struct Demo {
    home: Home,
    temporary: TempDir,
}

impl Demo {
    fn new() -> Demo {
        Demo { home: Home::new(), temporary: TempDir::new().expect("a folder") }
    }

    fn command(&self, words: &[&str]) -> std::process::Command {
        let mut command = self.home.command(&["demo"]);
        command.args(words).env("TMPDIR", self.temporary.path());
        command
    }

    /// The processes that have this test's directory in their environment: the daemons and the nodes.
    fn processes(&self) -> Vec<(i32, String)> {
        let marker = self.temporary.path().as_os_str().as_encoded_bytes();
        let numbers = std::fs::read_dir("/proc").expect("processes").flatten();
        let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let found = numbers.filter_map(|pid| {
            let file = |name: &str| std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
            let mine = file("environ").windows(marker.len()).any(|bytes| bytes == marker);
            mine.then(|| (pid, String::from_utf8_lossy(&file("cmdline")).replace('\0', " ")))
        });
        found.collect()
    }

    fn left(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.temporary.path()).expect("a folder");
        entries.map(|entry| entry.expect("an entry").path()).collect()
    }

    /// Waits until no process and no file of it remains.
    fn leaves_nothing(&self) {
        wait_until("all processes to end", || self.processes().is_empty());
        assert_eq!(self.left(), Vec::<PathBuf>::new());
    }

    fn kill_daemon(&self, home: &Path) {
        let home = home.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
        let name = format!("PMD_HOST_NAME={home}");
        let (pid, _) = self
            .processes()
            .into_iter()
            .find(|(pid, words)| {
                let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
                words.contains("start --foreground")
                    && environment.split(|byte| *byte == 0).any(|variable| variable == name.as_bytes())
            })
            .unwrap_or_else(|| panic!("no daemon of {home}"));
        kill_process(Pid::from_raw(pid).expect("a pid"), Signal::KILL).expect("killing the process");
    }
}

#[test]
fn three_daemons_are_shown_and_one_key_stops_them() {
    let demo = Demo::new();
    let mut terminal = Terminal::run(&demo.command(&["3"]), 100, 30);
    terminal.wait_for("members 3 alive");
    for host in ["demo1 (this one)", "demo2", "demo3", "all 2 peers agree"] {
        terminal.wait_for(host);
    }
    terminal.wait_until("a name on each", |screen| {
        let lines = screen.lines().filter(|line| line.starts_with("demo") && line.contains("alive"));
        lines
            .filter(|line| line.split("alive").nth(1).is_some_and(|rest| rest.trim().starts_with('1')))
            .count()
            == 3
    });
    terminal.type_keys("2");
    for node in ["node1", "node2", "node3"] {
        terminal.wait_for(node);
    }
    // A daemon that dies is shown, and does not affect the clean-up.
    terminal.type_keys("1");
    let folder = demo.left().pop().expect("the directory of the demo");
    demo.kill_daemon(&folder.join("demo3"));
    terminal.wait_for("1 down");
    terminal.type_keys("q");
    terminal.ends_in_order();
    demo.leaves_nothing();
}

#[test]
fn a_signal_a_closed_pipe_or_a_lost_terminal_also_stops_it() {
    let started = |demo: &Demo| {
        let mut program = Program::spawn_listening(demo.command(&["2", "--no-erlang"]));
        wait_until("what to try", || {
            assert!(program.is_running(), "it ended");
            program.stdout().lines().count() == 3
        });
        program
    };
    let demo = Demo::new();
    let mut program = started(&demo);
    let line = program.stdout().lines().next().expect("a line").to_owned();
    let words = line.split_once("PMD_HOME=").expect("a suggested command").1.replace(" pmd ", " ");
    let (home, words) = words.split_once(' ').expect("a home and words");
    let mut command = std::process::Command::new(crate::harness::pmd());
    command.env("PMD_HOME", home).args(words.split_whitespace());
    let nodes = crate::support::said(command).ended_with(0).stdout;
    assert!(nodes.contains("demo1 (this one)") && nodes.contains("demo2"), "{nodes}");
    let page = program.stdout().lines().last().expect("a line").to_owned();
    assert!(page.starts_with("page    http://127.0.0.1:"), "{page}");
    program.signal(Signal::TERM);
    assert_eq!(program.wait(PATIENCE).code(), Some(0));
    demo.leaves_nothing();

    // Closes this test's end of the pipe.
    let mut child = demo.command(&["1", "--no-erlang"]);
    let mut child = child
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("the program");
    drop(child.stdin.take());
    assert_eq!(Program::adopt(child, "pmd demo with a closed pipe").wait(PATIENCE).code(), Some(0));
    demo.leaves_nothing();

    let mut terminal = Terminal::run(&demo.command(&["2", "--no-erlang"]), 80, 24);
    terminal.wait_for("members 2 alive");
    assert_eq!(terminal.hang_up().wait(PATIENCE).code(), Some(0));
    demo.leaves_nothing();
}

/// The line is run as it is printed.
#[test]
fn the_erlang_shell_that_is_printed_reaches_the_nodes() {
    let demo = Demo::new();
    let mut program = Program::spawn_listening(demo.command(&["2"]));
    let mut line = None;
    wait_until("what to try", || {
        assert!(program.is_running(), "it ended");
        line = program.stdout().lines().find_map(|line| Some(line.strip_prefix("erlang  ")?.to_owned()));
        line.is_some()
    });
    let line = line.expect("a line");
    let (script, question) = line.split_once("   # then: ").expect("a question");
    let question = question.trim_end_matches('.');
    assert_eq!(question, "net_adm:ping('node2@demo2')");
    let flags = format!("-noshell -eval 'io:format(\"~p~n\", [{question}]), halt().'");
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &format!("{script} {flags}")]);
    let answer = crate::support::said(command).ended_with(0).stdout;
    assert_eq!(answer.lines().last(), Some("pong"), "{answer}");
    program.signal(Signal::TERM);
    assert_eq!(program.wait(PATIENCE).code(), Some(0));
    demo.leaves_nothing();
}

#[test]
fn children_do_not_outlive_a_killed_parent() {
    let demo = Demo::new();
    let mut terminal = Terminal::run(&demo.command(&["2"]), 80, 24);
    terminal.wait_for("members 2 alive");
    wait_until("the nodes", || {
        demo.processes().iter().filter(|(_, words)| words.contains("beam")).count() >= 2
    });
    terminal.program.kill();
    wait_until("all processes to end", || demo.processes().is_empty());
}
