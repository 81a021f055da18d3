//! Claims that last as long as a connection.
//!
//! The response to `POST /v1/claims/hold` begins when the claim is granted and does not end while it is held. When its
//! connection closes, the claim is released, or, if a guardian watches what depends on it or it was lost before, once that
//! must be dead.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::{Stream, stream};
use serde::Serialize;

use super::api;
use crate::base::shutdown::Shutdown;
use crate::claims::{HeldClaim, Loss, State};

/// The response: the claim as a line of JSON, a line for each renewal, and a line with the reason if it ends.
pub fn lines(
    claim: HeldClaim,
    first: &api::ClaimHeld,
    shutdown: Shutdown,
) -> impl Stream<Item = Result<Bytes, Infallible>> + use<> {
    stream::unfold((claim, Some(line(first)), false, shutdown), async |(mut claim, first, over, shutdown)| {
        if over {
            return None;
        }
        if let Some(first) = first {
            return Some((Ok(first), (claim, None, false, shutdown)));
        }
        let changed = tokio::select! {
            changed = claim.changed() => changed,
            _ = shutdown.wait() => false,
        };
        if !changed {
            return None;
        }
        let (text, over) = match held(claim.state(), None) {
            Some(held) => (line(&held), false),
            None => {
                let is_revoked = claim.state() == State::Lost(Loss::Revoked);
                let ended = if is_revoked { api::ENDED_REVOKED } else { api::ENDED_LOST };
                (line(&api::ClaimEnded { ended: ended.into() }), true)
            }
        };
        Some((Ok(text), (claim, None, over, shutdown)))
    })
}

/// The claim as in the API, if it is held.
pub fn held(state: State, name: Option<&str>) -> Option<api::ClaimHeld> {
    let State::Held { number, until } = state else { return None };
    Some(api::ClaimHeld {
        name: name.map(str::to_owned),
        number,
        lost_at_boot_ms: until.lost_ms,
        dead_at_boot_ms: until.dead_ms,
    })
}

fn line(data: &impl Serialize) -> Bytes {
    // Plain data always has a JSON form.
    (serde_json::to_string(data).unwrap_or_default() + "\n").into()
}
