//! What the arguments of several commands share.

use clap::Args;

/// The template of help: the purpose of the command and examples come first.
pub(super) const HELP: &str =
    "{about-with-newline}\n{before-help}{usage-heading} {usage}\n\n{all-args}{after-help}";

/// Options of commands that can be watched.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Watch {
    /// Keep showing it: redraws a terminal, and prints JSON lines otherwise
    #[arg(short, long)]
    pub watch: bool,
}
