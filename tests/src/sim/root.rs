//! The two simulated hierarchies, and the folder they live in between runs.
//!
//! A folder holds every key in PKCS #8 (`*.pk8`, readable by its owner alone), every certificate
//! in DER (`*.der`), and what a policy must name for the simulation to be accepted: `snp-root.pem`
//! (ARK), `tdx-root.pem` (root CA) and both together in `root.pem`.

use crate::sim::certificate::{self, Algorithm, Key, ORGANISATION, Role, Span, Subject, pem};
use crate::sim::{snp, tdx};
use anyhow::{Context, Result};
use measurement::digest::sha512;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Every key of the simulated hardware.
pub struct Keys {
    ark: Key,
    ask: Key,
    vcek: Key,
    root_ca: Key,
    platform_ca: Key,
    tcb_signing: Key,
    pck: Key,
    attestation: Key,
}

impl Keys {
    /// Reads the keys of `folder` and draws the ones it lacks.
    pub fn open(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Self::gather(|name, algorithm| {
            let path = folder.join(name);
            if path.exists() { read_key(&path, algorithm) } else { draw_key(&path, algorithm) }
        })
    }

    fn read(folder: &Path) -> Result<Self> {
        Self::gather(|name, algorithm| read_key(&folder.join(name), algorithm))
    }

    fn gather(key: impl Fn(&str, Algorithm) -> Result<Key>) -> Result<Self> {
        Ok(Self {
            ark: key("ark.pk8", Algorithm::RsaPss)?,
            ask: key("ask.pk8", Algorithm::RsaPss)?,
            vcek: key("vcek.pk8", Algorithm::P384)?,
            root_ca: key("root-ca.pk8", Algorithm::P256)?,
            platform_ca: key("platform-ca.pk8", Algorithm::P256)?,
            tcb_signing: key("tcb-signing.pk8", Algorithm::P256)?,
            pck: key("pck.pk8", Algorithm::P256)?,
            attestation: key("attestation.pk8", Algorithm::P256)?,
        })
    }
}

/// The simulated vendors, each with one chip.
pub struct Root {
    /// AMD's hierarchy: ARK, ASK and the VCEK of the chip.
    pub amd: Amd,
    /// Intel's hierarchy: root CA, platform CA, TCB signing and the PCK of the platform.
    pub intel: Intel,
}

impl Root {
    /// Certifies `keys`, valid from the day before `now`, in seconds since 1970.
    pub fn issue(keys: Keys, now: u64) -> Self {
        let amd = (keys.ark, keys.ask, keys.vcek);
        let intel = (keys.root_ca, keys.platform_ca, keys.tcb_signing, keys.pck, keys.attestation);
        Self { amd: Amd::issue(amd, now), intel: Intel::issue(intel, now) }
    }

    /// Makes the hierarchies in `folder`, from the keys that are there already and new ones. A folder
    /// that holds them keeps them: policies name its roots.
    pub fn create(folder: &Path, now: u64) -> Result<Self> {
        if folder.join("root.pem").exists() {
            return Self::open(folder);
        }
        let root = Self::issue(Keys::open(folder)?, now);
        for (name, certificate) in root.certificates() {
            write(&folder.join(name), certificate)?;
        }
        let (snp, tdx) = (pem(&root.amd.ark_certificate), pem(&root.intel.root_ca_certificate));
        write(&folder.join("snp-root.pem"), snp.as_bytes())?;
        write(&folder.join("tdx-root.pem"), tdx.as_bytes())?;
        // Last: who finds this file finds the others.
        write(&folder.join("root.pem"), (snp + &tdx).as_bytes())?;
        Ok(root)
    }

    /// Reads what [`Root::create`] wrote.
    pub fn open(folder: &Path) -> Result<Self> {
        let certificate = |name| read(&folder.join(name));
        let keys = Keys::read(folder)?;
        let amd = Amd {
            ark: keys.ark,
            ask: keys.ask,
            vcek: keys.vcek,
            ark_certificate: certificate("ark.der")?,
            ask_certificate: certificate("ask.der")?,
            vcek_certificate: certificate("vcek.der")?,
        };
        let intel = Intel {
            root_ca: keys.root_ca,
            platform_ca: keys.platform_ca,
            tcb_signing: keys.tcb_signing,
            pck: keys.pck,
            attestation: keys.attestation,
            root_ca_certificate: certificate("root-ca.der")?,
            platform_ca_certificate: certificate("platform-ca.der")?,
            tcb_signing_certificate: certificate("tcb-signing.der")?,
            pck_certificate: certificate("pck.der")?,
        };
        Ok(Self { amd, intel })
    }

