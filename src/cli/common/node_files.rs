//! The files for Erlang nodes of any user of this host, and whether a user's node may load them.
//!
//! A node runs the epmd module that its variables name. Any user can listen on the EPMD port before pmd does and name a
//! module, so a command takes files only from those whose code the user runs anyway.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::diagnosis::explain;
use super::exit::Exit;
use super::failure::{Failure, Result};
use super::target::Target;
use crate::base::files::{Untrusted, replaceable_only_by};
use crate::config::paths::Paths;
use crate::control::api::TunnelList;
use crate::control::client::ClientError;
use crate::takeover::port::Port;

/// The files of the daemon, which this user may trust.
pub async fn for_a_node(target: &Target) -> Result<TunnelList> {
    let answer = target.client().tunnels_for_a_node().await;
    let hidden = matches!(
        answer,
        Err(ClientError::Closed { .. } | ClientError::NotReachable { .. } | ClientError::Forbidden { .. })
    );
    let found = if hidden { of_system(target.port).await } else { None };
    let files = match found {
        Some(found) => found,
        None => explain(target, answer).await?,
    };
    check(&files, &trusted(target))?;
    Ok(files)
}

/// The files of the system daemon, which are public and at known paths, if it runs but tells this user nothing.
async fn of_system(port: u16) -> Option<TunnelList> {
    let paths = Paths::of_system();
    let ([hosts_file, inetrc, _], module) = (paths.aliases(port), paths.epmd_module(port));
    // An earlier daemon may have left them.
    Port::look(port).await.foreign?;
    let all = [&hosts_file, &inetrc, &module].iter().all(|file| file.exists());
    all.then(|| TunnelList {
        module_folder: module.parent().unwrap_or(&module).to_owned(),
        inetrc,
        hosts_file,
        port,
        host: String::new(),
        alias: None,
        aliases: Vec::new(),
        tunnels: Vec::new(),
    })
}

/// The users whose files a node of this user may load, besides root.
fn trusted(target: &Target) -> Vec<u32> {
    let system = Paths::of_system();
    // Only root can have made the directory of the system daemon. The socket is the one that the user has chosen.
    let folders = [Some(system.state()), Some(&*target.socket), target.socket.parent()];
    let owners = folders.into_iter().flatten().filter_map(|path| Some(std::fs::metadata(path).ok()?.uid()));
    let users: BTreeSet<u32> = owners.chain([rustix::process::geteuid().as_raw()]).collect();
    users.into_iter().collect()
}

fn check(files: &TunnelList, trusted: &[u32]) -> Result<()> {
    for file in [&files.module_folder, &files.hosts_file, &files.inetrc] {
        match replaceable_only_by(trusted, file) {
            Ok(_) => {}
            // A daemon that cannot write its files warns of it, and a node finds nothing there.
            Err(Untrusted::Read { source, .. }) if source.kind() == ErrorKind::NotFound => {
                nothing_there(trusted, file)?;
            }
            Err(error) => return Err(refused(&error)),
        }
    }
    Ok(())
}

/// A file that does not exist yet must not be made by others later.
fn nothing_there(trusted: &[u32], file: &Path) -> Result<()> {
    let above = file.ancestors().skip(1).find(|folder| folder.exists());
    above.map_or(Ok(()), |folder| {
        replaceable_only_by(trusted, folder).map(drop).map_err(|error| refused(&error))
    })
}

fn refused(error: &Untrusted) -> Failure {
    let (message, hint) = match error {
        Untrusted::Read { .. } => (
            format!("this user may not use the daemon's files for Erlang nodes: {error}"),
            "let others through the directory (chmod o+x), or run the command as the user who runs the daemon",
        ),
        Untrusted::Foreign { .. } | Untrusted::Open { .. } => (
            format!("the daemon's files for Erlang nodes contain code and are not to be trusted: {error}"),
            "have the daemon run by root or by the package's service, or name the control socket of one that you trust \
             with --socket",
        ),
    };
    Failure::new(Exit::Refused, message, hint)
}
