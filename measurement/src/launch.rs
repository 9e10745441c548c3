//! Launch measurement: what the hardware says was started, computed from the parts alone.
//!
//! [`snp::launch_digest`] is the MEASUREMENT of an SEV-SNP report, [`tdx::registers`] are MRTD and
//! RTMR0 to RTMR3 of a TDX quote, and [`blob`] is the document whose digest the loader puts into
//! HOST_DATA or MRCONFIGID. All three are facts: bytes in, bytes out, the same for everyone.
//!
//! What no launch digest covers is listed in the README of this folder, per platform. Read that
//! list before writing a policy.

mod cpu;
mod hob;
mod ovmf;
mod pe;
mod varstore;

pub mod blob;
pub mod snp;
pub mod tdx;

use alloc::string::String;

use serde::{Deserialize, Serialize};

use crate::octets::Octets;

pub use cpu::{CpuModel, UnknownCpu};
pub use ovmf::{SevSection, SevSectionKind};

/// Bytes of a page, on both platforms.
pub(crate) const PAGE: u16 = 4096;
/// Longest firmware accepted, in bytes. Real images have 2 to 8 MiB.
pub const FIRMWARE_CAP: usize = 16 << 20;
/// Longest command line accepted, in bytes: Linux cuts at 2048 with the NUL on x86, and TDX
/// firmware appends 14 more. A longer one would be measured whole and obeyed in part.
pub const CMDLINE_CAP: usize = 2048 - 1 - 14;
/// Most virtual processors accepted.
pub const VCPUS_CAP: u32 = 4096;
/// Most pages that a firmware's metadata may ask for (1 GiB).
pub const PAGES_CAP: u64 = 1 << 18;

/// The four files of an image that the hardware measures, directly or through each other.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// OVMF, as the loader maps it below 4 GiB.
    pub firmware: &'a [u8],
    /// Linux `bzImage`.
    pub kernel: &'a [u8],
    /// Initial RAM disk; empty means that there is none.
    pub initrd: &'a [u8],
    /// Kernel command line, without a NUL. Every byte counts, white space too.
    pub cmdline: &'a str,
}

impl Parts<'_> {
    fn check(&self) -> Result<(), LaunchError> {
        if let Some(at) = self.cmdline.bytes().position(|byte| byte == 0) {
            return Err(LaunchError::CommandLineNul { at });
        }
        let observed = self.cmdline.len();
        if observed > CMDLINE_CAP {
            return Err(LaunchError::CommandLineLength { observed });
        }
        check_firmware(self.firmware)
    }
}

fn check_firmware(firmware: &[u8]) -> Result<(), LaunchError> {
    let observed = firmware.len();
    let whole = observed.is_multiple_of(usize::from(PAGE));
    if observed == 0 || observed > FIRMWARE_CAP || !whole {
        return Err(LaunchError::FirmwareSize { observed });
    }
    Ok(())
}

/// `image.json`: the shape in which an image is launched. The host keeps it, no one believes it: a
/// wrong shape gives a wrong measurement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Which hardware.
    pub platform: Platform,
    /// QEMU's `-cpu`. Measured on SNP (see [`CpuModel`]), not on TDX.
    pub cpu: String,
    /// Virtual processors. Measured on SNP; on TDX only the ACPI tables tell.
    pub vcpus: u32,
    /// Guest memory in MiB. Measured on TDX, not on SNP.
    pub memory_mib: u32,
    /// SEV_FEATURES of every virtual processor (SNP; bit 0 is SNP itself). Not used on TDX.
    #[serde(default)]
    pub guest_features: u64,
    /// The pinned ACPI digests; TDX only, and required there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acpi: Option<tdx::Acpi>,
    /// The order in which the loader adds pages; TDX only. Absent means single pass, what
    /// Linux 6.16 and later do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_order: Option<tdx::PageOrder>,
}

impl Image {
    /// Computes what the hardware would measure if it launched `parts` in this shape.
    pub fn measure(&self, parts: &Parts<'_>) -> Result<Measured, LaunchError> {
        match self.platform {
            Platform::Snp => self.measure_snp(parts),
            Platform::Tdx => self.measure_tdx(parts),
        }
    }

    fn measure_snp(&self, parts: &Parts<'_>) -> Result<Measured, LaunchError> {
        if self.acpi.is_some() || self.page_order.is_some() {
            return Err(LaunchError::TdxFieldForSnp);
        }
        let cpu = self.cpu.parse()?;
        let shape = snp::Shape { vcpus: self.vcpus, cpu, guest_features: self.guest_features };
        Ok(Measured::Snp { launch_digest: Octets(snp::launch_digest(parts, &shape)?) })
    }

