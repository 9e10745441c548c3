//! The SEV-SNP launch digest (MEASUREMENT at 0x90 of the report) of a guest that QEMU starts.
//!
//! The digest starts as 48 zero bytes. Each page that the loader adds replaces it by the SHA-384
//! of a 112-byte PAGE_INFO that holds the digest so far, the page's kind, its address, and, for
//! normal pages and VMSA pages, the SHA-384 of its contents (SEV Secure Nested Paging Firmware ABI,
//! revision 1.57, section 8.17.2). QEMU adds, in this order:
//! 1. the firmware, below 4 GiB;
//! 2. the sections of the firmware's SEV metadata, in the order of their table, among them the
//!    page that holds the SHA-256 of kernel, initial RAM disk and command line;
//! 3. one VMSA page for each virtual processor: the first one starts at the reset vector, the
//!    others where the firmware says.
//!
//! This is the digest of QEMU with `kernel-hashes=on`. The loaders of EC2 (CPUID page last, RDX
//! 0x600) and GCE (unmeasured pages, another PAT) differ and are left out: this product does not
//! launch there.

use alloc::vec;
use alloc::vec::Vec;

use sha2::{Digest, Sha384};

use super::ovmf::{Table, guid};
use super::{
    CpuModel, LaunchError, PAGE, PAGES_CAP, Parts, SevSection, SevSectionKind, VCPUS_CAP,
    check_firmware,
};
use crate::digest::{sha256, sha384};

/// What enters the digest besides the parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Virtual processors, 1 to [`VCPUS_CAP`].
    pub vcpus: u32,
    /// The CPU model that the guest is shown; only its signature is measured.
    pub cpu: CpuModel,
    /// SEV_FEATURES of each VMSA (AMD64 Architecture Programmer's Manual, volume 2, table B-4):
    /// bit 0 is SNP itself, bit 5 debug swap, which Linux 6.6 and 6.7 hosts set.
    pub guest_features: u64,
}

/// The launch digest of `parts`, with kernel hashes.
///
/// Refuses a firmware without a page for kernel hashes: there the kernel, the initial RAM disk
/// and the command line would not be measured at all.
pub fn launch_digest(parts: &Parts<'_>, shape: &Shape) -> Result<[u8; 48], LaunchError> {
    parts.check()?;
    Firmware::parse(parts.firmware)?.launch_digest(Some(&KernelHashes::of(parts)), shape)
}

/// SHA-256 of what QEMU loads directly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelHashes {
    /// Of the kernel.
    pub kernel: [u8; 32],
    /// Of the initial RAM disk, or of nothing.
    pub initrd: [u8; 32],
    /// Of the command line with its NUL.
    pub cmdline: [u8; 32],
}

impl KernelHashes {
    /// Hashes the parts.
    pub fn of(parts: &Parts<'_>) -> Self {
        Self {
            kernel: sha256(parts.kernel),
            initrd: sha256(parts.initrd),
            cmdline: Self::cmdline(parts.cmdline),
        }
    }

    /// Hashes a command line with its NUL.
    pub fn cmdline(text: &str) -> [u8; 32] {
        sha256(&[text.as_bytes(), &[0]].concat())
    }

    /// The table as the firmware reads it, 168 bytes (edk2,
    /// `OvmfPkg/AmdSev/BlobVerifierLibSevHashes`): entries of GUID, length and SHA-256 under a
    /// header of GUID and length. QEMU pads it to 176; the rest of the page is zero anyway.
    fn table(&self) -> Vec<u8> {
        let mut table = Vec::with_capacity(168);
        table.extend(HASH_TABLE);
        table.extend(168u16.to_le_bytes());
        for (guid, hash) in
            [(CMDLINE, &self.cmdline), (INITRD, &self.initrd), (KERNEL, &self.kernel)]
        {
            table.extend(guid);
            table.extend(50u16.to_le_bytes());
            table.extend(hash);
        }
        table
    }
}

const HASH_TABLE: [u8; 16] =
    guid(0x9438_d606, 0x4f22, 0x4cc9, [0xb4, 0x79, 0xa7, 0x93, 0xd4, 0x11, 0xfd, 0x21]);
const CMDLINE: [u8; 16] =
    guid(0x97d0_2dd8, 0xbd20, 0x4c94, [0xaa, 0x78, 0xe7, 0x71, 0x4d, 0x36, 0xab, 0x2a]);
const INITRD: [u8; 16] =
    guid(0x44ba_f731, 0x3a2f, 0x4bd7, [0x9a, 0xf1, 0x41, 0xe2, 0x91, 0x69, 0x78, 0x1d]);
const KERNEL: [u8; 16] =
    guid(0x4de7_9437, 0xabd2, 0x427f, [0xb8, 0x35, 0xd5, 0xb1, 0x72, 0xd2, 0x04, 0x5b]);

