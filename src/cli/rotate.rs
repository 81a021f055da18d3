//! `pmd cookie rotate` by way of the daemon, which gives the new secret to all members over its links.

use std::time::{Duration, Instant};

use super::args::Rotate;
use super::common::{Exit, Failure, Result, Target, block_on_step, explain, note};
use crate::base::text::{count, listed};
use crate::control::api::{self, Rotation};
use crate::control::client::{Client, ClientError};

/// Interval between two looks at the progress.
const LOOK: Duration = Duration::from_millis(200);
/// Progress is shown when the rotation takes longer than this.
const SILENT: Duration = Duration::from_secs(1);

/// Begins or finishes a rotation, and waits for its end. `None` if there is no daemon that could do it: then the file has to
/// be changed by hand.
pub fn run(target: &Target, rotate: Rotate) -> Result<Option<Rotation>> {
    block_on_step(async {
        let client = target.client();
        let asked = client.rotate(api::Rotate { finish: rotate.finish }).await;
        let begun = match asked {
            Err(ClientError::NotReachable { .. }) => return Ok(None),
            // A rotation by hand, or a daemon without a cluster.
            Err(ClientError::Api { info, .. })
                if info.code == "no_cluster" || (rotate.finish && info.code == "not_found") =>
            {
                return Ok(None);
            }
            asked => explain(target, asked).await?,
        };
        let done = wait(&client, begun, rotate.timeout).await;
        let done = explain(target, done).await?;
        if !done.finished {
            return Err(unfinished(&done, rotate.timeout));
        }
        Ok(Some(done))
    })
}

/// Waits for the end of the rotation that is in progress.
pub fn follow(target: &Target, patience: Duration) -> Result<Rotation> {
    block_on_step(async {
        let client = target.client();
        let begun = explain(target, client.rotation().await).await?;
        let done = explain(target, wait(&client, begun, patience).await).await?;
        if !done.finished {
            return Err(unfinished(&done, patience));
        }
        Ok(done)
    })
}

/// Waits until the rotation has finished, and shows its progress.
async fn wait(
    client: &Client,
    mut rotation: Rotation,
    patience: Duration,
) -> std::result::Result<Rotation, ClientError> {
    let begin = Instant::now();
    let mut shown = None;
    while !rotation.finished && begin.elapsed() < patience {
        if begin.elapsed() >= SILENT && shown != Some(rotation.have) {
            note(&format!("{} of {} hosts have the new secret ...", rotation.have, rotation.members));
            shown = Some(rotation.have);
        }
        tokio::time::sleep(LOOK).await;
        rotation = client.rotation().await?;
    }
    Ok(rotation)
}

/// The outcome in one sentence.
pub fn sentence(done: &Rotation) -> String {
    let Rotation { have, members, .. } = done;
    format!(
        "the cluster has a new secret, and the old one is no longer accepted: {have} of {members} hosts have it"
    )
}

fn unfinished(rotation: &Rotation, waited: Duration) -> Failure {
    Failure::new(
        Exit::TimedOut,
        format!(
            "after {} s, {} of {} hosts have the new secret, but not {}; all still accept the old one",
            waited.as_secs(),
            rotation.have,
            rotation.members,
            listed(&rotation.missing),
        ),
        "the rotation continues and finishes once every host has it; to drop the old secret now: pmd cookie rotate --finish",
    )
}

/// Prints what is left to do to standard error.
pub fn advise(done: &Rotation) {
    if !done.missing.is_empty() {
        note(&format!("note: {} did not get the secret; copy it there by hand", listed(&done.missing)));
    }
    if done.late > 0 {
        note(&format!(
            "note: {} away; each may return once with the old secret, and then gets the new one",
            count(done.late, "member was", "members were")
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rotation(have: usize, missing: &[&str]) -> Rotation {
        Rotation {
            begun_at: jiff::Timestamp::UNIX_EPOCH,
            finished: missing.is_empty(),
            members: have + missing.len(),
            have,
            missing: missing.iter().map(|host| (*host).to_owned()).collect(),
            late: 0,
        }
    }

    #[test]
    fn the_outcome_says_who_has_the_secret() {
        assert_eq!(
            sentence(&rotation(9, &[])),
            "the cluster has a new secret, and the old one is no longer accepted: 9 of 9 hosts have it"
        );
        let failure = unfinished(&rotation(7, &["h8", "h9"]), Duration::from_secs(60));
        assert_eq!(failure.exit, Exit::TimedOut);
        assert_eq!(
            failure.message,
            "after 60 s, 7 of 9 hosts have the new secret, but not h8 and h9; all still accept the old one"
        );
    }
}
