//! The running daemon: its parts are put together here, started, and ended.

mod handoff;
pub mod notify;
pub mod process;
pub mod run;
pub mod systemd;
