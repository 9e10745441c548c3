//! The TDX registers of a guest that QEMU (10.1 or later) starts directly from a kernel.
//!
//! MRTD is what the TDX module computes while the loader adds pages (Intel TDX Module Base
//! Architecture Specification, section 11.2). RTMR0 to RTMR2 are what the firmware and the kernel's
//! EFI stub extend while they run; [`events`] lists every one, in order:
//!
//! | register | events |
//! |---|---|
//! | RTMR0 | memory layout (TD HOB); configuration volume (CFV); SecureBoot, PK, KEK, db, dbx, and dbt where present; separator; ACPI loader script, RSDP, tables; BootOrder; Boot0000 |
//! | RTMR1 | the kernel's Authenticode digest; "Calling EFI Application from Boot Option"; separator; "Exit Boot Services Invocation"; "Exit Boot Services Returned with Success" |
//! | RTMR2 | the command line as the kernel sees it; the initial RAM disk |
//! | RTMR3 | none |
//!
//! This models **OvmfPkg/IntelTdx of edk2-stable202408 to edk2-stable202502**: recorded logs of
//! such guests hold exactly these events. Other firmware extends other events:
//! - before that, the second separator went to RTMR0 instead of RTMR1;
//! - from edk2-stable202505 on, RTMR0 also holds QEMU's `BootMenu` and `bootorder` items after the
//!   configuration volume, the SMBIOS tables after the ACPI tables, and a second boot option.
//!
//! On hardware such firmware gives another RTMR0 than this model, and the launch is refused;
//! nothing is accepted that was not modelled. A firmware with enrolled keys (PK in its variable
//! store) runs with Secure Boot on, which the SecureBoot event shows; what Secure Boot adds when it
//! verifies a signed kernel (authority events in RTMR0) is not modelled.
//!
//! QEMU before 10.1 patches the kernel's setup header before the firmware measures it, which changes
//! RTMR1. That is not modelled either: it has no TDX of its own.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha384};

use super::hob::hand_off;
use super::ovmf::{Table, TdvfSection, TdvfSectionKind};
use super::pe::authenticode;
use super::varstore::{GLOBAL, SECURITY_DATABASE, Variables};
use super::{LaunchError, PAGE, PAGES_CAP, Parts, check_firmware};
use crate::digest::sha384;
use crate::octets::Octets;

/// What enters the registers besides the parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Guest memory in MiB (RTMR0).
    pub memory_mib: u32,
    /// How the loader adds pages (MRTD).
    pub page_order: PageOrder,
    /// The pinned ACPI digests (RTMR0).
    pub acpi: Acpi,
}

/// In which order pages of a measured section are added and extended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PageOrder {
    /// Each page is extended as soon as it is added: Linux 6.16 and later.
    SinglePass,
    /// All pages of a section are added, then all are extended: earlier patch sets.
    TwoPass,
}

/// SHA-384 of what QEMU hands to the firmware about ACPI.
///
/// They depend on QEMU's version, the processors and the devices, and AML is code that the guest
/// runs. So they are pinned here from a run of the same QEMU that someone has looked at; digests
/// taken from the guest's own event log would prove nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acpi {
    /// Of `etc/table-loader`.
    pub loader: Octets<48>,
    /// Of `etc/acpi/rsdp`.
    pub rsdp: Octets<48>,
    /// Of `etc/acpi/tables`.
    pub tables: Octets<48>,
}

/// MRTD, and RTMR0 to RTMR3 when the kernel starts its first process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registers {
    /// The build-time register.
    pub mrtd: [u8; 48],
    /// The run-time registers; RTMR3 is zero, nothing extends it before the first process.
    pub rtmr: [[u8; 48]; 4],
}

/// One extension of a run-time register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Which register.
    pub register: Rtmr,
    /// What is measured.
    pub name: &'static str,
    /// SHA-384 of it.
    pub digest: [u8; 48],
}

/// A run-time register that is extended before the first process starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rtmr {
    /// RTMR0, MR index 1 in event logs.
    Rtmr0,
    /// RTMR1, MR index 2.
    Rtmr1,
    /// RTMR2, MR index 3.
    Rtmr2,
}

/// The registers of `parts` in `shape`.
pub fn registers(parts: &Parts<'_>, shape: &Shape) -> Result<Registers, LaunchError> {
    let events = events(parts, shape)?;
    let replay = |register| {
        let own = events.iter().filter(|event| event.register == register);
        own.fold([0; 48], |value, event| sha384(&[value, event.digest].concat()))
    };
    Ok(Registers {
        mrtd: mrtd(parts.firmware, shape.page_order)?,
        rtmr: [replay(Rtmr::Rtmr0), replay(Rtmr::Rtmr1), replay(Rtmr::Rtmr2), [0; 48]],
    })
}

