//! Changing places with a running stock epmd, without restarting a node.
//!
//! Nodes of OTP 23.3 and later notice within 2 s that their port mapper is gone and register with the one that
//! holds the port by then. What is needed around that: to know who holds the port ([`owner`], [`port`]), to ask what is
//! registered there ([`ask`]), to end it only if it is what it seems ([`process`], [`systemd`]), and to be able
//! to start it again ([`stock`]).

pub mod ask;
pub mod owner;
pub mod port;
pub mod process;
pub mod stock;
pub mod systemd;
