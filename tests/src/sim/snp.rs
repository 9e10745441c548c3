//! SNP attestation reports of a simulated Genoa chip, version 3 or 5.
//!
//! "SEV Secure Nested Paging Firmware ABI Specification", AMD 56860, table 23; the extensions of
//! the VCEK are those of "VCEK Certificate and KDS Interface Specification", AMD 57230, table 8.
//!
//! | offset | size | field | simulated |
//! |---|---|---|---|
//! | 0x000 | 4 | version | 3 or 5 |
//! | 0x008 | 8 | guest policy | SMT allowed, no debugging, no migration |
//! | 0x030 | 4 | VMPL | 0 |
//! | 0x034 | 4 | signature algorithm | 1, ECDSA P-384 with SHA-384 |
//! | 0x038 | 8 | current TCB | [`TCB`] |
//! | 0x040 | 8 | platform info | SMT, ECC, alias check done |
//! | 0x048 | 4 | key info | 0: signed by the VCEK |
//! | 0x050 | 64 | report data | the guest's |
//! | 0x090 | 48 | measurement | of what was launched |
//! | 0x0c0 | 32 | host data | digest of the launch blob |
//! | 0x140 | 32 | report id | random, one per launch |
//! | 0x160 | 32 | report id of the migration agent | all FF: none |
//! | 0x180 | 8 | reported TCB | [`TCB`] |
//! | 0x188 | 3 | CPUID family, model, stepping | 19h, 11h, 1 |
//! | 0x1a0 | 64 | chip id | SHA-512 of the VCEK's public key |
//! | 0x1e0 | 8 | committed TCB | [`TCB`] |
//! | 0x1e8 | 8 | current and committed firmware: build, minor, major, 0 | 1.58.1 |
//! | 0x1f0 | 8 | launch TCB | [`TCB`] |
//! | 0x1f8 | 16 | launch and current mitigation vector, version 5 | all six known bits |
//! | 0x2a0 | 512 | signature: r and s, 72 bytes each, little-endian, then zeros | |

use crate::sim::certificate::{encode, extension, random};
use crate::sim::root::Amd;
use der::asn1::{Ia5StringRef, ObjectIdentifier};
use x509_cert::ext::Extension;

/// Length of what the VCEK signs.
pub const BODY: usize = 0x2a0;

/// Length of a report.
pub const LENGTH: usize = 0x4a0;

/// Security versions in Genoa's layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcb {
    /// Boot loader of the security processor.
    pub boot_loader: u8,
    /// Its trusted operating system.
    pub tee: u8,
    /// SNP firmware.
    pub snp: u8,
    /// Microcode.
    pub microcode: u8,
}

impl Tcb {
    /// The eight bytes of a TCB_VERSION.
    pub fn to_bytes(self) -> [u8; 8] {
        [self.boot_loader, self.tee, 0, 0, 0, 0, self.snp, self.microcode]
    }
}

/// What the simulated chip runs, at launch, now and for ever.
pub const TCB: Tcb = Tcb { boot_loader: 12, tee: 0, snp: 28, microcode: 88 };

/// Which report a guest gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Of firmware that knows no mitigation vectors.
    V3,
    /// With the mitigation vectors.
    V5,
}

/// What the firmware knows of a guest before it asks for a report.
#[derive(Clone, Copy, Debug)]
pub struct Guest {
    /// Launch digest.
    pub measurement: [u8; 48],
    /// Digest of the launch blob.
    pub host_data: [u8; 32],
    /// Drawn at launch.
    pub report_id: [u8; 32],
}

impl Guest {
    /// A guest just launched.
    pub fn launched(measurement: [u8; 48], host_data: [u8; 32]) -> Self {
        Self { measurement, host_data, report_id: random() }
    }
}

/// A report that is not signed yet.
#[derive(Clone)]
pub struct Report {
    body: [u8; BODY],
}

impl Report {
    /// The firmware's answer to `guest`, before it is signed.
    pub fn new(version: Version, chip: &Amd, guest: &Guest, report_data: &[u8; 64]) -> Self {
        let mut body = [0; BODY];
        let mut put = |at: usize, bytes: &[u8]| body[at..at + bytes.len()].copy_from_slice(bytes);
        let (number, vectors): (u32, u64) = match version {
            Version::V3 => (3, 0),
            Version::V5 => (5, MITIGATIONS),
        };
        put(0x000, &number.to_le_bytes());
        put(0x008, &GUEST_POLICY.to_le_bytes());
        put(0x034, &1u32.to_le_bytes());
        put(0x038, &TCB.to_bytes());
        put(0x040, &PLATFORM_INFO.to_le_bytes());
        put(0x050, report_data);
        put(0x090, &guest.measurement);
        put(0x0c0, &guest.host_data);
        put(0x140, &guest.report_id);
        put(0x160, &[0xff; 32]);
        put(0x180, &TCB.to_bytes());
        put(0x188, &CPUID);
        put(0x1a0, &chip.chip_id());
        put(0x1e0, &TCB.to_bytes());
        put(0x1e8, &FIRMWARE);
        put(0x1ec, &FIRMWARE);
        put(0x1f0, &TCB.to_bytes());
        put(0x1f8, &vectors.to_le_bytes());
        put(0x200, &vectors.to_le_bytes());
        Self { body }
    }

    /// The same report after one change; sign it again.
    pub fn with(mut self, change: impl FnOnce(&mut [u8; BODY])) -> Self {
        change(&mut self.body);
        self
    }

    /// The 1184 bytes the guest gets.
    pub fn sign(&self, chip: &Amd) -> Vec<u8> {
        let signature = chip.vcek.sign(&self.body);
        let mut report = self.body.to_vec();
        for half in signature.chunks(48) {
            report.extend(half.iter().rev());
            report.extend([0; 24]);
        }
        report.resize(LENGTH, 0);
        report
    }
}

/// The extensions of a VCEK, in AMD's order.
pub fn chip_extensions(tcb: Tcb, chip_id: &[u8; 64]) -> Vec<Extension> {
    let amd = |arc: &str, value: Vec<u8>| {
        let oid = ObjectIdentifier::new(&format!("1.3.6.1.4.1.3704.1.{arc}")).expect("an OID");
        extension(oid, false, value)
    };
    let product = encode(&Ia5StringRef::new("Genoa").expect("ASCII"));
    vec![
        amd("1", encode(&0u8)), // structVersion
        amd("2", product),      // productName1
        amd("3.1", encode(&tcb.boot_loader)),
        amd("3.2", encode(&tcb.tee)),
        amd("3.4", encode(&0u8)),
        amd("3.5", encode(&0u8)),
        amd("3.6", encode(&0u8)),
        amd("3.7", encode(&0u8)),
        amd("3.3", encode(&tcb.snp)),
        amd("3.8", encode(&tcb.microcode)),
        amd("4", chip_id.to_vec()), // HWID, bare bytes
    ]
}

/// `policy=0x30000`: bit 17 is always one, bit 16 allows SMT.
const GUEST_POLICY: u64 = 0x3_0000;

/// Bit 0, SMT; bit 2, ECC memory; bit 5, aliases checked at boot.
const PLATFORM_INFO: u64 = 1 | 1 << 2 | 1 << 5;

/// Family 19h, model 11h, stepping 1.
const CPUID: [u8; 3] = [0x19, 0x11, 0x01];

/// Build 1 of 1.58.
const FIRMWARE: [u8; 4] = [1, 58, 1, 0];

/// What a patched machine reports today.
const MITIGATIONS: u64 = 0x3f;
