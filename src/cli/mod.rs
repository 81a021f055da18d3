//! The `pmd` command line.
//!
//! [`args`] defines the arguments. Each command has a module; commands do not use each other, only [`common`] and lower
//! layers. Data goes to standard output in the requested format, messages to standard error. Every failure has an exit
//! code and a hint.

pub mod alias;
pub mod args;
pub mod ca;
pub mod claim;
pub mod claim_guard;
pub mod claims;
pub mod common;
pub mod cookie;
pub mod debug;
pub mod demo;
pub mod discover;
pub mod doctor;
pub mod env;
pub mod expel;
pub mod handover;
pub mod health;
pub mod hosts;
pub mod join;
pub mod leave;
pub mod lookup;
pub mod meta;
pub mod metrics;
pub mod names;
pub mod nodes;
pub mod peers;
pub mod ping;
pub mod register;
pub mod reload;
pub mod revoke;
pub mod rotate;
pub mod run;
pub mod services;
pub mod start;
pub mod status;
pub mod stop;
pub mod subscribe;
pub mod takeover;
pub mod tips;
pub mod top;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command, Global};
use common::output::{json, stdout};
use common::{Exit, Failure, Output, Result, Target, note};

use crate::control::api::ErrorBody;

/// Runs the command given by `args`, which include the program name.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    // Stock epmd's long options have a single dash, so clap would parse them as several short options.
    if args.get(1).is_some_and(|word| word == "epmd") {
        return crate::personality::run(args.get(1..).unwrap_or_default());
    }
    if let Some(exit) = claim_guard::hidden(&args) {
        return exit.into();
    }
    match Cli::try_parse_from(&args) {
        Ok(Cli { command: Command::Epmd(epmd), .. }) => {
            let words: Vec<OsString> = std::iter::once("epmd".into()).chain(epmd.words).collect();
            crate::personality::run(&words)
        }
        Ok(cli) => {
            let output = Output::new(cli.global.format(), !cli.global.no_color);
            match execute(&cli.global, cli.command, output) {
                Ok(exit) => exit.into(),
                Err(failure) => {
                    output.failure(&failure);
                    failure.exit.into()
                }
            }
        }
        Err(error) => explain(&error, &args).into(),
    }
}

fn execute(global: &Global, command: Command, output: Output) -> Result<Exit> {
    let target = || Target::of(global);
    match command {
        Command::Start(args) => start::run(global, &args, output),
        Command::Stop => stop::run(&target()?, output),
        Command::Reload => reload::run(&target()?, output),
        Command::Status(args) => status::run(&target()?, args, output),
        Command::Top => top::run(&target()?, output),
        Command::Demo(args) => demo::run(args, output),
        Command::Join(args) => join::run(&target()?, &args, output),
        Command::Leave(args) => leave::run(&target()?, args.peer, output),
        Command::Expel(args) => expel::expel(&target()?, args, output),
        Command::Expelled => expel::list(&target()?, output),
        Command::Readmit(args) => expel::readmit(&target()?, args.member, output),
        Command::Nodes(args) => nodes::run(&target()?, args.watch, output),
        Command::Peers(args) => peers::run(&target()?, args.watch, output),
        Command::Discover(args) => discover::run(&target()?, args.wait, output),
        Command::Cookie { action } => cookie::run(global, &action, output),
        Command::Ca { action } => ca::run(global, &action, output),
        Command::Names(args) => names::run(&target()?, &args, output),
        Command::Services(args) => services::run(&target()?, args.cluster, output),
        Command::Lookup(args) => lookup::run(&target()?, &args, output),
        Command::Register(args) => register::run(&target()?, args, output),
        Command::Unregister(args) => register::unregister(&target()?, &args.name, output),
        Command::Claim(args) => claim::run(&target()?, args, output),
        Command::Claims => claims::claims(&target()?, output),
        Command::Voters => claims::voters(&target()?, output),
        Command::Subscribe(args) => subscribe::run(&target()?, &args, output),
        Command::Env(args) => env::run(&target()?, &args, output),
        Command::Alias(args) => alias::run(&target()?, args.host.as_deref(), output),
        Command::Hosts => hosts::run(&target()?, output),
        Command::Run(args) => run::run(&target()?, &args),
        Command::Ping(args) => ping::run(&target()?, &args, output),
        Command::Doctor(args) => doctor::run(global, &args, output),
        Command::Health(args) => health::run(&target()?, args.ready, output),
        Command::Metrics => metrics::run(&target()?, output),
        Command::Debug(args) => debug::run(global, &target()?, &args, output),
        Command::Takeover(args) => takeover::run(global, &args, output),
        Command::Handover(args) => handover::run(global, &target()?, &args, output),
        Command::Completion(args) => meta::completion(args.shell),
        Command::Man(args) => meta::man(args.dir.as_deref()),
        Command::Version => meta::version(output),
        // Already handled by the epmd personality.
        Command::Epmd(_) => Ok(Exit::Usage),
    }
}

/// Prints help, or the error in the command line.
fn explain(error: &clap::Error, args: &[OsString]) -> Exit {
    if !error.use_stderr() {
        let mut out = stdout();
        // The reader may have closed standard output.
        let _ = write!(out, "{}", error.render()).and_then(|()| out.flush());
        return Exit::Done;
    }
    let text = error.render().to_string();
    let tip = tips::tip(error, args);
    match (&tip, text.split_once("\n\n")) {
        (Some(tip), Some((error, usage))) => {
            note(&format!("{error}\n\n  tip: {tip}\n\n{}", usage.trim_end()));
        }
        _ => note(text.trim_end()),
    }
    if asks_for_json(args) {
        let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        let failure = Failure::new(Exit::Usage, message, tip.as_deref().unwrap_or("see pmd --help"));
        let mut out = stdout();
        let body = ErrorBody { error: failure.info() };
        let _ = json(&mut out, &body, true).and_then(|()| out.flush());
    }
    Exit::Usage
}

/// Whether an invalid command line seems to request JSON.
fn asks_for_json(args: &[OsString]) -> bool {
    let words: Vec<String> = args.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let form = |word: &str| matches!(word, "json" | "jsonl");
    words.iter().zip(words.iter().skip(1).map(Some).chain([None])).any(|(word, next)| match word.as_str() {
        "--json" => true,
        "-o" | "--output" => next.is_some_and(|next| form(next)),
        _ => word
            .strip_prefix("--output=")
            .or_else(|| word.strip_prefix("-o="))
            .or_else(|| word.strip_prefix("-o"))
            .is_some_and(form),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_recognised_even_in_an_invalid_command_line() {
        for words in [["--json", "x"], ["-o", "jsonl"], ["x", "-ojson"], ["--output=json", "x"]] {
            assert!(asks_for_json(&words.map(OsString::from)), "{words:?}");
        }
        for words in [["-o", "table"], ["json", "-o"], ["--output", "wide"]] {
            assert!(!asks_for_json(&words.map(OsString::from)), "{words:?}");
        }
    }
}
