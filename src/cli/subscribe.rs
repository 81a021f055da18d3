//! `pmd subscribe`: the event stream.

use std::io::{self, Write};
use std::time::Duration;

use serde_json::Value;

use super::args::{self, Format};
use super::common::output::{json, stdout};
use super::common::{Exit, Output, Result, Target, block_on, explain, note};
use crate::base::text::{printable, short};
use crate::control::api::{Event, Gap, GapReason, Hello};
use crate::control::client::{Client, ClientError, Events, Message};
use crate::control::json::rfc3339;

/// The width of the kind column; the longest kind has 12 letters.
const KIND: usize = 12;
/// The width of the subject column. Longer subjects shift the rest of their line, as later lines are not known.
const SUBJECT: usize = 24;
/// The width of the port column.
const PORT: usize = 5;
/// Pause between attempts to reconnect to the daemon.
const RETRY: Duration = Duration::from_millis(250);

/// Prints events until interrupted or until the reader closes standard output.
pub fn run(target: &Target, args: &args::Subscribe, output: Output) -> Result<Exit> {
    block_on(async {
        let client = target.client();
        let mut position = Position { since: args.since, boot: None };
        let mut events = explain(target, position.resume(&client, &args.kind).await).await?;
        loop {
            match events.next().await {
                Ok(Some(message)) => handle(&message, &mut position, output)?,
                Ok(None) | Err(ClientError::Lost(_)) => {
                    note("note: the daemon has stopped; waiting for it to come back");
                    events = reconnect(&client, &position, &args.kind).await?;
                    note("note: the daemon is back");
                }
                Err(error) => return Err(error.into()),
            }
        }
    })
}

/// The last event read, and the run of the daemon it belongs to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Position {
    since: Option<u64>,
    boot: Option<String>,
}

impl Position {
    async fn resume(&self, client: &Client, kinds: &[String]) -> std::result::Result<Events, ClientError> {
        client.events(self.since, self.boot.as_deref(), kinds).await
    }
}