/// What remains of a firmware once its pages are measured. Where only the digest of a firmware was
/// published, this is enough to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firmware {
    /// The running digest after all pages of the firmware.
    pub digest: [u8; 48],
    /// The SEV metadata, in table order.
    pub sections: Vec<SevSection>,
    /// Guest-physical address of the table of kernel hashes, if there is room for one.
    pub hash_table_gpa: Option<u32>,
    /// Where processors other than the first one start, if the firmware says so.
    pub reset_eip: Option<u32>,
}

impl Firmware {
    /// Measures a firmware image and reads its metadata.
    pub fn parse(firmware: &[u8]) -> Result<Self, LaunchError> {
        check_firmware(firmware)?;
        let table = Table::parse(firmware)?;
        let mut launch = Launch { digest: [0; 48] };
        let length = u64::try_from(firmware.len()).unwrap_or(u64::MAX);
        let base = (1u64 << 32).saturating_sub(length);
        let addresses = (base..).step_by(usize::from(PAGE));
        for (page, gpa) in firmware.chunks_exact(usize::from(PAGE)).zip(addresses) {
            launch.add(PageKind::Normal, gpa, sha384(page));
        }
        Ok(Self {
            digest: launch.digest,
            sections: table.sev_sections()?,
            hash_table_gpa: table.hash_table_gpa(),
            reset_eip: table.reset_eip(),
        })
    }

    /// The launch digest with these kernel hashes, or of a guest that boots from a disk.
    pub fn launch_digest(
        &self,
        hashes: Option<&KernelHashes>,
        shape: &Shape,
    ) -> Result<[u8; 48], LaunchError> {
        self.check(shape)?;
        let table = hashes.map(|hashes| self.hash_page(hashes)).transpose()?;
        let mut launch = Launch { digest: self.digest };
        for section in &self.sections {
            launch.section(section, table.as_deref());
        }
        launch.processors(shape, self.reset_eip);
        Ok(launch.digest)
    }

    fn check(&self, shape: &Shape) -> Result<(), LaunchError> {
        let (observed, features) = (shape.vcpus, shape.guest_features);
        if observed == 0 || observed > VCPUS_CAP {
            return Err(LaunchError::Vcpus { observed });
        }
        if observed > 1 && self.reset_eip.is_none() {
            return Err(LaunchError::VcpuReset { observed });
        }
        if features & 1 == 0 {
            return Err(LaunchError::GuestFeatures { observed: features });
        }
        self.check_sections()
    }

    fn check_sections(&self) -> Result<(), LaunchError> {
        let page = u32::from(PAGE);
        for &SevSection { gpa, size, .. } in &self.sections {
            let whole = gpa.is_multiple_of(page) && size.is_multiple_of(page) && size != 0;
            if !whole || gpa.checked_add(size).is_none() {
                return Err(LaunchError::Section { gpa: gpa.into(), size: size.into() });
            }
        }
        let bytes: u64 = self.sections.iter().map(|section| u64::from(section.size)).sum();
        let observed = bytes / u64::from(PAGE);
        if observed > PAGES_CAP {
            return Err(LaunchError::SectionPages { observed });
        }
        Ok(())
    }

    /// The page of kernel hashes: zero but for the table at its place.
    fn hash_page(&self, hashes: &KernelHashes) -> Result<Vec<u8>, LaunchError> {
        let mut pages =
            self.sections.iter().filter(|section| section.kind == SevSectionKind::KernelHashes);
        let section = pages.next().ok_or(LaunchError::HashTableMissing)?;
        let observed = pages.count().saturating_add(1);
        if observed > 1 {
            return Err(LaunchError::Sections { what: "kernel hashes", observed });
        }
        let gpa = self.hash_table_gpa.ok_or(LaunchError::HashTableMissing)?;
        let misplaced = LaunchError::Firmware { what: "hash table address", at: 0 };
        let at = gpa.checked_sub(section.gpa).and_then(|at| usize::try_from(at).ok());
        let mut page = vec![0; PAGE.into()];
        let table = hashes.table();
        let place = at.and_then(|at| page.get_mut(at..at.checked_add(table.len())?));
        if section.size != u32::from(PAGE) {
            return Err(misplaced);
        }
        place.ok_or(misplaced)?.copy_from_slice(&table);
        Ok(page)
    }
}

/// PAGE_TYPE of SNP_LAUNCH_UPDATE (ABI, table 64).
#[derive(Clone, Copy)]
enum PageKind {
    Cpuid,
    Normal,
    Secrets,
    Vmsa,
    Zero,
}