    fn certificates(&self) -> [(&'static str, &[u8]); 7] {
        [
            ("ark.der", &self.amd.ark_certificate),
            ("ask.der", &self.amd.ask_certificate),
            ("vcek.der", &self.amd.vcek_certificate),
            ("root-ca.der", &self.intel.root_ca_certificate),
            ("platform-ca.der", &self.intel.platform_ca_certificate),
            ("tcb-signing.der", &self.intel.tcb_signing_certificate),
            ("pck.der", &self.intel.pck_certificate),
        ]
    }
}

/// The simulated AMD: product Genoa, one chip.
pub struct Amd {
    ark: Key,
    ask: Key,
    pub(super) vcek: Key,
    /// Root, DER.
    pub ark_certificate: Vec<u8>,
    /// SEV signing key, DER.
    pub ask_certificate: Vec<u8>,
    /// Chip endorsement key at the golden TCB, DER.
    pub vcek_certificate: Vec<u8>,
}

impl Amd {
    fn issue((ark, ask, vcek): (Key, Key, Key), now: u64) -> Self {
        let authority = |common: &str, serial, key, role, by: &str, issuer: &Key| {
            Subject {
                name: amd_name(common),
                serial,
                key,
                validity: Span::around(now, AUTHORITY_DAYS),
                role,
                extensions: Vec::new(),
            }
            .certify(&amd_name(by), issuer)
        };
        let ark_certificate = authority(ARK, ARK_SERIAL, &ark, Role::Authority(None), ARK, &ark);
        let ask_certificate = authority(ASK, ASK_SERIAL, &ask, Role::Intermediate, ARK, &ark);
        let mut amd =
            Self { ark, ask, vcek, ark_certificate, ask_certificate, vcek_certificate: Vec::new() };
        amd.vcek_certificate = amd.certify_chip(snp::TCB, Span::around(now, LEAF_DAYS));
        amd
    }

    /// The chip's identity, 64 bytes.
    pub fn chip_id(&self) -> [u8; 64] {
        sha512(self.vcek.point())
    }

    /// A VCEK certificate for this chip at another TCB. (A real chip would also have another key
    /// at each TCB; nothing in a report shows it.)
    pub fn certify_chip(&self, tcb: snp::Tcb, validity: Span) -> Vec<u8> {
        Subject {
            name: amd_name("SEV-VCEK"),
            serial: &[0],
            key: &self.vcek,
            validity,
            role: Role::Chip,
            extensions: snp::chip_extensions(tcb, &self.chip_id()),
        }
        .certify(&amd_name(ASK), &self.ask)
    }

