//! Erlang and Elixir nodes that stay up and evaluate expressions for the test.
//!
//! The test talks to a node through standard input and output, not through the distribution, so that what is under test
//! cannot interfere. A node exits when its input closes, so none survives a test that is killed.

use std::process::Command;

use super::{advice, fixture, installed};
use crate::harness::netns::Host;
use crate::harness::program::{Program, run};
use crate::harness::wait_until;

/// Schedulers cost start-up time and memory, and no test here needs more than one.
pub const SMALL: [&str; 6] = ["+S", "1:1", "+SDio", "1", "+A", "1"];

/// A node that evaluates expressions.
#[derive(Debug)]
pub struct Node {
    program: Program,
    questions: u32,
}

impl Node {
    /// Starts `erl ARGS` on a host and waits until it is up; a named node is then registered, too.
    pub fn erl(host: &Host, args: &[&str]) -> Node {
        let mut command = erl(host);
        command.args(args);
        Node::spawn(command)
    }

    /// Completes and starts the command of a node, made by [`erl`] or by a caller that needs its own.
    pub fn spawn(mut command: Command) -> Node {
        let answers = fixture("answers.erl");
        command.args(["-eval", &format!("ok = file:eval(\"{}\").", answers.display())]);
        Node::up(command)
    }

    /// Starts `elixir ARGS` on a host; expressions are Elixir there.
    pub fn elixir(host: &Host, args: &[&str]) -> Node {
        let mut command = elixir(host);
        command.args(args).arg("--no-halt").arg(fixture("answers.exs"));
        Node::up(command)
    }

    /// Starts a complete command, and waits until the node is up.
    pub fn up(command: Command) -> Node {
        let mut node = Node { program: Program::spawn_listening(command), questions: 0 };
        node.answer("ready");
        node
    }

    /// Evaluates an expression on the node and returns its value as text; fails the test on an exception.
    pub fn ask(&mut self, expression: &str) -> String {
        self.questions += 1;
        let number = self.questions;
        // Each expression is one line; to erl_scan, spaces are as good as line ends.
        let line = expression.split('\n').map(str::trim).collect::<Vec<_>>().join(" ");
        self.program.say(&format!("{number} {line}"));
        let answer = self.answer(&format!("answer {number} "));
        match answer.split_once(' ') {
            Some(("value", value)) => value.to_owned(),
            _ => panic!("{expression}\nended with {answer}\nin {}", self.program.what()),
        }
    }

    /// Waits for a complete line of standard output that begins with `prefix`; returns the rest of that line.
    fn answer(&mut self, prefix: &str) -> String {
        let mut answer = None;
        wait_until(&format!("{prefix:?} from {}", self.program.what()), || {
            let running = self.program.is_running();
            let stdout = self.program.stdout();
            answer = stdout
                .split_inclusive('\n')
                .filter_map(|line| line.strip_suffix('\n'))
                .find_map(|line| line.strip_prefix(prefix))
                .map(str::to_owned);
            assert!(
                running || answer.is_some(),
                "the node ended: {}\n-- stdout\n{stdout}\n-- stderr\n{}",
                self.program.what(),
                self.program.stderr()
            );
            answer.is_some()
        });
        answer.expect("there is an answer")
    }

    /// Waits until an expression has this value.
    pub fn wait(&mut self, expression: &str, value: &str) {
        let mut last = String::new();
        wait_until(&format!("{expression} to be {value}"), || {
            let now = self.ask(expression);
            if now != last {
                eprintln!("{expression} is {now}");
                last = now;
            }
            last == value
        });
    }

    /// Whether `net_adm:ping` reaches another node.
    pub fn reaches(&mut self, other: &str) -> bool {
        match self.ask(&format!("net_adm:ping('{other}')")).as_str() {
            "pong" => true,
            "pang" => false,
            other => panic!("net_adm:ping said {other}"),
        }
    }

    /// The creation, as the node itself sees it.
    pub fn creation(&mut self) -> u32 {
        self.ask("erlang:system_info(creation)").parse().expect("a number")
    }

    /// The major version of the node's OTP.
    pub fn otp_release(&mut self) -> u32 {
        self.ask("list_to_integer(erlang:system_info(otp_release))").parse().expect("a number")
    }

    /// The operating system's process id, as the node itself sees it.
    pub fn pid(&mut self) -> u32 {
        let pid = self.ask("list_to_integer(os:getpid())").parse().expect("a number");
        assert_eq!(pid, self.program.pid(), "the node is not the process the test started");
        pid
    }

    /// What the node has written to standard error.
    pub fn errors(&self) -> String {
        self.program.stderr()
    }

    /// What the node has logged: its logger writes to standard output, between the answers.
    pub fn logged(&self) -> String {
        let stdout = self.program.stdout();
        let is_log = |line: &&str| !line.is_empty() && *line != "ready" && !line.starts_with("answer ");
        stdout.lines().filter(is_log).map(|line| format!("{line}\n")).collect::<String>() + &self.errors()
    }

    /// Kills the node with SIGKILL.
    pub fn kill(mut self) {
        self.program.kill();
    }
}

/// `erl` on a host, small and without a shell.
pub fn erl(host: &Host) -> Command {
    let mut command = host.command(installed("erl", "erlang-base"));
    command.args(SMALL).arg("-noshell").env("LC_ALL", "C.UTF-8").env("ERL_CRASH_DUMP_SECONDS", "0");
    command
}

/// Fails the test, naming the package to install, if Erlang has no such application.
pub fn require_application(host: &Host, application: &str, package: &str) {
    let mut command = erl(host);
    command.args([
        "-eval",
        &format!("halt(case code:lib_dir({application}) of {{error, _}} -> 1; _ -> 0 end)."),
    ]);
    assert!(run(command).status.success(), "{application}: {}", advice(package));
}

/// `elixir` on a host, small.
pub fn elixir(host: &Host) -> Command {
    let mut command = host.command(installed("elixir", "elixir"));
    command.env("LC_ALL", "C.UTF-8").env("ERL_CRASH_DUMP_SECONDS", "0");
    command.env("ELIXIR_ERL_OPTIONS", SMALL.join(" "));
    command
}
