//! `pmd demo`.

use std::io::{self, Read, Write};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::mpsc::{Sender, channel};
use tokio::sync::oneshot;

use super::args::Demo;
use super::common::exit::Exit;
use super::common::failure::{Failure, Result};
use super::common::output::{Format, List, Output, note, stdout};
use super::common::runtime::{block_on_uninterrupted, with_progress};
use super::top::is_terminal;
use crate::demo::fleet::{DemoError, Fleet};
use crate::top::run::{Ends, show};
use crate::top::world::Update;

/// How often is looked whether a child has ended.
const LOOK: Duration = Duration::from_millis(500);
/// Notices that wait to be shown; the watch waits beyond that.
const NOTICES: usize = 8;

/// One daemon, for whoever wants to try something with it.
#[derive(Debug, Serialize)]
struct Row {
    host: String,
    port: u16,
    home: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
}

impl Row {
    fn cells(&self) -> Vec<String> {
        let node = self.node.clone().unwrap_or_default();
        vec![self.host.clone(), self.port.to_string(), self.home.clone(), node]
    }
}

impl From<DemoError> for Failure {
    fn from(error: DemoError) -> Failure {
        let (exit, hint) = match &error {
            DemoError::Late(_) => {
                (Exit::TimedOut, "see whether the host is overloaded, or try fewer daemons")
            }
            _ => (Exit::General, "see whether TMPDIR can be written to and has a short name, and try again"),
        };
        Failure::new(exit, error.to_string(), hint)
    }
}

/// Runs a small cluster until a key, a signal, or the end of a pipe.
pub fn run(args: Demo, output: Output) -> Result<Exit> {
    block_on_uninterrupted(async {
        let mut ends = Ends::new()?;
        // Whichever comes first, the rest is dropped: the view and then the cluster.
        tokio::select! {
            done = demonstrate(args, output) => done,
            () = ends.wait() => Ok(Exit::Done),
        }
    })
}

async fn demonstrate(args: Demo, output: Output) -> Result<Exit> {
    let mut fleet = Fleet::new(args.daemons)?;
    with_progress("starting the daemons", fleet.start()).await?;
    let erlang = !args.no_erlang && fleet.start_nodes().await?;
    if !args.no_erlang && !erlang {
        note("note: there is no erl in the path, so there are no Erlang nodes");
    }
    if is_terminal() && !output.format.is_json() {
        let Some(first) = fleet.members.first() else { return Ok(Exit::Done) };
        let client = first.client();
        let (to, notices) = channel(NOTICES);
        let _ = to.try_send(Update::Notice(format!("try: PMD_HOME={} pmd nodes", first.home.display())));
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
            Err(Failure::new(Exit::General, "all daemons have ended", "start it again: pmd demo"))
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
        // What can be typed at once says more than a table.
        let mut out = stdout();
        for (row, words) in rows.iter().zip(TRY.iter().cycle()) {
            writeln!(out, "{:<6}  PMD_HOME={} pmd {words}", row.host, row.home)?;
        }
        return Ok(out.flush()?);
    }
    let list = List { headings: &[], cells: Row::cells, colour: |_| None, empty: String::new() };
    output.list(&serde_json::json!({ "daemons": rows }), &rows, &list)
}

/// What can be tried: something else on each daemon.
const TRY: [&str; 4] = ["nodes", "names --cluster", "peers", "top"];

/// Says what has ended; is done when no daemon is left.
async fn watch(fleet: &mut Fleet, to: Option<&Sender<Update>>) {
    while fleet.is_alive() {
        tokio::time::sleep(LOOK).await;
        for text in fleet.ended() {
            match to {
                // A view that has gone is about to end all of this.
                Some(to) => drop(to.send(Update::Notice(text)).await),
                None => note(&format!("note: {text}")),
            }
        }
    }
}

/// Waits for the end of standard input if it is a pipe, whose other end may mean that nobody is there any more.
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
