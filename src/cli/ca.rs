//! `pmd ca`: the cluster's own certificate authority and the certificates it issues.

use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::args::{Ca, CaInit, CaIssue, CaRevoked, CaShow, Global};
use super::common::target::absolute;
use super::common::{Colour, Exit, Failure, Output, Result, Target, note};
use super::revoke;
use crate::auth::authority::{self, Authority, CERTIFICATE, CaError, Certificate, DAY, KEY};
use crate::base::text::{printable, span};
use crate::config::paths::Paths;
use crate::control::json;

/// A certificate that expires within this time should be renewed.
const SOON: Duration = Duration::from_secs(30 * 24 * 3600);

/// Issues and shows certificates.
pub fn run(global: &Global, action: &Ca, output: Output) -> Result<Exit> {
    match action {
        Ca::Init(args) => init(args, output),
        Ca::Issue(args) => issue(args, output),
        Ca::Show(args) => show(args, output),
        Ca::Revoke(args) => revoke::revoke(&Target::of(global)?, &folder(args.dir.as_deref())?, args, output),
        Ca::Revoked(CaRevoked { dir: Some(dir), .. }) => {
            revoke::list_of_authority(&folder(Some(dir))?, output)
        }
        Ca::Revoked(args) => revoke::list(&Target::of(global)?, args, output),
    }
}

fn init(args: &CaInit, output: Output) -> Result<Exit> {
    let dir = folder(args.dir.as_deref())?;
    let authority = Authority::new(&args.name, Timestamp::now(), DAY * args.days)?;
    authority.write(&dir)?;
    let (certificate, key) = (dir.join(CERTIFICATE), dir.join(KEY));
    let report = Issued {
        certificate: &certificate,
        key: &key,
        renewed: false,
        details: Details::of(authority.certificate()),
    };
    let end = json::rfc3339(authority.certificate().not_after);
    output.one(&report, |out| {
        writeln!(out, "created the authority {:?}, valid until {end}", args.name)?;
        write_files(out, &certificate, &key)
    })?;
    note(&format!(
        "next: pmd ca issue HOST, for every host\nkeep {} secret: it can admit any host to the cluster",
        key.display()
    ));
    Ok(Exit::Done)
}

fn issue(args: &CaIssue, output: Output) -> Result<Exit> {
    let dir = folder(args.dir.as_deref())?;
    let out = args.out.as_deref().map_or_else(|| dir.clone(), absolute);
    let now = Timestamp::now();
    let done = authority::issue_files(&dir, &out, &args.host, &args.ip, now, DAY * args.days)?;
    let certificate = &done.issued.certificate;
    let report = Issued {
        certificate: &done.certificate,
        key: &done.key,
        renewed: done.renewed,
        details: Details::of(certificate),
    };
    let (how, end) = (if done.renewed { "renewed" } else { "issued" }, json::rfc3339(certificate.not_after));
    output.one(&report, |out| {
        writeln!(out, "{how} the certificate of {}, valid until {end}", args.host.as_str())?;
        write_files(out, &done.certificate, &done.key)
    })?;
    if done.replaced {
        note(
            "note: the old key belongs to a revoked certificate, so there is a new one, and the daemon gets a new id",
        );
    }
    if done.issued.shortened {
        note("note: it expires with the authority, earlier than requested");
    }
    note(if done.renewed {
        "note: the existing key was reused, so the daemon keeps its id\n\
         next: replace the certificate on that host, and run pmd reload there"
    } else {
        "next: copy both files and ca.pem to that host, and set cert_path, key_path and ca_cert_path in its pmd.toml"
    });
    Ok(Exit::Done)
}

fn write_files(out: &mut dyn Write, certificate: &Path, key: &Path) -> io::Result<()> {
    writeln!(out, "  certificate  {}", certificate.display())?;
    writeln!(out, "  private key  {}", key.display())
}

