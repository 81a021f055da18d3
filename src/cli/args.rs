//! What can be typed. Nothing is looked up or decided here: that is [`target`](super::common::target)'s part, and that
//! of each command.

mod cluster;
mod daemon;
mod nodes;
mod registry;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::common::output::Format;
use crate::config::types::Port;

pub use cluster::{Ca, CaInit, CaIssue, CaShow, Cookie, Discover, Join, Leave, Rotate, Services, Status};
pub use daemon::{AddressList, Debug, Demo, Doctor, Epmd, Handover, Health, Start, Takeover};
pub use nodes::{Env, Ping, Run, Shape};
pub use registry::{Lookup, Named, Names, Register, Subscribe};

/// Help begins with what the command is for and with examples: what most people came to see.
const HELP: &str = "{about-with-newline}\n{before-help}{usage-heading} {usage}\n\n{all-args}{after-help}";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "pmd",
    version,
    about = "A port mapper for Erlang and Elixir: an exact stand-in for epmd",
    help_template = HELP,
    before_help = "\
Examples:
  pmd start                 Start in the background
  pmd takeover              Replace a running epmd without restarting a node
  pmd names                 List the Erlang nodes of this host
  pmd lookup rabbit         Print where a node or service listens
  pmd join host1            Make one cluster of this host and host1
  pmd nodes                 List the hosts of the cluster
  pmd status                Show how the daemon is
  pmd epmd -names           Do what epmd would do",
    after_help = "\
Exit codes: 0 done, 1 general, 2 usage, 3 daemon not reachable, 4 not found, 5 refused,
            6 timed out, 7 conflict, 8 unhealthy, 130 interrupted",
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
)]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Global {
    /// Port of the local daemon [default: ERL_EPMD_PORT, the configuration file, or 4369]
    #[arg(short, long, global = true, value_name = "PORT")]
    pub port: Option<Port>,
    /// Control socket of the local daemon [default: PMD_SOCKET, or pmd-PORT.sock in PMD_HOME, /run/pmd or ~/.pmd]
    #[arg(long, global = true, value_name = "FILE")]
    pub socket: Option<PathBuf>,
    /// Configuration file [default: PMD_CONFIG, or pmd.toml in PMD_HOME, /etc/pmd or ~/.pmd]
    #[arg(short, long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Form of the output: table, wide, json, jsonl or plain
    #[arg(short, long, global = true, value_name = "FORM", value_enum, hide_possible_values = true)]
    pub output: Option<Format>,
    /// Short for --output json
    #[arg(long, global = true, conflicts_with = "output")]
    pub json: bool,
    /// No colours (as with NO_COLOR)
    #[arg(long, global = true)]
    pub no_color: bool,
}

