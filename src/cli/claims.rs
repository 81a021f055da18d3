//! `pmd claims`, `pmd voters` and `pmd claim check`.

use super::common::{Colour, Column, Exit, Failure, Output, Result, Table, Target, block_on, explain, note};
use crate::control::api::{ClaimInfo, VoterInfo};

/// Lists the claims that are held.
pub fn claims(target: &Target, output: Output) -> Result<Exit> {
    const COLUMNS: [Column<ClaimInfo>; 5] = [
        Column::new("NAME", |claim| claim.name.clone()),
        Column::new("HOST", |claim| claim.host.clone()),
        Column::new("NUMBER", |claim| claim.number.to_string()),
        Column::wide("TTL", |claim| format!("{} ms", claim.ttl_ms)),
        Column::wide("DAEMON", |claim| claim.node_id.clone()),
    ];
    block_on(async {
        let found = explain(target, target.client().claims().await).await?;
        let empty =
            format!("Nobody holds a claim. Claim a name: {}", target.command("claim leader -- COMMAND"));
        output.list(&found, &found.claims, &Table { columns: &COLUMNS, colour: |_| None, empty })?;
        Ok(Exit::Done)
    })
}

/// Lists the voters.
pub fn voters(target: &Target, output: Output) -> Result<Exit> {
    const COLUMNS: [Column<VoterInfo>; 5] = [
        Column::new("HOST", |voter| voter.host.clone()),
        Column::new("VERSION", |voter| voter.version.to_string()),
        Column::wide("FOUNDING", |voter| voter.founding.to_string()),
        Column::new("LIST", |voter| match voter.same_list {
            None => String::new(),
            Some(true) => "same".to_owned(),
            Some(false) => "differs".to_owned(),
        }),
        Column::new("STATE", |voter| voter.state.clone()),
    ];
    let colour = |voter: &VoterInfo| match voter.state.as_str() {
        "leader" | "follower" => Some(Colour::Green),
        "leaderless" | "unfounded" => Some(Colour::Yellow),
        _ => Some(Colour::Red),
    };
    block_on(async {
        let found = explain(target, target.client().voters().await).await?;
        let empty = "The configuration names no voters.".to_owned();
        output.list(&found, &found.voters, &Table { columns: &COLUMNS, colour, empty })?;
        if let Some(problem) = &found.problem {
            note(&format!("warning: this host does not vote: {problem}"));
        }
        let votes = |voter: &&VoterInfo| matches!(voter.state.as_str(), "leader" | "follower");
        let is_well = 2 * found.voters.iter().filter(votes).count() > found.voters.len();
        Ok(if is_well { Exit::Done } else { Exit::Unhealthy })
    })
}

/// Whether a claim is held with this number.
pub fn check(target: &Target, name: &str, number: u64, output: Output) -> Result<Exit> {
    block_on(async {
        let found = explain(target, target.client().claims().await).await?;
        match found.claims.iter().find(|claim| claim.name == name) {
            Some(claim) if claim.number == number => {
                output.one(claim, |out| {
                    writeln!(out, "{name} is held by {} with number {number}", claim.host)
                })?;
                Ok(Exit::Done)
            }
            Some(claim) => Err(Failure::new(
                Exit::Conflict,
                format!("{name} is held by {} with number {}, not {number}", claim.host, claim.number),
                "stop what uses the old number",
            )),
            None => Err(Failure::new(
                Exit::Conflict,
                format!("nobody holds {name}"),
                "stop what uses the number; pmd claims lists what is held",
            )),
        }
    })
}
