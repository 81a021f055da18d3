//! The main loop of the view: handles keys and updates, and draws frames.

use std::io;
use std::time::Duration;

use jiff::Timestamp;
use ratatui::Terminal;
use ratatui::backend::Backend;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::draw::draw;
use super::feed::feed;
use super::model::{Next, View};
use super::terminal::{Screen, inputs};
use super::world::Update;
use crate::control::client::Client;

/// Queued updates, enough for a burst of registrations. If the queue is full, the daemon keeps the events.
const UPDATES: usize = 1024;
/// The minimum time between two frames, so that a flood of events does not become a flood of frames.
const FRAME: Duration = Duration::from_millis(50);
/// How often a frame is drawn without updates, because ages are shown.
const SECOND: Duration = Duration::from_secs(1);

/// Shows the daemon until the user quits or the terminal is closed. `more` carries additional updates from the caller.
///
/// The caller drops the future on a signal, which also restores the terminal.
///
/// # Errors
///
/// If the terminal cannot be drawn on.
pub async fn show(client: Client, colour: bool, mut more: Receiver<Update>) -> io::Result<()> {
    let (to, mut updates) = channel(UPDATES);
    // Ends when `updates` is dropped.
    tokio::spawn(feed(client, to));
    let mut screen = Screen::take()?;
    let mut inputs = inputs()?;
    // crossterm reports a resize late if a key arrives together with it.
    let mut resized = signal(SignalKind::window_change())?;
    let mut view = View::new(colour, Timestamp::now());
    let mut seconds = interval(SECOND);
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut more_to_come = true;
    let mut drawn = Instant::now();
    let mut due = Some(drawn);
    loop {
        let frame = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = frame => {
                view.now = Timestamp::now();
                screen.terminal.draw(|frame| draw(frame, &mut view))?;
                drawn = Instant::now();
                due = None;
                continue;
            }
            input = inputs.recv() => match input {
                None => return Ok(()),
                Some(key) => {
                    if view.key(key) == Next::End {
                        return Ok(());
                    }
                }
            },
            _ = resized.recv() => redraw(&mut screen.terminal)?,
            Some(update) = updates.recv() => {
                view.update(update);
                // Other pending updates go into the same frame.
                for _ in 0..UPDATES {
                    let Ok(update) = updates.try_recv() else { break };
                    view.update(update);
                }
            }
            update = more.recv(), if more_to_come => match update {
                Some(update) => view.update(update),
                None => more_to_come = false,
            },
            _ = seconds.tick() => {}
        }
        due = due.or(Some(drawn + FRAME));
    }
}

/// Redraws everything in the next frame, even if the size seems unchanged: it may have changed twice.
fn redraw<B: Backend>(terminal: &mut Terminal<B>) -> Result<(), B::Error> {
    // `Terminal::clear` would query the cursor position and wait for the response.
    terminal.backend_mut().clear()?;
    terminal.swap_buffers();
    Ok(())
}
