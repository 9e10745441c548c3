//! TDX quotes, version 4, of a simulated platform.
//!
//! "Intel TDX DCAP Quoting Library API", appendix A.3. All numbers are little-endian.
//!
//! | offset | size | field | simulated |
//! |---|---|---|---|
//! | 0 | 2, 2, 4 | version, key type, TEE | 4, ECDSA P-256, 81h |
//! | 8 | 4 | reserved | 0 |
//! | 12 | 16 | vendor of the quoting enclave | Intel's |
//! | 28 | 20 | user data | platform identity and zeros |
//! | 48 | 16 | TEE TCB SVN | [`TEE_TCB_SVN`] |
//! | 64 | 48, 48, 8 | MRSEAM, MRSIGNERSEAM, SEAM attributes | hash of the attestation key, 0, 0 |
//! | 168 | 8 | TD attributes | SEPT_VE_DISABLE alone |
//! | 176 | 8 | XFAM | what QEMU gives |
//! | 184 | 48 | MRTD | of what was launched |
//! | 232 | 48, 48, 48 | MRCONFIGID, MROWNER, MROWNERCONFIG | digest of the launch blob, 0, 0 |
//! | 376 | 4 x 48 | RTMR0 to RTMR3 | of what was launched; RTMR3 is 0 |
//! | 568 | 64 | report data | the guest's |
//! | 632 | 4 | length of the rest | |
//! | 636 | 64, 64 | signature over the first 632 bytes, attestation key | |
//! | 764 | 2, 4 | certification data: type 6 and its length | |
//! | 770 | 384, 64 | report of the quoting enclave, signature by the PCK | |
//! | 1218 | 2, 32 | authentication data and its length | 0, 1, 2, ... |
//! | 1252 | 2, 4, n | type 5, length, PEM of PCK, platform CA and root CA | |

use crate::sim::certificate::{Key, encode, extension, sequence};
use crate::sim::root::Intel;
use der::Tag;
use der::asn1::{Any, ObjectIdentifier, OctetStringRef};
use measurement::digest::{sha256, sha384};
use x509_cert::ext::Extension;

/// Length of header and TD report, which the attestation key signs.
pub const BODY: usize = 632;

