//! Command-line arguments. This module only parses; [`target`](super::common::target) and the commands interpret them.

mod claims;
mod cluster;
mod common;
mod daemon;
mod format;
mod nodes;
mod registry;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use common::HELP;

use crate::config::types::Port;

pub use claims::{Claim, ClaimAction};
pub use cluster::{
    Ca, CaInit, CaIssue, CaRevoke, CaRevoked, CaShow, Cookie, Discover, Expel, Join, Leave, Member, Rotate,
    Services, Status,
};
pub use common::Watch;
pub use daemon::{AddressList, Debug, Demo, Doctor, Epmd, Handover, Health, Start, Takeover};
pub use format::Format;
pub use nodes::{Alias, Env, OwnCookie, Ping, Run, Shape};
pub use registry::{Lookup, Named, Names, Register, Subscribe};

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "pmd",
    version,
    about = "A port mapper for Erlang and Elixir: a drop-in replacement for epmd",
    help_template = HELP,
    before_help = "\
Examples:
  pmd start                 Start in the background
  pmd takeover              Replace a running epmd without restarting a node
  pmd names                 List the Erlang nodes of this host
  pmd lookup rabbit         Print the address of a node or service
  pmd join host1            Join host1's cluster
  pmd nodes                 List the hosts of the cluster
  pmd status                Show the status of the daemon
  pmd epmd -names           Run an epmd command",
    after_help = "\
Exit codes: 0 success, 1 general error, 2 usage error, 3 daemon not reachable, 4 not found, 5 refused,
            6 timed out, 7 conflict, 8 unhealthy, 130 interrupted",
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
)]
pub struct Cli {
    /// The global options.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The options that every command accepts.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
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
    /// Output format: table, wide, json, jsonl or plain
    #[arg(short, long, global = true, value_name = "FORMAT", value_enum, hide_possible_values = true)]
    pub output: Option<Format>,
    /// Same as --output json
    #[arg(long, global = true, conflicts_with = "output")]
    pub json: bool,
    /// Disable colours (like NO_COLOR)
    #[arg(long, global = true)]
    pub no_color: bool,
}

