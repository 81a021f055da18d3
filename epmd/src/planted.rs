//! Panics on request, in debug builds only, so that tests can check the effect of a bug in a thread.

/// Panics if the environment variable `PMD_PLANT_PANIC` names this thread. Does nothing in release builds.
#[expect(clippy::panic, reason = "its purpose is to panic")]
pub fn panic_if_planted(thread: &str) {
    if cfg!(debug_assertions) && std::env::var("PMD_PLANT_PANIC").is_ok_and(|planted| planted == thread) {
        std::panic::panic_any("planted by PMD_PLANT_PANIC");
    }
}