/// The TDX module's and the microcode's security versions.
pub const TEE_TCB_SVN: [u8; 16] = [11, 1, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Family, model, stepping, platform and custom SKU of the simulated platform: `SIM`.
pub const FMSPC: [u8; 6] = [0x53, 0x49, 0x4d, 0, 0, 0];

/// Security versions of the SGX components, and of the provisioning enclave.
pub const CPU_SVN: [u8; 16] = [4, 4, 2, 2, 4, 1, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0];
/// See [`CPU_SVN`].
pub const PCE_SVN: u8 = 13;

/// Signer of Intel's quoting enclave for TDs, as Intel's own QE identity names it.
pub const QE_SIGNER: [u8; 32] = [
    0xdc, 0x9e, 0x2a, 0x7c, 0x6f, 0x94, 0x8f, 0x17, 0x47, 0x4e, 0x34, 0xa7, 0xfc, 0x43, 0xed, 0x03,
    0x0f, 0x7c, 0x15, 0x63, 0xf1, 0xba, 0xbd, 0xdf, 0x63, 0x40, 0xc8, 0x2e, 0x0e, 0x54, 0xa8, 0xc5,
];

/// What the TDX module knows of a TD before it asks for a quote.
#[derive(Clone, Copy, Debug)]
pub struct Guest {
    /// Build-time measurement.
    pub mrtd: [u8; 48],
    /// Run-time measurements.
    pub rtmr: [[u8; 48]; 4],
    /// Digest of the launch blob.
    pub mr_config_id: [u8; 48],
}

/// A quote that is not signed yet: its header and its TD report.
#[derive(Clone)]
pub struct Quote {
    body: [u8; BODY],
}

impl Quote {
    /// The platform's answer to `guest`, before it is signed.
    pub fn new(platform: &Intel, guest: &Guest, report_data: &[u8; 64]) -> Self {
        let mut body = [0; BODY];
        let mut put = |at: usize, bytes: &[u8]| body[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &4u16.to_le_bytes());
        put(2, &2u16.to_le_bytes());
        put(4, &0x81u32.to_le_bytes());
        put(12, &VENDOR);
        put(28, &platform.platform_id());
        put(48, &TEE_TCB_SVN);
        put(64, &platform.seam_measurement());
        put(168, &SEPT_VE_DISABLE.to_le_bytes());
        put(176, &XFAM.to_le_bytes());
        put(184, &guest.mrtd);
        put(232, &guest.mr_config_id);
        for (at, rtmr) in (376..).step_by(48).zip(&guest.rtmr) {
            put(at, rtmr);
        }
        put(568, report_data);
        Self { body }
    }

    /// The same quote after one change; sign it again.
    pub fn with(mut self, change: impl FnOnce(&mut [u8; BODY])) -> Self {
        change(&mut self.body);
        self
    }

    /// The bytes the guest gets.
    pub fn sign(&self, platform: &Intel) -> Vec<u8> {
        let authentication: [u8; 32] = std::array::from_fn(|at| at as u8);
        let enclave = enclave_report(platform.attestation.point(), &authentication);
        let mut certification = enclave.to_vec();
        certification.extend(platform.pck.sign(&enclave));
        certification.extend(32u16.to_le_bytes());
        certification.extend(authentication);
        certification.extend(typed(5, platform.platform_chain().as_bytes()));
        let mut rest = platform.attestation.sign(&self.body);
        rest.extend(platform.attestation.point());
        rest.extend(typed(6, &certification));
        let mut quote = self.body.to_vec();
        quote.extend(u32::try_from(rest.len()).expect("a short quote").to_le_bytes());
        quote.extend(rest);
        quote
    }
}

impl Intel {
    /// The platform's PPID, 16 bytes.
    pub fn platform_id(&self) -> [u8; 16] {
        platform_id(&self.pck)
    }

    fn seam_measurement(&self) -> [u8; 48] {
        sha384(self.attestation.point())
    }
}

/// The extension of a PCK certificate: "Intel SGX PCK Certificate and CRL Profile", 1.3.5.
pub fn platform_extension(pck: &Key) -> Extension {
    let mut tcb: Vec<_> =
        CPU_SVN.iter().zip(1..).map(|(svn, at)| field(&format!("2.{at}"), encode(svn))).collect();
    tcb.push(field("2.17", encode(&PCE_SVN)));
    tcb.push(field("2.18", octets(&CPU_SVN)));
    let flags: Vec<_> = (1..=3).map(|at| field(&format!("7.{at}"), encode(&true))).collect();
    let scalable = encode(&Any::new(Tag::Enumerated, [1]).expect("one byte"));
    let instance: Vec<u8> = platform_id(pck).iter().map(|byte| !byte).collect();
    let value = sequence(&[
        field("1", octets(&platform_id(pck))),
        field("2", sequence(&tcb)),
        field("3", octets(&[0, 0])),
        field("4", octets(&FMSPC)),
        field("5", scalable),
        field("6", octets(&instance)),
        field("7", sequence(&flags)),
    ]);
    extension(ObjectIdentifier::new_unwrap("1.2.840.113741.1.13.1"), false, value)
}

fn platform_id(pck: &Key) -> [u8; 16] {
    let digest = sha256(pck.point());
    std::array::from_fn(|at| digest[at])
}

/// Report of the quoting enclave: SGX REPORT body, 384 bytes, bound to the attestation key.
fn enclave_report(attestation: &[u8], authentication: &[u8]) -> [u8; 384] {
    let bound = sha256(&[attestation, authentication].concat());
    let mut report = [0; 384];
    let mut put = |at: usize, bytes: &[u8]| report[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &CPU_SVN);
    put(48, &[0x15, 0, 0, 0, 0, 0, 0, 0, 0xe7]); // attributes: initialised, 64 bits, key access
    put(64, &[0x51; 32]); // MRENCLAVE, which the QE identity does not fix
    put(128, &QE_SIGNER);
    put(256, &2u16.to_le_bytes()); // ISVPRODID
    put(258, &6u16.to_le_bytes()); // ISVSVN
    put(320, &bound);
    report
}

/// Certification data: type, length, bytes.
fn typed(kind: u16, data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).expect("short certification data");
    [&kind.to_le_bytes()[..], &length.to_le_bytes(), data].concat()
}

/// SEQUENCE of an arc below 1.2.840.113741.1.13.1 and its value, which is DER.
fn field(arc: &str, value: Vec<u8>) -> Vec<u8> {
    let oid = ObjectIdentifier::new(&format!("1.2.840.113741.1.13.1.{arc}")).expect("an OID");
    sequence(&[encode(&oid), value])
}

fn octets(bytes: &[u8]) -> Vec<u8> {
    encode(&OctetStringRef::new(bytes).expect("short octets"))
}

const SEPT_VE_DISABLE: u64 = 1 << 28;

/// Intel's quoting enclaves, 939a7233-f79c-4ca9-940a-0db3957f0607.
const VENDOR: [u8; 16] = [
    0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07,
];

/// x87, SSE, AVX, AVX-512, PKRU, CET and AMX, as real quotes have it.
const XFAM: u64 = 0x0006_02e7;
