use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::PublicKeyData;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, Error, RootCertStore};
use tempfile::TempDir;

use super::*;

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().expect("a time")
}

fn after(time: Duration) -> Timestamp {
    now() + jiff::SignedDuration::try_from(time).expect("a time")
}

fn unix(time: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(time.as_second().try_into().expect("after 1970")))
}

fn host(name: &str) -> HostName {
    name.parse().expect("a name")
}

fn authority() -> Authority {
    Authority::new("test", now(), 10 * YEAR).expect("an authority")
}

fn issued(authority: &Authority, name: &str) -> Issued {
    authority.issue(&host(name), &[], None, now(), YEAR).expect("a certificate")
}

fn roots(authority: &Authority) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate().der.clone()).expect("a root");
    roots.into()
}

/// Verifies this chain as a client does for a server.
fn as_server(authority: &Authority, issued: &Issued, name: &str, at: Timestamp) -> Result<(), Error> {
    let verifier = WebPkiServerVerifier::builder_with_provider(roots(authority), default_provider().into());
    let (leaf, rest) = chain(issued);
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let verifier = verifier.build().expect("a verifier");
    verifier.verify_server_cert(&leaf, &rest, &name, &[], unix(at)).map(|_| ())
}

/// Verifies this chain as a server does for a client.
fn as_client(authority: &Authority, issued: &Issued, at: Timestamp) -> Result<(), Error> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(authority), default_provider().into());
    let (leaf, rest) = chain(issued);
    verifier.build().expect("a verifier").verify_client_cert(&leaf, &rest, unix(at)).map(|_| ())
}

fn chain(issued: &Issued) -> (CertificateDer<'static>, Vec<CertificateDer<'static>>) {
    let mut all = Certificate::all_of_pem(&issued.chain, Path::new("chain")).expect("a chain").into_iter();
    let leaf = all.next().expect("a certificate").der;
    (leaf, all.map(|certificate| certificate.der).collect())
}

