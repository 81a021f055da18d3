//! `pmd top` on a terminal.

use rustix::process::Signal;

use crate::support::Home;
use crate::terminal::Terminal;

fn top(home: &Home, columns: u16, lines: u16) -> Terminal {
    let mut terminal = Terminal::run(&home.command(&["top"]), columns, lines);
    terminal.wait_for("q quit");
    terminal
}

#[test]
fn later_registrations_are_shown_and_the_terminal_is_restored() {
    let (home, _daemon) = Home::started();
    let mut top = top(&home, 80, 24);
    top.wait_for("live, up");
    top.wait_for("(this one)");
    assert!(top.text().contains("0 names, 0 services"), "{}", top.text());
    top.type_keys("2");
    top.wait_for("[2 Names (0)]");
    let _node = home.node("late-comer", 4001);
    top.wait_for("late-comer");
    assert!(top.text().contains("4001"), "{}", top.text());
    let _hostile = home.node("evil\u{1b}[2J\u{9b}m", 4002);
    top.wait_for("evil\\u{1b}[2J\\u{9b}m");
    top.type_keys("/COMER");
    top.wait_until("only what is searched for", |screen| {
        screen.contains("late-comer") && !screen.contains("evil")
    });
    // The letter is part of the filter text and does not quit.
    top.type_keys("q");
    top.wait_for("[2 Names (0)]");
    top.type_keys("\r\x7f4");
    top.wait_for("[4 Events (0)]");
    top.type_keys("/\r");
    top.wait_for("name_up");
    top.type_keys("q");
    top.ends_in_order();
}

#[test]
fn a_small_terminal_resizing_and_a_signal_are_handled() {
    let (home, _daemon) = Home::started();
    let _node = home.node("tiny", 4001);
    let mut top = top(&home, 40, 10);
    top.wait_for("live");
    for (columns, lines) in [(1, 1), (200, 60), (7, 3), (40, 10)] {
        top.resize(columns, lines);
        top.type_keys("2sjkrG1234");
    }
    // crossterm reads a key that arrives together with a resize only when another key follows.
    top.wait_for("1 name, 0 services");
    top.type_keys("2");
    top.wait_for("tiny");
    top.program.signal(Signal::TERM);
    top.ends_in_order();
}

#[test]
fn it_reconnects_after_a_daemon_restart() {
    let (home, mut daemon) = Home::started();
    let mut top = top(&home, 80, 24);
    top.wait_for("live, up");
    daemon.kill();
    top.wait_for("NOT REACHABLE");
    let _daemon = home.daemon(&[]);
    top.wait_for("the daemon is back");
    top.wait_for("live, up");
    top.type_keys("\x03");
    top.ends_in_order();
}

#[test]
fn it_exits_when_the_terminal_closes() {
    let (home, _daemon) = Home::started();
    let mut program = top(&home, 80, 24).hang_up();
    assert_eq!(program.wait(crate::harness::PATIENCE).code(), Some(0));
}

#[test]
fn without_a_terminal_or_daemon_it_prints_a_hint() {
    let home = Home::new();
    assert_eq!(
        home.complains(&["top"]),
        (
            2,
            "error: pmd top requires a terminal\nhint: use `pmd nodes --watch` for a stream of JSON lines, \
             or `pmd status --json` for counters\n"
                .to_owned()
        )
    );
    let mut alone = Terminal::run(&home.command(&["top"]), 80, 24);
    assert_eq!(alone.program.wait(crate::harness::PATIENCE).code(), Some(3));
}
