//! `pmd status`: the status of the daemon.

mod converged;

use std::io::{self, Write};

use super::args;
use super::common::{Colour, Exit, Output, Result, Target, explain, watch};
use crate::base::text::{count, printable, short, span, without_numbers};
use crate::control::api::{ClusterStatus, IdentityMode, Status};
use crate::control::json;

/// Shows the status of the daemon.
pub fn run(target: &Target, args: args::Status, output: Output) -> Result<Exit> {
    let client = target.client();
    watch::run(args.watch.watch, output, async |output| {
        let status = match args.wait_converged {
            Some(timeout) => converged::wait(&client, timeout).await?,
            None => explain(target, client.status().await).await?,
        };
        output.one(&status, |out| write_status(out, &status, output))
    })
}

fn write_status(out: &mut dyn Write, status: &Status, output: Output) -> io::Result<()> {
    let addresses: Vec<String> = status.listening.iter().map(ToString::to_string).collect();
    let counters = &status.counters;
    let adopted = match status.names.adopted {
        0 => String::new(),
        adopted => format!(", {adopted} of them not back yet"),
    };
    writeln!(
        out,
        "pmd {} on {}, port {}, pid {}, up {}",
        status.version,
        printable(&status.host),
        status.port,
        status.pid,
        span(status.uptime_seconds)
    )?;
    let mut row = |label: &str, text: String| writeln!(out, "  {label:<15} {text}");
    row(
        "addresses",
        if addresses.is_empty() { "inherited from a supervisor".into() } else { addresses.join(", ") },
    )?;
    row("control socket", status.socket.display().to_string())?;
    row(
        "names",
        format!(
            "{} registered{adopted}, {} remembered, room for {}",
            status.names.registered, status.names.old, status.names.limit
        ),
    )?;
    row(
        "services",
        format!("{} registered, room for {}", status.services.registered, status.services.limit),
    )?;
    if let Some(cluster) = &status.cluster {
        write_cluster(&mut row, cluster, output)?;
    }
    row(
        "descriptors",
        format!(
            "{} of {}: {} registered, {} waiting, {} refused",
            status.descriptors.registered + status.descriptors.waiting + status.descriptors.refused,
            status.descriptors.limit,
            status.descriptors.registered,
            status.descriptors.waiting,
            status.descriptors.refused
        ),
    )?;
    if let Some(tunnels) = &status.tunnels {
        row(
            "tunnels",
            format!(
                "{} open, room for {}, {} bytes; {} entries, {} aliases",
                tunnels.open, tunnels.limit, tunnels.bytes, tunnels.entries, tunnels.aliases
            ),
        )?;
    }
    row(
        "lookups",
        format!("{} found, {} not found", counters.epmd.lookups_found, counters.epmd.lookups_not_found),
    )?;
    row(
        "registrations",
        format!(
            "{} made, {} ended, {} refused as duplicates, {} invalid, {} refused when full, {} evicted",
            counters.epmd.registrations,
            counters.epmd.unregistrations,
            counters.epmd.registrations_duplicate,
            counters.epmd.registrations_invalid,
            counters.epmd.registrations_full,
            counters.epmd.evictions
        ),
    )?;
    row(
        "connections",
        format!(
            "{} accepted, {} malformed, {} forbidden, {} timed out, {} shed",
            counters.epmd.connections_accepted,
            counters.epmd.malformed,
            counters.epmd.forbidden,
            counters.epmd.timeouts,
            counters.epmd.shed
        ),
    )?;
    for (key, value) in &status.metadata {
        row("metadata", format!("{}={}", printable(key), printable(value)))?;
    }
    if status.warnings.is_empty() {
        row("warnings", output.paint(Colour::Green, "none"))?;
    }
    for warning in &status.warnings {
        row("warning", output.paint(Colour::Yellow, &without_numbers(&printable(warning))))?;
    }
    Ok(())
}

