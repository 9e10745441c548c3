//! What NVIDIA's devices say, before anyone has judged it: a report and five certificates each.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use base64ct::{Base64, Encoding};
use measurement::cbor::{Blob, encode};
use measurement::digest::{Digest, of, sha256};
use measurement::octets::Octets;
use serde::{Deserialize, Serialize};

use crate::endorsement::nvidia::Chip;
use crate::endorsement::{Certificate, read_pem};
use crate::wire::Malformed;
use crate::wire::opaque::{GpuFields, SwitchFields};
use crate::wire::spdm::Report;

pub use crate::wire::opaque::Mode;

/// Most devices of one set of evidence.
pub(crate) const DEVICE_LIMIT: usize = 64;
/// Most bytes of a certificate chain in PEM: a driver returns at most 0x1400.
const CHAIN_LIMIT: usize = 0x2000;
/// Most bytes of a set of evidence in JSON: 12 devices take 140 KiB.
const JSON_LIMIT: usize = 1 << 20;

/// A generation of devices, as evidence is labelled.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
#[non_exhaustive]
pub enum Architecture {
    /// GPUs such as GB100.
    Blackwell,
    /// GPUs such as GH100.
    Hopper,
    /// NVSwitches of the Hopper generation.
    Ls10,
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Blackwell => "BLACKWELL",
            Self::Hopper => "HOPPER",
            Self::Ls10 => "LS10",
        })
    }
}

/// The evidence of one device as it arrived. Nothing about it is believed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DeviceEvidence {
    report: Vec<u8>,
    chain: Vec<u8>,
    labels: Labels,
}

/// What a sender says about a report beside it. All of it must be what the report says.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Labels {
    architecture: Option<Architecture>,
    nonce: Option<[u8; 32]>,
    driver: Option<String>,
    vbios: Option<String>,
}

impl DeviceEvidence {
    /// A report (SPDM request and response) and its certificates in PEM, leaf first, as the driver
    /// hands them out.
    pub fn new(report: impl Into<Vec<u8>>, chain: impl Into<Vec<u8>>) -> Self {
        Self { report: report.into(), chain: chain.into(), labels: Labels::default() }
    }

    /// Reads NVIDIA's JSON: a list of `{arch, nonce, evidence, certificate, …}`, bare or as the
    /// member `evidences` of an object.
    ///
    /// # Errors
    /// When it has another shape, other members, or more devices or bytes than any honest one.
    pub fn read_json(json: &[u8]) -> Result<Vec<Self>, Malformed> {
        let text = |problem| Malformed::Text { part: "device evidence", problem };
        if json.len() > JSON_LIMIT {
            let (observed, limit) = (json.len(), JSON_LIMIT);
            return Err(Malformed::TooLong { part: "device evidence", observed, limit });
        }
        let items = match json.trim_ascii_start().first() {
            Some(b'{') => serde_json::from_slice::<Wrapped>(json).map(|all| all.evidences),
            _ => serde_json::from_slice(json),
        };
        let items: Vec<Item> = items.map_err(|_| text("is not the json of a list of devices"))?;
        if items.is_empty() || items.len() > DEVICE_LIMIT {
            return Err(text("holds no device, or more than any machine has"));
        }
        let read =
            |(index, item): (usize, Item)| item.read().map_err(|flaw| in_device(index, flaw));
        items.into_iter().enumerate().map(read).collect()
    }

    /// The names that NVIDIA's service gives the reference manifests this device is measured by, as
    /// far as the evidence, which no one has judged, says.
    ///
    /// # Errors
    /// When the evidence is malformed.
    pub fn manifest_ids(&self) -> Result<Vec<String>, Malformed> {
        let device = Device::parse(self)?;
        let software = device.kind.iter().flat_map(|(chip, kind)| kind.software(chip));
        Ok(software.filter_map(|one| one.manifest_id).collect())
    }

    /// The architecture that its certificates name, which no one has judged.
    ///
    /// # Errors
    /// When the evidence is malformed.
    pub fn architecture(&self) -> Result<Option<Architecture>, Malformed> {
        let certificates = self.certificates()?;
        let chip = certificates.first().and_then(Chip::of_key);
        Ok(chip.map(|chip| chip.architecture()))
    }

