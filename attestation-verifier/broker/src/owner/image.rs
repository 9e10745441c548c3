//! An image folder as the manifest sees it: what the hardware will measure, and each file's digest.

use std::path::{Path, PathBuf};

use measurement::digest::Digest;
use measurement::launch::{self, LaunchError, Parts};
use measurement::manifest::{Image, Part};
use thiserror::Error;

use super::files::{self, FileError};

const MAX_FIRMWARE: u64 = 16 << 20;
const MAX_KERNEL: u64 = 256 << 20;
const MAX_INITRD: u64 = 2 << 30;
const MAX_TEXT: u64 = 64 << 10;

/// Why a folder gives no image.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ImageError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The parts cannot be measured.
    #[error("{}: {source}", path.display())]
    Measure {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: LaunchError,
    },
    /// `image.json` is not the shape of an image.
    #[error("{}: {problem}", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// The parser's words.
        problem: String,
    },
}

/// Reads and measures the image in `folder`.
///
/// # Errors
/// [`ImageError`].
pub fn read(folder: &Path) -> Result<Image, ImageError> {
    let shape = folder.join("image.json");
    let text = files::read(&shape, MAX_TEXT)?;
    let image: launch::Image = serde_json::from_slice(&text)
        .map_err(|e| ImageError::Shape { path: shape, problem: e.to_string() })?;
    let firmware = files::read(&folder.join("firmware.fd"), MAX_FIRMWARE)?;
    let kernel = files::read(&folder.join("kernel"), MAX_KERNEL)?;
    let initrd = files::read(&folder.join("initrd"), MAX_INITRD)?;
    let cmdline = files::read_text(&folder.join("cmdline"), MAX_TEXT)?;
    let parts = Parts { firmware: &firmware, kernel: &kernel, initrd: &initrd, cmdline: &cmdline };
    let measured = image
        .measure(&parts)
        .map_err(|source| ImageError::Measure { path: folder.to_owned(), source })?;
    let part = |name: &str, bytes| Part { digest: Digest::of(bytes), name: name.to_owned() };
    let parts = vec![
        part("cmdline", cmdline.as_bytes()),
        part("firmware.fd", &firmware),
        part("image.json", &text),
        part("initrd", &initrd),
        part("kernel", &kernel),
    ];
    Ok(Image { measured, parts })
}
