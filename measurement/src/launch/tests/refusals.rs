//! What is refused.

use super::*;

#[test]
fn rejects_a_command_line_that_is_not_obeyed_as_measured() {
    let with = |cmdline: &str| Golden::new().with(|g| g.cmdline = cmdline.to_owned());
    let long = "a".repeat(CMDLINE_CAP + 1);
    let observed = CMDLINE_CAP + 1;
    assert_eq!(with(&long).snp(), Err(LaunchError::CommandLineLength { observed }));
    assert_eq!(with("a\0b").snp(), Err(LaunchError::CommandLineNul { at: 1 }));
    assert_eq!(with("a\0b").tdx(), Err(LaunchError::CommandLineNul { at: 1 }));
    assert_eq!(with("aé").tdx(), Err(LaunchError::CommandLineNotAscii { at: 1 }));
    assert!(with("aé").snp().is_ok());
}

#[test]
fn rejects_shapes_that_cannot_be_launched() {
    let golden = Golden::new();
    let shape = snp_shape();
    for (changed, error) in [
        (snp::Shape { vcpus: 0, ..shape }, LaunchError::Vcpus { observed: 0 }),
        (snp::Shape { vcpus: 4097, ..shape }, LaunchError::Vcpus { observed: 4097 }),
        (snp::Shape { guest_features: 0, ..shape }, LaunchError::GuestFeatures { observed: 0 }),
        (
            snp::Shape { guest_features: 0x20, ..shape },
            LaunchError::GuestFeatures { observed: 0x20 },
        ),
    ] {
        assert_eq!(snp::launch_digest(&golden.parts(), &changed), Err(error));
    }
    let small = tdx::Shape { memory_mib: 8, ..tdx_shape() };
    let error = LaunchError::Section { gpa: 0x80_0000, size: 0x6000 };
    assert_eq!(tdx::registers(&golden.parts(), &small), Err(error));
    let huge = tdx::Shape { memory_mib: u32::MAX, ..tdx_shape() };
    assert!(tdx::registers(&golden.parts(), &huge).is_ok());
}

#[test]
fn rejects_a_second_processor_without_a_reset_vector() {
    let mut firmware = Firmware::parse(&firmware()).unwrap();
    firmware.reset_eip = None;
    assert_eq!(
        firmware.launch_digest(None, &snp_shape()),
        Err(LaunchError::VcpuReset { observed: 2 })
    );
}

#[test]
fn rejects_firmware_without_whole_pages() {
    for length in [0, 20, 4095, 4097, FIRMWARE_CAP + 4096] {
        let golden = Golden::new().with(|g| g.firmware = alloc::vec![0; length]);
        assert_eq!(golden.snp(), Err(LaunchError::FirmwareSize { observed: length }));
        assert_eq!(golden.tdx(), Err(LaunchError::FirmwareSize { observed: length }));
    }
}

#[test]
fn rejects_a_broken_guid_table() {
    let length = firmware().len();
    let footer = length - 50;
    for (at, bytes) in [
        (footer, &[0xff, 0xff][..]), // longer than the image
        (footer, &[0, 0]),           // shorter than its own header
        (footer, &[17, 0]),
        (footer, &[19, 0]), // a rest too short for an entry
        (footer + 2, &[0]), // another GUID
        (footer - 18, &[0, 0]),
        (footer - 18, &[17, 0]),
        (footer - 18, &[0xff, 0xff]),
        (footer - 16, &firmware()[footer - 38..footer - 22]), // one GUID twice
    ] {
        let golden = Golden::new().with(|g| put(&mut g.firmware, at, bytes));
        let error = LaunchError::Firmware { what: "guid table", at: length };
        assert_eq!(golden.snp(), Err(error), "{at:#x}");
        assert_eq!(golden.tdx(), Err(error), "{at:#x}");
    }
}

#[test]
fn rejects_broken_metadata() {
    for (sev, at, value) in [
        (true, 0, 0),  // no magic
        (true, 4, 0),  // length
        (true, 8, 2),  // version
        (true, 12, 0), // count
        (true, 12, u32::MAX),
        (true, 16 + 8, 9), // kind of section
        (false, 0, 0),
        (false, 4, 0),
        (false, 8, 2),
        (false, 12, 0),
        (false, 12, u32::MAX),
        (false, 16 + 24, 9),
        (false, 16 + 28, 4),          // attribute
        (false, 16 + 4, 0x1000),      // less data than memory
        (false, 16 + 8, 0xffff_e001), // not a page
        (false, 16 + 12, u32::MAX),   // around the address space
        (false, 16 + 96 + 28, 1),     // measured, without data
    ] {
        let start = if sev { SEV } else { TDVF };
        let change = |g: &mut Golden| put(&mut g.firmware, start + at, &u32::to_le_bytes(value));
        let golden = Golden::new().with(change);
        let error = if sev { golden.snp().err() } else { golden.tdx().err() };
        let what = if sev { "sev metadata" } else { "tdvf metadata" };
        assert_eq!(error, Some(LaunchError::Firmware { what, at: start }), "{at}");
    }
}

