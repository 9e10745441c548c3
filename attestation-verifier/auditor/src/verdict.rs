//! The verdict in words and as JSON.
//!
//! Rules of every report: the verdict is the first line; numbers round against us (ε up); what was not
//! checked is listed; what was judged under a simulated root says SIMULATED beside the verdict.

use std::fmt::Write as _;

use attestation_verifier::receipt::{Finding, Ledger, VerifiedReceipt, describe};
use measurement::manifest::Tee;
use measurement::receipt::SIMULATED;
use serde::Serialize;

use crate::case::Judged;

/// ε with two decimals, never below the number itself.
#[must_use]
pub fn rounded_up(epsilon: f64) -> String {
    let mut hundredths = (epsilon * 100.0).ceil();
    // The product may have rounded down.
    while hundredths / 100.0 < epsilon {
        hundredths += 1.0;
    }
    format!("{:.2}", hundredths / 100.0)
}

/// ε with two decimals, never above the number itself: for bounds from below.
#[must_use]
pub fn rounded_down(epsilon: f64) -> String {
    let mut hundredths = (epsilon * 100.0).floor();
    // The product may have rounded up.
    while hundredths / 100.0 > epsilon {
        hundredths -= 1.0;
    }
    format!("{:.2}", hundredths / 100.0)
}

/// The kind of hardware in words.
#[must_use]
pub const fn hardware(tee: Tee) -> &'static str {
    match tee {
        Tee::Snp => "AMD SEV-SNP",
        Tee::Tdx => "Intel TDX",
    }
}

/// The verdict as rows of text.
#[must_use]
pub fn text(judged: &Judged) -> String {
    let mut text = match &judged.verdict {
        Ok(receipt) => verified(receipt, judged),
        Err(findings) => rejected(findings, judged),
    };
    if !judged.not_checked.is_empty() {
        row(&mut text, "not checked", &judged.not_checked.join(", "));
    }
    text
}

fn row(text: &mut String, name: &str, value: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "  {name:<11}  {}", printable(value));
}

/// Names and findings come from strangers: one line each, and nothing that moves the cursor.
fn printable(value: &str) -> String {
    value.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn verified(receipt: &VerifiedReceipt, judged: &Judged) -> String {
    let mark = if receipt.simulated() { format!("{SIMULATED}  ") } else { String::new() };
    let mut text = format!("verified  {mark}receipt {}\n", receipt.statement_digest());
    let attestation = receipt.attestation();
    let kind = hardware(attestation.tee());
    let chain = format!("{kind}, chained to the {}, {}", attestation.root(), attestation.tcb());
    row(&mut text, "hardware", &chain);
    let image = describe(attestation.measured());
    row(&mut text, "image", &format!("{image}  reproduces from {}", judged.image.display()));
    row(&mut text, "privacy", &privacy(receipt));
    if let Some(ledger) = receipt.ledger() {
        row(&mut text, "ledger", &paid(receipt, ledger));
    }
    row(&mut text, "adapter", &adapter(receipt, judged));
    for waived in receipt.waived() {
        row(&mut text, "waived", &format!("{}: {}", waived.check, waived.because));
    }
    text
}

fn privacy(receipt: &VerifiedReceipt) -> String {
    let steps = receipt.manifest().privacy.steps;
    format!(
        "epsilon <= {} at delta {:e}, {} of {steps} steps, recomputed; for the host {}",
        rounded_up(receipt.epsilon()),
        receipt.delta(),
        receipt.statement().predicate.run.steps,
        receipt.statement().predicate.dp.epsilon_host,
    )
}

fn paid(receipt: &VerifiedReceipt, ledger: &Ledger) -> String {
    let attempt = receipt.statement().predicate.attempt;
    format!(
        "attempt {attempt}, receipt is record {} of {}; the data set has paid epsilon <= {} in {} {}",
        ledger.receipt_index,
        ledger.size,
        rounded_up(ledger.spent),
        ledger.debits,
        if ledger.debits == 1 { "debit" } else { "debits" },
    )
}

fn adapter(receipt: &VerifiedReceipt, judged: &Judged) -> String {
    let sealed = receipt.statement().predicate.outputs.sealed_adapter_sha256;
    let matches =
        |artefact| if judged.checked.contains(&artefact) { "matches" } else { "not here" };
    format!(
        "sealed {sealed} ({}), {} files ({})",
        matches("sealed adapter"),
        receipt.statement().subject.len(),
        matches("adapter"),
    )
}

fn rejected(findings: &[Finding], judged: &Judged) -> String {
    let mut text = format!("rejected  {}\n", judged.receipt.display());
    for finding in findings {
        row(&mut text, "finding", &format!("{finding}  [{}]", finding.id));
    }
    text
}

/// The verdict as one JSON object. What only a verified receipt establishes is null otherwise.
#[derive(Debug, Serialize)]
pub struct Verdict<'a> {
    /// `verified`, `rejected` or `could not judge`.
    pub verdict: &'static str,
    /// Whether the hardware was only simulated.
    pub simulated: Option<bool>,
    /// The root in one word.
    pub root: Option<String>,
    /// ε, recomputed, not rounded.
    pub epsilon: Option<f64>,
    /// δ.
    pub delta: Option<f64>,
    /// Steps taken.
    pub steps: Option<u32>,
    /// Number of the attempt.
    pub attempt: Option<u32>,
    /// SHA-384 of the statement.
    pub receipt: Option<String>,
    /// SHA-384 of the manifest.
    pub manifest: Option<String>,
    /// The launch measurement.
    pub image: Option<String>,
    /// When the evidence was judged, in seconds since 1970.
    pub judged_at: Option<u64>,
    /// What the log says.
    pub ledger: Option<LedgerRow>,
    /// Everything that is wrong.
    pub findings: &'a [Finding],
    /// The artefacts that were checked.
    pub checked: &'a [&'static str],
    /// The artefacts that were not there.
    pub not_checked: &'a [&'static str],
    /// The checks that the policy waived, with its reasons.
    pub waived: &'a [attestation_verifier::policy::Waived],
    /// Why there is no verdict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What the log says.
