//! The custodian's folder: a log that is durable before anyone hears of it.
//!
//! ```text
//! DIR/wal                    every leaf and record, in order: the source of all that follows
//! DIR/signed-state           size and root of what was last signed
//! DIR/log/checkpoint, tile/  the public log (C2SP tlog-tiles)
//! DIR/records/<index>.cbor   the private records behind its leaves
//! DIR/shares/<key>.share     wrapped shares of data keys
//! DIR/manifests/<digest>     launch blobs of manifests that a share was released for
//! DIR/receipts, DIR/unwraps  wrapped adapter shares, and what was handed out
//! DIR/lock                   one writer
//! ```
//!
//! Steps of [`Store::append`], after which, and not before, a caller may answer:
//! 1. The ledger accepts every record of the batch.
//! 2. The batch is appended to `wal` in one write; `fdatasync`.
//! 3. Tiles and records are written, each whole or not at all.
//! 4. `signed-state` is persisted: never two roots for one size.
//! 5. The checkpoint is signed and published.
//!
//! A failure after step 2 stops the store until it is opened again. Opening replays `wal`; an end
//! that is torn is dropped only beyond the signed size, and another root refuses to start.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use measurement::digest::{Hash32, of};
use measurement::dsse::{parse_printed, print};
use measurement::log::{
    Checkpoint, Event, FoldError, Leaf, Note, NoteError, NoteSignature, Record, empty_root, origin,
    tiles::{self, TileError},
};
use measurement::octets::Octets;
use measurement::receipt::ProvenRecord;
use rand_core::Rng as _;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::identity::Identity;
use crate::owner::files::{self, Audience, Existing, FileError};
use crate::random::{self, NoRandomness};

mod fold;
mod wal;

pub use fold::{Fold, LoggedRelease, Unfit};

use wal::Entry;

/// The longest `wal` that is read, in bytes.
const MAX_WAL: u64 = 1 << 32;
const MAX_SMALL: u64 = 1 << 16;

