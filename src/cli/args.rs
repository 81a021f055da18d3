//! What can be typed. Nothing is looked up or decided here: that is [`target`](super::target)'s part, and that
//! of each command.

mod cluster;

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{NonEmptyStringValueParser, PossibleValuesParser};
use clap::{Args, Parser, Subcommand};

use super::output::Format;
use crate::config::environment::positive_duration;
use crate::config::raw::{Port, parse_addresses, parse_duration};
use crate::control::events::KINDS;
use crate::registry::events::EventKind;
use cluster::parse_peer;

pub use cluster::{Ca, CaInit, CaIssue, CaShow, Cookie, Discover, Join, Leave, Rotate, Services, Status};

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
  pmd ping rabbit           One of this host")]
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

/// Options of `pmd start`.
#[derive(Debug, Clone, Default, Args)]
pub struct Start {
    /// Stay in the foreground
    #[arg(short, long)]
    pub foreground: bool,
    /// Address to listen on beside the loopback ones; may be repeated [default: all addresses]
    #[arg(short, long, value_name = "ADDRESS", value_parser = parse_list)]
    pub bind: Vec<AddressList>,
    /// Let epmd's -kill work while nodes are registered, and let its -stop work at all
    #[arg(long)]
    pub relaxed_command_check: bool,
    /// How long a connection may take to complete its request [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = positive_duration)]
    pub packet_timeout: Option<Duration>,
    /// Join the cluster of the daemon at this address; may be repeated
    #[arg(short, long, value_name = "ADDR", value_parser = parse_peer)]
    pub join: Vec<String>,
    /// Look for other daemons in this way: broadcast, dns:NAME or exec:COMMAND; may be repeated
    #[arg(long, value_name = "SPEC", value_parser = NonEmptyStringValueParser::new())]
    pub discovery: Vec<String>,
    /// The name of the cluster; daemons of other clusters are not let in
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub cluster: Option<String>,
    /// Where other daemons are told to find this one; may be repeated [default: the addresses of this host]
    #[arg(long, value_name = "ADDR", value_parser = parse_peer)]
    pub advertise: Vec<String>,
}

/// Options of `pmd demo`.
#[derive(Debug, Clone, Copy, Args)]
pub struct Demo {
    /// How many daemons: 1 to 20
    #[arg(default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=20))]
    pub daemons: u8,
    /// No Erlang nodes
    #[arg(long)]
    pub no_erlang: bool,
}

/// Addresses that were given with one flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressList(pub Vec<IpAddr>);

fn parse_list(text: &str) -> Result<AddressList, String> {
    match parse_addresses(text)? {
        addresses if addresses.is_empty() => Err("an IP address is needed".into()),
        addresses => Ok(AddressList(addresses)),
    }
}

impl Start {
    /// All addresses to listen on; none means that nothing was said.
    pub fn addresses(&self) -> Option<Vec<IpAddr>> {
        let all: Vec<IpAddr> = self.bind.iter().flat_map(|list| list.0.iter().copied()).collect();
        Some(all).filter(|all| !all.is_empty())
    }
}

/// Options of commands that can be watched.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Watch {
    /// Go on showing it: redraws a terminal, and prints JSON lines otherwise
    #[arg(short, long)]
    pub watch: bool,
}

/// Options of `pmd names`.
#[derive(Debug, Args)]
pub struct Names {
    /// The host to ask, in place of the local daemon; with --cluster, the host whose nodes are wanted
    pub host: Option<String>,
    /// Those of all hosts of the cluster
    #[arg(long)]
    pub cluster: bool,
    /// How often it is shown.
    #[command(flatten)]
    pub watch: Watch,
}

/// Options of `pmd lookup`.
#[derive(Debug, Args)]
pub struct Lookup {
    /// The name of a node or service, if need be with its host
    #[arg(value_name = "NAME[@HOST]")]
    pub name: String,
    /// Print all that goes by the name, not just the best
    #[arg(short, long)]
    pub all: bool,
    /// Wait for it as long as this
    #[arg(short, long, value_name = "TIME", value_parser = parse_duration)]
    pub wait: Option<Duration>,
}

