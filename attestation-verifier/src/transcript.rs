//! A record of one appraisal, from which anyone can make it again.
//!
//! Deterministic CBOR (RFC 8949 §4.2): inputs by SHA-256, what was expected, the time, the policy by
//! SHA-384, every check in the order in which it was made with its outcome, and the verdict. The same
//! inputs give the same bytes on every machine, so whoever holds the inputs replays the record and
//! compares. A transcript is no proof by itself and carries no signature: it is believed as far as it
//! was replayed.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use measurement::cbor::{self, Blob};
use measurement::digest::{Digest, of, sha256};
use measurement::launch::Measured;
use measurement::manifest::Tee;
use measurement::octets::Octets;
use serde::{Deserialize, Serialize};

use crate::appraise::{
    AttestationResult, Case, DevicesResult, Expected, ExpectedDevices, Finding, Findings, Outcome,
    Rejection, Verifier,
};
use crate::evidence::Evidence;
use crate::evidence::device::DeviceEvidence;
use crate::policy::Waived;

/// Most bytes of a transcript.
const LIMIT: usize = 256 * 1024;
const KIND: &str = "cloister/appraisal-transcript";
const VERSION: u32 = 2;

/// What a verifier is asked to judge: a processor, the devices of a machine, or both as one machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subject<'a> {
    /// The processor.
    pub processor: Option<Processor<'a>>,
    /// GPUs and switches.
    pub devices: Option<Devices<'a>>,
}

/// A processor's evidence, what came with it, and what it must say.
#[derive(Clone, Copy, Debug)]
pub struct Processor<'a> {
    /// The report or quote.
    pub evidence: Evidence<'a>,
    /// Its endorsements.
    pub endorsements: &'a [&'a [u8]],
    /// What it must say.
    pub expected: Expected<'a>,
}

/// The devices' evidence, what came with it, and what it must say.
#[derive(Clone, Copy, Debug)]
pub struct Devices<'a> {
    /// One for each device.
    pub evidence: &'a [DeviceEvidence],
    /// Their endorsements.
    pub endorsements: &'a [&'a [u8]],
    /// What they must say.
    pub expected: ExpectedDevices<'a>,
}

/// The verdict on each part of a [`Subject`]. It is yes only if every part's is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Verdicts {
    /// On the processor.
    pub processor: Option<Result<AttestationResult, Rejection>>,
    /// On the devices.
    pub devices: Option<Result<DevicesResult, Rejection>>,
}

impl Verdicts {
    /// Why each part was refused that was, the processor first.
    pub fn rejections(&self) -> impl Iterator<Item = &Rejection> {
        let processor = self.processor.iter().filter_map(|one| one.as_ref().err());
        processor.chain(self.devices.iter().filter_map(|one| one.as_ref().err()))
    }

    /// Every reason of every rejection.
    pub fn reasons(&self) -> Vec<Finding> {
        self.rejections().flat_map(Rejection::reasons).collect()
    }

    /// Whether there was something to judge, and all of it was accepted.
    pub fn accepted(&self) -> bool {
        let any = self.processor.is_some() || self.devices.is_some();
        any && self.rejections().next().is_none()
    }
}

/// A record of one appraisal.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Transcript {
    kind: String,
    v: u32,
    /// Version of this package. Another one may make more checks.
    verifier: String,
    at: u64,
    policy: Digest<of::Policy>,
    processor: Option<ProcessorRecord>,
    devices: Option<DevicesRecord>,
    accepted: bool,
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
struct ProcessorRecord {
    question: ProcessorQuestion,
    checks: Vec<Line>,
    root: String,
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
struct DevicesRecord {
    question: DevicesQuestion,
    checks: Vec<Line>,
    roots: Vec<String>,
}

/// One check. `observed` and `required` are empty unless it failed; `because` unless it was waived.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
struct Line {
    id: String,
    outcome: String,
    observed: String,
    required: String,
    because: String,
}

/// What was asked of a processor, to ask it again.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessorQuestion {
    /// What kind of evidence it was.
    pub tee: Tee,
    /// SHA-256 of the evidence.
    pub evidence: Octets<32>,
    /// SHA-256 of each endorsement, in their order.
    pub endorsements: Vec<Octets<32>>,
    /// The 64 bytes that the evidence had to carry.
    pub report_data: Octets<64>,
    /// SHA-256 of the launch blob.
    pub launch_blob: Octets<32>,
    /// The images that could run.
    pub images: Vec<Measured>,
    /// The chips that could run them; none means any.
    pub platforms: Vec<Blob>,
}