    /// Leaf first. None at all is no flaw of the evidence: there is nothing to judge it with.
    fn certificates(&self) -> Result<Vec<Certificate>, Malformed> {
        if self.chain.is_empty() {
            return Ok(Vec::new());
        }
        let part = "device certificate chain";
        if self.chain.len() > CHAIN_LIMIT {
            let (observed, limit) = (self.chain.len(), CHAIN_LIMIT);
            return Err(Malformed::TooLong { part, observed, limit });
        }
        let text = |problem| Malformed::Text { part, problem };
        let blocks = read_pem(&self.chain).map_err(text)?;
        blocks.iter().map(|der| Certificate::read(der).map_err(text)).collect()
    }

    /// The nonce that its report answers, which no one has judged.
    ///
    /// # Errors
    /// When the report is malformed.
    pub fn nonce(&self) -> Result<[u8; 32], Malformed> {
        Ok(Report::parse(&self.report)?.nonce)
    }

    /// The report's bytes.
    pub fn report(&self) -> &[u8] {
        &self.report
    }

    /// The certificates, in PEM.
    pub fn chain(&self) -> &[u8] {
        &self.chain
    }

    /// SHA-256 of all that a verdict on this device depends on, its labels included:
    /// `dCBOR["cloister/device-evidence", report, chain, [arch, nonce, driver, vbios]]`.
    pub fn digest(&self) -> Octets<32> {
        let Labels { architecture, nonce, driver, vbios } = &self.labels;
        let labels = (architecture, nonce.map(Octets), driver, vbios);
        let (report, chain) = (Blob(self.report.clone()), Blob(self.chain.clone()));
        Octets(sha256(&encode(&("cloister/device-evidence", report, chain, labels))))
    }
}

/// The digest of a set of devices' evidence, which the processor's report data is over:
/// `SHA-384(dCBOR["akr/1 gpu-set", [[ueid, report, chain], …]])`, in the order of the ueids, which are
/// the serial numbers of the device keys' certificates. Attester and verifier both call this.
///
/// # Errors
/// When a device's first certificate is malformed.
pub fn set_digest(devices: &[DeviceEvidence]) -> Result<Digest<of::GpuSet>, Malformed> {
    let mut entries = Vec::new();
    for (index, device) in devices.iter().enumerate().take(DEVICE_LIMIT + 1) {
        let certificates = device.certificates().map_err(|flaw| in_device(index, flaw))?;
        let ueid = certificates.first().map(|key| key.serial.clone()).unwrap_or_default();
        entries.push((ueid, device));
    }
    entries.sort_by(|(one, _), (other, _)| one.cmp(other));
    let entries: Vec<_> = entries
        .into_iter()
        .map(|(ueid, device)| (Blob(ueid), Blob(device.report.clone()), Blob(device.chain.clone())))
        .collect();
    Ok(Digest::of(&encode(&("akr/1 gpu-set", entries))))
}

pub(crate) fn in_device(index: usize, flaw: Malformed) -> Malformed {
    Malformed::Device { index, flaw: flaw.into() }
}

/// The output of NVIDIA's tool, whole.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wrapped {
    evidences: Vec<Item>,
    #[serde(rename = "result_code")]
    _result_code: Option<serde::de::IgnoredAny>,
    #[serde(rename = "result_message")]
    _result_message: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    arch: Architecture,
    certificate: String,
    driver_version: Option<String>,
    evidence: String,
    nonce: String,
    vbios_version: Option<String>,
    version: Option<String>,
}

impl Item {
    fn read(self) -> Result<DeviceEvidence, Malformed> {
        let text = |problem| Malformed::Text { part: "device evidence", problem };
        if self.version.is_some_and(|version| version != "1.0") {
            return Err(text("is of another version than 1.0"));
        }
        let base64 = |value: &str| {
            Base64::decode_vec(value).map_err(|_| text("has a member that is not base64"))
        };
        let mut nonce = [0; 32];
        hex::decode_to_slice(&self.nonce, &mut nonce)
            .map_err(|_| text("has a nonce that is not 32 bytes in hexadecimal"))?;
        Ok(DeviceEvidence {
            report: base64(&self.evidence)?,
            chain: base64(&self.certificate)?,
            labels: Labels {
                architecture: Some(self.arch),
                nonce: Some(nonce),
                driver: self.driver_version,
                vbios: self.vbios_version,
            },
        })
    }
}

