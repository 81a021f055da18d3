//! Whether the name of this host fits Erlang's rules for the part after the `@`.

use super::finding::Finding;

const CHECK: &str = "host name";

pub(super) fn judge(host: &str) -> Finding {
    let remedy = "give the host a unique name (hostnamectl), or set host_name in the configuration";
    let odd = |c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '.');
    if host.is_empty() || host.split('.').next() == Some("localhost") {
        return Finding::fail(
            CHECK,
            format!("the name of this host is {host:?}, which is not unique"),
            remedy,
        );
    }
    if host.chars().any(odd) {
        let what =
            format!("{host:?} has characters that are not allowed in host names: Erlang may reject it");
        return Finding::warn(CHECK, what, remedy);
    }
    if host.contains('.') {
        return Finding::pass(
            CHECK,
            format!("{host}: start nodes with -name NAME@{host}, or -sname with its first part"),
        );
    }
    Finding::pass(CHECK, format!("{host}: start nodes with -sname NAME; -name needs a host name with a dot"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Verdict;

    #[test]
    fn a_host_needs_a_unique_name() {
        let verdict = |host| judge(host).verdict;
        assert_eq!(["db1", "db1.example.org"].map(verdict), [Verdict::Pass; 2]);
        assert_eq!(["", "localhost", "localhost.localdomain"].map(verdict), [Verdict::Fail; 3]);
        assert_eq!(verdict("db_1"), Verdict::Warn);
    }
}
