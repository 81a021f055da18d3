//! Serves the nodes of this host on a port, as stock epmd does: `cargo run -p pmd-epmd --example serve -- 4370`, then
//! `ERL_EPMD_PORT=4370 erl -sname foo`.

use std::process::exit;
use std::sync::Arc;

use pmd_epmd::names::{NameRegistry, NoObserver};
use pmd_epmd::server::listener::bind_all;
use pmd_epmd::server::{Host, Options, Server, Shared};

#[derive(Debug)]
struct Program;

impl Host for Program {
    fn killed(&self) {
        exit(0);
    }

    fn thread_ended(&self, thread: &str, reason: &str) {
        eprintln!("thread {thread} ended: {reason}");
        exit(1);
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port: u16 = std::env::args().nth(1).map_or(Ok(4369), |port| port.parse())?;
    let names = Arc::new(NameRegistry::new(port.into(), 1000, Box::new(NoObserver)));
    let shared = Shared::new(names, Arc::new(Program), 1024);
    let _server = Server::start(shared, bind_all(&[], port)?.into(), Options::default())?;
    println!("serving on port {port}; stop it with epmd -kill");
    loop {
        std::thread::park();
    }
}
