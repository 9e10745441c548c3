//! What the hardware says: the closing evidence, and the image that anyone can measure again.

use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use measurement::binding::closing_report_data;
use measurement::digest::{Digest, of};
use measurement::launch::{self, Measured, Parts};
use measurement::manifest;

use super::finding::Findings;
use super::{Case, ImageFiles};
use crate::appraise::{AttestationResult, Expected, Rejection, Verifier};
use crate::evidence::Evidence;
use crate::policy::AppraisalPolicy;

/// Most bytes of an image's shape.
const MAX_SHAPE: usize = 64 << 10;

impl Case<'_> {
    /// The closing evidence vouches for the statement, under the policy, at `now`; and root, image
    /// and kind are what the statement says they are.
    pub(super) fn evidence(
        &self,
        policy: &AppraisalPolicy,
        now: u64,
        findings: &mut Findings,
    ) -> Option<AttestationResult> {
        let said = &self.statement.predicate;
        let closing = &self.bundle.closing;
        let payload = &self.bundle.envelope.payload.0;
        let report_data = closing_report_data(payload, &said.signer, &said.evidence.sessions);
        let images: Vec<_> = self.manifest.images.iter().map(|image| image.measured).collect();
        let expected = Expected {
            report_data: &report_data,
            launch_blob: &self.bundle.launch_blob.0,
            images: &images,
            platforms: &self.manifest.platforms,
        };
        let evidence = Evidence { tee: closing.tee, report: &closing.report.0 };
        let endorsements: Vec<_> =
            closing.endorsements.iter().map(|blob| blob.0.as_slice()).collect();
        let verifier = Verifier::new(policy.clone());
        match verifier.appraise(&evidence, &endorsements, &expected, now) {
            Ok(result) => {
                self.vouched(&result, findings);
                Some(result)
            }
            Err(rejection) => {
                refused(&rejection, findings);
                None
            }
        }
    }

    fn vouched(&self, result: &AttestationResult, findings: &mut Findings) {
        let said = &self.statement.predicate;
        let tee = result.tee();
        if said.evidence.tee != tee {
            let check = ("receipt.tee", "receipt", "kind of the evidence");
            findings.add(check, format!("{:?}", said.evidence.tee), format!("{tee:?}"));
        }
        if said.image != *result.measured() {
            let check = ("receipt.image", "receipt", "the image");
            findings.add(check, describe(&said.image), describe(result.measured()));
        }
        let word = result.root().word(tee);
        findings.same(
            ("receipt.root", "receipt", "the root that the evidence was judged under"),
            &said.evidence.root,
            &word,
        );
        let check = ("receipt.simulated", "receipt", "the mark of a simulated root");
        match (said.simulated, result.simulated()) {
            (false, true) => findings.add(
                check,
                "absent: receipt hides the simulated root",
                measurement::receipt::SIMULATED,
            ),
            (true, false) => findings.add(check, "there", "absent: the root is not simulated"),
            _ => (),
        }
    }

    /// The image's files give what the statement and the manifest name.
    pub(super) fn image(&self, files: &ImageFiles<'_>, findings: &mut Findings) {
        let said = &self.statement.predicate.image;
        let listed = self.manifest.images.iter().find(|image| image.measured == *said);
        match listed {
            Some(image) => parts(image, files, findings),
            None => {
                let check = ("manifest.image", "manifest", "the images that may run");
                findings.add(check, "others", describe(said));
            }
        }
        let Some(measured) = measure(files, findings) else { return };
        if measured != *said {
            let check = ("image.measured", "image", "launch measurement, recomputed");
            findings.add(check, describe(&measured), describe(said));
        }
    }
}

/// Each file that the manifest lists for the image is that file.
fn parts(image: &manifest::Image, files: &ImageFiles<'_>, findings: &mut Findings) {
    for part in &image.parts {
        let artefact = format!("image: {}", part.name);
        let check = ("image.part", artefact.as_str(), "sha384");
        match files.file(&part.name) {
            Some(bytes) => findings.same(check, &Digest::<of::Part>::of(bytes), &part.digest),
            None => findings.add(check, "no such file", part.digest),
        }
    }
}

fn measure(files: &ImageFiles<'_>, findings: &mut Findings) -> Option<Measured> {
    let shape = ("image.shape", "image: image.json", "the shape");
    if files.shape.len() > MAX_SHAPE {
        findings.add(shape, format!("{} bytes", files.shape.len()), "at most 65536");
        return None;
    }
    let image: launch::Image =
        findings.take(shape, serde_json::from_slice(files.shape), "the shape of an image")?;
    let cmdline = findings.take(
        ("image.cmdline", "image: cmdline", "the command line"),
        core::str::from_utf8(files.cmdline),
        "text",
    )?;
    let parts =
        Parts { firmware: files.firmware, kernel: files.kernel, initrd: files.initrd, cmdline };
    let unmeasured = ("image.unmeasured", "image", "the launch measurement");
    findings.take(unmeasured, image.measure(&parts), "parts that can be measured")
}

/// A rejection as findings: one per check of the policy that failed, or the first flaw.
fn refused(rejection: &Rejection, findings: &mut Findings) {
    for finding in rejection.findings() {
        let id = format!("evidence.{}", finding.id());
        let check = (id.as_str(), "evidence", finding.id());
        findings.add(check, finding.observed(), finding.required());
    }
    let (id, check) = match rejection {
        Rejection::Unacceptable(_) => return,
        Rejection::Malformed(_) => ("evidence.malformed", "the report's shape"),
        Rejection::Inauthentic(_) => ("evidence.inauthentic", "the report's origin"),
    };
    findings.add((id, "evidence", check), rejection.to_string(), "genuine evidence");
}

/// What was measured, in one line.
#[must_use]
pub fn describe(measured: &Measured) -> alloc::string::String {
    match measured {
        Measured::Snp { launch_digest } => launch_digest.to_string(),
        Measured::Tdx { mrtd, rtmr0, rtmr1, rtmr2 } => {
            format!("mrtd {mrtd} rtmr0 {rtmr0} rtmr1 {rtmr1} rtmr2 {rtmr2}")
        }
    }
}
