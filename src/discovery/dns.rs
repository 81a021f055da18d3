//! Finds daemons by a name in the DNS.
//!
//! All its addresses (A and AAAA records) are taken, each with one port. A name that begins with `_`, such as
//! `_pmd._tcp.example.org`, stands for SRV records (RFC 2782): hosts with a port each. The name is looked up again when
//! its records have run out, but not before [5 seconds](SOONEST) and after [a minute](LATEST) at the latest: a name
//! whose addresses change all the time, as that of a headless service of Kubernetes does, is followed.
//!
//! The servers and search domains are those of `/etc/resolv.conf`, `/etc/hosts` counts too; both are read anew each
//! time. If the former cannot be read, the system is asked to do it, which knows no SRV records.
//!
//! A name that stands for nothing is no error: the daemons may not have been started yet.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::{Name, RData};

use super::{Discovery, DiscoveryError, Find, Finds, Running};

/// What it is called.
pub const NAME: &str = "dns";
/// Shortest pause between two look-ups.
pub const SOONEST: Duration = Duration::from_secs(5);
/// Longest pause between two look-ups.
pub const LATEST: Duration = Duration::from_secs(60);
/// Pause where nobody says how long an answer is good for.
const UNTOLD: Duration = Duration::from_secs(30);
/// How long one look-up may take, with all that the system's configuration wants to be tried.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Most records of one answer that are looked at. No more addresses are remembered, whoever finds them.
const MAX_RECORDS: usize = 1024;

/// A name that is looked up.
#[derive(Clone, Debug)]
pub struct Dns {
    name: String,
    port: u16,
    servers: Servers,
}

/// Who is asked.
#[derive(Clone, Debug)]
enum Servers {
    /// As `/etc/resolv.conf` says.
    System,
    /// These.
    #[cfg_attr(not(test), expect(dead_code, reason = "the system's are asked, but for tests"))]
    These(Box<(ResolverConfig, ResolverOpts)>),
}

/// What a name stands for.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    addresses: Vec<String>,
    /// How long that is good for.
    ttl: Duration,
}

impl Dns {
    /// Looks up `name`. Daemons are expected on `port`, except by SRV records.
    pub fn new(name: String, port: u16) -> Dns {
        Dns { name, port, servers: Servers::System }
    }

    async fn look_up(&self) -> Result<Answer, DiscoveryError> {
        let resolver = match self.resolver() {
            Ok(resolver) => resolver,
            Err(error) => {
                tracing::debug!("the system is asked for {}: no /etc/resolv.conf: {error}", self.name);
                return self.ask_system().await;
            }
        };
        // Not as UTF-8: there are underscores in the names of hosts.
        let name = Name::from_ascii(&self.name).map_err(|error| self.because(error))?;
        let found = if self.is_srv() { srv(&resolver, name).await } else { self.ip(&resolver, name).await };
        match found {
            Ok(answer) => Ok(answer),
            Err(NetError::Dns(DnsError::NoRecordsFound(nothing))) => {
                let ttl = nothing.negative_ttl.map_or(SOONEST, |ttl| Duration::from_secs(ttl.into()));
                Ok(Answer { addresses: Vec::new(), ttl })
            }
            Err(error) => Err(self.because(error)),
        }
    }

    fn is_srv(&self) -> bool {
        self.name.starts_with('_')
    }

    fn resolver(&self) -> Result<TokioResolver, NetError> {
        let mut builder = match &self.servers {
            Servers::System => TokioResolver::builder_tokio()?,
            Servers::These(these) => {
                let (config, options) = these.as_ref().clone();
                let provider = TokioRuntimeProvider::default();
                TokioResolver::builder_with_config(config, provider).with_options(options)
            }
        };
        let options = builder.options_mut();
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        builder.build()
    }

    async fn ip(&self, resolver: &TokioResolver, name: Name) -> Result<Answer, NetError> {
        let found = resolver.lookup_ip(name).await?;
        let ttl = remaining(found.valid_until());
        let addresses = found.iter().take(MAX_RECORDS);
        let addresses = addresses.map(|ip| SocketAddr::new(ip, self.port).to_string()).collect();
        Ok(Answer { addresses, ttl })
    }

    async fn ask_system(&self) -> Result<Answer, DiscoveryError> {
        if self.is_srv() {
            return Err(self.because("SRV records need a name server in /etc/resolv.conf"));
        }
        let found = tokio::net::lookup_host((self.name.as_str(), self.port)).await;
        let found = found.map_err(|error| self.because(error))?;
        let addresses = found.take(MAX_RECORDS).map(|address| address.to_string()).collect();
        Ok(Answer { addresses, ttl: UNTOLD })
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
        // Two in a row that find nothing are told once.
        let mut is_empty = false;
        Box::pin(async move {
            loop {
                let answer = tokio::time::timeout(TIMEOUT, self.look_up()).await;
                let answer = answer.map_err(|_| self.because("nobody answers"))??;
                if answer.addresses.is_empty() && !is_empty {
                    tracing::warn!("the DNS has no addresses for {}; it is asked again", self.name);
                }
                is_empty = answer.addresses.is_empty();
                for address in answer.addresses {
                    finds.report(Find::at(address)).await;
                }
                tokio::time::sleep(answer.ttl.clamp(SOONEST, LATEST)).await;
            }
        })
    }
}

async fn srv(resolver: &TokioResolver, name: Name) -> Result<Answer, NetError> {
    let found = resolver.srv_lookup(name).await?;
    let records = found.answers().iter().take(MAX_RECORDS);
    let addresses = records.filter_map(|record| match &record.data {
        // "A Target of "." means that the service is decidedly not available at this domain."
        RData::SRV(srv) if !srv.target.is_root() && srv.port != 0 => {
            let target = srv.target.to_ascii();
            // By name: that is the same daemon even after it has moved.
            Some(format!("{}:{}", target.trim_end_matches('.'), srv.port))
        }
        _ => None,
    });
    Ok(Answer { addresses: addresses.collect(), ttl: remaining(found.valid_until()) })
}

fn remaining(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}

#[cfg(test)]
mod tests;
