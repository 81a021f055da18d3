use std::sync::LazyLock;

use pmd_protocol::limits::MAX_REVOCATION_LIST;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use tempfile::TempDir;

use super::super::issuer::{CERTIFICATE, KEY};
use super::super::issuing::{issue_files, node_id};
use super::*;
use crate::auth::revocation::{CertificateIds, RevocationError, VerifiedLists};

const YEAR: std::time::Duration = std::time::Duration::from_secs(365 * 24 * 3600);

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().expect("a time")
}

fn later(days: i64) -> Timestamp {
    now() + jiff::SignedDuration::from_hours(24 * days)
}

/// An authority in a folder.
fn folder(name: &str) -> (TempDir, Authority) {
    let dir = TempDir::new().expect("a folder");
    let authority = Authority::new(name, now(), 10 * YEAR).expect("an authority");
    authority.write(dir.path()).expect("room");
    (dir, authority)
}

fn issue(dir: &TempDir, host: &str) -> Certificate {
    let host = host.parse().expect("a name");
    let done = issue_files(dir.path(), dir.path(), &host, &[], now(), YEAR).expect("a certificate");
    done.issued.certificate
}

fn host(name: &str) -> Revoke {
    Revoke::Host(name.parse().expect("a name"))
}

fn ids(certificate: &Certificate) -> CertificateIds {
    CertificateIds::of_chain(std::slice::from_ref(&certificate.der)).expect("a certificate")
}

#[test]
fn all_certificates_of_a_host_are_revoked_and_no_others() {
    let (dir, _) = folder("test");
    let (first, second, other) = (issue(&dir, "h1"), issue(&dir, "h1"), issue(&dir, "h2"));
    let done = revoke(dir.path(), &host("h1"), &[], now()).expect("a list");
    assert_eq!((done.list.number, done.new.len()), (1, 2));
    let mut lists = VerifiedLists::default();
    assert!(lists.add(done.list.into()));
    for revoked in [&first, &second] {
        assert_eq!(lists.revoked(&ids(revoked)), Some(&revoked.serial));
    }
    assert_eq!(lists.revoked(&ids(&other)), None);
    // Of another issuer with the same number, it says nothing.
    let (_elsewhere, theirs) = folder("another");
    let list = theirs.sign_list(1, &BTreeMap::from([(other.serial.clone(), now())]), now()).expect("a list");
    lists.add(list.into());
    assert_eq!(lists.revoked(&ids(&other)), None);
}

#[test]
fn each_list_keeps_what_was_revoked_and_has_a_higher_number() {
    let (dir, authority) = folder("test");
    let certificates = ["h1", "h2", "h3"].map(|name| issue(&dir, name));
    for (number, name) in [(1, "h1"), (2, "h2")] {
        assert_eq!(revoke(dir.path(), &host(name), &[], now()).expect("a list").list.number, number);
    }
    let again = revoke(dir.path(), &host("h1"), &[], now()).expect("a list");
    assert_eq!((again.list.number, again.new.len()), (2, 0), "nothing new, so there is no new list");
    // The folder is restored from a backup; a daemon knows the newer list.
    std::fs::remove_file(dir.path().join(REVOKED)).expect("a list");
    let done = revoke(dir.path(), &host("h3"), &[again.list.der], now()).expect("a list");
    assert_eq!(done.list.number, 3);
    let serials: BTreeSet<_> = certificates.iter().map(|one| one.serial.clone()).collect();
    assert_eq!(done.list.revoked.keys().cloned().collect::<BTreeSet<_>>(), serials);
    assert_eq!(authority.list(dir.path()).expect("a list"), Some(done.list));
    // A list of another authority adds nothing.
    let (theirs, _) = folder("test");
    issue(&theirs, "h1");
    let theirs = revoke(theirs.path(), &host("h1"), &[], now()).expect("a list").list;
    let done = revoke(dir.path(), &Revoke::Serial("abc".parse().expect("a number")), &[theirs.der], now());
    assert_eq!(done.expect("a list").list.revoked.len(), 4);
}

#[test]
fn expired_certificates_leave_the_list() {
    let (dir, _) = folder("test");
    let old = issue(&dir, "h1");
    revoke(dir.path(), &host("h1"), &[], now()).expect("a list");
    let serial: Serial = "00:01".parse().expect("a number");
    let list = |at| revoke(dir.path(), &Revoke::Serial(serial.clone()), &[], at).expect("a list").list;
    assert!(list(later(365)).revoked.contains_key(&old.serial), "clocks differ");
    let name = "h2".parse().expect("a name");
    issue_files(dir.path(), dir.path(), &name, &[], later(300), YEAR).expect("a certificate");
    let list = revoke(dir.path(), &host("h2"), &[], later(367)).expect("a list").list;
    assert!(!list.revoked.contains_key(&old.serial));
    // Nobody knows when that one expires.
    assert!(list.revoked.contains_key(&serial));
}