impl Global {
    /// The output format.
    pub fn format(&self) -> Format {
        if self.json { Format::Json } else { self.output.unwrap_or_default() }
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start the daemon (no-op if it is already running)
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd start                          Run in the background; return once the daemon answers
  pmd start --foreground             Run in the foreground until Ctrl-C
  pmd start --bind 10.0.0.5          Listen on that address and on loopback only
  pmd start --join host1             Join host1's cluster, retrying until it succeeds
  pmd start --discovery broadcast    Join daemons of the same cluster found on the local network")]
    Start(Start),
    /// Stop the daemon and wait until it has exited
    #[command(help_template = HELP, before_help = "Examples:\n  pmd stop\n  pmd stop --port 5000")]
    Stop,
    /// Make the daemon reload its configuration file
    #[command(help_template = HELP, before_help = "Examples:\n  pmd reload")]
    Reload,
    /// Show the status of the daemon on one screen
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd status
  pmd status --watch
  pmd status --wait-converged 30s    Wait until all daemons have the same registry
  pmd status --json | jq .names.registered")]
    Status(Status),
    /// Watch the daemon and its cluster on a terminal
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd top
  pmd top --port 5000", after_help = "\
Keys: q or Esc quits, 1 to 4 or the arrows select a pane (members, names and services, links, events),
      / searches, s sorts by the next column, r reverses the order, j, k, PgUp and PgDn move")]
    Top,
    /// Run a small cluster on this host to try pmd, and watch it
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd demo                  Three daemons, with an Erlang node each if Erlang is installed
  pmd demo 10
  pmd demo --no-erlang", after_help = "\
Everything runs on loopback and in one temporary directory, which is removed on exit (q, Ctrl-C or SIGTERM). Without a
terminal, it prints commands to try and runs until SIGTERM or, if standard input is a pipe, until the pipe is closed.

The daemons share a cluster secret; the Erlang nodes share an Erlang cookie, which is in erlang/.erlang.cookie in that
directory. Your own nodes need that cookie to connect to them: the script `shell` in that directory starts an Erlang
shell that has it.")]
    Demo(Demo),
    /// Join a cluster and wait until it admits this host
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd join host1                    Join through the pmd on host1
  pmd join host1 10.0.0.2:4369      Join through each one that answers; one is enough
  pmd join host1 --timeout 30s      Wait longer than the default of 10 s", after_help = "\
The daemons of a cluster share a cluster secret (pmd cookie). It is not the Erlang cookie: nodes on different hosts
still need the same ~/.erlang.cookie to connect.")]
    Join(Join),
    /// Leave the cluster, or tell another member to leave
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd leave                 Leave, and tell all other members
  pmd leave host1           Tell host1 to leave; it stays out until it joins again")]
    Leave(Leave),
    /// Put a member out of the cluster, whether or not it agrees
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd expel host2           All members close their links and tunnels to it and refuse it from now on
  pmd expel 3f2a9c01        The same, by the beginning of its id: of two hosts with one name, or one that is gone", after_help = "\
The cluster secret, which the expelled daemon knows, is replaced on all other members at once (pmd cookie rotate),
unless --keep-secret is given. To undo: pmd readmit, and copy the new secret to that host.")]
    Expel(Expel),
    /// List the daemons that were expelled
    #[command(help_template = HELP, before_help = "Examples:\n  pmd expelled\n  pmd expelled -o wide    Also show whole ids")]
    Expelled,
    /// Let an expelled daemon join again
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd readmit host2         By its host name
  pmd readmit 3f2a9c01      By the beginning of its id; then, on that host: pmd join host1")]
    Readmit(Member),
    /// List the hosts of the cluster
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd nodes
  pmd nodes -o wide         Also show ids, start times and metadata
  pmd nodes --watch")]
    Nodes(Watch),
    /// List the links to other daemons
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd peers                 Show round-trip times, and which peers have the same registry
  pmd peers --watch")]
    Peers(Watch),
    /// List the daemons found on the network, without joining them
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd discover
  pmd discover --wait 5s    Listen for a while first")]
    Discover(Discover),
    /// List the Erlang nodes of this host, another host, or the cluster
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd names                 List the nodes of this host
  pmd names -o wide         Show all their details
  pmd names --cluster       List the nodes of all hosts of the cluster
  pmd names --cluster db1   List the nodes of host db1 as known to the cluster
  pmd names db1             Ask the port mapper of host db1, pmd or epmd")]
    Names(Names),
    /// List the services of this host or of the cluster
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd services
  pmd services --cluster    List the services of all hosts of the cluster")]
    Services(Services),
    /// Print the address of an Erlang node or a service
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd lookup rabbit                 Print HOST:PORT, or exit with 4
  pmd lookup rabbit@host1           Find the node on that host of the cluster
  pmd lookup rabbit --all           Print one line for every host that has it
  pmd lookup web --wait 30s         Wait until it is registered, or exit with 6")]
    Lookup(Lookup),
    /// Register a service
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd register web -P 8080                       Keep it until `pmd unregister web`
  pmd register web -P 8080 --ttl 30s             Drop it after 30 s unless it is registered again
  pmd register web -P 8080 -- ./server --port 8080
                                                 Keep it while the command runs")]
    Register(Register),
    /// Unregister a service
    #[command(help_template = HELP, before_help = "Examples:\n  pmd unregister web")]
    Unregister(Named),
    /// Run a command on one host of the cluster at a time
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd claim leader -- ./scheduler           Run it once nobody else holds the claim; others wait
  pmd claim leader --try -- ./nightly-job   Exit with 7 if somebody else holds it
  pmd claim leader --ttl 30s                Hold it without a command, until Ctrl-C", after_help = "\
The command gets PMD_CLAIM (the name) and PMD_CLAIM_NUMBER, which rises with each claim. If this host is cut off from
the voters, the command gets SIGTERM after 2/3 of --ttl, and it and all processes of its group are killed after 9/10,
before anybody else gets the claim. It also ends when the daemon stops. Without a majority of the voters, the exit code
is 6 after --wait.")]
    Claim(Claim),
    /// List the claims that are held in the cluster
    #[command(help_template = HELP, before_help = "Examples:\n  pmd claims\n  pmd claims -o wide         Also show the daemons and durations")]
    Claims,
    /// List the daemons that decide who holds a claim
    #[command(help_template = HELP, before_help = "Examples:\n  pmd voters\n  pmd voters --json")]
    Voters,
    /// Print events as they happen
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd subscribe                            Print events from now on, until Ctrl-C
  pmd subscribe --kind name_up --json      Print one JSON object per line
  pmd subscribe -k node_up -k node_down    Print hosts as they come and go
  pmd subscribe --since 0                  Start with the oldest event that the daemon still has", after_help = "\
The kinds are name_up, name_down, service_up and service_down, for Erlang nodes and services, and
node_up, node_suspect, node_down and node_left, for the daemons of the cluster. The reason of
node_left is left or expelled.

With --output plain, a line has eight fields separated by tabs: number, time, kind, name, port,
reason, host, id of that host's daemon. Fields that an event does not have are empty.")]
    Subscribe(Subscribe),
    /// Print the environment variables that a node needs to reach other hosts of the cluster
    #[command(help_template = HELP, before_help = "\
Examples:
  eval \"$(pmd env)\"          Set them in a shell
  pmd env --systemd           Print them for a unit file
  pmd env --elixir            Print them for rel/env.sh.eex of a release")]
    Env(Env),
    /// Run a program with the environment that a node needs to reach other hosts of the cluster
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd run -- erl -sname foo
  pmd run -- iex --sname foo --remsh bar@farhost")]
    Run(Run),
    /// Print the loopback address that stands for a host on every host of the cluster
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd alias                 Print that of this host: RELEASE_NODE=app@$(pmd alias)
  pmd alias db1             Print that of another host", after_help = "\
A node may be named by the alias of its own host. Every host reaches it by that name, without DNS.")]
    Alias(Alias),
    /// Print lines for /etc/hosts by which C and Java nodes reach the other hosts
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd hosts
  pmd hosts --json", after_help = "\
Names that the system's resolver knows keep their meaning: the lines of these hosts are comments. Erlang nodes need no
lines: see pmd env.")]
    Hosts,
    /// Test each hop to a node and report the one that failed
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd ping rabbit@db1       Test the daemon of db1, its rules, and whether the node answers
  pmd ping rabbit           Test a node of this host; exit with 8 if it does not answer", after_help = "\
Erlang nodes accept only nodes with the same Erlang cookie, which is not the cluster secret of the daemons. The node
is tested with yours: the one in FILE, in the variable RELEASE_COOKIE, or in ~/.erlang.cookie. It stays in this process.

Exit 4 if there is no such node, 5 if it refuses the name or the cookie, and 8 if it does not answer. A node with TLS
distribution answers with TLS, and then its name and the cookie are not tested.

A node that accepts the cookie has a hidden connection from pmd-ping@HOST for a moment; nodes(known) has that name for
some minutes. A node that refuses it logs \"Invalid challenge reply\".")]
    Ping(Ping),
    /// Check this host for common problems and suggest how to fix them
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd doctor                Check this host; exit with 8 if a check fails
  pmd doctor rabbit@db1     Also test each hop to that node")]
    Doctor(Doctor),
    /// Exit 0 if healthy, 8 if not
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd health                Check that the daemon answers
  pmd health --ready        Also check that lookups work and that more nodes can register")]
    Health(Health),
    /// Print the daemon's metrics in the text format of Prometheus
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd metrics
  pmd metrics | grep pmd_link
  pmd metrics --json")]
    Metrics,
    /// Collect a support bundle: state, metrics, events, log and configuration, without secrets
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd debug                         Write pmd-debug-PORT.tar.gz
  pmd debug report.tar.gz --force   Replace the file if it exists")]
    Debug(Debug),
    /// Replace a running epmd without restarting a node
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd takeover --dry-run    Show what would be done
  pmd takeover              Do it and wait until every node is back")]
    Takeover(Takeover),
    /// Give the port back to epmd without restarting a node
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd handover --dry-run    Show what would be done
  pmd handover              Do it and wait until every node is back")]
    Handover(Handover),
    /// Show or change the cluster secret, which admits daemons; it is not the Erlang cookie of the nodes
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd cookie path           Print the path of the file
  pmd cookie show           Print the secret
  pmd cookie rotate         Replace the secret without interrupting the cluster",
        subcommand_required = true, arg_required_else_help = true, disable_help_subcommand = true)]
    Cookie {
        /// The subcommand.
        #[command(subcommand)]
        action: Cookie,
    },
    /// Run a certificate authority for the cluster and issue certificates
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd ca init               Create the authority, once
  pmd ca issue host1        Issue a certificate and a key for host1
  pmd ca show host1.pem     Show the content of the certificate",
        subcommand_required = true, arg_required_else_help = true, disable_help_subcommand = true)]
    Ca {
        /// The subcommand.
        #[command(subcommand)]
        action: Ca,
    },
    /// Run as epmd, with all of its options
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd epmd -daemon
  pmd epmd -names", disable_help_flag = true)]
    Epmd(Epmd),
    /// Print a shell completion script
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd completion bash > /etc/bash_completion.d/pmd
  pmd completion zsh > ~/.zfunc/_pmd
  pmd completion fish > ~/.config/fish/completions/pmd.fish")]
    Completion(Completion),
    /// Print the manual page, or write the pages of all commands
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd man | man -l -
  pmd man --dir /usr/local/share/man/man1")]
    Man(Man),
    /// Print the version
    #[command(help_template = HELP, before_help = "Examples:\n  pmd version --json")]
    Version,
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
    fn the_definition_is_valid() {
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
    fn the_examples_in_the_help_are_valid() {
        let mut command = Cli::command();
        command.build();
        examples_are_valid(&command);
    }

    fn examples_are_valid(command: &clap::Command) {
        let help = command.get_before_help().map(ToString::to_string).unwrap_or_default();
        for line in help.lines().filter_map(|line| line.strip_prefix("  pmd ")) {
            // An example command ends at two spaces, a pipe, a redirection or a comment.
            let words = line.split(['|', '>', '#']).next().unwrap_or_default();
            let words = words.split("  ").next().unwrap_or_default().replace('"', "");
            let typed = std::iter::once("pmd").chain(words.split_whitespace());
            if let Err(error) = Cli::try_parse_from(typed) {
                assert!(!error.use_stderr(), "pmd {words}: {error}");
            }
        }
        command.get_subcommands().for_each(examples_are_valid);
    }

    #[test]
    fn global_options_are_accepted_anywhere() {
        for words in [["pmd", "--port", "5000", "names"], ["pmd", "names", "--port", "5000"]] {
            let cli = Cli::try_parse_from(words).expect("it is valid");
            assert_eq!(cli.global.port.map(Port::get), Some(5000));
        }
    }

    #[test]
    fn a_short_option_means_the_same_in_every_command_that_shows_it() {
        let mut command = Cli::command();
        command.build();
        let mut meanings = std::collections::BTreeMap::new();
        for sub in command.get_subcommands() {
            for option in
                sub.get_arguments().filter(|option| matches!(option.get_short(), Some('w' | 'p' | 'P')))
            {
                let (short, long) = (option.get_short(), option.get_long().map(str::to_owned));
                let before = meanings.insert(short, long.clone());
                assert!(before.is_none_or(|before| before == long), "{}: {short:?}", sub.get_name());
            }
        }
        assert_eq!(meanings.get(&Some('w')), Some(&Some("watch".to_owned())));
        for words in ["lookup x -w 1s", "takeover -w 1s", "handover -w 1s", "discover -w 1s"] {
            let typed = std::iter::once("pmd").chain(words.split(' '));
            assert!(Cli::try_parse_from(typed).is_ok(), "{words}");
        }
    }

    #[test]
    fn the_options_of_portmapd_are_accepted() {
        let start = ["pmd", "start", "-f", "-p", "5000", "-b", "10.0.0.1", "-c", "pmd.toml"];
        assert!(Cli::try_parse_from(start).is_ok());
        let register = ["pmd", "register", "web", "-P", "8080", "-p", "5000"];
        let Ok(Cli { global, command: Command::Register(args) }) = Cli::try_parse_from(register) else {
            panic!("it is valid")
        };
        assert_eq!((global.port.map(Port::get), args.service_port.get()), (Some(5000), 8080));
    }
}