/// Options of `pmd register`.
#[derive(Debug, Args)]
pub struct Register {
    /// The name of the service
    pub name: String,
    /// The TCP port it listens on
    #[arg(short = 'P', long, value_name = "PORT")]
    pub service_port: Port,
    /// Something about it; may be repeated
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = parse_pair)]
    pub meta: Vec<(String, String)>,
    /// Drop it unless it is registered again within this time
    #[arg(long, value_name = "TIME", value_parser = positive_duration, conflicts_with = "command")]
    pub ttl: Option<Duration>,
    /// Run this command, and keep the service registered as long as it runs
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("it has the form KEY=VALUE".into()),
    }
}

/// A name.
#[derive(Debug, Args)]
pub struct Named {
    /// The name of the service
    pub name: String,
}

/// Options of `pmd subscribe`.
#[derive(Debug, Args)]
pub struct Subscribe {
    /// Only events of this kind; may be repeated
    #[arg(short, long, value_name = "KIND", value_parser = PossibleValuesParser::new(KINDS.map(EventKind::as_str)), hide_possible_values = true)]
    pub kind: Vec<String>,
    /// Begin after the event of this number; 0 for all that the daemon remembers [default: from now on]
    #[arg(short, long, value_name = "NUMBER")]
    pub since: Option<u64>,
}

/// Options of `pmd env`.
#[derive(Debug, Clone, Copy, Args)]
pub struct Env {
    /// For a POSIX shell: the default
    #[arg(long, group = "shape")]
    pub sh: bool,
    /// For a unit file of systemd
    #[arg(long, group = "shape")]
    pub systemd: bool,
    /// For an Elixir release
    #[arg(long, group = "shape")]
    pub elixir: bool,
}

/// For whom variables are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A shell.
    Sh,
    /// A unit file.
    Systemd,
    /// An Elixir release.
    Elixir,
}

impl Env {
    /// For whom they are.
    pub fn shape(&self) -> Shape {
        match (self.systemd, self.elixir) {
            (true, _) => Shape::Systemd,
            (_, true) => Shape::Elixir,
            _ => Shape::Sh,
        }
    }
}

/// Options of `pmd run`.
#[derive(Debug, Args)]
pub struct Run {
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// Options of `pmd ping`.
#[derive(Debug, Args)]
pub struct Ping {
    /// The node, if need be with its host
    #[arg(value_name = "NODE[@HOST]")]
    pub node: String,
}

/// Options of `pmd doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// A node to go the whole way to
    #[arg(value_name = "NAME@HOST")]
    pub node: Option<String>,
}

/// Options of `pmd health`.
#[derive(Debug, Args)]
pub struct Health {
    /// Also try a look-up, and see whether there is room for nodes
    #[arg(short, long)]
    pub ready: bool,
}

/// Options of `pmd debug`.
#[derive(Debug, Args)]
pub struct Debug {
    /// The file to write, as .tar.gz [default: pmd-debug-PORT.tar.gz in this directory]
    pub file: Option<PathBuf>,
    /// Replace the file if it is there
    #[arg(long)]
    pub force: bool,
}

/// Options of `pmd takeover`.
#[derive(Debug, Args)]
pub struct Takeover {
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// How long to wait for the nodes to come back
    #[arg(short, long, value_name = "TIME", value_parser = parse_duration, default_value = "15s")]
    pub wait: Duration,
}

/// Options of `pmd handover`.
#[derive(Debug, Args)]
pub struct Handover {
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// How long to wait for the nodes to come back
    #[arg(short, long, value_name = "TIME", value_parser = parse_duration, default_value = "15s")]
    pub wait: Duration,
    /// The epmd to start [default: that of the newest Erlang runtime, or the one in PATH]
    #[arg(long, value_name = "FILE")]
    pub epmd: Option<PathBuf>,
    /// Hand over even if epmd cannot hold all of the nodes
    #[arg(long)]
    pub force: bool,
}

/// What is handed on to the `epmd` personality.
#[derive(Debug, Args)]
pub struct Epmd {
    /// Options of epmd
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTION")]
    pub words: Vec<OsString>,
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