fn show(args: &CaShow, output: Output) -> Result<Exit> {
    let path = match &args.file {
        Some(file) => absolute(file),
        None => folder(args.dir.as_deref())?.join(CERTIFICATE),
    };
    let certificates = authority::read_certificates(&path)?;
    let now = Timestamp::now();
    let report = Shown { path: &path, certificates: certificates.iter().map(Details::of).collect() };
    output.one(&report, |out| {
        writeln!(out, "{}", path.display())?;
        certificates.iter().try_for_each(|certificate| write_certificate(out, certificate, now, output))
    })?;
    for certificate in &certificates {
        let (subject, validity) = (printable(&certificate.subject), Validity::of(certificate, now));
        match validity {
            Validity::Valid(_) => {}
            Validity::NotYet => note(&format!("warning: {subject} is not valid yet")),
            Validity::ExpiresSoon(left) => {
                note(&format!("warning: {subject} expires in {}; renew it: pmd ca issue HOST", span(left)));
            }
            Validity::Expired(ago) => {
                note(&format!("warning: {subject} expired {} ago; renew it: pmd ca issue HOST", span(ago)));
            }
        }
    }
    Ok(Exit::Done)
}

/// The directory of the authority.
fn folder(asked: Option<&Path>) -> Result<PathBuf> {
    let folder = match asked {
        Some(folder) => folder.to_owned(),
        None => Paths::to_keep()?.state().join("ca"),
    };
    Ok(absolute(&folder))
}

#[derive(Debug, Serialize)]
struct Issued<'a> {
    certificate: &'a Path,
    key: &'a Path,
    renewed: bool,
    #[serde(flatten)]
    details: Details,
}

#[derive(Debug, Serialize)]
struct Shown<'a> {
    path: &'a Path,
    certificates: Vec<Details>,
}

/// The content of a certificate, for JSON output.
#[derive(Debug, Serialize)]
struct Details {
    subject: String,
    issuer: String,
    names: Vec<String>,
    addresses: Vec<IpAddr>,
    authority: bool,
    not_before: String,
    not_after: String,
    serial: String,
    sha256: String,
    node_id: String,
}

impl Details {
    fn of(certificate: &Certificate) -> Details {
        Details {
            subject: certificate.subject.clone(),
            issuer: certificate.issuer.clone(),
            names: certificate.names.clone(),
            addresses: certificate.addresses.clone(),
            authority: certificate.authority,
            not_before: json::rfc3339(certificate.not_before),
            not_after: json::rfc3339(certificate.not_after),
            serial: certificate.serial.to_string(),
            sha256: certificate.sha256(),
            node_id: certificate.node_id().to_string(),
        }
    }
}

/// The validity of a certificate, with the seconds until or since its expiry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Validity {
    NotYet,
    Valid(u64),
    ExpiresSoon(u64),
    Expired(u64),
}

impl Validity {
    fn of(certificate: &Certificate, now: Timestamp) -> Validity {
        let left = certificate.not_after.duration_since(now);
        match u64::try_from(left.as_secs()) {
            Ok(_) if certificate.not_before > now => Validity::NotYet,
            Ok(left) if left == 0 || left < SOON.as_secs() => Validity::ExpiresSoon(left),
            Ok(left) => Validity::Valid(left),
            Err(_) => Validity::Expired(left.as_secs().unsigned_abs()),
        }
    }

    fn describe(self, output: Output) -> String {
        match self {
            Validity::NotYet => output.paint(Colour::Yellow, "not yet"),
            Validity::Valid(left) => output.paint(Colour::Green, &format!("for {}", span(left))),
            Validity::ExpiresSoon(left) => output.paint(Colour::Yellow, &format!("for {}", span(left))),
            Validity::Expired(ago) => output.paint(Colour::Red, &format!("expired {} ago", span(ago))),
        }
    }
}

fn write_certificate(
    out: &mut dyn Write,
    certificate: &Certificate,
    now: Timestamp,
    output: Output,
) -> io::Result<()> {
    let mut row = |label: &str, text: &str| writeln!(out, "  {label:<11}  {text}");
    let kind = if certificate.authority { "authority" } else { "host" };
    row(kind, &printable(&certificate.subject))?;
    if certificate.issuer != certificate.subject {
        row("issued by", &printable(&certificate.issuer))?;
    }
    if !certificate.names.is_empty() {
        row("names", &printable(&certificate.names.join(", ")))?;
    }
    if !certificate.addresses.is_empty() {
        let addresses: Vec<String> = certificate.addresses.iter().map(ToString::to_string).collect();
        row("addresses", &addresses.join(", "))?;
    }
    row(
        "valid",
        &format!(
            "{} to {}, {}",
            json::rfc3339(certificate.not_before),
            json::rfc3339(certificate.not_after),
            Validity::of(certificate, now).describe(output)
        ),
    )?;
    row("serial", &certificate.serial.to_string())?;
    row("SHA-256", &certificate.sha256())?;
    if !certificate.authority {
        row("daemon's id", &certificate.node_id().to_string())?;
    }
    Ok(())
}