impl Global {
    /// The form of the output.
    pub fn format(&self) -> Format {
        if self.json { Format::Json } else { self.output.unwrap_or_default() }
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start the daemon; says so if it runs already
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd start                          In the background; returns when it answers
  pmd start --foreground             In the foreground, until Ctrl-C
  pmd start --bind 10.0.0.5          Listen on that address and on loopback only
  pmd start --join host1             Join the cluster of host1, again and again until it is there
  pmd start --discovery broadcast    Join whoever is heard on the same network")]
    Start(Start),
    /// Stop the daemon and wait until it is gone
    #[command(help_template = HELP, before_help = "Examples:\n  pmd stop\n  pmd stop --port 5000")]
    Stop,
    /// Make the daemon read its configuration file again
    #[command(help_template = HELP, before_help = "Examples:\n  pmd reload")]
    Reload,
    /// Show how the daemon is, on one screen
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd status
  pmd status --watch
  pmd status --wait-converged 30s    Wait until all daemons know the same
  pmd status --json | jq .names.registered")]
    Status(Status),
    /// Watch the daemon and its cluster, live on a terminal
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd top
  pmd top --port 5000", after_help = "\
Keys: q or Esc ends, 1 to 4 or the arrows choose a pane (members, names and services, links, events),
      / searches, s sorts by the next column, r reverses, j, k, PgUp and PgDn move")]
    Top,
    /// Run a small cluster on this host to try things with, and watch it
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd demo                  Three daemons, with an Erlang node each if Erlang is installed
  pmd demo 10
  pmd demo --no-erlang", after_help = "\
Everything is on loopback and in one temporary directory, and nothing of it is left in the end: after q, Ctrl-C
or SIGTERM. Without a terminal it prints what to try, and runs until SIGTERM or the end of a pipe on its standard input.")]
    Demo(Demo),
    /// Join a cluster, and wait until it has let this host in
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd join host1                    Through the pmd on host1
  pmd join host1 10.0.0.2:4369      Through as many of them as answer; one is enough
  pmd join host1 --timeout 30s      Give it longer than 10 s")]
    Join(Join),
    /// Leave the cluster, or tell another daemon to
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd leave                 Tell all others, and be alone from now on
  pmd leave host1           Tell host1 to leave; it stays away until it joins again")]
    Leave(Leave),
    /// List the hosts of the cluster
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd nodes
  pmd nodes -o wide         With ids, start times and metadata
  pmd nodes --watch")]
    Nodes(Watch),
    /// List the links to other daemons
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd peers                 With round-trip times, and who agrees about the registry
  pmd peers --watch")]
    Peers(Watch),
    /// List the daemons that were found on the networks, without joining them
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd discover
  pmd discover --wait 5s    Listen for a while first")]
    Discover(Discover),
    /// List the Erlang nodes of this host, of another one, or of the cluster
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd names                 Those registered here
  pmd names -o wide         With everything that is known of them
  pmd names --cluster       Those of all hosts of the cluster
  pmd names --cluster db1   Those of the host db1, as the cluster knows them
  pmd names db1             Those of the host db1, whichever port mapper runs there")]
    Names(Names),
    /// List the services of this host, or of the cluster
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd services
  pmd services --cluster    Those of all hosts of the cluster")]
    Services(Services),
    /// Print where an Erlang node or a service listens
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd lookup rabbit                 Prints HOST:PORT, or exits with 4
  pmd lookup rabbit@host1           The one on that host of the cluster
  pmd lookup rabbit --all           One line for each host that has one
  pmd lookup web --wait 30s         Waits until it is there, or exits with 6")]
    Lookup(Lookup),
    /// Register a service
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd register web -P 8080                       Until `pmd unregister web`
  pmd register web -P 8080 --ttl 30s             Unless renewed within 30 s
  pmd register web -P 8080 -- ./server --port 8080
                                                 As long as the command runs")]
    Register(Register),
    /// End a service
    #[command(help_template = HELP, before_help = "Examples:\n  pmd unregister web")]
    Unregister(Named),
    /// Print what happens, as it happens
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd subscribe                            From now on, until Ctrl-C
  pmd subscribe --kind name_up --json      One JSON object a line
  pmd subscribe -k node_up -k node_down    Hosts of the cluster that come and go
  pmd subscribe --since 0                  First everything that the daemon remembers", after_help = "\
The kinds are name_up, name_down, service_up and service_down, for Erlang nodes and services, and
node_up, node_suspect, node_down and node_left, for the daemons of the cluster.

With --output plain, a line has eight fields separated by tabs: number, time, kind, name, port,
reason, host, id of that host's daemon. What an event does not have is empty.")]
    Subscribe(Subscribe),
    /// Print what a node needs in its environment to see the cluster
    #[command(help_template = HELP, before_help = "\
Examples:
  eval \"$(pmd env)\"          In a shell
  pmd env --systemd           For a unit file
  pmd env --elixir            For rel/env.sh.eex of a release")]
    Env(Env),
    /// Run a program with the environment that a node needs to see the cluster
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd run -- erl -sname foo
  pmd run -- iex --sname foo --remsh bar@farhost")]
    Run(Run),
    /// Say whether the way to a node is open, leg by leg
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd ping rabbit@db1       The daemon of db1, its rules, the node, and whether it answers
  pmd ping rabbit           One of this host; exits with 8 if it is registered and does not answer")]
    Ping(Ping),
    /// Look for what commonly goes wrong, and say what to do about it
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd doctor                Look at this host; exits with 8 if something fails
  pmd doctor rabbit@db1     And go the whole way to that node")]
    Doctor(Doctor),
    /// Tell by the exit code whether the daemon is well: 0 or 8
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd health                Does it answer?
  pmd health --ready        Does it answer look-ups, and is there room for nodes?")]
    Health(Health),
    /// Print the daemon's numbers in the text format of Prometheus
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd metrics
  pmd metrics | grep pmd_link
  pmd metrics --json")]
    Metrics,
    /// Put what a report needs into one file: state, metrics, events, log, configuration, and no secret
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd debug                         Writes pmd-debug-PORT.tar.gz
  pmd debug report.tar.gz --force   Replaces the file if it is there")]
    Debug(Debug),
    /// Replace a running epmd without restarting a node
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd takeover --dry-run    Say what would be done
  pmd takeover              Do it, and wait until every node is back")]
    Takeover(Takeover),
    /// Give the port back to epmd without restarting a node
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd handover --dry-run    Say what would be done
  pmd handover              Do it, and wait until every node is back")]
    Handover(Handover),
    /// Show or change the secret that the daemons of a cluster share
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd cookie path           Where the file is
  pmd cookie show           What is in it
  pmd cookie rotate         Change it without a moment in which hosts shut each other out",
        subcommand_required = true, arg_required_else_help = true, disable_help_subcommand = true)]
    Cookie {
        /// What to do with it.
        #[command(subcommand)]
        action: Cookie,
    },
    /// Make certificates for a cluster with an authority of its own
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd ca init               Make the authority, once
  pmd ca issue host1        Make a certificate and a key for host1
  pmd ca show host1.pem     Show what the certificate says",
        subcommand_required = true, arg_required_else_help = true, disable_help_subcommand = true)]
    Ca {
        /// What to do.
        #[command(subcommand)]
        action: Ca,
    },
    /// Do what epmd would do: takes every option of epmd
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd epmd -daemon
  pmd epmd -names", disable_help_flag = true)]
    Epmd(Epmd),
    /// Print the completions for a shell
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd completion bash > /etc/bash_completion.d/pmd
  pmd completion zsh > ~/.zfunc/_pmd
  pmd completion fish > ~/.config/fish/completions/pmd.fish")]
    Completion(Completion),
    /// Print the manual page, or write those of all commands
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd man | man -l -
  pmd man --dir /usr/local/share/man/man1")]
    Man(Man),
    /// Print the version
    #[command(help_template = HELP, before_help = "Examples:\n  pmd version --json")]
    Version,
}

