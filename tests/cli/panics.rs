//! A panic in any thread ends the daemon with a message and an exit code, so that a service manager restarts it. The
//! panics are injected: debug builds read `PMD_PLANT_PANIC`.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::harness::PATIENCE;
use crate::harness::program::Program;
use crate::support::Home;

/// Starts a daemon with a panic planted in a thread, triggers it with `provoke`, and checks how the daemon ends.
fn ends_with_a_message(thread: &str, said: &str, provoke: impl FnOnce(&Home)) {
    let home = Home::new();
    let mut command = home.command(&["start", "--foreground"]);
    command.env("PMD_PLANT_PANIC", thread);
    let mut daemon = Program::spawn(command);
    home.wait_for(&mut daemon);
    provoke(&home);
    assert_eq!(daemon.wait(PATIENCE).code(), Some(1), "{thread}: {}", daemon.stderr());
    let log = daemon.stderr();
    assert!(log.contains(said) && log.contains("cannot continue without it"), "{thread}: {log}");
}

#[test]
fn a_panic_in_a_shard_ends_the_daemon() {
    ends_with_a_message("epmd", "the thread epmd has ended (it panicked)", |home| {
        let mut client = TcpStream::connect(("127.0.0.1", home.port)).expect("it listens");
        client.write_all(b"\0\x01n").expect("a request");
    });
}

#[test]
fn a_panic_in_the_holder_check_ends_the_daemon() {
    ends_with_a_message("holder-check", "the thread holder-check has ended (it panicked)", |home| {
        let _node = home.node("twice", 5000);
        let mut second = TcpStream::connect(("127.0.0.1", home.port)).expect("it listens");
        second.write_all(b"\0\x12x\x13\x88M\0\0\x06\0\x05\0\x05twice\0\0").expect("a request");
        // Stays connected until the daemon has exited, because closed connections are not checked.
        let _ = second.read(&mut [0]);
    });
}

#[test]
fn a_panic_in_the_core_ends_the_daemon() {
    ends_with_a_message("core", "planted by PMD_PLANT_PANIC", |home| {
        let _node = home.node("any", 5000);
    });
}
