//! The verdict on NVIDIA's devices, all those of one machine together.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use measurement::digest::sha384;
use measurement::octets::Octets;

use self::case::Case;
use super::measured::{Measured, compare};
use super::vouched::{Vouched, in_place};
use super::{Findings, Rejection, Verifier, no_section, topology};
use crate::cache::Cache;
use crate::endorsement::nvidia::{Claims, authenticate};
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
    /// 1970). With [`Verifier::appraise_devices_with`] the only maker of a [`DevicesResult`].
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
        let mut findings = Findings::default();
        self.judge_devices(evidence, endorsements, expected, now_unix, None, &mut findings)
    }

    /// [`Verifier::appraise_devices`], which finds in `cache` what it has verified before: the same
    /// verdict, at the cost of one signature for each device.
    ///
    /// # Errors
    /// The same.
    pub fn appraise_devices_with(
        &self,
        cache: &mut Cache,
        evidence: &[DeviceEvidence],
        endorsements: &[&[u8]],
        expected: &ExpectedDevices<'_>,
        now_unix: u64,
    ) -> Result<DevicesResult, Rejection> {
        let mut findings = Findings::default();
        self.judge_devices(evidence, endorsements, expected, now_unix, Some(cache), &mut findings)
    }

    /// The appraisal itself; `findings` keeps the trail of the checks, whatever the verdict.
    pub(crate) fn judge_devices(
        &self,
        evidence: &[DeviceEvidence],
        endorsements: &[&[u8]],
        expected: &ExpectedDevices<'_>,
        now: u64,
        cache: Option<&mut Cache>,
        findings: &mut Findings,
    ) -> Result<DevicesResult, Rejection> {
        let devices = parse(evidence)?;
        let vouched = self.vouched(&devices, endorsements, now, cache)?;
        let claims = authenticate_all(devices, &vouched)?;

        judge_set(&claims, expected, findings);
        let measured = self.judge_each(&claims, &vouched, expected, now, findings);
        self.judge_topology(&claims, findings);
        findings.settle()?;
        Ok(self.devices_result(claims, measured, &vouched, expected))
    }

    /// Each device by itself. Returns what was measured, in the order of the devices.
    fn judge_each(
        &self,
        claims: &[Claims],
        vouched: &Vouched,
        expected: &ExpectedDevices<'_>,
        now: u64,
        findings: &mut Findings,
    ) -> Vec<Measured> {
        let references: Vec<_> = vouched.references.iter().map(|(one, _)| one).collect();
        let mut measured = Vec::new();
        for (index, (claims, (_, covered))) in claims.iter().zip(&vouched.devices).enumerate() {
            let values = compare(claims, &references);
            let used = values.used.iter().filter_map(|at| vouched.references.get(*at));
            let case = Case {
                index,
                claims,
                measured: &values,
                devices: covered.standing(now).collect(),
                manifests: used.flat_map(|(_, covered)| covered.standing(now)).collect(),
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
        claims: Vec<Claims>,
        measured: Vec<Measured>,
        vouched: &Vouched,
        expected: &ExpectedDevices<'_>,
    ) -> DevicesResult {
        let identities: Vec<u8> = claims.iter().flat_map(|claims| claims.identity).collect();
        let devices = claims.into_iter().zip(measured).map(|(claims, measured)| {
            let manifests = measured.used.iter().filter_map(|at| vouched.references.get(*at));
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

fn authenticate_all(
    devices: Vec<Device<'_>>,
    vouched: &Vouched,
) -> Result<Vec<Claims>, Inauthentic> {
    let pairs = devices.into_iter().zip(&vouched.devices).enumerate();
    pairs
        .map(|(index, (device, (root, _)))| {
            authenticate(device, root.clone()).map_err(in_place(Place::Device(index)))
        })
        .collect()
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
