//! What comes beside the evidence of devices: reference manifests, revocation lists, stapled answers.

use alloc::vec::Vec;

use super::manifest::Unverified;
use super::ocsp::Answer;
use super::revocation::Revocations;
use super::{ITEM_LIMIT, RevocationList, Signed, read_pem};
use crate::wire::Malformed;

/// Most endorsements that a set of devices may come with.
pub(crate) const COUNT_LIMIT: usize = 256;

/// All endorsements of a set of devices, told apart.
#[derive(Default)]
pub(crate) struct DeviceEndorsements {
    /// Each with its position in the list.
    pub(crate) manifests: Vec<(usize, Unverified)>,
    pub(crate) revocations: Revocations,
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

    fn add(&mut self, index: usize, item: &[u8]) -> Result<(), &'static str> {
        if item.len() > ITEM_LIMIT {
            return Err("larger than any honest endorsement");
        }
        match item.first() {
            Some(b'<') => self.manifests.push((index, Unverified::read(item)?)),
            Some(b'{') => self.manifests.push((index, Unverified::read_served(item)?)),
            Some(b'-') => return read_pem(item)?.iter().try_for_each(|der| self.add_list(der)),
            _ if Answer::looks_like(item) => self.revocations.answers.push(Answer::read(item)?),
            _ => return self.add_list(item),
        }
        Ok(())
    }

    fn add_list(&mut self, der: &[u8]) -> Result<(), &'static str> {
        if self.revocations.lists.len() == COUNT_LIMIT {
            return Err("one revocation list too many");
        }
        if Signed::read(der).is_ok_and(|parts| parts.starts_with_version()) {
            return Err("a certificate: those of a device come with its report");
        }
        self.revocations.lists.push(RevocationList::read(der)?);
        Ok(())
    }
}
