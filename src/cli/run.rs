//! `pmd run`: runs a program with the environment printed by `pmd env`.

use std::os::unix::process::CommandExt;
use std::process::Command;

use super::args;
use super::common::node_env::variables;
use super::common::{Exit, Failure, Result, Target, block_on, explain};

/// Replaces this process with the program; returns only on failure.
pub fn run(target: &Target, args: &args::Run) -> Result<Exit> {
    block_on(async {
        let tunnels = explain(target, target.client().tunnels_for_a_node().await).await?;
        let Some((program, words)) = args.command.split_first() else { return Ok(Exit::Usage) };
        let error = Command::new(program).args(words).envs(variables(&tunnels)).exec();
        Err(Failure::command(program, &error))
    })
}
