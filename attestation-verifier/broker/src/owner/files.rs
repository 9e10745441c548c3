//! Files that are whole or not there: a draft beside the place, and one rename.
//!
//! 1. `O_EXCL` in the same folder, under a name that no reader looks for.
//! 2. Write; `fsync`.
//! 3. Rename to the place (refusing to replace where the caller says so); `fsync` the folder.
//!
//! A draft that is dropped before step 3 is removed. After a crash it may stay behind, under its
//! own name; nothing ever reads it.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rand_core::Rng;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use thiserror::Error;

use crate::random;

/// Why a file was not read or written.
#[derive(Debug, Error)]
#[error("{}: {source}", path.display())]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// What the operating system said.
    pub source: io::Error,
}

impl FileError {
    /// Names `path` in what the operating system said.
    pub fn at(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self { path: path.to_owned(), source }
    }
}

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Everyone (mode 0644, less the umask).
    Everyone,
    /// The user alone (mode 0600).
    Owner,
}

/// Whether a file that is there already may be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It stays, and publishing fails.
    Keep,
    /// It is replaced at once.
    Replace,
}

/// A file in the making.
pub struct Draft {
    file: File,
    draft: PathBuf,
    place: PathBuf,
    existing: Existing,
    published: bool,
}

impl Draft {
    /// Begins a file that will be at `place`.
    ///
    /// # Errors
    /// [`FileError`]: there is one and it is to stay, or the folder refuses.
    pub fn create(place: &Path, audience: Audience, existing: Existing) -> Result<Self, FileError> {
        if existing == Existing::Keep && place.symlink_metadata().is_ok() {
            return Err(FileError::at(place)(io::ErrorKind::AlreadyExists.into()));
        }
        let mut rng = random::fresh().map_err(|e| FileError::at(place)(io::Error::other(e)))?;
        let mut name = OsString::from(".");
        name.push(place.file_name().unwrap_or_default());
        name.push(format!(".draft-{:016x}", rng.next_u64()));
        let draft = place.with_file_name(name);
        let mode = match audience {
            Audience::Everyone => 0o644,
            Audience::Owner => 0o600,
        };
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&draft)
            .map_err(FileError::at(place))?;
        Ok(Self { file, draft, place: place.to_owned(), existing, published: false })
    }

    /// Puts the finished file in its place.
    ///
    /// # Errors
    /// [`FileError`]; the place is then as it was, or, if only the last `fsync` failed, new.
    pub fn publish(mut self) -> Result<(), FileError> {
        self.file.sync_all().map_err(FileError::at(&self.place))?;
        self.rename().map_err(FileError::at(&self.place))?;
        self.published = true;
        let folder = folder_of(&self.place);
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(FileError::at(folder))
    }

    fn rename(&self) -> io::Result<()> {
        if self.existing == Existing::Replace {
            return fs::rename(&self.draft, &self.place);
        }
        match renameat_with(CWD, &self.draft, CWD, &self.place, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(()),
            // Not every file system knows the flag. A link refuses to replace on all that have it.
            Err(Errno::INVAL | Errno::NOSYS) => {
                fs::hard_link(&self.draft, &self.place)?;
                fs::remove_file(&self.draft)
            }
            Err(other) => Err(other.into()),
        }
    }
}

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.published {
            // Best effort: a draft that stays is never read.
            let _ = fs::remove_file(&self.draft);
        }
    }
}

/// Writes a small file, whole or not at all.
///
/// # Errors
/// As [`Draft::create`] and [`Draft::publish`].
pub fn write(
    place: &Path,
    bytes: &[u8],
    audience: Audience,
    existing: Existing,
) -> Result<(), FileError> {
    let mut draft = Draft::create(place, audience, existing)?;
    draft.write_all(bytes).map_err(FileError::at(place))?;
    draft.publish()
}

/// Reads a small file, of at most `cap` bytes.
///
/// # Errors
/// [`FileError`], for a longer file too.
pub fn read(path: &Path, cap: u64) -> Result<Vec<u8>, FileError> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(FileError::at(path))?;
    file.take(cap.saturating_add(1)).read_to_end(&mut bytes).map_err(FileError::at(path))?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= cap) {
        return Ok(bytes);
    }
    let long = format!("longer than the {cap} bytes accepted");
    Err(FileError::at(path)(io::Error::new(io::ErrorKind::InvalidData, long)))
}

/// Reads a small text.
///
/// # Errors
/// As [`read`], and for what is not UTF-8.
pub fn read_text(path: &Path, cap: u64) -> Result<String, FileError> {
    let utf8 = |e| FileError::at(path)(io::Error::new(io::ErrorKind::InvalidData, e));
    String::from_utf8(read(path, cap)?).map_err(utf8)
}

fn folder_of(place: &Path) -> &Path {
    place.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn names(folder: &Path) -> Vec<OsString> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    }

    #[test]
    fn shows_nothing_before_it_is_published_and_leaves_nothing_when_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("a");
        let mut draft = Draft::create(&place, Audience::Everyone, Existing::Keep).unwrap();
        draft.write_all(b"half").unwrap();
        assert!(!place.exists());
        drop(draft);
        assert_eq!(names(folder.path()), Vec::<OsString>::new());
    }

    #[test]
    fn refuses_to_replace_a_file_that_appeared_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("a");
        let draft = Draft::create(&place, Audience::Everyone, Existing::Keep).unwrap();
        fs::write(&place, b"old").unwrap();
        let error = draft.publish().unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&place).unwrap(), b"old");
        let error = write(&place, b"new", Audience::Everyone, Existing::Keep).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[test]
    fn replaces_where_it_may_and_keeps_secrets_to_the_owner() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("a");
        fs::write(&place, b"old").unwrap();
        write(&place, b"new", Audience::Owner, Existing::Replace).unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"new");
        assert_eq!(fs::metadata(&place).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn refuses_a_file_over_the_cap() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("a");
        fs::write(&place, b"four").unwrap();
        assert_eq!(read(&place, 4).unwrap(), b"four");
        assert_eq!(read(&place, 3).unwrap_err().source.kind(), io::ErrorKind::InvalidData);
    }
}
