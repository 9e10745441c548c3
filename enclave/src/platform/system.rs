//! What PID 1 asks of the kernel: mounts, modules, ports, locked memory, and the end.
//!
//! All calls go through `rustix`, whose wrappers are safe, so this module needs no `unsafe`.

use std::fs;
use std::io;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::mount::{MountFlags, mount};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use rustix::system::{RebootCommand, finit_module, reboot};

use super::PlatformError;
use crate::pipe::Pipe;

const PORTS: &str = "/sys/class/virtio-ports";
const MODULES: &str = "/modules";

/// Mounts what the program needs. A mount that is there already is as good.
///
/// # Errors
/// The first mount that fails for another reason than being there.
pub fn mounts() -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    for (kind, target) in [("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys")] {
        match mount(kind, target, kind, flags, None) {
            Ok(()) | Err(rustix::io::Errno::BUSY) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Loads the image's modules, in the order of their names, then mounts configfs if the kernel has
/// it. The modules are part of the measured initial RAM disk.
///
/// # Errors
/// When a module is there and the kernel does not take it, but for "no such device": an image has
/// the modules of one platform, and the device may still be missing.
pub fn modules() -> io::Result<()> {
    let mut paths: Vec<_> = match fs::read_dir(MODULES) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(_) => Vec::new(),
    };
    paths.sort();
    for path in paths {
        let file = fs::File::open(&path)?;
        match finit_module(&file, c"", 0) {
            Ok(()) | Err(rustix::io::Errno::EXIST | rustix::io::Errno::NODEV) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // Without configfs the ioctl is used, so a kernel without it is no failure.
    let _ = mount("configfs", "/sys/kernel/config", "configfs", MountFlags::NOSUID, None);
    Ok(())
}

/// Keeps secrets where they are: memory is locked, and no process or kernel dump holds it.
///
/// # Errors
/// When the kernel refuses one of the three.
pub fn lock_memory() -> io::Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE)?;
    Ok(())
}

/// Ends the machine. Does not return when it works.
pub fn power_off() {
    // As PID 1 there is nobody to tell of a failure: returning panics the kernel, which is an end.
    let _ = reboot(RebootCommand::PowerOff);
}

/// Opens the virtio-serial port with this name, waiting up to ten seconds for it to appear.
///
/// # Errors
/// [`PlatformError::Device`] when it does not, or cannot be opened.
pub fn port(name: &str) -> Result<Box<dyn Pipe>, PlatformError> {
    for _ in 0..200 {
        if let Some(device) = find(name) {
            let file = fs::OpenOptions::new().read(true).write(true).open(device);
            return Ok(Box::new(file.map_err(PlatformError::device("virtio-serial"))?));
        }
        sleep(Duration::from_millis(50));
    }
    Err(PlatformError::device("virtio-serial")(io::ErrorKind::NotFound.into()))
}

fn find(name: &str) -> Option<std::path::PathBuf> {
    let entries = fs::read_dir(PORTS).ok()?;
    let port = entries.flatten().find(|entry| {
        let observed = fs::read_to_string(entry.path().join("name"));
        observed.is_ok_and(|observed| observed.trim_end() == name)
    })?;
    Some(Path::new("/dev").join(port.file_name()))
}
