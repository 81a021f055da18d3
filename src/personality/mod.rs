//! The `epmd` personality: the behaviour of the binary when called as `epmd`.
//!
//! It supports every option, environment variable, output and exit code of stock epmd, because programs rely on them:
//! `erl` runs `epmd -daemon` at every distributed start and ignores the result, scripts read `epmd -names`, and
//! supervisors run `epmd -systemd`.

pub mod args;
pub mod client;
pub mod daemonize;
mod joined;
pub mod log;
pub mod server;

use std::ffi::OsString;
use std::process::ExitCode;

use args::{Action, Environment};

/// Runs as `epmd` with these arguments; the first is the program name.
pub fn run(args: &[OsString]) -> ExitCode {
    let words: Vec<String> = args.iter().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    if let [rest @ .., flag, stage] = words.as_slice()
        && flag == daemonize::STAGE
    {
        return daemonize::run_stage(stage, rest);
    }
    match args::parse(&words, &Environment::of_process()) {
        Ok(Action::Ask { command, port }) => client::run(&command, port),
        Ok(Action::Serve(options)) if options.daemon => daemonize::launch(&words),
        Ok(Action::Serve(options)) => server::run(&options, false),
        Err(error) => {
            eprint!("{error}");
            ExitCode::FAILURE
        }
    }
}