fn write_cluster(
    row: &mut impl FnMut(&str, String) -> io::Result<()>,
    cluster: &ClusterStatus,
    output: Output,
) -> io::Result<()> {
    if cluster.left {
        row("cluster", output.paint(Colour::Yellow, &format!("has left {}", printable(&cluster.name))))?;
    } else {
        let suspects = match cluster.suspects {
            0 => String::new(),
            suspects => output.paint(Colour::Yellow, &format!(" ({suspects} suspected)")),
        };
        row(
            "cluster",
            format!(
                "{}: {}{suspects}, {}, {}, {}",
                printable(&cluster.name),
                count(cluster.members, "member", "members"),
                count(cluster.links, "link", "links"),
                count(cluster.names, "name", "names"),
                count(cluster.services, "service", "services")
            ),
        )?;
        row("registry", format!("{}, {}", short(&cluster.fingerprint), agreement(cluster, output)))?;
    }
    row("id", short(&cluster.id).to_owned())?;
    let addresses: Vec<String> = cluster.addresses.iter().map(ToString::to_string).collect();
    let reachable = if addresses.is_empty() {
        output.paint(Colour::Yellow, "at no address that other hosts can use")
    } else {
        format!("at {}", addresses.join(", "))
    };
    row("reachable", reachable)?;
    let mode = match cluster.identity {
        IdentityMode::Auto => "self-signed key and cluster secret",
        IdentityMode::Ca => "certificate of the cluster's authority and cluster secret",
    };
    row("identity", mode.to_owned())?;
    match cluster.certificate_expires_at {
        Some(end) => row("certificate", format!("expires {}", json::rfc3339(end))),
        None => Ok(()),
    }
}

fn agreement(cluster: &ClusterStatus, output: Output) -> String {
    match cluster.links {
        0 if cluster.members > 1 => output.paint(Colour::Red, "no links to compare it over"),
        0 => "no other members".to_owned(),
        links => {
            let colour = if cluster.converged { Colour::Green } else { Colour::Yellow };
            let peers = if links == 1 { "peer" } else { "peers" };
            output.paint(colour, &format!("agrees with {} of {links} {peers}", cluster.agreeing))
        }
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::cli::args::Format;

    fn cluster() -> ClusterStatus {
        ClusterStatus {
            name: "shop".into(),
            id: "0123456789abcdef".repeat(4),
            identity: IdentityMode::Ca,
            addresses: vec![
                "10.0.0.1:4369".parse().expect("an address"),
                "[fd00::1]:4369".parse().expect("an address"),
            ],
            left: false,
            members: 6,
            suspects: 1,
            links: 5,
            agreeing: 4,
            converged: false,
            fingerprint: "fedcba9876543210".repeat(4),
            names: 12,
            services: 1,
            certificate_expires_at: Some(json::timestamp(1_700_000_000_000)),
        }
    }

    fn shown(cluster: &ClusterStatus) -> String {
        let mut text = String::new();
        let mut row = |label: &str, value: String| {
            text.push_str(&format!("  {label:<15} {value}\n"));
            Ok(())
        };
        write_cluster(&mut row, cluster, Output::new(Format::Table, false)).expect("in-memory write");
        text
    }

    #[test]
    fn the_status_shows_the_cluster() {
        assert_snapshot!(shown(&cluster()), @r"
        cluster         shop: 6 members (1 suspected), 5 links, 12 names, 1 service
        registry        fedcba9876543210, agrees with 4 of 5 peers
        id              0123456789abcdef
        reachable       at 10.0.0.1:4369, [fd00::1]:4369
        identity        certificate of the cluster's authority and cluster secret
        certificate     expires 2023-11-14T22:13:20.000Z
        ");
    }

    #[test]
    fn a_daemon_that_is_alone_says_so() {
        let alone = ClusterStatus {
            identity: IdentityMode::Auto,
            addresses: Vec::new(),
            members: 1,
            suspects: 0,
            links: 0,
            agreeing: 0,
            converged: true,
            certificate_expires_at: None,
            ..cluster()
        };
        assert_snapshot!(shown(&alone), @r"
        cluster         shop: 1 member, 0 links, 12 names, 1 service
        registry        fedcba9876543210, no other members
        id              0123456789abcdef
        reachable       at no address that other hosts can use
        identity        self-signed key and cluster secret
        ");
        let cut_off = ClusterStatus { members: 2, ..alone.clone() };
        assert!(shown(&cut_off).contains("no links to compare it over"));
        assert!(
            shown(&ClusterStatus { left: true, ..alone }).starts_with("  cluster         has left shop\n")
        );
    }
}
