//! Discovery of other daemons: the built-in plugins, and the trait for writing more.
//!
//! A plugin reports where daemons may be. It does not decide which of them are admitted: every reported address is
//! dialled like one typed by a user, with mutual TLS and proof of the cluster secret. A wrong report wastes a dial and
//! nothing else.
//!
//! | plugin | finds |
//! |---|---|
//! | [`seeds`] | the addresses in the configuration |
//! | [`broadcast`] | daemons on the same networks, by authenticated [beacons](beacon) |
//! | [`dns`] | the addresses of a name in the DNS (A, AAAA and SRV records) |
//! | [`exec`] | the addresses that a program prints |
//!
//! Reported addresses go to [`candidates`], which decides what is dialled and when. [`spec`] builds the configured
//! plugins, and [`run`] restarts a plugin that fails.
//!
//! # Writing a plugin
//!
//! Implement [`Discovery`]: give it a name, and let [`Discovery::run`] report addresses to [`Finds`] for as long as it
//! is polled. Reporting an address again does not dial it twice. An address that is not reported for ten minutes is
//! forgotten, so report existing ones repeatedly. The plugin chooses the interval; 30 seconds is usual. Everything it
//! starts must end when the future is dropped.
//!
//! When `run` returns an error, the error is logged and `run` is called again after a pause that grows from 1 to 60 s.
//! State that must survive this belongs in the plugin itself. An error message is one sentence. Finding nothing is not
//! an error.
//!
//! ```
//! use std::time::Duration;
//!
//! use pmd::discovery::{Discovery, DiscoveryError, Find, Finds, Running};
//!
//! /// Daemons listed in a file, one address per line.
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

/// Capacity of the queue of finds. When it is full, plugins wait.
pub const FINDS: usize = 256;

/// What [`Discovery::run`] returns: a future that ends only with an error.
pub type Running<'a> = Pin<Box<dyn Future<Output = Result<Infallible, DiscoveryError>> + Send + 'a>>;

/// A plugin that finds other daemons. See the [module](self).
pub trait Discovery: fmt::Debug + Send + Sync + 'static {
    /// The plugin's name in the configuration, in the log and in `pmd discover`.
    fn name(&self) -> &'static str;

    /// Reports finds until the future is dropped.
    ///
    /// # Errors
    ///
    /// If the plugin cannot continue. The error is logged, and `run` is called again after a pause.
    fn run<'a>(&'a self, finds: &'a Finds) -> Running<'a>;
}

/// A reported address, where a daemon may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Find {
    /// `HOST`, `HOST:PORT`, `ADDRESS:PORT` or `[IPV6]:PORT`. The default port is the daemon's own.
    pub address: String,
    /// The daemon's cluster name, if the plugin knows it. Daemons of other clusters are shown but not dialled.
    pub cluster: Option<String>,
    /// The daemon's id, if the plugin knows it. A daemon that is already a member is not dialled.
    pub id: Option<NodeId>,
    /// Whether the daemon is known to use a different cluster secret. Such daemons are shown but not dialled.
    pub other_cookie: bool,
}

impl Find {
    /// A find with only an address.
    pub fn at(address: impl Into<String>) -> Find {
        Find { address: address.into(), cluster: None, id: None, other_cookie: false }
    }
}

/// The channel that a plugin reports to.
#[derive(Clone, Debug)]
pub struct Finds {
    source: &'static str,
    sender: mpsc::Sender<(&'static str, Find)>,
}

impl Finds {
    /// Creates the channel for the plugin `source`, whose name is sent with each report.
    pub fn new(source: &'static str, sender: mpsc::Sender<(&'static str, Find)>) -> Finds {
        Finds { source, sender }
    }

    /// Reports a find. Waits while the queue is full.
    pub async fn report(&self, find: Find) {
        // This fails only if the daemon is shutting down.
        let _ = self.sender.send((self.source, find)).await;
    }
}

/// Why a plugin cannot continue.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct DiscoveryError(String);

impl DiscoveryError {
    /// Creates an error with this message.
    pub fn because(reason: impl fmt::Display) -> DiscoveryError {
        DiscoveryError(reason.to_string())
    }
}
