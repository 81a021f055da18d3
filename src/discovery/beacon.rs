//! Beacons: the datagrams with which a daemon announces itself on its networks.
//!
//! | bytes | field |
//! |---|---|
//! | 4 | `pmdb` |
//! | 1 | version: 1 |
//! | 1 | length of the cluster name, 1 to 64 |
//! | 1 to 64 | the cluster name, UTF-8 without control characters |
//! | 32 | the daemon's id |
//! | 2 | its TCP port, big-endian, not 0 |
//! | 16 | a random nonce, so that every beacon is unique |
//! | 32 | MAC of everything before it, keyed by the cluster secret, for the purpose `beacon` |
//!
//! The cluster name is in the clear, so that daemons of other clusters can be shown. Nothing else is trusted before the
//! MAC is verified. A beacon contains neither the time nor its source, so an attacker can record one and replay it from
//! another address. Receivers then dial that address occasionally and find no daemon that knows the cluster secret. A
//! replay achieves nothing else.

use pmd_protocol::limits::MAX_CLUSTER_NAME;
use pmd_protocol::peer::NodeId;

use crate::auth::cookie::{CookieKey, Cookies};

/// Longest datagram that is parsed. A beacon of this version has at most 152 bytes; 512 bytes fit into one packet on
/// every network.
pub const MAX_BEACON: usize = 512;
/// The purpose of the MAC.
const PURPOSE: &str = "beacon";
const MAGIC: [u8; 4] = *b"pmdb";
const VERSION: u8 = 1;
/// Length of the MAC in bytes.
const TAG: usize = 32;
/// Length of the nonce in bytes.
pub const NONCE: usize = 16;

/// The content of a beacon, without its MAC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beacon {
    cluster: String,
    id: NodeId,
    port: u16,
    nonce: [u8; NONCE],
}

/// Why a beacon cannot be created, or why a datagram is not a beacon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BeaconError {
    /// The datagram belongs to another protocol.
    #[error("it is not a beacon")]
    NotABeacon,
    /// The beacon has another version.
    #[error("it is a beacon of version {0}, but this pmd supports version {VERSION}")]
    Version(u8),
    /// The beacon is longer or shorter than its fields.
    #[error("its length does not match its fields")]
    Length,
    /// The cluster name is invalid.
    #[error("a cluster name has 1 to {MAX_CLUSTER_NAME} bytes of UTF-8 without control characters")]
    Cluster,
    /// The port is 0.
    #[error("port 0 is not a valid port")]
    Port,
}

impl Beacon {
    /// Creates a beacon of the daemon `id` in `cluster`, which listens on TCP port `port`; `nonce` must be random.
    ///
    /// # Errors
    ///
    /// If the cluster name is invalid, or the port is 0.
    pub fn new(cluster: &str, id: NodeId, port: u16, nonce: [u8; NONCE]) -> Result<Beacon, BeaconError> {
        if !is_cluster_name(cluster) {
            return Err(BeaconError::Cluster);
        }
        if port == 0 {
            return Err(BeaconError::Port);
        }
        Ok(Beacon { cluster: cluster.to_owned(), id, port, nonce })
    }

    /// The claimed cluster.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The claimed daemon.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The daemon's TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Encodes the beacon as a datagram, authenticated with `key`.
    #[must_use]
    pub fn encode(&self, key: &CookieKey) -> Vec<u8> {
        let mut bytes = self.claims();
        let tag = key.sign(PURPOSE, &[&bytes]);
        bytes.extend_from_slice(&tag);
        bytes
    }

    /// The encoded beacon without the MAC.
    fn claims(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(MAX_BEACON);
        bytes.extend_from_slice(&MAGIC);
        bytes.push(VERSION);
        bytes.push(u8::try_from(self.cluster.len()).unwrap_or(u8::MAX));
        bytes.extend_from_slice(self.cluster.as_bytes());
        bytes.extend_from_slice(self.id.as_bytes());
        bytes.extend_from_slice(&self.port.to_be_bytes());
        bytes.extend_from_slice(&self.nonce);
        bytes
    }
}

/// A received beacon with its MAC, which is not verified yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    beacon: Beacon,
    tag: [u8; TAG],
}

impl Heard {
    /// Parses a datagram.
    ///
    /// # Errors
    ///
    /// If it is not exactly one beacon of this version.
    pub fn decode(datagram: &[u8]) -> Result<Heard, BeaconError> {
        let rest = datagram.strip_prefix(&MAGIC).ok_or(BeaconError::NotABeacon)?;
        let (version, rest) = rest.split_first().ok_or(BeaconError::Length)?;
        if *version != VERSION {
            return Err(BeaconError::Version(*version));
        }
        let (length, rest) = rest.split_first().ok_or(BeaconError::Length)?;
        let (cluster, rest) = rest.split_at_checked(usize::from(*length)).ok_or(BeaconError::Length)?;
        let (id, rest) = rest.split_first_chunk().ok_or(BeaconError::Length)?;
        let (port, rest) = rest.split_first_chunk().ok_or(BeaconError::Length)?;
        let (nonce, rest) = rest.split_first_chunk().ok_or(BeaconError::Length)?;
        let tag = rest.try_into().map_err(|_| BeaconError::Length)?;
        let cluster = str::from_utf8(cluster).map_err(|_| BeaconError::Cluster)?;
        let beacon = Beacon::new(cluster, NodeId::new(*id), u16::from_be_bytes(*port), *nonce)?;
        Ok(Heard { beacon, tag })
    }

