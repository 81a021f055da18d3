//! What this host is called: the rules of Erlang for what stands behind the `@`.

use super::Finding;

const CHECK: &str = "host name";

pub(super) fn judge(host: &str) -> Finding {
    let remedy = "give the host a name of its own (hostnamectl), or set host_name in the configuration";
    let odd = |c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '.');
    if host.is_empty() || host.split('.').next() == Some("localhost") {
        return Finding::fail(CHECK, format!("this host is called {host:?}, as every other may be"), remedy);
    }
    if host.chars().any(odd) {
        let what = format!("{host:?} has characters that names of hosts do not have: Erlang may refuse it");
        return Finding::warn(CHECK, what, remedy);
    }
    if host.contains('.') {
        return Finding::pass(
            CHECK,
            format!("{host}: nodes here are -name NAME@{host}, or -sname with the first part"),
        );
    }
    Finding::pass(CHECK, format!("{host}: nodes here are -sname NAME; -name needs a host part with a dot"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_host_has_a_name_of_its_own() {
        let verdict = |host| judge(host).verdict;
        assert_eq!(["db1", "db1.example.org"].map(verdict), [Verdict::Pass; 2]);
        assert_eq!(["", "localhost", "localhost.localdomain"].map(verdict), [Verdict::Fail; 3]);
        assert_eq!(verdict("db_1"), Verdict::Warn);
    }
}
