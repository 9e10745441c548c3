//! The kernel's one interface to evidence: configfs-tsm (Linux 6.7 and later).
//!
//! `/sys/kernel/config/tsm/report/NAME/{inblob,privlevel,provider,generation,outblob,auxblob}`.
//! Writing `inblob` and reading `outblob` can race with another user of the entry; `generation`
//! counts the writes, and must have advanced by exactly ours.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use super::PlatformError;

const DEVICE: &str = "configfs-tsm";
const REPORTS: &str = "/sys/kernel/config/tsm/report";
/// No report, quote or certificate table is larger.
const MAX_BLOB: usize = 1 << 20;
/// Quote services are slow to wake and sometimes busy.
const TRIES: u32 = 8;

/// What the kernel returned.
pub struct Report {
    /// The report or quote.
    pub outblob: Vec<u8>,
    /// SNP: the certificate table the host gave, often empty.
    pub auxblob: Vec<u8>,
}

/// Whether the kernel has the interface.
#[must_use]
pub fn present() -> bool {
    Path::new(REPORTS).is_dir()
}

/// Asks `provider` (`sev_guest`, `tdx_guest`) for evidence over `report_data`, at VMPL `level` where
/// the provider has levels.
///
/// # Errors
/// [`PlatformError`], after retries with growing pauses where the device was only busy.
pub fn report(
    provider: &str,
    level: Option<u8>,
    report_data: &[u8; 64],
) -> Result<Report, PlatformError> {
    let mut pause = Duration::from_millis(50);
    let mut tries = 0;
    loop {
        match attempt(provider, level, report_data) {
            Err(PlatformError::Device { source, .. }) if busy(&source) && tries < TRIES => {
                sleep(pause);
                pause *= 2;
                tries += 1;
            }
            done => return done,
        }
    }
}

fn busy(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, ResourceBusy, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | ResourceBusy | TimedOut | WouldBlock)
}

fn attempt(
    provider: &str,
    level: Option<u8>,
    report_data: &[u8; 64],
) -> Result<Report, PlatformError> {
    let entry = Entry::make()?;
    if entry.read("provider")?.trim_ascii() != provider.as_bytes() {
        return Err(PlatformError::Answer { device: DEVICE, observed: "another provider" });
    }
    let before = entry.generation()?;
    let mut writes = 1;
    if let Some(level) = level {
        entry.write("privlevel", level.to_string().as_bytes())?;
        writes += 1;
    }
    entry.write("inblob", report_data)?;
    let outblob = entry.read("outblob")?;
    let auxblob = entry.read("auxblob").unwrap_or_default();
    if entry.generation()? != before + writes {
        return Err(PlatformError::Answer { device: DEVICE, observed: "another writer's blob" });
    }
    if outblob.iter().all(|byte| *byte == 0) {
        return Err(PlatformError::Answer { device: DEVICE, observed: "an empty blob" });
    }
    Ok(Report { outblob, auxblob })
}

/// One entry of the interface, removed on drop.
struct Entry(PathBuf);

impl Entry {
    fn make() -> Result<Self, PlatformError> {
        let path = Path::new(REPORTS).join(format!("cloister-{}", std::process::id()));
        fs::create_dir(&path).map_err(PlatformError::device(DEVICE))?;
        Ok(Self(path))
    }

    fn read(&self, attribute: &str) -> Result<Vec<u8>, PlatformError> {
        let bytes = fs::read(self.0.join(attribute)).map_err(PlatformError::device(DEVICE))?;
        if bytes.len() > MAX_BLOB {
            return Err(PlatformError::Answer { device: DEVICE, observed: "too many bytes" });
        }
        Ok(bytes)
    }

    /// One write call: the attribute takes what a single call brings.
    fn write(&self, attribute: &str, bytes: &[u8]) -> Result<(), PlatformError> {
        let put = || -> io::Result<()> {
            let mut file = fs::OpenOptions::new().write(true).open(self.0.join(attribute))?;
            match file.write(bytes)? {
                written if written == bytes.len() => Ok(()),
                _ => Err(io::ErrorKind::WriteZero.into()),
            }
        };
        put().map_err(PlatformError::device(DEVICE))
    }

    fn generation(&self) -> Result<u64, PlatformError> {
        let text = self.read("generation")?;
        let number = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok());
        number.ok_or(PlatformError::Answer { device: DEVICE, observed: "no generation" })
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // An entry that stays costs nothing but its name, which is ours.
        let _ = fs::remove_dir(&self.0);
    }
}
