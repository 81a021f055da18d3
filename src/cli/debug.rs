//! `pmd debug`: a support bundle, one file with everything needed to diagnose a problem, without secrets.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;
use serde_json::Value;

use super::args::{self, Global};
use super::common::target::{ConfigFile, settings};
use super::common::{Exit, Failure, Output, Result, Target, block_on, note, with_progress};
use crate::config::paths::Paths;
use crate::control::client::{Client, ClientError};
use crate::doctor::examine;

/// Time limit for each answer of the daemon, so that a bundle can be collected from a daemon that hangs.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The directory in the archive.
const FOLDER: &str = "pmd-debug";

/// The result of the command.
#[derive(Debug, Serialize)]
struct Report {
    file: PathBuf,
    parts: Vec<String>,
    missing: Vec<Missing>,
}

/// A part that could not be collected.
#[derive(Debug, Serialize)]
struct Missing {
    part: String,
    reason: String,
}

/// The parts of a bundle.
#[derive(Debug, Default)]
struct Parts {
    found: Vec<(&'static str, Vec<u8>)>,
    missing: Vec<Missing>,
}

/// Collects everything and writes the file.
pub fn run(global: &Global, target: &Target, args: &args::Debug, output: Output) -> Result<Exit> {
    let path = args.file.clone().unwrap_or_else(|| format!("pmd-debug-{}.tar.gz", target.port).into());
    if !args.force && path.symlink_metadata().is_ok() {
        return Err(exists(&path));
    }
    let mut parts = Parts::default();
    parts.add("version.txt", Ok::<_, String>(version().into_bytes()));
    parts.add("config.toml", configuration(&ConfigFile::of(global, &Paths::of_process())));
    let client = target.client().with_timeout(TIMEOUT);
    block_on(async {
        with_progress("asking the daemon", ask(&client, &mut parts)).await;
        match settings(global, &args::Start::default()) {
            Ok(settings) => parts.json("doctor.json", Ok(examine(&settings, &client, None).await)),
            Err(failure) => parts.add("doctor.json", Err(failure.message)),
        }
        write(&path, args.force, &parts)?;
        report(path, parts, output)
    })
}

fn report(file: PathBuf, Parts { found, missing }: Parts, output: Output) -> Result<Exit> {
    for Missing { part, reason } in &missing {
        note(&format!("note: {part} is missing: {reason}"));
    }
    let report = Report { parts: found.iter().map(|(part, _)| (*part).to_owned()).collect(), missing, file };
    output.one(&report, |out| {
        writeln!(out, "{}: {} parts; review it before you send it", report.file.display(), report.parts.len())
    })?;
    Ok(Exit::Done)
}

impl Parts {
    fn add(&mut self, part: &'static str, content: std::result::Result<Vec<u8>, impl ToString>) {
        match content {
            Ok(content) => self.found.push((part, content)),
            Err(reason) => self.missing.push(Missing { part: part.into(), reason: reason.to_string() }),
        }
    }

