//! Tests of the view, drawn on in-memory terminals.

use std::time::Duration;

use insta::assert_snapshot;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Color;

use super::draw::draw;
use super::model::{Key, Next, View};
use super::pane::Pane;
use super::world::{self, Entry, Lists, State, Update};
use crate::control::api::{Event, Node, NodeState, Path, Peer};
use crate::control::json::timestamp;

const NOW: u64 = 1_700_000_000_000;

fn id(number: usize) -> String {
    format!("{number:064x}")
}

fn member(number: usize) -> Node {
    Node {
        id: id(number),
        host: format!("host{number:04}"),
        oneself: number == 0,
        state: if number == 2 { NodeState::Suspect } else { NodeState::Alive },
        addresses: vec![format!("10.0.{}.{}:4369", number / 250, number % 250).parse().expect("an address")],
        version: "0.1.0".into(),
        metadata: std::collections::BTreeMap::default(),
        names: 1,
        services: 0,
        started_at: timestamp(NOW),
    }
}

fn name(number: usize, name: &str) -> (world::Key, Entry) {
    let port = 4000 + u16::try_from(number % 1000).expect("a port");
    let host = format!("host{number:04}");
    let key = world::Key { host, name: name.into(), service: false, node_id: id(number) };
    (key, Entry { port, since: timestamp(NOW - 90_000) })
}

fn link(number: usize, rtt_us: Option<u64>) -> Peer {
    Peer {
        id: id(number),
        host: format!("host{number:04}"),
        address: "10.0.0.1:4369".parse().expect("an address"),
        path: Path::Direct,
        dialled: true,
        up_seconds: 61,
        rtt_us,
        clock_ahead_ms: Some(0),
        phi: 0.25,
        heard_ms: 940,
        received_bytes: 1_500,
        sent_bytes: 10,
        agrees: true,
    }
}

fn event(seq: u64, kind: &str, number: usize, name: &str) -> Update {
    Update::Event(Event {
        seq,
        at: timestamp(NOW),
        kind: kind.into(),
        name: name.into(),
        port: Some(4321),
        host: format!("host{number:04}"),
        node_id: Some(id(number)),
        reason: None,
    })
}

fn view(members: usize) -> View {
    let mut view = View::new(true, timestamp(NOW));
    let lists = Lists {
        members: (0..members).map(member).collect(),
        entries: (0..members).map(|number| name(number, "rabbit")).collect(),
        links: vec![link(1, Some(250)), link(2, None)],
    };
    view.update(Update::Lists(Box::new(lists)));
    view
}

fn drawn(view: &mut View, columns: u16, lines: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(columns, lines)).expect("memory");
    terminal.draw(|frame| draw(frame, view)).expect("memory takes it");
    let text = terminal.backend().to_string();
    text.lines().map(|line| line.trim_matches('"').trim_end()).collect::<Vec<_>>().join("\n")
}

fn keys(view: &mut View, keys: &str) {
    for letter in keys.chars() {
        assert_eq!(view.key(Key::Char(letter)), Next::Stay, "{letter}");
    }
}

