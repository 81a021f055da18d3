//! What the kernel tells about sockets and the processes that hold them, proc(5).

pub mod processes;
mod sock_diag;
pub mod sockets;