/// MRTD of a firmware image.
pub fn mrtd(firmware: &[u8], order: PageOrder) -> Result<[u8; 48], LaunchError> {
    check_firmware(firmware)?;
    let sections = sections(firmware)?;
    let mut hash = Sha384::new();
    for section in &sections {
        let data = section.data(firmware)?;
        let pages =
            pages(section).zip(data.chunks(PAGE.into()).map(Some).chain(core::iter::repeat(None)));
        match order {
            PageOrder::SinglePass => pages.for_each(|(gpa, data)| {
                add(&mut hash, section, gpa);
                extend(&mut hash, section, gpa, data);
            }),
            PageOrder::TwoPass => {
                pages.clone().for_each(|(gpa, _)| add(&mut hash, section, gpa));
                pages.for_each(|(gpa, data)| extend(&mut hash, section, gpa, data));
            }
        }
    }
    Ok(hash.finalize().into())
}

/// All extensions before the first process starts, in the order of the module's table.
pub fn events(parts: &Parts<'_>, shape: &Shape) -> Result<Vec<Event>, LaunchError> {
    parts.check()?;
    let sections = sections(parts.firmware)?;
    let mut events = Vec::new();
    let mut note = |register, name, digest| events.push(Event { register, name, digest });
    firmware_events(parts.firmware, &sections, shape, &mut note)?;
    for (name, digest) in [
        ("kernel", authenticode::<Sha384>(parts.kernel)?.finalize().into()),
        ("calling boot option", sha384(b"Calling EFI Application from Boot Option")),
        ("separator", sha384(&SEPARATOR)),
        ("exit boot services", sha384(b"Exit Boot Services Invocation")),
        ("boot services exited", sha384(b"Exit Boot Services Returned with Success")),
    ] {
        note(Rtmr::Rtmr1, name, digest);
    }
    note(Rtmr::Rtmr2, "command line", sha384(&load_options(parts)?));
    if !parts.initrd.is_empty() {
        note(Rtmr::Rtmr2, "initial ram disk", sha384(parts.initrd));
    }
    Ok(events)
}

/// The events of RTMR0.
fn firmware_events(
    firmware: &[u8],
    sections: &[TdvfSection],
    shape: &Shape,
    note: &mut impl FnMut(Rtmr, &'static str, [u8; 48]),
) -> Result<(), LaunchError> {
    let volume = configuration(sections)?.data(firmware)?;
    let variables = Variables::read(volume)?;
    let mut note = |name, digest| note(Rtmr::Rtmr0, name, digest);
    note("memory layout", sha384(&hand_off(sections, shape.memory_mib)?));
    note("configuration volume", sha384(volume));
    for (vendor, name, data) in secure_boot(&variables) {
        note(name, sha384(&variable(vendor, name, data)));
    }
    note("separator", sha384(&SEPARATOR));
    note("acpi loader", shape.acpi.loader.0);
    note("acpi rsdp", shape.acpi.rsdp.0);
    note("acpi tables", shape.acpi.tables.0);
    note("BootOrder", sha384(&[0, 0]));
    note("Boot0000", sha384(&BOOT_0000));
    Ok(())
}

/// EV_SEPARATOR's data (TCG PC Client Platform Firmware Profile, section 10.4.1).
const SEPARATOR: [u8; 4] = [0; 4];

/// The load option of the setup application, which edk2 registers first: attributes, length of
/// the path, "UiApp", `Fv(7cb8bdc9-…)/FvFile(462caa21-…)`.
const BOOT_0000: [u8; 62] = *b"\x09\x01\x00\x00\x2c\x00U\0i\0A\0p\0p\0\0\0\
    \x04\x07\x14\x00\xc9\xbd\xb8\x7c\xeb\xf8\x34\x4f\xaa\xea\x3e\xe4\xaf\x65\x16\xa1\
    \x04\x06\x14\x00\x21\xaa\x2c\x46\x14\x76\x03\x45\x83\x6e\x8a\xb6\xf4\x66\x23\x31\
    \x7f\xff\x04\x00";

/// The variables of the Secure Boot policy. A firmware with a platform key runs in user mode and
/// shows SecureBoot as 1; one without is taken to be built without Secure Boot, where the variable
/// does not exist.
fn secure_boot<'a>(
    variables: &Variables<'a>,
) -> impl Iterator<Item = (&'static [u8; 16], &'static str, &'a [u8])> {
    let is_on = variables.find(&GLOBAL, "PK").is_some_and(|key| !key.is_empty());
    let secure_boot: &[u8] = if is_on { &[1] } else { &[] };
    let stored = |vendor, name| (vendor, name, variables.find(vendor, name).unwrap_or_default());
    let always = [
        (&GLOBAL, "SecureBoot", secure_boot),
        stored(&GLOBAL, "PK"),
        stored(&GLOBAL, "KEK"),
        stored(&SECURITY_DATABASE, "db"),
        stored(&SECURITY_DATABASE, "dbx"),
    ];
    let present = variables.find(&SECURITY_DATABASE, "dbt").map(|d| (&SECURITY_DATABASE, "dbt", d));
    always.into_iter().chain(present)
}

