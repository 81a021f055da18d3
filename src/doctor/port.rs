//! Which process holds the port, and whether it is a stock epmd.

use super::finding::Finding;
use crate::control::api::Status;
use crate::takeover::owner::Owner;
use crate::takeover::port::Port;

/// Facts about the listener on the port.
#[derive(Debug)]
struct Facts {
    port: u16,
    /// The process id of the daemon, if it answers.
    daemon: Option<u32>,
    /// Whether nothing is listening.
    free: bool,
    /// Whether a port mapper answers.
    mapper: bool,
    /// Whether a pmd is listening, even if its control socket does not answer.
    pmd: bool,
    /// Whether a pmd of another user is listening.
    foreign: bool,
    /// Whether this user cannot see the listening process.
    unseen: bool,
    /// A description of the listening processes.
    holder: String,
    /// Descriptions of the stock epmds that are listening.
    epmds: Vec<String>,
}

pub(super) async fn check(port: u16, status: Option<&Status>) -> Vec<Finding> {
    let seen = Port::look(port).await;
    let facts = Facts {
        port,
        daemon: status.map(|status| status.pid),
        free: seen.is_free(),
        mapper: seen.mapper.is_some(),
        pmd: seen.owners.iter().any(Owner::is_pmd),
        foreign: seen.foreign.is_some(),
        unseen: !seen.is_free() && seen.owners.is_empty(),
        holder: seen.holder(),
        epmds: seen.owners.iter().filter(|owner| owner.is_epmd()).map(Owner::to_string).collect(),
    };
    vec![judge(&facts), judge_other(&facts)]
}

fn judge(facts: &Facts) -> Finding {
    let port = facts.port;
    match facts.daemon {
        Some(pid) => Finding::pass("port", format!("pmd (pid {pid}) serves port {port}")),
        None if facts.free => Finding::fail(
            "port",
            format!("nothing is listening on port {port}"),
            "start the daemon: pmd start",
        ),
        None if facts.pmd => Finding::fail(
            "port",
            format!(
                "port {port} is held by a pmd that does not answer on its control socket: {}",
                facts.holder
            ),
            "name its control socket with --socket, or restart it",
        ),
        None if facts.foreign => Finding::warn(
            "port",
            format!("port {port} is held by {}, whose control socket this user may not use", facts.holder),
            "run pmd doctor as that user, or set control_group in that daemon's configuration file",
        ),
        None if facts.mapper && facts.unseen => Finding::fail(
            "port",
            format!("port {port} is held by a port mapper of another user: {}", facts.holder),
            "run pmd doctor as that user; if it is a stock epmd, as that user or root: pmd takeover",
        ),
        None if facts.mapper => Finding::fail(
            "port",
            format!("port {port} is held by another port mapper: {}", facts.holder),
            "replace it without restarting a node: pmd takeover",
        ),
        None => Finding::fail(
            "port",
            format!("port {port} is held by a program that is not a port mapper: {}", facts.holder),
            "stop it, or choose another port with --port (and ERL_EPMD_PORT for every node)",
        ),
    }
}

fn judge_other(facts: &Facts) -> Finding {
    if facts.foreign {
        return Finding::pass("other epmd", "no stock epmd is listening on the port");
    }
    if facts.daemon.is_none() && facts.unseen {
        let what = format!("not checked: the port is held by {}, which this user cannot see", facts.holder);
        return Finding::warn("other epmd", what, "run pmd doctor as that user");
    }
    match facts.epmds.as_slice() {
        [] => Finding::pass("other epmd", "no stock epmd is listening on the port"),
        epmds => Finding::fail(
            "other epmd",
            format!("a stock epmd is listening on port {}: {}", facts.port, epmds.join(", ")),
            "replace it without restarting a node: pmd takeover",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Verdict;

    #[test]
    fn the_holder_of_the_port_decides() {
        let facts = |daemon, free, mapper| Facts {
            port: 4369,
            daemon,
            free,
            mapper,
            pmd: false,
            foreign: false,
            unseen: false,
            holder: "x".into(),
            epmds: Vec::new(),
        };
        assert_eq!(judge(&facts(Some(7), false, true)).verdict, Verdict::Pass);
        for (free, mapper, word) in
            [(true, false, "nothing"), (false, true, "port mapper: x"), (false, false, "not a port")]
        {
            let finding = judge(&facts(None, free, mapper));
            assert!(finding.verdict == Verdict::Fail && finding.what.contains(word), "{finding:?}");
        }
    }
}