impl From<CaError> for Failure {
    fn from(error: CaError) -> Failure {
        let denied = |source: &io::Error| source.kind() == io::ErrorKind::PermissionDenied;
        let exit = match &error {
            CaError::NoAuthority { .. } | CaError::NotIssued(_) => Exit::NotFound,
            CaError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => Exit::NotFound,
            CaError::Read { source, .. } | CaError::Write { source, .. } if denied(source) => Exit::Refused,
            CaError::Exists { .. } | CaError::Several(..) => Exit::Conflict,
            CaError::Exposed { .. } | CaError::Foreign { .. } | CaError::Ended(_) => Exit::Refused,
            CaError::Content { .. } | CaError::List(_) | CaError::Name(_) | CaError::Oneself(_) => {
                Exit::Usage
            }
            CaError::Read { .. } | CaError::Write { .. } | CaError::Crypto(_) => Exit::General,
        };
        Failure::new(exit, error.to_string(), error.hint())
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::cli::args::Format;

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().expect("a time")
    }

    #[test]
    fn a_certificate_is_shown() {
        let authority = Authority::new("shop", now(), DAY * 3650).expect("an authority");
        let host = "host1.example.org".parse().expect("a name");
        let ips = ["10.0.0.1".parse().expect("an address")];
        let issued = authority.issue(&host, &ips, None, now(), DAY * 365).expect("a certificate");
        let shown = |certificate: &Certificate| {
            let mut out = Vec::new();
            write_certificate(&mut out, certificate, now(), Output::new(Format::Table, false))
                .expect("in-memory write");
            let text = String::from_utf8(out).expect("text");
            let text = text.replace(&certificate.serial.to_string(), "SERIAL");
            text.replace(&certificate.sha256(), "SHA256").replace(&certificate.node_id().to_string(), "ID")
        };
        assert_snapshot!(shown(authority.certificate()), @r"
        authority    CN=shop
        valid        2025-12-31T23:00:00.000Z to 2035-12-30T00:00:00.000Z, for 3650d
        serial       SERIAL
        SHA-256      SHA256
        ");
        assert_snapshot!(shown(&issued.certificate), @r"
        host         CN=host1.example.org
        issued by    CN=shop
        names        host1.example.org, host1
        addresses    10.0.0.1
        valid        2025-12-31T23:00:00.000Z to 2027-01-01T00:00:00.000Z, for 365d
        serial       SERIAL
        SHA-256      SHA256
        daemon's id  ID
        ");
    }

    #[test]
    fn a_certificate_is_due_before_it_expires() {
        let authority = Authority::new("shop", now(), DAY * 3650).expect("an authority");
        let at = |time: &str| Validity::of(authority.certificate(), time.parse().expect("a time"));
        assert_eq!(at("2025-12-31T22:00:00Z"), Validity::NotYet);
        assert_eq!(at("2026-01-01T00:00:00Z"), Validity::Valid(3650 * 86_400));
        assert_eq!(at("2035-12-30T00:00:00Z"), Validity::ExpiresSoon(0));
        assert_eq!(at("2035-11-30T00:00:00Z"), Validity::Valid(SOON.as_secs()));
        assert_eq!(at("2035-12-01T00:00:00Z"), Validity::ExpiresSoon(29 * 86_400));
        assert_eq!(at("2035-12-31T00:00:00Z"), Validity::Expired(86_400));
    }

    #[test]
    fn failures_have_their_own_exit_codes() {
        let path = || PathBuf::from("/x");
        for (error, exit) in [
            (CaError::NoAuthority { dir: path() }, Exit::NotFound),
            (CaError::Exists { path: path() }, Exit::Conflict),
            (CaError::Exposed { path: path(), mode: 0o644 }, Exit::Refused),
            (CaError::Write { path: path(), source: io::ErrorKind::PermissionDenied.into() }, Exit::Refused),
            (CaError::Write { path: path(), source: io::ErrorKind::StorageFull.into() }, Exit::General),
            (CaError::Content { path: path(), problem: "is wrong" }, Exit::Usage),
        ] {
            let failure = Failure::from(error);
            assert_eq!(failure.exit, exit);
            assert!(!failure.hint.is_empty());
        }
    }
}
