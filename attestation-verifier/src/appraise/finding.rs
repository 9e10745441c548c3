//! Why evidence was refused: the first flaw of shape or origin, or all that the policy has against it.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::{Serialize, Serializer};
use thiserror::Error;

use crate::evidence::Inauthentic;
use crate::wire::Malformed;

/// Why evidence was refused.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum Rejection {
    /// Its origin is not what it says.
    #[error("inauthentic evidence: {0}")]
    Inauthentic(#[from] Inauthentic),
    /// It has not the shape of evidence, or an endorsement has no known shape.
    #[error("malformed evidence: {0}")]
    Malformed(#[from] Malformed),
    /// It is genuine, and the policy refuses what it says.
    #[error("unacceptable evidence: {0}")]
    Unacceptable(Findings),
}

impl Rejection {
    /// The findings, when the policy refused; none otherwise.
    pub fn findings(&self) -> &[Finding] {
        match self {
            Self::Unacceptable(findings) => findings.as_slice(),
            Self::Inauthentic(_) | Self::Malformed(_) => &[],
        }
    }

    /// Every reason as a finding, whichever step it comes from: the policy's, or the one flaw of
    /// shape or origin, whose ids begin with `shape.` and `origin.`. Never empty.
    pub fn reasons(&self) -> Vec<Finding> {
        match self {
            Self::Unacceptable(findings) => findings.as_slice().to_vec(),
            Self::Inauthentic(flaw) => Vec::from([flaw.finding()]),
            Self::Malformed(flaw) => Vec::from([flaw.finding()]),
        }
    }

    /// Whether nothing is known against the evidence itself: something to judge it with is missing.
    pub fn could_not_judge(&self) -> bool {
        fn missing(flaw: &Inauthentic) -> bool {
            match flaw {
                Inauthentic::CouldNotJudge { .. } | Inauthentic::Missing { .. } => true,
                Inauthentic::In { flaw, .. } => missing(flaw),
                _ => false,
            }
        }
        matches!(self, Self::Inauthentic(flaw) if missing(flaw))
    }
}

/// All that a policy has against a piece of evidence, and the trail of the checks that were made.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    found: Vec<Finding>,
    checks: Vec<Checked>,
}

impl Findings {
    pub(crate) fn add(&mut self, finding: Finding) {
        self.checks.push(Checked { id: finding.id(), outcome: Outcome::Failed });
        self.found.push(finding);
    }

    pub(super) fn append(&mut self, mut more: Self) {
        self.checks.append(&mut more.checks);
        self.found.append(&mut more.found);
    }

    /// Notes that a check was made and held.
    pub(crate) fn held(&mut self, id: &'static str) {
        self.checks.push(Checked { id, outcome: Outcome::Held });
    }

    /// Notes that the policy does not make a check.
    pub(crate) fn waived(&mut self, id: &'static str) {
        self.checks.push(Checked { id, outcome: Outcome::Waived });
    }

    /// A check that no policy can waive.
    pub(crate) fn require(
        &mut self,
        holds: bool,
        id: &'static str,
        observed: impl FnOnce() -> String,
        required: &str,
    ) {
        if holds {
            self.held(id);
        } else {
            self.add(Finding::new(id, observed(), required.into()));
        }
    }

    pub(super) fn settle(&self) -> Result<(), Rejection> {
        if self.found.is_empty() { Ok(()) } else { Err(Rejection::Unacceptable(self.clone())) }
    }

    /// Every check in the order in which it was made.
    pub fn checks(&self) -> &[Checked] {
        &self.checks
    }

    /// The findings, in the order of the checks.
    pub fn as_slice(&self) -> &[Finding] {
        &self.found
    }

    /// The ids of the checks that failed.
    pub fn ids(&self) -> Vec<&'static str> {
        self.found.iter().map(Finding::id).collect()
    }
}

impl PartialEq for Findings {
    fn eq(&self, other: &Self) -> bool {
        self.found == other.found
    }
}

impl Eq for Findings {}

impl Serialize for Findings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.found.serialize(serializer)
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, finding) in self.found.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{finding}")?;
        }
        Ok(())
    }
}

/// One check that was made, and what came of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct Checked {
    /// The check, by the name it has in the policy.
    pub id: &'static str,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a check.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The evidence failed it: there is a finding.
    Failed,
    /// The evidence satisfies it.
    Held,
    /// The policy does not make it, and says why.
    Waived,
}

/// One check that evidence failed.
#[derive(Clone, Debug, Eq, Error, PartialEq, Serialize)]
#[error("{check} is {observed}, policy requires {required}")]
pub struct Finding {
    #[serde(rename = "id")]
    check: &'static str,
    observed: String,
    required: String,
}

impl Finding {
    pub(crate) fn new(check: &'static str, observed: String, required: String) -> Self {
        Self { check, observed, required }
    }

    /// A finding of someone else's check, to be shown beside those of an appraisal. Nothing is believed
    /// because of a finding.
    pub fn about(check: &'static str, observed: String, required: String) -> Self {
        Self::new(check, observed, required)
    }

    /// The check, by the name it has in the policy, as in `snp.debug`. Names do not change.
    pub fn id(&self) -> &'static str {
        self.check
    }

    /// What the evidence says.
    pub fn observed(&self) -> &str {
        &self.observed
    }

    /// What the policy requires.
    pub fn required(&self) -> &str {
        &self.required
    }
}