/// What was asked of devices, to ask it again.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DevicesQuestion {
    /// [`DeviceEvidence::digest`] of each device, in their order.
    pub evidence: Vec<Octets<32>>,
    /// SHA-256 of each endorsement, in their order.
    pub endorsements: Vec<Octets<32>>,
    /// The nonce that every device had to answer.
    pub nonce: Octets<32>,
    /// How many GPUs there had to be.
    pub gpus: u32,
    /// How many switches there had to be.
    pub switches: u32,
    /// The devices that could be there; none means any.
    pub chips: Vec<Octets<8>>,
}

/// Appraises as [`Verifier::appraise`] and [`Verifier::appraise_devices`] do, and records it.
pub fn transcribe(
    verifier: &Verifier,
    subject: &Subject<'_>,
    now_unix: u64,
) -> (Transcript, Verdicts) {
    let (processor, on_processor) = match &subject.processor {
        Some(processor) => {
            let (record, verdict) = on_processor(verifier, processor, now_unix);
            (Some(record), Some(verdict))
        }
        None => (None, None),
    };
    let (devices, on_devices) = match &subject.devices {
        Some(devices) => {
            let (record, verdict) = on_devices(verifier, devices, now_unix);
            (Some(record), Some(verdict))
        }
        None => (None, None),
    };
    let verdicts = Verdicts { processor: on_processor, devices: on_devices };
    let transcript = Transcript {
        kind: KIND.into(),
        v: VERSION,
        verifier: env!("CARGO_PKG_VERSION").into(),
        at: now_unix,
        policy: verifier.policy().digest(),
        processor,
        devices,
        accepted: verdicts.accepted(),
    };
    (transcript, verdicts)
}

fn on_processor(
    verifier: &Verifier,
    subject: &Processor<'_>,
    now: u64,
) -> (ProcessorRecord, Result<AttestationResult, Rejection>) {
    let Processor { evidence, endorsements, expected } = subject;
    let mut findings = Findings::default();
    let case = Case { evidence, endorsements, expected, now };
    let verdict = verifier.judge(&case, None, &mut findings);
    let waived = verifier.policy().waived(evidence.tee);
    let record = ProcessorRecord {
        question: ProcessorQuestion {
            tee: evidence.tee,
            evidence: Octets(sha256(evidence.report)),
            endorsements: digests(endorsements),
            report_data: Octets(*expected.report_data),
            launch_blob: Octets(sha256(expected.launch_blob)),
            images: expected.images.to_vec(),
            platforms: expected.platforms.to_vec(),
        },
        checks: lines(verdict.as_ref().err(), &findings, &waived),
        root: verdict.as_ref().map_or(String::new(), |result| result.root().to_string()),
    };
    (record, verdict)
}

fn on_devices(
    verifier: &Verifier,
    subject: &Devices<'_>,
    now: u64,
) -> (DevicesRecord, Result<DevicesResult, Rejection>) {
    let Devices { evidence, endorsements, expected } = subject;
    let mut findings = Findings::default();
    let verdict =
        verifier.judge_devices(evidence, endorsements, expected, now, None, &mut findings);
    let waived = verifier.policy().waived_for_devices();
    let roots = verdict.iter().flat_map(DevicesResult::devices);
    let record = DevicesRecord {
        question: DevicesQuestion {
            evidence: evidence.iter().map(DeviceEvidence::digest).collect(),
            endorsements: digests(endorsements),
            nonce: Octets(*expected.nonce),
            // No machine has that many: a number beyond it is refused as it is.
            gpus: u32::try_from(expected.gpus).unwrap_or(u32::MAX),
            switches: u32::try_from(expected.switches).unwrap_or(u32::MAX),
            chips: expected.chips.to_vec(),
        },
        checks: lines(verdict.as_ref().err(), &findings, &waived),
        roots: roots.map(|device| device.root().to_string()).collect(),
    };
    (record, verdict)
}

