//! Erlang and Elixir nodes that stay up and evaluate what the test tells them.
//!
//! The test talks to a node through its standard input and output, not through the distribution: what is
//! under test cannot get in the way of asking about it. A node ends when its input does, so that none
//! survives a test that was killed.

use std::process::Command;

use super::{advice, fixture, installed};
use crate::harness::netns::Host;
use crate::harness::program::{Program, run};
use crate::harness::wait_until;

/// Schedulers cost start-up time and memory, and no test here needs more than one.
const SMALL: [&str; 6] = ["+S", "1:1", "+SDio", "1", "+A", "1"];

/// A node that answers.
#[derive(Debug)]
pub struct Node {
    program: Program,
    questions: u32,
}

impl Node {
    /// Starts `erl ARGS` on a host and waits until it is up: with a name that is also registered by then.
    pub fn erl(host: &Host, args: &[&str]) -> Node {
        let mut command = erl(host);
        command.args(args);
        Node::spawn(command)
    }

    /// Completes the command of a node that was made by [`erl`] or given by a caller who needs its own.
    pub fn spawn(mut command: Command) -> Node {
        let answers = fixture("answers.erl");
        command.args(["-eval", &format!("ok = file:eval(\"{}\").", answers.display())]);
        Node::up(command)
    }

    /// Starts `elixir ARGS` on a host; the questions are Elixir, then.
    pub fn elixir(host: &Host, args: &[&str]) -> Node {
        let mut command = elixir(host);
        command.args(args).arg("--no-halt").arg(fixture("answers.exs"));
        Node::up(command)
    }

    /// Starts a command that is complete, and waits until it is up.
    pub fn up(command: Command) -> Node {
        let mut node = Node { program: Program::spawn_listening(command), questions: 0 };
        node.answer("ready");
        node
    }

    /// Evaluates an expression on the node and returns the value as text; fails the test on an exception.
    pub fn ask(&mut self, expression: &str) -> String {
        self.questions += 1;
        let number = self.questions;
        // One line is one question; erl_scan takes spaces for the line ends.
        let line = expression.split('\n').map(str::trim).collect::<Vec<_>>().join(" ");
        self.program.say(&format!("{number} {line}"));
        let answer = self.answer(&format!("answer {number} "));
        match answer.split_once(' ') {
            Some(("value", value)) => value.to_owned(),
            _ => panic!("{expression}\nended with {answer}\nin {}", self.program.what()),
        }
    }

    /// The rest of the line of standard output that begins with `prefix`, as soon as it is complete.
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

    /// The node's own idea of its creation.
    pub fn creation(&mut self) -> u32 {
        self.ask("erlang:system_info(creation)").parse().expect("a number")
    }

    /// The operating system's process id, as the node sees it itself.
    pub fn pid(&mut self) -> u32 {
        let pid = self.ask("list_to_integer(os:getpid())").parse().expect("a number");
        assert_eq!(pid, self.program.pid(), "the node is not the process the test started");
        pid
    }

    /// What the node has written to standard error.
    pub fn errors(&self) -> String {
        self.program.stderr()
    }

    /// SIGKILL.
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

/// Fails the test with the package to install if Erlang has no such application.
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