    fn measure_tdx(&self, parts: &Parts<'_>) -> Result<Measured, LaunchError> {
        let acpi = self.acpi.ok_or(LaunchError::AcpiMissing)?;
        let page_order = self.page_order.unwrap_or(tdx::PageOrder::SinglePass);
        let shape = tdx::Shape { memory_mib: self.memory_mib, page_order, acpi };
        let tdx::Registers { mrtd, rtmr: [rtmr0, rtmr1, rtmr2, _] } =
            tdx::registers(parts, &shape)?;
        Ok(Measured::Tdx {
            mrtd: Octets(mrtd),
            rtmr0: Octets(rtmr0),
            rtmr1: Octets(rtmr1),
            rtmr2: Octets(rtmr2),
        })
    }
}

/// Which hardware an image is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Platform {
    /// AMD SEV-SNP.
    Snp,
    /// Intel TDX.
    Tdx,
}

/// What the hardware measures when an image is launched in its shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Measured {
    /// AMD SEV-SNP.
    Snp {
        /// MEASUREMENT of the report.
        launch_digest: Octets<48>,
    },
    /// Intel TDX.
    Tdx {
        /// The build-time register.
        mrtd: Octets<48>,
        /// Firmware configuration.
        rtmr0: Octets<48>,
        /// Kernel.
        rtmr1: Octets<48>,
        /// Command line and initial RAM disk.
        rtmr2: Octets<48>,
    },
}

/// Why parts and shape cannot be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// TDX measures the host's ACPI tables.
    #[error("no acpi digests are pinned, tdx requires three")]
    AcpiMissing,
    /// The command line is longer than a kernel obeys.
    #[error("command line has {observed} bytes, at most {CMDLINE_CAP} are obeyed")]
    CommandLineLength {
        /// Its length in bytes.
        observed: usize,
    },
    /// TDX firmware widens each byte to UTF-16, which garbles anything but ASCII.
    #[error("command line byte {at} is not ascii, which tdx firmware requires")]
    CommandLineNotAscii {
        /// Offset of the first such byte.
        at: usize,
    },
    /// A command line ends at its first NUL.
    #[error("command line holds a nul at byte {at}")]
    CommandLineNul {
        /// Offset of the first NUL.
        at: usize,
    },
    /// The CPU model is not in the table.
    #[error(transparent)]
    Cpu(#[from] UnknownCpu),
    /// A structure of the firmware does not hold together.
    #[error("malformed {what} in the firmware, near byte {at}")]
    Firmware {
        /// The structure.
        what: &'static str,
        /// Offset near which it was looked for.
        at: usize,
    },
    /// The firmware is not a sensible number of whole pages.
    #[error(
        "firmware has {observed} bytes, whole pages of 4096 are required, up to {FIRMWARE_CAP}"
    )]
    FirmwareSize {
        /// Its length in bytes.
        observed: usize,
    },
    /// SEV_FEATURES without bit 0 is not an SNP guest.
    #[error("guest features are {observed:#x}, bit 0 (snp active) is required")]
    GuestFeatures {
        /// The features asked for.
        observed: u64,
    },
    /// The firmware has no room for the kernel's hashes, so the kernel would not be measured.
    #[error("the firmware reserves no page for kernel hashes")]
    HashTableMissing,
    /// The kernel is not an image that UEFI firmware can measure.
    #[error("malformed {what} in the kernel")]
    Kernel {
        /// The structure.
        what: &'static str,
    },
    /// A section lies outside memory, overlaps another one, or is not made of whole pages.
    #[error("firmware section at {gpa:#x} of {size:#x} bytes does not fit the guest's memory")]
    Section {
        /// First guest-physical address.
        gpa: u64,
        /// Bytes.
        size: u64,
    },
    /// The metadata asks for more pages than any firmware needs.
    #[error("firmware sections hold {observed} pages, at most {PAGES_CAP} are accepted")]
    SectionPages {
        /// Pages asked for.
        observed: u64,
    },
    /// A launch needs exactly one of these sections.
    #[error("firmware has {observed} {what} sections, exactly one is required")]
    Sections {
        /// Kind of section.
        what: &'static str,
        /// How many there are.
        observed: usize,
    },
    /// An SNP image names what only TDX measures.
    #[error("acpi and page_order belong to tdx images only")]
    TdxFieldForSnp,
    /// More processors than the firmware can start.
    #[error("{observed} virtual processors, the firmware starts 1")]
    VcpuReset {
        /// Processors asked for.
        observed: u32,
    },
    /// No processor, or too many.
    #[error("{observed} virtual processors, 1 to {VCPUS_CAP} are accepted")]
    Vcpus {
        /// Processors asked for.
        observed: u32,
    },
}

#[cfg(test)]
mod tests;
