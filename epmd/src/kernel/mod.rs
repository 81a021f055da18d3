//! What the kernel says about sockets and the processes that hold them: proc(5), sock_diag(7).
//!
//! Crates for this were measured and are not used. `procfs` opens every descriptor of a process and asks for its status:
//! four system calls where this module needs one, 1.6 times the time, and a free descriptor of our own, which a daemon
//! under attack may not have. `netlink-packet-sock-diag` is as fast and would save 55 lines, but it brings four crates and
//! 26 KB of code, because it parses all attributes of all families, and this module needs seven fields of one message.

pub mod processes;
mod sock_diag;
pub mod socket;
pub mod sockets;
