//! A heap of endorsements, sorted: which are the processor's, which the devices', and which
//! certificates make a device's chain.
//!
//! Sorting is liberal, because it decides nothing: whatever is sorted wrongly is refused where it is
//! judged. Certificates may come in any order, one to a file or many, in DER or PEM.

use alloc::vec::Vec;

use super::device::COUNT_LIMIT;
use super::nvidia::Chip;
use super::{Certificate, RevocationList, Signed, describe_for_devices, read_pem, slot, write_pem};
use crate::evidence::Evidence;

/// Most certificates of a chain that is put together.
const CHAIN_LIMIT: usize = 8;

/// Endorsements of a machine, told apart.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Heap {
    /// Those of the processor, as they came.
    pub processor: Vec<Vec<u8>>,
    /// Those of the devices, as they came.
    pub devices: Vec<Vec<u8>>,
    /// Certificate chains of devices in PEM, leaf first, in the order of their leaves.
    pub chains: Vec<Vec<u8>>,
}

/// Sorts what came with the evidence of devices, and perhaps of a `processor`.
pub fn sort(items: &[&[u8]], processor: Option<&Evidence<'_>>) -> Heap {
    let mut heap = Heap::default();
    let mut groups = Vec::new();
    for item in items {
        match certificates_and_lists(item) {
            Some((certificates, lists)) => {
                groups.extend(group(item, certificates, lists.is_empty()));
                for list in lists {
                    let mine = processor.is_some_and(|evidence| slot(evidence, &list).is_some());
                    if mine { &mut heap.processor } else { &mut heap.devices }.push(list);
                }
            }
            None => {
                let devices = processor.is_none() || describe_for_devices(item).is_ok();
                if devices { &mut heap.devices } else { &mut heap.processor }.push(item.to_vec());
            }
        }
    }
    place(groups, processor, &mut heap);
    heap
}

/// Certificates that follow each other in one file.
struct Group {
    certificates: Vec<Certificate>,
    /// The file, if there is nothing else in it.
    file: Option<Vec<u8>>,
}

impl Group {
    fn is_device_chain(&self) -> bool {
        self.certificates.first().is_some_and(|leaf| Chip::of_key(leaf).is_some())
    }

    fn into_pem(self) -> Vec<u8> {
        match self.file {
            Some(file) if file.starts_with(b"-") => file,
            _ => {
                self.certificates.iter().flat_map(|one| write_pem(&one.der).into_bytes()).collect()
            }
        }
    }

    fn into_file(self) -> Vec<u8> {
        if let Some(file) = self.file { file } else { self.into_pem() }
    }

    /// Adds what certifies the last one, from wherever it lies, up to a root.
    fn complete(&mut self, all: &[Certificate]) {
        while let Some(last) = self.certificates.last()
            && !last.is_self_issued()
            && self.certificates.len() < CHAIN_LIMIT
            && let Some(issuer) = all.iter().find(|one| one.subject == last.issuer)
        {
            self.certificates.push(issuer.clone());
            self.file = None;
        }
    }
}

/// Every certificate and list of a file, in DER; none if it holds neither, or something else as well.
type Parts = (Vec<Certificate>, Vec<Vec<u8>>);

fn certificates_and_lists(item: &[u8]) -> Option<Parts> {
    let blocks = match item {
        [b'-', ..] => read_pem(item).ok()?,
        _ => Vec::from([item.to_vec()]),
    };
    let (mut certificates, mut lists) = (Vec::new(), Vec::new());
    for der in blocks {
        if Signed::read(&der).ok()?.starts_with_version() {
            certificates.push(Certificate::read(&der).ok()?);
        } else {
            RevocationList::read(&der).ok()?;
            lists.push(der);
        }
    }
    Some((certificates, lists))
}

/// A root ends a chain: what follows it in the same file is another.
fn group(item: &[u8], certificates: Vec<Certificate>, alone: bool) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for certificate in certificates {
        match groups.last_mut() {
            Some(Group { certificates, .. })
                if certificates.last().is_some_and(|last| !last.is_self_issued()) =>
            {
                certificates.push(certificate);
            }
            _ => groups.push(Group { certificates: Vec::from([certificate]), file: None }),
        }
    }
    if let ([only], true) = (groups.as_mut_slice(), alone) {
        only.file = Some(item.to_vec());
    }
    groups
}

fn place(groups: Vec<Group>, processor: Option<&Evidence<'_>>, heap: &mut Heap) {
    let all: Vec<_> = groups.iter().flat_map(|group| group.certificates.clone()).collect();
    let (leaves, others): (Vec<_>, Vec<_>) = groups.into_iter().partition(Group::is_device_chain);
    // Without any leaf there is but a piece of a chain, to be judged as one.
    let pieces = leaves.is_empty() && processor.is_none();
    let mut used = Vec::new();
    for mut leaf in leaves.into_iter().take(COUNT_LIMIT) {
        let own = leaf.certificates.len();
        leaf.complete(&all);
        used.extend(leaf.certificates.iter().skip(own).map(|one| one.der.clone()));
        heap.chains.push(leaf.into_pem());
    }
    for group in others {
        let is_used = group.certificates.iter().all(|one| used.contains(&one.der));
        if pieces {
            heap.chains.push(group.into_pem());
        } else if !is_used {
            let mine = processor.is_some();
            if mine { &mut heap.processor } else { &mut heap.devices }.push(group.into_file());
        }
    }
}