#[test]
fn the_key_of_a_revoked_certificate_is_not_certified_again() {
    let by = [|_: &Certificate| host("h1"), |one: &Certificate| Revoke::Serial(one.serial.clone())];
    for by in by {
        let (dir, _) = folder("test");
        let old = issue(&dir, "h1");
        assert_eq!(issue(&dir, "h1").node_id(), old.node_id(), "a renewal keeps the key");
        let last = issue(&dir, "h1");
        revoke(dir.path(), &by(&last), &[], now()).expect("a list");
        let new = issue(&dir, "h1");
        assert_ne!(new.node_id(), old.node_id());
        let key = files::read_key(&dir.path().join("h1.key")).expect("a key");
        assert_eq!(node_id(&key), new.node_id());
        assert_eq!(issue(&dir, "h1").node_id(), new.node_id());
    }
}

#[test]
fn a_certificate_that_is_not_in_the_record_is_revoked_by_its_file() {
    let (dir, _) = folder("test");
    let old = issue(&dir, "h1");
    std::fs::remove_file(dir.path().join(ISSUED)).expect("a record");
    let done = revoke(dir.path(), &host("h1"), &[], now()).expect("it is beside the authority");
    assert!(done.list.revoked.contains_key(&old.serial));
    let unknown = revoke(dir.path(), &host("h9"), &[], now()).expect_err("never issued");
    assert!(matches!(unknown, CaError::NotIssued(_)), "{unknown}");
    // Neither the authority itself nor a certificate of a different authority with the same name.
    let (theirs, _) = folder("test");
    issue(&theirs, "h1");
    for path in [dir.path().join(CERTIFICATE), theirs.path().join("h1.pem"), dir.path().join(KEY)] {
        let wrong = revoke(dir.path(), &Revoke::Certificate(path.clone()), &[], now());
        assert!(matches!(wrong, Err(CaError::Content { .. })), "{}", path.display());
    }
}

#[test]
fn a_short_name_means_one_host() {
    let (dir, _) = folder("test");
    let long = issue(&dir, "h1.example.org");
    let done = revoke(dir.path(), &host("h1"), &[], now()).expect("a list");
    assert_eq!(done.new.keys().collect::<Vec<_>>(), [&long.serial]);
    issue(&dir, "h2.example.org");
    issue(&dir, "h2.example.com");
    let several = revoke(dir.path(), &host("h2"), &[], now()).expect_err("two hosts");
    assert!(several.to_string().contains("h2.example.com, h2.example.org"), "{several}");
}

#[test]
fn a_list_counts_only_with_the_signature_of_its_authority() {
    let (dir, authority) = folder("test");
    issue(&dir, "h1");
    let list = revoke(dir.path(), &host("h1"), &[], now()).expect("a list").list;
    let signers = authority.list_signers();
    assert_eq!(signers.verify(&list.der).as_ref(), Ok(&list));
    for index in 0..list.der.len() {
        let mut changed = list.der.clone();
        changed[index] ^= 1;
        // Some bytes outside of what is signed are read in more than one form.
        if let Ok(same) = signers.verify(&changed) {
            assert_eq!((same.number, &same.revoked), (list.number, &list.revoked), "byte {index}");
            assert!(!same.is_newer_than(&list), "byte {index}");
        }
    }
    let last = list.der.len() - 1;
    let mut forged = list.der.clone();
    forged[last] ^= 1;
    assert_eq!(signers.verify(&forged), Err(RevocationError::Forged));
    let more = [list.der.as_slice(), &[0]].concat();
    assert!(matches!(signers.verify(&more), Err(RevocationError::Malformed(_))));
    assert!(matches!(signers.verify(&list.der[..last]), Err(RevocationError::Malformed(_))));
    // Another authority may have the same name, as two that pmd ca init has made.
    let (theirs, other) = folder("test");
    issue(&theirs, "h1");
    let foreign = revoke(theirs.path(), &host("h1"), &[], now()).expect("a list").list;
    assert_eq!(signers.verify(&foreign.der), Err(RevocationError::Foreign));
    // Both are trusted while one replaces the other.
    let both = [&authority, &other].map(|one| one.certificate().der.clone());
    let both = ListSigners::new(&both, aws_lc_rs::default_provider().signature_verification_algorithms);
    assert_eq!((both.verify(&list.der), both.verify(&foreign.der)), (Ok(list), Ok(foreign)));
}

