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

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    const SHAPE: &str = r#"{"platform":"snp","cpu":"EPYC-v4","vcpus":1,"memory_mib":512,
        "guest_features":1}"#;
    const VECTORS: &str =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/vectors/cpu/launch");

    fn folder(firmware: &[u8], kernel: &[u8], initrd: &[u8], cmdline: &str) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in [
            ("image.json", SHAPE.as_bytes()),
            ("firmware.fd", firmware),
            ("kernel", kernel),
            ("initrd", initrd),
            ("cmdline", cmdline.as_bytes()),
        ] {
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        folder
    }

    #[test]
    fn measures_the_folder_and_digests_every_file() {
        let vector = |name: &str| fs::read(Path::new(VECTORS).join(name));
        let (Ok(firmware), Ok(kernel)) = (vector("ovmf_AmdSev_suffix.bin"), vector("kernel.bin"))
        else {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "no vectors");
            println!("vectors are missing: nothing was measured");
            return;
        };
        let folder = folder(&firmware, &kernel, b"initrd", "console=ttyS0");
        let image = read(folder.path()).unwrap();
        let parts = Parts {
            firmware: &firmware,
            kernel: &kernel,
            initrd: b"initrd",
            cmdline: "console=ttyS0",
        };
        let shape: launch::Image = serde_json::from_str(SHAPE).unwrap();
        assert_eq!(image.measured, shape.measure(&parts).unwrap());
        let names: Vec<_> = image.parts.iter().map(|part| part.name.as_str()).collect();
        assert_eq!(names, ["cmdline", "firmware.fd", "image.json", "initrd", "kernel"]);
        assert_eq!(image.parts[4].digest, Digest::of(&kernel));
        fs::write(folder.path().join("cmdline"), "console=ttyS0\n").unwrap();
        assert_ne!(read(folder.path()).unwrap().measured, image.measured);
    }

    #[test]
    fn refuses_parts_that_cannot_be_measured() {
        let folder = folder(b"no firmware", b"", b"", "");
        let error = read(folder.path()).unwrap_err();
        assert!(matches!(error, ImageError::Measure { .. }), "{error}");
        fs::write(folder.path().join("image.json"), r#"{"platform":"sgx"}"#).unwrap();
        let error = read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("unknown variant `sgx`"), "{error}");
        fs::remove_file(folder.path().join("image.json")).unwrap();
        assert!(matches!(read(folder.path()), Err(ImageError::File(_))));
    }
}
