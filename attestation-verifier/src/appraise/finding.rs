//! Why evidence was refused: the first flaw of shape or origin, or all that the policy has against it.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::Serialize;
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
}

/// All that a policy has against a piece of evidence.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Findings(Vec<Finding>);

impl Findings {
    pub(crate) fn add(&mut self, finding: Finding) {
        self.0.push(finding);
    }

    pub(super) fn append(&mut self, mut more: Self) {
        self.0.append(&mut more.0);
    }

    pub(super) fn into_result(self) -> Result<(), Rejection> {
        if self.0.is_empty() { Ok(()) } else { Err(Rejection::Unacceptable(self)) }
    }

    /// The findings, in the order of the checks.
    pub fn as_slice(&self) -> &[Finding] {
        &self.0
    }

    /// The ids of the checks that failed.
    pub fn ids(&self) -> Vec<&'static str> {
        self.0.iter().map(Finding::id).collect()
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, finding) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{finding}")?;
        }
        Ok(())
    }
}

/// One check that evidence failed.
#[derive(Clone, Debug, Eq, Error, PartialEq, Serialize)]
#[error("{check} is {observed}, policy requires {required}")]
pub struct Finding {
    check: &'static str,
    observed: String,
    required: String,
}

impl Finding {
    pub(crate) fn new(check: &'static str, observed: String, required: String) -> Self {
        Self { check, observed, required }
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
