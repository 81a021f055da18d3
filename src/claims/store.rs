//! The file of a voter: records that are appended, each with a checksum, and made durable before a frame leaves.
//!
//! ```text
//!   "pmdclm2\n"  inode (u64)  birth (u64)  boot (u64)
//!       { length (u32)  first 4 bytes of its SHA-256  record  first 8 bytes of the SHA-256 of all }*
//! ```
//!
//! A last record whose end is missing was never durable, so nobody has been told of it, and it is cut off. Everything else
//! that is not as it was written ends in an error. The file is written anew at each start of the daemon, and the number
//! of its inode and the time of its creation are part of it: a copy, such as a backup, has others, and must not vote,
//! because it has forgotten what was promised after it was made. So is the boot of the host at which it was written:
//! after another one, the disk may have been reset to an older state.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use pmd_core::claims::store::{Record, Stored};
use pmd_protocol::limits::MAX_CLAIMS_FRAME;
use sha2::{Digest, Sha256};

use crate::base::files::SECRET;

const MAGIC: &[u8; 8] = b"pmdclm2\n";
/// A length and its checksum.
const LENGTH: usize = 8;
const CHECKSUM: usize = 8;
/// The file is written anew when it is longer than this, and then holds one record of at most [`MAX_CLAIMS_FRAME`] bytes.
const COMPACT_BYTES: u64 = 1024 * 1024;
/// The longest file that is read: one that was about to be written anew.
const MAX_BYTES: u64 = COMPACT_BYTES + 4 * MAX_CLAIMS_FRAME as u64;

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    /// It cannot be read or written.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// It is a copy.
    #[error("{} is a copy of the file that this voter has written, such as a backup, and may be older", .0.display())]
    Copied(PathBuf),
    /// Its content is not what was written.
    #[error("{} is damaged: {reason}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How.
        reason: &'static str,
    },
}

/// The store of a voter.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    file: File,
    bytes: u64,
    stored: Stored,
    boot: u64,
}

impl Store {
    /// Opens the store, or creates one with this number.
    pub(super) fn open(path: &Path, new: u64, boot: u64) -> Result<Store, StoreError> {
        let failed = |source| StoreError::Io { path: path.into(), source };
        let damaged = |reason| StoreError::Damaged { path: path.into(), reason };
        let bytes = match fs::metadata(path) {
            Ok(metadata) if !metadata.is_file() => return Err(damaged("it is not a regular file")),
            Ok(metadata) if metadata.len() > MAX_BYTES => return Err(damaged("it is too long")),
            Ok(_) => fs::read(path).map_err(failed)?,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let stored = Stored::new(new);
                let (file, bytes) = write_new(path, &Record::Created { store: new }, boot).map_err(failed)?;
                return Ok(Store { path: path.into(), file, bytes, stored, boot });
            }
            Err(error) => return Err(failed(error)),
        };
        let file = OpenOptions::new().append(true).open(path).map_err(failed)?;
        let (magic, rest) = bytes.split_at_checked(MAGIC.len()).ok_or(damaged("it is too short"))?;
        let mut rest = rest;
        let mut number = || {
            let (number, after) = rest.split_first_chunk::<8>().ok_or(damaged("it is too short"))?;
            rest = after;
            Ok(u64::from_le_bytes(*number))
        };
        let (inode, birth, boot) = (number()?, number()?, number()?);
        if magic != MAGIC {
            return Err(damaged("it is not the file of a voter"));
        }
        if (inode, birth) != identity(&file).map_err(failed)? {
            return Err(StoreError::Copied(path.into()));
        }
        let mut records = Vec::new();
        while !rest.is_empty() {
            match read(rest) {
                Ok((record, after)) => {
                    records.push(record);
                    rest = after;
                }
                Err(Torn::End) => break,
                Err(Torn::Damaged) => return Err(damaged("a checksum is wrong")),
            }
        }
        let whole = u64::try_from(bytes.len() - rest.len()).unwrap_or(u64::MAX);
        if !rest.is_empty() {
            file.set_len(whole).and_then(|()| file.sync_all()).map_err(failed)?;
        }
        match Stored::replay(records) {
            Ok(Some(stored)) => Ok(Store { path: path.into(), file, bytes: whole, stored, boot }),
            Ok(None) => Err(damaged("its first record is missing")),
            Err(_) => Err(damaged("its records contradict each other")),
        }
    }

    /// What is stored.
    pub(super) fn stored(&self) -> &Stored {
        &self.stored
    }

    /// The boot of the host at which the file was written.
    pub(super) fn boot(&self) -> u64 {
        self.boot
    }

    /// Begins a start of the voter with this record, at this boot of the host, in a file that no earlier copy can replace.
    pub(super) fn start(&mut self, record: Record, boot: u64) -> Result<(), StoreError> {
        self.apply(record)?;
        self.boot = boot;
        self.write_anew()
    }

    fn apply(&mut self, record: Record) -> Result<(), StoreError> {
        let reason = "a record contradicts what was stored before";
        self.stored.apply(record).map_err(|_| StoreError::Damaged { path: self.path.clone(), reason })
    }

    fn write_anew(&mut self) -> Result<(), StoreError> {
        let failed = |source| StoreError::Io { path: self.path.clone(), source };
        let snapshot = Record::Snapshot(Box::new(self.stored.clone()));
        (self.file, self.bytes) = write_new(&self.path, &snapshot, self.boot).map_err(failed)?;
        Ok(())
    }

    /// Appends records and makes them durable.
    pub(super) fn append(&mut self, records: Vec<Record>) -> Result<(), StoreError> {
        let mut bytes = Vec::new();
        for record in &records {
            write(record, &mut bytes);
        }
        let failed = |source| StoreError::Io { path: self.path.clone(), source };
        self.file.write_all(&bytes).and_then(|()| self.file.sync_data()).map_err(failed)?;
        self.bytes += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        for record in records {
            self.apply(record)?;
        }
        if self.bytes > COMPACT_BYTES { self.write_anew() } else { Ok(()) }
    }
}

