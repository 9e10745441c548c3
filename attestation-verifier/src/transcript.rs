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

use crate::appraise::{AttestationResult, Case, Expected, Findings, Outcome, Rejection, Verifier};
use crate::evidence::Evidence;
use crate::policy::Waived;

/// Most bytes of a transcript.
const LIMIT: usize = 256 * 1024;
const KIND: &str = "cloister/appraisal-transcript";
const VERSION: u32 = 1;

/// A record of one appraisal.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Transcript {
    kind: String,
    v: u32,
    /// Version of this package. Another one may make more checks.
    verifier: String,
    tee: Tee,
    at: u64,
    evidence: Octets<32>,
    endorsements: Vec<Octets<32>>,
    expected: Expectation,
    policy: Digest<of::Policy>,
    checks: Vec<Line>,
    root: String,
    accepted: bool,
}

/// What was expected of the evidence.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
struct Expectation {
    report_data: Octets<64>,
    launch_blob: Octets<32>,
    images: Vec<Measured>,
    platforms: Vec<Blob>,
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

/// What an appraisal was asked, to ask it again.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Question {
    /// What kind of evidence it was.
    pub tee: Tee,
    /// When it was judged, in seconds since 1970.
    pub at: u64,
    /// SHA-256 of the evidence.
    pub evidence: Octets<32>,
    /// SHA-256 of each endorsement, in their order.
    pub endorsements: Vec<Octets<32>>,
    /// SHA-384 of the policy's text.
    pub policy: Digest<of::Policy>,
    /// The 64 bytes that the evidence had to carry.
    pub report_data: Octets<64>,
    /// SHA-256 of the launch blob.
    pub launch_blob: Octets<32>,
    /// The images that could run.
    pub images: Vec<Measured>,
    /// The chips that could run them; none means any.
    pub platforms: Vec<Blob>,
}

/// Appraises as [`Verifier::appraise`] does, and records it.
///
/// # Errors
/// Those of [`Verifier::appraise`], beside the record, which is there all the same.
pub fn transcribe(
    verifier: &Verifier,
    evidence: &Evidence<'_>,
    endorsements: &[&[u8]],
    expected: &Expected<'_>,
    now_unix: u64,
) -> (Transcript, Result<AttestationResult, Rejection>) {
    let mut findings = Findings::default();
    let case = Case { evidence, endorsements, expected, now: now_unix };
    let verdict = verifier.judge(&case, None, &mut findings);
    let waived = verifier.policy().waived(evidence.tee);
    let transcript = Transcript {
        kind: KIND.into(),
        v: VERSION,
        verifier: env!("CARGO_PKG_VERSION").into(),
        tee: evidence.tee,
        at: now_unix,
        evidence: Octets(sha256(evidence.report)),
        endorsements: endorsements.iter().map(|item| Octets(sha256(item))).collect(),
        expected: Expectation {
            report_data: Octets(*expected.report_data),
            launch_blob: Octets(sha256(expected.launch_blob)),
            images: expected.images.to_vec(),
            platforms: expected.platforms.to_vec(),
        },
        policy: verifier.policy().digest(),
        checks: lines(&verdict, &findings, &waived),
        root: verdict.as_ref().map_or(String::new(), |result| result.root().to_string()),
        accepted: verdict.is_ok(),
    };
    (transcript, verdict)
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

    /// What to ask again.
    pub fn question(&self) -> Question {
        Question {
            tee: self.tee,
            at: self.at,
            evidence: self.evidence,
            endorsements: self.endorsements.clone(),
            policy: self.policy,
            report_data: self.expected.report_data,
            launch_blob: self.expected.launch_blob,
            images: self.expected.images.clone(),
            platforms: self.expected.platforms.clone(),
        }
    }

    /// Whether the record says that the evidence was accepted.
    pub fn accepted(&self) -> bool {
        self.accepted
    }

    /// Every check with its outcome: `held`, `failed`, `waived`.
    pub fn checks(&self) -> impl Iterator<Item = (&str, &str)> {
        self.checks.iter().map(|line| (line.id.as_str(), line.outcome.as_str()))
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
fn lines(
    verdict: &Result<AttestationResult, Rejection>,
    findings: &Findings,
    waived: &[Waived],
) -> Vec<Line> {
    let line = |id: &str, outcome: &str| Line {
        id: id.into(),
        outcome: outcome.into(),
        observed: String::new(),
        required: String::new(),
        because: String::new(),
    };
    let mut failed = findings.as_slice().iter();
    let flaw = match verdict {
        Err(rejection @ (Rejection::Malformed(_) | Rejection::Inauthentic(_))) => {
            rejection.reasons()
        }
        _ => Vec::new(),
    };
    let mut lines = Vec::new();
    if !matches!(verdict, Err(Rejection::Malformed(_))) {
        lines.push(line("shape", "held"));
    }
    if !matches!(verdict, Err(Rejection::Malformed(_) | Rejection::Inauthentic(_))) {
        lines.push(line("origin", "held"));
    }
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