fn digests(items: &[&[u8]]) -> Vec<Octets<32>> {
    items.iter().map(|item| Octets(sha256(item))).collect()
}

impl Transcript {
    /// The one encoding.
    pub fn to_bytes(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    /// Reads a record.
    ///
    /// # Errors
    /// When the bytes are not the one encoding of a record of a known kind and version.
    pub fn read(bytes: &[u8]) -> Result<Self, Unreadable> {
        let transcript: Self = cbor::decode(bytes, LIMIT)?;
        if transcript.kind == KIND && transcript.v == VERSION {
            return Ok(transcript);
        }
        Err(Unreadable::Kind { kind: transcript.kind, version: transcript.v })
    }

    /// When it was judged, in seconds since 1970.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// SHA-384 of the policy's text.
    pub fn policy_digest(&self) -> Digest<of::Policy> {
        self.policy
    }

    /// What was asked of the processor, if one was judged.
    pub fn processor(&self) -> Option<&ProcessorQuestion> {
        self.processor.as_ref().map(|record| &record.question)
    }

    /// What was asked of the devices, if any were judged.
    pub fn devices(&self) -> Option<&DevicesQuestion> {
        self.devices.as_ref().map(|record| &record.question)
    }

    /// Whether the record says that the evidence was accepted.
    pub fn accepted(&self) -> bool {
        self.accepted
    }

    /// Every check with its outcome: `held`, `failed`, `waived`; those of the processor first.
    pub fn checks(&self) -> impl Iterator<Item = (&str, &str)> {
        let processor = self.processor.iter().flat_map(|record| &record.checks);
        let devices = self.devices.iter().flat_map(|record| &record.checks);
        processor.chain(devices).map(|line| (line.id.as_str(), line.outcome.as_str()))
    }
}

/// Why bytes are not a transcript.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Unreadable {
    /// Not the one encoding of a record.
    #[error("not a transcript: {0}")]
    Encoding(#[from] cbor::Malformed),
    /// A record of something else, or of another version.
    #[error("a record of {kind} version {version}, required {KIND} version {VERSION}")]
    Kind {
        /// What it says it is.
        kind: String,
        /// Its version.
        version: u32,
    },
}

/// The trail: shape, origin, then the policy's checks. What comes after the first flaw of shape or
/// origin was not reached.
fn lines(rejection: Option<&Rejection>, findings: &Findings, waived: &[Waived]) -> Vec<Line> {
    let line = |id: &str, outcome: &str| Line {
        id: id.into(),
        outcome: outcome.into(),
        observed: String::new(),
        required: String::new(),
        because: String::new(),
    };
    let mut failed = findings.as_slice().iter();
    let (shape, origin, flaw) = match rejection {
        Some(rejection @ Rejection::Malformed(_)) => (false, false, rejection.reasons()),
        Some(rejection @ Rejection::Inauthentic(_)) => (true, false, rejection.reasons()),
        Some(Rejection::Unacceptable(_)) | None => (true, true, Vec::new()),
    };
    let mut lines = Vec::new();
    let steps = [("shape", shape), ("origin", origin)];
    lines.extend(steps.iter().filter(|(_, held)| *held).map(|(step, _)| line(step, "held")));
    for check in findings.checks() {
        let mut line = match check.outcome {
            Outcome::Failed => line(check.id, "failed"),
            Outcome::Held => line(check.id, "held"),
            Outcome::Waived => line(check.id, "waived"),
        };
        if check.outcome == Outcome::Waived {
            let because = waived.iter().find(|waived| waived.check == check.id);
            line.because = because.map_or(String::new(), |waived| waived.because.clone());
        }
        if check.outcome == Outcome::Failed
            && let Some(finding) = failed.next()
        {
            (line.observed, line.required) = (finding.observed().into(), finding.required().into());
        }
        lines.push(line);
    }
    for finding in &flaw {
        let (observed, required) = (finding.observed().into(), finding.required().into());
        lines.push(Line { observed, required, ..line(finding.id(), "failed") });
    }
    lines
}
