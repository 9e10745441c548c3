//! The verdict on NVIDIA's devices, all those of one machine together.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use measurement::digest::sha384;
use measurement::octets::Octets;

use self::case::Case;
use super::measured::{Measured, compare};
use super::{Findings, Rejection, Verifier, no_section, topology};
use crate::endorsement::device::DeviceEndorsements;
use crate::endorsement::manifest::{self, Reference};
use crate::endorsement::nvidia::{self, Claims, authenticate};
use crate::endorsement::revocation::{Revocations, Standing};
use crate::endorsement::{Certificate, Role};
use crate::evidence::device::{DEVICE_LIMIT, Device, DeviceEvidence, Kind, in_device};
use crate::evidence::{Inauthentic, Place};
use crate::wire::Malformed;

mod case;
mod result;

pub use result::{DeviceResult, DevicesResult};

/// What the evidence of a machine's devices must say to be of use to the one who asks.
#[derive(Clone, Copy, Debug)]
pub struct ExpectedDevices<'a> {
    /// The 32 bytes that bind every report to its session.
    pub nonce: &'a [u8; 32],
    /// How many GPUs there are.
    pub gpus: usize,
    /// How many NVSwitches there are.
    pub switches: usize,
    /// The devices, by their per-device ids, that may be there; none means any.
    pub chips: &'a [Octets<8>],
}

impl Verifier {
    /// Judges the evidence of all devices of a machine with the help of `endorsements` (reference
    /// manifests, revocation lists, stapled answers, in any order), at `now_unix` (seconds since
    /// 1970). The only maker of a [`DevicesResult`].
    ///
    /// # Errors
    /// At the first thing that is malformed or inauthentic; of what is merely unacceptable, all.
    pub fn appraise_devices(
        &self,
        evidence: &[DeviceEvidence],
        endorsements: &[&[u8]],
        expected: &ExpectedDevices<'_>,
        now_unix: u64,
    ) -> Result<DevicesResult, Rejection> {
        let devices = parse(evidence)?;
        let endorsements = DeviceEndorsements::read(endorsements)?;
        let authentic = self.authenticate_devices(devices, endorsements, now_unix)?;

        let mut findings = Findings::default();
        judge_set(&authentic.claims, expected, &mut findings);
        let measured = self.judge_each(&authentic, expected, &mut findings);
        self.judge_topology(&authentic.claims, &mut findings);
        findings.settle()?;
        Ok(self.devices_result(authentic, measured, expected))
    }

    fn authenticate_devices(
        &self,
        devices: Vec<Device<'_>>,
        endorsements: DeviceEndorsements,
        now: u64,
    ) -> Result<Authentic, Inauthentic> {
        let anchors = &self.policy.anchors;
        let revocations = endorsements.revocations;
        let within = |place| move |flaw: Inauthentic| Inauthentic::In { place, flaw: flaw.into() };
        let mut authentic = Authentic::default();
        for (index, device) in devices.into_iter().enumerate() {
            let within = within(Place::Device(index));
            let claims = authenticate(device, anchors, now).map_err(within)?;
            // The device key's certificate is the device's own: no one revokes it.
            let judged = claims.certificates.get(1..).unwrap_or_default();
            let roles = nvidia::ROLES.get(1..).unwrap_or_default();
            let standing = standing(&revocations, judged, roles, now).map_err(within)?;
            authentic.claims.push(claims);
            authentic.standings.push(standing);
        }
        for (index, manifest) in endorsements.manifests {
            let within = within(Place::Endorsement(index));
            let reference = manifest.authenticate(anchors, now).map_err(within)?;
            let judged = &reference.certificates;
            let standing = standing(&revocations, judged, &manifest::ROLES, now).map_err(within)?;
            authentic.references.push((reference, standing));
        }
        Ok(authentic)
    }

    /// Each device by itself. Returns what was measured, in the order of the devices.
    fn judge_each(
        &self,
        authentic: &Authentic,
        expected: &ExpectedDevices<'_>,
        findings: &mut Findings,
    ) -> Vec<Measured> {
        let references: Vec<_> = authentic.references.iter().map(|(one, _)| one).collect();
        let mut measured = Vec::new();
        for (index, claims) in authentic.claims.iter().enumerate() {
            let values = compare(claims, &references);
            let case = Case {
                index,
                claims,
                measured: &values,
                devices: authentic.standings.get(index).map(Vec::as_slice).unwrap_or_default(),
                manifests: authentic.standings_of(&values),
                expected,
            };
            match (&claims.kind, &self.policy.gpu, &self.policy.nvswitch) {
                (Kind::Gpu(fields), Some(policy), _) => case.judge_gpu(fields, policy, findings),
                (Kind::Switch(fields), _, Some(policy)) => {
                    case.judge_switch(fields, policy, findings);
                }
                (Kind::Gpu(_), None, _) => findings.add(no_section("gpu")),
                (Kind::Switch(_), _, None) => findings.add(no_section("nvswitch")),
            }
            measured.push(values);
        }
        measured
    }

