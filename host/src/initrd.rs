//! The initial RAM disk: an uncompressed `newc` archive that is the same bytes every time.
//!
//! The kernel's `Documentation/driver-api/early-userspace/buffer-format.rst` is the format. Owner,
//! group and time are zero, inodes count from one, entries are sorted by name, and nothing is
//! compressed, so that the digest of the whole depends on the contents alone.

/// Permission and type bits, as in `stat(2)`.
const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const FILE: u32 = 0o100_644;
const CHARACTER_DEVICE: u32 = 0o020_600;
/// `/dev/console` is device (5, 1); without the node the first print has nowhere to go.
const CONSOLE: (u32, u32) = (5, 1);
/// Folders that `/init` mounts on.
const MOUNT_POINTS: [&str; 4] = ["dev", "proc", "sys", "tmp"];
/// The archive is padded to this, as `cpio` itself does.
const BLOCK: usize = 512;

/// A kernel module: the name of its file and its bytes, not compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Such as `tsm.ko`; an ASCII file name.
    pub name: String,
    /// The ELF object with its signature.
    pub bytes: Vec<u8>,
}

/// Why no archive can be made.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InitrdError {
    /// A module is not called what a module may be called.
    #[error("module name {0:?} is not a plain file name that ends in .ko")]
    Name(String),
    /// A file does not fit the format's 32-bit sizes.
    #[error("{name} has {observed} bytes, at most {} fit", u32::MAX)]
    TooLong {
        /// The entry.
        name: String,
        /// Its length, in bytes.
        observed: usize,
    },
}

struct Entry<'a> {
    name: String,
    mode: u32,
    device: (u32, u32),
    bytes: &'a [u8],
}

impl<'a> Entry<'a> {
    fn new(name: impl Into<String>, mode: u32, bytes: &'a [u8]) -> Self {
        Self { name: name.into(), mode, device: (0, 0), bytes }
    }
}

/// Writes the archive with `/init` and, in the order given, `/modules/NN-name.ko`.
///
/// # Errors
/// [`InitrdError`] where a name or a size cannot be written.
pub fn write(init: &[u8], modules: &[Module]) -> Result<Vec<u8>, InitrdError> {
    let mut entries: Vec<_> =
        MOUNT_POINTS.iter().map(|name| Entry::new(*name, DIRECTORY, &[])).collect();
    let console = Entry::new("dev/console", CHARACTER_DEVICE, &[]);
    entries.push(Entry { device: CONSOLE, ..console });
    entries.push(Entry::new("init", PROGRAM, init));
    if !modules.is_empty() {
        entries.push(Entry::new("modules", DIRECTORY, &[]));
    }
    for (place, module) in modules.iter().enumerate() {
        let name = module_name(place, &module.name)?;
        entries.push(Entry::new(name, FILE, &module.bytes));
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    archive(&entries)
}

fn module_name(place: usize, name: &str) -> Result<String, InitrdError> {
    let stem = name.strip_suffix(".ko").unwrap_or_default();
    let plain = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
    if stem.is_empty() || !stem.bytes().all(plain) {
        return Err(InitrdError::Name(name.to_owned()));
    }
    Ok(format!("modules/{place:02}-{name}"))
}

fn archive(entries: &[Entry<'_>]) -> Result<Vec<u8>, InitrdError> {
    let mut bytes = Vec::new();
    for (inode, entry) in (1_u32..).zip(entries) {
        append(&mut bytes, inode, entry)?;
    }
    append(&mut bytes, 0, &Entry::new("TRAILER!!!", 0, &[]))?;
    pad(&mut bytes, BLOCK);
    Ok(bytes)
}

fn append(bytes: &mut Vec<u8>, inode: u32, entry: &Entry<'_>) -> Result<(), InitrdError> {
    let observed = entry.bytes.len();
    let too_long = || InitrdError::TooLong { name: entry.name.clone(), observed };
    let size = u32::try_from(observed).map_err(|_| too_long())?;
    let name_size = u32::try_from(entry.name.len() + 1).map_err(|_| too_long())?;
    let links = if entry.mode == DIRECTORY { 2 } else { 1 };
    let (major, minor) = entry.device;
    bytes.extend_from_slice(b"070701");
    // inode, mode, uid, gid, links, mtime, size, dev major and minor, rdev major and minor, name
    // size, check
    let fields = [inode, entry.mode, 0, 0, links, 0, size, 0, 0, major, minor, name_size, 0];
    for field in fields {
        bytes.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    bytes.extend_from_slice(entry.name.as_bytes());
    bytes.push(0);
    pad(bytes, 4);
    bytes.extend_from_slice(entry.bytes);
    pad(bytes, 4);
    Ok(())
}

fn pad(bytes: &mut Vec<u8>, to: usize) {
    bytes.resize(bytes.len().next_multiple_of(to), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(name: &str) -> Module {
        Module { name: name.to_owned(), bytes: vec![7; 5] }
    }

    fn names(archive: &[u8]) -> Vec<String> {
        let field = |at: usize| {
            let text = std::str::from_utf8(&archive[at..at + 8]).unwrap();
            usize::from_str_radix(text, 16).unwrap()
        };
        let (mut at, mut names) = (0, Vec::new());
        while archive[at..].starts_with(b"070701") {
            let (size, name) = (field(at + 54), field(at + 94));
            let text = &archive[at + 110..at + 110 + name - 1];
            names.push(String::from_utf8(text.to_vec()).unwrap());
            at = (at + 110 + name).next_multiple_of(4);
            at = (at + size).next_multiple_of(4);
        }
        names
    }

    #[test]
    fn the_same_contents_are_the_same_bytes() {
        let modules = [module("tsm.ko")];
        assert_eq!(write(b"init", &modules), write(b"init", &modules));
        assert_ne!(write(b"init", &modules), write(b"Init", &modules));
    }

    #[test]
    fn entries_are_sorted_and_modules_keep_their_order() {
        let archive = write(b"init", &[module("tsm.ko"), module("sev-guest.ko")]).unwrap();
        let golden = [
            "dev",
            "dev/console",
            "init",
            "modules",
            "modules/00-tsm.ko",
            "modules/01-sev-guest.ko",
            "proc",
            "sys",
            "tmp",
            "TRAILER!!!",
        ];
        assert_eq!(names(&archive), golden);
        assert_eq!(archive.len() % BLOCK, 0);
    }

    #[test]
    fn the_console_is_a_device_of_root_without_a_time() {
        let archive = write(b"", &[]).unwrap();
        let at = archive.windows(11).position(|w| w == b"dev/console").unwrap() - 110;
        let golden = "070701\
            00000002000021800000000000000000000000010000000000000000\
            00000000000000000000000500000001\
            0000000c00000000";
        assert_eq!(std::str::from_utf8(&archive[at..at + 110]).unwrap(), golden);
    }

    #[test]
    fn refuses_a_module_that_would_leave_its_folder() {
        for name in ["../init.ko", "a/b.ko", "tsm", ".ko", "tsm.ko.xz", "a\0.ko"] {
            assert_eq!(write(b"", &[module(name)]), Err(InitrdError::Name(name.to_owned())));
        }
    }
}