    /// The content, which may be forged.
    pub fn beacon(&self) -> &Beacon {
        &self.beacon
    }

    /// Whether the beacon was created with one of `cookies`. It may still be a replay.
    #[must_use]
    pub fn is_proven_by(&self, cookies: &Cookies) -> bool {
        let claims = self.beacon.claims();
        cookies.keys().any(|key| key.verify(PURPOSE, &[&claims], &self.tag))
    }
}

/// Whether this is a valid cluster name. Control characters are rejected because terminals interpret them.
pub fn is_cluster_name(name: &str) -> bool {
    (1..=MAX_CLUSTER_NAME).contains(&name.len()) && !name.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const COOKIE: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn datagram(cluster: &str) -> Vec<u8> {
        let cookies = Cookies::of_text(COOKIE);
        let beacon = Beacon::new(cluster, NodeId::new([7; 32]), 4369, [9; NONCE]).expect("a beacon");
        beacon.encode(cookies.current().expect("one"))
    }

    #[test]
    fn a_beacon_is_decoded_as_it_was_encoded() {
        let datagram = datagram("prod");
        let heard = Heard::decode(&datagram).expect("a beacon");
        assert_eq!(heard.beacon().cluster(), "prod");
        assert_eq!(heard.beacon().id(), NodeId::new([7; 32]));
        assert_eq!(heard.beacon().port(), 4369);
        assert!(heard.is_proven_by(&Cookies::of_text(COOKIE)));
        assert!(!heard.is_proven_by(&Cookies::of_text(&"ab".repeat(32))));
    }

    #[test]
    fn the_encoding_matches_the_table() {
        let bytes = datagram("ab");
        let claims =
            [b"pmdb".as_slice(), &[1, 2], b"ab", &[7; 32], &4369_u16.to_be_bytes(), &[9; NONCE]].concat();
        let tag = Cookies::of_text(COOKIE).current().expect("one").sign("beacon", &[&claims]);
        assert_eq!(bytes, [claims.as_slice(), &tag].concat());
        assert_eq!(datagram(&"x".repeat(64)).len(), 152);
    }

    #[test]
    fn a_beacon_with_a_flipped_bit_is_not_proven() {
        let good = datagram("prod");
        let cookies = Cookies::of_text(COOKIE);
        for at in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[at / 8] ^= 1 << (at % 8);
            assert!(!Heard::decode(&bad).is_ok_and(|heard| heard.is_proven_by(&cookies)), "bit {at}");
        }
    }

    #[test]
    fn any_other_length_is_rejected() {
        let good = datagram("prod");
        for length in 0..good.len() {
            assert!(Heard::decode(&good[..length]).is_err(), "{length}");
        }
        assert_eq!(Heard::decode(&[good.as_slice(), &[0]].concat()), Err(BeaconError::Length));
    }

    #[test]
    fn other_versions_and_other_protocols_are_distinguished() {
        let mut later = datagram("prod");
        later[4] = 2;
        assert_eq!(Heard::decode(&later), Err(BeaconError::Version(2)));
        assert_eq!(Heard::decode(b"GET / HTTP/1.1"), Err(BeaconError::NotABeacon));
        assert_eq!(Heard::decode(b""), Err(BeaconError::NotABeacon));
    }

    #[test]
    fn names_with_control_characters_are_rejected() {
        let long = "x".repeat(65);
        for name in ["", "a\u{1b}[2J", "a\nb", "a\u{9b}2J", long.as_str()] {
            assert_eq!(Beacon::new(name, NodeId::MIN, 1, [0; NONCE]), Err(BeaconError::Cluster), "{name:?}");
        }
        let mut bytes = datagram("prod");
        bytes[7] = 0x1b;
        assert_eq!(Heard::decode(&bytes), Err(BeaconError::Cluster));
        bytes[7] = 0xff;
        assert_eq!(Heard::decode(&bytes), Err(BeaconError::Cluster));
        assert_eq!(Beacon::new("a", NodeId::MIN, 0, [0; NONCE]), Err(BeaconError::Port));
    }

    proptest! {
        #[test]
        fn any_bytes_are_rejected_or_round_trip(tail in prop::collection::vec(any::<u8>(), 0..200), front in 0..7_usize) {
            let bytes = [&b"pmdb\x01\x04"[..front.min(6)], &tail].concat();
            if let Ok(heard) = Heard::decode(&bytes) {
                prop_assert_eq!([heard.beacon.claims().as_slice(), &heard.tag].concat(), bytes);
            }
        }

        #[test]
        fn an_encoded_beacon_is_proven(cluster in "[^\\p{Cc}]{1,16}", id: [u8; 32], port in 1_u16.., nonce: [u8; NONCE]) {
            let cookies = Cookies::of_text(COOKIE);
            let beacon = Beacon::new(&cluster, NodeId::new(id), port, nonce).expect("a beacon");
            let heard = Heard::decode(&beacon.encode(cookies.current().expect("one"))).expect("a beacon");
            prop_assert_eq!(heard.beacon(), &beacon);
            prop_assert!(heard.is_proven_by(&cookies));
        }
    }
}
