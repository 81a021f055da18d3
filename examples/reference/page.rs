//! Generates `docs/reference.md`: the prose of `template.md`, with tables generated from the program's own definitions.

use std::collections::BTreeMap;
use std::fmt::Write;

use clap::{Arg, Command, CommandFactory};
use pmd::base::log::setup;
use pmd::cli::args::Cli;
use pmd::cli::common::Exit;
use pmd::config::environment::{self, Variable};
use pmd::config::keys::RawConfig;
use pmd::control::endpoints::endpoints;
use pmd::metrics::FAMILIES;

const TEMPLATE: &str = include_str!("template.md");

/// Variables that do not set a configuration key.
const VARIABLES: [(&str, &str); 11] = [
    (environment::CONFIG, "The configuration file, like `--config`."),
    (environment::HOME, "One directory for configuration, secrets and sockets."),
    (
        setup::FILTER,
        "The log filter: a level such as `debug`, or `target=level` pairs separated by commas. Default: `info`.",
    ),
    (setup::FORMAT, "With `json`, every log line is a JSON object."),
    (
        "PMD_HOSTS_FILE",
        "Set by `pmd run` for Erlang nodes: the hosts file that the epmd module adds to their resolver.",
    ),
    ("PMD_CLAIM", "Set by `pmd claim` for its command: the name that it holds."),
    (
        "PMD_CLAIM_NUMBER",
        "Set by `pmd claim` for its command: the number of the claim, which is higher than that of every holder before.",
    ),
    ("NO_COLOR", "If it is set, output is not coloured, like `--no-color`."),
    ("CONFIGURATION_DIRECTORY", "Set by systemd: the directory of the configuration file."),
    (
        "STATE_DIRECTORY",
        "Set by systemd: the directory for secrets and for the files that Erlang nodes read.",
    ),
    ("RUNTIME_DIRECTORY", "Set by systemd: the directory for sockets."),
];

/// All exits with a fixed code.
const EXITS: [Exit; 10] = [
    Exit::Done,
    Exit::General,
    Exit::Usage,
    Exit::NotReachable,
    Exit::NotFound,
    Exit::Refused,
    Exit::TimedOut,
    Exit::Conflict,
    Exit::Unhealthy,
    Exit::Interrupted,
];

/// Returns the whole page.
pub(crate) fn page() -> String {
    let mut command = Cli::command();
    command.build();
    let parts: [(&str, String); 8] = [
        ("<!-- overview -->", overview(&command)),
        ("<!-- common options -->", common_options(&command)),
        ("<!-- commands -->", command.get_subcommands().map(section).collect()),
        ("<!-- exit codes -->", exit_codes()),
        ("<!-- keys -->", keys()),
        ("<!-- variables -->", variables()),
        ("<!-- api -->", api()),
        ("<!-- metrics -->", metrics()),
    ];
    parts.into_iter().fold(TEMPLATE.to_owned(), |page, (mark, part)| page.replace(mark, part.trim_end()))
}

/// All commands, in one line each.
fn overview(command: &Command) -> String {
    let mut table = table(&["command", "what it does"]);
    for command in command.get_subcommands() {
        row(&mut table, &[&format!("[`{}`](#{})", title(command), anchor(&title(command))), &about(command)]);
    }
    table
}

/// The options common to all commands.
fn common_options(command: &Command) -> String {
    let mut table = table(&["option", "meaning"]);
    for option in command.get_arguments().filter(|option| option.is_global_set()) {
        row(&mut table, &[&term(option), &meaning(option)]);
    }
    table
}

/// The section of a command: description, usage, options and examples, followed by its subcommands.
fn section(command: &Command) -> String {
    let usage = command.clone().render_usage().to_string();
    let usage: String =
        usage.trim_start_matches("Usage:").lines().map(|line| indented(line.trim())).collect();
    let mut section = format!("### {}\n\n{}.\n\n{usage}\n", title(command), about(command));
    let own: Vec<&Arg> = command
        .get_arguments()
        .filter(|argument| !argument.is_global_set() && !argument.is_hide_set())
        .filter(|argument| !["help", "version"].contains(&argument.get_id().as_str()))
        .collect();
    if !own.is_empty() {
        let mut table = table(&["argument", "meaning"]);
        for argument in own {
            row(&mut table, &[&term(argument), &meaning(argument)]);
        }
        section += &table;
        section += "\n";
    }
    for help in [command.get_before_help(), command.get_after_help()].into_iter().flatten() {
        section += &help.to_string().lines().map(indented).collect::<String>();
        section += "\n";
    }
    section + &command.get_subcommands().map(section_of_part).collect::<String>()
}

/// The section of a subcommand, one level deeper.
fn section_of_part(command: &Command) -> String {
    format!("#{}", section(command))
}

fn title(command: &Command) -> String {
    command.get_bin_name().unwrap_or_else(|| command.get_name()).to_owned()
}

/// The anchor of a heading.
fn anchor(title: &str) -> String {
    title.replace(' ', "-")
}

fn about(command: &Command) -> String {
    command.get_about().map(ToString::to_string).unwrap_or_default()
}

fn indented(line: &str) -> String {
    if line.is_empty() { "\n".to_owned() } else { format!("    {line}\n") }
}