#[test]
fn members_are_shown_with_their_links() {
    assert_snapshot!(drawn(&mut view(3), 90, 9), @r"
    live


    [1 Members (3)] 2 Names  3 Links  4 Events
    HOST^                       STATE    NAMES  RTT       PHI    PATH    ADDRESS
    host0000 (this one)         alive    1                       -       10.0.0.0:4369
    host0001                    alive    1      0.25 ms   0.2    direct  10.0.0.1:4369
    host0002                    suspect  1                0.2    direct  10.0.0.2:4369
    q quit  / search  s sort  r reverse  1-4 panes  jk PgUp PgDn move
    ");
}

#[test]
fn a_narrow_terminal_omits_columns() {
    assert_snapshot!(drawn(&mut view(3), 40, 10), @r"
    live


    [1 Members (3)] 2 Names  3 Links  4 Even
    HOST^                     STATE    NAMES
    host0000 (this one)       alive    1
    host0001                  alive    1
    host0002                  suspect  1

    q quit  / search  s sort  r reverse  1-4
    ");
}

#[test]
fn tiny_terminals_and_large_clusters_are_drawn() {
    let mut view = view(1000);
    for pane in ['1', '2', '3', '4'] {
        keys(&mut view, &pane.to_string());
        for (columns, lines) in [(1, 1), (2, 2), (5, 3), (40, 10), (80, 24), (300, 100)] {
            for key in [Key::End, Key::PageUp, Key::PageDown, Key::Home, Key::Up, Key::Down] {
                view.key(key);
                drawn(&mut view, columns, lines);
            }
        }
    }
    keys(&mut view, "1");
    view.key(Key::End);
    let text = drawn(&mut view, 80, 24);
    assert!(text.contains("host0999") && text.contains("[1 Members (1000)]"), "{text}");
    view.key(Key::PageUp);
    view.key(Key::Home);
    assert!(drawn(&mut view, 80, 24).contains("host0000"));
}

#[test]
fn events_are_shown_at_once() {
    let mut view = view(3);
    view.update(event(1, "name_up", 1, "late"));
    view.update(event(2, "name_down", 1, "rabbit"));
    view.update(event(3, "node_down", 2, ""));
    assert_eq!((view.world.count(State::Alive), view.world.count(State::Down)), (2, 1));
    let names: Vec<&str> = view.world.entries.keys().map(|key| key.name.as_str()).collect();
    assert_eq!(names, ["rabbit", "late"], "the names of a host that is down are gone");
    // A member that is no longer listed is still shown.
    view.update(Update::Members(vec![member(0), member(1)]));
    assert_eq!(view.world.count(State::Down), 1);
    view.update(Update::Members((0..3).map(member).collect()));
    assert_eq!((view.world.count(State::Down), view.world.count(State::Suspect)), (0, 1));
    keys(&mut view, "4");
    let text = drawn(&mut view, 80, 12);
    assert!(text.find("node_down") < text.find("name_up"), "the latest first\n{text}");
    // Events of the answering daemon have no id; its lists do.
    let Update::Event(mut here) = event(4, "name_down", 0, "rabbit") else { panic!("it is an event") };
    here.node_id = None;
    assert_eq!(view.world.entries_by_member().get(id(0).as_str()), Some(&1));
    view.update(Update::Event(here));
    assert_eq!(view.world.entries_by_member().get(id(0).as_str()), None);
    for seq in 5..5000 {
        view.update(event(seq, "name_up", 1, "again"));
    }
    assert!(view.world.events.len() <= 1000);
}

#[test]
fn a_search_filters_rows_and_esc_clears_it_before_it_quits() {
    let mut view = view(30);
    keys(&mut view, "1/HOST002");
    assert!(drawn(&mut view, 80, 24).contains("[1 Members (10)]"));
    // While a search is typed, letters are not commands.
    keys(&mut view, "q");
    assert!(drawn(&mut view, 80, 24).contains("(0)"));
    view.key(Key::Backspace);
    view.key(Key::Enter);
    assert_eq!(view.key(Key::Esc), Next::Stay);
    assert!(drawn(&mut view, 80, 24).contains("(30)"));
    assert_eq!(view.key(Key::Esc), Next::End);
    assert_eq!(view.key(Key::Char('q')), Next::End);
    keys(&mut view, "/");
    assert_eq!(view.key(Key::Interrupt), Next::End);
}

#[test]
fn rows_are_sorted_with_unknown_values_last() {
    let mut view = view(3);
    let first = |view: &mut View| {
        let text = drawn(view, 90, 9);
        text.lines().nth(5).and_then(|line| line.split_whitespace().next()).unwrap_or_default().to_owned()
    };
    assert_eq!(first(&mut view), "host0000");
    keys(&mut view, "r");
    assert_eq!(first(&mut view), "host0002");
    keys(&mut view, "rsss");
    assert_eq!(first(&mut view), "host0001", "the only one with a round-trip time");
    keys(&mut view, "r");
    assert_eq!(first(&mut view), "host0001");
}

#[test]
fn control_characters_do_not_reach_the_terminal() {
    let mut view = view(2);
    view.update(event(1, "name_up", 1, "evil\u{1b}[2J\u{202e}\nname"));
    view.update(Update::Lost("\u{1b}]0;title\u{7}".into()));
    view.update(Update::Notice("\u{9b}2J".into()));
    for pane in ["1", "2", "3", "4"] {
        view.pane = Pane::default();
        view.world.notice = Some("\u{9b}2J".into());
        keys(&mut view, pane);
        let mut terminal = Terminal::new(TestBackend::new(80, 12)).expect("memory");
        terminal.draw(|frame| draw(frame, &mut view)).expect("memory takes it");
        for cell in terminal.backend().buffer().content() {
            assert!(!cell.symbol().chars().any(|c| c.is_control() || c == '\u{202e}'), "{:?}", cell.symbol());
        }
    }
    keys(&mut view, "2");
    assert!(drawn(&mut view, 80, 12).contains("evil\\u{1b}[2J"));
}

#[test]
fn colours_can_be_turned_off() {
    let colours = |colour: bool| {
        let mut view = view(3);
        view.colour = colour;
        let mut terminal = Terminal::new(TestBackend::new(80, 12)).expect("memory");
        terminal.draw(|frame| draw(frame, &mut view)).expect("memory takes it");
        let cells = terminal.backend().buffer().content();
        cells.iter().filter(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset).count()
    };
    assert!(colours(true) > 0);
    assert_eq!(colours(false), 0);
}

#[test]
fn rates_need_two_statuses_of_one_daemon() {
    let status = |boot: &str, lookups: u64| -> Update {
        let mut status: crate::control::api::Status = serde_json::from_value(serde_json::json!({
            "version": "0.1.0", "pid": 1, "boot_id": boot, "host": "host0000", "port": 4369, "listening": [],
            "socket": "/s", "started_at": "2023-11-14T22:13:20.000Z", "uptime_seconds": 9,
            "relaxed_command_check": false, "metadata": {}, "warnings": [],
            "names": {"registered": 1, "adopted": 0, "old": 0, "limit": 9},
            "services": {"registered": 0, "limit": 9},
            "descriptors": {"limit": 9, "registered": 1, "waiting": 0, "refused": 0},
            "counters": crate::base::stats::Counters::default().read(),
        }))
        .expect("a status");
        status.counters.epmd.lookups_found = lookups;
        Update::Status(Box::new(status), Duration::from_secs(2))
    };
    let mut view = view(1);
    view.update(status("a", 10));
    assert_eq!(view.world.rates, None);
    view.update(status("a", 30));
    assert!(drawn(&mut view, 80, 12).contains("1 name, 0 services, lookups 10.0/s, registrations 0.0/s"));
    view.update(status("b", 1));
    assert_eq!(view.world.rates, None, "counters start over");
    view.update(Update::Lost("it has stopped".into()));
    assert!(drawn(&mut view, 80, 12).starts_with("NOT REACHABLE, waiting: it has stopped"));
}
