//! NVIDIA's chain: root → family → provisioner → device identity → device key → report.
//!
//! Signatures are checked over the bytes that arrived:
//! 1. Five certificates, the last a pinned root (`chain.rs`).
//! 2. Device identity and device key are of one chip, one that this verifier knows, and of the
//!    architecture that the evidence is labelled with.
//! 3. The report, request included, is signed by the device key.
//! 4. The device key's certificate vouches for the identity key above it (DICE), and for the firmware
//!    that the report names.
//! 5. A switch gives the device id that its identity certificate has.

use alloc::string::String;
use alloc::vec::Vec;

use der::asn1::ObjectIdentifier;
use measurement::digest::sha384;
use ring::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};

use super::chain::{P384_KEY, Survey, verify};
use super::{Certificate, Name, Role};
use crate::evidence::Inauthentic;
use crate::evidence::device::{Architecture, Device, Kind};
use crate::root::{Anchor, Platform, Root};
use crate::wire::asn1::{self, Walker, only};

/// The chain's places, leaf first.
pub(crate) const ROLES: [Role; 5] = [
    Role::DeviceKey,
    Role::DeviceIdentity,
    Role::DeviceProvisioner,
    Role::DeviceFamily,
    Role::Root,
];

/// Which chip a device is, from the names of its certificates.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Chip {
    /// As in reference manifests: `GH100`, `GB100`, `LS10`.
    name: String,
    architecture: Architecture,
    /// Name, stepping and processor as certified, as in `GH100 A01 GSP`.
    certified: String,
}

impl Chip {
    /// From the certificate of a device key: `GH100 A01 GSP FMC LF`.
    pub(crate) fn of_key(certificate: &Certificate) -> Option<Self> {
        Self::of_name(certificate.common_name()?.strip_suffix(" FMC LF")?)
    }

    /// From the certificate of a device identity: `GH100 A01 GSP BROM`.
    fn of_identity(certificate: &Certificate) -> Option<Self> {
        Self::of_name(certificate.common_name()?.strip_suffix(" BROM")?)
    }

    fn of_name(certified: &str) -> Option<Self> {
        let words: Vec<&str> = certified.split(' ').collect();
        let [chip, stepping, processor] = words.as_slice() else {
            return None;
        };
        let plain = |word: &&str| {
            let allowed = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
            !word.is_empty() && word.bytes().all(allowed)
        };
        let name: String = chip.split('_').collect();
        if !(plain(&name.as_str()) && plain(stepping)) {
            return None;
        }
        let architecture = match (name.get(..3)?, *processor) {
            ("GH1", "GSP") => Architecture::Hopper,
            ("GB1" | "GB2", "GSP" | "FSP") => Architecture::Blackwell,
            _ if (name.as_str(), *processor) == ("LS10", "FSP") => Architecture::Ls10,
            _ => return None,
        };
        Some(Self { name, architecture, certified: certified.into() })
    }

    /// As in reference manifests: `GH100`, `GB100`, `LS10`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its generation.
    pub fn architecture(&self) -> Architecture {
        self.architecture
    }

    /// As its identity certificate has it: `GH100 A01 GSP BROM`.
    pub fn hardware_model(&self) -> String {
        alloc::format!("{} BROM", self.certified)
    }
}

/// What an authentic report says.
pub(crate) struct Claims {
    pub(crate) root: Root,
    pub(crate) chip: Chip,
    pub(crate) kind: Kind,
    pub(crate) nonce: [u8; 32],
    pub(crate) responder_nonce: [u8; 32],
    pub(crate) measurements: Vec<[u8; 48]>,
    /// The serial number of the device key's certificate.
    pub(crate) ueid: Vec<u8>,
    /// The per-device id, which is in the name of the identity certificate.
    pub(crate) pdi: [u8; 8],
    /// SHA-384 of what was signed.
    pub(crate) identity: [u8; 48],
}

/// Steps 1 and 2, which the certificates alone decide: the root they end in.
pub(crate) fn endorse(
    device: &Device<'_>,
    anchors: &[Anchor],
    now: u64,
    survey: &mut Survey,
) -> Result<Root, Inauthentic> {
    if device.certificates.is_empty() {
        return Err(Inauthentic::Missing { role: Role::DeviceKey });
    }
    let root = verify(&device.certificates, &ROLES, Platform::Nvidia, anchors, now, survey)?;
    let Some((chip, _)) = &device.kind else {
        let problem = "is not of a chip that this verifier knows";
        return Err(Inauthentic::Unusable { role: Role::DeviceKey, problem });
    };
    if device.certificates.get(1).and_then(Chip::of_identity).as_ref() != Some(chip) {
        let problem = "is of another chip than its key";
        return Err(Inauthentic::Unusable { role: Role::DeviceIdentity, problem });
    }
    Ok(root)
}

/// What an endorsed device says, once its report is known to be its own.
pub(crate) fn authenticate(device: Device<'_>, root: Root) -> Result<Claims, Inauthentic> {
    let [key, identity, ..] = device.certificates.as_slice() else {
        return Err(Inauthentic::Missing { role: Role::DeviceIdentity });
    };
    let Some((chip, kind)) = &device.kind else {
        return Err(Inauthentic::Missing { role: Role::DeviceKey });
    };
    if let Some(labelled) = device.labelled()
        && labelled != chip.architecture
    {
        return Err(Inauthentic::Architecture { labelled, certificates: chip.architecture });
    }
    let report = &device.report;
    UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, &key.key)
        .verify(report.signed, report.signature)
        .map_err(|_| Inauthentic::Signature { over: "device report" })?;
    if let Some(label) = device.false_label(kind) {
        return Err(Inauthentic::Label { label });
    }
    check_dice(key, identity, chip, kind)?;
    let pdi = pdi(&identity.subject).ok_or(Inauthentic::Unusable {
        role: Role::DeviceIdentity,
        problem: "has no device id in its name",
    })?;
    if let Kind::Switch(fields) = kind
        && fields.device_pdi != Some(pdi)
    {
        return Err(Inauthentic::Pdi);
    }
    let (ueid, nonce) = (key.serial.clone(), report.nonce);
    let (responder_nonce, signed) = (report.responder_nonce, sha384(report.signed));
    let Device { kind, report, .. } = device;
    let (chip, kind) = kind.ok_or(Inauthentic::Missing { role: Role::DeviceKey })?;
    let measurements = report.measurements;
    Ok(Claims {
        root,
        chip,
        kind,
        nonce,
        responder_nonce,
        measurements,
        ueid,
        pdi,
        identity: signed,
    })
}

