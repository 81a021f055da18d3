//! Arguments of commands for the cluster and for the identity of its daemons.

use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::common::{HELP, Watch};
use crate::auth::authority::HostName;
use crate::auth::revocation::Serial;
use crate::config::types::Port;
use crate::config::value::{parse_duration, positive_duration};

/// Options of `pmd join`.
#[derive(Debug, Args)]
pub struct Join {
    /// Addresses of daemons of the cluster.
    // The help text is an attribute because rustdoc would parse its brackets as a link.
    #[arg(required = true, value_name = "ADDR", value_parser = parse_peer,
        help = "Address of a daemon of the cluster: HOST, HOST:PORT or [IPV6]:PORT; the port defaults to the local daemon's")]
    pub addresses: Vec<String>,
    /// Time limit for joining
    #[arg(short, long, value_name = "TIME", value_parser = positive_duration, default_value = "10s")]
    pub timeout: Duration,
}

/// Options of `pmd leave`.
#[derive(Debug, Args)]
pub struct Leave {
    /// Tell this member to leave instead of the local daemon: its address or host name
    #[arg(value_name = "ADDR|HOST", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub peer: Option<String>,
}

/// Options of `pmd expel`.
#[derive(Debug, Args)]
pub struct Expel {
    /// The member.
    #[command(flatten)]
    pub member: Member,
    /// Do not replace the cluster secret, which the expelled daemon knows
    #[arg(long)]
    pub keep_secret: bool,
}

/// The argument of `pmd expel` and `pmd readmit`.
#[derive(Debug, Args)]
pub struct Member {
    /// The daemon: the beginning of its id, its host name or its address
    #[arg(value_name = "ID|HOST|ADDR", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub member: String,
}

/// Options of `pmd status`.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Status {
    /// The `--watch` flag.
    #[command(flatten)]
    pub watch: Watch,
    /// Wait up to this long for all daemons to have the same registry; exit with 6 if they do not
    #[arg(long, value_name = "TIME", value_parser = parse_duration, conflicts_with = "watch")]
    pub wait_converged: Option<Duration>,
}

/// Options of `pmd services`.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Services {
    /// List the services of all hosts of the cluster
    #[arg(long)]
    pub cluster: bool,
}

/// Options of `pmd discover`.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Discover {
    /// Listen this long before printing the daemons found
    #[arg(short, long, value_name = "TIME", value_parser = parse_duration)]
    pub wait: Option<Duration>,
}

/// The subcommands of `pmd cookie`.
#[derive(Debug, Subcommand)]
pub enum Cookie {
    /// Print the secret; during a rotation, print both, the new one first
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd cookie show
  pmd cookie show --json")]
    Show,
    /// Replace the secret on all hosts of the cluster
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd cookie rotate                      Give all members a new secret, and drop the old one once they have it
  pmd cookie rotate --finish             Drop the old one now; members that are away may return with it once
  pmd cookie rotate --by-hand            Only change the file on this host; the old secret is still accepted
  pmd cookie rotate --by-hand --finish   Drop the old one here, once every host has the new file", after_help = "\
Without a running daemon, only the file on this host is changed, as with --by-hand.")]
    Rotate(Rotate),
    /// Print the path of the file
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd cookie path
  scp \"$(pmd cookie path)\" host2:.pmd/cookie")]
    Path,
}

/// Options of `pmd cookie rotate`.
#[derive(Debug, Clone, Copy, Args)]
pub struct Rotate {
    /// Drop the old secret, whether or not every host has the new one
    #[arg(long)]
    pub finish: bool,
    /// Change only the file on this host, and copy it to the others by hand
    #[arg(long)]
    pub by_hand: bool,
    /// How long to wait until every member has the new secret
    #[arg(short, long, value_name = "TIME", value_parser = positive_duration, default_value = "60s")]
    pub timeout: Duration,
}

/// The subcommands of `pmd ca`.
#[derive(Debug, Subcommand)]
pub enum Ca {
    /// Create a certificate authority for one cluster
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd ca init
  pmd ca init --dir /srv/ca --name shop")]
    Init(CaInit),
    /// Issue a certificate for the daemon of one host, or renew it
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd ca issue host1
  pmd ca issue host1.example.org --days 90 --out /tmp/host1
  pmd ca issue host1 --ip 10.0.0.1")]
    Issue(CaIssue),
    /// Show the content of a certificate
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd ca show               Show the certificate of the authority
  pmd ca show host1.pem     Show its host, its expiry, and the id of its daemon")]
    Show(CaShow),
    /// Revoke certificates: no member accepts them any more
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd ca revoke host1                     Revoke all certificates that were issued for host1
  pmd ca revoke --certificate host1.pem   Revoke one that is not in the record of the authority
  pmd ca revoke --serial 5f0ce2ab         Revoke one by its serial number")]
    Revoke(CaRevoke),
    /// List the revoked certificates, or hand a list to the daemon on this host
    #[command(help_template = HELP, before_help = "\
Examples:
  pmd ca revoked                          List what the daemon on this host refuses
  pmd ca revoked --dir /srv/ca            List what an authority has revoked
  pmd ca revoked --install revoked.pem    Put a list in force that was copied from the authority")]
    Revoked(CaRevoked),
}