    fn json<T: Serialize>(&mut self, part: &'static str, answer: std::result::Result<T, ClientError>) {
        let content = answer.map_err(|error| error.to_string()).and_then(|answer| {
            let mut values = serde_json::to_value(answer).map_err(|error| error.to_string())?;
            redact("", &mut values);
            serde_json::to_vec_pretty(&values).map_err(|error| error.to_string())
        });
        self.add(part, content);
    }
}

async fn ask(client: &Client, parts: &mut Parts) {
    let status = client.status().await;
    if let Ok(status) = &status {
        let limits = std::fs::read(format!("/proc/{}/limits", status.pid));
        parts.add("limits.txt", limits);
    } else {
        parts.add("limits.txt", Err("the process id of the daemon is unknown"));
    }
    let boot = status.as_ref().ok().map(|status| status.boot_id.clone());
    parts.json("status.json", status);
    parts.json("nodes.json", client.nodes().await);
    parts.json("peers.json", client.peers().await);
    parts.json("refusals.json", client.refusals().await);
    parts.json("names.json", client.names(None).await);
    parts.json("services.json", client.services().await);
    parts.json("cluster-names.json", client.cluster_names(None).await);
    parts.json("tunnels.json", client.tunnels().await);
    parts.json("discovered.json", client.discover().await);
    parts.json("health.json", client.health(true).await);
    parts.add("metrics.txt", client.metrics().await.map(String::into_bytes));
    parts.add("log.txt", client.log().await.map(String::into_bytes));
    parts.add("events.jsonl", events(client, boot.as_deref()).await);
}

/// All events that the daemon still has, one per line.
async fn events(client: &Client, boot: Option<&str>) -> std::result::Result<Vec<u8>, ClientError> {
    let mut stream = client.events(Some(0), boot, &[]).await?;
    let mut lines = String::new();
    let mut last = None;
    let read = async {
        while let Some(message) = stream.next().await? {
            if message.event == "hello" {
                let hello: crate::control::api::Hello = serde_json::from_str(&message.data)
                    .map_err(|error| ClientError::Unexpected(error.to_string()))?;
                last = Some(hello.last);
            } else if !message.event.is_empty() {
                lines.extend([message.data.as_str(), "\n"]);
            }
            if last.is_some_and(|last| message.id.unwrap_or_default() >= last) {
                break;
            }
        }
        Ok::<(), ClientError>(())
    };
    // On a timeout, keep the events received so far.
    tokio::time::timeout(TIMEOUT, read).await.unwrap_or(Ok(()))?;
    Ok(lines.into_bytes())
}

fn version() -> String {
    let system = rustix::system::uname();
    let word = |word: &std::ffi::CStr| word.to_string_lossy().into_owned();
    format!(
        "pmd {}\n{} {} {}\n",
        env!("CARGO_PKG_VERSION"),
        word(system.sysname()),
        word(system.release()),
        word(system.machine())
    )
}

/// The configuration file without secrets. A file that cannot be parsed is omitted, as its secrets cannot be found.
fn configuration(config: &ConfigFile) -> std::result::Result<Vec<u8>, String> {
    let text = std::fs::read_to_string(&config.path)
        .map_err(|error| format!("{}: {error}", config.path.display()))?;
    let mut values: Value =
        toml::from_str(&text).map_err(|_| format!("{} is not valid TOML", config.path.display()))?;
    redact("", &mut values);
    let text = toml::to_string(&values).map_err(|error| error.to_string())?;
    Ok(format!("# {}, without comments and secrets\n{text}", config.path.display()).into_bytes())
}

/// Redacts values whose keys look like secrets (for example in metadata), and the arguments of discovery programs.
fn redact(key: &str, value: &mut Value) {
    let key = key.to_lowercase();
    // The path of a secret is not itself secret.
    let path = key.ends_with("_file") || key.ends_with("_path");
    let secret = ["cookie", "secret", "password", "token", "key"].iter().any(|word| key.contains(word));
    match value {
        Value::Object(values) => values.iter_mut().for_each(|(key, value)| redact(key, value)),
        Value::Array(values) => values.iter_mut().for_each(|value| redact(&key, value)),
        Value::String(text) if text.starts_with("exec:") => {
            let program = text.split_whitespace().next().unwrap_or_default();
            if program.len() < text.trim_end().len() {
                *text = format!("{program} (arguments redacted)");
            }
        }
        Value::String(_) | Value::Number(_) if secret && !path => *value = "(redacted)".into(),
        _ => {}
    }
}

fn write(path: &Path, force: bool, parts: &Parts) -> Result<()> {
    if force {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(write_failure(path, &error)),
            _ => {}
        }
    }
    // Fails if another process has created the file in the meantime.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let file = file.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => exists(path),
        _ => write_failure(path, &error),
    })?;
    archive(file, parts).map_err(|error| {
        let _ = std::fs::remove_file(path);
        write_failure(path, &error)
    })
}

fn archive(file: File, parts: &Parts) -> io::Result<()> {
    let missing: String =
        parts.missing.iter().map(|Missing { part, reason }| format!("{part}: {reason}\n")).collect();
    let now = crate::base::clock::now_ms() / 1000;
    let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::default()));
    let list = (!missing.is_empty()).then_some(("missing.txt", missing.as_bytes()));
    for (part, content) in parts.found.iter().map(|(part, content)| (*part, content.as_slice())).chain(list) {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(now);
        archive.append_data(&mut header, format!("{FOLDER}/{part}"), content)?;
    }
    archive.into_inner()?.finish()?.flush()
}

fn exists(path: &Path) -> Failure {
    Failure::new(
        Exit::Conflict,
        format!("{} already exists", path.display()),
        "choose another file, or replace it with --force",
    )
}

fn write_failure(path: &Path, error: &io::Error) -> Failure {
    Failure::new(
        Exit::General,
        format!("cannot write {}: {error}", path.display()),
        "choose a file in a directory that this user can write to",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_left_out_of_the_configuration() {
        let mut values: Value = toml::from_str(
            "port = 4369\ncookie_file = \"/etc/cookie\"\ndiscovery = [\"broadcast\", \"exec:find --token hush\"]\n\
             [metadata]\napi_token = \"hush\"\nzone = \"north\"\npasswords = [\"hush\", 7]",
        )
        .expect("valid TOML");
        redact("", &mut values);
        let text = toml::to_string(&values).expect("it was TOML before");
        assert!(!text.contains("hush") && !text.contains('7'), "{text}");
        for kept in ["4369", "/etc/cookie", "broadcast", "exec:find", "north"] {
            assert!(text.contains(kept), "{kept}: {text}");
        }
    }
}
