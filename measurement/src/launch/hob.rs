//! The hand-off blocks that QEMU writes for TDX firmware: which memory is there, and which of it
//! was added before the start (UEFI PI 1.8, volume 3, section 5; QEMU, `hw/i386/tdvf-hob.c`).

use alloc::vec::Vec;

use super::LaunchError;
use super::ovmf::{TdvfSection, TdvfSectionKind};

/// Guests with at least this much memory have 2 GiB of it below 4 GiB, others all (QEMU's q35).
const SPLIT_FROM: u64 = 0xb000_0000;
const LOW_WHEN_SPLIT: u64 = 0x8000_0000;
const FOUR_GIB: u64 = 1 << 32;

const SYSTEM_MEMORY: u32 = 0;
const UNACCEPTED_MEMORY: u32 = 7;

/// The bytes that the firmware measures as "TdxTable": the list without its end marker.
pub(super) fn hand_off(sections: &[TdvfSection], memory_mib: u32) -> Result<Vec<u8>, LaunchError> {
    let memory = u64::from(memory_mib) << 20;
    let low = if memory >= SPLIT_FROM { LOW_WHEN_SPLIT } else { memory };
    let mut resources = resources(sections, low)?;
    if memory > low {
        resources.push((UNACCEPTED_MEMORY, FOUR_GIB, memory.saturating_sub(low)));
    }
    let base = base(sections)?;
    let length = resources.len().saturating_mul(48).saturating_add(56 + 8);
    let end = u64::try_from(length).ok().and_then(|length| base.checked_add(length));
    let end = end.ok_or(LaunchError::Section { gpa: base, size: 0 })?;
    Ok(list(&resources, end))
}

/// Address of the one section that holds the list.
fn base(sections: &[TdvfSection]) -> Result<u64, LaunchError> {
    let mut all = sections.iter().filter(|section| section.kind == TdvfSectionKind::HandOff);
    match (all.next(), all.count()) {
        (Some(section), 0) => Ok(section.gpa),
        (first, more) => Err(LaunchError::Sections {
            what: "td hob",
            observed: more.saturating_add(usize::from(first.is_some())),
        }),
    }
}

/// Kind, start and length of each range below 4 GiB, in order.
fn resources(sections: &[TdvfSection], low: u64) -> Result<Vec<(u32, u64, u64)>, LaunchError> {
    let is_added = |section: &&TdvfSection| {
        matches!(section.kind, TdvfSectionKind::HandOff | TdvfSectionKind::Temporary)
    };
    let mut added: Vec<_> = sections.iter().filter(is_added).collect();
    added.sort_by_key(|section| section.gpa);
    let mut resources = Vec::new();
    let mut at = 0u64;
    for &&TdvfSection { gpa, size, .. } in &added {
        let end = gpa.checked_add(size).filter(|end| gpa >= at && *end <= low);
        let end = end.ok_or(LaunchError::Section { gpa, size })?;
        if gpa > at {
            resources.push((UNACCEPTED_MEMORY, at, gpa.saturating_sub(at)));
        }
        resources.push((SYSTEM_MEMORY, gpa, size));
        at = end;
    }
    if at < low {
        resources.push((UNACCEPTED_MEMORY, at, low.saturating_sub(at)));
    }
    Ok(resources)
}

fn list(resources: &[(u32, u64, u64)], end: u64) -> Vec<u8> {
    let mut list = Vec::new();
    // EFI_HOB_HANDOFF_INFO_TABLE: type 1, 56 bytes, version 9, five addresses of which QEMU sets
    // the last one.
    for part in [1u16, 56, 0, 0, 9, 0, 0, 0] {
        list.extend(part.to_le_bytes());
    }
    for address in [0, 0, 0, 0, end] {
        list.extend(address.to_le_bytes());
    }
    // EFI_HOB_RESOURCE_DESCRIPTOR: type 3, 48 bytes, no owner; present, initialised and tested.
    for (kind, start, length) in resources {
        for part in [3u16, 48, 0, 0] {
            list.extend(part.to_le_bytes());
        }
        list.extend([0; 16]);
        list.extend(kind.to_le_bytes());
        list.extend(7u32.to_le_bytes());
        list.extend(start.to_le_bytes());
        list.extend(length.to_le_bytes());
    }
    list
}
