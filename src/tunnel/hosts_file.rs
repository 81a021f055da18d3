//! The text of the files that tell Erlang nodes where other hosts are. Without files.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;

/// What is in the hosts file, and what is wrong with the names of the hosts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostsText {
    /// The file.
    pub text: String,
    /// In sentences.
    pub warnings: Vec<String>,
}

/// The hosts file for these hosts, on the host called `own`.
///
/// Each host has its whole name. The short form means the host that is called just that; else the one of this host's own
/// domain, as a resolver would take it; else the first in the order of names. The names of this host are never given
/// away.
#[must_use]
pub fn hosts_text<'a>(own: &str, hosts: impl Iterator<Item = (&'a str, Ipv4Addr)>) -> HostsText {
    let own = own.to_lowercase();
    let (own_short, own_domain) = split(&own);
    let hosts: BTreeMap<&str, Ipv4Addr> = hosts.filter(|(host, _)| *host != own).collect();
    // A host that is called by the short form of this host's name can have no line at all.
    let (hosts, hidden): (BTreeMap<&str, Ipv4Addr>, _) =
        hosts.into_iter().partition(|(host, _)| *host != own_short);
    let hidden: BTreeMap<&str, Ipv4Addr> = hidden;
    let mut by_short: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for host in hosts.keys() {
        by_short.entry(split(host).0).or_default().push(host);
    }
    let mut meant: BTreeMap<&str, &str> = BTreeMap::new();
    let mut warnings: Vec<String> = hidden
        .keys()
        .map(|host| format!("a host is called {host}, as this one: its nodes cannot be reached"))
        .collect();
    for (short, all) in &by_short {
        if *short == own_short {
            warnings.push(format!(
                "{} has the short name of this host, {short}: nodes there can only be reached by the long name",
                all.join(" and ")
            ));
            continue;
        }
        let of_own_domain = || all.iter().find(|host| split(host).1 == own_domain);
        let first = all.iter().find(|host| *host == short).or_else(of_own_domain).or_else(|| all.first());
        let Some(first) = first else { continue };
        meant.insert(short, first);
        if all.len() > 1 {
            warnings.push(format!(
                "{} have one short name: {short} means {first} here; use the long names of the others",
                all.join(" and ")
            ));
        }
    }
    let mut text =
        String::from("# Made by pmd, which replaces it whenever a host joins or leaves the cluster.\n");
    for (host, address) in &hosts {
        let short = split(host).0;
        text.push_str(&format!("{address} {host}"));
        if short != *host && meant.get(short) == Some(host) {
            text.push_str(&format!(" {short}"));
        }
        text.push('\n');
    }
    HostsText { text, warnings }
}

fn split(host: &str) -> (&str, &str) {
    host.split_once('.').unwrap_or((host, ""))
}

/// The file for `ERL_INETRC`: names are looked up in the hosts file first, and then as always.
#[must_use]
pub fn inetrc_text(hosts_file: &Path) -> String {
    let path = hosts_file.to_string_lossy().replace('\\', "\\\\").replace('"', "\\\"");
    format!(
        "%% Made by pmd. The line that a node needs: pmd env\n{{hosts_file, \"{path}\"}}.\n{{lookup, [file, native]}}.\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(own: &str, hosts: &[&str]) -> (Vec<String>, usize) {
        let numbered = (1..).zip(hosts).map(|(number, host)| (*host, Ipv4Addr::new(127, 77, 0, number)));
        let made = hosts_text(own, numbered);
        (made.text.lines().skip(1).map(str::to_owned).collect(), made.warnings.len())
    }

    #[test]
    fn long_and_short_names_lead_to_a_host() {
        let (lines, warnings) = text("here.example.org", &["far.example.org", "bare"]);
        assert_eq!(lines, ["127.77.0.2 bare", "127.77.0.1 far.example.org far"]);
        assert_eq!(warnings, 0);
    }

    #[test]
    fn two_hosts_with_one_short_name_have_a_rule() {
        let (lines, warnings) = text("here.b.org", &["db.a.org", "db.b.org"]);
        assert_eq!(lines, ["127.77.0.1 db.a.org", "127.77.0.2 db.b.org db"]);
        assert_eq!(warnings, 1);
        let (lines, _) = text("here", &["db.b.org", "db.a.org"]);
        assert_eq!(lines, ["127.77.0.2 db.a.org db", "127.77.0.1 db.b.org"]);
        let (lines, _) = text("here.b.org", &["db.b.org", "db"]);
        assert_eq!(lines, ["127.77.0.2 db", "127.77.0.1 db.b.org"]);
    }

    #[test]
    fn the_names_of_this_host_are_not_given_away() {
        let (lines, warnings) = text("Here.b.org", &["here.b.org", "here.a.org"]);
        assert_eq!(lines, ["127.77.0.2 here.a.org"]);
        assert_eq!(warnings, 1);
        assert_eq!(text("here.b.org", &["here"]), (Vec::new(), 1));
    }

    #[test]
    fn the_resolver_file_is_erlang() {
        let text = inetrc_text(Path::new("/a \"b\"/hosts"));
        assert!(text.contains(r#"{hosts_file, "/a \"b\"/hosts"}."#), "{text}");
    }
}
