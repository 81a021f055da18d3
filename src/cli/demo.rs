//! `pmd demo`: a small cluster on one host.

use std::io::{self, Read, Write};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::mpsc::{Sender, channel};
use tokio::sync::oneshot;

use super::args::{Demo, Format};
use super::common::output::stdout;
use super::common::runtime::block_on_uninterrupted;
use super::common::signals::Signals;
use super::common::{Column, Exit, Failure, Output, Result, Table, note, with_progress};
use crate::demo::fleet::{DemoError, Fleet};
use crate::top::run::show;
use crate::top::terminal::is_interactive;
use crate::top::world::Update;

/// Interval between checks of the children.
const POLL: Duration = Duration::from_millis(500);
/// The capacity of the queue of notices for the view.
const NOTICES: usize = 8;

/// One daemon of the demo.
#[derive(Debug, Serialize)]
struct Row {
    host: String,
    port: u16,
    home: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
}

impl From<DemoError> for Failure {
    fn from(error: DemoError) -> Failure {
        let (exit, hint) = match &error {
            DemoError::Late(_) => {
                (Exit::TimedOut, "check whether the host is overloaded, or try fewer daemons")
            }
            _ => (Exit::General, "check that TMPDIR is writable and has a short path, and try again"),
        };
        Failure::new(exit, error.to_string(), hint)
    }
}

/// Runs a small cluster until a key, a signal, or the end of input on a pipe.
pub fn run(args: Demo, output: Output) -> Result<Exit> {
    block_on_uninterrupted(async {
        let mut signals = Signals::new()?;
        // When either branch completes, dropping the other one closes the view and then stops the cluster.
        tokio::select! {
            done = demonstrate(args, output) => done,
            _ = signals.next() => Ok(Exit::Done),
        }
    })
}

async fn demonstrate(args: Demo, output: Output) -> Result<Exit> {
    let mut fleet = Fleet::new(args.daemons)?;
    with_progress("starting the daemons", fleet.start()).await?;
    let erlang = !args.no_erlang && fleet.start_nodes().await?;
    if erlang {
        note(&format!(
            "note: your own nodes need the Erlang cookie in {} to connect, as the shell that `sh {}` starts; the cluster \
             secret only admits daemons",
            fleet.erlang_cookie().display(),
            fleet.erlang_shell().display()
        ));
    } else if !args.no_erlang {
        note("note: erl is not in PATH, so the demo has no Erlang nodes");
    }
    if is_interactive() && !output.format.is_json() {
        let Some(first) = fleet.members.first() else { return Ok(Exit::Done) };
        let client = first.client();
        let (to, notices) = channel(NOTICES);
        // Short, because a terminal may have 80 columns.
        let attempt = if erlang {
            format!("Erlang shell: sh {}", fleet.erlang_shell().display())
        } else {
            format!("try: PMD_HOME={} pmd nodes", first.home.display())
        };
        let page = fleet.page().unwrap_or_default();
        let _ = to.try_send(Update::Notice(format!("{page}  {attempt}  q quits")));
        tokio::select! {
            done = show(client, output.has_colour(), notices) => done?,
            () = watch(&mut fleet, Some(&to)) => {}
        }
        return Ok(Exit::Done);
    }
    with_progress("waiting for the Erlang nodes", fleet.nodes_registered()).await?;
    print(&fleet, erlang, output)?;
    tokio::select! {
        () = watch(&mut fleet, None) => {
            Err(Failure::new(Exit::General, "all daemons have stopped", "start the demo again: pmd demo"))
        }
        () = end_of_pipe() => Ok(Exit::Done),
    }
}

fn print(fleet: &Fleet, erlang: bool, output: Output) -> Result<()> {
    let rows: Vec<Row> = fleet
        .members
        .iter()
        .map(|member| Row {
            host: member.host.clone(),
            port: member.port,
            home: member.home.display().to_string(),
            node: erlang.then(|| member.node()),
        })
        .collect();
    if matches!(output.format, Format::Table | Format::Wide) {
        // Commands to try are more useful than a table.
        let mut out = stdout();
        for (row, words) in rows.iter().zip(TRY.iter().cycle()) {
            writeln!(out, "{:<6}  PMD_HOME={} pmd {words}", row.host, row.home)?;
        }
        if erlang && let Some(last) = fleet.members.last() {
            let (shell, node) = (fleet.erlang_shell(), last.node());
            writeln!(out, "{:<6}  sh {}   # then: net_adm:ping('{node}').", "erlang", shell.display())?;
        }
        if let Some(page) = fleet.page() {
            writeln!(out, "{:<6}  {page}", "page")?;
        }
        return Ok(out.flush()?);
    }
    let table = Table {
        columns: &[
            Column::new("HOST", |row: &Row| row.host.clone()),
            Column::new("PORT", |row| row.port.to_string()),
            Column::new("HOME", |row| row.home.clone()),
            Column::new("NODE", |row| row.node.clone().unwrap_or_default()),
        ],
        colour: |_| None,
        empty: String::new(),
    };
    output.list(&serde_json::json!({ "daemons": rows }), &rows, &table)
}

/// Commands to try, a different one on each daemon.
const TRY: [&str; 4] = ["nodes", "names --cluster", "peers", "top"];

/// Reports children that have exited; returns when no daemon is left.
async fn watch(fleet: &mut Fleet, to: Option<&Sender<Update>>) {
    while fleet.is_alive() {
        tokio::time::sleep(POLL).await;
        for text in fleet.ended() {
            match to {
                // Fails only if the view has closed and the demo is about to end.
                Some(to) => drop(to.send(Update::Notice(text)).await),
                None => note(&format!("note: {text}")),
            }
        }
    }
}

/// Waits for the end of standard input if it is a pipe, which means that the other end was closed.
async fn end_of_pipe() {
    let (ended, end) = oneshot::channel();
    let reader = std::thread::Builder::new().name("stdin".into());
    let started = is_pipe()
        && reader
            .spawn(move || {
                let mut buffer = [0; 256];
                let mut stdin = io::stdin().lock();
                while stdin.read(&mut buffer).is_ok_and(|length| length > 0) {}
                let _ = ended.send(());
            })
            .is_ok();
    if started {
        let _ = end.await;
    } else {
        std::future::pending::<()>().await;
    }
}

fn is_pipe() -> bool {
    use rustix::fs::FileType;
    rustix::fs::fstat(rustix::stdio::stdin()).is_ok_and(|found| {
        matches!(FileType::from_raw_mode(found.st_mode), FileType::Fifo | FileType::Socket)
    })
}