/// Options of commands that can be watched.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Watch {
    /// Go on showing it: redraws a terminal, and prints JSON lines otherwise
    #[arg(short, long)]
    pub watch: bool,
}

/// Options of `pmd completion`.
#[derive(Debug, Args)]
pub struct Completion {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// Options of `pmd man`.
#[derive(Debug, Args)]
pub struct Man {
    /// Write one file per command into this directory
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_examples_before_its_usage() {
        let mut command = Cli::command();
        command.build();
        let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
        assert!(names.len() >= 24, "{names:?}");
        command.get_subcommands_mut().for_each(shows_examples_first);
    }

    fn shows_examples_first(command: &mut clap::Command) {
        let help = command.render_help().to_string();
        let (examples, usage) = (help.find("Examples:"), help.find("Usage:"));
        assert!(examples.is_some() && examples < usage, "{help}");
        command.get_subcommands_mut().for_each(shows_examples_first);
    }

    #[test]
    fn the_examples_of_the_help_can_be_typed() {
        let mut command = Cli::command();
        command.build();
        examples_are_right(&command);
    }

    fn examples_are_right(command: &clap::Command) {
        let help = command.get_before_help().map(ToString::to_string).unwrap_or_default();
        for line in help.lines().filter_map(|line| line.strip_prefix("  pmd ")) {
            // What follows two blanks, a pipe or an arrow is not the command any more.
            let words = line.split(['|', '>', '#']).next().unwrap_or_default();
            let words = words.split("  ").next().unwrap_or_default().replace('"', "");
            let typed = std::iter::once("pmd").chain(words.split_whitespace());
            if let Err(error) = Cli::try_parse_from(typed) {
                assert!(!error.use_stderr(), "pmd {words}: {error}");
            }
        }
        command.get_subcommands().for_each(examples_are_right);
    }

    #[test]
    fn options_of_every_command_may_stand_anywhere() {
        for words in [["pmd", "--port", "5000", "names"], ["pmd", "names", "--port", "5000"]] {
            let cli = Cli::try_parse_from(words).expect("it is right");
            assert_eq!(cli.global.port.map(Port::get), Some(5000));
        }
    }

    #[test]
    fn the_words_of_portmapd_are_understood() {
        let start = ["pmd", "start", "-f", "-p", "5000", "-b", "10.0.0.1", "-c", "pmd.toml"];
        assert!(Cli::try_parse_from(start).is_ok());
        let register = ["pmd", "register", "web", "-P", "8080", "-p", "5000"];
        let Ok(Cli { global, command: Command::Register(args) }) = Cli::try_parse_from(register) else {
            panic!("it is right")
        };
        assert_eq!((global.port.map(Port::get), args.service_port.get()), (Some(5000), 8080));
    }
}
