//! `pmd ca revoke` and `pmd ca revoked`: the authority's list of revoked certificates, and handing it to a daemon.

use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;

use super::args::{CaRevoke, CaRevoked};
use super::common::target::absolute;
use super::common::{Column, Exit, Failure, Output, Result, Table, Target, block_on, explain, note};
use crate::auth::authority::{self, Revoke, Revoked, issued, read_list};
use crate::auth::revocation::{VerifiedList, lists_of_pem};
use crate::base::text::{count, printable};
use crate::control::api::{
    InstallRevocations, InstalledRevocations, RevocationList, RevocationLists, RevokedCertificate,
};
use crate::control::client::{Client, ClientError};

const COLUMNS: [Column<RevokedCertificate>; 3] = [
    Column::new("SERIAL", |one| one.serial.clone()),
    Column::new("HOST", |one| one.host.as_deref().unwrap_or("-").to_owned()),
    Column::new("REVOKED AT", |one| format!("{:.0}", one.revoked_at)),
];

/// Revokes certificates, and hands the list to the daemon on this host if there is one.
pub fn revoke(target: &Target, dir: &Path, args: &CaRevoke, output: Output) -> Result<Exit> {
    let what = match (&args.host, &args.serial, &args.certificate) {
        (Some(host), _, _) => Revoke::Host(host.clone()),
        (_, Some(serial), _) => Revoke::Serial(serial.clone()),
        (_, _, Some(file)) => Revoke::Certificate(absolute(file)),
        (None, None, None) => {
            return Err(Failure::new(Exit::Usage, "no certificate is named", "see pmd ca revoke --help"));
        }
    };
    block_on(async {
        let client = target.client();
        let known = known(&client).await;
        let done = authority::revoke(dir, &what, &known, Timestamp::now())?;
        let given = hand_over(&client, &done.list).await;
        let report = report(&done, given.is_ok());
        output.one(&report, |out| {
            for certificate in &report.revoked {
                let host = certificate.host.as_deref().map_or("an unknown host".into(), printable);
                writeln!(out, "revoked the certificate of {host} with serial number {}", certificate.serial)?;
            }
            if report.revoked.is_empty() {
                writeln!(out, "it was revoked before")?;
            }
            writeln!(out, "  list number {}  {}", report.number, report.list.display())
        })?;
        if matches!(what, Revoke::Serial(_)) && done.new.values().any(Option::is_none) {
            note(
                "note: no certificate with that number is in the record of the authority; compare it with pmd ca show FILE",
            );
        }
        advise(target, &done, given);
        Ok(Exit::Done)
    })
}

/// The lists of a daemon on this host, in DER: a copy of the authority on another machine may have made newer ones.
async fn known(client: &Client) -> Vec<Vec<u8>> {
    let lists = client.revocations().await.map(|lists| lists.lists).unwrap_or_default();
    lists.iter().filter_map(|list| lists_of_pem(&list.pem).ok()).flatten().collect()
}

async fn hand_over(
    client: &Client,
    list: &VerifiedList,
) -> std::result::Result<InstalledRevocations, ClientError> {
    client.install_revocations(&InstallRevocations { pem: list.pem() }).await
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    list: &'a Path,
    number: u64,
    revoked: Vec<RevokedCertificate>,
    installed: bool,
}

fn report(done: &Revoked, installed: bool) -> Report<'_> {
    let revoked = done.new.iter().map(|(serial, host)| RevokedCertificate {
        serial: serial.to_string(),
        host: host.clone(),
        revoked_at: done.list.revoked.get(serial).copied().unwrap_or(done.list.updated),
    });
    Report { list: &done.path, number: done.list.number, revoked: revoked.collect(), installed }
}

/// Says whether the list is in force, and what is left to do.
fn advise(target: &Target, done: &Revoked, given: std::result::Result<InstalledRevocations, ClientError>) {
    let list = done.path.display();
    match given {
        Ok(_) => {
            note("the daemon on this host has put it in force and passes it on to all members");
        }
        Err(error) => {
            if !matches!(error, ClientError::NotReachable { .. }) {
                note(&format!(
                    "warning: the daemon on this host did not take the list: {}",
                    Failure::from(error).message
                ));
            }
            let command = target.command("ca revoked --install revoked.pem");
            note(&format!("next: copy {list} to any one member, and run there: {command}"));
        }
    }
    let mut hosts: Vec<&str> = done.new.values().flatten().map(String::as_str).collect();
    hosts.dedup();
    if let [host] = hosts.as_slice() {
        let host = printable(host);
        note(&format!("to let that host return, with a new key: pmd ca issue {host}"));
    }
}

/// Lists what the daemon on this host refuses, or hands it a list.
pub fn list(target: &Target, args: &CaRevoked, output: Output) -> Result<Exit> {
    if let Some(file) = &args.install {
        return install(target, &absolute(file), output);
    }
    block_on(async {
        let found = explain(target, target.client().revocations().await).await?;
        let all: Vec<_> = found.lists.iter().flat_map(|list| list.revoked.clone()).collect();
        let table = Table {
            columns: &COLUMNS,
            colour: |_| None,
            empty: "This daemon knows of no revoked certificates.".to_owned(),
        };
        output.list(&found, &all, &table)?;
        Ok(Exit::Done)
    })
}

/// Lists what the authority in `dir` has revoked.
pub fn list_of_authority(dir: &Path, output: Output) -> Result<Exit> {
    let list = authority::list(dir)?;
    let records = issued(dir)?;
    let revoked = list.iter().flat_map(|list| &list.revoked).map(|(serial, time)| RevokedCertificate {
        serial: serial.to_string(),
        host: records.iter().find(|one| one.serial == *serial).map(|one| one.host.clone()),
        revoked_at: *time,
    });
    let revoked: Vec<_> = revoked.collect();
    let shown = list.as_ref().map(|list| RevocationList {
        issuer: list.issuer_name.clone(),
        number: list.number,
        updated_at: list.updated,
        revoked: revoked.clone(),
        pem: list.pem(),
    });
    let report = RevocationLists { lists: shown.into_iter().collect() };
    let table = Table {
        columns: &COLUMNS,
        colour: |_| None,
        empty: "This authority has revoked no certificates.".to_owned(),
    };
    output.list(&report, &revoked, &table)?;
    Ok(Exit::Done)
}

/// Hands a list that was copied here to the daemon on this host.
fn install(target: &Target, file: &Path, output: Output) -> Result<Exit> {
    let list = InstallRevocations { pem: read_list(file)? };
    block_on(async {
        let done = explain(target, target.client().install_revocations(&list).await).await?;
        output.one(&done, |out| {
            let revoked = count(done.revoked, "certificate is", "certificates are");
            let how = if done.changed { "is in force" } else { "was in force before" };
            writeln!(out, "list number {} {how}: {revoked} revoked", done.number)
        })?;
        note("the daemon on this host passes it on to all members");
        Ok(Exit::Done)
    })
}
