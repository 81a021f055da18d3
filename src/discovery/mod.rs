//! Finding other daemons: plugins that do so, and the trait for writing one.
//!
//! A plugin says where daemons may be. It never decides which of them are admitted: every address it reports is dialled
//! like one that a person has typed, with mutual TLS and proof of the cluster secret. A plugin that lies wastes a dial and
//! nothing else.
//!
//! | plugin | finds |
//! |---|---|
//! | [`seeds`] | the addresses in the configuration |
//! | [`broadcast`] | daemons on the same networks, by authenticated [beacons](beacon) |
//! | [`dns`] | the addresses of a name in the DNS (A, AAAA and SRV records) |
//! | [`exec`] | the addresses that a program prints |
//!
//! What they find goes to [`candidates`], which decides what is dialled and when. [`spec`] builds the configured plugins, and
//! [`run`] restarts one that fails.
//!
//! # Writing a plugin
//!
//! Implement [`Discovery`]: give it a name, and let [`Discovery::run`] report what it finds to [`Finds`] for as long as it
//! is polled. An address that is reported again is not dialled twice; one that is not reported again within ten minutes is
//! forgotten, so report what is still there from time to time. The plugin decides how long it waits; half a minute is
//! usual. Everything it starts must end when the future is dropped.
//!
//! When `run` returns an error, the error is logged and `run` is called again after a pause that grows from 1 s to 60 s.
//! State that must survive this belongs in the plugin itself. An error says in one sentence what happened. Finding nothing
//! is not an error.
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

/// Finds that can be queued. A plugin that reports more waits until the daemon has handled some.
pub const FINDS: usize = 256;

/// What [`Discovery::run`] returns: a future that ends only with an error.
pub type Running<'a> = Pin<Box<dyn Future<Output = Result<Infallible, DiscoveryError>> + Send + 'a>>;

/// A way to find other daemons. See the [module](self).
pub trait Discovery: fmt::Debug + Send + Sync + 'static {
    /// Its name in the configuration, in the log and in `pmd discover`.
    fn name(&self) -> &'static str;

    /// Reports what it finds until the future is dropped.
    ///
    /// # Errors
    ///
    /// If it cannot continue. The error is logged, and `run` is called again after a pause.
    fn run<'a>(&'a self, finds: &'a Finds) -> Running<'a>;
}

/// Where a daemon may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Find {
    /// `HOST`, `HOST:PORT`, `ADDRESS:PORT` or `[IPV6]:PORT`. The default port is the daemon's own.
    pub address: String,
    /// The name of its cluster, if the plugin knows it. Daemons of other clusters are shown but not dialled.
    pub cluster: Option<String>,
    /// Its id, if the plugin knows it. A daemon that is already a member is not dialled.
    pub id: Option<NodeId>,
    /// Whether it is known to have another cluster secret. Such daemons are shown but not dialled.
    pub other_cookie: bool,
}

impl Find {
    /// A daemon at this address, of any cluster.
    pub fn at(address: impl Into<String>) -> Find {
        Find { address: address.into(), cluster: None, id: None, other_cookie: false }
    }
}

/// Receives what a plugin reports.
#[derive(Clone, Debug)]
pub struct Finds {
    source: &'static str,
    sender: mpsc::Sender<(&'static str, Find)>,
}

impl Finds {
    /// For the plugin `source`, whose name is sent with each report.
    pub fn new(source: &'static str, sender: mpsc::Sender<(&'static str, Find)>) -> Finds {
        Finds { source, sender }
    }

    /// Reports a find. Waits while [`FINDS`] others are queued.
    pub async fn report(&self, find: Find) {
        // The receiver is gone only when the daemon is about to end.
        let _ = self.sender.send((self.source, find)).await;
    }
}

/// Why a plugin cannot continue.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct DiscoveryError(String);

impl DiscoveryError {
    /// An error with this explanation.
    pub fn because(reason: impl fmt::Display) -> DiscoveryError {
        DiscoveryError(reason.to_string())
    }
}
