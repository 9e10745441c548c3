//! What left, and what went in: the files that lie beside a receipt.

use alloc::format;

use measurement::digest::{Digest, Hash32, of};
use measurement::receipt::Subject;

use super::Case;
use super::finding::Findings;

/// A page for people that `cloister open` puts beside an adapter; no receipt speaks of it.
pub const ADAPTER_PAGE: &str = "README.md";

impl Case<'_> {
    /// The sealed adapter is the one the statement names.
    pub(super) fn sealed_adapter(&self, sealed: &[u8], findings: &mut Findings) {
        let required = self.statement.predicate.outputs.sealed_adapter_sha256;
        let check = ("sealed_adapter.digest", "sealed adapter", "sha256");
        findings.same(check, &Hash32::of(sealed), &required);
    }

    /// The adapter's files are those of the statement, all of them, and no other; and those that are
    /// hold what the manifest says.
    pub(super) fn adapter(&self, files: &[(&str, &[u8])], findings: &mut Findings) {
        let subjects = &self.statement.subject;
        for (name, bytes) in files.iter().filter(|(name, _)| *name != ADAPTER_PAGE) {
            let artefact = format!("adapter: {name}");
            let subject = subjects.iter().find(|subject| subject.name == *name);
            match subject.and_then(Subject::sha256) {
                Some(required) => {
                    let check = ("adapter.digest", artefact.as_str(), "sha256");
                    let observed = Hash32::of(bytes);
                    findings.same(check, &observed, &required);
                    if observed == required {
                        self.parameters(name, bytes, findings);
                    }
                }
                None => {
                    let check = ("adapter.extra", artefact.as_str(), "the file");
                    findings.add(check, "there", "named by the receipt");
                }
            }
        }
        for subject in subjects {
            if !files.iter().any(|(name, _)| *name == subject.name) {
                let artefact = format!("adapter: {:.80}", subject.name);
                findings.add(("adapter.missing", &artefact, "the file"), "missing", "there");
            }
        }
    }

    /// The sealed data set is the manifest's.
    pub(super) fn dataset(&self, root: Hash32<of::Dataset>, findings: &mut Findings) {
        let check = ("dataset.root", "dataset", "root, recomputed");
        findings.same(check, &root, &self.manifest.dataset.root);
    }

    /// The base model's files are the manifest's.
    pub(super) fn base(&self, files: &[(&str, Digest<of::BaseFile>)], findings: &mut Findings) {
        let base = &self.manifest.base;
        let listed = [
            ("config.json", Some(base.config)),
            ("tokenizer.json", Some(base.tokenizer)),
            ("model.safetensors", Some(base.weights)),
            ("chat_template.jinja", base.template),
        ];
        for (name, required) in listed {
            let artefact = format!("base: {name}");
            let file = files.iter().find(|(file, _)| *file == name);
            match (file, required) {
                (Some((_, observed)), Some(required)) => {
                    let check = ("base.digest", artefact.as_str(), "sha384");
                    findings.same(check, observed, &required);
                }
                (None, Some(_)) => {
                    let check = ("base.missing", artefact.as_str(), "the file");
                    findings.add(check, "missing", "there");
                }
                (Some(_), None) => {
                    let check = ("base.extra", artefact.as_str(), "the file");
                    findings.add(check, "there", "absent: the manifest names none");
                }
                (None, None) => (),
            }
        }
    }
}