impl PageKind {
    const fn code(self) -> u8 {
        match self {
            Self::Normal => 1,
            Self::Vmsa => 2,
            Self::Zero => 3,
            Self::Secrets => 5,
            Self::Cpuid => 6,
        }
    }
}

/// Where KVM puts every VMSA.
const VMSA_GPA: u64 = 0xffff_ffff_f000;

/// A launch digest in the making.
struct Launch {
    digest: [u8; 48],
}

impl Launch {
    /// Adds one page: PAGE_INFO is 0x70 bytes (ABI, table 67).
    fn add(&mut self, kind: PageKind, gpa: u64, contents: [u8; 48]) {
        let mut hash = Sha384::new();
        hash.update(self.digest);
        hash.update(contents);
        hash.update(0x70u16.to_le_bytes());
        hash.update([kind.code(), 0, 0, 0, 0, 0]);
        hash.update(gpa.to_le_bytes());
        self.digest = hash.finalize().into();
    }

    fn section(&mut self, section: &SevSection, hash_page: Option<&[u8]>) {
        let gpa = u64::from(section.gpa);
        let kind = match (section.kind, hash_page) {
            (SevSectionKind::KernelHashes, Some(page)) => {
                return self.add(PageKind::Normal, gpa, sha384(page));
            }
            (SevSectionKind::Secrets, _) => PageKind::Secrets,
            (SevSectionKind::Cpuid, _) => PageKind::Cpuid,
            _ => PageKind::Zero,
        };
        let end = gpa.saturating_add(section.size.into());
        for page in (gpa..end).step_by(PAGE.into()) {
            self.add(kind, page, [0; 48]);
        }
    }

    fn processors(&mut self, shape: &Shape, reset_eip: Option<u32>) {
        self.add(PageKind::Vmsa, VMSA_GPA, sha384(&vmsa(RESET_VECTOR, shape)));
        if let Some(eip) = reset_eip {
            let contents = sha384(&vmsa(eip, shape));
            for _ in 1..shape.vcpus {
                self.add(PageKind::Vmsa, VMSA_GPA, contents);
            }
        }
    }
}

const RESET_VECTOR: u32 = 0xffff_fff0;

/// The save area in which QEMU and KVM start a processor (AMD64 Architecture Programmer's Manual,
/// volume 2, table B-4; values from QEMU's reset state and KVM's `sev_es_sync_vmsa`).
fn vmsa(eip: u32, shape: &Shape) -> Vec<u8> {
    let mut page = vec![0; PAGE.into()];
    let mut put = |at: usize, value: &[u8]| {
        // Every place is a constant inside the page, so this never skips.
        if let Some(place) = at.checked_add(value.len()).and_then(|end| page.get_mut(at..end)) {
            place.copy_from_slice(value);
        }
    };
    // Segments: selector, attributes, limit, base.
    for (at, selector, attributes, limit, base) in [
        (0x00, 0, 0x93, 0xffff, 0),                      // ES
        (0x10, 0xf000, 0x9b, 0xffff, eip & 0xffff_0000), // CS
        (0x20, 0, 0x93, 0xffff, 0),                      // SS
        (0x30, 0, 0x93, 0xffff, 0),                      // DS
        (0x40, 0, 0x93, 0xffff, 0),                      // FS
        (0x50, 0, 0x93, 0xffff, 0),                      // GS
        (0x60, 0, 0, 0xffff, 0),                         // GDTR
        (0x70, 0, 0x82, 0xffff, 0),                      // LDTR
        (0x80, 0, 0, 0xffff, 0),                         // IDTR
        (0x90, 0u16, 0x8bu16, 0xffffu32, 0u32),          // TR
    ] {
        put(at, &selector.to_le_bytes());
        put(at | 2, &attributes.to_le_bytes());
        put(at | 4, &limit.to_le_bytes());
        put(at | 8, &u64::from(base).to_le_bytes());
    }
    for (at, value) in [
        (0x0d0, 0x1000),                           // EFER: SVME
        (0x148, 0x40),                             // CR4: MCE
        (0x158, 0x10),                             // CR0: ET
        (0x160, 0x400),                            // DR7
        (0x168, 0xffff_0ff0),                      // DR6
        (0x170, 0x2),                              // RFLAGS
        (0x178, u64::from(eip & 0xffff)),          // RIP
        (0x268, 0x0007_0406_0007_0406),            // G_PAT
        (0x310, u64::from(shape.cpu.signature())), // RDX
        (0x3b0, shape.guest_features),             // SEV_FEATURES
        (0x3e8, 1),                                // XCR0
    ] {
        put(at, &value.to_le_bytes());
    }
    put(0x408, &0x1f80u32.to_le_bytes()); // MXCSR
    put(0x410, &0x037fu16.to_le_bytes()); // x87 FCW
    page
}
