//! `pmd run`: runs a program in the environment that `pmd env` prints.

use std::os::unix::process::CommandExt;
use std::process::Command;

use super::args;
use super::common::node_env::{Loading, has_module, missing_module, own_module, with_module, with_resolver};
use super::common::{Exit, Failure, Result, Target, block_on, node_files, note};

/// Replaces this process with the program; returns only on failure.
pub fn run(target: &Target, args: &args::Run) -> Result<Exit> {
    block_on(async {
        let tunnels = node_files::for_a_node(target).await?;
        let Some((program, words)) = args.command.split_first() else { return Ok(Exit::Usage) };
        let variables = match own_module(&args.command, |name| std::env::var_os(name)) {
            _ if args.resolver_only => with_resolver(&tunnels),
            Some(module) => {
                note(&format!(
                    "note: the program has an epmd module of its own, {module}, so it reaches other hosts only by names \
                     that no resolver knows"
                ));
                with_resolver(&tunnels)
            }
            None if !has_module(&tunnels) => {
                note(&missing_module(&tunnels));
                with_resolver(&tunnels)
            }
            None => with_module(&tunnels, Loading::of(program, std::env::var_os("PATH").as_deref())),
        };
        let mut command = Command::new(program);
        command.args(words);
        for variable in variables {
            let there = std::env::var_os(variable.name);
            command.env(variable.name, variable.value_before(there.as_deref()));
        }
        Err(Failure::command(program, &command.exec()))
    })
}
