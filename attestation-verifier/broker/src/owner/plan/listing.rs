//! What a manifest says, for people and as JSON: the same facts, rounded against us.

use core::fmt;
use std::collections::BTreeSet;

use attestation_verifier::policy::{AppraisalPolicy, Waived};
use measurement::launch::Measured;
use measurement::manifest::{Manifest, Terms};
use measurement::privacy::{Mechanism, Unit};
use serde::{Deserialize, Serialize};

use super::{Costs, simulated_roots, tee};
use crate::envelope::Budget;
use crate::owner::job::Job;

/// `threat.toml`: words, which nothing enforces.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Threat {
    /// Who is kept out.
    pub kept_out: Vec<Adversary>,
    /// Who is not.
    #[serde(default)]
    pub not_kept_out: Vec<Adversary>,
}

/// Someone, and how they are met.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Adversary {
    /// How they are kept out, or why they are not.
    pub how: String,
    /// Who.
    pub who: String,
}

/// What one step and all steps compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Work {
    /// Examples of a step, padding included.
    pub examples_per_step: u64,
    /// Tokens of a step.
    pub tokens_per_step: u64,
    /// Tokens of the job.
    pub tokens: u64,
}

/// What a plan says.
#[derive(Clone, Debug, Serialize)]
pub struct Listing {
    /// A name for people.
    pub name: String,
    /// What the adapter is for.
    pub purpose: String,
    /// SHA-384 of the manifest.
    pub manifest: String,
    /// The manifest's content.
    #[serde(flatten)]
    terms: Terms,
    /// ε for whoever holds the adapter, at the mechanism's δ.
    pub epsilon: f64,
    /// ε at the budget's δ.
    pub epsilon_at_budget: f64,
    /// The owner's cap for all jobs on the data set.
    pub budget: Budget,
    /// What is computed.
    pub cost: Work,
    /// Parameters of the adapter.
    pub parameters: u64,
    /// Checks that the policy waives for this job's platforms.
    pub waived: Vec<Waived>,
    /// Simulated roots that the policy believes.
    pub simulated_roots: Vec<String>,
    /// The threat model, in words.
    pub threat: Threat,
}

impl Listing {
    pub(super) fn new(
        manifest: &Manifest,
        job: &Job,
        costs: Costs,
        policy: &AppraisalPolicy,
        threat: Threat,
    ) -> Self {
        let tensors = manifest.training.adapter.tensors.iter();
        let size = |[rows, columns]: [u32; 2]| u64::from(rows).saturating_mul(u64::from(columns));
        let platforms: BTreeSet<_> = manifest.images.iter().map(tee).collect();
        let mut waived: Vec<Waived> = Vec::new();
        for check in platforms.into_iter().flat_map(|platform| policy.waived(platform)) {
            if !waived.contains(&check) {
                waived.push(check);
            }
        }
        Self {
            name: job.job.name.clone(),
            purpose: job.job.purpose.clone(),
            manifest: manifest.digest().to_string(),
            terms: (**manifest).clone(),
            epsilon: costs.epsilon,
            epsilon_at_budget: costs.at_budget,
            budget: job.cap(),
            cost: Work::of(&manifest.privacy, manifest.training.sequence),
            parameters: tensors.map(|tensor| size(tensor.shape)).fold(0, u64::saturating_add),
            waived,
            simulated_roots: simulated_roots(policy),
            threat,
        }
    }
}

impl Work {
    fn of(mechanism: &Mechanism, sequence: u32) -> Self {
        let slots = u64::from(mechanism.physical_batch);
        let examples_per_step = slots.saturating_mul(u64::from(mechanism.records_per_unit));
        let tokens_per_step = examples_per_step.saturating_mul(u64::from(sequence));
        let tokens = tokens_per_step.saturating_mul(u64::from(mechanism.steps));
        Self { examples_per_step, tokens_per_step, tokens }
    }
}

impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let terms = &self.terms;
        writeln!(f, "planned  {} (job {})", self.name, terms.job)?;
        writeln!(f, "  purpose     {}", self.purpose)?;
        writeln!(f, "  manifest    {}", self.manifest)?;
        writeln!(f, "  sequence    {}", terms.sequence)?;
        let (from, to) = (day(terms.valid.not_before), day(terms.valid.not_after));
        writeln!(f, "  valid       {from} to {to}")?;
        self.parties(f)?;
        self.things(f)?;
        self.numbers(f)?;
        for name in &self.simulated_roots {
            writeln!(f, "  SIMULATED   root {name:?}: what is judged under it proves no hardware")?;
        }
        for Waived { check, because } in &self.waived {
            writeln!(f, "  waived      {check}: {because}")?;
        }
        for Adversary { who, how } in &self.threat.not_kept_out {
            writeln!(f, "  not solved  {who}: {how}")?;
        }
        Ok(())
    }
}

