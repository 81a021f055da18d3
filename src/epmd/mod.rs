//! The EPMD protocol on TCP: what stock epmd does, for as many nodes as there are descriptors.
//!
//! One thread ([`shard`]) accepts, and others help when it cannot keep up. A look-up whose request arrives in one piece is
//! accepted, read, answered from the directory and closed inline, without a task, an allocation or a log line;
//! only what has to wait gets a place in the thread's [`table`] and in its epoll set.

mod answer;
pub mod holder;
pub mod holder_check;
pub mod listener;
pub mod locality;
pub mod names;
pub mod shard;
pub mod table;
pub mod trace;
