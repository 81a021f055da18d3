//! The running daemon: assembles its parts, starts and stops them.

mod handoff;
pub mod notify;
pub mod process;
pub mod run;
pub mod systemd;