#[test]
fn rejects_metadata_offsets_outside_the_image() {
    let length = firmware().len();
    // The last two entries before the footer: 22 bytes each, the offset first.
    for (entry, what) in [(22, "tdvf metadata"), (44, "sev metadata")] {
        for offset in [0, 1, 15, length as u32 + 1, u32::MAX] {
            let at = length - 50 - entry;
            let change = |g: &mut Golden| put(&mut g.firmware, at, &offset.to_le_bytes());
            let golden = Golden::new().with(change);
            let error = if entry == 22 { golden.tdx().err() } else { golden.snp().err() };
            let Some(LaunchError::Firmware { what: observed, .. }) = error else {
                panic!("{offset:#x}: {error:?}")
            };
            assert_eq!(observed, what);
        }
    }
}

#[test]
fn rejects_sections_that_no_loader_could_add() {
    for (index, field, value, error) in [
        (0, 0, 0x80_0001, LaunchError::Section { gpa: 0x80_0001, size: 0x2000 }),
        (0, 4, 0, LaunchError::Section { gpa: 0x80_0000, size: 0 }),
        (0, 4, 0xffff_f000, LaunchError::Section { gpa: 0x80_0000, size: 0xffff_f000 }),
        (0, 4, 0x7000_0000, LaunchError::SectionPages { observed: 0x7_0004 }),
        (0, 8, 0x10, LaunchError::Sections { what: "kernel hashes", observed: 2 }),
        (4, 8, 1, LaunchError::HashTableMissing),
        (4, 0, 0x82_0000, LaunchError::Firmware { what: "hash table address", at: 0 }),
        (4, 4, 0x2000, LaunchError::Firmware { what: "hash table address", at: 0 }),
    ] {
        let at = SEV + 16 + 12 * index + field;
        let change = |g: &mut Golden| put(&mut g.firmware, at, &u32::to_le_bytes(value));
        assert_eq!(Golden::new().with(change).snp(), Err(error), "{index} {field}");
    }
}

#[test]
fn rejects_trust_domains_with_unclear_sections() {
    for (index, field, value, error) in [
        (3, 24, 2, LaunchError::Sections { what: "td hob", observed: 2 }),
        (2, 24, 3, LaunchError::Sections { what: "td hob", observed: 0 }),
        (1, 24, 0, LaunchError::Sections { what: "configuration", observed: 0 }),
        (0, 24, 1, LaunchError::Sections { what: "configuration", observed: 2 }),
        (3, 8, 0x80_8000, LaunchError::Section { gpa: 0x80_9000, size: 0x2000 }),
        (3, 16, 0x6000_0000, LaunchError::SectionPages { observed: 0x6_0005 }),
    ] {
        let at = TDVF + 16 + 32 * index + field;
        let change = |g: &mut Golden| put(&mut g.firmware, at, &u32::to_le_bytes(value));
        assert_eq!(Golden::new().with(change).tdx(), Err(error), "{index} {field}");
    }
}

#[test]
fn rejects_a_kernel_that_tdx_firmware_would_not_start() {
    let golden = Golden::new().with(|g| g.kernel = b"\x7fELF".to_vec());
    assert_eq!(golden.tdx(), Err(LaunchError::Kernel { what: "pe header" }));
    assert!(golden.snp().is_ok());
}

#[test]
fn never_panics_on_mutated_firmware() {
    let golden = firmware();
    // Every prefix that is whole pages, every suffix, and every byte of the structures.
    for length in (0..=golden.len()).step_by(512) {
        let _ = Golden::new().with(|g| g.firmware.truncate(length)).snp();
        let _ = tdx::mrtd(&golden[golden.len() - length..], PageOrder::TwoPass);
    }
    let structures = (0..0xa0).chain(SEV..SEV + 76).chain(TDVF..TDVF + 144);
    for at in structures.chain(golden.len() - 180..golden.len()) {
        for value in [0x00, 0x01, 0x7f, 0x80, 0xff] {
            let golden = Golden::new().with(|g| g.firmware[at] = value);
            let shape = snp::Shape { vcpus: 1, ..snp_shape() };
            let _ = snp::launch_digest(&golden.parts(), &shape);
            let _ = tdx::events(&golden.parts(), &tdx_shape());
        }
    }
}