#[derive(Debug, Serialize)]
pub struct LedgerRow {
    /// Records in the log.
    pub size: u64,
    /// Position of the receipt's record.
    pub receipt_index: u64,
    /// Mechanisms the data set has paid for.
    pub debits: usize,
    /// ε of all of them together.
    pub spent: f64,
}

impl Verdict<'static> {
    /// No verdict.
    #[must_use]
    pub fn could_not_judge(problem: String) -> Self {
        Self { problem: Some(problem), ..Self::empty("could not judge") }
    }
}

impl<'a> Verdict<'a> {
    const fn empty(verdict: &'static str) -> Self {
        Self {
            verdict,
            simulated: None,
            root: None,
            epsilon: None,
            delta: None,
            steps: None,
            attempt: None,
            receipt: None,
            manifest: None,
            image: None,
            judged_at: None,
            ledger: None,
            findings: &[],
            checked: &[],
            not_checked: &[],
            waived: &[],
            problem: None,
        }
    }

    /// The facts of a judged receipt.
    #[must_use]
    pub fn of(judged: &'a Judged) -> Self {
        let mut verdict = match &judged.verdict {
            Err(findings) => Self { findings, ..Self::empty("rejected") },
            Ok(receipt) => Self::verified(receipt),
        };
        verdict.checked = &judged.checked;
        verdict.not_checked = &judged.not_checked;
        verdict
    }

    fn verified(receipt: &'a VerifiedReceipt) -> Self {
        let (attestation, said) = (receipt.attestation(), &receipt.statement().predicate);
        Self {
            simulated: Some(receipt.simulated()),
            root: Some(attestation.root().word(attestation.tee())),
            epsilon: Some(receipt.epsilon()),
            delta: Some(receipt.delta()),
            steps: Some(said.run.steps),
            attempt: Some(said.attempt),
            receipt: Some(receipt.statement_digest().to_string()),
            manifest: Some(receipt.manifest().digest().to_string()),
            image: Some(describe(attestation.measured())),
            judged_at: Some(receipt.judged_at()),
            ledger: receipt.ledger().map(|ledger| LedgerRow {
                size: ledger.size,
                receipt_index: ledger.receipt_index,
                debits: ledger.debits,
                spent: ledger.spent,
            }),
            waived: receipt.waived(),
            ..Self::empty("verified")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn epsilon_rounds_up_and_never_down() {
        let cases = [(2.901, "2.91"), (2.9, "2.90"), (2.910_000_1, "2.92"), (0.001, "0.01")];
        for (epsilon, shown) in cases {
            assert_eq!(rounded_up(epsilon), shown);
        }
        for step in 1..1000 {
            let epsilon = f64::from(step) * 0.007_3;
            assert!(rounded_up(epsilon).parse::<f64>().unwrap() >= epsilon);
            assert!(rounded_down(epsilon).parse::<f64>().unwrap() <= epsilon);
        }
    }

    #[test]
    fn a_rejection_says_so_first_and_names_artefact_check_and_id() {
        let finding = Finding::new("image.part", "image: kernel", "sha384", "00", "11\nx");
        let judged = Judged {
            verdict: Err(vec![finding]),
            checked: vec!["receipt"],
            not_checked: vec!["base", "dataset"],
            receipt: PathBuf::from("receipt.json"),
            image: PathBuf::from("image"),
        };
        assert_eq!(
            text(&judged),
            "rejected  receipt.json\n  \
             finding      image: kernel: sha384 is 00, required is 11 x  [image.part]\n  \
             not checked  base, dataset\n"
        );
        let json = serde_json::to_value(Verdict::of(&judged)).unwrap();
        assert_eq!(json["verdict"], "rejected");
        assert_eq!(json["findings"][0]["artefact"], "image: kernel");
        assert!(json["epsilon"].is_null());
    }
}
