//! What came of an appraisal, in words and as JSON.

use std::process::ExitCode;

use attestation_verifier::advice::advice;
use attestation_verifier::appraise::{AttestationResult, DeviceResult, Finding, Rejection};
use attestation_verifier::policy::Waived;
use attestation_verifier::receipt::describe;
use attestation_verifier::transcript::Verdicts;
use auditor::verdict::hardware;
use measurement::receipt::SIMULATED;
use serde_json::{Value, json};

use crate::command::{COULD_NOT_JUDGE, REJECTED, print, print_json};

/// What came of an appraisal.
pub struct Outcome {
    pub verdicts: Verdicts,
    /// What else is wrong: with the files, or by another's word.
    pub further: Vec<Finding>,
    /// What was not asked for, and so not judged.
    pub not_judged: Vec<&'static str>,
    pub notes: Vec<String>,
    pub at: u64,
}

impl Outcome {
    /// Of files that hold no evidence of any known shape.
    pub fn malformed(further: Vec<Finding>, at: u64) -> Self {
        let verdicts = Verdicts { processor: None, devices: None };
        Self { verdicts, further, not_judged: Vec::new(), notes: Vec::new(), at }
    }

    fn findings(&self) -> Vec<Finding> {
        let mut findings = self.verdicts.reasons();
        findings.extend(self.further.iter().cloned());
        findings
    }

    fn word(&self) -> (&'static str, u8) {
        let mut rejections = self.verdicts.rejections();
        let incomplete = self.further.is_empty() && rejections.all(Rejection::could_not_judge);
        match (self.findings().is_empty(), incomplete) {
            (true, _) => ("accepted", 0),
            (false, true) => ("could not judge", COULD_NOT_JUDGE),
            (false, false) => ("rejected", REJECTED),
        }
    }

    fn simulated(&self) -> bool {
        self.processor().is_some_and(AttestationResult::simulated)
            || self.devices().iter().any(DeviceResult::simulated)
    }

    fn processor(&self) -> Option<&AttestationResult> {
        self.verdicts.processor.as_ref().and_then(|verdict| verdict.as_ref().ok())
    }

    fn devices(&self) -> &[DeviceResult] {
        match &self.verdicts.devices {
            Some(Ok(result)) => result.devices(),
            _ => &[],
        }
    }

    pub fn show(&self, json: bool) -> ExitCode {
        let (word, status) = self.word();
        for note in &self.notes {
            eprintln!("cloister-auditor: {note}");
        }
        if json {
            return print_json(&self.json(word), status);
        }
        print(&self.text(word), status)
    }

    fn json(&self, word: &str) -> Value {
        let findings = self.findings();
        let format = if findings.iter().any(of_format) { "reject" } else { "accept" };
        let policy = if findings.is_empty() { "accept" } else { "reject" };
        let devices = self.verdicts.devices.as_ref().and_then(|verdict| verdict.as_ref().ok());
        json!({
            "verdict": word,
            "format": format,
            "policy": policy,
            "findings": findings,
            "not_judged": self.not_judged,
            "at": self.at,
            "simulated": self.simulated(),
            "result": { "processor": self.processor(), "devices": devices },
            "notes": self.notes,
        })
    }

    fn text(&self, word: &str) -> String {
        let mut text =
            if word == "accepted" { self.accepted() } else { format!("{word}  evidence\n") };
        for finding in self.findings() {
            text.push_str(&format!("  finding      {finding}\n"));
            if let Some(advice) = advice(finding.id()) {
                text.push_str(&format!("    do         {advice}\n"));
            }
        }
        for check in &self.not_judged {
            text.push_str(&format!("  not judged   {check}: nothing was asked for\n"));
        }
        text
    }

    fn accepted(&self) -> String {
        let mark = if self.simulated() { format!("{SIMULATED}  ") } else { String::new() };
        let devices = self.devices();
        let names: Vec<_> = self
            .processor()
            .map(|result| hardware(result.tee()).to_owned())
            .into_iter()
            .chain((!devices.is_empty()).then(|| counted(devices)))
            .collect();
        let mut text = format!("accepted  {mark}{}\n", names.join(" with "));
        if let Some(result) = self.processor() {
            text.push_str(&format!(
                "  root         {}\n  platform     {}\n  image        {}\n",
                result.root(),
                result.tcb(),
                describe(result.measured()),
            ));
            waivers(&mut text, result.waived());
        }
        for (index, device) in devices.iter().enumerate() {
            text.push_str(&row(index, device));
        }
        if let Some(Ok(result)) = &self.verdicts.devices {
            waivers(&mut text, result.waived());
        }
        text
    }
}

/// Shape, origin, and the session it was asked for.
fn of_format(finding: &Finding) -> bool {
    let id = finding.id();
    let sections = ["shape.", "origin.", "nras."];
    sections.iter().any(|section| id.starts_with(section))
        || ["binding.report_data", "devices.nonce"].contains(&id)
}

fn counted(devices: &[DeviceResult]) -> String {
    let plural = if devices.len() == 1 { "" } else { "s" };
    format!("{} NVIDIA device{plural}", devices.len())
}

fn row(index: usize, device: &DeviceResult) -> String {
    let versions = match device.driver() {
        Some(driver) => format!("driver {driver} vbios {}", device.vbios().unwrap_or("unknown")),
        None => format!("bios {}", device.vbios().unwrap_or("unknown")),
    };
    let mode = device.mode().map_or_else(String::new, |mode| format!(" in mode {mode}"));
    format!(
        "  device {index:<4}  {} {}{mode}, {versions}, {} measurements as published, under {}\n",
        device.hardware_model(),
        device.pdi(),
        device.matched(),
        device.root(),
    )
}

fn waivers(text: &mut String, waived: &[Waived]) {
    for waived in waived {
        text.push_str(&format!("  waived       {}: {}\n", waived.check, waived.because));
    }
}
