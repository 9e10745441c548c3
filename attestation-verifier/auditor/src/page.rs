//! One page about a receipt for a person who reads no hexadecimal, in Markdown or as one HTML file.
//!
//! It says what the verdict says and no more. Whatever comes from a stranger is escaped.

use std::fmt::Write as _;

use attestation_verifier::receipt::{Finding, VerifiedReceipt, describe};
use measurement::privacy::Unit;
use measurement::receipt::SIMULATED;

use crate::case::Judged;
use crate::verdict::{hardware, rounded_up};

/// How a page is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One HTML file that loads nothing.
    Html,
    /// CommonMark with tables.
    Markdown,
}

/// A part of a page.
enum Block {
    Banner(String),
    Heading(&'static str),
    List(Vec<String>),
    Paragraph(String),
    Table(Vec<(&'static str, String)>),
}

/// The page about a judged receipt.
#[must_use]
pub fn write(judged: &Judged, form: Form) -> String {
    let (title, blocks) = match &judged.verdict {
        Ok(receipt) => ("Verified training receipt", verified(receipt, judged)),
        Err(findings) => ("Rejected training receipt", rejected(findings, judged)),
    };
    match form {
        Form::Html => html(title, &blocks),
        Form::Markdown => markdown(title, &blocks),
    }
}

fn verified(receipt: &VerifiedReceipt, judged: &Judged) -> Vec<Block> {
    let mut blocks = Vec::new();
    if receipt.simulated() {
        blocks.push(Block::Banner(format!(
            "{SIMULATED}: the evidence was signed by a simulated processor. The steps below were \
             checked as on real hardware, but no hardware kept anything secret."
        )));
    }
    blocks.push(Block::Paragraph(
        "Every claim of the receipt was recomputed from the files at hand. All of them hold."
            .into(),
    ));
    blocks.push(Block::Heading("What is promised, and to whom"));
    blocks.push(Block::List(promises(receipt)));
    blocks.push(Block::Heading("What is not promised"));
    blocks.push(Block::List(limits(receipt)));
    blocks.push(Block::Heading("The facts"));
    blocks.push(Block::Table(facts(receipt)));
    let waived = receipt.waived().iter();
    let waived: Vec<_> = waived.map(|one| format!("{}: {}", one.check, one.because)).collect();
    if !waived.is_empty() {
        blocks.push(Block::Heading("Checks that the policy waived"));
        blocks.push(Block::List(waived));
    }
    blocks.extend(not_checked(judged));
    blocks
}

fn promises(receipt: &VerifiedReceipt) -> Vec<String> {
    let mechanism = &receipt.manifest().privacy;
    let whose = match &mechanism.unit {
        Unit::Field(field) => {
            format!("everyone who shares one value of `{field}`, taken together,")
        }
        Unit::Record => "each single record".to_owned(),
    };
    let epsilon = receipt.epsilon();
    let factor = rounded_up(epsilon.exp());
    let custodians = receipt.statement().predicate.releases.len();
    let operator = if receipt.simulated() {
        "To the data owner: the job ran as on protected hardware, in a rehearsal. On real hardware \
         the operator of the machines would have seen ciphertext only."
            .to_owned()
    } else {
        format!(
            "To the data owner: the records were decrypted only inside {}, in an image that anyone \
             can measure again, after {custodians} key custodian(s) had checked it. The operator of \
             the machines saw ciphertext.",
            hardware(receipt.attestation().tee()),
        )
    };
    vec![
        format!(
            "To {whose} against whoever holds the adapter: differential privacy with epsilon at most \
             {} and delta {:e}. In words: whatever anyone concludes from the adapter would have been \
             at most {factor} times as likely without that data, but for a probability of {:e}.",
            rounded_up(epsilon),
            receipt.delta(),
            receipt.delta(),
        ),
        operator,
        "To everyone: the privacy budget was debited in a public, append-only log before any key was \
         released, and the receipt is in that log."
            .to_owned(),
    ]
}

fn limits(receipt: &VerifiedReceipt) -> Vec<String> {
    let mut limits = vec![
        format!(
            "Privacy against the operator, who sees timing: {}.",
            receipt.statement().predicate.dp.epsilon_host
        ),
        "That the data are true, lawful or complete: the data owner alone answers for them.".into(),
        "That physical attacks on the processor fail, or that key custodians keep their shares to \
         themselves."
            .into(),
        "That the adapter is useful, or that the base model kept no secrets of its own.".into(),
    ];
    if receipt.statement().predicate.canary_audit.is_none() {
        limits.push("An empirical test for memorisation: none was made.".into());
    }
    limits
}

fn facts(receipt: &VerifiedReceipt) -> Vec<(&'static str, String)> {
    let (attestation, said) = (receipt.attestation(), &receipt.statement().predicate);
    let mechanism = &receipt.manifest().privacy;
    let mut facts = vec![
        ("receipt", receipt.statement_digest().to_string()),
        ("manifest", receipt.manifest().digest().to_string()),
        ("job", said.job_manifest.job.to_string()),
        ("hardware", hardware(attestation.tee()).to_owned()),
        ("judged under", attestation.root().to_string()),
        ("platform version", attestation.tcb().to_string()),
        ("image", describe(attestation.measured())),
        ("base model", said.base_model.name.clone()),
        ("data set", format!("{} version {}", said.dataset.id, said.dataset.version)),
        ("sealed data", said.dataset.ciphertext_root.to_string()),
        ("steps", format!("{} of {}", said.run.steps, mechanism.steps)),
        ("sample rate", mechanism.sample_rate.0.to_string()),
        ("noise multiplier", mechanism.noise_multiplier.0.to_string()),
        ("clipping norm", mechanism.max_grad_norm.0.to_string()),
        ("clipping", mechanism.clipping.to_string()),
        ("epsilon", format!("at most {}", rounded_up(receipt.epsilon()))),
        ("delta", format!("{:e}", receipt.delta())),
        ("sealed adapter", said.outputs.sealed_adapter_sha256.to_string()),
    ];
    if let Some(ledger) = receipt.ledger() {
        let spent = rounded_up(ledger.spent);
        facts.push(("attempt", said.attempt.to_string()));
        facts.push(("paid so far", format!("epsilon at most {spent} in {} debits", ledger.debits)));
        facts.push(("log record", format!("{} of {}", ledger.receipt_index, ledger.size)));
    }
    facts
}

fn rejected(findings: &[Finding], judged: &Judged) -> Vec<Block> {
    let list = findings.iter().map(|finding| format!("{finding} [{}]", finding.id)).collect();
    let mut blocks = vec![
        Block::Banner("Do not rely on this receipt or on the adapter that came with it.".into()),
        Block::Heading("What is wrong"),
        Block::List(list),
    ];
    blocks.extend(not_checked(judged));
    blocks
}

fn not_checked(judged: &Judged) -> Vec<Block> {
    if judged.not_checked.is_empty() {
        return Vec::new();
    }
    let list = judged.not_checked.iter().map(|artefact| (*artefact).to_owned()).collect();
    vec![Block::Heading("Not checked, because it was not at hand"), Block::List(list)]
}

fn markdown(title: &str, blocks: &[Block]) -> String {
    let mut page = format!("# {title}\n");
    for block in blocks {
        page.push('\n');
        // Writing to a string cannot fail.
        let _ = match block {
            Block::Banner(text) => writeln!(page, "> **{}**", plain(text)),
            Block::Heading(text) => writeln!(page, "## {text}"),
            Block::List(items) => {
                items.iter().try_for_each(|item| writeln!(page, "- {}", plain(item)))
            }
            Block::Paragraph(text) => writeln!(page, "{}", plain(text)),
            Block::Table(rows) => writeln!(page, "| | |\n|---|---|").and_then(|()| {
                rows.iter()
                    .try_for_each(|(name, value)| writeln!(page, "| {name} | {} |", plain(value)))
            }),
        };
    }
    page
}

/// One line in which Markdown sees no markup but code spans.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    for c in text.chars() {
        match c {
            '\\' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#' | '!' | '&' => {
                plain.extend(['\\', c]);
            }
            c if c.is_control() => plain.push(' '),
            c => plain.push(c),
        }
    }
    plain
}

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;\
padding:0 1rem}table{border-collapse:collapse}td{border:1px solid #999;padding:.2rem .6rem;\
overflow-wrap:anywhere;vertical-align:top}.banner{border:3px solid #b00;padding:.6rem 1rem;\
font-weight:bold}";