/// UEFI_VARIABLE_DATA (TCG PC Client Platform Firmware Profile, section 10.4.2.2): vendor, length of
/// the name in characters, length of the data, name in UTF-16LE without NUL, data.
fn variable(vendor: &[u8; 16], name: &str, data: &[u8]) -> Vec<u8> {
    let length = |bytes: &[u8]| u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes();
    let mut event = Vec::from(*vendor);
    event.extend(length(name.as_bytes()));
    event.extend(length(data));
    event.extend(name.encode_utf16().flat_map(u16::to_le_bytes));
    event.extend(data);
    event
}

/// LoadOptions as the kernel's EFI stub measures them: UTF-16LE with a NUL, and with what OVMF
/// appends so that the stub finds the initial RAM disk (edk2, `GenericQemuLoadImageLib`).
fn load_options(parts: &Parts<'_>) -> Result<Vec<u8>, LaunchError> {
    if let Some(at) = parts.cmdline.bytes().position(|byte| !byte.is_ascii()) {
        return Err(LaunchError::CommandLineNotAscii { at });
    }
    let initrd = if parts.initrd.is_empty() { "" } else { " initrd=initrd" };
    if parts.cmdline.is_empty() && initrd.is_empty() {
        return Ok(Vec::new());
    }
    let text = parts.cmdline.encode_utf16().chain(initrd.encode_utf16()).chain([0]);
    Ok(text.flat_map(u16::to_le_bytes).collect())
}

fn sections(firmware: &[u8]) -> Result<Vec<TdvfSection>, LaunchError> {
    let sections = Table::parse(firmware)?.tdvf_sections()?;
    let page = u64::from(PAGE);
    let observed =
        sections.iter().fold(0u64, |pages, section| pages.saturating_add(section.size / page));
    if observed > PAGES_CAP {
        return Err(LaunchError::SectionPages { observed });
    }
    Ok(sections)
}

fn configuration(sections: &[TdvfSection]) -> Result<&TdvfSection, LaunchError> {
    let mut all = sections.iter().filter(|section| section.kind == TdvfSectionKind::Configuration);
    match (all.next(), all.count()) {
        (Some(section), 0) => Ok(section),
        (first, more) => Err(LaunchError::Sections {
            what: "configuration",
            observed: more.saturating_add(usize::from(first.is_some())),
        }),
    }
}

fn pages(section: &TdvfSection) -> impl Iterator<Item = u64> + Clone {
    (section.gpa..section.gpa.saturating_add(section.size)).step_by(PAGE.into())
}

/// TDH.MEM.PAGE.ADD: 128 bytes, the name at 0 and the address at 16.
fn add(hash: &mut Sha384, section: &TdvfSection, gpa: u64) {
    if !section.augmented {
        hash.update(b"MEM.PAGE.ADD\0\0\0\0");
        hash.update(gpa.to_le_bytes());
        hash.update([0; 104]);
    }
}

/// TDH.MR.EXTEND: 128 bytes of the same shape, then the 256 bytes that are measured.
fn extend(hash: &mut Sha384, section: &TdvfSection, gpa: u64, page: Option<&[u8]>) {
    let chunks = page.filter(|_| section.extended).unwrap_or_default().chunks(256);
    for (chunk, gpa) in chunks.zip((gpa..).step_by(256)) {
        hash.update(b"MR.EXTEND\0\0\0\0\0\0\0");
        hash.update(gpa.to_le_bytes());
        hash.update([0; 104]);
        hash.update(chunk);
    }
}
