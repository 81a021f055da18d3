//! Finding other daemons, and the trait for doing so in a way of one's own.
//!
//! A plugin says where daemons may be; it never decides who is let in. Every address it gives is dialled like one that a
//! person has typed: with mutual TLS and the proof of the cookie. A plugin that lies wastes a dial and nothing else.
//!
//! | plugin | finds |
//! |---|---|
//! | [`seeds`] | the addresses in the configuration |
//! | [`broadcast`] | daemons on the same networks, by authenticated [beacons](beacon) |
//! | [`dns`] | what a name in the DNS stands for (A, AAAA and SRV records) |
//! | [`exec`] | what a program prints |
//!
//! What they find goes to [`candidates`], which decide what is dialled and when. [`spec`] reads a plugin's line in the
//! configuration, [`run`] keeps it going.
//!
//! # Writing a plugin
//!
//! Implement [`Discovery`]: give it a name, and let [`Discovery::run`] report what it finds to [`Finds`], as often as it
//! likes, for as long as it is polled. A find that was reported before is not dialled twice; one that is not reported again
//! within ten minutes is forgotten, so report what is still there every now and then. Waiting is up to the plugin: half a
//! minute between two looks is a good custom. Everything it begins must end when the future is dropped.
//!
//! When `run` returns an error, it is logged and `run` is called again after a pause that grows from 1 s to 60 s; what it
//! needs to remember belongs into the plugin itself. An error says in one sentence what happened. Finding nothing is none.
//!
//! ```
//! use std::time::Duration;
//!
//! use pmd::discovery::{Discovery, DiscoveryError, Find, Finds, Running};
//!
//! /// Daemons whose addresses stand in a file, one to a line.
//! #[derive(Debug)]
//! struct Hosts(std::path::PathBuf);
//!
//! impl Discovery for Hosts {
//!     fn name(&self) -> &'static str {
//!         "hosts"
//!     }
//!
//!     fn run<'a>(&'a self, finds: &'a Finds) -> Running<'a> {
//!         Box::pin(async move {
//!             loop {
//!                 let path = self.0.clone();
//!                 let read = tokio::task::spawn_blocking(|| std::fs::read_to_string(path)).await;
//!                 let text = read.map_err(DiscoveryError::because)?.map_err(DiscoveryError::because)?;
//!                 for address in text.lines() {
//!                     finds.report(Find::at(address)).await;
//!                 }
//!                 tokio::time::sleep(Duration::from_secs(30)).await;
//!             }
//!         })
//!     }
//! }
//! ```

pub mod address;
pub mod beacon;
pub mod broadcast;
pub mod candidates;
pub mod dns;
pub mod exec;
pub mod interfaces;
pub mod pace;
pub mod run;
pub mod seeds;
pub mod spec;

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;

use pmd_protocol::peer::NodeId;
use tokio::sync::mpsc;

/// Finds that wait to be looked at. More only pile up while the daemon is busy with those before.
pub const FINDS: usize = 256;

/// What [`Discovery::run`] returns: a future that ends only if something is wrong.
pub type Running<'a> = Pin<Box<dyn Future<Output = Result<Infallible, DiscoveryError>> + Send + 'a>>;

/// A way to find other daemons. See the [module](self).
pub trait Discovery: fmt::Debug + Send + Sync + 'static {
    /// What it is called in the configuration, in logs and by `pmd discover`.
    fn name(&self) -> &'static str;

    /// Reports what it finds until it is dropped.
    ///
    /// # Errors
    ///
    /// If it cannot go on. It is logged, and `run` is called again after a while.
    fn run<'a>(&'a self, finds: &'a Finds) -> Running<'a>;
}

/// Where a daemon may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Find {
    /// `HOST`, `HOST:PORT`, `ADDRESS:PORT` or `[IPV6]:PORT`. Without a port, the daemon's own is meant.
    pub address: String,
    /// The name of its cluster, if the plugin knows. Daemons of other clusters are shown and not dialled.
    pub cluster: Option<String>,
    /// Which daemon it is, if the plugin knows. A daemon that is a member already is not dialled.
    pub id: Option<NodeId>,
    /// Whether it is known to have another cookie. Such daemons are shown and not dialled either.
    pub other_cookie: bool,
}

impl Find {
    /// At this address, of whichever cluster.
    pub fn at(address: impl Into<String>) -> Find {
        Find { address: address.into(), cluster: None, id: None, other_cookie: false }
    }
}

/// Where a plugin reports to.
#[derive(Clone, Debug)]
pub struct Finds {
    source: &'static str,
    sender: mpsc::Sender<(&'static str, Find)>,
}

impl Finds {
    /// For the plugin `source`; what it reports can be received with its name.
    pub fn new(source: &'static str, sender: mpsc::Sender<(&'static str, Find)>) -> Finds {
        Finds { source, sender }
    }

    /// Reports a find; waits if the daemon has not looked at the last [`FINDS`] yet.
    pub async fn report(&self, find: Find) {
        // Without a receiver the daemon is about to end.
        let _ = self.sender.send((self.source, find)).await;
    }
}

/// Why a plugin cannot go on.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct DiscoveryError(String);

impl DiscoveryError {
    /// With an explanation for the log.
    pub fn because(reason: impl fmt::Display) -> DiscoveryError {
        DiscoveryError(reason.to_string())
    }
}