fn html(title: &str, blocks: &[Block]) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{title}</title>\n\
         <style>{STYLE}</style>\n<h1>{title}</h1>\n"
    );
    for block in blocks {
        let text = match block {
            Block::Banner(text) => format!("<p class=\"banner\">{}</p>", escape(text)),
            Block::Heading(text) => format!("<h2>{text}</h2>"),
            Block::List(items) => {
                let items = items.iter().map(|item| format!("<li>{}</li>", escape(item)));
                format!("<ul>{}</ul>", items.collect::<String>())
            }
            Block::Paragraph(text) => format!("<p>{}</p>", escape(text)),
            Block::Table(rows) => {
                let rows = rows.iter();
                let rows = rows.map(|(name, value)| format!("<tr><td>{name}<td>{}", escape(value)));
                format!("<table>{}</table>", rows.collect::<String>())
            }
        };
        page.push_str(&text);
        page.push('\n');
    }
    page.push_str("</html>\n");
    page
}

fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn judged(artefact: &str) -> Judged {
        Judged {
            verdict: Err(vec![Finding::new("x.y", artefact, "sha256", "a", "b")]),
            checked: vec!["receipt"],
            not_checked: vec!["base"],
            receipt: PathBuf::from("receipt.json"),
            image: PathBuf::from("image"),
        }
    }

    #[test]
    fn a_rejected_receipt_gets_a_page_that_warns() {
        let page = write(&judged("log"), Form::Markdown);
        assert!(page.starts_with("# Rejected training receipt\n\n> **Do not rely on"), "{page}");
        assert!(page.contains("- log: sha256 is a, required is b \\[x.y\\]"), "{page}");
        assert!(page.contains("## Not checked"), "{page}");
    }

    #[test]
    fn names_of_strangers_stay_text() {
        let hostile = "<script>alert(1)</script>\n# heading";
        let page = write(&judged(hostile), Form::Html);
        assert!(!page.contains("<script>"), "{page}");
        let page = write(&judged(hostile), Form::Markdown);
        assert!(!page.contains("\n# heading"), "{page}");
        assert!(!page.contains(" <script"), "{page}");
    }
}
