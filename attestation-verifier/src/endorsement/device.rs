//! What comes beside the evidence of devices: reference manifests, revocation lists, stapled answers.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::manifest::Unverified;
use super::ocsp::Answer;
use super::revocation::Revocations;
use super::{Certificate, Described, ITEM_LIMIT, RevocationList, Signed, Source, read_pem};
use crate::evidence::device::{Architecture, DeviceEvidence};
use crate::wire::Malformed;

/// Most endorsements that a set of devices may come with.
pub(crate) const COUNT_LIMIT: usize = 256;

/// All endorsements of a set of devices, told apart.
#[derive(Default)]
pub(crate) struct DeviceEndorsements {
    /// Each with its position in the list.
    pub(crate) manifests: Vec<(usize, Unverified)>,
    pub(crate) revocations: Revocations,
    /// Each with its position: only ever compared with the roots that are believed.
    pub(crate) roots: Vec<(usize, Certificate)>,
}

impl DeviceEndorsements {
    pub(crate) fn read(items: &[&[u8]]) -> Result<Self, Malformed> {
        if items.len() > COUNT_LIMIT {
            return Err(Malformed::TooLong {
                part: "list of endorsements",
                observed: items.len(),
                limit: COUNT_LIMIT,
            });
        }
        let mut all = Self::default();
        for (index, item) in items.iter().enumerate() {
            all.add(index, item).map_err(|problem| Malformed::Endorsement { index, problem })?;
        }
        Ok(all)
    }

    pub(super) fn add(&mut self, index: usize, item: &[u8]) -> Result<(), &'static str> {
        if item.len() > ITEM_LIMIT {
            return Err("larger than any honest endorsement");
        }
        match item.first() {
            Some(b'<') => self.manifests.push((index, Unverified::read(item)?)),
            Some(b'{') => self.manifests.push((index, Unverified::read_served(item)?)),
            Some(b'-') => {
                return read_pem(item)?.iter().try_for_each(|der| self.add_der(index, der));
            }
            _ if Answer::looks_like(item) => self.revocations.answers.push(Answer::read(item)?),
            _ => return self.add_der(index, item),
        }
        Ok(())
    }

    fn add_der(&mut self, index: usize, der: &[u8]) -> Result<(), &'static str> {
        if self.revocations.lists.len().max(self.roots.len()) == COUNT_LIMIT {
            return Err("one root or revocation list too many");
        }
        if !Signed::read(der).is_ok_and(|parts| parts.starts_with_version()) {
            self.revocations.lists.push(RevocationList::read(der)?);
            return Ok(());
        }
        let certificate = Certificate::read(der)?;
        if !certificate.is_self_issued() {
            return Err("a certificate: those of a device come with its report");
        }
        self.roots.push((index, certificate));
        Ok(())
    }
}

/// What to get for a device, as far as its evidence, which no one has judged, says.
///
/// # Errors
/// When the evidence is malformed.
pub fn device_sources(evidence: &DeviceEvidence) -> Result<Vec<Source>, Malformed> {
    let family = match evidence.architecture()? {
        Some(Architecture::Blackwell) => "gb100",
        _ => "gh100",
    };
    let source = |what, url: String, note| Source { what, url, note };
    let manifests = evidence.manifest_ids()?.into_iter().map(|id| {
        let note = "changes: NVIDIA signs it anew, and sometimes with other values";
        source("reference manifest", format!("{MANIFESTS}/{id}"), note)
    });
    let daily = "changes: get it again every day";
    let by_request = "by request, for each certificate below a root but the device key's";
    let mut all: Vec<_> = manifests.collect();
    all.extend([
        source("revocation list of the device root", format!("{LISTS}/crl/l1-root.crl"), daily),
        source("revocation list of the family", format!("{LISTS}/crl/l2-{family}.crl"), daily),
        source(
            "revocation list of the manifest root",
            format!("{LISTS}/crl-corim/l1-corim.crl"),
            daily,
        ),
        source("ocsp answers", RESPONDER.into(), by_request),
    ]);
    Ok(all)
}

const MANIFESTS: &str = "https://rim.attestation.nvidia.com/v1/rim";
const LISTS: &str = "http://crl.ndis.nvidia.com";
const RESPONDER: &str = "http://ocsp.ndis.nvidia.com";

/// Tells an endorsement of devices by its content, and until when it is good. Unjudged.
///
/// # Errors
/// What is wrong with it, when it is none.
pub fn describe_for_devices(item: &[u8]) -> Result<Vec<Described>, &'static str> {
    let mut all = DeviceEndorsements::default();
    all.add(0, item)?;
    let manifests = all.manifests.iter().map(|(_, manifest)| manifest.describe());
    let answers = all.revocations.answers.iter().flat_map(Answer::describe);
    let mut described: Vec<_> = manifests.chain(answers).collect();
    if !(all.revocations.lists.is_empty() && all.roots.is_empty()) {
        described.extend(super::describe(item)?);
    }
    Ok(described)
}
