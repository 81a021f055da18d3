//! What the kernel tells about sockets and the processes that hold them: proc(5), sock_diag(7).

pub mod processes;
mod sock_diag;
pub mod sockets;