    /// The ARK's revocation list: `serials` are revoked.
    pub fn revocation_list(&self, validity: Span, serials: &[&[u8]]) -> Vec<u8> {
        certificate::revocation_list(&amd_name(ARK), &self.ark, validity, serials)
    }
}

/// The simulated Intel: one platform.
pub struct Intel {
    pub(super) root_ca: Key,
    pub(super) platform_ca: Key,
    pub(super) tcb_signing: Key,
    pub(super) pck: Key,
    pub(super) attestation: Key,
    /// Root, DER.
    pub root_ca_certificate: Vec<u8>,
    /// Issuer of PCK certificates, DER.
    pub platform_ca_certificate: Vec<u8>,
    /// Signer of TCB info and QE identity, DER.
    pub tcb_signing_certificate: Vec<u8>,
    /// Provisioning certification key of the platform, DER.
    pub pck_certificate: Vec<u8>,
}

impl Intel {
    fn issue(keys: (Key, Key, Key, Key, Key), now: u64) -> Self {
        let (root_ca, platform_ca, tcb_signing, pck, attestation) = keys;
        let certify = |common: &str, key, days, role, extensions, by: &str, issuer: &Key| {
            Subject {
                name: intel_name(common),
                serial: &certificate::serial(),
                key,
                validity: Span::around(now, days),
                role,
                extensions,
            }
            .certify(&intel_name(by), issuer)
        };
        let (root, platform) = (Role::Authority(Some(1)), Role::Authority(Some(0)));
        let sgx = vec![tdx::platform_extension(&pck)];
        let (years, leaf) = (AUTHORITY_DAYS, LEAF_DAYS);
        Self {
            root_ca_certificate: certify(ROOT_CA, &root_ca, years, root, vec![], ROOT_CA, &root_ca),
            platform_ca_certificate: certify(
                PLATFORM_CA,
                &platform_ca,
                years,
                platform,
                vec![],
                ROOT_CA,
                &root_ca,
            ),
            tcb_signing_certificate: certify(
                TCB_SIGNING,
                &tcb_signing,
                leaf,
                Role::Leaf,
                vec![],
                ROOT_CA,
                &root_ca,
            ),
            pck_certificate: certify(PCK, &pck, leaf, Role::Leaf, sgx, PLATFORM_CA, &platform_ca),
            root_ca,
            platform_ca,
            tcb_signing,
            pck,
            attestation,
        }
    }

    /// The root's revocation list and the platform CA's: `roots` and `platforms` are revoked.
    pub fn revocation_lists(
        &self,
        validity: Span,
        roots: &[&[u8]],
        platforms: &[&[u8]],
    ) -> (Vec<u8>, Vec<u8>) {
        let list = certificate::revocation_list;
        (
            list(&intel_name(ROOT_CA), &self.root_ca, validity, roots),
            list(&intel_name(PLATFORM_CA), &self.platform_ca, validity, platforms),
        )
    }

    /// PCK, platform CA and root CA, as a quote carries them.
    pub fn platform_chain(&self) -> String {
        pem(&self.pck_certificate) + &self.platform_ca_chain()
    }

    /// Platform CA and root CA.
    pub fn platform_ca_chain(&self) -> String {
        pem(&self.platform_ca_certificate) + &pem(&self.root_ca_certificate)
    }

    /// TCB signing and root CA.
    pub fn tcb_signing_chain(&self) -> String {
        pem(&self.tcb_signing_certificate) + &pem(&self.root_ca_certificate)
    }
}

fn amd_name(common: &str) -> String {
    format!("CN={common},O={ORGANISATION},ST=CA,L=Santa Clara,C=US,OU=Engineering")
}

fn intel_name(common: &str) -> String {
    format!("C=US,ST=CA,L=Santa Clara,O={ORGANISATION},CN={common}")
}

fn read_key(path: &Path, algorithm: Algorithm) -> Result<Key> {
    Key::from_pkcs8(algorithm, read(path)?).with_context(|| path.display().to_string())
}

/// Draws a key and writes it beside its place, then renames it: another process that looks sees a
/// whole key or none.
fn draw_key(path: &Path, algorithm: Algorithm) -> Result<Key> {
    let key = Key::generate(algorithm)?;
    let draft = path.with_extension(std::process::id().to_string());
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)
        .and_then(|mut file| file.write_all(key.pkcs8()))
        .and_then(|()| fs::rename(&draft, path))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(key)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

const ARK: &str = "ARK-Genoa";
const ASK: &str = "SEV-Genoa";
const PCK: &str = "Intel SGX PCK Certificate";
const PLATFORM_CA: &str = "Intel SGX PCK Platform CA";
const ROOT_CA: &str = "Intel SGX Root CA";
const TCB_SIGNING: &str = "Intel SGX TCB Signing";

/// AMD numbers its authorities like this: 0x20000 and on for Genoa.
const ARK_SERIAL: &[u8] = &[0x02, 0x00, 0x00];
const ASK_SERIAL: &[u8] = &[0x02, 0x00, 0x02];

/// About 20 years, which ends before UTCTime does.
const AUTHORITY_DAYS: u64 = 20 * 365;
/// Seven years, as both vendors give their leaves.
const LEAF_DAYS: u64 = 7 * 365;
