//! `pmd completion`, `pmd man` and `pmd version`, generated from the definition of the command line.

use std::io::Write;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::Shell;

use super::args::Cli;
use super::common::output::stdout;
use super::common::{Exit, Failure, Output, Result};

/// Prints the completions for a shell.
///
/// They do not offer names and hosts of the cluster. The completion of clap that could is marked unstable and brings
/// further crates, and bash expands what a script offers as words (`compgen -W`), so that anybody who may register a name
/// could have a command run by whoever presses Tab.
pub fn completion(shell: Shell) -> Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "pmd", &mut script);
    print(&script)
}

/// Prints the manual page, or writes the pages of all commands into a directory.
pub fn man(dir: Option<&Path>) -> Result<Exit> {
    let command = with_examples_last(Cli::command());
    let Some(dir) = dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        return print(&page);
    };
    let written = std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(command, dir));
    written.map_err(|error| {
        Failure::new(
            Exit::General,
            format!("cannot write manual pages into {}: {error}", dir.display()),
            "choose a directory that this user can write to",
        )
    })?;
    Ok(Exit::Done)
}

/// Moves the examples to the end, because manual pages have no section before the usage.
fn with_examples_last(command: Command) -> Command {
    let examples = command.get_before_help().map(ToString::to_string);
    let rest = command.get_after_help().map(ToString::to_string);
    let text: Vec<String> = [rest, examples].into_iter().flatten().collect();
    command.after_help(text.join("\n\n")).mut_subcommands(with_examples_last)
}

/// Prints the version.
pub fn version(output: Output) -> Result<Exit> {
    let version = env!("CARGO_PKG_VERSION");
    let document = serde_json::json!({ "name": "pmd", "version": version });
    output.one(&document, |out| writeln!(out, "pmd {version}"))?;
    Ok(Exit::Done)
}

fn print(text: &[u8]) -> Result<Exit> {
    let mut out = stdout();
    out.write_all(text)?;
    out.flush()?;
    Ok(Exit::Done)
}
