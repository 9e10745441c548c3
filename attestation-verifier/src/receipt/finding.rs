//! What is wrong with a receipt, in words and by a stable id.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::{self, Display};

use serde::Serialize;

/// One check that a receipt, or a file it speaks of, failed.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, thiserror::Error)]
#[error("{artefact}: {check} is {observed}, required is {required}")]
pub struct Finding {
    /// The check's name for programs, as in `receipt.signature`. Names do not change.
    pub id: String,
    /// What failed: `receipt`, `manifest`, `approvals`, `policy`, `evidence`, `image: kernel`, `log`,
    /// `adapter: adapter_config.json`, `sealed adapter`, `dataset`, `base: config.json`.
    pub artefact: String,
    /// The check in words.
    pub check: String,
    /// What was seen.
    pub observed: String,
    /// What must be seen.
    pub required: String,
}

impl Finding {
    /// A finding about `artefact`.
    #[must_use]
    pub fn new(
        id: &str,
        artefact: &str,
        check: &str,
        observed: impl Display,
        required: impl Display,
    ) -> Self {
        Self {
            id: id.to_string(),
            artefact: artefact.to_string(),
            check: check.to_string(),
            observed: observed.to_string(),
            required: required.to_string(),
        }
    }
}

/// Collects findings about one artefact after the other.
#[derive(Default)]
pub(super) struct Findings(pub(super) Vec<Finding>);

impl Findings {
    pub(super) fn add(
        &mut self,
        (id, artefact, check): Check<'_>,
        observed: impl Display,
        required: impl Display,
    ) {
        let finding = Finding::new(id, artefact, check, observed, required);
        if !self.0.contains(&finding) {
            self.0.push(finding);
        }
    }

    /// A finding unless the two are equal.
    pub(super) fn same<T: PartialEq + Display>(
        &mut self,
        check: Check<'_>,
        observed: &T,
        required: &T,
    ) {
        if observed != required {
            self.add(check, observed, required);
        }
    }

    /// A finding when the outcome is an error, in the error's words.
    pub(super) fn take<T, E: Display>(
        &mut self,
        check: Check<'_>,
        outcome: Result<T, E>,
        required: &str,
    ) -> Option<T> {
        outcome.map_err(|error| self.add(check, error, required)).ok()
    }
}

/// A check: id, artefact, words.
pub(super) type Check<'a> = (&'a str, &'a str, &'a str);

/// Shows an optional value, or `none`.
pub(super) struct Maybe<T>(pub(super) Option<T>);

impl<T: Display> Display for Maybe<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("none"),
        }
    }
}
