//! The image folder: the four measured parts and the machine they are measured for.
//!
//! | file | content |
//! |---|---|
//! | `firmware.fd` | OVMF |
//! | `kernel` | a bzImage |
//! | `initrd` | what [`crate::initrd::write`] wrote |
//! | `cmdline` | the kernel's command line, no newline at the end |
//! | `image.json` | `measurement::launch::Image` |
//!
//! The folder is not trusted: whoever changes a part changes the measurement, and the hardware
//! reports another image than the manifest names.

use std::fs;
use std::path::{Path, PathBuf};

use measurement::launch::{self, LaunchError, Measured, Parts};

use crate::vm;

/// File names, as in the table above.
const FIRMWARE: &str = "firmware.fd";
const KERNEL: &str = "kernel";
const INITRD: &str = "initrd";
const CMDLINE: &str = "cmdline";
const SHAPE: &str = "image.json";

/// Why an image folder cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// A part cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The part.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The parts cannot be measured.
    #[error("the image cannot be measured: {0}")]
    Measure(#[from] LaunchError),
    /// `image.json` is not one.
    #[error("{}: {source}", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        source: serde_json::Error,
    },
}

/// An image folder's contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The machine.
    pub shape: launch::Image,
    /// OVMF.
    pub firmware: Vec<u8>,
    /// A bzImage.
    pub kernel: Vec<u8>,
    /// The initial RAM disk.
    pub initrd: Vec<u8>,
    /// The command line.
    pub cmdline: String,
}

impl Image {
    /// Reads an image folder.
    ///
    /// # Errors
    /// [`ImageError`] names the part that is missing or malformed.
    pub fn read(folder: &Path) -> Result<Self, ImageError> {
        let path = folder.join(SHAPE);
        let shape = serde_json::from_slice(&read(&path)?)
            .map_err(|source| ImageError::Shape { path, source })?;
        let path = folder.join(CMDLINE);
        let cmdline = String::from_utf8(read(&path)?)
            .map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error))
            .map_err(|source| ImageError::File { path, source })?;
        Ok(Self {
            shape,
            firmware: read(&folder.join(FIRMWARE))?,
            kernel: read(&folder.join(KERNEL))?,
            initrd: read(&folder.join(INITRD))?,
            cmdline,
        })
    }

    /// Writes the folder; the same image is the same bytes.
    ///
    /// # Errors
    /// [`ImageError::Measure`] before anything is written, [`ImageError::File`] otherwise.
    pub fn write(&self, folder: &Path) -> Result<Measured, ImageError> {
        let measured = self.measure()?;
        let path = folder.join(SHAPE);
        let mut shape = serde_json::to_vec_pretty(&self.shape)
            .map_err(|source| ImageError::Shape { path: path.clone(), source })?;
        shape.push(b'\n');
        let failed = |source| ImageError::File { path: folder.to_owned(), source };
        fs::create_dir_all(folder).map_err(failed)?;
        write(&folder.join(FIRMWARE), &self.firmware)?;
        write(&folder.join(KERNEL), &self.kernel)?;
        write(&folder.join(INITRD), &self.initrd)?;
        write(&folder.join(CMDLINE), self.cmdline.as_bytes())?;
        write(&path, &shape)?;
        Ok(measured)
    }

    /// What the hardware measures when this image is launched.
    ///
    /// # Errors
    /// [`LaunchError`] where the parts are not what the algorithm needs.
    pub fn measure(&self) -> Result<Measured, LaunchError> {
        self.shape.measure(&Parts {
            firmware: &self.firmware,
            kernel: &self.kernel,
            initrd: &self.initrd,
            cmdline: &self.cmdline,
        })
    }

    /// What QEMU is told to boot: this image's files in `folder`.
    #[must_use]
    pub fn machine(&self, folder: &Path) -> vm::Image {
        vm::Image {
            firmware: folder.join(FIRMWARE),
            kernel: folder.join(KERNEL),
            initrd: folder.join(INITRD),
            cmdline: self.cmdline.clone(),
            cpu: self.shape.cpu.clone(),
            vcpus: self.shape.vcpus,
            memory_mib: self.shape.memory_mib,
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ImageError> {
    fs::read(path).map_err(|source| ImageError::File { path: path.to_owned(), source })
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), ImageError> {
    fs::write(path, bytes).map_err(|source| ImageError::File { path: path.to_owned(), source })
}