fn problem(result: Result<(), Error>) -> CertificateError {
    match result {
        Err(Error::InvalidCertificate(problem)) => problem,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_certificate_serves_both_ends_of_a_link() {
    let authority = authority();
    let issued = issued(&authority, "host1");
    assert_eq!(as_server(&authority, &issued, "host1", after(DAY)), Ok(()));
    assert_eq!(as_client(&authority, &issued, after(DAY)), Ok(()));
    // The verifier's clock may be slow by less than an hour.
    assert_eq!(as_client(&authority, &issued, now() - jiff::SignedDuration::from_mins(50)), Ok(()));
}

#[test]
fn a_certificate_is_valid_for_both_names_of_its_host_only() {
    let authority = authority();
    let issued = authority
        .issue(&host("Host1.example.org."), &["10.0.0.1".parse().expect("an address")], None, now(), YEAR)
        .expect("a certificate");
    for right in ["host1.example.org", "host1", "10.0.0.1"] {
        assert_eq!(as_server(&authority, &issued, right, after(DAY)), Ok(()), "{right}");
    }
    for wrong in ["host2", "host1.example.com", "example.org", "10.0.0.2"] {
        let problem = problem(as_server(&authority, &issued, wrong, after(DAY)));
        assert!(
            matches!(
                problem,
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
            ),
            "{wrong}: {problem:?}"
        );
    }
}

#[test]
fn a_certificate_expires() {
    let authority = authority();
    let issued = issued(&authority, "host1");
    assert_eq!(as_client(&authority, &issued, after(364 * DAY)), Ok(()));
    for at in [after(YEAR + DAY), after(11 * YEAR)] {
        for problem in [
            problem(as_server(&authority, &issued, "host1", at)),
            problem(as_client(&authority, &issued, at)),
        ] {
            assert!(
                matches!(problem, CertificateError::Expired | CertificateError::ExpiredContext { .. }),
                "{problem:?}"
            );
        }
    }
}

#[test]
fn a_certificate_does_not_outlive_its_authority() {
    let authority = authority();
    let late = after(10 * YEAR - 30 * DAY);
    let issued = authority.issue(&host("host1"), &[], None, late, YEAR).expect("a certificate");
    assert!(issued.shortened);
    assert_eq!(issued.certificate.not_after, authority.certificate().not_after);
    let expired = authority.issue(&host("host1"), &[], None, after(10 * YEAR), YEAR);
    assert!(matches!(expired, Err(CaError::Ended(_))), "{expired:?}");
}

#[test]
fn certificates_of_other_authorities_and_of_hosts_are_rejected() {
    let (one, other) = (authority(), authority());
    let issued_by_other = issued(&other, "host1");
    assert!(as_client(&one, &issued_by_other, after(DAY)).is_err());
    // A host cannot act as an authority with its own certificate and key.
    let host_certificate = issued(&one, "host1");
    let pem = host_certificate.chain.clone();
    assert!(matches!(
        Authority::of_pem(pem, host_certificate.key, Path::new("x")),
        Err(CaError::Content { .. })
    ));
}

#[test]
fn the_fields_of_a_certificate_are_parsed() {
    let authority = authority();
    let ip = "fd00::1".parse().expect("an address");
    let issued = authority.issue(&host("host1.example.org"), &[ip], None, now(), 90 * DAY).expect("one");
    let parsed = &issued.certificate;
    assert_eq!((parsed.subject.as_str(), parsed.issuer.as_str()), ("CN=host1.example.org", "CN=test"));
    assert_eq!(
        (parsed.names.as_slice(), parsed.addresses.as_slice()),
        (["host1.example.org".to_owned(), "host1".to_owned()].as_slice(), [ip].as_slice())
    );
    assert!(!parsed.authority);
    assert_eq!(
        (parsed.not_before, parsed.not_after),
        (now() - jiff::SignedDuration::from_hours(1), after(90 * DAY))
    );
    assert_eq!(parsed.public_key, issued.key.subject_public_key_info());
    assert_eq!(parsed.node_id().to_string().len(), 64);
    assert_ne!(parsed.sha256(), parsed.node_id().to_string());
    assert!(authority.certificate().authority);
}

#[test]
fn invalid_host_names_are_rejected() {
    for right in ["host1", "HOST1", "web_1", "a.b.c", "host1."] {
        assert!(right.parse::<HostName>().is_ok(), "{right}");
    }
    for wrong in ["", ".", "*.example.org", "a/b", "../x", "a b", "-a.", "x@y", "10.0.0.1", "::1", "a\nb"] {
        assert!(wrong.parse::<HostName>().is_err(), "{wrong}");
    }
    // The first label is a number, which is not a valid name on its own.
    assert_eq!(host("1.example.org").names(), ["1.example.org"]);
}

#[test]
fn an_authority_is_kept_in_two_files_and_never_overwritten() {
    let folder = TempDir::new().expect("a folder");
    let dir = folder.path().join("state/ca");
    assert!(matches!(Authority::read(&dir), Err(CaError::NoAuthority { .. })));
    authority().write(&dir).expect("room");
    let mode = |name: &str| std::fs::metadata(dir.join(name)).expect("a file").permissions().mode() & 0o777;
    assert_eq!((mode(KEY), mode(CERTIFICATE)), (0o600, 0o644));
    let before = std::fs::read(dir.join(CERTIFICATE)).expect("a file");
    assert!(matches!(authority().write(&dir), Err(CaError::Exists { .. })));
    std::fs::remove_file(dir.join(CERTIFICATE)).expect("it is there");
    assert!(matches!(authority().write(&dir), Err(CaError::Exists { .. })), "the key alone counts");
    std::fs::write(dir.join(CERTIFICATE), before).expect("room");
    assert!(Authority::read(&dir).is_ok());
    std::fs::set_permissions(dir.join(KEY), std::fs::Permissions::from_mode(0o640)).expect("ours");
    assert!(matches!(Authority::read(&dir), Err(CaError::Exposed { mode: 0o640, .. })));
}

#[test]
fn a_renewed_certificate_has_the_same_key() {
    let folder = TempDir::new().expect("a folder");
    let (dir, out) = (folder.path().join("ca"), folder.path().join("out"));
    authority().write(&dir).expect("room");
    let issue =
        |ips: &[IpAddr]| issue_files(&dir, &out, &host("host1"), ips, now(), YEAR).expect("a certificate");
    let ip: IpAddr = "10.0.0.1".parse().expect("an address");
    let (first, second) = (issue(&[ip]), issue(&[]));
    assert_eq!((first.renewed, second.renewed), (false, true));
    let (one, two) = (&first.issued.certificate, &second.issued.certificate);
    assert_eq!(one.node_id(), two.node_id());
    assert_ne!(one.der, two.der);
    assert_eq!(two.addresses, [ip]);
    let mode = std::fs::metadata(&first.key).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let chain = read_certificates(&first.certificate).expect("a chain");
    assert_eq!(chain.iter().map(|one| one.subject.as_str()).collect::<Vec<_>>(), ["CN=host1", "CN=test"]);
    assert_eq!(chain[0].der, two.der);
    // The host's files would overwrite those of the authority.
    let itself = issue_files(&dir, &dir, &host("CA"), &[], now(), YEAR);
    assert!(matches!(itself, Err(CaError::Oneself(_))), "{itself:?}");
}

#[test]
fn files_of_the_wrong_type_are_rejected() {
    let folder = TempDir::new().expect("a folder");
    let dir = folder.path().join("ca");
    authority().write(&dir).expect("room");
    let error_of = |path: &Path| read_certificates(path).expect_err("it is wrong").to_string();
    let key = dir.join(KEY);
    assert_eq!(error_of(&key), format!("{} contains no certificate", key.display()));
    let binary = folder.path().join("binary");
    std::fs::write(&binary, [0xff, 0xfe, 0]).expect("room");
    assert_eq!(error_of(&binary), format!("{} is not a PEM file", binary.display()));
    // The key of one authority next to the certificate of another.
    let other = folder.path().join("other");
    authority().write(&other).expect("room");
    std::fs::copy(other.join(CERTIFICATE), dir.join(CERTIFICATE)).expect("room");
    let mixed = Authority::read(&dir).expect_err("it is wrong").to_string();
    assert!(mixed.ends_with("ca.pem does not match the private key next to it"), "{mixed}");
}