/// Options of `pmd ca init`.
#[derive(Debug, Args)]
pub struct CaInit {
    /// Directory for ca.pem and ca.key [default: ca, beside the cookie]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// The name of the authority
    #[arg(long, value_name = "NAME", default_value = "pmd CA", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub name: String,
    /// Days until it expires
    #[arg(long, value_name = "DAYS", default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..=36500))]
    pub days: u32,
}

/// Options of `pmd ca issue`.
#[derive(Debug, Args)]
pub struct CaIssue {
    /// The name of the host; a long name also certifies the short name
    pub host: HostName,
    /// Directory that holds ca.pem and ca.key [default: ca, beside the cookie]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Directory for HOST.pem and HOST.key; an existing key is reused [default: the same directory]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Days until it expires
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=36500))]
    pub days: u32,
    /// An address of the host; may be repeated [default: none, or those of the renewed certificate]
    #[arg(long, value_name = "ADDRESS")]
    pub ip: Vec<IpAddr>,
}

/// Options of `pmd ca show`.
#[derive(Debug, Args)]
pub struct CaShow {
    /// The file [default: ca.pem of the authority]
    pub file: Option<PathBuf>,
    /// Directory that holds ca.pem [default: ca, beside the cookie]
    #[arg(long, value_name = "DIR", conflicts_with = "file")]
    pub dir: Option<PathBuf>,
}

/// Options of `pmd ca revoke`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("which").required(true))]
pub struct CaRevoke {
    /// The host whose certificates are revoked
    #[arg(group = "which")]
    pub host: Option<HostName>,
    /// The serial number of a certificate, in hexadecimal digits (pmd ca show FILE)
    #[arg(long, value_name = "HEX", group = "which")]
    pub serial: Option<Serial>,
    /// The file of a certificate
    #[arg(long, value_name = "FILE", group = "which")]
    pub certificate: Option<PathBuf>,
    /// Directory that holds ca.pem and ca.key [default: ca, beside the cookie]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Options of `pmd ca revoked`.
#[derive(Debug, Args)]
pub struct CaRevoked {
    /// List what the authority in this directory has revoked [default: what the daemon refuses]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Hand this list, revoked.pem of the authority, to the daemon on this host and through it to all members
    #[arg(long, value_name = "FILE", conflicts_with = "dir")]
    pub install: Option<PathBuf>,
}

/// Checks the form of a daemon's address, so that mistakes are reported before any name is resolved.
pub(super) fn parse_peer(text: &str) -> Result<String, String> {
    let form = |why: &str| Err(format!("{why}; an address has the form HOST, HOST:PORT or [IPV6]:PORT"));
    if text.is_empty() {
        return form("the address is empty");
    }
    if text.contains('@') {
        return form("this is the name of an Erlang node");
    }
    if text.contains("://") {
        return form("this is a URL");
    }
    if text.contains(|c: char| c.is_whitespace() || c == ',' || c == '/') {
        return form("each argument is one address");
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Ok(text.to_owned());
    }
    let (host, port) = match text.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(Some((ip, port))) if ip.parse::<Ipv6Addr>().is_ok() => match port.strip_prefix(':') {
            Some(port) => (ip, Some(port)),
            None if port.is_empty() => (ip, None),
            None => return form("the text after the address is not a port"),
        },
        Some(_) => return form("the text in brackets is not an IPv6 address"),
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    if host.is_empty() {
        return form("the host is missing");
    }
    match port.map(str::parse::<Port>) {
        Some(Err(error)) => form(&error.to_string()),
        _ => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn daemon_addresses_have_three_forms() {
        for valid in
            ["host1", "host1.example.org:4370", "10.0.0.1", "10.0.0.1:4369", "::1", "[::1]", "[fd00::1]:4369"]
        {
            assert_eq!(parse_peer(valid).as_deref(), Ok(valid));
        }
        for (invalid, why) in [
            ("", "the address is empty"),
            ("rabbit@host1", "this is the name of an Erlang node"),
            ("http://host1", "this is a URL"),
            ("host1,host2", "each argument is one address"),
            ("host1:", "a port is a number from 1 to 65535"),
            ("host1:http", "a port is a number from 1 to 65535"),
            (":4369", "the host is missing"),
            ("[host1]:4369", "the text in brackets is not an IPv6 address"),
            ("[::1]4369", "the text after the address is not a port"),
        ] {
            let error = parse_peer(invalid).expect_err(invalid);
            assert_eq!(error, format!("{why}; an address has the form HOST, HOST:PORT or [IPV6]:PORT"));
        }
    }
}