    fn judge_topology(&self, claims: &[Claims], findings: &mut Findings) {
        if !topology::applies(claims) {
            return;
        }
        let Some(policy) = &self.policy.nvswitch else {
            return findings.add(no_section("nvswitch"));
        };
        let problems = topology::problems(claims);
        if problems.is_empty() {
            policy.topology().judge(findings, |_| None);
        }
        for problem in problems {
            policy.topology().judge(findings, |_| Some(problem));
        }
    }

    fn devices_result(
        &self,
        authentic: Authentic,
        measured: Vec<Measured>,
        expected: &ExpectedDevices<'_>,
    ) -> DevicesResult {
        let identities: Vec<u8> =
            authentic.claims.iter().flat_map(|claims| claims.identity).collect();
        let devices = authentic.claims.into_iter().zip(measured).map(|(claims, measured)| {
            let manifests = measured.used.iter().filter_map(|at| authentic.references.get(*at));
            let manifests: Vec<_> = manifests.map(|(reference, _)| reference).collect();
            DeviceResult::new(claims, &measured, &manifests)
        });
        DevicesResult {
            devices: devices.collect(),
            nonce: Octets(*expected.nonce),
            policy: self.policy.digest(),
            identity: Octets(sha384(&identities)),
            waived: self.policy.waived_for_devices(),
        }
    }
}

fn parse(evidence: &[DeviceEvidence]) -> Result<Vec<Device<'_>>, Malformed> {
    if evidence.is_empty() || evidence.len() > DEVICE_LIMIT {
        return Err(Malformed::Text {
            part: "device evidence",
            problem: "holds no device, or more than any machine has",
        });
    }
    let parse = |(index, one)| Device::parse(one).map_err(|flaw| in_device(index, flaw));
    evidence.iter().enumerate().map(parse).collect()
}

/// How each certificate below the root stands.
fn standing(
    revocations: &Revocations,
    certificates: &[Certificate],
    roles: &[Role],
    now: u64,
) -> Result<Vec<(Role, Standing)>, Inauthentic> {
    let issuers = certificates.iter().skip(1);
    let links = certificates.iter().zip(issuers).zip(roles);
    links
        .map(|((certificate, issuer), role)| {
            Ok((*role, revocations.standing(*role, certificate, issuer, now)?))
        })
        .collect()
}

/// Devices and manifests that are genuine, whatever they say.
#[derive(Default)]
struct Authentic {
    claims: Vec<Claims>,
    /// Of each device's certificates.
    standings: Vec<Vec<(Role, Standing)>>,
    references: Vec<(Reference, Vec<(Role, Standing)>)>,
}

impl Authentic {
    /// Of the certificates of the manifests that a device was measured by.
    fn standings_of(&self, measured: &Measured) -> Vec<(Role, Standing)> {
        let used = measured.used.iter().filter_map(|at| self.references.get(*at));
        used.flat_map(|(_, standing)| standing.iter().copied()).collect()
    }
}

/// The checks that no policy waives: for this session, as many as expected, each another one, and
/// all GPUs alike.
fn judge_set(claims: &[Claims], expected: &ExpectedDevices<'_>, findings: &mut Findings) {
    for (index, claims) in claims.iter().enumerate() {
        findings.require(
            claims.nonce == *expected.nonce,
            "devices.nonce",
            || format!("device {index}: {}", hex::encode(claims.nonce)),
            &hex::encode(expected.nonce),
        );
    }
    let gpus = claims.iter().filter(|one| matches!(one.kind, Kind::Gpu(_))).count();
    let switches = claims.len() - gpus;
    let text = |gpus, switches| format!("{gpus} gpus and {switches} switches");
    findings.require(
        (gpus, switches) == (expected.gpus, expected.switches),
        "devices.count",
        || text(gpus, switches),
        &text(expected.gpus, expected.switches),
    );
    for (index, one) in claims.iter().enumerate() {
        let same = |other: &&Claims| {
            one.pdi == other.pdi
                || one.ueid == other.ueid
                || one.responder_nonce == other.responder_nonce
        };
        let twin = claims.iter().take(index).position(|other| same(&other));
        findings.require(
            twin.is_none(),
            "devices.distinct",
            || format!("device {} and device {index} are one", twin.unwrap_or_default()),
            "distinct",
        );
    }
    let mut kinds: Vec<String> = claims.iter().filter_map(alike).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let observed = || kinds.join(", ");
    findings.require(kinds.len() <= 1, "devices.alike", observed, "all gpus alike");
}

/// What all GPUs of a machine have in common.
fn alike(claims: &Claims) -> Option<String> {
    let Kind::Gpu(fields) = &claims.kind else {
        return None;
    };
    let mode = fields.mode().map_or_else(String::from, |mode| mode.to_string());
    let driver = fields.driver.as_deref().unwrap_or("none");
    Some(format!("{} driver {driver} mode {mode}", claims.chip.name()))
}