proptest! {
    /// Members can send any bytes, and these are parsed before the signature is checked.
    #[test]
    fn no_bytes_pass_for_another_list(
        edits in vec((any::<Index>(), any::<u8>()), 0..8),
        moved in any::<(Index, Index, Index)>(),
        kind in 0..4_u8,
    ) {
        static MADE: LazyLock<(ListSigners, VerifiedList)> = LazyLock::new(|| {
            let (dir, authority) = folder("test");
            for name in ["h1", "h2"] {
                issue(&dir, name);
            }
            revoke(dir.path(), &host("h1"), &[], now()).expect("a list");
            (authority.list_signers(), revoke(dir.path(), &host("h2"), &[], now()).expect("a list").list)
        });
        let (signers, list) = &*MADE;
        let mut bytes = list.der.clone();
        let (from, to, at) = (moved.0.index(bytes.len()), moved.1.index(bytes.len()), moved.2.index(bytes.len()));
        let part = bytes[from.min(to)..from.max(to)].to_vec();
        match kind {
            0 => {}
            1 => drop(bytes.drain(from.min(to)..from.max(to))),
            2 => bytes.truncate(at),
            _ => drop(bytes.splice(at..at, part)),
        }
        for (index, byte) in edits {
            if !bytes.is_empty() {
                let at = index.index(bytes.len());
                bytes[at] = byte;
            }
        }
        if let Ok(read) = signers.verify(&bytes) {
            prop_assert_eq!((read.number, &read.revoked), (list.number, &list.revoked));
            prop_assert!(!read.is_newer_than(list));
        }
    }
}

#[test]
fn a_list_has_a_maximum_size() {
    let (_dir, authority) = folder("test");
    let certificates = |count: u32| {
        let serial = |number: u32| Serial::new(&[&[1; 12], number.to_be_bytes().as_slice()].concat());
        (0..count).map(|number| (serial(number), now())).collect::<BTreeMap<_, _>>()
    };
    let list = authority.sign_list(1, &certificates(1_000), now()).expect("a list of a thousand");
    assert!(list.der.len() < MAX_REVOCATION_LIST);
    // As text in JSON, it fits into a request to the control API.
    let request = serde_json::to_string(&list.pem()).expect("text").len() + 100;
    assert!(request * MAX_REVOCATION_LIST / list.der.len() < 64 * 1024);
    let error = authority.sign_list(1, &certificates(2_000), now()).expect_err("too long");
    assert!(matches!(error, CaError::List(RevocationError::TooLong(_))), "{error}");
}

#[test]
fn of_two_lists_with_one_number_all_daemons_choose_the_same() {
    let (_dir, authority) = folder("test");
    let list = |number, serial: &[u8]| {
        let revoked = BTreeMap::from([(Serial::new(serial), now())]);
        std::sync::Arc::new(authority.sign_list(number, &revoked, now()).expect("a list"))
    };
    let (one, other, older) = (list(2, &[1]), list(2, &[2]), list(1, &[3]));
    let chosen = |order: [&std::sync::Arc<VerifiedList>; 3]| {
        let mut lists = VerifiedLists::default();
        for list in order {
            lists.add(std::sync::Arc::clone(list));
        }
        lists
    };
    assert_eq!(chosen([&one, &other, &older]), chosen([&older, &other, &one]));
    assert!(chosen([&one, &other, &older]).iter().all(|list| list.number == 2));
}

#[test]
fn a_list_in_pem_is_read_as_it_was_written() {
    let (dir, authority) = folder("test");
    issue(&dir, "h1");
    let list = revoke(dir.path(), &host("h1"), &[], now()).expect("a list").list;
    assert_eq!(lists_of_pem(&list.pem()), Ok(vec![list.der.clone()]));
    assert_eq!(lists_of_pem(&(list.pem() + &list.pem())).expect("two").len(), 2);
    assert_eq!(authority.list(dir.path()).expect("a list"), Some(list));
}

#[test]
fn serial_numbers_have_one_form() {
    for (text, shown) in [("00a1", "a1"), ("A1", "a1"), ("0:A:1", "a1"), ("0", "00"), ("123", "0123")] {
        assert_eq!(text.parse::<Serial>().expect(text).to_string(), shown, "{text}");
    }
    for wrong in ["", "x", "1 2", &"1".repeat(42)] {
        assert!(wrong.parse::<Serial>().is_err(), "{wrong:?}");
    }
}
