//! The parts of a switch between a stock epmd and pmd that restarts no node.
//!
//! Nodes of OTP 23.3 and later register again within 2 s with the port mapper that holds the port by then. A switch needs
//! to know which process holds the port ([`owner`], [`port`]) and what is registered there ([`ask`]), to stop the right
//! process ([`process`], [`systemd`]), and to start a stock epmd ([`stock`]).

pub mod ask;
pub mod owner;
pub mod port;
pub mod process;
pub mod stock;
pub mod systemd;