impl Listing {
    fn parties(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let terms = &self.terms;
        let names: Vec<_> = terms.custodians.iter().map(|one| one.name.as_str()).collect();
        let (m, n) = (terms.threshold, names.len());
        writeln!(f, "  custodians  {m} of {n}: {}", names.join(", "))?;
        let keeper = terms.custodians.iter().find(|one| one.log == terms.ledger.log);
        writeln!(f, "  ledger      {}", keeper.map_or("", |one| one.name.as_str()))?;
        writeln!(f, "  approvals   {} of {}", terms.approvals, terms.approvers.len())?;
        let names: Vec<_> = terms.recipients.iter().map(|one| one.name.as_str()).collect();
        writeln!(f, "  recipients  {}", names.join(", "))
    }

    fn things(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let terms = &self.terms;
        for image in &terms.images {
            match &image.measured {
                Measured::Snp { launch_digest } => {
                    writeln!(f, "  image       snp {launch_digest}")?;
                }
                Measured::Tdx { mrtd, rtmr0, rtmr1, rtmr2 } => {
                    writeln!(f, "  image       tdx mrtd {mrtd}")?;
                    for (name, register) in [("rtmr0", rtmr0), ("rtmr1", rtmr1), ("rtmr2", rtmr2)] {
                        writeln!(f, "              {name} {register}")?;
                    }
                }
            }
        }
        writeln!(f, "  policy      {}", terms.policy)?;
        let dataset = &terms.dataset;
        writeln!(f, "  data set    {} version {}", dataset.id, dataset.version)?;
        writeln!(f, "              root {}", dataset.root)?;
        writeln!(f, "  base        {}", terms.base.name)?;
        writeln!(f, "              config {}", terms.base.config)?;
        writeln!(f, "              weights {}", terms.base.weights)?;
        writeln!(f, "              tokenizer {}", terms.base.tokenizer)
    }

    fn numbers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Terms { privacy, training, .. } = &self.terms;
        let unit = match &privacy.unit {
            Unit::Field(name) => name.as_str(),
            Unit::Record => "record",
        };
        let (epsilon, delta) = (up(self.epsilon), privacy.delta.0);
        writeln!(f, "  privacy     epsilon <= {epsilon} at delta {delta}, unit {unit}")?;
        writeln!(
            f,
            "              noise {:.4}, sample rate {}, {} steps, clip {} {}",
            privacy.noise_multiplier.0,
            privacy.sample_rate.0,
            privacy.steps,
            privacy.max_grad_norm.0,
            privacy.clipping
        )?;
        writeln!(
            f,
            "              batch {} expected in {} slots, at most {} units",
            privacy.expected_batch, privacy.physical_batch, privacy.max_units
        )?;
        let Budget { delta, epsilon } = self.budget;
        let cost = up(self.epsilon_at_budget);
        writeln!(f, "  budget      {cost} of {} at delta {}", epsilon.0, delta.0)?;
        let Work { examples_per_step, tokens_per_step, tokens } = self.cost;
        writeln!(
            f,
            "  cost        {examples_per_step} examples of {} tokens a step: {tokens_per_step} \
             tokens, {tokens} in all",
            training.sequence
        )?;
        let adapter = &training.adapter;
        let (rank, tensors) = (adapter.rank, adapter.tensors.len());
        writeln!(f, "  adapter     rank {rank}, {tensors} tensors, {} parameters", self.parameters)
    }
}

/// Two decimals, never smaller than the number.
fn up(number: f64) -> String {
    format!("{:.2}", (number * 100.0).ceil() / 100.0)
}

/// A day in the proleptic Gregorian calendar, UTC.
fn day(seconds: u64) -> String {
    let mut days = seconds / 86_400;
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    loop {
        let length = if leap(year) { 366 } else { 365 };
        if days < length || year >= 9999 {
            break;
        }
        days -= length;
        year += 1;
    }
    let february = if leap(year) { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    format!("{year:04}-{month:02}-{:02}", days.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_the_day() {
        for (seconds, expected) in [
            (0, "1970-01-01"),
            (951_782_399, "2000-02-28"),
            (951_782_400, "2000-02-29"),
            (1_735_689_599, "2024-12-31"),
            (1_800_000_000, "2027-01-15"),
        ] {
            assert_eq!(day(seconds), expected);
        }
        assert!(day(u64::MAX).starts_with("9999-"));
    }

    #[test]
    fn rounds_against_us() {
        assert_eq!(up(7.990_001), "8.00");
        assert_eq!(up(2.5), "2.50");
    }
}
