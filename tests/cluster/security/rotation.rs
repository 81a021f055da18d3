//! Who gets the new cluster secret, and who does not.

use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use pmd::auth::cookie::Cookies;
use pmd::auth::tls::ALPN_LINK;
use pmd_protocol::peer::{Decoded, Frame, PublicKey, Rotation, Signature};

use super::newcomer::Newcomer;
use crate::world::{COOKIE, PATIENCE, World};

/// Whoever sends an older rotation is told of the latest one, if it is entitled to the secret.
#[test]
fn a_peer_that_asks_for_the_new_secret_does_not_get_it_by_asking() {
    let world = World::joined(3);
    let thief = Newcomer::new(&world, "thief", &Arc::new(Cookies::of_text(COOKIE)));
    let mut link = thief.dial(&world, 1, ALPN_LINK).expect("the old secret is still accepted");
    world.run(0, &["expel", "h3"]).ended_with(0);
    let older = Frame::Rotation(Rotation {
        begun_ms: 0,
        finished: false,
        without: None,
        secret: "00".repeat(32),
        author: PublicKey::default(),
        signature: Signature::default(),
    });
    let ended = world.block_on(async {
        loop {
            // The link is closed at the end, because it was never proven with the new secret.
            if link.frames.send(&older).await.is_err() {
                return true;
            }
            match tokio::time::timeout(PATIENCE, link.frames.next()).await {
                Ok(Some(Ok(Decoded::Frame(Frame::Rotation(_))))) => return false,
                Ok(Some(Ok(Decoded::Frame(Frame::Close(_))) | Err(_)) | None) => return true,
                Ok(Some(Ok(_))) => {}
                Err(_) => panic!("the link has not ended"),
            }
        }
    });
    assert!(ended, "it got the new secret");
}