/// Why a store does not start or go on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A write failed earlier; what is on disk is known only after a restart.
    #[error("an earlier write failed: open the store again")]
    Broken,
    /// The published checkpoint.
    #[error("log/checkpoint: {0}")]
    Checkpoint(#[from] NoteError),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// Another process writes here.
    #[error("{}: another broker runs on this folder", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// Signed records are gone.
    #[error("wal holds {observed} whole records, {required} were signed")]
    Lost {
        /// Records found.
        observed: u64,
        /// Records signed.
        required: u64,
    },
    /// No randomness.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
    /// The records have another root than the one signed.
    #[error("the first {size} records have root {observed}, {required} was signed")]
    Root {
        /// How many records.
        size: u64,
        /// Their root.
        observed: Hash32<of::Node>,
        /// The root signed.
        required: Hash32<of::Node>,
    },
    /// `signed-state` is not one.
    #[error("{}: not a signed state", path.display())]
    SignedState {
        /// The file.
        path: PathBuf,
    },
    /// The tiles.
    #[error(transparent)]
    Tiles(#[from] TileError),
    /// A record that must not be there.
    #[error("wal: {0}")]
    Unfit(#[from] Unfit),
}

/// Why nothing was appended.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The ledger forbids a record.
    #[error(transparent)]
    Forbidden(#[from] FoldError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    root: Hash32<of::Node>,
    size: u64,
}

/// The one writer of a custodian's folder.
pub struct Store {
    folder: PathBuf,
    identity: Arc<Identity>,
    fold: Fold,
    wal: File,
    checkpoint: String,
    broken: bool,
    _lock: File,
}

impl Store {
    /// Makes the files of a log without records.
    ///
    /// # Errors
    /// [`StoreError`], also when there is a log already.
    pub fn create(folder: &Path) -> Result<(), StoreError> {
        for name in ["log", "manifests", "receipts", "records", "shares", "unwraps"] {
            folder_of(&folder.join(name))?;
        }
        files::write(&folder.join("wal"), &[], Audience::Owner, Existing::Keep)?;
        let signed = print(&Signed { root: empty_root(), size: 0 });
        let path = folder.join("signed-state");
        Ok(files::write(&path, &signed, Audience::Owner, Existing::Keep)?)
    }

    /// Opens the folder for writing, and recovers from whatever stopped the last writer.
    ///
    /// # Errors
    /// [`StoreError`]: when it is not certain that what was signed is still there, it does not
    /// start.
    pub fn open(folder: &Path, identity: Arc<Identity>) -> Result<Self, StoreError> {
        let lock = lock(&folder.join("lock"))?;
        let path = folder.join("wal");
        let bytes = files::read(&path, MAX_WAL)?;
        let (entries, whole) = wal::read(&bytes);
        let fold = replay(entries, signed_state(folder)?)?;
        let mut options = OpenOptions::new();
        let wal = options.append(true).open(&path).map_err(FileError::at(&path))?;
        if whole < bytes.len() {
            let length = u64::try_from(whole).unwrap_or(u64::MAX);
            let cut = wal.set_len(length).and_then(|()| wal.sync_all());
            cut.map_err(FileError::at(&path))?;
        }
        let (folder, checkpoint) = (folder.to_owned(), String::new());
        let mut store =
            Self { folder, identity, fold, wal, checkpoint, broken: false, _lock: lock };
        store.publish(0)?;
        Ok(store)
    }

    /// What the log adds up to.
    #[must_use]
    pub const fn fold(&self) -> &Fold {
        &self.fold
    }

    /// The signed checkpoint of the whole log.
    #[must_use]
    pub fn checkpoint(&self) -> &str {
        &self.checkpoint
    }

    /// A record with the proof that the checkpoint holds it; none beyond the log's end.
    #[must_use]
    pub fn proven(&self, index: u64) -> Option<ProvenRecord> {
        self.fold.proven(index, &self.checkpoint)
    }

    /// Appends records of `events`, which happen at `time` (seconds since 1970), all or none, and
    /// returns their places. They are durable and signed when this returns.
    ///
    /// # Errors
    /// [`AppendError`]; when the ledger forbids one, nothing was written.
    pub fn append(&mut self, events: Vec<Event>, time: u64) -> Result<Vec<u64>, AppendError> {
        if self.broken {
            return Err(StoreError::Broken.into());
        }
        let mut rng = random::fresh().map_err(StoreError::from)?;
        let (mut fold, since) = (self.fold.clone(), self.fold.state().size());
        let (mut bytes, mut indices) = (Vec::new(), Vec::new());
        for event in events {
            let mut salt = Octets([0; 32]);
            rng.fill_bytes(&mut salt.0);
            let entry = self.entry(&Record { event, salt, time });
            wal::write(&entry, &mut bytes);
            indices.push(fold.push(entry).map_err(|unfit| match unfit {
                Unfit::Fold(forbidden) => AppendError::Forbidden(forbidden),
                other => StoreError::from(other).into(),
            })?);
        }
        self.broken = true;
        let written = self.wal.write_all(&bytes).and_then(|()| self.wal.sync_data());
        written
            .map_err(|source| FileError { path: self.folder.join("wal"), source })
            .map_err(StoreError::from)?;
        self.fold = fold;
        self.publish(since)?;
        self.broken = false;
        Ok(indices)
    }

    fn entry(&self, record: &Record) -> Entry {
        let record = record.to_bytes();
        let message = Leaf::message(&Leaf::checksum(&record));
        let signature = self.identity.decide(&message);
        let leaf = Leaf::new(&record, signature, self.identity.custodian().decision.as_bytes());
        let leaf = leaf.to_bytes().try_into().unwrap_or([0; 128]);
        Entry { leaf, record }
    }

    /// Steps 3 to 5, for the records from `since` on.
    fn publish(&mut self, since: u64) -> Result<(), StoreError> {
        write_tiles(&self.fold, since, &self.folder.join("log"))?;
        write_records(&self.fold, since, &self.folder.join("records"))?;
        let log_key = self.identity.custodian().log;
        let origin = origin(log_key.as_bytes());
        let checkpoint = self.fold.checkpoint(origin.clone());
        let signed = print(&Signed { root: checkpoint.root, size: checkpoint.size });
        let path = self.folder.join("signed-state");
        files::write(&path, &signed, Audience::Owner, Existing::Replace)?;
        let text = checkpoint.to_string();
        let signature = self.identity.log(text.as_bytes());
        let line = NoteSignature::ed25519(&origin, log_key.as_bytes(), signature);
        let note = Note { text, signatures: vec![line] }.to_string();
        let path = self.folder.join("log").join("checkpoint");
        files::write(&path, note.as_bytes(), Audience::Everyone, Existing::Replace)?;
        self.checkpoint = note;
        Ok(())
    }
}

/// Reads the log of a folder as far as it is published, whether or not a broker runs on it.
///
/// # Errors
/// [`StoreError`].
pub fn view(folder: &Path) -> Result<(Fold, Checkpoint), StoreError> {
    let note = files::read(&folder.join("log").join("checkpoint"), MAX_SMALL)?;
    let checkpoint = Note::parse(&note)?.checkpoint()?;
    let (mut entries, _) = wal::read(&files::read(&folder.join("wal"), MAX_WAL)?);
    let size = usize::try_from(checkpoint.size).unwrap_or(usize::MAX);
    entries.truncate(size);
    let fold = replay(entries, Signed { root: checkpoint.root, size: checkpoint.size })?;
    Ok((fold, checkpoint))
}

/// Writes the copy that an auditor gets: checkpoint, tiles, and the records in the clear.
///
/// # Errors
/// [`StoreError`], also when there is something at `out`.
pub fn export(folder: &Path, out: &Path) -> Result<u64, StoreError> {
    let (fold, checkpoint) = view(folder)?;
    fs::create_dir(out).map_err(FileError::at(out))?;
    write_tiles(&fold, 0, out)?;
    write_records(&fold, 0, &out.join("records"))?;
    // The note may have grown since: what was read is what is copied.
    let note = files::read(&folder.join("log").join("checkpoint"), MAX_SMALL)?;
    if Note::parse(&note)?.checkpoint()? != checkpoint {
        fs::remove_dir_all(out).map_err(FileError::at(out))?;
        return export(folder, out);
    }
    files::write(&out.join("checkpoint"), &note, Audience::Everyone, Existing::Keep)?;
    Ok(checkpoint.size)
}

fn replay(entries: Vec<Entry>, signed: Signed) -> Result<Fold, StoreError> {
    let observed = u64::try_from(entries.len()).unwrap_or(u64::MAX);
    if observed < signed.size {
        return Err(StoreError::Lost { observed, required: signed.size });
    }
    let mut fold = Fold::default();
    for entry in entries {
        fold.push(entry)?;
    }
    match fold.tree().root_at(signed.size) {
        Some(root) if root == signed.root => Ok(fold),
        observed => Err(StoreError::Root {
            size: signed.size,
            observed: observed.unwrap_or_else(empty_root),
            required: signed.root,
        }),
    }
}

fn signed_state(folder: &Path) -> Result<Signed, StoreError> {
    let path = folder.join("signed-state");
    let bytes = files::read(&path, MAX_SMALL)?;
    parse_printed(&bytes, bytes.len()).map_err(|_| StoreError::SignedState { path })
}

/// Full tiles never change, and what is there with the right bytes is left alone.
fn write_tiles(fold: &Fold, since: u64, folder: &Path) -> Result<(), StoreError> {
    for (name, bytes) in tiles::write(fold.tree(), fold.leaves(), since)? {
        let place = folder.join(&name);
        if let Some(parent) = place.parent() {
            folder_of(parent)?;
        }
        write_changed(&place, &bytes, Audience::Everyone)?;
        if !name.contains(".p/") {
            // The partial tiles that a full one replaces; they may stay, so a failure is none.
            let _ = fs::remove_dir_all(folder.join(format!("{name}.p")));
        }
    }
    Ok(())
}

fn write_records(fold: &Fold, since: u64, folder: &Path) -> Result<(), StoreError> {
    folder_of(folder)?;
    let skip = usize::try_from(since).unwrap_or(usize::MAX);
    for (index, record) in (since..).zip(fold.records().iter().skip(skip)) {
        write_changed(&folder.join(format!("{index}.cbor")), record, Audience::Owner)?;
    }
    Ok(())
}

fn write_changed(place: &Path, bytes: &[u8], audience: Audience) -> Result<(), FileError> {
    if fs::read(place).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    files::write(place, bytes, audience, Existing::Replace)
}

fn folder_of(path: &Path) -> Result<(), FileError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o755).create(path).map_err(FileError::at(path))
}

fn lock(path: &Path) -> Result<File, StoreError> {
    let mut options = OpenOptions::new();
    let file = options.create(true).write(true).truncate(false).mode(0o600).open(path);
    let file = file.map_err(FileError::at(path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(StoreError::Locked { path: path.to_owned() }),
        Err(other) => Err(FileError::at(path)(io::Error::from(other)).into()),
    }
}

#[cfg(test)]
mod tests;
