//! The Authenticode digest of a PE image, as UEFI firmware computes it before it starts the image
//! (Windows Authenticode Portable Executable Signature Format, "Calculating the PE Image Hash";
//! the handling of bytes after the last section is that of edk2,
//! `OvmfPkg/Tcg/TdTcg2Dxe/MeasureBootPeCoff.c`).

use alloc::vec::Vec;

use sha2::Digest;

use super::LaunchError;
use super::ovmf::{size_at, slice, u16_at};

/// Hashes everything but the checksum, the certificate directory's entry and the certificates.
pub(super) fn authenticode<D: Digest>(image: &[u8]) -> Result<D, LaunchError> {
    let header = Header::read(image).ok_or(LaunchError::Kernel { what: "pe header" })?;
    let mut hash = D::new();
    hash_header(&mut hash, image, &header).ok_or(LaunchError::Kernel { what: "pe header" })?;
    let hashed = hash_sections(&mut hash, image, &header);
    let hashed = hashed.ok_or(LaunchError::Kernel { what: "section table" })?;
    hash_trailer(&mut hash, image, hashed, header.certificates)
        .ok_or(LaunchError::Kernel { what: "certificate table" })?;
    Ok(hash)
}

struct Header {
    checksum: usize,
    /// Where the directory entry of the certificates is, if the image has one.
    directory: Option<usize>,
    /// Size of the certificates at the end of the file, in bytes.
    certificates: usize,
    headers_size: usize,
    section_table: usize,
    sections: usize,
}

impl Header {
    fn read(image: &[u8]) -> Option<Self> {
        let pe = size_at(image, 0x3c)?;
        if !image.starts_with(b"MZ") || slice(image, pe, 4)? != b"PE\0\0" {
            return None;
        }
        let coff = pe.checked_add(4)?;
        let optional = coff.checked_add(20)?;
        let directories = optional.checked_add(match u16_at(image, optional)? {
            0x10b => 96,
            0x20b => 112,
            _ => return None,
        })?;
        let has_certificates = size_at(image, directories.checked_sub(4)?)? > 4;
        let entry = directories.checked_add(4 * 8)?;
        let optional_size = u16_at(image, coff.checked_add(16)?)?;
        Some(Self {
            checksum: optional.checked_add(64)?,
            directory: has_certificates.then_some(entry),
            certificates: if has_certificates { size_at(image, entry.checked_add(4)?)? } else { 0 },
            headers_size: size_at(image, optional.checked_add(60)?)?,
            section_table: optional.checked_add(optional_size)?,
            sections: u16_at(image, coff.checked_add(2)?)?,
        })
    }
}

fn hash_header<D: Digest>(hash: &mut D, image: &[u8], header: &Header) -> Option<()> {
    hash.update(image.get(..header.checksum)?);
    let mut from = header.checksum.checked_add(4)?;
    if let Some(entry) = header.directory {
        hash.update(image.get(from..entry)?);
        from = entry.checked_add(8)?;
    }
    hash.update(image.get(from..header.headers_size)?);
    Some(())
}

/// Hashes the sections in the order of their place in the file; returns the bytes hashed so far.
fn hash_sections<D: Digest>(hash: &mut D, image: &[u8], header: &Header) -> Option<usize> {
    let table = slice(image, header.section_table, header.sections.checked_mul(40)?)?;
    let mut sections = table
        .chunks_exact(40)
        .map(|section| Some((size_at(section, 20)?, size_at(section, 16)?)))
        .collect::<Option<Vec<_>>>()?;
    sections.sort_by_key(|(at, _)| *at);
    let mut hashed = header.headers_size;
    for (at, size) in sections.into_iter().filter(|(_, size)| *size != 0) {
        hash.update(slice(image, at, size)?);
        hashed = hashed.checked_add(size)?;
    }
    Some(hashed)
}

fn hash_trailer<D: Digest>(
    hash: &mut D,
    image: &[u8],
    hashed: usize,
    certificates: usize,
) -> Option<()> {
    if image.len() > hashed {
        let end = image.len().checked_sub(certificates)?;
        hash.update(image.get(hashed..end)?);
    }
    Some(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use alloc::vec;
    use sha2::{Sha256, Sha384};

    /// A PE32+ image with two sections, stored out of order, 24 bytes after them and a
    /// certificate of 16 bytes.
    pub(in crate::launch) fn golden() -> Vec<u8> {
        let mut image: Vec<u8> = (0..0x400u32 + 0x28).map(|at| at.to_le_bytes()[0]).collect();
        image[..2].copy_from_slice(b"MZ");
        put(&mut image, 0x3c, 0x40);
        image[0x40..0x44].copy_from_slice(b"PE\0\0");
        image[0x46..0x48].copy_from_slice(&2u16.to_le_bytes());
        image[0x54..0x56].copy_from_slice(&160u16.to_le_bytes());
        image[0x58..0x5a].copy_from_slice(&0x20bu16.to_le_bytes());
        put(&mut image, 0x58 + 60, 0x200);
        put(&mut image, 0x58 + 108, 6);
        put(&mut image, 0x58 + 112 + 32, 0x418);
        put(&mut image, 0x58 + 112 + 36, 0x10);
        for (index, at) in [0x300, 0x200].into_iter().enumerate() {
            put(&mut image, 0xf8 + 40 * index + 16, 0x100);
            put(&mut image, 0xf8 + 40 * index + 20, at);
        }
        image
    }

    fn put(image: &mut [u8], at: usize, value: u32) {
        image[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    fn digest(image: &[u8]) -> Result<Vec<u8>, LaunchError> {
        authenticode::<Sha384>(image).map(|hash| hash.finalize().to_vec())
    }

    #[test]
    fn hashes_all_but_checksum_directory_entry_and_certificates() {
        let image = golden();
        let mut expected = Sha256::new();
        for range in [0..0x98, 0x9c..0xe8, 0xf0..0x418] {
            expected.update(&image[range]);
        }
        assert_eq!(authenticode::<Sha256>(&image).unwrap().finalize(), expected.finalize());
    }

    #[test]
    fn ignores_exactly_what_a_signature_changes() {
        let image = golden();
        for at in 0..image.len() {
            let mut changed = image.clone();
            changed[at] ^= 1;
            let skipped = (0x98..0x9c).contains(&at) || (0xe8..0xec).contains(&at) || at >= 0x418;
            assert_eq!(digest(&changed) == digest(&image), skipped, "byte {at:#x}");
        }
    }

    #[test]
    fn refuses_every_prefix_and_never_panics() {
        let image = golden();
        for length in 0..0x400 {
            assert!(digest(&image[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn rejects_sections_outside_the_file() {
        for (at, value) in [(0xf8 + 16, u32::MAX), (0xf8 + 20, u32::MAX), (0xf8 + 20, 0x400)] {
            let mut image = golden();
            put(&mut image, at, value);
            assert_eq!(digest(&image), Err(LaunchError::Kernel { what: "section table" }));
        }
    }

    #[test]
    fn rejects_certificates_larger_than_what_follows_the_sections() {
        let mut image = golden();
        put(&mut image, 0x58 + 112 + 36, 0x29);
        assert_eq!(digest(&image), Err(LaunchError::Kernel { what: "certificate table" }));
    }

    #[test]
    fn rejects_what_is_no_pe_image() {
        for image in [vec![], vec![0; 0x400], b"MZ".to_vec(), vec![0xff; 0x400]] {
            assert_eq!(digest(&image), Err(LaunchError::Kernel { what: "pe header" }));
        }
    }
}
