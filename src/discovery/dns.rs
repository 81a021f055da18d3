//! Finds daemons by a name in the DNS.
//!
//! All addresses of the name are reported with the same port. They come from the system's resolver (`getaddrinfo`), so
//! `/etc/hosts`, search domains and other sources are used as by any other program. A name that begins with `_`, such
//! as `_pmd._tcp.example.org`, means SRV records (RFC 2782), which give a host and a port each. The system's resolver
//! cannot look these up, so the name servers in `/etc/resolv.conf`, which is reread each time, are queried directly.
//!
//! The lookup is repeated after 5 seconds if it returned no addresses or different ones. While nothing changes, the
//! [pause](PAUSES) doubles up to a minute. A name whose addresses change often, such as that of a headless service in
//! Kubernetes, is thus tracked closely.
//!
//! A name without addresses is not an error: the daemons may not have been started yet.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use dns_lookup::LookupErrorKind;
use domain::base::iana::Rcode;
use domain::base::{Message, Name};
use domain::rdata::Srv;
use domain::resolv::stub::conf::{ResolvConf, ResolvOptions};
use tokio::task::spawn_blocking;

use super::{Discovery, DiscoveryError, Find, Finds, Running};
use crate::base::backoff::Backoff;

mod server;

/// The plugin's name.
pub const NAME: &str = "dns";
/// Pauses between two lookups: the shortest after an empty or changed result, growing while the result stays the same.
pub const PAUSES: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(60));
/// Timeout for one lookup, including all configured servers and search domains.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum number of records read from one answer. `Candidates` remembers no more addresses than that.
const MAX_RECORDS: usize = 1024;
/// The file that lists the name servers.
const CONFIGURATION: &str = "/etc/resolv.conf";

/// Looks up a name in the DNS.
#[derive(Clone, Debug)]
pub struct Dns {
    name: String,
    port: u16,
    servers: Servers,
}

/// The servers that are queried for SRV records.
#[derive(Clone, Debug)]
enum Servers {
    /// The servers in `/etc/resolv.conf`.
    System,
    /// Specific servers.
    #[cfg_attr(not(test), expect(dead_code, reason = "only tests use servers other than the system's"))]
    These(ResolvConf),
}

/// The addresses or hosts found for a name, each with a port.
type Addresses = BTreeSet<String>;

impl Dns {
    /// Creates a plugin that looks up `name`. Daemons are expected on `port`, unless SRV records specify a port.
    pub fn new(name: String, port: u16) -> Dns {
        Dns { name, port, servers: Servers::System }
    }

    async fn look_up(&self) -> Result<Addresses, DiscoveryError> {
        if self.name.starts_with('_') { self.srv().await } else { self.ip().await }
    }

    async fn ip(&self) -> Result<Addresses, DiscoveryError> {
        let name = self.name.clone();
        let found = spawn_blocking(move || dns_lookup::lookup_host(&name).map(Iterator::collect::<Vec<_>>));
        match found.await.map_err(|error| self.because(error))? {
            Ok(found) => {
                let addresses = found.into_iter().take(MAX_RECORDS);
                Ok(addresses.map(|ip| SocketAddr::new(ip, self.port).to_string()).collect())
            }
            Err(error) if matches!(error.kind(), LookupErrorKind::NoName | LookupErrorKind::NoData) => {
                Ok(Addresses::new())
            }
            Err(error) => Err(self.because(std::io::Error::from(error))),
        }
    }

    async fn srv(&self) -> Result<Addresses, DiscoveryError> {
        let configuration = self.servers()?;
        for name in candidates(&self.name, &configuration.options) {
            let name: Name<Vec<u8>> = name.parse().map_err(|error| self.because(error))?;
            let answer = server::ask_for_srv(&configuration, name).await;
            let found = self.read(&answer.map_err(|error| self.because(error))?)?;
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Ok(Addresses::new())
    }

    fn servers(&self) -> Result<ResolvConf, DiscoveryError> {
        let mut configuration = match &self.servers {
            Servers::System => {
                let mut configuration = ResolvConf::new();
                configuration.parse_file(CONFIGURATION).map_err(|error| {
                    self.because(format!("SRV lookups require a name server in {CONFIGURATION}: {error}"))
                })?;
                configuration
            }
            Servers::These(these) => these.clone(),
        };
        configuration.finalize();
        Ok(configuration)
    }

    fn read(&self, answer: &Message<Vec<u8>>) -> Result<Addresses, DiscoveryError> {
        match answer.header().rcode() {
            Rcode::NOERROR => {}
            Rcode::NXDOMAIN => return Ok(Addresses::new()),
            other => return Err(self.because(format!("the name server returned {other}"))),
        }
        let records = answer.answer().map_err(|error| self.because(error))?.limit_to_in::<Srv<_>>();
        let mut found = Addresses::new();
        for record in records.take(MAX_RECORDS) {
            let record = record.map_err(|error| self.because(error))?;
            let (target, port) = (record.data().target(), record.data().port());
            // RFC 2782: "A Target of "." means that the service is decidedly not available at this domain."
            if !target.is_root() && port != 0 {
                // Reported by name, which stays valid when the daemon's address changes.
                found.insert(format!("{target}:{port}"));
            }
        }
        Ok(found)
    }

    fn because(&self, reason: impl std::fmt::Display) -> DiscoveryError {
        DiscoveryError::because(format!("cannot look up {}: {reason}", self.name))
    }
}

impl Discovery for Dns {
    fn name(&self) -> &'static str {
        NAME
    }

    fn run<'a>(&'a self, finds: &'a Finds) -> Running<'a> {
        let mut before = None;
        let mut same: u32 = 0;
        Box::pin(async move {
            loop {
                let found = tokio::time::timeout(TIMEOUT, self.look_up()).await;
                let found = found.map_err(|_| self.because("no name server answered"))??;
                // Consecutive empty results are logged only once.
                let is_new = before.as_ref() != Some(&found);
                if found.is_empty() && is_new {
                    tracing::warn!("{} has no addresses in the DNS, retrying", self.name);
                }
                same = if found.is_empty() || is_new { 1 } else { same.saturating_add(1) };
                for address in &found {
                    finds.report(Find::at(address.clone())).await;
                }
                before = Some(found);
                tokio::time::sleep(PAUSES.pause(same)).await;
            }
        })
    }
}

/// The names to query, in order, by the rules of resolv.conf(5): a name with fewer than `ndots` dots is tried in the
/// search domains first, other names are tried as they are first, and a name with a trailing dot only as it is.
fn candidates(name: &str, options: &ResolvOptions) -> Vec<String> {
    if name.ends_with('.') {
        return vec![name.to_owned()];
    }
    let domains = options.search.as_slice().iter().map(ToString::to_string);
    let mut names: Vec<String> = domains
        .filter(|domain| !domain.is_empty() && domain != ".")
        .map(|domain| format!("{name}.{domain}"))
        .collect();
    let index = if name.matches('.').count() >= options.ndots { 0 } else { names.len() };
    names.insert(index, name.to_owned());
    names
}

#[cfg(test)]
mod tests;
