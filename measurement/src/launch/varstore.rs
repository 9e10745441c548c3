//! The UEFI variable store that a firmware image carries in its configuration volume.
//!
//! Volume header (UEFI PI 1.8, volume 3, section 3.2.1), then an authenticated variable store
//! (edk2, `MdeModulePkg/Include/Guid/VariableFormat.h`): a 28-byte header, then variables of a
//! 60-byte header, the name in UTF-16 with its NUL, and the data, each aligned to 4 bytes.

use alloc::vec::Vec;

use super::LaunchError;
use super::ovmf::{array, guid, size_at, slice, u16_at};

/// EFI_GLOBAL_VARIABLE (UEFI 2.10, section 3.3).
pub(super) const GLOBAL: [u8; 16] =
    guid(0x8be4_df61, 0x93ca, 0x11d2, [0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c]);
/// EFI_IMAGE_SECURITY_DATABASE_GUID (UEFI 2.10, section 32.4).
pub(super) const SECURITY_DATABASE: [u8; 16] =
    guid(0xd719_b2cb, 0x3d3a, 0x4596, [0xa3, 0xbc, 0xda, 0xd0, 0x0e, 0x67, 0x65, 0x6f]);

const SYSTEM_VOLUME: [u8; 16] =
    guid(0xfff1_2b8d, 0x7696, 0x4c8b, [0xa9, 0x85, 0x27, 0x47, 0x07, 0x5b, 0x4f, 0x50]);
const AUTHENTICATED_STORE: [u8; 16] =
    guid(0xaaf3_2c78, 0x947b, 0x439a, [0xa1, 0x80, 0x2e, 0x14, 0x4e, 0xc3, 0x77, 0x92]);

const STORE_HEADER: usize = 28;
const VARIABLE_HEADER: usize = 60;
const FORMATTED_AND_HEALTHY: [u8; 2] = [0x5a, 0xfe];
const START_OF_VARIABLE: usize = 0x55aa;
/// The state of a variable that was written and not deleted since.
const ADDED: u8 = 0x3f;
const VARIABLES_CAP: usize = 4096;

/// The variables of a store that were not deleted.
pub(super) struct Variables<'a> {
    found: Vec<Variable<'a>>,
}

struct Variable<'a> {
    vendor: [u8; 16],
    /// UTF-16LE with its NUL.
    name: &'a [u8],
    data: &'a [u8],
}

impl<'a> Variables<'a> {
    pub(super) fn read(volume: &'a [u8]) -> Result<Self, LaunchError> {
        let malformed = LaunchError::Firmware { what: "variable store", at: 0 };
        let store = store(volume).ok_or(malformed)?;
        variables(store).map(|found| Self { found }).ok_or(malformed)
    }

    /// The data of a variable, by vendor and (ASCII) name.
    pub(super) fn find(&self, vendor: &[u8; 16], name: &str) -> Option<&'a [u8]> {
        let name: Vec<u8> = name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
        let is_it = |variable: &&Variable<'_>| variable.vendor == *vendor && variable.name == name;
        self.found.iter().find(is_it).map(|variable| variable.data)
    }
}

fn store(volume: &[u8]) -> Option<&[u8]> {
    let header = u16_at(volume, 48)?;
    let volume_is_known = array(volume, 16)? == SYSTEM_VOLUME && slice(volume, 40, 4)? == b"_FVH";
    let store = volume.get(header..)?;
    let size = size_at(store, 16)?;
    let store_is_known =
        array(store, 0)? == AUTHENTICATED_STORE && array(store, 20)? == FORMATTED_AND_HEALTHY;
    (volume_is_known && store_is_known).then(|| store.get(STORE_HEADER..size))?
}

fn variables(store: &[u8]) -> Option<Vec<Variable<'_>>> {
    let mut found = Vec::new();
    let mut at = 0usize;
    for _ in 0..VARIABLES_CAP {
        match u16_at(store, at) {
            Some(START_OF_VARIABLE) => (),
            _ => return Some(found),
        }
        let header = slice(store, at, VARIABLE_HEADER)?;
        let (name_size, data_size) = (size_at(header, 36)?, size_at(header, 40)?);
        let name_at = at.checked_add(VARIABLE_HEADER)?;
        let data_at = name_at.checked_add(name_size)?;
        let (name, data) = (slice(store, name_at, name_size)?, slice(store, data_at, data_size)?);
        if header.get(2) == Some(&ADDED) {
            found.push(Variable { vendor: array(header, 44)?, name, data });
        }
        // Offsets are relative to the end of the store's 28-byte header, itself aligned to 4.
        at = data_at.checked_add(data_size)?.checked_next_multiple_of(4)?;
    }
    None
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A volume of `size` bytes with `variables`: vendor, name, data, state.
    pub(in crate::launch) fn volume(
        size: usize,
        variables: &[([u8; 16], &str, &[u8], u8)],
    ) -> Vec<u8> {
        let mut volume = [&[0; 16], &SYSTEM_VOLUME[..], &[0; 8], b"_FVH", &[0; 4]].concat();
        volume.extend([72, 0]);
        volume.resize(72, 0);
        volume.extend(AUTHENTICATED_STORE);
        volume.extend(u32::try_from(size - 72).unwrap().to_le_bytes());
        volume.extend([0x5a, 0xfe, 0, 0, 0, 0, 0, 0]);
        for (vendor, name, data, state) in variables {
            let name: Vec<u8> = name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
            volume.extend([0xaa, 0x55, *state, 0]);
            volume.extend([0; 32]);
            volume.extend(u32::try_from(name.len()).unwrap().to_le_bytes());
            volume.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
            volume.extend([&vendor[..], &name, data].concat());
            volume.resize(volume.len().next_multiple_of(4), 0xff);
        }
        volume.resize(size, 0xff);
        volume
    }

    #[test]
    fn finds_live_variables_only() {
        let variables: [([u8; 16], &str, &[u8], u8); 3] = [
            (GLOBAL, "PK", b"deleted", 0x3d),
            (GLOBAL, "PK", b"key", ADDED),
            (GLOBAL, "KEK", b"k", ADDED),
        ];
        let volume = volume(4096, &variables);
        let variables = Variables::read(&volume).unwrap();
        assert_eq!(variables.find(&GLOBAL, "PK"), Some(&b"key"[..]));
        assert_eq!(variables.find(&GLOBAL, "KEK"), Some(&b"k"[..]));
        assert_eq!(variables.find(&SECURITY_DATABASE, "PK"), None);
        assert_eq!(variables.find(&GLOBAL, "P"), None);
    }

    #[test]
    fn rejects_a_variable_longer_than_its_store() {
        for at in [72 + 28 + 36, 72 + 28 + 40] {
            let mut volume = volume(4096, &[(GLOBAL, "PK", b"key", ADDED)]);
            volume[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
            assert_eq!(
                Variables::read(&volume).err(),
                Some(LaunchError::Firmware { what: "variable store", at: 0 })
            );
        }
    }

    #[test]
    fn never_panics_on_any_prefix() {
        let volume = volume(512, &[(GLOBAL, "PK", b"key", ADDED)]);
        for length in 0..volume.len() {
            assert!(Variables::read(&volume[..length]).is_err(), "{length}");
        }
    }
}