/// Evidence of one device whose shape is right. Whether it is genuine is another question.
pub(crate) struct Device<'a> {
    pub(crate) report: Report<'a>,
    /// Leaf first.
    pub(crate) certificates: Vec<Certificate>,
    /// What the leaf's name says; none if it is no device's.
    pub(crate) kind: Option<(Chip, Kind)>,
    /// The certificates as they came.
    pub(crate) chain: &'a [u8],
    labels: &'a Labels,
}

/// What a device is, and says of itself.
pub(crate) enum Kind {
    Gpu(GpuFields),
    Switch(SwitchFields),
}

/// Software of a device that NVIDIA publishes a manifest for.
pub(crate) struct Software {
    pub(crate) what: &'static str,
    pub(crate) version: Option<String>,
    /// The name that NVIDIA's service gives the manifest.
    pub(crate) manifest_id: Option<String>,
}

impl Kind {
    /// The software that a device of this kind is measured by.
    pub(crate) fn software(&self, chip: &Chip) -> Vec<Software> {
        let compact = |version: &String| version.replace('.', "").to_ascii_uppercase();
        match self {
            Self::Gpu(fields) => {
                let prefix = match chip.architecture() {
                    Architecture::Hopper => "NV_GPU_DRIVER",
                    _ => "NV_GPU_CC_DRIVER",
                };
                let driver = fields.driver.as_ref();
                let driver_id = driver.map(|driver| format!("{prefix}_{}_{driver}", chip.name()));
                let board = [&fields.project, &fields.project_sku, &fields.chip_sku];
                let vbios_id = match (board, &fields.vbios) {
                    ([Some(project), Some(sku), Some(chip_sku)], Some(vbios)) => {
                        let version = compact(vbios);
                        Some(format!("NV_GPU_VBIOS_{project}_{sku}_{chip_sku}_{version}"))
                    }
                    _ => None,
                };
                let (driver, vbios) = (fields.driver.clone(), fields.vbios.clone());
                Vec::from([
                    Software { what: "driver", version: driver, manifest_id: driver_id },
                    Software { what: "vbios", version: vbios, manifest_id: vbios_id },
                ])
            }
            Self::Switch(fields) => {
                let version = fields.bios.clone();
                // Switches do not report their board: the id is the same for all.
                let id = version.as_ref().map(compact);
                let manifest_id = id.map(|id| format!("NV_SWITCH_BIOS_5612_0002_890_{id}"));
                Vec::from([Software { what: "bios", version, manifest_id }])
            }
        }
    }
}

impl<'a> Device<'a> {
    pub(crate) fn parse(evidence: &'a DeviceEvidence) -> Result<Self, Malformed> {
        let certificates = evidence.certificates()?;
        let report = Report::parse(&evidence.report)?;
        let kind = match certificates.first().and_then(Chip::of_key) {
            Some(chip) if chip.architecture() == Architecture::Ls10 => {
                Some((chip, Kind::Switch(SwitchFields::read(&report.opaque)?)))
            }
            Some(chip) => Some((chip, Kind::Gpu(GpuFields::read(&report.opaque)?))),
            None => None,
        };
        Ok(Self { report, certificates, kind, chain: &evidence.chain, labels: &evidence.labels })
    }

    /// The first label that the report does not bear out.
    pub(crate) fn false_label(&self, kind: &Kind) -> Option<&'static str> {
        let (driver, vbios) = match kind {
            Kind::Gpu(fields) => (&fields.driver, &fields.vbios),
            Kind::Switch(fields) => (&None, &fields.bios),
        };
        let labels = self.labels;
        if labels.nonce.is_some_and(|nonce| nonce != self.report.nonce) {
            Some("nonce")
        } else if differs(labels.driver.as_deref(), driver.as_deref()) {
            Some("driver_version")
        } else if differs(labels.vbios.as_deref(), vbios.as_deref()) {
            Some("vbios_version")
        } else {
            None
        }
    }

    pub(crate) fn labelled(&self) -> Option<Architecture> {
        self.labels.architecture
    }
}

fn differs(label: Option<&str>, seen: Option<&str>) -> bool {
    let same = |label: &str| seen.is_some_and(|seen| seen.eq_ignore_ascii_case(label));
    label.is_some_and(|label| !same(label))
}
