//! The EPMD server on TCP: compatible with stock epmd, for as many nodes as the descriptors allow.
//!
//! One thread, the first `shard`, accepts connections, and others help when it cannot keep up. A lookup whose request
//! arrives in one piece is accepted, read, answered and closed inline, without a task, an allocation or a log line;
//! only connections that must wait get an entry in the thread's table of `connections` and in its epoll set.

mod answer;
mod connections;
mod holder_check;
mod inbox;
pub mod listener;
pub mod locality;
mod lookup;
mod shard;
mod shared;
pub mod trace;

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use connections::Tables;
use holder_check::HolderCheck;
use inbox::Inbox;
use listener::Listener;
use shard::Shard;

pub use lookup::{Asker, Later, NotFound};
pub use shared::{Directory, Handoff, Host, Options, Shared};

/// The number of descriptors that each shard needs: its epoll set, its eventfd, and a connection that it has just
/// accepted.
pub const SHARD_DESCRIPTORS: usize = 3;

/// A running server. Its threads run until [`stop`](Server::stop).
#[derive(Debug)]
pub struct Server {
    listeners: Arc<[Listener]>,
    shards: Vec<(Arc<Inbox>, JoinHandle<()>)>,
    holder_check: Option<(HolderCheck, JoinHandle<()>)>,
}

impl Server {
    /// Starts the threads.
    ///
    /// # Errors
    ///
    /// If a thread or a descriptor cannot be created.
    pub fn start(shared: Shared, listeners: Arc<[Listener]>, options: Options) -> io::Result<Server> {
        // Stock's test aids pause the whole server.
        let paused = !(options.delay_accept.is_zero() && options.delay_write.is_zero());
        let count = if paused { 1 } else { options.threads };
        let (shared, options) = (Arc::new(shared), Arc::new(options));
        let (holder_check, checking) = HolderCheck::start(Arc::clone(&shared.host))?;
        let (first_tables, other_tables) = Tables::for_shards(count);
        let mut shards = other_tables
            .map(|tables| {
                let (shared, options) = (Arc::clone(&shared), Arc::clone(&options));
                Shard::helper(shared, options, Arc::clone(&listeners), holder_check.clone(), tables)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let check = holder_check.clone();
        let first = Shard::first(shared, options, Arc::clone(&listeners), check, first_tables, &shards)?;
        shards.insert(0, first);
        let shards = shards.into_iter().enumerate().map(|(number, shard)| {
            let inbox = shard.inbox();
            let thread = std::thread::Builder::new().name(format!("epmd-{number}"));
            thread.spawn(move || shard.run()).map(|running| (inbox, running))
        });
        let shards = shards.collect::<io::Result<Vec<_>>>()?;
        Ok(Server { listeners, shards, holder_check: Some((holder_check, checking)) })
    }

    /// Stops listening: the addresses are free from now on, unless the sockets came from a supervisor.
    pub fn close(&self) {
        self.listeners.iter().for_each(Listener::close);
    }

    /// Stops listening, stops the threads and waits for them. All connections are closed.
    pub fn stop(mut self) {
        self.close();
        for (inbox, _) in &self.shards {
            inbox.stop();
        }
        for (_, running) in self.shards.drain(..) {
            // A failure was already reported by the thread itself.
            let _ = running.join();
        }
        if let Some((questions, running)) = self.holder_check.take() {
            // The thread ends when the last sender is dropped.
            drop(questions);
            let _ = running.join();
        }
    }
}
