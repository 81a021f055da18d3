//! Queries on processes: which sockets they have open, and whether they are running.

use std::collections::BTreeSet;
use std::{fs, io};

/// The processes that have one of these sockets open, as far as this user can see.
pub fn holders(inodes: &BTreeSet<u64>) -> Vec<i32> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| !inodes.is_empty() && holds(*pid, inodes))
        .collect()
}

/// Whether this process has one of these sockets open.
///
/// # Errors
///
/// If its descriptors cannot be listed.
pub fn holds_itself(inodes: &BTreeSet<u64>) -> io::Result<bool> {
    Ok(holds_in(fs::read_dir("/proc/self/fd")?, inodes))
}

/// Whether a process is stopped or a zombie.
pub fn is_frozen(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the command's name, which is in parentheses and may itself contain parentheses.
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    matches!(state, Some('T' | 't' | 'Z' | 'X'))
}

fn holds(pid: i32, inodes: &BTreeSet<u64>) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    holds_in(descriptors, inodes)
}

fn holds_in(mut descriptors: fs::ReadDir, inodes: &BTreeSet<u64>) -> bool {
    let mut targets = descriptors.by_ref().filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    targets.any(|target| {
        let inode = target.to_str().and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']'));
        inode.and_then(|inode| inode.parse().ok()).is_some_and(|inode: u64| inodes.contains(&inode))
    })
}
