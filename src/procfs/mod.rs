//! What the kernel tells about sockets and the processes that hold them, proc(5).

pub mod processes;
pub mod sockets;