/// What distinguishes a file from its copies: the number of its inode, and, where the file system has it, the time of its
/// creation in nanoseconds, because the inode of a file that was removed is used again.
fn identity(file: &File) -> io::Result<(u64, u64)> {
    let metadata = file.metadata()?;
    let birth = metadata.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let birth = birth.and_then(|time| u64::try_from(time.as_nanos()).ok());
    Ok((metadata.ino(), birth.unwrap_or(0)))
}

/// Creates or replaces the file, with one record.
fn write_new(path: &Path, record: &Record, boot: u64) -> io::Result<(File, u64)> {
    let beside = path.with_extension("new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().append(true).create_new(true).mode(SECRET).open(&beside)?;
    let mut bytes = MAGIC.to_vec();
    let (inode, birth) = identity(&file)?;
    bytes.extend([inode, birth, boot].iter().flat_map(|number| number.to_le_bytes()));
    write(record, &mut bytes);
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok((file, u64::try_from(bytes.len()).unwrap_or(u64::MAX)))
}

fn write(record: &Record, into: &mut Vec<u8>) {
    let begin = into.len();
    // Plain data always has a form.
    let body = record.encode();
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
    into.extend(length);
    into.extend(Sha256::digest(length).iter().take(LENGTH - length.len()));
    into.extend(&body);
    let checksum = Sha256::digest(into.get(begin..).unwrap_or_default());
    into.extend(checksum.iter().take(CHECKSUM));
}

enum Torn {
    /// The end of the last record is missing.
    End,
    /// A record is not as it was written.
    Damaged,
}

/// Reads the first record.
fn read(bytes: &[u8]) -> Result<(Record, &[u8]), Torn> {
    // After a power failure, a file may be longer than what was written of it, and then ends in zeros.
    let is_unwritten = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    let Some((head, _)) = bytes.split_first_chunk::<LENGTH>() else { return Err(Torn::End) };
    let (length, checksum) = head.split_at(LENGTH / 2);
    if !Sha256::digest(length).iter().take(LENGTH / 2).eq(checksum) {
        return Err(if is_unwritten(bytes.get(LENGTH / 2..).unwrap_or_default()) {
            Torn::End
        } else {
            Torn::Damaged
        });
    }
    let length = <[u8; 4]>::try_from(length).map_err(|_| Torn::Damaged)?;
    let length = usize::try_from(u32::from_le_bytes(length)).map_err(|_| Torn::Damaged)?;
    if length > MAX_CLAIMS_FRAME {
        return Err(Torn::Damaged);
    }
    let end = LENGTH + length;
    let (Some(checked), Some(checksum)) = (bytes.get(..end), bytes.get(end..end + CHECKSUM)) else {
        return Err(Torn::End);
    };
    let after = bytes.get(end + CHECKSUM..).unwrap_or_default();
    if !Sha256::digest(checked).iter().take(CHECKSUM).eq(checksum) {
        let is_last = is_unwritten(after) && is_unwritten(checksum);
        return Err(if is_last { Torn::End } else { Torn::Damaged });
    }
    let record = checked.get(LENGTH..).and_then(Record::decode).ok_or(Torn::Damaged)?;
    Ok((record, after))
}

#[cfg(test)]
mod tests {
    use pmd_protocol::peer::claims::{Ballot, Epoch};

    use super::*;

    fn promise(round: u64) -> Record {
        Record::Promised(Ballot { round, voter: 1 })
    }

    fn filled(path: &Path) -> Vec<u8> {
        let mut store = Store::open(path, 7, 5).expect("a new store");
        let started = Record::Started(Epoch { starts: 1, nonce: 3 });
        store.append(vec![started, promise(1), promise(2)]).expect("room on the disk");
        drop(store);
        fs::read(path).expect("a file")
    }

    #[test]
    fn a_torn_record_is_cut_off_and_a_damaged_one_is_refused() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let path = folder.path().join("claims");
        let whole = filled(&path);
        let last = LENGTH + promise(2).encode().len() + CHECKSUM;
        for missing in 0..=last {
            let file = OpenOptions::new().write(true).open(&path).expect("a file");
            file.set_len(0).expect("a file");
            (&file).write_all(&whole[..whole.len() - missing]).expect("room on the disk");
            let round = if missing == 0 { 2 } else { 1 };
            let store = Store::open(&path, 8, 5).expect("a store");
            assert_eq!((store.stored().store, store.stored().promised.round), (7, round), "{missing}");
        }
        for position in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[position] ^= 0x10;
            let file = OpenOptions::new().write(true).open(&path).expect("a file");
            file.set_len(0).expect("a file");
            (&file).write_all(&damaged).expect("room on the disk");
            // The number of the boot is compared, and nothing depends on its value.
            let is_boot = (MAGIC.len() + 16..MAGIC.len() + 24).contains(&position);
            assert_eq!(Store::open(&path, 8, 5).is_ok(), is_boot, "{position}");
        }
    }

    #[test]
    fn a_copy_is_refused() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let path = folder.path().join("claims");
        let backup = folder.path().join("backup");
        filled(&path);
        fs::copy(&path, &backup).expect("a copy");
        fs::rename(&backup, &path).expect("a file");
        assert!(matches!(Store::open(&path, 8, 5), Err(StoreError::Copied(_))));
    }

    /// The inode of the file that was removed is used again, and the file of an earlier start of the daemon is another one.
    #[test]
    fn a_copy_in_place_of_a_removed_or_a_later_file_is_refused() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let path = folder.path().join("claims");
        let backup = filled(&path);
        fs::remove_file(&path).expect("a file");
        fs::write(&path, &backup).expect("a copy");
        assert!(matches!(Store::open(&path, 8, 5), Err(StoreError::Copied(_))));
        fs::remove_file(&path).expect("a file");
        let backup = filled(&path);
        let mut store = Store::open(&path, 8, 6).expect("a store");
        assert_eq!(store.boot(), 5);
        store.start(Record::Started(Epoch { starts: 2, nonce: 4 }), 6).expect("room on the disk");
        assert_eq!(Store::open(&path, 8, 7).expect("a store").boot(), 6);
        fs::write(&path, &backup).expect("a copy");
        assert!(matches!(Store::open(&path, 8, 6), Err(StoreError::Copied(_))));
    }

    #[test]
    fn the_file_stays_small() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let path = folder.path().join("claims");
        let mut store = Store::open(&path, 7, 5).expect("a new store");
        let (mut round, mut before) = (0, 0);
        // Until it was written anew.
        while store.bytes > before {
            before = store.bytes;
            store.append((round + 1..=round + 10_000).map(promise).collect()).expect("room on the disk");
            round += 10_000;
        }
        assert!(fs::metadata(&path).expect("a file").len() < 10_000);
        store.append(vec![promise(round + 1)]).expect("room on the disk");
        drop(store);
        let store = Store::open(&path, 8, 5).expect("a store");
        assert_eq!((store.stored().store, store.stored().promised.round), (7, round + 1));
    }

    #[test]
    fn a_disk_that_is_full_or_read_only_is_an_error() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let mut store = Store::open(&folder.path().join("claims"), 7, 5).expect("a new store");
        store.file = OpenOptions::new().append(true).open("/dev/full").expect("a device");
        assert!(matches!(store.append(vec![promise(1)]), Err(StoreError::Io { .. })));
        assert!(matches!(Store::open(Path::new("/dev/full"), 7, 5), Err(StoreError::Damaged { .. })));
        assert!(matches!(Store::open(Path::new("/proc/pmd/claims"), 7, 5), Err(StoreError::Io { .. })));
    }
}
