//! `pmd run`: a program with the environment that `pmd env` prints.

use std::os::unix::process::CommandExt;
use std::process::Command;

use super::args;
use super::common::diagnosis::explain;
use super::common::exit::Exit;
use super::common::failure::{Failure, Result};
use super::common::runtime::block_on;
use super::common::target::Target;
use super::env::variables;

/// Becomes the program; returns only if that fails.
pub fn run(target: &Target, args: &args::Run) -> Result<Exit> {
    block_on(async {
        let tunnels = explain(target, target.client().tunnels_for_a_node().await).await?;
        become_program(args, variables(&tunnels))
    })
}

fn become_program(args: &args::Run, variables: Vec<(&'static str, String)>) -> Result<Exit> {
    let Some((program, words)) = args.command.split_first() else { return Ok(Exit::Usage) };
    let error = Command::new(program).args(words).envs(variables).exec();
    let exit =
        if error.kind() == std::io::ErrorKind::NotFound { Exit::Command(127) } else { Exit::Command(126) };
    Err(Failure::new(
        exit,
        format!("cannot run {}: {error}", program.to_string_lossy()),
        "see that the program is there and can be executed",
    ))
}
