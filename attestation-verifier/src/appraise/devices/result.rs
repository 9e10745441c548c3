//! What a verdict on devices says, once it is yes.

use alloc::string::String;
use alloc::vec::Vec;

use measurement::digest::{Digest, Hash32, of};
use measurement::octets::Octets;
use serde::Serialize;

use crate::appraise::measured::Measured;
use crate::endorsement::manifest::Reference;
use crate::endorsement::nvidia::Claims;
use crate::evidence::device::{Architecture, Kind, Mode};
use crate::policy::Waived;
use crate::root::Root;

/// The policy's yes to all devices of a machine.
///
/// Only [`Verifier::appraise_devices`] and [`Verifier::appraise_devices_with`] make one: there is no
/// other constructor, and it cannot be read from bytes.
///
/// [`Verifier::appraise_devices`]: crate::appraise::Verifier::appraise_devices
/// [`Verifier::appraise_devices_with`]: crate::appraise::Verifier::appraise_devices_with
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct DevicesResult {
    pub(super) devices: Vec<DeviceResult>,
    pub(super) nonce: Octets<32>,
    pub(super) policy: Digest<of::Policy>,
    pub(super) identity: Octets<48>,
    pub(super) waived: Vec<Waived>,
}

impl DevicesResult {
    /// The devices, in the order of their evidence.
    pub fn devices(&self) -> &[DeviceResult] {
        &self.devices
    }

    /// The nonce that every report answers.
    pub fn nonce(&self) -> &[u8; 32] {
        self.nonce.as_bytes()
    }

    /// The policy that was applied.
    pub fn policy_digest(&self) -> Digest<of::Policy> {
        self.policy
    }

    /// SHA-384 of what the devices signed, in order: tells replays apart.
    pub fn identity(&self) -> Octets<48> {
        self.identity
    }

    /// The checks that the policy waived, with its reasons.
    pub fn waived(&self) -> &[Waived] {
        &self.waived
    }

    /// Whether any device, or any manifest it was measured by, was only simulated.
    pub fn simulated(&self) -> bool {
        self.devices.iter().any(DeviceResult::simulated)
    }
}

/// What the policy said yes to, of one device.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct DeviceResult {
    architecture: Architecture,
    chip: String,
    hardware_model: String,
    root: Root,
    manifest_roots: Vec<Root>,
    manifests: Vec<Hash32<of::File>>,
    pdi: Octets<8>,
    ueid: String,
    driver: Option<String>,
    vbios: Option<String>,
    mode: Option<Mode>,
    matched: usize,
}

impl DeviceResult {
    pub(super) fn new(claims: Claims, measured: &Measured, manifests: &[&Reference]) -> Self {
        let (driver, vbios, mode) = match &claims.kind {
            Kind::Gpu(fields) => (fields.driver.clone(), fields.vbios.clone(), fields.mode().ok()),
            Kind::Switch(fields) => (None, fields.bios.clone(), None),
        };
        Self {
            architecture: claims.chip.architecture(),
            chip: claims.chip.name().into(),
            hardware_model: claims.chip.hardware_model(),
            root: claims.root,
            manifest_roots: manifests.iter().map(|one| one.root.clone()).collect(),
            manifests: manifests.iter().map(|one| one.sha256).collect(),
            pdi: Octets(claims.pdi),
            ueid: hex::encode(&claims.ueid),
            driver,
            vbios,
            mode,
            matched: measured.matched,
        }
    }

    /// Its generation.
    pub fn architecture(&self) -> Architecture {
        self.architecture
    }

    /// As in `GH100`.
    pub fn chip(&self) -> &str {
        &self.chip
    }

    /// The name of its identity certificate, as in `GH100 A01 GSP BROM`.
    pub fn hardware_model(&self) -> &str {
        &self.hardware_model
    }

    /// The root its certificates end in.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// SHA-256 of the manifests it was measured by.
    pub fn manifests(&self) -> &[Hash32<of::File>] {
        &self.manifests
    }

    /// The id it has for life.
    pub fn pdi(&self) -> Octets<8> {
        self.pdi
    }

    /// The serial number of its key's certificate, in hexadecimal.
    pub fn ueid(&self) -> &str {
        &self.ueid
    }

    /// The driver's version; none for a switch.
    pub fn driver(&self) -> Option<&str> {
        self.driver.as_deref()
    }

    /// The version of its VBIOS or BIOS.
    pub fn vbios(&self) -> Option<&str> {
        self.vbios.as_deref()
    }

    /// The mode of a GPU, where it reports one.
    pub fn mode(&self) -> Option<Mode> {
        self.mode
    }

    /// How many measurements were held against a manifest and matched.
    pub fn matched(&self) -> usize {
        self.matched
    }

    /// Whether it, or a manifest it was measured by, was only simulated.
    pub fn simulated(&self) -> bool {
        self.root.simulated() || self.manifest_roots.iter().any(Root::simulated)
    }
}
