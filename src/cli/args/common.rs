//! Arguments shared by several commands.

use clap::Args;

/// The help template: the purpose of the command and examples come first.
pub(super) const HELP: &str =
    "{about-with-newline}\n{before-help}{usage-heading} {usage}\n\n{all-args}{after-help}";

/// Options of commands that can be watched. Only they have a short form: in other commands, `-w` is a hidden alias of
/// `--wait`, for scripts from the time when it was both.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Watch {
    /// Refresh until interrupted: redraw a terminal, otherwise print JSON lines
    #[arg(short, long)]
    pub watch: bool,
}