/// An argument as typed on the command line.
fn term(argument: &Arg) -> String {
    let names = argument.get_value_names().unwrap_or_default();
    let value = if argument.get_action().takes_values() {
        names.first().map(|name| format!(" {name}")).unwrap_or_default()
    } else {
        String::new()
    };
    let short = argument.get_short().map(|short| format!("-{short}"));
    let long = argument.get_long().map(|long| format!("--{long}"));
    let flags: Vec<String> = [short, long].into_iter().flatten().collect();
    format!("`{}{value}`", flags.join(", ")).replace("` ", "`")
}

/// The meaning of an argument, with its default and possible values.
fn meaning(argument: &Arg) -> String {
    let mut meaning = argument.get_help().map(ToString::to_string).unwrap_or_default();
    let values: Vec<String> =
        argument.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
    if !values.is_empty() && argument.get_action().takes_values() && !argument.is_hide_possible_values_set() {
        let _ = write!(meaning, " [values: {}]", values.join(", "));
    }
    if let [default] = argument.get_default_values()
        && argument.get_action().takes_values()
    {
        let _ = write!(meaning, " [default: {}]", default.to_string_lossy());
    }
    meaning
}

fn exit_codes() -> String {
    let mut table = table(&["code", "meaning"]);
    for exit in EXITS {
        let meaning = match exit {
            Exit::Done => "done",
            Exit::General => "failed for a reason without a code of its own",
            Exit::Usage => "wrong flags, environment or configuration",
            Exit::NotReachable => "no daemon is answering",
            Exit::NotFound => "not found",
            Exit::Refused => "refused",
            Exit::TimedOut => "timed out",
            Exit::Conflict => "conflict: the name or the port is taken",
            Exit::Unhealthy => "unhealthy: the daemon or one of its dependencies",
            Exit::Interrupted => "interrupted",
            Exit::Command(_) => "the exit code of the command that was run",
        };
        row(&mut table, &[&exit.code().to_string(), meaning]);
    }
    table
}

fn keys() -> String {
    let mut table = table(&["key", "value", "default", "meaning"]);
    for entry in RawConfig::reference() {
        let value = match entry.unit {
            Some(unit) => format!("{}, in {unit}", entry.kind),
            None => entry.kind,
        };
        let about = entry.about.trim().lines().map(str::trim).collect::<Vec<_>>().join(" ");
        let reload = if entry.key.live { " Takes effect on reload." } else { "" };
        let names: Vec<String> =
            entry.variables.iter().map(|variable| format!("`{}`", variable.name())).collect();
        let variables = match names.as_slice() {
            [] => String::new(),
            [name] => format!(" Variable: {name}."),
            names => format!(" Variables: {}.", names.join(", ")),
        };
        let key = format!("`{}`", entry.key.name);
        row(&mut table, &[&key, &value, &entry.default, &format!("{about}{reload}{variables}")]);
    }
    table
}

fn variables() -> String {
    let mut all: BTreeMap<&str, String> =
        VARIABLES.iter().map(|(name, meaning)| (*name, (*meaning).to_owned())).collect();
    for entry in RawConfig::reference() {
        for (number, variable) in entry.variables.iter().enumerate() {
            let key = entry.key.name;
            let sets = match variable {
                Variable::Value(_) => format!("Sets `{key}`"),
                Variable::Presence(_) => format!("Sets `{key}` to `true` if it is set to anything"),
            };
            let before = entry.variables.get(..number).and_then(<[Variable]>::last);
            let unless =
                before.map(|other| format!(", unless `{}` is set", other.name())).unwrap_or_default();
            all.insert(variable.name(), format!("{sets}{unless}."));
        }
    }
    let mut table = table(&["variable", "meaning"]);
    for (name, meaning) in all {
        row(&mut table, &[&format!("`{name}`"), &meaning]);
    }
    table
}

fn api() -> String {
    let mut table = table(&["request", "parameters or body", "meaning"]);
    for endpoint in endpoints() {
        let taken: Vec<String> = [endpoint.query, endpoint.body]
            .into_iter()
            .filter(|taken| !taken.is_empty())
            .map(|taken| format!("`{taken}`"))
            .collect();
        let web = endpoint.web.map(|web| {
            let whom = if web.local { ", for clients on this host" } else { "" };
            format!(" Also `{}` on the EPMD port{whom}.", web.path)
        });
        let web = web.unwrap_or_default();
        let request = format!("`{} {}`", endpoint.method, endpoint.path);
        row(&mut table, &[&request, &taken.join(" "), &format!("{}{web}", endpoint.summary)]);
    }
    table
}

fn metrics() -> String {
    let mut table = table(&["metric", "type", "meaning"]);
    for family in FAMILIES {
        row(&mut table, &[&format!("`{}`", family.name), family.kind, family.help]);
    }
    table
}

/// The header of a table.
fn table(columns: &[&str]) -> String {
    format!("| {} |\n|{}\n", columns.join(" | "), "---|".repeat(columns.len()))
}

/// Adds a row. Bars inside cells are escaped, because they would end the cell.
fn row(table: &mut String, cells: &[&str]) {
    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    let _ = writeln!(table, "| {} |", cells.join(" | "));
}
