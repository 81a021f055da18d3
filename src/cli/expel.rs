//! `pmd expel`, `pmd expelled` and `pmd readmit`: putting members out of the cluster, and letting them return.

use std::time::Duration;

use super::common::{Column, Exit, Output, Result, Table, Target, block_on, block_on_step, explain, note};
use super::{args, rotate};
use crate::base::text::{printable, short};
use crate::control::api::{Decision, Expel, Expelled};

/// Time limit for all other members to get the new secret.
const ROTATION: Duration = Duration::from_secs(60);

const COLUMNS: [Column<Expelled>; 5] = [
    Column::new("HOST", |one| if one.host.is_empty() { "-" } else { &one.host }.to_owned()),
    Column::new("ID", |one| short(&one.id).to_owned()),
    Column::wide("WHOLE ID", |one| one.id.clone()),
    Column::new("EXPELLED AT", |one| format!("{:.0}", one.expelled_at)),
    Column::new("ON HOST", |one| one.by.clone()),
];

/// Expels a member, and waits until the cluster secret, which it knows, is replaced.
pub fn expel(target: &Target, args: args::Expel, output: Output) -> Result<Exit> {
    let keep_secret = args.keep_secret;
    block_on_step(async {
        let expel = Expel { member: args.member.member, keep_secret };
        let done = explain(target, target.client().expel(&expel).await).await?;
        output.one(&done, |out| writeln!(out, "{}", expelled(&done)))
    })?;
    if keep_secret {
        note("note: it still knows the cluster secret, with which its host can join under another key");
        return Ok(Exit::Done);
    }
    let done = rotate::follow(target, ROTATION)?;
    note(&rotate::sentence(&done));
    rotate::advise(&done);
    Ok(Exit::Done)
}

/// Lists the expelled daemons.
pub fn list(target: &Target, output: Output) -> Result<Exit> {
    block_on(async {
        let found = explain(target, target.client().expelled().await).await?;
        let table = Table { columns: &COLUMNS, colour: |_| None, empty: "Nobody was expelled.".to_owned() };
        output.list(&found, &found.expelled, &table)?;
        Ok(Exit::Done)
    })
}

/// Lets an expelled daemon return.
pub fn readmit(target: &Target, member: String, output: Output) -> Result<Exit> {
    block_on(async {
        let done =
            explain(target, target.client().readmit(&Expel { member, keep_secret: false }).await).await?;
        output.one(&done, |out| writeln!(out, "{} may join again", name(&done)))?;
        note("next, on that host: pmd join, with the address of a member");
        Ok(Exit::Done)
    })
}

fn name(done: &Decision) -> String {
    match done.host.as_str() {
        "" => format!("daemon {}", short(&done.id)),
        host => format!("{} ({})", printable(host), short(&done.id)),
    }
}

fn expelled(done: &Decision) -> String {
    if done.changed {
        format!("expelled {} from the cluster", name(done))
    } else {
        format!("{} was expelled before", name(done))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemon_is_named_by_host_and_id() {
        let id = "0123456789abcdef".repeat(4);
        let done = |host: &str, changed| Decision { id: id.clone(), host: host.into(), changed };
        assert_eq!(
            expelled(&done("h\u{1b}2", true)),
            "expelled h\\u{1b}2 (0123456789abcdef) from the cluster"
        );
        assert_eq!(expelled(&done("", false)), "daemon 0123456789abcdef was expelled before");
    }
}
