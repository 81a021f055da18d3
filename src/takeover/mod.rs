//! Building blocks for switching between a stock epmd and pmd without restarting nodes.
//!
//! Nodes on OTP 23.3 and later register again within 2 s with whichever port mapper then holds the port. A switch has
//! to find the process that holds the port ([`owner`], [`port`]) and the registered nodes ([`ask`]), stop that process
//! ([`process`], [`systemd`]), and, if it goes back to stock epmd, start that ([`stock`]).

pub mod ask;
pub mod owner;
pub mod port;
pub mod process;
pub mod stock;
pub mod systemd;
