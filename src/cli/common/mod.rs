//! Code shared by the commands: selecting the daemon, running, printing, and reporting failures.

pub mod diagnosis;
pub mod exit;
pub mod failure;
pub mod launch;
pub mod node_env;
pub mod node_files;
pub mod output;
pub mod own_inetrc;
pub mod runtime;
pub mod signals;
pub mod switch;
pub mod table;
pub mod target;
pub mod watch;

pub use diagnosis::explain;
pub use exit::Exit;
pub use failure::{Failure, Result};
pub use output::{Output, note};
pub use runtime::{block_on, block_on_step, with_progress};
pub use table::{Colour, Column, Table};
pub use target::Target;