async fn reconnect(client: &Client, position: &Position, kinds: &[String]) -> Result<Events> {
    loop {
        tokio::time::sleep(RETRY).await;
        match position.resume(client, kinds).await {
            Ok(events) => return Ok(events),
            Err(error) if error.is_absence() => {}
            // The daemon is shutting down.
            Err(ClientError::Api { status: 503, .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn handle(message: &Message, position: &mut Position, output: Output) -> Result<()> {
    match message.event.as_str() {
        "hello" => {
            if let Ok(hello) = serde_json::from_str::<Hello>(&message.data) {
                // From here on, missed events can be fetched after a reconnect.
                position.since = position.since.or(Some(hello.last));
                position.boot = Some(hello.boot_id);
            }
        }
        "gap" => {
            let gap = serde_json::from_str::<Gap>(&message.data).ok();
            if gap.as_ref().is_some_and(|gap| gap.reason == GapReason::Restarted) {
                position.since = Some(0);
            }
            print_gap(message, gap.as_ref(), output)?;
        }
        // Keep-alive messages have no event name.
        "" => {}
        _ => print_event(message, output)?,
    }
    position.since = message.id.or(position.since);
    Ok(())
}

fn print_gap(message: &Message, gap: Option<&Gap>, output: Output) -> Result<()> {
    if output.format.is_json() {
        return print_json(message);
    }
    note(&match gap {
        Some(Gap { reason: GapReason::Restarted, .. }) => {
            "note: the daemon was restarted; events in between are unknown".to_owned()
        }
        Some(Gap { missed: Some(missed), .. }) => {
            format!("note: {missed} events are missing: the daemon no longer has them")
        }
        _ => "note: events are missing".to_owned(),
    });
    Ok(())
}

fn print_event(message: &Message, output: Output) -> Result<()> {
    if output.format.is_json() {
        return print_json(message);
    }
    let Ok(event) = serde_json::from_str::<Event>(&message.data) else {
        note(&format!("note: unknown event, from a later version of pmd: {}", printable(&message.data)));
        return Ok(());
    };
    let mut out = stdout();
    write_event(&mut out, &event, output.format)?;
    Ok(out.flush()?)
}

fn write_event(out: &mut impl Write, event: &Event, format: Format) -> io::Result<()> {
    let (at, name, host) = (rfc3339(event.at), printable(&event.name), printable(&event.host));
    let reason = event.reason.as_deref().map(printable).unwrap_or_default();
    let port = event.port.map(|port| port.to_string()).unwrap_or_default();
    if format == Format::Plain {
        let id = event.node_id.as_deref().map(printable).unwrap_or_default();
        let (seq, kind) = (event.seq, printable(&event.kind));
        return writeln!(out, "{seq}\t{at}\t{kind}\t{name}\t{port}\t{reason}\t{host}\t{id}");
    }
    // Events about daemons have only a host.
    let subject = match event.kind.starts_with("node_") {
        true if host.is_empty() => short(event.node_id.as_deref().unwrap_or("?")).to_owned(),
        true => host.into_owned(),
        false => format!("{name}@{host}"),
    };
    let number = if format == Format::Wide { format!("{:>8}  ", event.seq) } else { String::new() };
    let line = format!(
        "{number}{at}  {:<KIND$}  {subject:<SUBJECT$}  {port:>PORT$}  {reason}",
        printable(&event.kind)
    );
    writeln!(out, "{}", line.trim_end())
}

/// Prints the event as received, including fields of later versions, and its kind.
fn print_json(message: &Message) -> Result<()> {
    let mut data: Value = serde_json::from_str(&message.data).unwrap_or_default();
    if let Some(fields) = data.as_object_mut() {
        fields.entry("kind").or_insert_with(|| Value::String(message.event.clone()));
    }
    let mut out = stdout();
    json(&mut out, &data, false)?;
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handled(position: &mut Position, id: Option<u64>, event: &str, data: &str) {
        let message = Message { id, event: event.to_owned(), data: data.to_owned() };
        let output = Output::new(Format::Table, false);
        handle(&message, position, output).expect("standard output is open");
    }

    #[test]
    fn the_position_is_known_from_the_first_message() {
        let mut position = Position::default();
        handled(&mut position, None, "hello", r#"{"boot_id":"a","last":7}"#);
        assert_eq!(position, Position { since: Some(7), boot: Some("a".into()) });
        handled(&mut position, Some(9), "", "");
        assert_eq!(position.since, Some(9));
    }

    fn line(format: Format, kind: &str, name: &str, host: &str) -> String {
        let of_node = kind.starts_with("node_");
        let event = Event {
            seq: 42,
            at: crate::control::json::timestamp(1_700_000_000_042),
            kind: kind.into(),
            name: name.into(),
            port: (!of_node).then_some(25672),
            host: host.into(),
            node_id: of_node.then(|| "0123456789abcdef".repeat(4)),
            reason: kind.ends_with("_down").then(|| "closed".into()),
        };
        let mut out = Vec::new();
        write_event(&mut out, &event, format).expect("in-memory write");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn events_are_lines_with_aligned_columns() {
        let lines = [
            line(Format::Table, "name_up", "rabbit", "host1"),
            line(Format::Table, "service_down", "web", "host2"),
            line(Format::Table, "node_suspect", "host2", "host2"),
            line(Format::Table, "node_down", "", ""),
            line(Format::Table, "name_down", "a-name-of-some-length", "host1.example.org"),
            line(Format::Wide, "node_left", "ho\u{1b}st2", "ho\u{1b}st2"),
        ];
        insta::assert_snapshot!(lines.concat(), @r"
        2023-11-14T22:13:20.042Z  name_up       rabbit@host1              25672
        2023-11-14T22:13:20.042Z  service_down  web@host2                 25672  closed
        2023-11-14T22:13:20.042Z  node_suspect  host2
        2023-11-14T22:13:20.042Z  node_down     0123456789abcdef                 closed
        2023-11-14T22:13:20.042Z  name_down     a-name-of-some-length@host1.example.org  25672  closed
              42  2023-11-14T22:13:20.042Z  node_left     ho\u{1b}st2
        ");
    }

    #[test]
    fn plain_events_have_eight_fields() {
        let lines = [
            line(Format::Plain, "name_down", "rabbit", "host1"),
            line(Format::Plain, "node_up", "host2", "host2"),
        ];
        for line in &lines {
            assert_eq!(line.split('\t').count(), 8, "{line}");
        }
        insta::assert_snapshot!(lines.concat().replace('\t', "|"), @r"
        42|2023-11-14T22:13:20.042Z|name_down|rabbit|25672|closed|host1|
        42|2023-11-14T22:13:20.042Z|node_up|host2|||host2|0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
        ");
    }

    #[test]
    fn after_a_restart_the_numbers_start_over() {
        let mut position = Position { since: Some(100), boot: Some("a".into()) };
        handled(&mut position, None, "hello", r#"{"boot_id":"b","last":3}"#);
        handled(&mut position, None, "gap", r#"{"reason":"restarted"}"#);
        assert_eq!(position, Position { since: Some(0), boot: Some("b".into()) });
    }
}
