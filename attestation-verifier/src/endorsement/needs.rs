//! What a set of devices needs to be judged, to pick it from a store of endorsements.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::device::DeviceEndorsements;
use super::manifest::Unverified;
use super::{Certificate, Name};
use crate::evidence::device::{Device, DeviceEvidence};
use crate::wire::Malformed;

/// What devices need. Unjudged: it is picked by what evidence and endorsements say of themselves.
pub struct DeviceNeeds {
    software: Vec<Software>,
    /// Whose lists and answers matter.
    issuers: Vec<Name>,
    /// Of the certificates that answers may be about.
    serials: Vec<Vec<u8>>,
}

/// A manifest that is wanted.
struct Software {
    subject: String,
    id: Option<String>,
}

impl DeviceNeeds {
    /// What `devices` need.
    ///
    /// # Errors
    /// When their evidence is malformed.
    pub fn of(devices: &[DeviceEvidence]) -> Result<Self, Malformed> {
        let mut needs = Self { software: Vec::new(), issuers: Vec::new(), serials: Vec::new() };
        for evidence in devices {
            let device = Device::parse(evidence)?;
            needs.cover(&device.certificates);
            let Some((chip, kind)) = &device.kind else { continue };
            for software in kind.software(chip) {
                let version = software.version.unwrap_or_default();
                let subject = format!("{} {version}", chip.name());
                needs.software.push(Software { subject, id: software.manifest_id });
            }
        }
        Ok(needs)
    }

    /// Adds what speaks for the signer of `manifest`; nothing if it is none.
    pub fn add(&mut self, manifest: &[u8]) {
        let mut all = DeviceEndorsements::default();
        if all.add(0, manifest).is_ok() {
            all.manifests.iter().for_each(|(_, manifest)| self.cover(manifest.certificates()));
        }
    }

    fn cover(&mut self, certificates: &[Certificate]) {
        self.issuers.extend(certificates.iter().map(|one| one.subject.clone()));
        self.serials.extend(certificates.iter().map(|one| one.serial.clone()));
    }

    /// Which question an endorsement would answer: of two with the same slot, the newer is the one to
    /// take. None when it is about other devices.
    pub fn slot(&self, endorsement: &[u8]) -> Option<String> {
        let mut all = DeviceEndorsements::default();
        all.add(0, endorsement).ok()?;
        if let [(_, manifest)] = all.manifests.as_slice() {
            return self.wants(manifest).map(|subject| format!("manifest {subject}"));
        }
        if let [list] = all.revocations.lists.as_slice() {
            let wanted = self.issuers.contains(&list.issuer);
            return wanted.then(|| format!("list of {}", list.issuer));
        }
        let [answer] = all.revocations.answers.as_slice() else { return None };
        let mut serials: Vec<_> = answer.describe().map(|single| single.subject).collect();
        serials.sort_unstable();
        let wanted = self.serials.iter().any(|serial| serials.contains(&hex::encode(serial)));
        wanted.then(|| format!("answer about {}", serials.join(" ")))
    }

    fn wants(&self, manifest: &Unverified) -> Option<&str> {
        let subject = manifest.describe().subject;
        let fits = |software: &&Software| {
            let named = |id: &str| {
                software.id.as_ref().is_some_and(|wanted| wanted.eq_ignore_ascii_case(id))
            };
            software.subject.eq_ignore_ascii_case(&subject) && manifest.id().is_none_or(named)
        };
        self.software.iter().find(fits).map(|software| software.subject.as_str())
    }
}
