//! One device, check by check.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use measurement::octets::Octets;

use super::ExpectedDevices;
use crate::appraise::measured::Measured;
use crate::appraise::{Finding, Findings};
use crate::endorsement::Role;
use crate::endorsement::nvidia::Claims;
use crate::endorsement::revocation::Standing;
use crate::policy::{Crl, Gpu, NvSwitch};
use crate::wire::opaque::{GpuFields, SwitchFields};

/// One device before its judge.
pub(super) struct Case<'a> {
    pub(super) index: usize,
    pub(super) claims: &'a Claims,
    pub(super) measured: &'a Measured,
    pub(super) devices: Vec<(Role, Standing)>,
    pub(super) manifests: Vec<(Role, Standing)>,
    pub(super) expected: &'a ExpectedDevices<'a>,
}

impl Case<'_> {
    pub(super) fn judge_gpu(&self, fields: &GpuFields, policy: &Gpu, findings: &mut Findings) {
        let chip = self.claims.chip.name();
        policy
            .products()
            .judge(findings, |required| (!required.has_text(chip)).then(|| self.at(chip)));
        let informed = fields.chip.as_deref().unwrap_or(chip);
        findings.require(informed == chip, "gpu.chip_info", || self.at(informed), chip);
        self.judge_listed("gpu.chip", policy.chip().is_required(), findings);
        policy.driver().judge(findings, |required| {
            let seen = fields.driver.as_deref().unwrap_or("not reported");
            (!required.met_by(seen)).then(|| self.at(seen))
        });
        policy.vbios().judge(findings, |required| {
            let seen = fields.vbios.as_deref().unwrap_or("not reported");
            (!required.met_by(seen)).then(|| self.at(seen))
        });
        policy.fwid().judge(findings, |_| fields.fwid.is_none().then(|| self.at("absent")));
        policy.modes().judge(findings, |required| match fields.mode() {
            Ok(mode) => (!required.has(&mode)).then(|| self.at(mode)),
            Err(problem) => Some(self.at(problem)),
        });
        policy.opaque().judge(findings, |_| self.unknown(&fields.unknown));
        policy.revocation().judge(findings, |required| self.not_good(*required, &self.devices));
        policy
            .manifest_revocation()
            .judge(findings, |required| self.not_good(*required, &self.manifests));
        if self.measured.problems.is_empty() {
            policy.measurements().judge(findings, |_| None);
        }
        for problem in &self.measured.problems {
            policy.measurements().judge(findings, |_| Some(self.at(problem)));
        }
        policy.uncovered().judge(findings, |_| self.uncovered());
    }

    pub(super) fn judge_switch(
        &self,
        fields: &SwitchFields,
        policy: &NvSwitch,
        findings: &mut Findings,
    ) {
        let chip = self.claims.chip.name();
        policy
            .products()
            .judge(findings, |required| (!required.has_text(chip)).then(|| self.at(chip)));
        self.judge_listed("nvswitch.chip", policy.chip().is_required(), findings);
        policy.bios().judge(findings, |required| {
            let seen = fields.bios.as_deref().unwrap_or("not reported");
            (!required.met_by(seen)).then(|| self.at(seen))
        });
        policy.locked().judge(findings, |_| match fields.locked {
            Some(1) => None,
            Some(other) => Some(self.at(other)),
            None => Some(self.at("not reported")),
        });
        policy.opaque().judge(findings, |_| self.unknown(&fields.unknown));
        policy.revocation().judge(findings, |required| self.not_good(*required, &self.devices));
        policy
            .manifest_revocation()
            .judge(findings, |required| self.not_good(*required, &self.manifests));
        if self.measured.problems.is_empty() {
            policy.measurements().judge(findings, |_| None);
        }
        for problem in &self.measured.problems {
            policy.measurements().judge(findings, |_| Some(self.at(problem)));
        }
        policy.uncovered().judge(findings, |_| self.uncovered());
    }

    /// A list of devices is obeyed even where the policy waives the check.
    fn judge_listed(&self, check: &'static str, required: bool, findings: &mut Findings) {
        let chips = self.expected.chips;
        let problem = match chips.contains(&Octets(self.claims.pdi)) {
            true => return findings.held(check),
            false if chips.is_empty() && !required => return findings.waived(check),
            false if chips.is_empty() => self.at("no list"),
            false => self.at(Octets(self.claims.pdi)),
        };
        findings.add(Finding::new(check, problem, "listed".into()));
    }

    fn unknown(&self, kinds: &[u16]) -> Option<String> {
        (!kinds.is_empty()).then(|| self.at(format!("types {kinds:?}")))
    }

    fn uncovered(&self) -> Option<String> {
        let indexes = &self.measured.uncovered;
        (!indexes.is_empty()).then(|| self.at(format!("not zero at {indexes:?}")))
    }

    fn not_good(&self, required: Crl, standings: &[(Role, Standing)]) -> Option<String> {
        let word = |(role, standing): &(Role, Standing)| match standing {
            Standing::Good => None,
            Standing::Unknown if required == Crl::FreshIfGiven => None,
            Standing::Stale => Some(format!("{role} stale")),
            Standing::Unknown => Some(format!("{role} unknown")),
        };
        let words: Vec<_> = standings.iter().filter_map(word).collect();
        (!words.is_empty()).then(|| self.at(words.join(", ")))
    }

    fn at(&self, observed: impl core::fmt::Display) -> String {
        format!("device {}: {observed}", self.index)
    }
}
