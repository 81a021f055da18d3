//! Kernel information on sockets and the processes that hold them: proc(5), sock_diag(7).
//!
//! Existing crates were measured and rejected. `procfs` opens every descriptor of a process and queries its status:
//! four system calls where this module needs one, 1.6 times the time, and a free descriptor, which a daemon under
//! attack may not have. `netlink-packet-sock-diag` is as fast and would save 55 lines, but it adds four crates and 26
//! KB of code, because it parses all attributes of all families, while this module needs seven fields of one message.

pub mod processes;
mod sock_diag;
pub mod socket;
pub mod sockets;
