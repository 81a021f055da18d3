//! The binary: runs as `pmd`, or as `epmd` when called by that name.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let called_epmd = args.first().and_then(|name| Path::new(name).file_name()).is_some_and(|n| n == "epmd");
    if called_epmd { pmd::personality::run(&args) } else { pmd::cli::run(args) }
}
