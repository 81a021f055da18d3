//! Lies about who is a member.

use super::attacker::{Attacker, membership};
use super::invented::invent;
use super::stage::{Admits, HONEST, Outcome, Stage};
use super::with_and_without_an_authority;

with_and_without_an_authority! {
    tens_of_thousands_of_invented_members
}

/// As many as the table of a daemon holds.
const INVENTED: u16 = 65_000;
/// Records in a frame.
const BATCH: u16 = 100;

/// TRUST 5: invented members are few, displace nobody, and are forgotten.
fn tens_of_thousands_of_invented_members(admits: Admits) {
    let stage = Stage::set(admits, "");
    let mut liar = Attacker::join(&stage);
    let mut number = 0;
    stage.endure(&mut liar, Outcome::Warned("introduces too many new members"), |world, liar| {
        liar.redial(world);
        if number < INVENTED {
            let (records, _): (Vec<_>, Vec<_>) = (number..number + BATCH).map(invent).unzip();
            liar.say_to_all(&membership(&records));
            number += BATCH;
        }
        number >= INVENTED
    });
    let members = HONEST.map(|host| stage.world.status(host).expect("a daemon").members);
    println!("members in the end: {members:?}");
    // Each daemon hears of some from the liar and of others from its honest peers.
    assert!(members.iter().all(|members| *members < usize::from(INVENTED) / 4), "{members:?}");
}