/// The identity key and the firmware that the device key was certified for.
fn check_dice(
    key: &Certificate,
    identity: &Certificate,
    chip: &Chip,
    kind: &Kind,
) -> Result<(), Inauthentic> {
    let dice = Dice::read(key)?;
    match dice.identity_key {
        Some(certified) if certified != identity.key => return Err(Inauthentic::DeviceIdentity),
        // Blackwell's form has no place for it; that of Hopper and its switches has.
        None if chip.architecture != Architecture::Blackwell => {
            return Err(dice_error("does not say for which device"));
        }
        _ => {}
    }
    let named = match kind {
        Kind::Gpu(fields) => fields.fwid,
        Kind::Switch(fields) => fields.fwid,
    };
    if named.is_some_and(|fwid| fwid != dice.fwid) { Err(Inauthentic::Fwid) } else { Ok(()) }
}

fn dice_error(problem: &'static str) -> Inauthentic {
    Inauthentic::Extension { role: Role::DeviceKey, extension: "dice", problem }
}

/// What the DICE extension of a device key's certificate says.
struct Dice<'a> {
    /// The public key of the identity certificate, where the extension has it.
    identity_key: Option<&'a [u8]>,
    fwid: [u8; 48],
}

/// A device id and a firmware id, as Hopper and its switches have it.
const COMPOSITE_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.5.4.1");
/// `tcg-dice-TcbInfo`, as Blackwell has it.
const TCB_INFO: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.5.4.1.1");

impl<'a> Dice<'a> {
    fn read(key: &'a Certificate) -> Result<Self, Inauthentic> {
        let error = dice_error;
        match (key.extension(COMPOSITE_ID), key.extension(TCB_INFO)) {
            (Some(value), None) => Self::read_composite(value).ok_or(error("is not readable")),
            (None, Some(value)) => Self::read_tcb_info(value).ok_or(error("is not readable")),
            (None, None) => Err(error("is missing")),
            (Some(_), Some(_)) => Err(error("is there in two forms")),
        }
    }

    /// `SEQUENCE { 1, SubjectPublicKeyInfo, fwid }`.
    fn read_composite(value: &'a [u8]) -> Option<Self> {
        let mut parts = only(asn1::SEQUENCE, value)?;
        if parts.expect(asn1::INTEGER)? != [1] {
            return None;
        }
        let mut info = Walker::new(parts.expect(asn1::SEQUENCE)?);
        let algorithm = info.any()?;
        // No unused bits.
        let (unused, identity_key) = info.expect(asn1::BIT_STRING)?.split_first()?;
        info.end()?;
        let fwid = fwid(parts.expect(asn1::SEQUENCE)?)?;
        parts.end()?;
        (algorithm.whole == P384_KEY && *unused == 0)
            .then_some(Self { identity_key: Some(identity_key), fwid })
    }

    /// `DiceTcbInfo` with implicit tags; the firmware ids are `[6]`, and the first is the firmware's.
    fn read_tcb_info(value: &'a [u8]) -> Option<Self> {
        const FWIDS: u8 = 0xa6;
        let mut parts = only(asn1::SEQUENCE, value)?;
        let mut last = None;
        let mut fwids = None;
        while !parts.is_empty() {
            let element = parts.any()?;
            // [0] to [9], each at most once, in order; only the list is constructed.
            let number = element.tag & 0x1f;
            let class = element.tag & 0xe0;
            let form = if number == 6 { 0xa0 } else { 0x80 };
            if class != form || number > 9 || last.is_some_and(|last| number <= last) {
                return None;
            }
            last = Some(number);
            if element.tag == FWIDS {
                fwids = Some(element.value);
            }
        }
        let mut list = Walker::new(fwids?);
        let first = fwid(list.expect(asn1::SEQUENCE)?)?;
        while !list.is_empty() {
            fwid(list.expect(asn1::SEQUENCE)?)?;
        }
        Some(Self { identity_key: None, fwid: first })
    }
}

/// The contents of `SEQUENCE { sha-384, OCTET STRING }`.
fn fwid(contents: &[u8]) -> Option<[u8; 48]> {
    const SHA384: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02];
    let mut parts = Walker::new(contents);
    let algorithm = parts.expect(asn1::OBJECT_ID)?;
    let digest = parts.expect(asn1::OCTET_STRING)?;
    parts.end()?;
    (algorithm == SHA384).then(|| digest.try_into().ok())?
}

/// The serial number in a device's name is one byte for the kind of device, then its id.
fn pdi(subject: &Name) -> Option<[u8; 8]> {
    /// 2.5.4.5.
    const SERIAL_NUMBER: &[u8] = &[0x55, 0x04, 0x05];
    let mut bytes = [0; 9];
    hex::decode_to_slice(subject.attribute(SERIAL_NUMBER)?, &mut bytes).ok()?;
    let [_, id @ ..] = bytes;
    Some(id)
}
